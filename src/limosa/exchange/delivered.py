"""What a receiver tells the hub after a pull: for its page and its choice of edges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from limosa.errors import HubError
from limosa.exchange.held import Held
from limosa.hub.client import HubClient
from limosa.hub.reference import parse_reference
from limosa.hub.trust import parse_scopes

_LONGEST_PATH = 1000


def report(
    client: HubClient,
    repository: str,
    plan: Mapping[str, Any],
    nbytes: int,
    held: Iterable[Held],
) -> None:
    """Tell of a delivery, if there was one, and what is held now, if a device asks.

    A pull does not fail because the hub does not listen.
    """
    with suppress(HubError):
        if nbytes:
            body = {
                "repository": repository, "target": plan["want"]["digest"],
                "start": plan["start"], "nbytes": nbytes,
            }  # fmt: skip
            client.post("/v1/deliveries", body)
        who = client.whoami()
        if who["kind"] == "device":
            client.put("/v1/devices/self", {"holds": holdings(client.url, who["scopes"], held)})


def holdings(hub: str, scopes: Iterable[str], held: Iterable[Held]) -> list[dict[str, str]]:
    """What a hub may hear of: what came from it, of repositories that the token still may read.

    >>> one = Held("/m", "", "00" * 32, "00" * 32, "team/detector:v3", "http://hub")
    >>> [found["repository"] for found in holdings("http://hub", ["read:team/*"], [one])]
    ['team/detector']
    >>> holdings("http://other", ["read:team/*"], [one])
    []
    """
    allowed = parse_scopes(scopes)
    found = []
    for one in held:
        if not one.reference or one.hub != hub:
            continue
        repository = parse_reference(one.reference).repository
        if any(scope.allows("read", repository) for scope in allowed):
            path = one.path[-_LONGEST_PATH:]
            found.append({"repository": repository, "digest": one.digest, "path": path})
    return found
