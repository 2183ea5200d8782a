"""Image retrieval over real photographs: regions of photographs and augmented crops of them.

Every photograph ships inside a wheel (scikit-image, scikit-learn), so nothing is downloaded.
Its left half trains and its right half tests; a crop never reaches into the other half, so no
pixel is shared between training and test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

SHORT_SIDE = 512
"""Every photograph is scaled to this shorter side (pixels) before it is cut."""

REGION = 128
"""Side (pixels) of one region: two crops match when they come from the same region."""

CROP = 96
"""Side (pixels) of the crops that the network sees."""

GROUPS = {
    "scenes": ("astronaut", "camera", "cat", "coffee", "rocket", "motorcycle", "china", "flower"),
    "textures": ("brick", "grass", "gravel", "coins"),
    "science": ("hubble_deep_field", "immunohistochemistry", "moon", "retina"),
}
"""Three retrieval sets, where the paper has Holidays, Oxford5K and Paris6K."""


@dataclass(frozen=True, eq=False)
class Region:
    """One square of half a photograph.

    Attributes:
        half: float32 (3, height, width) in 0..1, all the pixels that a crop may show.
        y: Top edge of the square in ``half``, pixels.
        x: Left edge of the square in ``half``, pixels.
    """

    half: torch.Tensor
    y: int
    x: int


def photograph(name: str) -> torch.Tensor:
    """Return a photograph as float32 (3, height, width) in 0..1, shorter side ``SHORT_SIDE``."""
    pixels = torch.from_numpy(_read(name).copy()).float() / 255
    if pixels.ndim == 2:
        pixels = pixels[:, :, None].expand(-1, -1, 3)
    image = pixels[:, :, :3].permute(2, 0, 1)[None]
    scale = SHORT_SIDE / min(image.shape[2:])
    size = [max(SHORT_SIDE, round(side * scale)) for side in image.shape[2:]]
    return functional.interpolate(
        image, size=size, mode="bilinear", align_corners=False, antialias=True
    )[0]


def _read(name: str) -> np.ndarray:
    import skimage.data
    from sklearn.datasets import load_sample_image

    if name in ("china", "flower"):
        return load_sample_image(f"{name}.jpg")
    if name == "motorcycle":
        return skimage.data.stereo_motorcycle()[0]
    return getattr(skimage.data, name)()


def regions(names: tuple[str, ...], *, test: bool) -> list[Region]:
    """Cut one half of each named photograph into squares: the right half when ``test``."""
    cut = []
    for name in names:
        image = photograph(name)
        middle = image.shape[2] // 2
        half = image[:, :, middle:] if test else image[:, :, :middle]
        for y in range(0, half.shape[1] - REGION + 1, REGION):
            for x in range(0, half.shape[2] - REGION + 1, REGION):
                cut.append(Region(half, y, x))
    return cut


def crop(region: Region, rng: np.random.Generator) -> torch.Tensor:
    """Return one augmented view of a region: float32 (3, CROP, CROP), about 0..1.

    The view is shifted, zoomed, turned and sometimes mirrored; light, contrast and the balance
    of the colours change, and there is sensor noise. All of it is drawn from ``rng``.
    """
    zoom = rng.uniform(0.45, 0.85)
    angle = math.radians(rng.uniform(-35, 35))
    mirror = rng.choice((-1.0, 1.0))
    reach = REGION / 2
    centre_y = region.y + reach + rng.uniform(-0.25, 0.25) * REGION
    centre_x = region.x + reach + rng.uniform(-0.25, 0.25) * REGION
    height, width = region.half.shape[1:]
    cos, sin = math.cos(angle) * reach * zoom, math.sin(angle) * reach * zoom
    # Rows give x then y, in the units of grid_sample: -1..1 from edge to edge of the half.
    theta = torch.tensor(
        [
            [2 * cos * mirror / width, -2 * sin / width, 2 * centre_x / width - 1],
            [2 * sin * mirror / height, 2 * cos / height, 2 * centre_y / height - 1],
        ]
    )
    grid = functional.affine_grid(theta[None].float(), [1, 3, CROP, CROP], align_corners=False)
    view = functional.grid_sample(
        region.half[None], grid, padding_mode="reflection", align_corners=False
    )[0]
    return _relight(view, rng)


def _relight(view: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    balance = torch.from_numpy(rng.uniform(0.85, 1.15, (3, 1, 1))).float()
    contrast, light = rng.uniform(0.6, 1.4), rng.uniform(-0.15, 0.15)
    noise = torch.from_numpy(rng.normal(0, 0.03, view.shape)).float()
    return (view - 0.5) * contrast * balance + 0.5 + light + noise


def crops(cut: list[Region], views: int, rng: np.random.Generator) -> torch.Tensor:
    """Return ``views`` crops of each region: float32 (len(cut), views, 3, CROP, CROP)."""
    return torch.stack([torch.stack([crop(r, rng) for _ in range(views)]) for r in cut])
