"""Tables II to V: every feature of a network, by each coder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.papers.features import coders
from benchmarks.papers.features.subjects import Feature, Subject
from benchmarks.papers.features.task import divergence
from limosa import FeatureDecoder, Lossless, Step, Tensor

LOSSLESS, LOSSY = "limosa", "limosa, lossy"
CODERS = (*coders.GENERAL, LOSSLESS, LOSSY)
# Of the deviation of a feature over all images: the distance of two levels in the lossy column.
LOSSY_STEP = 0.3
LOSSY_EFFORT = 9


@dataclass(frozen=True)
class Row:
    """One feature by one coder; pairs are the mean over messages and the deviation.

    Attributes:
        shape: of one message's tensor.
        nonzero: share of elements.
        ratio: coded bytes over raw bytes.
        seconds: to encode.
        excess: most bytes that any message has more than its raw bytes; negative if none has.
        divergence: in nats, of the network's output, where the coder loses something.
    """

    network: str
    feature: str
    kind: str
    shape: tuple[int, ...]
    nbytes: int
    nonzero: tuple[float, float]
    coder: str
    ratio: tuple[float, float]
    seconds: tuple[float, float]
    excess: int
    divergence: float | None = None

    @property
    def bits(self) -> float:
        """Of an element."""
        return 32 * self.ratio[0]


def measure(subject: Subject, messages: int, progress: Callable[[], object]) -> list[Row]:
    """Rows for every feature over the first batches of a subject."""
    batches = subject.batches[:messages]
    rows = []
    for feature in subject.features:
        crossing = [subject.values([feature], batch)[feature.symbol] for batch in batches]
        rows += _rows(subject, feature, crossing)
        progress()
    return rows


def _rows(
    subject: Subject, feature: Feature, crossing: list[tuple[torch.Tensor, ...]]
) -> list[Row]:
    tensors = [one[-1] for one in crossing]
    deviation = float(torch.cat(tensors).std())
    step = Step(LOSSY_STEP * deviation, effort=LOSSY_EFFORT)
    calls = {name: _general(call) for name, call in coders.GENERAL.items()}
    calls[LOSSLESS] = _ours(feature.symbol, Lossless())
    calls[LOSSY] = _ours(feature.symbol, step)
    sizes, seconds = defaultdict(list), defaultdict(list)
    for tensor in tensors:
        for name, call in calls.items():
            message, taken = coders.timed(lambda call=call, tensor=tensor: call(tensor))
            sizes[name].append(len(message))
            seconds[name].append(taken)
    shape, nbytes = tuple(tensors[0].shape), tensors[0].nbytes
    nonzero = _pair([float((tensor != 0).float().mean()) for tensor in tensors])
    lost = _divergence(subject, feature, crossing, step)
    return [
        Row(
            subject.title, feature.symbol, feature.kind, shape, nbytes, nonzero, name,
            _pair([size / nbytes for size in sizes[name]]), _pair(seconds[name]),
            max(sizes[name]) - nbytes, lost if name == LOSSY else None,
        )
        for name in CODERS
    ]  # fmt: skip


def _general(call: Callable[[bytes], bytes]) -> Callable[[torch.Tensor], bytes]:
    return lambda tensor: call(tensor.numpy().tobytes())


def _ours(cut: str, quality: Lossless | Step) -> Callable[[torch.Tensor], bytes]:
    encoder = coders.encoder(cut, quality)
    return lambda tensor: encoder.encode({"x": Tensor.from_numpy(tensor.numpy())})


def _divergence(
    subject: Subject, feature: Feature, crossing: list[tuple[torch.Tensor, ...]], step: Step
) -> float:
    if feature == subject.features[-1]:
        tail: Callable[..., torch.Tensor] = lambda tensor: tensor  # noqa: E731
    else:
        tail = subject.tail(feature)
    encoder = coders.encoder(feature.symbol, step)
    decoder = FeatureDecoder(encoder.source, threads=1)
    with torch.no_grad():
        expected = torch.cat([tail(*one) for one in crossing])
        actual = torch.cat(
            [tail(*one[:-1], coders.sent(one[-1], encoder, decoder)[1]) for one in crossing]
        )
    return divergence(expected, actual)


def random_excess(sizes: tuple[int, ...] = (1, 100, 4_096, 100_000)) -> int:
    """Most bytes that lossless coding adds to tensors of random bytes."""
    rng = np.random.default_rng(5)
    encoder = coders.encoder("random", Lossless())
    worst = -(10**9)
    for size in sizes:
        noise = rng.integers(0, 256, 4 * size, dtype=np.uint8).view(np.float32)
        message = encoder.encode({"x": Tensor.from_numpy(noise.reshape(1, size, 1, 1))})
        worst = max(worst, len(message) - 4 * size)
    return worst


def _pair(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values))
