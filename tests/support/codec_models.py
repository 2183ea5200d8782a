"""Small models that the codec's tests share."""

from __future__ import annotations

import ml_dtypes
import numpy as np


def every_dtype(seed=0):
    """One tensor of each kind: every dtype, 0-d, empty, constant, tied, non-ASCII names."""
    random = np.random.default_rng(seed)
    normal = random.standard_normal((60, 50))
    floats = {
        name: normal.astype(getattr(ml_dtypes, name))
        for name in (
            "bfloat16",
            "float8_e4m3fn",
            "float8_e5m2",
            "float8_e8m0fnu",
            "float8_e4m3fnuz",
            "float8_e5m2fnuz",
            "float4_e2m1fn",
            "float6_e2m3fn",
            "float6_e3m2fn",
        )
    }
    whole = {
        np.dtype(kind).name: random.integers(0, 100, (7, 11)).astype(kind)
        for kind in ("i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1")
    }
    tied = normal.astype("f4")
    return {
        **floats,
        **whole,
        "float64": normal,
        "float32": tied,
        "float16": normal.astype("f2"),
        "complex": (normal + 1j * normal.T.reshape(60, 50)).astype("c8"),
        "bool": normal > 0,
        "тензор/重み ☃": np.array(3, "i8"),
        "empty": np.empty((0, 4), "f2"),
        "empty too": np.empty((3, 0), "f8"),
        "zeros": np.zeros(1000, "f4"),
        "tied": tied.copy(),
        "tied again": tied.copy(),
        "special": np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 3e38], "f4"),
    }


def trained(seed=0, rows=600):
    """Tensors that look like weights; two are longer than one chunk."""
    random = np.random.default_rng(seed)
    return {
        "embed.weight": (random.standard_normal((rows, 512)) * 0.02).astype("f4"),
        "head.weight": (random.standard_normal((rows, 512)) * 0.05).astype(ml_dtypes.bfloat16),
        "norm.weight": np.ones(512, "f4"),
        "norm.bias": (random.standard_normal(512) * 0.01).astype("f4"),
    }


def tuned(model, seed=1, share=0.3):
    """A later step of *model*: a share of its values moved a little."""
    random = np.random.default_rng(seed)
    return {
        name: np.where(
            random.random(array.shape) < share,
            (array.astype("f4") * (1 + 1e-3 * random.standard_normal(array.shape))).astype(
                array.dtype
            ),
            array,
        )
        for name, array in model.items()
    }


def assert_equal(found, expected):
    """Same names in the same order, same dtypes and shapes, same bits."""
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name
