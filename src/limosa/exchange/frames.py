"""Frames of a front end: folders of images, videos, and what picture formats make of them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limosa.errors import ConfigError, CorruptError, MissingExtraError

Frame = NDArray[np.uint8]
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
#: Of JPEG and WebP in a comparison.
QUALITY = 90


def images_in(folder: str | os.PathLike[str]) -> list[Path]:
    """The images of a folder, by name.

    Raises:
        ConfigError: there are none.
    """
    found = sorted(one for one in Path(folder).iterdir() if one.suffix.lower() in IMAGES)
    if not found:
        raise ConfigError("no images", where=str(folder), allowed=", ".join(IMAGES))
    return found


def frames(path: str | os.PathLike[str], size: int, every: int = 1) -> Iterator[tuple[str, Frame]]:
    """Name and pixels (size, size, 3) of each frame: its middle, scaled.

    Args:
        path: a folder of images, an image, or a video.
        size: pixels of either side.
        every: take the first of so many frames.

    Raises:
        ConfigError: there is nothing.
        CorruptError: an image or a video cannot be read.
        MissingExtraError: the extra ``images`` is not installed.
    """
    path = Path(path)
    if path.is_dir():
        for one in images_in(path)[::every]:
            yield one.name, square(_read(one), size)
    elif path.suffix.lower() in IMAGES:
        yield path.name, square(_read(path), size)
    else:
        yield from _of_video(path, size, every)


def square(image: Any, size: int) -> Frame:
    """The middle of a picture of Pillow, scaled.

    >>> from PIL import Image
    >>> square(Image.new("RGB", (40, 30)), 8).shape
    (8, 8, 3)
    """
    from PIL import Image

    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    scaled = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.asarray(scaled)


def picture_bytes(frame: Frame) -> dict[str, int]:
    """How many bytes the formats for pictures take for a frame.

    >>> sorted(picture_bytes(np.zeros((8, 8, 3), np.uint8)))
    ['jpeg', 'png', 'webp']
    """
    pillow = _pillow()
    picture = pillow.fromarray(frame)
    sizes = {}
    for name, options in {"jpeg": QUALITY, "png": None, "webp": QUALITY}.items():
        out = io.BytesIO()
        picture.save(out, name, **({} if options is None else {"quality": options}))
        sizes[name] = out.tell()
    return sizes


def _pillow() -> Any:
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise MissingExtraError.for_extra("images", "reading images") from None
    return Image


def _read(path: Path) -> Any:
    pillow = _pillow()
    try:
        with pillow.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        raise CorruptError("cannot read this image", where=str(path), found=str(error)) from None


def _of_video(path: Path, size: int, every: int) -> Iterator[tuple[str, Frame]]:
    pillow = _pillow()
    try:
        import av
        import imageio.v3 as imageio
    except ModuleNotFoundError:
        raise MissingExtraError.for_extra("images", "reading a video") from None
    number = -1
    try:
        for number, frame in enumerate(imageio.imiter(path, plugin="pyav")):
            if number % every == 0:
                yield str(number), square(pillow.fromarray(frame), size)
    except (av.error.FFmpegError, OSError, IndexError, StopIteration) as error:
        raise CorruptError("cannot read this video", where=str(path), found=str(error)) from None
    if number < 0:
        raise ConfigError("no frames", where=str(path))
