"""The golden files that limosa's own encoder writes; what they hold is computed here."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
from blake3 import blake3

import limosa
from limosa.codec.encoder import encode
from limosa.codec.joint import encode_set
from limosa.files import read
from limosa.tensors import Tensor

Arrays = Mapping[str, np.ndarray]
Made = tuple[str, dict[str, bytes], dict]
BF16 = np.dtype(ml_dtypes.bfloat16)


def described(arrays: Arrays) -> list[dict]:
    """The `tensors` of expected.json."""
    rows = []
    for name, array in arrays.items():
        data = array.tobytes()
        dtype = Tensor.from_numpy(array).dtype
        digest = blake3(data).hexdigest()
        rows.append({"name": name, "dtype": dtype, "shape": array.shape, "blake3": digest})
    return rows


def model(kind: np.dtype, seed: int = 0) -> dict[str, np.ndarray]:
    """Two layers of a small network, and what usually goes with them."""
    rng = np.random.default_rng(seed)
    return {
        "embed": (0.02 * rng.standard_normal((40, 32))).astype(kind),
        "fc.weight": (0.3 * rng.standard_normal((24, 32))).astype(kind),
        "fc.bias": np.zeros(24, kind),
        "norm.weight": np.ones(32, kind),
        "step": np.array(1000, np.int64),
    }


def trained(old: Arrays, seed: int = 1, rate: float = 1e-3) -> dict[str, np.ndarray]:
    """A later step of the same run."""
    rng = np.random.default_rng(seed)
    new = {}
    for name, array in old.items():
        step = rate * rng.standard_normal(array.shape)
        new[name] = (array.astype(np.float64) * (1 + step)).astype(array.dtype)
    return new


def made(name: str, feature: str, arrays: Arrays, base: Arrays | None = None, **options) -> Made:
    """A file of limosa.save; with digits the caller says what comes back."""
    comes_back = options.pop("comes_back", arrays)
    files = {"file.limosa": limosa.save(arrays, base=base, **options)}
    if base is not None:
        files["base.limosa"] = limosa.save(base)
    return f"limosa-{name}", files, {"feature": feature, "tensors": described(comes_back)}


def encoder_cases() -> Iterator[Made]:
    """All of them."""
    kinds = {"f64": np.dtype("f8"), "f32": np.dtype("f4"), "f16": np.dtype("f2"), "bf16": BF16}
    for word, kind in kinds.items():
        old = model(kind)
        yield made(f"model-{word}", "a small model", old)
        yield made(f"update-{word}", "a later step of the same run", trained(old), old)
    yield from structures()
    yield from updates()
    yield from lossy()
    yield from quantized()
    yield piped()
    yield joint()


def structures() -> Iterator[Made]:
    """What lossless coding of one model looks for."""
    rng = np.random.default_rng(5)
    old = model(np.dtype("f4"))
    yield made("metadata", "metadata of safetensors", {"w": old["embed"]}, metadata={"a": "ü"})
    yield made("tied", "a tensor twice", {**old, "lm_head": old["embed"]})
    rounded = old["embed"].astype(BF16).astype(np.float32)
    yield made("bf16-in-f32", "BF16 values stored as F32", {"w": rounded})
    levels = np.linspace(-1, 1, 16, dtype=np.float32)
    yield made("palette", "16 distinct values", {"w": rng.choice(levels, (50, 20))})
    sparse = np.where(rng.random((50, 20)) < 0.1, 1.0, 0.0) * rng.standard_normal((50, 20))
    yield made("sparse", "most units are zero", {"w": sparse.astype(np.float32)})
    rows = np.concatenate([sparse, rng.standard_normal((50, 20)), np.zeros((50, 20))])
    yield made("rows", "rows of different structure", {"w": np.repeat(rows, 4, 0).astype("f4")})
    long = np.zeros(600_000, np.int8)
    long[::1000] = 1
    yield made("chunks", "three chunks", {"w": long})
    extremes = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, 3e38, -1e-38], np.float32)
    yield made("specials", "values that floats have beside numbers", {"w": np.tile(extremes, 9)})
    mixed = {
        "bool": rng.random(99) < 0.5,
        "i8": rng.integers(-9, 9, 99, np.int8),
        "u32": rng.integers(0, 2**32, 99, np.uint32),
        "c64": rng.standard_normal(99).astype(np.complex64),
        "f8": rng.standard_normal(99).astype(ml_dtypes.float8_e4m3fn),
        "empty": np.zeros((3, 0), np.float16),
        "größe": np.array(7, np.uint8),
    }
    yield made("dtypes", "several dtypes, an empty and a scalar tensor", mixed)


def updates() -> Iterator[Made]:
    """What coding against a base looks for."""
    rng = np.random.default_rng(6)
    old = model(BF16, 2)
    yield made("update-of-nothing", "an update that changes nothing", old, old)
    few = {name: array.copy() for name, array in old.items()}
    few["embed"][rng.integers(0, 40, 9), rng.integers(0, 32, 9)] = 1
    yield made("update-sparse", "few changed units", few, old)
    changed = trained(old, rate=1e-2)
    renamed = {f"model.{name}": array for name, array in changed.items()}
    yield made("update-renamed", "renamed tensors", renamed, old)
    grown = {**changed, "embed": np.concatenate([changed["embed"], changed["embed"][:3]])}
    del grown["fc.bias"]
    grown["new"] = rng.standard_normal(50).astype(BF16)
    yield made("update-reshaped", "tensors added, removed and of another shape", grown, old)


def lossy() -> Iterator[Made]:
    """Representation Precision."""
    old, new = model(np.dtype("f4"), 3), trained(model(np.dtype("f4"), 3))
    for coder in ("rans", "lzma"):
        quality = limosa.Digits(4, coder)
        back = {n: a if n == "step" else rounded(a, None) for n, a in new.items()}
        name = f"digits-{coder}"
        yield made(name, "4 digits", new, quality=quality, comes_back=back)
        back = {n: a if n == "step" else rounded(a, old[n]) for n, a in new.items()}
        feature = "4 digits of the difference"
        yield made(f"update-{name}", feature, new, old, quality=quality, comes_back=back)


def quantized() -> Iterator[Made]:
    """Levels and what goes with them; which ones limosa chose, only its decoder can tell."""
    qualities = {
        "step": limosa.Step(2.0**-7),
        "step-plain": limosa.Step(2.0**-7, effort=1),
        "step-adaptive": limosa.Step(2.0**-7, effort=9),
        "max-error": limosa.MaxError(abs=1e-3),
        "max-error-relative": limosa.MaxError(rel=0.01),
        "codebook": limosa.Codebook(16),
        "bits": limosa.Target(bits=4),
        "signs": limosa.Signs(),
    }
    old = model(BF16, 9)
    new = trained(old, 10, 1e-1)
    for name, quality in qualities.items():
        for base in (None, old):
            data = limosa.save(new, base=base, quality=quality)
            back = limosa.load(data, base=base, verify=True)
            word = name if base is None else f"update-{name}"
            yield made(word, str(quality), new, base, quality=quality, comes_back=back)


def rounded(array: np.ndarray, base: np.ndarray | None) -> np.ndarray:
    """What four digits of F32 values come back as, by docs/format.md 3.10."""
    wide = array.astype(np.float64) - (0 if base is None else base.astype(np.float64))
    value = (np.trunc(wide * 1e4) / 1e4).astype(np.float32) + np.float32(0)  # no -0
    return value if base is None else base + value


def piped() -> Made:
    """A model that came through a pipe, so that copies are found on the way."""
    old = model(np.dtype("f4"))
    arrays = {**old, "lm_head": old["embed"]}
    parts: list[bytes] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        packed, plain = Path(folder) / "model.limosa", path
        limosa.save_file(arrays, packed)
        limosa.decompress(packed, plain)
        with read(io.BytesIO(path.read_bytes())) as bundle:
            encode(bundle, lambda part: parts.append(bytes(part)))
    expected = {"feature": "a model that was read from a pipe", "tensors": described(arrays)}
    return "limosa-piped", {"file.limosa": b"".join(parts)}, expected


def joint() -> Made:
    """Three models in one file."""
    first = model(BF16, 4)
    models = {"a/v1.safetensors": first, "a/v2.safetensors": trained(first, 7)}
    models["b.safetensors"] = trained(models["a/v2.safetensors"], 8)
    parts: list[bytes] = []
    with tempfile.TemporaryDirectory() as folder:
        bundles = {}
        for number, (name, arrays) in enumerate(models.items()):
            path = Path(folder) / f"{number}.safetensors"
            limosa.save_file(arrays, path.with_suffix(".limosa"))
            limosa.decompress(path.with_suffix(".limosa"), path)
            bundles[name] = read(path)
        encode_set(bundles, lambda part: parts.append(bytes(part)))
        for bundle in bundles.values():
            bundle.close()
    described_models = {name: described(arrays) for name, arrays in models.items()}
    expected = {"feature": "three models, coded jointly", "models": described_models}
    return "limosa-set", {"file.limosa": b"".join(parts)}, expected
