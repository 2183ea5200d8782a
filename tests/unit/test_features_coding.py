"""Features: what is decoded, what is refused, and how small they are."""

from __future__ import annotations

import contextlib
import lzma

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.features import maps, profile, source, video

from limosa import (
    BaseMismatchError,
    Channels,
    ChecksumError,
    ConfigError,
    CorruptError,
    FeatureDecoder,
    FeatureEncoder,
    FeatureProfile,
    FormatError,
    LimitError,
    Limits,
    Lossless,
    MaxError,
    Step,
    Target,
    Tensor,
    TruncatedError,
    UnsupportedVersionError,
    _core,
    load_profile,
    save,
    save_profile,
)
from limosa.codec.feature.wire import FeatureHeader, read_feature, write_feature
from limosa.tensors import TensorSpec

DTYPES = ["F32", "F16", "BF16", "F64"]
QUALITIES = [Lossless(), Step(0.1, effort=1), Step(0.1), Step(0.1, effort=9)]


def values(tensor: Tensor) -> np.ndarray:
    return tensor.numpy().astype(np.float64)


def header_of(data: bytes):
    return read_feature(data, Limits())[0]


@pytest.mark.parametrize("with_profile", [None, profile()], ids=["plain", "profile"])
@pytest.mark.parametrize("quality", QUALITIES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_round_trip(dtype: str, quality, with_profile):
    where = source(with_profile)
    encoder, decoder = FeatureEncoder(where, quality=quality), FeatureDecoder(where)
    for seed in range(3):
        tensors = {"x": maps(seed, dtype=dtype), "skip": maps(seed, (2, 5), dtype)}
        back = decoder.decode(encoder.encode(tensors))
        assert list(back) == ["x", "skip"]
        for name, tensor in tensors.items():
            assert back[name].dtype == dtype
            assert back[name].shape == tensor.shape
            if isinstance(quality, Lossless):
                assert np.array_equal(back[name].data, tensor.data)
                continue
            # Two quantizers of twice the step, then the scale of the channel and the dtype.
            scale = 1.0
            if with_profile is not None and name == "x":
                known = with_profile.channels["x"]
                scale = np.empty(12)
                scale[known.order] = known.scale
                scale = scale[:, None, None]
            error = np.abs(values(back[name]) - values(tensor))
            rounding = 2.0**-8 if dtype == "BF16" else 2.0**-10
            assert (error <= 0.2 * scale + rounding * np.abs(values(tensor)) + 1e-6).all()


@pytest.mark.parametrize("dtype", ["I32", "U8", "BOOL"])
def test_integers_are_exact_whatever_the_quality(dtype: str):
    kinds = {"I32": np.int32, "U8": np.uint8, "BOOL": np.bool_}
    array = np.random.default_rng(0).integers(0, 2, (3, 4, 5)).astype(kinds[dtype])
    data = FeatureEncoder(source(), quality=Step(0.5)).encode({"x": Tensor.from_numpy(array)})
    assert np.array_equal(FeatureDecoder(source()).decode(data)["x"].numpy(), array)


def test_what_is_not_finite_comes_back_as_it_was():
    array = maps().numpy().copy()
    array[0, 3, 2, :3] = np.nan, np.inf, -np.inf
    where = source(profile())
    data = FeatureEncoder(where, quality=Step(0.1)).encode({"x": Tensor.from_numpy(array)})
    back = FeatureDecoder(where).decode(data)["x"].numpy()
    assert np.array_equal(back[0, 3, 2, :3], array[0, 3, 2, :3], equal_nan=True)


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_any_shape_comes_back(data):
    shape = tuple(data.draw(st.lists(st.integers(0, 6), max_size=5)))
    array = np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)
    quality = data.draw(st.sampled_from([Lossless(), Step(0.25, effort=9)]))
    encoder, decoder = FeatureEncoder(source(), quality=quality), FeatureDecoder(source())
    for _ in range(2):
        back = decoder.decode(encoder.encode({"x": Tensor.from_numpy(array)}))["x"]
        assert back.shape == shape
        assert np.allclose(back.numpy(), array, atol=0 if isinstance(quality, Lossless) else 0.5)


def test_what_cannot_be_shrunk_takes_64_bytes_more_at_most():
    random = np.random.default_rng(1)
    for count in (1, 100, 300_000):
        raw = Tensor("F32", (1, count), random.integers(0, 256, 4 * count, dtype=np.uint8))
        for quality in (Lossless(), Step(1e-30)):
            data = FeatureEncoder(source(), quality=quality).encode({"x": raw})
            assert len(data) <= 4 * count + 64
            assert np.array_equal(FeatureDecoder(source()).decode(data)["x"].data, raw.data)


def test_activations_are_smaller_than_by_lzma():
    x = maps(0, (1, 48, 28, 28)).numpy().copy()
    x[0, ::3] = np.where(x[0, ::3] < 0.5, np.float32(0.123), x[0, ::3])  # a bias shows
    x = np.minimum(x, 6)
    tensor = Tensor.from_numpy(x)
    data = FeatureEncoder(source()).encode({"x": tensor})
    assert len(data) < 0.95 * len(lzma.compress(tensor.data.tobytes()))


def test_predicted_features_are_smaller_and_as_good():
    frames = video(9)
    for quality in (Step(0.1), Step(0.1, effort=9)):
        sizes, errors = [], []
        for every in (1, 30):
            encoder = FeatureEncoder(source(), quality=quality, key_every=every)
            decoder = FeatureDecoder(source())
            sent = [encoder.encode({"x": x}) for x in frames]
            back = [decoder.decode(data)["x"] for data in sent]
            sizes.append(sum(map(len, sent)))
            pairs = zip(back, frames, strict=True)
            errors.append(np.mean([np.square(values(b) - values(x)).mean() for b, x in pairs]))
        assert sizes[1] < 0.85 * sizes[0]
        assert errors[1] < 1.3 * errors[0]


def test_a_key_comes_every_n_features_and_on_demand():
    encoder = FeatureEncoder(source(), quality=Step(0.1), key_every=4)
    keys = []
    for i, x in enumerate(video(12)):
        if i == 6:
            encoder.request_key()
        header = header_of(encoder.encode({"x": x}))
        assert header.number == i
        if header.base is None:
            keys.append(i)
    assert keys == [0, 4, 6, 10]


def test_a_lost_feature_is_noticed_and_a_key_helps():
    encoder, decoder = FeatureEncoder(source(), quality=Step(0.1)), FeatureDecoder(source())
    frames = video(8)
    decoder.decode(encoder.encode({"x": frames[0]}))
    encoder.encode({"x": frames[1]})  # lost on the way
    for x in frames[2:4]:
        with pytest.raises(BaseMismatchError, match="key feature"):
            decoder.decode(encoder.encode({"x": x}))
    encoder.request_key()
    decoder.decode(encoder.encode({"x": frames[4]}))
    decoder.decode(encoder.encode({"x": frames[5]}))


def test_a_late_comer_is_told_to_ask():
    encoder = FeatureEncoder(source(), quality=Step(0.1))
    frames = video(4)
    encoder.encode({"x": frames[0]})
    with pytest.raises(BaseMismatchError, match="did not come"):
        FeatureDecoder(source()).decode(encoder.encode({"x": frames[1]}))


def test_other_shapes_start_anew():
    encoder, decoder = FeatureEncoder(source(), quality=Step(0.1)), FeatureDecoder(source())
    for shape in ((1, 12, 9, 11), (1, 12, 9, 12), (2, 12, 9, 12)):
        assert decoder.decode(encoder.encode({"x": maps(0, shape)}))["x"].shape == shape


def test_memory_of_the_caller_may_be_used_again():
    encoder, decoder = FeatureEncoder(source()), FeatureDecoder(source())
    x = maps().numpy().copy()
    first = decoder.decode(encoder.encode({"x": Tensor.from_numpy(x)}))["x"]
    kept = x.copy()
    x[:] = 7
    first.numpy()[:] = 3
    back = decoder.decode(encoder.encode({"x": Tensor.from_numpy(kept)}))["x"]
    assert np.array_equal(back.numpy(), kept)


def test_another_source_is_refused():
    data = FeatureEncoder(source()).encode({"x": maps()})
    for other in (source(cut="layer2"), source(profile())):
        with pytest.raises(BaseMismatchError, match="another model, cut or profile"):
            FeatureDecoder(other).decode(data)


def test_targets_are_kept():
    x = maps(0, (1, 32, 24, 24))
    for effort in (1, 9):
        data = FeatureEncoder(source(), quality=Target(bits=1.5, effort=effort)).encode({"x": x})
        bits = 8 * len(data) / x.numpy().size
        assert 1.3 < bits <= 1.5
        data = FeatureEncoder(source(), quality=Target(snr=25, effort=effort)).encode({"x": x})
        back = values(FeatureDecoder(source()).decode(data)["x"])
        noise = np.square(back - values(x)).sum()
        assert 25 <= 10 * np.log10(np.square(values(x)).sum() / noise) < 26


def test_the_step_of_a_target_serves_the_whole_sequence():
    encoder = FeatureEncoder(source(), quality=Target(bits=3, effort=9))
    decoder = FeatureDecoder(source())
    for x in video(5):
        decoder.decode(encoder.encode({"x": x}))


@pytest.mark.parametrize("quality", [MaxError(abs=0.1), Target(size=100), Step(1, by_row=True)])
def test_qualities_that_features_do_not_have(quality):
    with pytest.raises(ConfigError, match="quality"):
        FeatureEncoder(source(), quality=quality)


def test_bad_arguments():
    with pytest.raises(ConfigError, match="interval"):
        FeatureEncoder(source(), key_every=0)
    with pytest.raises(ConfigError, match="no tensors"):
        FeatureEncoder(source()).encode({})
    with pytest.raises(ConfigError, match="channels"):
        FeatureEncoder(source(profile(7)), quality=Step(0.1)).encode({"x": maps()})
    with pytest.raises(ConfigError, match="order"):
        Channels(1, np.array([0, 0], np.int32), np.ones(2, np.float32))
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ConfigError, match="scales"):
            Channels(1, np.array([0, 1], np.int32), np.array([1, bad], np.float32))


def test_profiles_survive_their_files(tmp_path):
    one = FeatureProfile({"x": profile().channels["x"], "a.b": profile(4, 3).channels["x"]})
    save_profile(one, tmp_path / "p", {"cut": "layer3"})
    assert load_profile(tmp_path / "p").digest == one.digest
    (tmp_path / "q").write_bytes(save({"w": np.ones(3, np.float32)}))
    with pytest.raises(CorruptError, match="profile"):
        load_profile(tmp_path / "q")


def resealed(body: bytes) -> bytes:
    return body + _core.crc32c(body).to_bytes(4, "little")


def test_damage_is_noticed():
    data = FeatureEncoder(source()).encode({"x": maps()})
    decoder = FeatureDecoder(source())
    with pytest.raises(CorruptError, match="not a feature"):
        decoder.decode(b"not a feature at all, but long enough to be one")
    with pytest.raises(UnsupportedVersionError):
        decoder.decode(data[:8] + b"\1" + data[9:])
    for i in (20, len(data) // 2, len(data) - 1):
        with pytest.raises(ChecksumError):
            decoder.decode(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])
    for n in range(0, len(data) - 1, 7):
        with pytest.raises(FormatError):
            decoder.decode(data[:n])
    with pytest.raises(TruncatedError):
        decoder.decode(b"\x89LM")
    with pytest.raises(LimitError):
        FeatureDecoder(source(), limits=Limits(max_elements=100)).decode(data)
    with pytest.raises(LimitError):
        FeatureDecoder(source(), limits=Limits(max_total_bytes=100)).decode(data)
    # A promise that is not kept.
    with pytest.raises(ChecksumError, match="digest"):
        decoder.decode(resealed(data[:-12] + bytes(8)))
    decoder.decode(data)


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_hostile_bytes_raise_what_is_said(data):
    """Behind a checksum that holds, anything may stand."""
    good = FeatureEncoder(source(), quality=data.draw(st.sampled_from(QUALITIES))).encode(
        {"x": maps(0, (1, 3, 4, 5))}
    )
    body = bytearray(good[:-4])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(17, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(17, len(body)))
    limits = Limits(max_elements=10_000, max_total_bytes=100_000)
    with contextlib.suppress(FormatError, BaseMismatchError):
        FeatureDecoder(source(), limits=limits).decode(resealed(bytes(body[:cut])))


def test_an_empty_tensor_with_huge_dimensions_is_refused():
    spec = TensorSpec("x", "F32", (0, 2**40, 2**40))
    header = FeatureHeader(source().id, 0, None, False, True, (spec,), bytes(8))
    with pytest.raises(LimitError):
        FeatureDecoder(source()).decode(write_feature(header, b""))
