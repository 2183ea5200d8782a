"""Representation Precision: bounded error, exact exceptions, and the promised digest."""

from __future__ import annotations

import io

import ml_dtypes
import numpy as np
import pytest
from codec_models import assert_equal, every_dtype, trained, tuned

import limosa
from limosa import Digits
from limosa.codec.decoder import Reader
from limosa.errors import ConfigError, CorruptError

FLOATS = ("float64", "float32", "float16", "bfloat16")


@pytest.mark.parametrize("coder", ["rans", "lzma"])
@pytest.mark.parametrize("p", [0, 2, 5, 18])
def test_the_error_is_below_one_step(coder, p):
    model = every_dtype()
    data = limosa.save(model, quality=Digits(p, coder))
    found = limosa.load(data, verify=True)
    for name, array in model.items():
        if name in FLOATS or name == "complex":
            wide = np.complex128 if name == "complex" else np.float64
            error = np.abs(found[name].astype(wide) - array.astype(wide)).max()
            rounding = (
                float(ml_dtypes.finfo(array.real.dtype).eps)
                * np.abs(array).astype(np.float64).max()
            )
            assert error <= 2 * 10.0**-p + rounding
        elif array.dtype.kind not in "fc":
            assert found[name].tobytes() == array.tobytes(), name


def test_both_coders_decode_to_the_same_where_both_are_decimal():
    model = {"w": trained()["embed.weight"][:300]}
    base = {"w": tuned(model)["w"]}
    for held in (None, base):
        found = [
            limosa.load(limosa.save(model, base=held, quality=Digits(3, coder)), base=held)
            for coder in ("rans", "lzma")
        ]
        assert_equal(found[0], found[1])


@pytest.mark.parametrize("kind", ["f8", "f4", "f2", ml_dtypes.bfloat16])
@pytest.mark.parametrize("coder", ["rans", "lzma"])
def test_what_does_not_fit_is_kept_exactly(kind, coder):
    special = np.array([np.nan, np.inf, -np.inf, np.finfo("f4").max], "f8").astype(kind)
    random = np.random.default_rng(0).standard_normal(1000).astype(kind)
    for base in (None, {"w": np.concatenate([random[:500], special, random[:500]])}):
        model = {"w": np.concatenate([special, random])}
        data = limosa.save(model, base=base, quality=Digits(6, coder))
        found = limosa.load(data, base=base, verify=True)["w"]
        assert found[: special.size].tobytes() == special.tobytes()
        assert np.isfinite(found[special.size :].astype("f8")).all()


@pytest.mark.parametrize("coder", ["rans", "lzma"])
def test_opposite_ends_of_the_range(coder):
    biggest = np.finfo("f4").max
    base = {"w": np.full(100, -biggest, "f4")}
    model = {"w": np.full(100, biggest, "f4")}
    data = limosa.save(model, base=base, quality=Digits(0, coder))
    assert np.isfinite(limosa.load(data, base=base, verify=True)["w"]).all()


def test_the_digest_is_that_of_what_is_decoded():
    model = trained()
    data = limosa.save(model, quality=Digits(3))
    decoded = limosa.load(data, verify=True)
    assert Reader(data).digest == Reader(limosa.save(decoded)).digest
    assert Reader(data).digest != Reader(limosa.save(model)).digest


def test_a_lossy_chain_does_not_drift():
    versions = [trained()]
    for seed in range(4):
        versions.append(tuned(versions[-1], seed))
    held = limosa.load(limosa.save(versions[0], quality=Digits(4)))
    for version in versions[1:]:
        update = limosa.save(version, base=held, quality=Digits(4))
        held = limosa.load(update, base=held, verify=True)
        error = np.abs(held["embed.weight"].astype("f8") - version["embed.weight"].astype("f8"))
        assert error.max() < 1.01e-4


def test_fewer_digits_take_fewer_bytes():
    model = trained()
    sizes = [len(limosa.save(model, quality=Digits(p))) for p in (2, 3, 4)]
    assert sizes == sorted(sizes)
    assert sizes[0] < 0.6 * len(limosa.save(model))


def test_copies_in_a_lossy_file():
    one = trained()["embed.weight"]
    model = {"a": one, "b": one.copy()}
    data = limosa.save(model, quality=Digits(3))
    assert len(data) < 1.1 * len(limosa.save({"a": one}, quality=Digits(3)))
    for source in (data, io.BytesIO(data)):
        found = limosa.load(source, verify=True)
        assert np.array_equal(found["a"], found["b"])


def test_the_quality_is_in_the_file():
    assert Reader(limosa.save(trained(), quality=Digits(3))).quality == Digits(3)
    assert Reader(limosa.save(trained())).quality == limosa.Lossless()


@pytest.mark.parametrize("p", [-1, 19, 2.0, True, "3"])
def test_bad_digits(p):
    with pytest.raises(ConfigError):
        Digits(p)


def test_bad_coder():
    with pytest.raises(ConfigError):
        Digits(3, "zip")


def test_an_xz_stream_that_wants_too_much_memory_is_refused():
    import lzma

    from limosa.codec.cursor import put_varint
    from limosa.codec.lzma_decimal import decode_payload

    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**27}]
    packed = lzma.compress(bytes(8), format=lzma.FORMAT_XZ, filters=filters)
    payload = bytearray([13, 0, 0])
    put_varint(payload, len(packed))
    with pytest.raises(CorruptError, match="xz"):
        decode_payload(bytes(payload) + packed, np.empty(4, np.uint8), None, "F32", 3, "here")
