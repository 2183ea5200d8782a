"""From the store to what the pages show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from limosa.hub.pages import views
from limosa.hub.server.context import Hub
from limosa.hub.store.ledger import Day
from limosa.hub.store.records import Bound, Version
from limosa.hub.trust import Caller


def repositories(hub: Hub, caller: Caller, page: views.Page) -> views.RepositoriesView:
    """The first page."""
    found = hub.store.catalog.repositories(lambda name: caller.may("read", name))
    rows = []
    for one in found:
        versions = hub.store.catalog.versions(one.name)
        latest = versions[-1].name if versions else ""
        rows.append(
            views.RepositoryRow(
                one.name, one.description, one.versions, one.nbytes, one.updated, latest
            )
        )
    return views.RepositoriesView(page, rows, saved(hub, [one.name for one in found]))


def saved(hub: Hub, repositories: list[str]) -> list[views.SavedPoint]:
    """What was saved in these repositories, by day."""
    return [_point(day) for day in hub.store.ledger.days(repositories)]


def saved_view(hub: Hub, caller: Caller, page: views.Page) -> views.SavedView:
    """The page of what was saved."""
    found = hub.store.catalog.repositories(lambda name: caller.may("read", name))
    names = [one.name for one in found]
    by_repository = {}
    for name in names:
        days = hub.store.ledger.days([name])
        if days:
            by_repository[name] = views.SavedPoint(
                _date(days[-1].at), sum(day.nbytes for day in days),
                sum(day.whole_nbytes for day in days), sum(day.raw_nbytes for day in days),
                sum(day.pulls for day in days),
            )  # fmt: skip
    return views.SavedView(page, saved(hub, names), by_repository)


def _point(day: Day) -> views.SavedPoint:
    return views.SavedPoint(_date(day.at), day.nbytes, day.whole_nbytes, day.raw_nbytes, day.pulls)


def _date(at: float) -> Any:
    return datetime.fromtimestamp(at, timezone.utc).date()


def repository(hub: Hub, name: str, page: views.Page) -> views.RepositoryView:
    """The page of a repository."""
    catalog, graph = hub.store.catalog, hub.store.graph
    versions, edges = catalog.versions(name), graph.edges(name)
    tags = _tags(hub, name)
    devices = hub.store.accounts.inventory(name)
    parents = {one.node.digest: one.parents for one in versions}
    by_name = {one.name: one.node.digest for one in versions}
    names: dict[str, str] = {}
    for one in versions:
        names.setdefault(one.node.digest, one.name)
    nodes = [
        views.GraphNode(
            node.digest, node.state, names.get(node.digest, ""), node.nbytes, node.copy_of or "",
            "" if node.bound is None else node.bound.quality, tags.get(node.digest, ()),
            [by_name.get(parent, parent) for parent in parents.get(node.digest, ())],
        )
        for node in catalog.nodes(name)
    ]  # fmt: skip
    drawn = [views.GraphEdge(edge.base, edge.target, edge.nbytes, edge.kind) for edge in edges]
    rows = [_row(hub, name, one, tags, devices, edges) for one in reversed(versions)]
    return views.RepositoryView(
        page, name, catalog.description(name), rows, views.Graph(nodes, drawn), saved(hub, [name])
    )


def version(
    hub: Hub,
    repository: str,
    found: Version,
    page: views.Page,
    asked: views.Asked,
    statistics: Sequence[Mapping[str, Any]] | None,
    base: str,
) -> views.VersionView:
    """The page of a version; *statistics* None: they are being computed."""
    edges = hub.store.graph.edges(repository)
    tags, devices = _tags(hub, repository), hub.store.accounts.inventory(repository)
    names = {one.node.state: one.name for one in hub.store.catalog.versions(repository)}
    ways = [
        views.Way(edge.base, names.get(edge.base, ""), edge.nbytes, edge.kind)
        for edge in edges
        if edge.target == found.node.digest
    ]
    if statistics is None:
        manifest = hub.store.catalog.manifest(repository, found.node.digest)
        rows = [views.TensorRow(t.name, t.dtype, t.shape, 0) for t in manifest.tensors]
        whole = None
    else:
        rows = [_tensor(one) for one in statistics if one["name"]]
        whole = next((_tensor(one) for one in statistics if not one["name"]), None)
    row = _row(hub, repository, found, tags, devices, edges)
    return views.VersionView(
        page, repository, row, ways, rows, base, statistics is None, whole, asked
    )


def _row(
    hub: Hub,
    repository: str,
    found: Version,
    tags: Mapping[str, Sequence[str]],
    devices: Mapping[str, int],
    edges: Sequence[Any],
) -> views.VersionRow:
    digest = found.node.digest
    updates = [edge.nbytes for edge in edges if edge.target == digest and edge.base]
    of_name = ""
    if found.node.copy_of:
        of_name = next(
            (
                one.name
                for one in hub.store.catalog.versions(repository)
                if one.node.digest == found.node.copy_of
            ),
            "",
        )
    return views.VersionRow(
        found.name, digest, found.node.nbytes, found.created, found.by, found.blob_nbytes,
        min(updates, default=None), found.notes, found.metrics, found.parents,
        tags.get(digest, ()), devices.get(digest, 0), found.node.copy_of or "", of_name,
        _bound(found.node.bound),
    )  # fmt: skip


def _bound(found: Bound | None) -> views.Bound | None:
    return None if found is None else views.Bound(found.quality, found.snr, found.max_error)


def _tags(hub: Hub, repository: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for tag in hub.store.catalog.tags(repository):
        found.setdefault(tag.digest, []).append(tag.name)
    return found


def _tensor(found: Mapping[str, Any]) -> views.TensorRow:
    shape = tuple(found["shape"])
    row = views.TensorRow(
        found["name"] or "all tensors", found["dtype"], shape, found["nbytes"], found["mean"],
        found["std"], found["low"], found["high"],
    )  # fmt: skip
    if not found["edges"]:
        return row
    low, high = found["edges"][0], found["edges"][-1]
    delta, beside = found["delta_counts"], found["delta_edges"]
    return views.TensorRow(
        row.name, row.dtype, shape, row.nbytes, row.mean, row.std, row.low, row.high,
        views.Histogram(low, high, found["counts"]),
        None if delta is None else views.Histogram(beside[0], beside[-1], delta),
        None if found["changed"] is None else round(found["changed"] * row.elements),
    )  # fmt: skip


def devices(hub: Hub, page: views.Page) -> views.DevicesView:
    """The page of devices."""
    newer = _places(hub)
    rows = []
    for one in hub.store.accounts.devices():
        holds = []
        for held in one.holds:
            name, behind = newer.get((held.repository, held.digest), ("", None))
            holds.append(views.HoldRow(held.repository, name, held.digest, held.path, behind))
        rows.append(views.DeviceRow(one.name, one.seen, holds))
    return views.DevicesView(page, rows)


def _places(hub: Hub) -> dict[tuple[str, str], tuple[str, int | None]]:
    """Repository and digest -> the name of the version, and how many are newer."""
    held = Counter(
        holding.repository for one in hub.store.accounts.devices() for holding in one.holds
    )
    known = {one.name for one in hub.store.catalog.repositories(lambda name: name in held)}
    found: dict[tuple[str, str], tuple[str, int | None]] = {}
    for repository in known:
        versions = hub.store.catalog.versions(repository)
        for place, one in enumerate(versions):
            found[repository, one.node.digest] = (one.name, len(versions) - 1 - place)
    return found


def tokens(
    hub: Hub,
    caller: Caller,
    page: views.Page,
    form: views.TokenForm | None = None,
    secret: str = "",
    secret_name: str = "",
) -> views.TokensView:
    """The page of tokens."""
    rows = [
        views.TokenRow(
            one.id, one.name, one.kind, [str(scope) for scope in one.scopes], one.created,
            one.expires, one.used, one.id == caller.id,
        )
        for one in hub.store.accounts.tokens()
    ]  # fmt: skip
    return views.TokensView(page, rows, form or views.TokenForm(), secret, secret_name)
