"""Laws of the codec over generated models."""

from __future__ import annotations

import io

import ml_dtypes
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import limosa
from limosa import BaseMismatchError, Digits, FormatError
from limosa.codec.decoder import Reader

DTYPES = [
    np.dtype(name)
    for name in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?", "c8")
] + [np.dtype(ml_dtypes.bfloat16), np.dtype(ml_dtypes.float8_e4m3fn)]


@st.composite
def arrays(draw):
    """Arrays of raw bits, so that NaNs of all kinds occur; often few values or long runs."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=40))
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    size = int(np.prod(shape)) * dtype.itemsize
    kind = draw(st.sampled_from(["bits", "few", "constant", "sparse", "weights"]))
    if dtype == np.bool_ or kind == "few":
        raw = random.integers(0, 2, size, dtype="u1")
    elif kind == "constant":
        raw = np.zeros(size, "u1")
    elif kind == "weights" and dtype.kind == "f":
        raw = random.standard_normal(int(np.prod(shape))).astype(dtype).reshape(-1).view("u1")
    else:
        raw = random.integers(0, 256, size, dtype="u1")
        if kind == "sparse":
            raw[random.random(size) < 0.9] = 0
    return raw.view(dtype).reshape(shape)


names = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="./\\"), max_size=12
)
models = st.dictionaries(names, arrays(), max_size=6)
quiet = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def bits(model):
    return {name: (str(a.dtype), a.shape, a.tobytes()) for name, a in model.items()}


@quiet
@given(models, st.integers(1, 3))
def test_whole_models_come_back(model, threads):
    data = limosa.save(model, threads=threads)
    assert bits(limosa.load(data, verify=True)) == bits(model)
    assert bits(limosa.load(io.BytesIO(data), verify=True)) == bits(model)
    assert data == limosa.save(model, threads=1)


@quiet
@given(models, models, st.data())
def test_updates_come_back(base, new, data):
    for name in data.draw(st.sets(st.sampled_from(sorted(base)) if base else st.nothing())):
        new[name] = base[name].copy()
        if new[name].size and data.draw(st.booleans()):
            new[name].reshape(-1)[0] = new[name].reshape(-1)[-1]
    update = limosa.save(new, base=base)
    assert bits(limosa.load(update, base=base, verify=True)) == bits(new)
    assert bits(limosa.load(io.BytesIO(update), base=base, verify=True)) == bits(new)
    if Reader(limosa.save(base)).digest != Reader(limosa.save(new)).digest:
        try:
            limosa.load(update, base=new)
        except BaseMismatchError:
            return
        raise AssertionError("another base was taken")


@quiet
@given(models, st.integers(0, 18))
def test_lossy_models_decode_as_promised(model, p):
    data = limosa.save(model, quality=Digits(p))
    decoded = limosa.load(data, verify=True)
    # Decoding is a fixed point of nothing but its own digest: a second pass must agree with it.
    assert bits(limosa.load(io.BytesIO(data), verify=True)) == bits(decoded)
    for name, array in model.items():
        if array.dtype.kind not in "fcV":
            assert decoded[name].tobytes() == array.tobytes()


@quiet
@given(models, st.data())
def test_slices_agree_with_whole_tensors(model, data):
    with limosa.open_file(limosa.save(model)) as file:
        for name, array in model.items():
            if array.ndim:
                index = data.draw(st.slices(array.shape[0]))
                assert file.get_slice(name)[index].tobytes() == array[index].tobytes()


@quiet
@given(models, st.data())
def test_damage_is_found(model, data):
    good = limosa.save(model)
    bad = bytearray(good)
    place = data.draw(st.integers(0, len(good) - 1))
    bad[place] ^= data.draw(st.integers(1, 255))
    for source in (bytes(bad), io.BytesIO(bytes(bad)), good[:place]):
        try:
            limosa.load(source, verify=True)
        except FormatError:
            continue
        raise AssertionError("damage was not found")


@quiet
@given(st.binary(max_size=300))
def test_noise_is_refused(noise):
    for source in (noise, io.BytesIO(noise), b"\x89LMSA\r\n\x1a\0" + noise):
        try:
            limosa.load(source)
        except FormatError:
            continue
        raise AssertionError("noise was decoded")
