"""Layers of quality: a prefix decodes to less, and nothing is sent twice."""

from __future__ import annotations

import io

import numpy as np
import pytest

import limosa
from limosa import ConfigError, FormatError, Lossless, Target
from limosa.codec.encoder import encode
from limosa.codec.inputs import Memory
from limosa.codec.layers import MAX_LAYERS, encode_layers, layer_spans
from limosa.files import bundle_from_tensors
from limosa.limits import Limits
from limosa.tensors import Tensor

QUALITIES = [Target(bits=2.5), Target(bits=5), Lossless()]


def weights(shape: tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.uniform(0.3, 3, (shape[0], *[1] * (len(shape) - 1)))
    return (rng.normal(0, 0.05, shape) * rows).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> dict[str, np.ndarray]:
    return {"a": weights((300, 400), 0), "b": weights((64, 32, 3, 3), 1), "c": weights((64,), 2)}


def bundle(model):
    return bundle_from_tensors({name: Tensor.from_numpy(a) for name, a in model.items()})


@pytest.fixture(scope="module")
def layered(model) -> tuple[bytes, list[int]]:
    parts: list[bytes] = []
    results = encode_layers(bundle(model), parts.append, QUALITIES)
    ends = np.cumsum([result.bytes_out for result in results]).tolist()
    return b"".join(parts), ends


def snr(model, back) -> float:
    """Over the tensors that are not kept, as encoders measure it."""
    names = [name for name, array in model.items() if array.ndim > 1]
    noise = sum(((model[n].astype(np.float64) - back[n]) ** 2).sum() for n in names)
    return float(
        10 * np.log10(sum((model[n].astype(np.float64) ** 2).sum() for n in names) / noise)
    )


def same(a, b) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in a)


def test_the_last_layer_is_exact(model, layered):
    data, ends = layered
    assert ends[-1] == len(data)
    assert same(model, limosa.load(data, verify=True))


def test_save_makes_layers_of_several_qualities(model, layered):
    assert limosa.save(model, quality=QUALITIES) == layered[0]


def test_more_layers_are_better(model, layered):
    coarse, fine = (snr(model, limosa.load(layered[0], layers=k)) for k in (1, 2))
    assert 8 < coarse < fine - 10


def test_a_ratio_is_that_of_the_weights_in_every_layer(model):
    parts: list[bytes] = []
    results = encode_layers(bundle(model), parts.append, [Target(snr=15), Target(snr=25)])
    for number, (result, wanted) in enumerate(zip(results, (15, 25), strict=True), 1):
        found = snr(model, limosa.load(b"".join(parts), layers=number))
        assert wanted <= found <= 1.01 * wanted
        assert result.snr == pytest.approx(found)


def test_a_prefix_is_enough(model, layered):
    data, ends = layered
    for number, end in enumerate(ends, 1):
        whole = limosa.load(data, layers=number)
        for more in (0, 1, 100):
            prefix = data[: min(end + more, len(data))]
            assert same(whole, limosa.load(prefix, layers=number, verify=True))


def test_a_pipe_gives_the_first_layers(model, layered):
    data, ends = layered
    piped = limosa.load(io.BytesIO(data[: ends[1]]), layers=2)
    assert same(limosa.load(data, layers=2), piped)


def test_one_tensor_comes_alone(layered):
    with limosa.open_file(layered[0], layers=2) as file:
        one = file.get_tensor("b")
    assert np.array_equal(one, limosa.load(layered[0], layers=2)["b"])


def test_bits_count_all_layers_so_far(model, layered):
    elements = sum(array.size for array in model.values())
    for end, bits in zip(layered[1], (2.5, 5), strict=False):
        assert 0.99 * bits * elements / 8 <= end <= bits * elements / 8


def test_the_sum_of_the_layers_is_near_the_single_file(model, layered):
    single = encode(bundle(model), lambda piece: None)
    assert len(layered[0]) <= 1.05 * single.bytes_out
    fine = snr(model, limosa.load(layered[0], layers=2))
    alike = encode(bundle(model), lambda piece: None, quality=Target(snr=fine))
    assert layered[1][1] <= 1.05 * alike.bytes_out


def test_what_is_not_there_is_named(layered):
    data, ends = layered
    with pytest.raises(ConfigError, match="no such layer"):
        limosa.load(data, layers=4)
    with pytest.raises(FormatError):
        limosa.load(data[: ends[1] - 1], layers=2)
    with pytest.raises(FormatError):
        limosa.load(data[1:])
    with pytest.raises(FormatError):
        limosa.load(data[: ends[1]] + b"x")


def test_two_files_are_not_layers(model):
    with pytest.raises(FormatError, match="layer"):
        limosa.load(limosa.save(model) + limosa.save(model))


def test_a_flipped_bit_in_any_layer_is_found(layered):
    data, ends = layered
    for place in [end - offset for end in ends for offset in (1, 12, 100, 1000)]:
        damaged = bytearray(data)
        damaged[place] ^= 16
        with pytest.raises(FormatError):
            limosa.load(bytes(damaged), verify=True)


def test_layers_are_few_and_from_files(model):
    with pytest.raises(ConfigError):
        encode_layers(bundle(model), print, [])
    with pytest.raises(ConfigError):
        encode_layers(bundle(model), print, [Lossless()] * (MAX_LAYERS + 1))
    with pytest.raises(ConfigError, match="no bytes left"):
        encode_layers(bundle(model), lambda piece: None, [Target(bits=3), Target(bits=2)])


def test_a_file_without_layers_has_one(model):
    data = limosa.save(model)
    assert layer_spans(Memory(data), None, Limits()) == [(0, len(data))]
    assert same(model, limosa.load(data, layers=1))
