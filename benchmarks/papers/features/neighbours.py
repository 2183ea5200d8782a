"""One cut by limosa and by its neighbours, at equal quality of the task.

Quality is the divergence of the network's output. Each coder runs at a few settings; size at the
wanted divergence is read off the line through them, both in the log domain: less noisy than what
a bisection ends with.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, features

from benchmarks.lossy import images
from benchmarks.papers.features import coders
from benchmarks.papers.features.subjects import LITE0, Feature, Subject
from benchmarks.papers.features.task import divergence
from limosa import FeatureDecoder, Step
from limosa.codec.feature.source import Channels, FeatureProfile
from limosa.torch import tune_feature

WANTED = 0.005  # nats
_CALIBRATED = 24  # crops
EFFORT = 9
LIMOSA, ENTROPY = "limosa", "order-0 entropy"
# A setting: bits of all messages, and what the receiver gets.
Coded = tuple[float, list[torch.Tensor]]
Coder = Callable[[float, Sequence[torch.Tensor]], Coded]
_ROUNDS = 4  # of refinement around the wanted divergence
# Points that a line is laid through, and how far they may be, in the logarithm of the divergence.
_FITTED, _NEAR = 5, 1.6


@dataclass(frozen=True)
class Point:
    """A coder at one setting: bits an element and divergence."""

    setting: float
    bits: float
    divergence: float


@dataclass(frozen=True)
class Curve:
    """A cut by one coder.

    Attributes:
        points: by divergence.
    """

    cut: str
    kind: str
    coder: str
    points: tuple[Point, ...]

    def bits_at(self, wanted: float = WANTED) -> float | None:
        """Bits an element at this divergence; None where the coder does not reach it.

        A coder whose coarsest setting is better than wanted counts with that.
        """
        if self.points and self.points[-1].divergence < wanted:
            return min(point.bits for point in self.points)
        return self._at(wanted, [point.bits for point in self.points])

    def setting_at(self, wanted: float = WANTED) -> float | None:
        """The setting, in the same way."""
        return self._at(wanted, [point.setting for point in self.points])

    def _at(self, wanted: float, values: list[float]) -> float | None:
        """Between points; where several are near, the line that fits them best."""
        lost = np.log([point.divergence for point in self.points])
        aim = math.log(wanted)
        if not lost.size or lost[0] > aim or lost[-1] < aim:
            return None
        near = np.argsort(np.abs(lost - aim))[:_FITTED]
        near = near[np.abs(lost[near] - aim) < _NEAR]
        if lost[near].min(initial=aim) >= aim or lost[near].max(initial=aim) <= aim:
            return math.exp(np.interp(aim, lost, np.log(values)))
        return math.exp(np.polyfit(lost[near] - aim, np.log(values)[near], 1)[1])


def profile_for(network: Subject, cut: Feature) -> FeatureProfile | None:
    """What calibration finds out of a cut of Lite0, on halves of photographs that measure nothing.

    Order and scales of the channels alone: the step is the setting that is varied.
    """
    if network.title != LITE0:
        return None
    at = [*cut.beside, cut.node]
    batches = images.calibration_crops(_CALIBRATED).split(8)
    tuning = tune_feature(network.network, at, batches, max_drop=WANTED, example=network.batches[0])
    name, one = list(tuning.profile.channels.items())[-1]
    middle = np.exp(np.log(one.scale).mean())
    return FeatureProfile({name: Channels(one.axis, one.order, one.scale / middle)})


def measure(
    subject: Subject,
    feature: Feature,
    progress: Callable[[], object],
    profile: FeatureProfile | None = None,
    only: Sequence[str] = (),
) -> list[Curve]:
    """Curves of all coders for one cut."""
    crossing = [subject.values([feature], batch)[feature.symbol] for batch in subject.batches]
    tail = subject.tail(feature)
    tensors = [one[-1] for one in crossing]
    with torch.no_grad():
        expected = torch.cat([tail(*one) for one in crossing])
    count = sum(one.numel() for one in tensors)

    def point(coder: Coder, setting: float) -> Point:
        bits, decoded = coder(setting, tensors)
        with torch.no_grad():
            logits = [tail(*one[:-1], other) for one, other in zip(crossing, decoded, strict=True)]
        lost = max(divergence(expected, torch.cat(logits)), 1e-9)
        progress()
        return Point(setting, bits / count, lost)

    deviation = float(torch.cat(tensors).std())
    found = []
    for name, coder, settings in _coders(feature, deviation, profile):
        if not only or name in only:
            points = _around(lambda s, coder=coder: point(coder, s), settings)
            found.append(Curve(feature.symbol, feature.kind, name, points))
    return found


@dataclass(frozen=True)
class _Settings:
    """First ones, from fine to coarse; limits; and whether they are whole numbers."""

    first: tuple[float, ...]
    finest: float
    coarsest: float
    whole: bool = False


def _around(point: Callable[[float], Point], settings: _Settings) -> tuple[Point, ...]:
    points = [point(setting) for setting in settings.first]
    for _ in range(_ROUNDS):
        points.sort(key=lambda one: one.divergence)
        setting = _next(points, settings)
        if setting is None or any(one.setting == setting for one in points):
            break
        points.append(point(setting))
    points.sort(key=lambda one: one.divergence)
    return tuple(points)


def _next(points: list[Point], settings: _Settings) -> float | None:
    below = [one for one in points if one.divergence <= WANTED]
    above = [one for one in points if one.divergence > WANTED]
    if not below:
        other = settings.finest if settings.whole else points[0].setting / 2
    elif not above:
        other = settings.coarsest if settings.whole else points[-1].setting * 2
    else:
        low, high = below[-1], above[0]
        share = math.log(WANTED / low.divergence) / math.log(high.divergence / low.divergence)
        share = min(max(share, 0.1), 0.9)
        if settings.whole:
            other = low.setting + share * (high.setting - low.setting)
            taken = {one.setting for one in points}
            other = next((s for s in _whole_near(other) if s not in taken), round(other))
        else:
            ratio = high.setting / low.setting
            # Neighbours in divergence that are so near in the setting are in the noise.
            other = low.setting * ratio**share if ratio > 1.1 else low.setting * 0.85
    return float(round(other)) if settings.whole else other


def _whole_near(setting: float) -> tuple[int, ...]:
    middle = round(setting)
    return (middle, middle + 1, middle - 1)


def _coders(
    feature: Feature, deviation: float, profile: FeatureProfile | None
) -> Iterator[tuple[str, Coder, _Settings]]:
    steps = _Settings((0.15 * deviation, 0.3 * deviation, 0.6 * deviation), 0.0, math.inf)
    yield LIMOSA, _limosa(feature.symbol, profile), steps
    yield ENTROPY, _entropy, steps
    qualities = _Settings((95, 85, 50), 100, 5, whole=True)
    yield "JPEG", _picture("JPEG"), qualities
    yield "WebP", _picture("WEBP", method=4), qualities
    if features.check("avif"):
        yield "AVIF", _picture("AVIF", speed=8, max_threads=1), qualities
    levels = _Settings((64, 24, 10), 256, 3, whole=True)
    yield "WebP, lossless", _levels(_lossless_webp), levels
    yield "8 bit + zlib", _levels(lambda picture: zlib.compress(picture.tobytes())), levels


def _limosa(cut: str, profile: FeatureProfile | None) -> Coder:
    def code(step: float, tensors: Sequence[torch.Tensor]) -> Coded:
        encoder = coders.encoder(cut, Step(step, effort=EFFORT), profile)
        decoder = FeatureDecoder(encoder.source, threads=1)
        pairs = [coders.sent(tensor, encoder, decoder) for tensor in tensors]
        return 8 * sum(size for size, _ in pairs), [decoded for _, decoded in pairs]

    return code


def _entropy(step: float, tensors: Sequence[torch.Tensor]) -> Coded:
    """One plain step; each channel of each image at its own order-0 entropy, tables for nothing."""
    bits = 0.0
    decoded = []
    for tensor in tensors:
        levels = torch.round(tensor / step)
        for channel in levels.flatten(0, 1).flatten(1).numpy():
            counts = np.unique(channel, return_counts=True)[1]
            bits -= float((counts * np.log2(counts / channel.size)).sum())
        decoded.append(levels * step)
    return bits, decoded


def _picture(kind: str, **settings: object) -> Coder:
    """Channels side by side, 8 bits between the smallest and the largest value, as a picture."""

    def code(quality: float, tensors: Sequence[torch.Tensor]) -> Coded:
        bits = 0.0
        decoded = []
        for tensor in tensors:
            levels, low, scale = quantized(tensor, 256)
            file = io.BytesIO()
            picture = Image.fromarray(tiled(levels))
            picture.save(file, kind, quality=int(quality), **settings)
            bits += 8 * (file.tell() + 8)  # the smallest and the largest value, four bytes each
            got = np.asarray(Image.open(file).convert("L"))
            decoded.append(_restored(untiled(got, tensor.shape[1:]), low, scale))
        return bits, decoded

    return code


def _levels(compress: Callable[[np.ndarray], bytes]) -> Coder:
    """So many levels between the smallest and the largest value, coded without loss."""

    def code(levels: float, tensors: Sequence[torch.Tensor]) -> Coded:
        bits = 0.0
        decoded = []
        for tensor in tensors:
            quantities, low, scale = quantized(tensor, int(levels))
            bits += 8 * (len(compress(tiled(quantities))) + 8)
            decoded.append(_restored(quantities, low, scale))
        return bits, decoded

    return code


def _lossless_webp(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "WEBP", lossless=True, quality=75, method=4)
    return file.getvalue()


def quantized(tensor: torch.Tensor, levels: int) -> tuple[np.ndarray, float, float]:
    """Bytes (channels, height, width) of one image, the smallest value, and their distance."""
    values = tensor[0].numpy()
    low, high = float(values.min()), float(values.max())
    scale = (high - low) / (levels - 1) or 1.0
    return np.round((values - low) / scale).astype(np.uint8), low, scale


def _restored(levels: np.ndarray, low: float, scale: float) -> torch.Tensor:
    return torch.from_numpy(levels.astype(np.float32) * np.float32(scale) + np.float32(low))[None]


def tiled(maps: np.ndarray) -> np.ndarray:
    """Maps (channels, height, width) as one nearly square picture.

    >>> tiled(np.arange(3, dtype=np.uint8).reshape(3, 1, 1)).tolist()
    [[0, 1], [2, 0]]
    """
    channels, height, width = maps.shape
    across = math.ceil(math.sqrt(channels))
    down = math.ceil(channels / across)
    full = np.zeros((down * across, height, width), maps.dtype)
    full[:channels] = maps
    grid = full.reshape(down, across, height, width).swapaxes(1, 2)
    return np.ascontiguousarray(grid.reshape(down * height, across * width))


def untiled(picture: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The reverse of :func:`tiled`."""
    channels, height, width = shape
    down, across = picture.shape[0] // height, picture.shape[1] // width
    grid = picture.reshape(down, height, across, width).swapaxes(1, 2)
    return np.ascontiguousarray(grid.reshape(down * across, height, width)[:channels])
