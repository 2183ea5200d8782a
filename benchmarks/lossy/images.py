"""Crops of real photographs: one set to measure on, and one, from other pixels, to calibrate with.

The right halves of the photographs measure and the left halves calibrate: no pixel is in both.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.nn import functional

from benchmarks.papers import photos

RECIPE = "crops-1"
"""Names what is kept of these crops: change it with anything that changes them."""

CROP = 224
CROPS_OF_A_PHOTOGRAPH = 16
SEED = 2027
# What EfficientNet-Lite takes away from pixels in 0..1, and then divides them by.
MEAN, DEVIATION = 127 / 255, 128 / 255


def test_crops() -> torch.Tensor:
    """Return 256 crops, float32 (256, 3, 224, 224) in the network's scale: always the same."""
    return torch.cat(list(_crops(test=True, views=CROPS_OF_A_PHOTOGRAPH, seed=SEED)))


def calibration_crops(count: int = 256) -> torch.Tensor:
    """Return ``count`` crops of the halves that ``test_crops`` never shows, well mixed."""
    views = -(-count // sum(map(len, photos.GROUPS.values())))
    crops = torch.cat(list(_crops(test=False, views=views, seed=SEED + 1)))
    order = np.random.default_rng(SEED + 2).permutation(len(crops))[:count]
    return crops[torch.from_numpy(order)]


def _crops(*, test: bool, views: int, seed: int) -> Iterator[torch.Tensor]:
    names = [name for group in photos.GROUPS.values() for name in group]
    rng = np.random.default_rng(seed)
    for name in names:
        image = photos.photograph(name)
        middle = image.shape[2] // 2
        half = image[:, :, middle:] if test else image[:, :, :middle]
        yield torch.stack([_crop(half, rng) for _ in range(views)])


def _crop(half: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    side = int(rng.integers(144, min(half.shape[1:]) + 1))
    top, left = (int(rng.integers(size - side + 1)) for size in half.shape[1:])
    view = half[:, top : top + side, left : left + side]
    view = functional.interpolate(
        view[None], size=(CROP, CROP), mode="bilinear", align_corners=False, antialias=True
    )[0]
    if rng.random() < 0.5:
        view = view.flip(2)
    contrast, light = rng.uniform(0.8, 1.2), rng.uniform(-0.1, 0.1)
    view = ((view - 0.5) * contrast + 0.5 + light).clamp(0, 1)
    return (view - MEAN) / DEVIATION
