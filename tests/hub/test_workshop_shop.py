"""The workshop with its store: verified, decoded, made, kept, copied, baked, clustered."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack

import numpy as np
import pytest
from workshop import LIMITS, Workbench, blob_of, mixed, tuned, whole_manifest

import limosa
from limosa import BaseMismatchError, ChecksumError, ConfigError
from limosa.codec.layers import encode_layers
from limosa.errors import ConflictError, NotFoundError, TransportError
from limosa.exchange.workshop.decoded import DecodedVersions
from limosa.exchange.workshop.unpacked import base_of
from limosa.files import bundle_from_tensors
from limosa.hub.store.accounts import Holding
from limosa.hub.store.blobs import blob_key
from limosa.hub.store.upkeep import fsck, gc
from limosa.hub.trust import parse_scopes
from limosa.tensors import Tensor


@pytest.fixture
def bench(tmp_path):
    made = Workbench.make(tmp_path / "hub")
    yield made
    made.close()


def chain(bench: Workbench, count: int, **more) -> list:
    """Versions v0 (whole), v1, v2 …, each an update of the one before."""
    models = [mixed()]
    manifests = [bench.push("v0", models[0], **more)]
    for number in range(1, count):
        models.append(tuned(models[-1], seed=number))
        manifests.append(bench.push(f"v{number}", models[-1], models[-2]))
    return manifests


def clear(bench: Workbench) -> None:
    """Forget all that was decoded."""
    bench.shop.decoded = DecodedVersions(
        bench.folder / "work" / f"decoded-{bench.clock()}", bench.store, 2**30, LIMITS, 1
    )


def state_in(path) -> str:
    return base_of(path, LIMITS, 1).digest.hex()


def test_what_was_pushed_can_be_planned_and_decoded(bench):
    manifests = chain(bench, 4)
    clear(bench)
    start, steps = bench.store.graph.plan("team/net", [manifests[1].state], manifests[3].digest)
    assert start == manifests[1].state
    assert [step.target for step in steps][-1] == manifests[3].digest
    for manifest in manifests[::-1]:
        with bench.shop.decoded.of_digest("team/net", manifest.digest) as path:
            assert state_in(path) == manifest.state
        with bench.shop.decoded.of_state("team/net", manifest.state) as path:
            assert state_in(path) == manifest.state
    assert not [p for p in (bench.folder / "work").iterdir() if p.name.startswith(("walk", "job"))]


def test_what_is_decoded_already_is_where_decoding_starts(bench):
    manifests = chain(bench, 3)
    clear(bench)
    with bench.shop.decoded.of_digest("team/net", manifests[1].digest):
        pass
    for edge in bench.store.graph.edges("team/net"):
        if edge.target != manifests[2].digest:
            bench.store.blobs.delete(blob_key(edge.sha256))
    with bench.shop.decoded.of_digest("team/net", manifests[2].digest) as path:
        assert state_in(path) == manifests[2].state


def test_two_versions_of_one_state_in_other_files(bench):
    """An update from a state to itself, in another file, must not wait for what it makes."""
    model = mixed()
    plain = bench.push("plain", model)
    blob = bench.folder / "work" / "named.blob"
    blob.write_bytes(limosa.save(model, base=model, metadata={"format": "pt"}))
    opened = limosa.codec.opening.open_model(blob, base=limosa.open_base(model))
    from limosa.exchange.forms import make_manifest

    named = make_manifest(opened.digest, opened.specs, opened.tensor_digests, opened.sources)
    assert (named.state, named.digest != plain.digest) == (plain.state, True)
    bench.publish(bench.announce(blob, "named", named, plain.state), blob)
    clear(bench)
    for manifest in (named, plain, named):
        with bench.shop.decoded.of_digest("team/net", manifest.digest) as path:
            assert state_in(path) == manifest.state
    assert bench.edge(plain.state, named.digest).nbytes < bench.edge("", plain.digest).nbytes


def test_decoded_versions_take_no_more_room_than_they_may(bench):
    manifests = chain(bench, 4)
    one = sum(array.nbytes for array in mixed().values())
    decoded = DecodedVersions(bench.folder / "work" / "few", bench.store, int(2.6 * one), LIMITS, 1)

    def here() -> set[str]:
        folder = bench.folder / "work" / "few"
        return {home.name for home in folder.iterdir() if (home / "model").exists()}

    with ExitStack() as stack:
        for manifest in manifests:
            stack.enter_context(decoded.of_digest("team/net", manifest.digest))
        assert here() == {manifest.digest for manifest in manifests}  # all are being read
    with decoded.of_digest("team/net", manifests[0].digest):
        pass
    assert len(here()) == 2
    assert manifests[0].digest in here()


def test_what_is_being_read_stays(bench):
    manifests = chain(bench, 2)
    decoded = DecodedVersions(bench.folder / "work" / "none", bench.store, 0, LIMITS, 1)
    with decoded.of_digest("team/net", manifests[0].digest) as path:
        with decoded.of_digest("team/net", manifests[1].digest):
            pass
        assert state_in(path) == manifests[0].state
    assert not path.exists()


def test_unknown_states_and_digests_are_not_found(bench):
    chain(bench, 1)
    for way in (bench.shop.decoded.of_digest, bench.shop.decoded.of_state):
        with pytest.raises(NotFoundError), way("team/net", "ab" * 32):
            pass


def test_no_room_to_decode_is_not_the_sender_s_fault(bench, monkeypatch):
    manifests = chain(bench, 1)
    clear(bench)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("limosa.exchange.workshop.decoded.unpack", full)
    with (
        pytest.raises(TransportError),
        bench.shop.decoded.of_digest("team/net", manifests[0].digest),
    ):
        pass
    monkeypatch.undo()
    with bench.shop.decoded.of_digest("team/net", manifests[0].digest) as path:
        assert state_in(path) == manifests[0].state


def test_a_lie_about_the_base_is_refused(bench):
    first, _ = chain(bench, 2)
    whole = blob_of(bench.folder / "work" / "w", mixed(5))
    lie = bench.announce(whole, "lie", whole_manifest(mixed(5)), first.state)
    with pytest.raises(BaseMismatchError, match="another base than announced"):
        bench.publish(lie, whole)


def test_a_lie_about_the_digest_makes_no_version(bench):
    chain(bench, 1)
    blob = blob_of(bench.folder / "work" / "w", mixed(5))
    with pytest.raises(ChecksumError):
        bench.publish(bench.announce(blob, "lie", whole_manifest(mixed(6))), blob)
    with pytest.raises(NotFoundError):
        bench.store.catalog.resolve("team/net", "lie")
    assert [v.name for v in bench.store.catalog.versions("team/net")] == ["v0"]


def test_an_edge_is_streamed_kept_and_used(bench):
    manifests = chain(bench, 3)
    ends = manifests[0].state, manifests[2].digest
    assert bench.edge(*ends) is None
    data = b"".join(bench.shop.edge("team/net", *ends))
    bench.shop.close()
    kept = bench.edge(*ends)
    assert kept is not None
    assert (kept.kind, kept.nbytes) == ("made", len(data))
    assert bench.store.blobs.get_range(blob_key(kept.sha256), 0, len(data)) == data
    _, steps = bench.store.graph.plan("team/net", [manifests[0].state], manifests[2].digest)
    assert [step.edge for step in steps] == [kept]
    assert bench.store.graph.estimates("team/net", manifests[2].digest)[ends[0]][0] == len(data)


def test_edges_of_what_is_unknown_are_refused_at_once(bench):
    first, second = chain(bench, 2)
    for base, target in (
        (first.state, "ab" * 32),
        ("ab" * 32, second.digest),
        (first.digest, second.digest),  # a base is named by its state
        (first.state, second.state),
    ):
        with pytest.raises(NotFoundError):
            bench.shop.edge("team/net", base, target)


def test_a_version_that_goes_while_its_edge_is_made(bench):
    manifests = chain(bench, 2)
    with bench.shop.decoded.of_digest("team/net", manifests[1].digest):
        pass

    def rival(found):
        bench.store.catalog.remove_version("team/net", "v1")
        gc(bench.store, cache_bytes=0, thin=True, grace_s=0)
        return "ab" * 32

    import limosa.exchange.workshop.shop as module

    original = module.sha256_of
    module.sha256_of = lambda path: (rival(path), original(path))[1]
    try:
        with pytest.raises(NotFoundError):
            bench.shop.bake("team/net", "", manifests[1].digest, "baked")
    finally:
        module.sha256_of = original
    assert fsck(bench.store).problems == []


def test_estimates_are_what_edges_take(bench):
    manifests = chain(bench, 3)
    target = manifests[2].digest
    found = bench.shop.estimates("team/net", ["", manifests[0].state], target)
    for base, (nbytes, seconds) in found.items():
        assert bench.shop.bake("team/net", base, target, "baked") == nbytes
        assert seconds > 0


def test_a_copy_is_made_once_and_has_a_measured_bound(bench):
    (manifest,) = chain(bench, 1)
    copy = bench.shop.copy("team/net", manifest.digest, "bits=4")
    assert bench.shop.copy("team/net", manifest.digest, "bits=4") == copy
    assert (copy.node.copy_of, copy.name) == (manifest.digest, "")
    assert copy.node.bound.quality == "bits=4"
    assert 5 < copy.node.bound.snr < 40
    assert copy.blob_nbytes < 0.7 * bench.edge("", manifest.digest).nbytes
    # An exact version may be reached from it, and it can be decoded.
    assert bench.shop.bake("team/net", copy.node.state, manifest.digest, "made") > 0
    with bench.shop.decoded.of_digest("team/net", copy.node.digest) as path:
        assert state_in(path) == copy.node.state
    with pytest.raises(ConfigError):
        bench.shop.copy("team/net", manifest.digest, "nice")


def test_layers_of_a_push_are_copies_that_need_a_prefix_only(bench):
    model = {"w": mixed(rows=60)["fc.weight"]}
    parts: list[bytes] = []
    bundle = bundle_from_tensors({"w": Tensor.from_numpy(model["w"])})
    first = encode_layers(bundle, parts.append, [limosa.Target(bits=4), limosa.Lossless()])[0]
    blob = bench.folder / "work" / "layered"
    blob.write_bytes(b"".join(parts))
    manifest = whole_manifest(model)
    bench.publish(bench.announce(blob, "v", manifest), blob)
    (copy,) = [n for n in bench.store.catalog.nodes("team/net") if n.copy_of]
    assert copy.copy_of == manifest.digest
    edge = bench.edge("", copy.digest)
    assert (edge.nbytes, edge.layer) == (first.bytes_out, 1)
    assert edge.sha256 == bench.edge("", manifest.digest).sha256
    clear(bench)
    with bench.shop.decoded.of_digest("team/net", copy.digest) as path:
        assert state_in(path) == copy.state


def test_statistics_of_a_version_and_against_another(bench):
    first, second = chain(bench, 2)
    alone = bench.shop.statistics("team/net", second.digest, None)
    assert alone[0]["changed"] is None
    both = bench.shop.statistics("team/net", second.digest, first.digest)
    assert 0 < both[0]["changed"] < 0.2


def test_baking_makes_what_most_devices_need(bench):
    manifests = chain(bench, 4, tags=("stable",))
    bench.store.catalog.move_tag("team/net", "stable", "v3")
    for number, held in enumerate([0, 0, 0, 1, 3]):
        _, token = bench.store.accounts.register(f"cam{number}", parse_scopes(["read:*"]))
        caller = bench.store.accounts.caller(token)
        holding = Holding("team/net", manifests[held].digest)
        bench.store.accounts.hold(caller, [holding])
    rows = bench.shop.prebake("team/net", seconds=60, dry_run=True)
    assert (rows[0]["base"], rows[0]["devices"]) == (manifests[0].state, 3)
    assert bench.edge(manifests[0].state, manifests[3].digest) is None
    made = bench.shop.prebake("team/net", seconds=60, dry_run=False)
    assert [set(row) for row in made] == [set(row) for row in rows]
    assert [row["base"] for row in made] == [row["base"] for row in rows]
    for row, said in zip(made, rows, strict=True):
        assert row["saves"] == said["saves"] > 0
        edge = bench.edge(row["base"], row["target"])
        assert (edge.nbytes, edge.kind) == (row["nbytes"], "baked")
    assert bench.shop.prebake("team/net", seconds=60, dry_run=True) == []


def family(bench: Workbench, count: int) -> dict[str, tuple[str, str]]:
    rng = np.random.default_rng(0)
    centre = rng.standard_normal((120, 100)) * 0.05
    found = {}
    for number in range(count):
        model = {"w": (centre + 1e-5 * rng.standard_normal(centre.shape)).astype("f4")}
        manifest = bench.push(f"m{number}", model)
        found[f"team/net:m{number}"] = ("team/net", manifest.digest)
    return found


def test_clustering_says_and_then_does(bench):
    members = family(bench, 6)
    said = bench.shop.cluster(members, apply=False)
    assert said["best"] in ("average", "tree")
    assert said["stored_before"] == said["stored_after"] == said["whole"]
    done = bench.shop.cluster(members, apply=True)
    promised = min(said["tree_bytes"], said["average_bytes"])
    assert done["stored_before"] == said["whole"]
    assert done["stored_after"] == pytest.approx(promised, rel=0.02)
    # And what is kept is what gc keeps.
    gc(bench.store, cache_bytes=0, thin=True, grace_s=0)
    bench.clock.now += 10_000
    gc(bench.store, cache_bytes=0, thin=True, grace_s=0)
    lying = sum(size for _, size, _ in bench.store.blobs.list("blobs/"))
    assert lying == done["stored_after"]
    clear(bench)
    for _, digest in members.values():
        with bench.shop.decoded.of_digest("team/net", digest):
            pass
    assert fsck(bench.store, read_data=True).problems == []


def test_a_family_may_live_in_several_repositories(bench):
    members = {}
    for number, name in enumerate(["team/net", "other/net", "third/net"]):
        bench.repository = name
        one = {k: v for k, v in family(bench, number + 1).items() if k.endswith(f":m{number}")}
        ((_, (_, digest)),) = one.items()
        members[f"{name}:m{number}"] = (name, digest)
    done = bench.shop.cluster(members, apply=True)
    assert done["stored_after"] < done["stored_before"]
    clear(bench)
    for repository, digest in members.values():
        with bench.shop.decoded.of_digest(repository, digest):
            pass


def test_a_hub_that_was_killed_leaves_no_half_of_a_model(bench, monkeypatch):
    """Removing one is a rename first: what is half removed has another name."""
    (manifest,) = chain(bench, 1)
    decoded = DecodedVersions(bench.folder / "work" / "none", bench.store, 0, LIMITS, 1)

    def killed(path, **options):
        if path.name == "gone" and os.path.exists(path):
            (path / "sources.json").unlink()
            raise KeyboardInterrupt
        remove(path, **options)

    remove = shutil.rmtree
    monkeypatch.setattr("limosa.exchange.workshop.decoded.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt), decoded.of_digest("team/net", manifest.digest):
        pass
    monkeypatch.undo()
    with decoded.of_digest("team/net", manifest.digest) as path:
        assert state_in(path) == manifest.state


def test_pushing_again_what_is_here_needs_no_bytes(bench):
    (manifest,) = chain(bench, 1)
    blob = blob_of(bench.folder / "work" / "again", mixed())
    again = bench.send(bench.announce(blob, "v0", manifest), blob)
    assert (again.status, again.announced.nbytes) == ("done", 0)
    other = bench.send(bench.announce(blob, "copy-of-v0", manifest), blob)
    assert other.status == "done"
    assert bench.store.catalog.resolve("team/net", "copy-of-v0").node.digest == manifest.digest
    with pytest.raises(ConflictError):
        bench.send(bench.announce(blob, "v0", whole_manifest(mixed(3))), blob)
