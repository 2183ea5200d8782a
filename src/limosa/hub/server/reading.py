"""What there is, and how to get it: versions, plans, edges."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from limosa.errors import ConfigError, NotFoundError
from limosa.hub.planner import NOTHING, RouteLimits
from limosa.hub.server.bodies import CopyBody, DeliveryBody, EdgeBody, PlanBody
from limosa.hub.server.context import Asking, Hub, HubHere, Repository
from limosa.hub.store.graph import Step
from limosa.hub.store.ledger import Delivery
from limosa.hub.store.records import Version, iso

router = APIRouter(tags=["reading"])
# Held versions from which an edge that is not made yet is considered: the newest ones.
_CANDIDATES = 4


@router.get("/v1/whoami")
def whoami(caller: Asking) -> dict[str, Any]:
    """Who asks, and what they may do."""
    return {
        "name": caller.name,
        "kind": caller.kind,
        "scopes": [str(scope) for scope in caller.scopes],
        "expires": iso(caller.expires),
    }


@router.get("/v1/repos")
def repositories(hub: HubHere, caller: Asking) -> dict[str, Any]:
    """The repositories that the caller may read."""
    found = hub.store.catalog.repositories(lambda name: caller.may("read", name))
    rows = [{**vars(one), "updated": iso(one.updated)} for one in found]
    return {"repositories": rows}


@router.get("/v1/repos/{owner}/{name}")
def repository(hub: HubHere, caller: Asking, repository: Repository) -> dict[str, Any]:
    """The versions and tags of a repository."""
    caller.require("read", repository)
    catalog = hub.store.catalog
    return {
        "name": repository,
        "description": catalog.description(repository),
        "versions": [version.to_json() for version in catalog.versions(repository)],
        "tags": [{**vars(tag), "moved": iso(tag.moved)} for tag in catalog.tags(repository)],
    }


@router.get("/v1/repos/{owner}/{name}/versions/{reference}")
def version(hub: HubHere, caller: Asking, repository: Repository, reference: str) -> dict[str, Any]:
    """A version by its name, a tag, or ``@DIGEST``, with its manifest."""
    caller.require("read", repository)
    found = hub.store.catalog.resolve(repository, reference)
    manifest = hub.store.catalog.manifest(repository, found.node.digest)
    return {**found.to_json(), "manifest": manifest.to_json()}


@router.get("/v1/repos/{owner}/{name}/graph")
def graph(hub: HubHere, caller: Asking, repository: Repository) -> dict[str, Any]:
    """All states that the repository knows, and the blobs between them."""
    caller.require("read", repository)
    names: dict[str, list[str]] = {}
    for one in hub.store.catalog.versions(repository):
        names.setdefault(one.node.digest, []).append(one.name)
    nodes = [
        {
            "digest": node.digest,
            "state": node.state,
            "names": names.get(node.digest, []),
            "of": node.copy_of,
            "bound": None if node.bound is None else node.bound.to_json(),
        }
        for node in hub.store.catalog.nodes(repository)
    ]
    edges = [
        {"base": e.base, "target": e.target, "nbytes": e.nbytes, "kind": e.kind, "sha256": e.sha256}
        for e in hub.store.graph.edges(repository)
    ]
    return {"nodes": nodes, "edges": edges}


@router.post("/v1/repos/{owner}/{name}/plan")
async def plan(
    request: Request, hub: HubHere, caller: Asking, repository: Repository, body: PlanBody
) -> dict[str, Any]:
    """The fewest bytes from what the receiver holds to what it wants."""
    caller.require("read", repository)
    return await hub.slowly(request, _plan, hub, repository, body)


def _plan(hub: Hub, repository: str, body: PlanBody) -> dict[str, Any]:
    started = time.monotonic()
    wanted = hub.store.catalog.resolve(repository, body.want)
    if body.layer is not None:
        wanted = _layer(hub, repository, wanted, body.layer)
    limits = RouteLimits(body.limits.hops, body.limits.seconds, body.limits.memory)
    target = wanted.node.digest
    extra = _makeable(hub, repository, body.have, wanted)
    start, steps = hub.store.graph.plan(repository, body.have, target, limits, extra=extra)
    whole = _whole(hub, repository, wanted)
    hub.metrics.plan_seconds.observe(time.monotonic() - started)
    return {
        "want": wanted.to_json(),
        "start": start if steps else target,
        "nbytes": sum(step.nbytes for step in steps),
        "whole_nbytes": whole,
        "route": [_told(step) for step in steps],
    }


def _told(step: Step) -> dict[str, Any]:
    return {
        "base": step.base,
        "target": step.target,
        "nbytes": step.nbytes,
        "sha256": None if step.edge is None else step.edge.sha256,
        "layer": 0 if step.edge is None else step.edge.layer,
        "estimated": step.edge is None,
        "seconds": step.seconds,
    }


def _layer(hub: Hub, repository: str, wanted: Version, layer: int) -> Version:
    """What the first layers of a version's blob give; the version itself if these are all."""
    edges = hub.store.graph.edges(repository)
    # Whole or an update: layers may start from a base.
    blobs = {edge.sha256 for edge in edges if edge.target == wanted.node.digest}
    for edge in edges:
        if edge.layer == layer and edge.sha256 in blobs:
            return hub.store.catalog.resolve(repository, f"@{edge.target}")
    layers = sorted(edge.layer for edge in edges if edge.layer and edge.sha256 in blobs)
    if layers and layer == layers[-1] + 1:
        return wanted
    # A lossy copy has a digest, and no name.
    named = f":{wanted.name}" if wanted.name else f"@{wanted.node.digest}"
    raise ConfigError(
        "the version has no such layer", where=f"{repository}{named}", found=str(layer),
        allowed=f"1 to {layers[-1] + 1}" if layers else "none: it was pushed without layers",
    )  # fmt: skip


def _makeable(
    hub: Hub, repository: str, have: list[str], wanted: Version
) -> dict[str, tuple[int, float]]:
    """Edges into *wanted* that could be made for who holds *have*: bytes and seconds."""
    target = wanted.node.digest
    held = hub.store.graph.known(repository, have)
    if any(node.digest == target for node in held):
        return {}
    stored = hub.store.graph.bases(repository, target)
    states = [node.state for node in reversed(held) if node.state not in stored]
    wished = list(dict.fromkeys(states))[:_CANDIDATES]
    if NOTHING not in stored:
        wished.append(NOTHING)
    found = hub.store.graph.estimates(repository, target)
    missing = [state for state in wished if state not in found]
    if missing:
        measured = hub.workshop.estimates(repository, missing, target)
        hub.store.graph.keep_estimates(repository, target, measured)
        found |= measured
    return {state: (n, max(s, 1e-6)) for state, (n, s) in found.items() if state in wished}


def _whole(hub: Hub, repository: str, wanted: Version) -> int | None:
    """Bytes of the whole model, stored or as it would be."""
    if wanted.blob_nbytes is not None:
        return wanted.blob_nbytes
    return hub.store.graph.estimates(repository, wanted.node.digest).get(NOTHING, (None, 0))[0]


@router.post(
    "/v1/repos/{owner}/{name}/edges",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/octet-stream": {}}}, 303: {"description": "made"}},
)
async def edge(
    request: Request, hub: HubHere, caller: Asking, repository: Repository, body: EdgeBody
) -> Response:
    """The bytes of an edge while they are made; where they are, if it is there already."""
    caller.require("read", repository)
    found = await hub.slowly(request, _edge, hub, repository, body)
    if isinstance(found, Response):
        return found
    pieces = _counted(request, hub, *found)
    return StreamingResponse(pieces, media_type="application/octet-stream")


def _edge(hub: Hub, repository: str, body: EdgeBody) -> Response | tuple[bytes, Iterator[bytes]]:
    found = hub.store.graph.find(repository, body.base, body.target)
    hub.metrics.edges.labels("no" if found is None else "yes").inc()
    if found is not None:
        hub.store.graph.lease([found.sha256])
        return RedirectResponse(f"/v1/repos/{repository}/blobs/{found.sha256}", 303)
    pieces = hub.workshop.edge(repository, body.base, body.target)
    # The first piece now: what is wrong before it can still be told with a status.
    return next(pieces, b""), pieces


async def _counted(
    request: Request, hub: Hub, piece: bytes, rest: Iterator[bytes]
) -> AsyncIterator[bytes]:
    sent = hub.metrics.sent.labels("edge")
    while piece:
        sent.inc(len(piece))
        yield piece
        piece = await hub.slowly(request, next, rest, b"")


@router.post("/v1/repos/{owner}/{name}/copies")
async def copy(
    request: Request, hub: HubHere, caller: Asking, repository: Repository, body: CopyBody
) -> dict[str, Any]:
    """A lossy copy of a version, with how far it was measured to be from it."""
    caller.require("read", repository)
    return await hub.slowly(request, _copy, hub, repository, body)


def _copy(hub: Hub, repository: str, body: CopyBody) -> dict[str, Any]:
    wanted = hub.store.catalog.resolve(repository, body.want)
    with hub.metrics.work_seconds.labels("copy").time():
        return hub.workshop.copy(repository, wanted.node.digest, body.quality).to_json()


@router.post("/v1/deliveries", status_code=204)
def delivery(hub: HubHere, caller: Asking, body: DeliveryBody) -> None:
    """A pull that ended well."""
    caller.require("read", body.repository)
    wanted = hub.store.catalog.resolve(body.repository, f"@{body.target}")
    whole = _whole(hub, body.repository, wanted) or body.nbytes
    hub.store.ledger.add(
        Delivery(
            body.repository, body.start, body.target, body.nbytes, whole, wanted.node.nbytes,
            caller.name,
        )
    )  # fmt: skip
    hub.metrics.saved.inc(max(0, whole - body.nbytes))
    if wanted.node.digest and body.start:
        hub.store.graph.used(body.repository, body.start, body.target)


def require_version(hub: Hub, repository: str, name: str) -> Version:
    """A version by name.

    Raises:
        NotFoundError: there is none.
    """
    found = hub.store.catalog.resolve(repository, name)
    if found.name != name:
        raise NotFoundError("a tag, not a version", where=f"{repository}:{name}")
    return found
