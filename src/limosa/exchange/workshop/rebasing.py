"""Store a family anew, from the base that makes it smallest."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limosa.exchange.forms import manifest_of
from limosa.exchange.workshop.cluster import AVERAGE, ClusterReport, choose
from limosa.exchange.workshop.make import make_edge
from limosa.exchange.workshop.unpacked import base_of
from limosa.hub.file_digest import sha256_of
from limosa.hub.planner import NOTHING
from limosa.hub.store.records import StoredEdge
from limosa.hub.store.store import Store
from limosa.hub.store.thinning import essential

if TYPE_CHECKING:
    from limosa.exchange.workshop.shop import Shop

Members = Mapping[str, tuple[str, str]]


def cluster(
    shop: Shop,
    members: Members,
    *,
    apply: bool,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure a family, and, if asked, keep it from then on as its best base has it.

    Args:
        shop: of the hub.
        members: reference -> repository and digest.
        apply: make and keep the edges; the next ``gc`` drops those that are not needed any more.
        progress: is called with what is being measured.

    Returns:
        Bytes of every way, the best one, and bytes that must be kept before and after.
    """
    repositories = sorted({repository for repository, _ in members.values()})
    before = kept_bytes(shop.store, repositories)
    with ExitStack() as stack:
        paths = {
            name: stack.enter_context(shop.decoded.of_digest(*place))
            for name, place in members.items()
        }
        scratch = shop.work / f"cluster-{secrets.token_hex(6)}"
        scratch.mkdir()
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        report = choose(
            paths,
            limits=shop.limits,
            average_path=scratch / "average",
            threads=shop.settings.threads,
            progress=progress,
        )
        if apply:
            _keep(shop, members, report, scratch / "average")
    return {
        "whole": report.alone,
        "medoid": report.medoid,
        "medoid_bytes": report.star(report.medoid),
        "average_bytes": None if report.average_whole is None else report.star(AVERAGE),
        "tree_bytes": report.tree_bytes,
        "tree": dict(report.tree),
        "best": report.best,
        "members": {
            name: {"whole": report.whole[name], "from_average": report.against_average.get(name)}
            for name in members
        },
        "stored_before": before,
        "stored_after": kept_bytes(shop.store, repositories),
        "applied": apply,
    }


def kept_bytes(store: Store, repositories: Iterable[str]) -> int:
    """Bytes of blobs that these repositories need for one route to each of their versions."""
    sizes: dict[str, int] = {}
    for repository in repositories:
        stored = store.graph.edges(repository)
        wanted = {version.node.digest for version in store.catalog.versions(repository)}
        for place in essential(stored, wanted):
            edge = stored[place]
            sizes[edge.sha256] = max(sizes.get(edge.sha256, 0), edge.nbytes)
    return sum(sizes.values())


def _keep(shop: Shop, members: Members, report: ClusterReport, average: Path) -> None:
    """Make the edges of the best way, in every repository that has a member."""
    if report.best == "alone":
        return
    if report.best == AVERAGE:
        centre = _keep_average(shop, members, average)
        bases = dict.fromkeys(members, (centre, ""))
    elif report.best == "tree":
        bases = {
            name: members[base][::-1] for name, base in report.tree.items() if base is not None
        }
    else:
        bases = {name: members[report.medoid][::-1] for name in members if name != report.medoid}
    for name, (base, home) in bases.items():
        repository, digest = members[name]
        if home and home != repository:
            _lend(shop, base, home, repository)
        state = _state(shop, repository, base)
        if shop.store.graph.find(repository, state, digest) is None:
            shop.bake(repository, state, digest, "shared")


def _keep_average(shop: Shop, members: Members, average: Path) -> str:
    """Store the average in every repository that has a member; its digest."""
    base = base_of(average, shop.limits, shop.settings.threads)
    assert base is not None
    manifest = manifest_of(base)
    blob = average.with_name("average.limosa")
    with blob.open("wb", buffering=0) as file:
        make_edge(None, average, file.write, limits=shop.limits, threads=shop.settings.threads)
    edge = StoredEdge(
        NOTHING, manifest.digest, manifest.state, sha256_of(blob), blob.stat().st_size, 0, "shared"
    )
    for repository in sorted({repository for repository, _ in members.values()}):
        shop.store.add_edge(repository, edge, blob, manifest=manifest)
    return manifest.digest


def _lend(shop: Shop, digest: str, home: str, repository: str) -> None:
    """Let another repository start from a version that it does not have by name."""
    if any(node.digest == digest for node in shop.store.graph.known(repository, [digest])):
        return
    whole = shop.store.graph.find(home, NOTHING, digest)
    if whole is None:
        shop.bake(home, NOTHING, digest, "shared")
        whole = shop.store.graph.find(home, NOTHING, digest)
    assert whole is not None
    manifest = shop.store.catalog.manifest(home, digest)
    shop.store.share_edge(repository, whole, manifest)


def _state(shop: Shop, repository: str, digest: str) -> str:
    return shop.store.graph.known(repository, [digest])[0].state
