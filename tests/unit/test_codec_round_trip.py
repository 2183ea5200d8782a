"""Every tensor comes back to the last bit, from memory, a file and a pipe."""

from __future__ import annotations

import io

import numpy as np
import pytest
from codec_models import assert_equal, every_dtype, trained, tuned

import limosa
from limosa.codec.constants import BATCH_BYTES, CHUNK_UNITS
from limosa.codec.decoder import Reader
from limosa.codec.encoder import encode
from limosa.codec.inspect import inspect
from limosa.files import bundle_from_tensors, read
from limosa.tensors import Tensor


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_every_dtype_comes_back(threads):
    model = every_dtype()
    data = limosa.save(model, threads=threads)
    assert_equal(limosa.load(data, threads=threads, verify=True), model)
    assert_equal(limosa.load(io.BytesIO(data), threads=threads, verify=True), model)


def test_the_bytes_do_not_depend_on_threads():
    base, model = trained(), tuned(trained())
    alone = {limosa.save(model, threads=n) for n in (1, 2, 5)}
    against = {limosa.save(model, base=base, threads=n) for n in (1, 2, 5)}
    assert len(alone) == len(against) == 1


@pytest.mark.parametrize("units", [0, 1, 31, 32, CHUNK_UNITS - 1, CHUNK_UNITS, CHUNK_UNITS + 1])
@pytest.mark.parametrize("kind", ["f4", "u1"])
def test_lengths_around_a_chunk(units, kind):
    model = {"w": np.random.default_rng(units).integers(0, 99, units).astype(kind)}
    assert_equal(limosa.load(limosa.save(model), verify=True), model)


def test_more_tensors_and_bytes_than_one_batch():
    random = np.random.default_rng(0)
    model = {f"small {i}": random.standard_normal(3).astype("f4") for i in range(5000)}
    model |= {f"large {i}": np.full(BATCH_BYTES // 3, i, "u1") for i in range(4)}
    data = limosa.save(model, threads=2)
    assert_equal(limosa.load(data, threads=2, verify=True), model)
    assert_equal(limosa.load(io.BytesIO(data), threads=2, verify=True), model)
    with Reader(data) as reader:
        assert [spec.name for spec, _ in reader] == list(model)


def test_no_tensors():
    assert limosa.load(limosa.save({}), verify=True) == {}


def test_a_pipe_in_and_a_pipe_out(tmp_path):
    from safetensors.numpy import save_file

    model = {name: array for name, array in every_dtype().items() if array.dtype.kind in "fiub"}
    path = tmp_path / "m.safetensors"
    save_file(model, path)
    sent = io.BytesIO()
    with path.open("rb") as file:
        result = encode(read(file), sent.write)
    assert result.bytes_out == len(sent.getvalue())
    assert result.bytes_in == sum(array.nbytes for array in model.values())
    sent.seek(0)
    found = limosa.load(sent, verify=True)
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in model.items()
    }


def test_reads_that_give_little_at_a_time():
    class Dripping(io.BytesIO):
        def read(self, count=-1):
            return super().read(min(count, 7))

    model = every_dtype()
    assert_equal(limosa.load(Dripping(limosa.save(model)), verify=True), model)


def test_equal_tensors_are_stored_once():
    random = np.random.default_rng(0)
    one = random.standard_normal((300, 300)).astype("f4")
    alone = len(limosa.save({"a": one}))
    model = {"a": one, "b": one.copy(), "other": one + 1, "c": one.copy()}
    twice = len(limosa.save({"a": one, "other": one + 1}))
    data = limosa.save(model)
    assert len(data) < twice + 250 < 3 * alone
    modes = {tensor.spec.name: set(tensor.modes) for tensor in inspect(data)[0].tensors}
    assert modes["b"] == modes["c"] == {"tensor copy"}
    assert_equal(limosa.load(data, verify=True), model)
    assert_equal(limosa.load(io.BytesIO(data), verify=True), model)
    with limosa.open_file(data) as file:
        assert np.array_equal(file.get_tensor("c"), one)
        assert np.array_equal(file.get_slice("c")[100:107], one[100:107])


def test_equal_tensors_from_a_pipe_are_stored_once(tmp_path):
    from safetensors.numpy import save

    one = np.random.default_rng(0).standard_normal((300, 300)).astype("f4")
    model = {"a": one, "b": one, "c": one, "d": one[:100]}
    sent = io.BytesIO()
    encode(read(io.BytesIO(save(model))), sent.write)
    (report,) = inspect(sent.getvalue())
    assert [set(tensor.modes) == {"tensor copy"} for tensor in report.tensors[1:3]] == [True] * 2
    sent.seek(0)
    assert_equal(limosa.load(sent, verify=True), model)


def test_same_bytes_of_another_dtype_or_shape_are_no_copy():
    one = np.random.default_rng(0).integers(0, 2**31, 1000).astype("i4")
    model = {"a": one, "b": one.view("u4"), "c": one.reshape(10, 100)}
    (report,) = inspect(limosa.save(model))
    assert "tensor copy" not in report.modes
    assert_equal(limosa.load(limosa.save(model)), model)


def test_copies_from_a_pipe_keep_only_what_is_copied():
    random = np.random.default_rng(0)
    model = {f"w{i}": random.standard_normal(1000).astype("f4") for i in range(20)}
    model["tied"] = model["w7"].copy()
    assert Reader(limosa.save(model)).layout.kept == {7}


def test_sources_and_digest_of_the_reader():
    bundle = bundle_from_tensors({"w": Tensor.from_numpy(np.ones(3, "f4"))}, {"a": "b"})
    parts = []
    result = encode(bundle, parts.append)
    with Reader(b"".join(parts)) as reader:
        assert list(reader.sources) == bundle.sources
        assert reader.digest == result.digest == reader.verify()
    with Reader(io.BytesIO(b"".join(parts))) as reader:
        with pytest.raises(limosa.ConfigError, match="end"):
            _ = reader.digest
        assert reader.verify() == result.digest
        with pytest.raises(limosa.ConfigError, match="once"):
            reader.verify()


def test_progress_adds_up():
    model = trained()
    done = []
    bundle = bundle_from_tensors({n: Tensor.from_numpy(a) for n, a in model.items()})
    encode(bundle, lambda piece: None, progress=done.append)
    assert sum(done) == sum(array.nbytes for array in model.values())


def test_rows_and_columns_of_their_own_size_have_classes():
    rng = np.random.default_rng(4)
    sizes = np.exp2(rng.integers(-2, 3, (300, 1)) + rng.integers(-1, 2, 200))
    model = {"w": (sizes * rng.standard_normal((300, 200))).astype(np.float32)}
    data = limosa.save(model)
    assert_equal(limosa.load(data, verify=True), model)
    assert "classed fields" in inspect(data)[0].modes
    fast = limosa.save(model, quality=limosa.Lossless(effort=1))
    assert_equal(limosa.load(fast, verify=True), model)
    assert "classed fields" not in inspect(fast)[0].modes
    assert len(data) < 0.99 * len(fast)


@pytest.mark.parametrize("effort", [0, 2, 9, True, "5"])
def test_an_unknown_effort_is_refused(effort):
    with pytest.raises(limosa.ConfigError, match="unknown effort"):
        limosa.Lossless(effort=effort)
