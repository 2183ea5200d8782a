"""Who may do what: tokens and their scopes (no I/O; secrets and times are arguments)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from limosa.errors import AuthError, ConfigError, NotFoundError
from limosa.hub.problems import ForbiddenError

Action = Literal["read", "push", "admin"]
#: Each includes those before it.
ACTIONS: tuple[Action, ...] = ("read", "push", "admin")
#: What a token begins with, so that scanners of leaked secrets know it.
PREFIX = "limosa_"
_SECRET_BYTES = 32
_PATTERN = re.compile(r"[a-z0-9*?._/-]{1,200}")


@dataclass(frozen=True)
class Scope:
    """One thing that a token allows.

    >>> Scope.parse("push:team/*").allows("read", "team/detector")
    True
    >>> Scope.parse("push:team/*").allows("push", "other/detector")
    False
    """

    action: Action
    pattern: str

    @classmethod
    def parse(cls, text: str) -> Scope:
        """What ``ACTION:PATTERN`` means.

        Raises:
            ConfigError: it means nothing.
        """
        action, _, pattern = text.partition(":")
        if action not in ACTIONS or not _PATTERN.fullmatch(pattern):
            raise ConfigError(
                "no scope", found=repr(text[:100]),
                allowed="read:, push: or admin: and a pattern of repositories, such as push:team/*",
            )  # fmt: skip
        return cls(action, pattern)

    def allows(self, action: Action, repository: str) -> bool:
        """Whether it allows *action* on *repository*; ``*`` stands for the whole hub."""
        if ACTIONS.index(action) > ACTIONS.index(self.action):
            return False
        if repository == "*":
            return self.pattern == "*"
        return fnmatchcase(repository, self.pattern)

    def covers(self, other: Scope) -> bool:
        """Whether who has this scope may hand out *other*: its pattern is this one or narrower."""
        if ACTIONS.index(other.action) > ACTIONS.index(self.action):
            return False
        if self.pattern in ("*", other.pattern):
            return True
        # A pattern within a pattern: only where this one ends in its single star.
        stem, star, rest = self.pattern.partition("*")
        return bool(star) and not rest and other.pattern.startswith(stem) and "?" not in stem

    def __str__(self) -> str:
        return f"{self.action}:{self.pattern}"


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes:
        id: of the token; 0 for nobody.
        name: of the user or the device.
        kind: "user", "device" or "anonymous".
        scopes: what it allows.
        expires: when it ends, in seconds since 1970, or None.
    """

    id: int
    name: str
    kind: str
    scopes: tuple[Scope, ...]
    expires: float | None = None

    def may(self, action: Action, repository: str) -> bool:
        """Whether *action* on *repository* is allowed."""
        return any(scope.allows(action, repository) for scope in self.scopes)

    def require(self, action: Action, repository: str) -> None:
        """Refuse what is not allowed.

        Raises:
            NotFoundError: the caller may not even know that the repository exists.
            AuthError: nobody said who the caller is.
            ForbiddenError: the caller may read it, and not do this.
        """
        if self.may(action, repository):
            return
        if self.kind == "anonymous":
            raise AuthError("a token is needed", remedy="run limosa login, or set LIMOSA_TOKEN")
        if repository != "*" and not self.may("read", repository):
            raise no_repository(repository)
        raise ForbiddenError(
            f"the token does not allow to {action}", where=repository,
            found=", ".join(map(str, self.scopes)) or "no scopes",
            allowed=f"{action}:{repository}", remedy="ask an admin of the hub for such a token",
        )  # fmt: skip


def no_repository(repository: str) -> NotFoundError:
    """The one error for what is not there and what must not be seen."""
    return NotFoundError(
        "no such repository", where=repository[:200], remedy="limosa ls shows what you may read"
    )


def parse_scopes(texts: Iterable[str]) -> tuple[Scope, ...]:
    """Scopes from their texts.

    Raises:
        ConfigError: there is none, or one means nothing.
    """
    scopes = tuple(map(Scope.parse, texts))
    if not scopes:
        raise ConfigError("a token without scopes allows nothing", allowed="one or more")
    return scopes


def check_grant(caller: Caller, scopes: Sequence[Scope]) -> None:
    """Let nobody hand out more than they have.

    Raises:
        ForbiddenError: *caller* is no admin of what *scopes* allow.
    """
    mine = [scope for scope in caller.scopes if scope.action == "admin"]
    for scope in scopes:
        if not any(own.covers(scope) for own in mine):
            raise ForbiddenError(
                "the token does not allow to hand this out", found=str(scope),
                allowed=", ".join(map(str, mine)) or "nothing",
            )  # fmt: skip


def make_token(secret: bytes) -> str:
    """A token from *secret*, random bytes.

    Raises:
        ValueError: they are too few.

    >>> make_token(bytes(32))[:11]
    'limosa_0000'
    """
    if len(secret) < _SECRET_BYTES:
        raise ValueError(f"{len(secret)} bytes are too few for a secret")
    return PREFIX + secret.hex()


def hash_token(token: str) -> str:
    """What a hub keeps of a token. Tokens are random, so a plain SHA-256 cannot be reversed.

    >>> len(hash_token("limosa_00"))
    64
    """
    return hashlib.sha256(token.encode()).hexdigest()
