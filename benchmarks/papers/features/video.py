"""A picture that slides by one pixel a frame: features alone, and predicted from the one before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch.nn import functional

from benchmarks.lossy import images
from benchmarks.papers import photos
from benchmarks.papers.features import coders
from benchmarks.papers.features.subjects import Feature, Subject
from benchmarks.papers.features.task import divergence
from limosa import FeatureDecoder, Step

PHOTOGRAPHS = ("astronaut", "coffee", "motorcycle")
FRAMES = 12
KEY_EVERY = 30


@dataclass(frozen=True)
class Sequences:
    """A cut over all sequences; pairs are alone and predicted."""

    cut: str
    frames: int
    nbytes: tuple[int, int]
    divergences: tuple[float, float]

    @property
    def saved(self) -> float:
        """Share of the bytes that prediction saves."""
        return 1 - self.nbytes[1] / self.nbytes[0]


def sliding(name: str, frames: int = FRAMES) -> list[torch.Tensor]:
    """Crops of one photograph in Lite0's scale, each a pixel to the right of the one before."""
    image = photos.photograph(name)
    top, left = (image.shape[1] - images.CROP) // 2, (image.shape[2] - images.CROP) // 2
    crops = [
        image[:, top : top + images.CROP, left + n : left + n + images.CROP] for n in range(frames)
    ]
    return [((crop - images.MEAN) / images.DEVIATION)[None].contiguous() for crop in crops]


def measure(
    subject: Subject,
    feature: Feature,
    step: float,
    videos: Sequence[Sequence[torch.Tensor]],
    progress: Callable[[], object],
) -> Sequences:
    """Bytes and divergence with key features only, and with one in 30."""
    sizes, lost = [], []
    tail = subject.tail(feature)
    values = [[subject.values([feature], f)[feature.symbol] for f in video] for video in videos]
    with torch.no_grad():
        expected = torch.cat([tail(*one) for video in values for one in video])
    for key_every in (1, KEY_EVERY):
        total = 0
        logits = []
        for video in values:
            quality = Step(step, effort=9)
            encoder = coders.encoder(feature.symbol, quality, key_every=key_every)
            decoder = FeatureDecoder(encoder.source, threads=1)
            for crossing in video:
                size, decoded = coders.sent(crossing[-1], encoder, decoder)
                total += size
                with torch.no_grad():
                    logits.append(tail(*crossing[:-1], decoded))
        sizes.append(total)
        lost.append(divergence(expected, torch.cat(logits)))
        progress()
    frames = sum(map(len, videos))
    return Sequences(feature.symbol, frames, (sizes[0], sizes[1]), (lost[0], lost[1]))


def pan(frames: Sequence[torch.Tensor]) -> float:
    """Mean difference of two neighbouring frames over the mean magnitude.

    >>> pan([torch.ones(2), torch.ones(2)])
    0.0
    """
    moved = [float(functional.l1_loss(a, b)) for a, b in pairwise(frames)]
    return sum(moved) / len(moved) / float(torch.stack(list(frames)).abs().mean())
