"""Blobs that nobody vouches for are decoded, and must give what was said of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from codec_models import every_dtype
from workshop import LIMITS, blob_of, mixed, tuned, unpacked, whole_manifest

import limosa
from limosa import BaseMismatchError, ChecksumError, ConfigError, FormatError, LimitError, Limits
from limosa.codec.base import Base
from limosa.codec.encoder import encode
from limosa.codec.layers import encode_layers
from limosa.codec.opening import open_base, open_model
from limosa.exchange import local
from limosa.exchange.forms import form_of, manifest_of
from limosa.exchange.workshop.make import make_edge
from limosa.exchange.workshop.unpacked import base_of, open_unpacked
from limosa.exchange.workshop.verify import read_through, verify_blob
from limosa.files import bundle_from_tensors, read
from limosa.files.bundle import Source
from limosa.tensors import Tensor


def check(blob: Path, out: Path, base: Base | None = None, **options):
    return verify_blob(blob, base, out, limits=LIMITS, threads=1, **options)


def bundle(model):
    return bundle_from_tensors({name: Tensor.from_numpy(a) for name, a in model.items()})


def arrays(folder: Path) -> dict[str, bytes]:
    with open_unpacked(folder, LIMITS) as found:
        return {spec.name: bytes(data) for spec, data in found}


def as_bytes(model) -> dict[str, bytes]:
    return {name: bytes(Tensor.from_numpy(array).data) for name, array in model.items()}


def test_a_whole_model_comes_back_and_is_named_as_its_sender_names_it(tmp_path):
    model = mixed()
    found = check(blob_of(tmp_path / "v", model), tmp_path / "out")
    assert found.manifest == whole_manifest(model)
    assert (found.base_state, found.layers) == ("", ())
    assert arrays(tmp_path / "out") == as_bytes(model)
    assert found.manifest.nbytes == sum(array.nbytes for array in model.values())
    assert found.memory > max(array.nbytes for array in model.values())


@pytest.mark.parametrize("model", [{}, {"a": np.zeros((0, 4), "f4")}, every_dtype()])
def test_models_without_elements_and_of_every_dtype(tmp_path, model):
    found = check(blob_of(tmp_path / "v", model), tmp_path / "out")
    assert arrays(tmp_path / "out") == as_bytes(model)
    assert found.manifest == whole_manifest(model)


def test_an_update_says_what_it_starts_from(tmp_path):
    old, new = mixed(), tuned(mixed())
    base = open_base(old)
    blob = blob_of(tmp_path / "u", new, old)
    found = check(blob, tmp_path / "out", base, expected=whole_manifest(new).digest)
    assert found.base_state == base.digest.hex()
    assert arrays(tmp_path / "out") == as_bytes(new)


@pytest.mark.parametrize("base", [None, open_base({}), open_base(mixed(7))])
def test_another_base_or_none_is_refused_before_anything_is_written(tmp_path, base):
    blob = blob_of(tmp_path / "u", tuned(mixed()), mixed())
    with pytest.raises(BaseMismatchError):
        check(blob, tmp_path / "out", base)
    assert not (tmp_path / "out").exists()


def test_a_lie_about_the_digest_is_found(tmp_path):
    blob = blob_of(tmp_path / "v", mixed())
    with pytest.raises(ChecksumError, match="another version than announced"):
        check(blob, tmp_path / "out", expected=whole_manifest(mixed(1)).digest)


def test_the_digest_of_other_files_around_the_same_tensors_is_another(tmp_path):
    model = {"w": np.zeros(3, "f4")}
    plain, named = blob_of(tmp_path / "a", model), tmp_path / "b"
    named.write_bytes(limosa.save(model, metadata={"format": "pt"}))
    one, two = check(plain, tmp_path / "1"), check(named, tmp_path / "2")
    assert one.manifest.state == two.manifest.state
    assert one.manifest.form != two.manifest.form
    with pytest.raises(ChecksumError):
        check(named, tmp_path / "3", expected=one.manifest.digest)


def test_the_form_depends_on_every_part_of_every_file():
    whole = [Source("a", "safetensors", b"s", ("x", "y")), Source("b", "bytes", b"", ())]
    others = [
        whole[:1],
        whole[::-1],
        [Source("A", "safetensors", b"s", ("x", "y")), whole[1]],
        [Source("a", "npz", b"s", ("x", "y")), whole[1]],
        [Source("a", "safetensors", b"S", ("x", "y")), whole[1]],
        [Source("a", "safetensors", b"s", ("y", "x")), whole[1]],
        [Source("a", "safetensors", b"s", ("xy",)), whole[1]],
        [Source("a", "safetensors", b"s", ("x",)), Source("b", "bytes", b"", ("y",))],
    ]
    assert len({form_of(sources) for sources in [whole, *others]}) == 1 + len(others)


def test_a_set_of_models_is_no_version(tmp_path):
    for number in (0, 1):
        (tmp_path / f"{number}.safetensors").write_bytes(_safetensors(mixed(number)))
    with (tmp_path / "set").open("wb") as file:
        local.compress_set([tmp_path / "0.safetensors", tmp_path / "1.safetensors"], file)
    with pytest.raises(ConfigError, match="set"):
        check(tmp_path / "set", tmp_path / "out")


def _safetensors(model) -> bytes:
    from safetensors.numpy import save

    return save({name: a for name, a in model.items() if a.dtype.kind != "V"})


def test_a_blob_that_is_cut_anywhere_is_refused(tmp_path):
    data = blob_of(tmp_path / "v", mixed(rows=4)).read_bytes()
    for size in range(0, len(data), 37):
        (tmp_path / "cut").write_bytes(data[:size])
        with pytest.raises(FormatError):
            check(tmp_path / "cut", tmp_path / f"out-{size}")


def test_a_blob_with_a_flipped_bit_is_refused(tmp_path):
    data = blob_of(tmp_path / "v", mixed(rows=4)).read_bytes()
    for place in range(0, len(data), 53):
        bad = bytearray(data)
        bad[place] ^= 1 << place % 8
        (tmp_path / "bad").write_bytes(bad)
        with pytest.raises((FormatError, BaseMismatchError)):
            check(tmp_path / "bad", tmp_path / f"out-{place}")


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"{}" * 500])
def test_what_is_no_blob_is_refused(tmp_path, data):
    (tmp_path / "v").write_bytes(data)
    with pytest.raises(FormatError):
        check(tmp_path / "v", tmp_path / "out")


def test_a_bomb_meets_the_limits_before_it_takes_memory(tmp_path):
    blob = blob_of(tmp_path / "bomb", {"w": np.zeros(2**24, "f4")})
    assert blob.stat().st_size < 20_000
    for limits in (Limits(max_total_bytes=2**20), Limits(max_elements=1000)):
        with pytest.raises(LimitError):
            verify_blob(blob, None, tmp_path / "out", limits=limits)
    assert not (tmp_path / "out").exists()


def test_each_prefix_of_a_layered_file_is_named_and_measured(tmp_path):
    model = {"w": mixed()["fc.weight"], "ids": np.arange(9)}
    parts: list[bytes] = []
    qualities = [limosa.Target(bits=3), limosa.Target(bits=6), limosa.Lossless()]
    sizes = [r.bytes_out for r in encode_layers(bundle(model), parts.append, qualities)]
    blob = tmp_path / "layered"
    blob.write_bytes(b"".join(parts))
    found = check(blob, tmp_path / "out")
    assert [one.nbytes for one in found.layers] == np.cumsum(sizes).tolist()
    assert found.manifest == whole_manifest(model)
    assert found.layers[-1].manifest == found.manifest
    assert found.layers[-1].bound is None
    snrs = []
    for number, layer in enumerate(found.layers[:-1], 1):
        (tmp_path / "prefix").write_bytes(blob.read_bytes()[: layer.nbytes])
        decoded = open_model(tmp_path / "prefix", number, verify=True)
        assert manifest_of(Base.from_tensors(_tensors(decoded))).state == layer.manifest.state
        worst = np.abs(decoded.get("w").numpy() - model["w"]).max()
        assert layer.bound is not None
        assert layer.bound["max_error"] == pytest.approx(worst)
        snrs.append(layer.bound["snr"])
    assert 5 < snrs[0] < snrs[1] < 60


def _tensors(model) -> dict[str, Tensor]:
    return {s.name: Tensor(s.dtype, s.shape, data) for s, data in model}


def test_layers_above_a_base_start_from_it(tmp_path):
    old, new = mixed(), tuned(mixed())
    del old["odd"], new["odd"]
    base, parts = open_base(old), []
    encode_layers(bundle(new), parts.append, [limosa.Step(0.01), limosa.Lossless()], base=base)
    (tmp_path / "l").write_bytes(b"".join(parts))
    found = check(tmp_path / "l", tmp_path / "out", base)
    assert found.base_state == base.digest.hex()
    assert len(found.layers) == 2


def test_a_lower_layer_that_lies_about_what_it_gives_is_found(tmp_path, monkeypatch):
    """Else a prefix could be given to receivers as a version that it is not."""
    rough, fine = {"w": np.float32([1, 2, 3, 4])}, {"w": np.float32([1, 2, 3, 4.5])}
    wanted = open_base({"w": np.float32([9, 9, 9, 9])})
    parts: list[bytes] = []
    with monkeypatch.context() as patch:
        patch.setattr("limosa.codec.encoder.state_digest", lambda _: wanted.digest)
        encode(bundle(rough), parts.append)
    held = open_base(rough)
    lying = Base(
        lambda name: Tensor.from_numpy(rough[name]), wanted.digest, specs=held.specs,
        digests=held.digests,
    )  # fmt: skip
    encode(bundle(fine), parts.append, base=lying)
    (tmp_path / "liar").write_bytes(b"".join(parts))
    with pytest.raises(ChecksumError):
        check(tmp_path / "liar", tmp_path / "out")


def test_a_file_that_lies_about_its_own_state_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("limosa.codec.encoder.state_digest", lambda _: b"\7" * 32)
    parts: list[bytes] = []
    encode(bundle({"w": np.float32([1, 2])}), parts.append)
    (tmp_path / "liar").write_bytes(b"".join(parts))
    with pytest.raises(ChecksumError):
        check(tmp_path / "liar", tmp_path / "out")
    with pytest.raises(ChecksumError):
        read_through(tmp_path / "liar", None, limits=LIMITS)


def test_a_folder_comes_back_file_by_file(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"layers": 3}), encoding="utf-8")
    (model / "a.safetensors").write_bytes(_safetensors(mixed(0)))
    (model / "b.safetensors").write_bytes(_safetensors(mixed(1)))  # of the same names
    local.compress(model, tmp_path / "blob", threads=1)
    found = check(tmp_path / "blob", tmp_path / "out")
    assert found.manifest == manifest_of(model)
    assert [file.path for file in found.manifest.files] == [
        "a.safetensors", "b.safetensors", "config.json",
    ]  # fmt: skip
    # What was decoded is encoded again, and gives the sender's files.
    with (tmp_path / "again").open("wb") as file:
        make_edge(None, tmp_path / "out", file.write, limits=LIMITS)
    local.decompress(tmp_path / "again", tmp_path / "back")
    for path in model.iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


def test_other_kinds_of_files_come_back_as_they_were(tmp_path):
    model = {"w": np.float32([1, 2]), "__metadata__": np.arange(3)}
    np.savez(tmp_path / "m.npz", **model)
    local.compress(tmp_path / "m.npz", tmp_path / "blob")
    found = check(tmp_path / "blob", tmp_path / "out")
    assert found.manifest == manifest_of(tmp_path / "m.npz")
    assert arrays(tmp_path / "out") == as_bytes(model)


def test_a_refinement_is_verified_against_its_base(tmp_path):
    pytest.importorskip("torch")
    from refined import small_update

    before, update = small_update()
    (tmp_path / "r").write_bytes(update)
    base = open_base({name: value.numpy() for name, value in before.items()})
    after = {name: bytes(data.tobytes()) for name, data in _decoded(update, base).items()}
    found = check(tmp_path / "r", tmp_path / "out", base)
    assert found.base_state == base.digest.hex()
    assert arrays(tmp_path / "out") == after
    assert found.manifest.state == base_of(tmp_path / "out", LIMITS, 1).digest.hex()
    with pytest.raises(BaseMismatchError):
        check(tmp_path / "r", tmp_path / "other", open_base(mixed()))
    (tmp_path / "cut").write_bytes(update[:-3])
    with pytest.raises(FormatError):
        check(tmp_path / "cut", tmp_path / "cut-out", base)


def _decoded(update: bytes, base: Base):
    return {spec.name: data for spec, data in open_model(update, base=base)}


def test_what_was_decoded_and_changed_by_somebody_is_told(tmp_path):
    for number, harm in enumerate(
        [
            lambda folder: (folder / "sources.json").write_text("[{", encoding="utf-8"),
            lambda folder: (folder / "sources.json").write_text("[{}]", encoding="utf-8"),
            lambda folder: (folder / "sources.json").unlink(),
            lambda folder: (folder / "tensors.safetensors").unlink(),
            lambda folder: (folder / "tensors.safetensors").write_bytes(b"no"),
        ]
    ):
        folder = unpacked(tmp_path / str(number), mixed())
        harm(folder)
        with pytest.raises(FormatError):
            open_unpacked(folder, LIMITS)


def test_the_base_of_a_folder_is_what_was_written(tmp_path):
    (tmp_path / "m.safetensors").write_bytes(_safetensors(mixed()))
    folder = unpacked(tmp_path / "f", tmp_path / "m.safetensors")
    with read(tmp_path / "m.safetensors") as whole:
        assert manifest_of(base_of(folder, LIMITS, 1)).digest == manifest_of(
            Base.from_bundle(whole)
        ).digest  # fmt: skip
