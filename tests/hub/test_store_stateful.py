"""Whatever is pushed, removed, made, copied and collected: every version can be had."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from workshop import LIMITS, Workbench

from limosa.errors import ConflictError, NotFoundError
from limosa.exchange.workshop.decoded import DecodedVersions
from limosa.exchange.workshop.unpacked import base_of
from limosa.hub.manifest import Manifest
from limosa.hub.store.blobs import blob_key
from limosa.hub.store.upkeep import fsck, gc

REPOSITORY = "team/net"
SEEDS = st.integers(0, 7)


def model(seed: int) -> dict[str, np.ndarray]:
    """Of few bytes; neighbours are alike."""
    values = np.linspace(-1, 1, 300).astype("f4")
    values[: 20 * seed] += np.float32(0.001 * seed)
    return {"w": values, "step": np.array(seed)}


class Hub(RuleBasedStateMachine):
    """What a hub should hold, beside a hub."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="limosa-hub-"))
        self.bench = Workbench.make(self.folder / "hub")
        self.versions: dict[str, tuple[int, Manifest]] = {}
        self.tags: dict[str, str] = {}
        self.count = 0
        self.leased: list[tuple[float, str]] = []

    def teardown(self) -> None:
        self.bench.close()
        shutil.rmtree(self.folder)

    @rule(seed=SEEDS, on=st.integers(0, 20), tag=st.sampled_from([(), ("latest",)]))
    def push(self, seed: int, on: int, tag: tuple[str, ...]) -> None:
        """A new name, whole or against any version that is here."""
        name = f"v{self.count}"
        self.count += 1
        held = list(self.versions.values())
        base = None if on >= len(held) else model(held[on][0])
        self.versions[name] = (seed, self.bench.push(name, model(seed), base, tags=tag))
        self.tags |= dict.fromkeys(tag, name)

    @precondition(lambda self: self.versions)
    @rule(seed=SEEDS, data=st.data())
    def push_another_under_a_name_that_is_taken(self, seed: int, data) -> None:
        name = data.draw(st.sampled_from(sorted(self.versions)))
        if seed == self.versions[name][0]:
            self.bench.push(name, model(seed))
            return
        try:
            self.bench.push(name, model(seed))
        except ConflictError:
            return
        raise AssertionError("a version changed")

    @precondition(lambda self: self.versions)
    @rule(data=st.data())
    def remove(self, data) -> None:
        name = data.draw(st.sampled_from(sorted(self.versions)))
        try:
            self.bench.store.catalog.remove_version(REPOSITORY, name)
        except ConflictError:
            assert name in self.tags.values()
            return
        assert name not in self.tags.values()
        del self.versions[name]

    @precondition(lambda self: self.tags)
    @rule()
    def untag(self) -> None:
        self.bench.store.catalog.remove_tag(REPOSITORY, "latest")
        self.tags.clear()

    @precondition(lambda self: self.versions)
    @rule(data=st.data())
    def make(self, data) -> None:
        """An edge from any state that the graph knows."""
        names = st.sampled_from(sorted(self.versions))
        target = self.versions[data.draw(names)][1]
        nodes = self.bench.store.catalog.nodes(REPOSITORY)
        base = data.draw(st.sampled_from(["", *sorted({node.state for node in nodes})]))
        if base == target.state:
            return
        try:
            self.bench.shop.bake(REPOSITORY, base, target.digest, "made")
        except NotFoundError:
            # Only what nobody named and gc made unreachable may be gone.
            assert base not in {one.state for _, one in self.versions.values()} | {""}

    @precondition(lambda self: self.versions)
    @rule(data=st.data())
    def copy(self, data) -> None:
        _, manifest = self.versions[data.draw(st.sampled_from(sorted(self.versions)))]
        copy = self.bench.shop.copy(REPOSITORY, manifest.digest, "step=0.05")
        assert copy.node.copy_of == manifest.digest or copy.node.bound

    @precondition(lambda self: self.versions)
    @rule(data=st.data(), held=st.lists(SEEDS, max_size=3))
    def plan(self, data, held: list[int]) -> None:
        """A receiver is told of blobs, which stay for an hour."""
        _, manifest = self.versions[data.draw(st.sampled_from(sorted(self.versions)))]
        states = [one.state for seed, one in self.versions.values() if seed in held]
        _, steps = self.bench.store.graph.plan(REPOSITORY, states, manifest.digest)
        for step in steps:
            self.leased.append((self.bench.clock(), step.edge.sha256))

    @precondition(lambda self: self.count)
    @rule(
        cache=st.sampled_from([0, 500, 10**9]),
        thin=st.booleans(),
        dry=st.booleans(),
        grace=st.sampled_from([0.0, 3600.0]),
    )
    def collect(self, cache: int, thin: bool, dry: bool, grace: float) -> None:
        before = self._lying()
        gc(self.bench.store, cache_bytes=cache, thin=thin, grace_s=grace, dry_run=dry)
        if dry:
            assert self._lying() == before

    @rule(seconds=st.sampled_from([10.0, 1900.0, 90_000.0]))
    def wait(self, seconds: float) -> None:
        self.bench.clock.now += seconds

    @rule()
    def forget_what_is_decoded(self) -> None:
        self.bench.shop.decoded = DecodedVersions(
            self.folder / "hub" / "work" / f"decoded-{self.bench.clock()}", self.bench.store,
            2**30, LIMITS, 1,
        )  # fmt: skip

    def _lying(self) -> list[tuple[str, int]]:
        return sorted((key, size) for key, size, _ in self.bench.store.blobs.list("blobs/"))

    @invariant()
    def all_versions_and_tags_are_here(self) -> None:
        if not self.count:
            return
        found = self.bench.store.catalog.versions(REPOSITORY)
        assert {v.name: v.node.digest for v in found} == {
            name: manifest.digest for name, (_, manifest) in self.versions.items()
        }
        tags = self.bench.store.catalog.tags(REPOSITORY)
        assert {tag.name: tag.version for tag in tags} == self.tags
        for version in found:
            _, steps = self.bench.store.graph.plan(REPOSITORY, [], version.node.digest)
            for step in steps:
                assert self.bench.store.blobs.size(blob_key(step.edge.sha256)) is not None

    @invariant()
    def the_store_is_sound(self) -> None:
        assert fsck(self.bench.store, read_data=True).problems == []

    @invariant()
    def what_was_promised_is_still_here(self) -> None:
        for since, sha256 in self.leased:
            # A lease that lasts half as long still is not renewed.
            if self.bench.clock.now < since + 1800:
                assert self.bench.store.blobs.size(blob_key(sha256)) is not None

    @precondition(lambda self: self.versions)
    @rule(data=st.data())
    def decode(self, data) -> None:
        _, manifest = self.versions[data.draw(st.sampled_from(sorted(self.versions)))]
        with self.bench.shop.decoded.of_digest(REPOSITORY, manifest.digest) as path:
            assert base_of(path, LIMITS, 1).digest.hex() == manifest.state

    @rule()
    def collect_all_that_is_not_needed(self) -> None:
        """After two runs and the time between, only what versions need is left."""
        if not self.count:
            return
        self.bench.clock.now += 10_000
        for _ in range(2):
            gc(self.bench.store, cache_bytes=0, thin=True, grace_s=0)
            self.bench.clock.now += 10
        needed = {edge.sha256 for edge in self.bench.store.graph.edges(REPOSITORY)}
        assert {key.rsplit("/", 1)[1] for key, _ in self._lying()} == needed
        if not self.versions:
            assert not needed


TestHub = Hub.TestCase
TestHub.settings = settings(
    max_examples=15,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
