"""Tokens, of which only hashes are kept, and devices."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from limosa.errors import AuthError, ConflictError, NotFoundError, TransportError
from limosa.hub.store.database import Database
from limosa.hub.store.schema import devices, holdings, tokens
from limosa.hub.trust import Caller, Scope, hash_token, make_token, parse_scopes

# The time of a token's last use is written at most so often, in seconds.
_USED_S = 60.0
# Made once, for every request asks it.
_TOKEN = sa.select(tokens).where(tokens.c.hash == sa.bindparam("hash"))


@dataclass(frozen=True)
class TokenInfo:
    """A token, without its secret."""

    id: int
    name: str
    kind: str
    scopes: tuple[Scope, ...]
    created: float
    expires: float | None
    used: float | None


@dataclass(frozen=True)
class Holding:
    """A version that a device said it holds, and where."""

    repository: str
    digest: str
    path: str = ""


@dataclass(frozen=True)
class Device:
    """A receiver that the hub knows by name.

    Attributes:
        seen: when it last said what it holds; seconds since 1970.
        holds: what it said.
    """

    id: int
    name: str
    seen: float | None
    holds: tuple[Holding, ...]


class Accounts:
    """Who there is.

    Args:
        database: where they stand.
        clock: seconds since 1970.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def create_token(
        self,
        name: str,
        scopes: Sequence[Scope],
        *,
        kind: str = "user",
        expires: float | None = None,
    ) -> tuple[int, str]:
        """A new token and its number; nobody can ask for it a second time."""
        token = make_token(secrets.token_bytes(32))
        with self._database.begin() as connection:
            number = self._add(connection, token, name, scopes, kind, expires)
        return number, token

    def first_token(self) -> str | None:
        """An admin's token, if there is no token yet: for the first run, under a lock."""
        token = make_token(secrets.token_bytes(32))
        with self._database.begin() as connection:
            if connection.execute(sa.select(tokens.c.id)).first() is not None:
                return None
            self._add(connection, token, "admin", parse_scopes(["admin:*"]), "user", None)
        return token

    def caller(self, token: str) -> Caller:
        """Who has this token.

        Raises:
            AuthError: nobody, or it has expired.
        """
        now = self._clock()
        with self._database.read() as connection:
            row = connection.execute(_TOKEN, {"hash": hash_token(token)}).first()
        if row is None:
            raise AuthError("the hub does not know this token", remedy="run limosa login")
        if row.expires is not None and row.expires <= now:
            raise AuthError("the token has expired", remedy="ask for another, run limosa login")
        if row.used is None or row.used < now - _USED_S:
            # Not worth a refusal: a full disk stops nobody who only reads.
            with suppress(TransportError), self._database.begin() as connection:
                connection.execute(sa.update(tokens).where(tokens.c.id == row.id).values(used=now))
        return Caller(row.id, row.name, row.kind, _scopes(row.scopes), row.expires)

    def tokens(self) -> list[TokenInfo]:
        """All of them, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(sa.select(tokens).order_by(tokens.c.id)).all()
        return [
            TokenInfo(
                row.id, row.name, row.kind, _scopes(row.scopes), row.created, row.expires, row.used
            )
            for row in rows
        ]

    def revoke(self, number: int) -> None:
        """Forget a token; the last one that may do everything stays.

        Raises:
            NotFoundError: there is none of that number.
            ConflictError: nobody could hand out tokens any more.
        """
        with self._database.begin() as connection:
            rows = connection.execute(sa.select(tokens).with_for_update()).all()
            if number not in [row.id for row in rows]:
                raise NotFoundError("no such token", where=str(number))
            able = [row.id for row in rows if self._rules(row)]
            if able == [number]:
                raise ConflictError(
                    "this is the last token with admin:*", where=f"token {number}",
                    remedy="make another first",
                )  # fmt: skip
            connection.execute(sa.delete(tokens).where(tokens.c.id == number))

    def register(self, name: str, scopes: Sequence[Scope]) -> tuple[int, str]:
        """A new device, its number and token; one of that name gets a new token and loses the old.

        Raises:
            ConflictError: two ask at once.
        """
        token, now = make_token(secrets.token_bytes(32)), self._clock()
        with self._database.begin() as connection:
            old = connection.execute(
                sa.select(devices.c.token_id).where(devices.c.name == name)
            ).scalar()
            number = self._add(connection, token, name, scopes, "device", None)
            values = {"name": name, "token_id": number, "created": now}
            connection.execute(self._database.upsert(devices, values, ["name"]))
            if old is not None:
                connection.execute(sa.delete(tokens).where(tokens.c.id == old))
            made = connection.execute(
                sa.select(devices.c.id).where(devices.c.name == name)
            ).scalar_one()
        return int(made), token

    def hold(self, caller: Caller, held: Sequence[Holding]) -> None:
        """What a device holds now.

        Raises:
            NotFoundError: the caller is no device.
        """
        with self._database.begin() as connection:
            number = connection.execute(
                sa.select(devices.c.id).where(devices.c.token_id == caller.id)
            ).scalar()
            if number is None:
                raise NotFoundError(
                    "this token is of no device", where=caller.name,
                    remedy="limosa device register NAME gives one that is",
                )  # fmt: skip
            connection.execute(sa.delete(holdings).where(holdings.c.device_id == number))
            for one in held:
                connection.execute(sa.insert(holdings).values(device_id=number, **vars(one)))
            connection.execute(
                sa.update(devices).where(devices.c.id == number).values(seen=self._clock())
            )

    def devices(self) -> list[Device]:
        """All of them, by name, with what they hold."""
        with self._database.read() as connection:
            rows = connection.execute(sa.select(devices).order_by(devices.c.name)).all()
            held: dict[int, list[Holding]] = {}
            for row in connection.execute(sa.select(holdings).order_by(holdings.c.id)):
                one = Holding(row.repository, row.digest, row.path)
                held.setdefault(row.device_id, []).append(one)
        return [Device(r.id, r.name, r.seen, tuple(held.get(r.id, ()))) for r in rows]

    def inventory(self, repository: str) -> Mapping[str, int]:
        """How many devices hold each version of a repository."""
        query = sa.select(holdings.c.digest, sa.func.count().label("devices")).where(
            holdings.c.repository == repository
        )
        with self._database.read() as connection:
            rows = connection.execute(query.group_by(holdings.c.digest)).all()
        return {row.digest: row.devices for row in rows}

    def _add(
        self,
        connection: sa.Connection,
        token: str,
        name: str,
        scopes: Sequence[Scope],
        kind: str,
        expires: float | None,
    ) -> int:
        values: dict[str, Any] = {
            "hash": hash_token(token), "name": name, "kind": kind,
            "scopes": json.dumps([str(scope) for scope in scopes]), "created": self._clock(),
            "expires": expires,
        }  # fmt: skip
        made = connection.execute(sa.insert(tokens).values(**values))
        return int(made.inserted_primary_key[0]) if made.inserted_primary_key else 0

    @staticmethod
    def _rules(row: Any) -> bool:
        return row.expires is None and Scope("admin", "*") in _scopes(row.scopes)


def _scopes(text: str) -> tuple[Scope, ...]:
    return parse_scopes(json.loads(text))
