"""What operators do: upkeep, tokens, devices."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from limosa.errors import ConfigError
from limosa.hub.reference import parse_reference
from limosa.hub.server.bodies import (
    ClusterBody,
    DeviceBody,
    FsckBody,
    GcBody,
    HoldingsBody,
    PrebakeBody,
    TokenBody,
)
from limosa.hub.server.context import Asking, HubHere
from limosa.hub.store.accounts import Holding
from limosa.hub.store.records import iso
from limosa.hub.store.upkeep import fsck, gc
from limosa.hub.trust import check_grant, parse_scopes

router = APIRouter(tags=["operating"])


@router.post("/v1/gc")
def collect(hub: HubHere, caller: Asking, body: GcBody) -> dict[str, Any]:
    """Remove what nobody needs."""
    caller.require("admin", "*")
    freed = gc(
        hub.store, cache_bytes=hub.settings.cache_bytes, thin=body.thin, uploads=body.uploads,
        dry_run=body.dry_run,
    )  # fmt: skip
    return vars(freed)


@router.post("/v1/fsck")
def check(hub: HubHere, caller: Asking, body: FsckBody) -> dict[str, Any]:
    """See whether all that should be there is there."""
    caller.require("admin", "*")
    return vars(fsck(hub.store, read_data=body.read_data))


@router.post("/v1/prebake")
def prebake(hub: HubHere, caller: Asking, body: PrebakeBody) -> dict[str, Any]:
    """Make the edges that most devices need."""
    caller.require("admin", body.repository)
    made = hub.workshop.prebake(body.repository, seconds=body.seconds, dry_run=body.dry_run)
    return {"edges": made}


@router.post("/v1/cluster")
def cluster(hub: HubHere, caller: Asking, body: ClusterBody) -> dict[str, Any]:
    """What a family takes from each base, and, if asked, from the best one from now on."""
    family: dict[str, tuple[str, str]] = {}
    for text in body.versions:
        reference = parse_reference(text)
        caller.require("admin", reference.repository)
        found = hub.store.catalog.resolve(reference.repository, reference.version)
        family[str(reference)] = (reference.repository, found.node.digest)
    if len(family) < 2:
        raise ConfigError("a family has two members at least", found=str(len(family)))
    return hub.workshop.cluster(family, apply=body.apply)


@router.get("/v1/tokens")
def tokens(hub: HubHere, caller: Asking) -> dict[str, Any]:
    """All tokens, without their secrets."""
    caller.require("admin", "*")
    rows = [
        {
            "id": one.id,
            "name": one.name,
            "kind": one.kind,
            "scopes": [str(scope) for scope in one.scopes],
            "created": iso(one.created),
            "expires": iso(one.expires),
            "used": iso(one.used),
        }
        for one in hub.store.accounts.tokens()
    ]
    return {"tokens": rows}


@router.post("/v1/tokens", status_code=201)
def create_token(hub: HubHere, caller: Asking, body: TokenBody) -> dict[str, Any]:
    """A new token, which is shown this once."""
    caller.require("admin", "*")
    scopes = parse_scopes(body.scopes)
    check_grant(caller, scopes)
    expires = None if body.expires is None else hub.store.clock() + body.expires
    number, token = hub.store.accounts.create_token(body.name, scopes, expires=expires)
    return {"id": number, "token": token}


@router.delete("/v1/tokens/{number}", status_code=204)
def revoke_token(hub: HubHere, caller: Asking, number: int) -> None:
    """Forget a token."""
    caller.require("admin", "*")
    hub.store.accounts.revoke(number)


@router.get("/v1/devices")
def devices(hub: HubHere, caller: Asking) -> dict[str, Any]:
    """All devices, and what they hold of repositories that the caller may read."""
    caller.require("admin", "*")
    rows = [
        {
            "id": one.id,
            "name": one.name,
            "seen": iso(one.seen),
            "holds": [vars(h) for h in one.holds],
        }
        for one in hub.store.accounts.devices()
    ]
    return {"devices": rows}


@router.post("/v1/devices", status_code=201)
def register(hub: HubHere, caller: Asking, body: DeviceBody) -> dict[str, Any]:
    """A new device, and its token, which is shown this once."""
    caller.require("admin", "*")
    scopes = parse_scopes(body.scopes)
    check_grant(caller, scopes)
    number, token = hub.store.accounts.register(body.name, scopes)
    return {"id": number, "token": token}


@router.put("/v1/devices/self", status_code=204)
def hold(hub: HubHere, caller: Asking, body: HoldingsBody) -> None:
    """What the device that asks holds now."""
    for one in body.holds:
        caller.require("read", one.repository)
    held = [Holding(one.repository, one.digest, one.path) for one in body.holds]
    hub.store.accounts.hold(caller, held)
