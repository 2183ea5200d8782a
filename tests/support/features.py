"""Features that several tests share."""

from __future__ import annotations

import numpy as np

from limosa import Channels, FeatureProfile, FeatureSource, Tensor
from limosa.tensors import numpy_dtype

MODEL = bytes(range(32))


def maps(seed: int = 0, shape=(1, 12, 9, 11), dtype: str = "F32", relu: bool = True) -> Tensor:
    """Maps of channels with scales of their own, smooth, and rectified if asked."""
    random = np.random.default_rng(seed)
    x = random.standard_normal(shape).cumsum(-1).cumsum(-2) / 4
    x *= np.exp(random.standard_normal(shape[1])).reshape(-1, *[1] * (len(shape) - 2))
    x = np.maximum(x, 0) if relu else x
    return Tensor.from_numpy(x.astype(np.float32).astype(numpy_dtype(dtype)))


def video(count: int, dtype: str = "F32") -> list[Tensor]:
    """Maps that drift by a little from one to the next."""
    wide = maps(3, (1, 8, 12, 12 + count), "F64", relu=False).numpy()
    mixed = [
        0.9 * wide[..., i : i + 12] + 0.1 * wide[..., i + 1 : i + 13] for i in range(count - 1)
    ]
    return [Tensor.from_numpy(x.astype(np.float32).astype(numpy_dtype(dtype))) for x in mixed]


def profile(channels: int = 12, axis: int = 1, seed: int = 1) -> FeatureProfile:
    random = np.random.default_rng(seed)
    order = random.permutation(channels).astype(np.int32)
    scale = np.exp(random.standard_normal(channels)).astype(np.float32)
    return FeatureProfile({"x": Channels(axis, order, scale)})


def source(with_profile: FeatureProfile | None = None, cut: str = "layer3") -> FeatureSource:
    return FeatureSource(MODEL, cut, with_profile)
