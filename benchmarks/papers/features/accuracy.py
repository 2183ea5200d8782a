"""How few bits an element do where a small network may lose a point of accuracy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.papers.features import coders, task
from benchmarks.papers.features.subjects import Feature, Subject
from limosa import FeatureDecoder, Step

POINTS = 1.0
_START, _FACTORS = 1.0, (2.0, 2.0**0.5, 2.0**0.25)


@dataclass(frozen=True)
class Fewest:
    """A cut at the coarsest step that keeps the accuracy; accuracies in per cent."""

    network: str
    cut: str
    kind: str
    step: float
    bits: float
    accuracy: float
    before: float
    images: int


def measure(subject: Subject, feature: Feature, progress: Callable[[], object]) -> Fewest:
    """Search the step: first by octaves, then ever finer."""
    crossing = [subject.values([feature], one)[feature.symbol] for one in subject.batches]
    tail = subject.tail(feature)
    assert subject.labels is not None
    labels = subject.labels[: sum(len(one) for one in subject.batches)]
    count = sum(one[-1].numel() for one in crossing)
    with torch.no_grad():
        before = task.accuracy(torch.cat([tail(*one) for one in crossing]), labels)

    def run(step: float) -> tuple[float, float]:
        encoder = coders.encoder(feature.symbol, Step(step, effort=9))
        decoder = FeatureDecoder(encoder.source, threads=1)
        nbytes = 0
        logits = []
        for one in crossing:
            size, decoded = coders.sent(one[-1], encoder, decoder)
            nbytes += size
            with torch.no_grad():
                logits.append(tail(*one[:-1], decoded))
        progress()
        return 8 * nbytes / count, task.accuracy(torch.cat(logits), labels)

    step = _START * float(torch.cat([one[-1] for one in crossing]).std())
    bits, right = run(step)
    while right < before - POINTS:
        step /= 2
        bits, right = run(step)
    best = step, bits, right
    for factor in _FACTORS:
        for _ in range(6):
            bits, right = run(best[0] * factor)
            if right < before - POINTS or bits >= best[1]:
                break
            best = best[0] * factor, bits, right
    return Fewest(
        subject.title, feature.symbol, feature.kind, best[0], best[1], best[2], before, len(labels)
    )
