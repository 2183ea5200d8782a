"""compress, decompress, diff, apply and verify on files and folders."""

from __future__ import annotations

import io
import os
import threading

import numpy as np
import pytest
from codec_models import trained, tuned
from safetensors.numpy import save_file

import limosa
from limosa.errors import BaseMismatchError, ConfigError, FormatError
from limosa.exchange import local


def floats(model):
    return {name: array for name, array in model.items() if array.dtype.kind in "fiu"}


@pytest.fixture
def versions(tmp_path):
    """Three versions of a model as files."""
    model = floats(trained(rows=200))
    paths = []
    for number in range(3):
        path = tmp_path / f"v{number}.safetensors"
        save_file(model, path, {"version": str(number)})
        paths.append(path)
        model = tuned(model, number, share=0.1)
    return paths


def test_a_file_comes_back_byte_for_byte(versions, tmp_path):
    packed, back = tmp_path / "p.limosa", tmp_path / "back.safetensors"
    result = local.compress(versions[0], packed)
    assert result.bytes_out == packed.stat().st_size
    assert local.decompress(packed, back) == result.digest == local.verify(packed)
    assert back.read_bytes() == versions[0].read_bytes()


def test_through_pipes(versions):
    packed, back = io.BytesIO(), io.BytesIO()
    with versions[0].open("rb") as file:
        local.compress(file, packed)
    packed.seek(0)
    local.decompress(packed, back)
    assert back.getvalue() == versions[0].read_bytes()


def test_through_real_pipes(versions, tmp_path):
    reading, writing = os.pipe()

    def send():
        with open(writing, "wb") as end:
            local.compress(versions[0], end)

    thread = threading.Thread(target=send)
    thread.start()
    with open(reading, "rb", buffering=0) as end:
        local.decompress(end, tmp_path / "back.safetensors")
    thread.join()
    assert (tmp_path / "back.safetensors").read_bytes() == versions[0].read_bytes()


def test_an_update(versions, tmp_path):
    update, new = tmp_path / "u.limosa", tmp_path / "new.safetensors"
    result = local.diff(versions[0], versions[1], update)
    assert result.choice is None
    assert update.stat().st_size < 0.5 * versions[1].stat().st_size
    assert local.apply(versions[0], update, new) == result.encoded.digest
    assert new.read_bytes() == versions[1].read_bytes()
    assert local.verify(update, base=versions[0]) == result.encoded.digest


def test_the_best_of_several_bases(versions, tmp_path):
    for source in (versions[2], io.BytesIO(versions[2].read_bytes())):
        result = local.diff(versions[:2], source, tmp_path / "u.limosa")
        assert result.base == result.choice.number == 1
        local.apply(versions[1], tmp_path / "u.limosa", tmp_path / "new.safetensors")
        assert (tmp_path / "new.safetensors").read_bytes() == versions[2].read_bytes()


def test_another_base_writes_nothing(versions, tmp_path):
    update = tmp_path / "u.limosa"
    local.diff(versions[0], versions[1], update)
    before = sorted(os.listdir(tmp_path))
    for base in (versions[1], versions[2]):
        with pytest.raises(BaseMismatchError):
            local.apply(base, update, tmp_path / "new.safetensors")
    with pytest.raises(BaseMismatchError):
        local.decompress(update, tmp_path / "new.safetensors")
    assert sorted(os.listdir(tmp_path)) == before


def test_a_damaged_file_leaves_nothing(versions, tmp_path):
    packed = tmp_path / "p.limosa"
    local.compress(versions[0], packed)
    data = bytearray(packed.read_bytes())
    data[len(data) // 2] ^= 16
    packed.write_bytes(data)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(FormatError):
        local.decompress(packed, tmp_path / "back.safetensors")
    assert sorted(os.listdir(tmp_path)) == before


def test_a_whole_model_is_no_update(versions, tmp_path):
    local.compress(versions[0], tmp_path / "p.limosa")
    with pytest.raises(ConfigError, match="decompress"):
        local.apply(versions[0], tmp_path / "p.limosa", tmp_path / "new.safetensors")


def test_a_folder(versions, tmp_path):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text('{"a": 1}')
    (folder / "sub" / "one.safetensors").write_bytes(versions[0].read_bytes())
    (folder / "two.safetensors").write_bytes(versions[1].read_bytes())
    local.compress(folder, tmp_path / "p.limosa")
    local.decompress(tmp_path / "p.limosa", tmp_path / "back")
    found = {p.relative_to(tmp_path / "back"): p for p in (tmp_path / "back").rglob("*.*")}
    assert len(found) == 3
    for path, copy in found.items():
        assert copy.read_bytes() == (folder / path).read_bytes()


def test_a_set(versions, tmp_path):
    packed, back = tmp_path / "all.limosa", tmp_path / "back"
    result = local.compress_set(versions, packed)
    assert list(result.bases) == [path.name for path in versions]
    assert packed.stat().st_size == result.bytes_out < 0.6 * result.bytes_in
    digest = local.decompress(packed, back)
    assert digest == local.verify(packed)
    for path in versions:
        assert (back / path.name).read_bytes() == path.read_bytes()
    with packed.open("rb") as file:
        local.decompress(file, tmp_path / "one", model=versions[2].name)
    assert (tmp_path / "one").read_bytes() == versions[2].read_bytes()


def test_models_of_one_name_are_named_by_their_folders(versions, tmp_path):
    paths = []
    for path in versions[:2]:
        (tmp_path / path.stem).mkdir()
        paths.append(path.rename(tmp_path / path.stem / "model.safetensors"))
    result = local.compress_set(paths, tmp_path / "all.limosa")
    assert list(result.bases) == ["v0/model.safetensors", "v1/model.safetensors"]
    with pytest.raises(ConfigError, match="twice"):
        local.compress_set([paths[0], paths[0]], tmp_path / "all.limosa")


def test_a_lossy_base(versions, tmp_path):
    """The corrupted prediction: an update against a model that was received with loss."""
    held, update = tmp_path / "held.limosa", tmp_path / "u.limosa"
    local.compress(versions[0], held, quality=limosa.Digits(4))
    local.diff(held, versions[1], update)
    assert update.stat().st_size < versions[1].stat().st_size
    local.apply(held, update, tmp_path / "new.safetensors")
    assert (tmp_path / "new.safetensors").read_bytes() == versions[1].read_bytes()


def test_missing_files(tmp_path):
    for call in (
        lambda: local.compress(tmp_path / "none.safetensors", tmp_path / "p"),
        lambda: local.decompress(tmp_path / "none", tmp_path / "p"),
        lambda: local.diff(tmp_path / "none", tmp_path / "none", tmp_path / "p"),
        lambda: local.diff([], tmp_path / "none", tmp_path / "p"),
        lambda: local.verify(tmp_path / "none"),
    ):
        with pytest.raises(ConfigError):
            call()
    assert os.listdir(tmp_path) == []


def test_progress_counts_tensor_bytes(versions, tmp_path):
    packed = tmp_path / "p.limosa"
    total = sum(array.nbytes for array in trained(rows=200).values() if array.dtype.kind == "f")
    encoded, decoded = [], []
    local.compress(versions[0], packed, progress=encoded.append)
    local.decompress(packed, tmp_path / "b.safetensors", progress=decoded.append)
    assert sum(encoded) == sum(decoded) == total
    assert np.all(np.array(decoded) >= 0)
