"""Edges made ahead of demand: those first that save most bytes over the whole fleet."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from limosa.errors import NotFoundError

if TYPE_CHECKING:
    from limosa.exchange.workshop.shop import Shop


def prebake(shop: Shop, repository: str, *, seconds: float, dry_run: bool) -> list[dict[str, Any]]:
    """Make edges from what devices hold to what tags mean.

    Args:
        shop: of the hub.
        repository: whose.
        seconds: after which no further edge is begun.
        dry_run: only say which, and what they would save.

    Returns:
        One row an edge: base, target, devices, bytes that it takes, and that it saves when each
        of these devices updates once.
    """
    rows = [row for row in _candidates(shop, repository) if row["saves"] > 0]
    rows.sort(key=lambda row: (-row["saves"], row["base"], row["target"]))
    instead = [row.pop("otherwise") for row in rows]
    if dry_run:
        return rows
    until, made = time.monotonic() + seconds, []
    for row, nbytes in zip(rows, instead, strict=True):
        if time.monotonic() > until:
            break
        row["nbytes"] = shop.bake(repository, row["base"], row["target"], "baked")
        row["saves"] = row["devices"] * (nbytes - row["nbytes"])
        made.append(row)
    return made


def _candidates(shop: Shop, repository: str) -> list[dict[str, Any]]:
    graph, found = shop.store.graph, []
    devices = Counter(shop.store.accounts.inventory(repository))
    for target in sorted({tag.digest for tag in shop.store.catalog.tags(repository)}):
        states: Counter[str] = Counter()
        for node in graph.known(repository, list(devices)):
            if node.digest != target:
                states[node.state] += devices[node.digest]
        for state, count in states.items():
            if graph.find(repository, state, target) is not None:
                continue
            otherwise = _route_bytes(shop, repository, state, target)
            estimate = shop.estimates(repository, [state], target).get(state)
            if estimate is None:
                continue  # the hub has too much to do for that now
            estimated, _ = estimate
            found.append(
                {
                    "base": state, "target": target, "devices": count, "nbytes": estimated,
                    "saves": count * (otherwise - estimated), "otherwise": otherwise,
                }
            )  # fmt: skip
    return found


def _route_bytes(shop: Shop, repository: str, state: str, target: str) -> int:
    """What who holds *state* fetches over the edges that are there."""
    try:
        _, steps = shop.store.graph.plan(repository, [state], target)
    except NotFoundError:
        return 0
    return sum(step.nbytes for step in steps)
