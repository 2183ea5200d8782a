"""save, load and open_file for numpy arrays."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
from codec_models import assert_equal, every_dtype, trained

import limosa
from limosa.errors import ConfigError, LimosaError


def test_files_and_metadata(tmp_path):
    model, path = every_dtype(), tmp_path / "m.limosa"
    result = limosa.save_file(model, path, {"format": "np", "имя": "значение"})
    assert result.bytes_out == path.stat().st_size
    assert_equal(limosa.load_file(path, verify=True), model)
    with limosa.open_file(path) as file:
        assert file.keys() == list(file) == list(model)
        assert "float32" in file
        assert len(file) == len(model)
        assert file.metadata() == {"format": "np", "имя": "значение"}
        assert_equal({name: file.get_tensor(name) for name in file}, model)
    assert os.listdir(tmp_path) == ["m.limosa"]


def test_no_metadata():
    with limosa.open_file(limosa.save({})) as file:
        assert file.metadata() is None


def test_buffers_of_every_kind():
    model = trained(rows=10)
    data = limosa.save(model)
    for source in (data, bytearray(data), memoryview(data), io.BytesIO(data)):
        assert_equal(limosa.load(source), model)


def test_arrays_that_are_not_contiguous_or_not_little_endian():
    array = np.arange(24, dtype=">f4").reshape(4, 6)
    found = limosa.load(limosa.save({"t": array.T, "s": array[::2, ::3]}))
    assert np.array_equal(found["t"], array.T)
    assert np.array_equal(found["s"], array[::2, ::3])


def test_decoding_into_supplied_arrays():
    model = every_dtype()
    out = {name: np.zeros_like(array) for name, array in model.items()}
    found = limosa.load(limosa.save(model), out=out)
    assert_equal(out, model)
    assert all(found[name] is out[name] for name in model)
    some = {"float32": np.zeros((60, 50), "f4")}
    found = limosa.load(io.BytesIO(limosa.save(model)), out=some)
    assert found["float32"] is some["float32"]
    assert_equal(found, model)


@pytest.mark.parametrize(
    "out",
    [
        {"w": np.zeros((2, 3), "f8")},
        {"w": np.zeros((3, 2), "f4")},
        {"w": np.zeros((4, 6), "f4")[::2, ::2]},
        {"other": np.zeros((2, 3), "f4")},
        {"w": np.broadcast_to(np.zeros(3, "f4"), (2, 3))},
    ],
)
def test_arrays_that_do_not_fit(out):
    with pytest.raises(ConfigError):
        limosa.load(limosa.save({"w": np.ones((2, 3), "f4")}), out=out)


def test_loaded_arrays_are_writable():
    found = limosa.load(limosa.save({"w": np.ones(3, "f4")}))["w"]
    found += 1
    assert found.tolist() == [2, 2, 2]


def test_a_dtype_without_a_counterpart_is_named():
    with pytest.raises(ConfigError, match="'text'"):
        limosa.save({"text": np.array(["a"])})


@pytest.mark.parametrize("threads", [0, -1, 1.5, True])
def test_bad_threads(threads):
    with pytest.raises(ConfigError):
        limosa.save({}, threads=threads)


def test_missing_files_and_tensors(tmp_path):
    with pytest.raises(ConfigError):
        limosa.load_file(tmp_path / "none")
    with pytest.raises(ConfigError):
        limosa.open_file(tmp_path / "none")
    with limosa.open_file(limosa.save({"w": np.ones(1)})) as file:
        for read in (file.get_tensor, file.get_slice):
            with pytest.raises(ConfigError, match="'v'"):
                read("v")


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "m.limosa"
    limosa.save_file({"w": np.ones(1)}, path)
    before = path.read_bytes()
    with pytest.raises(ConfigError):
        limosa.save_file({"w": np.ones(1)}, path, threads=0)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.limosa"]


def test_a_tensor_of_an_update_that_is_read_alone_is_verified():
    base = trained()
    data = limosa.save(trained(), base=base)
    with limosa.open_file(data, base=base, verify=True) as file:
        assert np.array_equal(file.get_tensor("embed.weight"), base["embed.weight"])


def test_every_error_is_a_limosa_error():
    names = {name for name in limosa.__all__ if name.endswith("Error")}
    names.remove("MaxError")  # a quality: the largest error that is allowed
    errors = [getattr(limosa, name) for name in names]
    assert errors
    assert all(issubclass(error, LimosaError) for error in errors)


def test_unknown_attributes():
    with pytest.raises(AttributeError, match="nothing"):
        _ = limosa.nothing
    assert set(limosa.__all__) <= set(dir(limosa))
