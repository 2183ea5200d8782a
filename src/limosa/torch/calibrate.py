"""Calibrated rounding of a model: fewer bits at the same outputs, the decoder unchanged."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from limosa.errors import ConfigError
from limosa.torch.calibration.checkpoint import Checkpoint, identity_of
from limosa.torch.calibration.fisher import collect
from limosa.torch.calibration.layers import Layers, Rounded
from limosa.torch.calibration.samples import Batch, Output
from limosa.torch.calibration.search import largest_within, reach_bits
from limosa.torch.calibration.views import MatrixView, views_of

Metric = Callable[[nn.Module], float]
Progress = Callable[[int, int | None, str], None]
BITS_OF_OTHERS = 10.5
"""Bits that a value outside the rounded tensors takes near-lossless, about: for estimates only."""


@dataclass(frozen=True)
class Calibration:
    """A model rounded with the help of data.

    Attributes:
        tensors: the state dict; what was rounded holds integers times a step, the rest is the
            model's own. On the model's device.
        steps: for each rounded tensor its step, a float32 whose significand has 12 bits:
            ``round(tensor / step)`` are the levels again.
        bits: of the whole state dict, estimated: the entropy of the levels of each tensor, and
            10.5 bits for each other float.
        bits_per_weight: entropy of the levels, the mean over all rounded weights.
        divergence: of the outputs, as a quadratic model expects it; where on the rate-distortion
            curve this is. Measure the real one.
        metric: of the rounded model, if a metric was given.
    """

    tensors: dict[str, torch.Tensor]
    steps: dict[str, float]
    bits: float
    bits_per_weight: float
    divergence: float
    metric: float | None = None


def calibrate(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    bits: float | None = None,
    divergence: float | None = None,
    max_drop: float | None = None,
    metric: Metric | None = None,
    output: Output = "classes",
    pick: Callable[[Any], torch.Tensor] | None = None,
    samples: int | None = None,
    keep: tuple[str, ...] = (),
    damping: float = 0.3,
    rate_weight: float = 0.0,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Round a model's weights so that its outputs on data like *batches* change least.

    Samples give each tensor a Hessian of the outputs' divergence (Fisher information); weights
    are rounded column by column, the error of each fed forward into those that follow (OBS,
    GPTQ); all tensors share one slope of rate and distortion, so sensitive ones get small steps.
    Exactly one of *bits*, *divergence* and *max_drop* says how coarse.

    Rounded are the floating-point parameters of two dimensions or more, of whatever module.
    Time: one forward and one backward pass for each sample, then some seconds for each million
    weights and each step of the search. Memory: one float32 for each pair of columns of each
    tensor. The caller's model is copied, never changed.

    Args:
        model: its outputs depend on its parameters through autograd; runs in ``eval()`` mode.
        batches: a tensor each, or a tuple or a dict of arguments; dimension 0 of each tensor
            is the sample. Hundreds of samples unlike each other are better than thousands alike.
        bits: entropy of a weight, on average over the rounded ones.
        divergence: nats, as the quadratic model expects it.
        max_drop: how much *metric* may fall at most; the coarsest rounding that keeps to it
            (within 10 % in divergence) is searched, with some ten calls of *metric*.
        metric: of a model; larger is better. Is given a copy of the model, in ``eval()`` mode.
        output: ``"classes"`` if the model returns logits (…, classes) and the Kullback-Leibler
            divergence counts; ``"values"`` if the relative squared error of a tensor does.
        pick: takes that tensor out of what the model returns.
        samples: how many to use; None for all that the batches have.
        keep: shell patterns of names that are not rounded.
        damping: share of the mean that is added to the Hessians' diagonals: more for few
            samples.
        rate_weight: the cost of a bit, in units of the mean cost of an error of one step; above
            0, levels with shorter codes are preferred. About 0.02 to 0.1.
        seed: of the random draws; same seed, samples and machine, same result.
        checkpoint: a file that keeps what is done, so that the same call goes on after an
            interruption; *batches* must then come in the same order, and *metric* be the same.
            Other weights or settings are refused.
        progress: called with (done, total or None, ``"samples"`` or ``"searches"``).

    Raises:
        ConfigError: settings that contradict each other, batches that the model cannot take, a
            checkpoint of something else, or no rounding that keeps the metric.

    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    >>> found = calibrate(model, [torch.randn(64, 16)], bits=3.0)
    >>> abs(found.bits_per_weight - 3.0) < 0.05
    True
    >>> levels = found.tensors["0.weight"] / found.steps["0.weight"]
    >>> torch.equal(levels, levels.round())
    True
    """
    _check(bits, divergence, max_drop, metric, output, samples, damping, rate_weight)
    report = progress or (lambda done, total, what: None)
    work = copy.deepcopy(model).eval()
    views = views_of(work, keep)
    if not views:
        raise ConfigError(
            "nothing to round",
            where=type(model).__name__,
            allowed="a model with float parameters of two dimensions or more that keep= leaves",
        )
    tensors = {name: p.detach().clone() for name, p in work.named_parameters()}
    settings = f"1 {output} {damping} {rate_weight} {seed} {views}"
    device = next(iter(tensors.values())).device
    kept = Checkpoint(checkpoint, identity_of(tensors, settings), device)

    def done(count: int) -> None:
        kept.write()
        report(count, samples, "samples")

    try:
        with torch.inference_mode(False):
            collect(
                work, batches, views, kept.found,
                samples=samples, kind=output, pick=pick, seed=seed, done=done,
            )  # fmt: skip
    finally:
        kept.write(now=True)
    with torch.no_grad():
        search = _Search(work, tensors, views, kept, damping, rate_weight, metric, report)
        return search.result(bits, divergence, max_drop)


class _Search:
    """Rounds a model at several divergences until what was asked for is found."""

    def __init__(
        self,
        model: nn.Module,
        tensors: dict[str, torch.Tensor],
        views: dict[str, MatrixView],
        kept: Checkpoint,
        damping: float,
        rate_weight: float,
        metric: Metric | None,
        report: Progress,
    ) -> None:
        self._layers = Layers(tensors, views, kept.found, damping)
        self._original = {n: t.detach().clone() for n, t in model.state_dict().items()}
        # A tied tensor has several names in the state dict, and one in *views*.
        first: dict[int, str] = {}
        everything = model.named_parameters(remove_duplicate=False)
        self._sources = {n: first.setdefault(id(p), n) for n, p in everything}
        self._model, self._kept, self._metric, self._report = model, kept, metric, report
        self._rate_weight, self._count = rate_weight, 0

    def result(
        self, bits: float | None, divergence: float | None, max_drop: float | None
    ) -> Calibration:
        if max_drop is not None:
            divergence = self._keep_metric(max_drop)
        elif bits is not None:
            divergence = reach_bits(self._bits_at, bits)
        assert divergence is not None
        rounded = self._rounded(divergence)
        state = self._state(rounded)
        weights = sum(found.bits for found in rounded.values())
        return Calibration(
            state,
            {n: rounded[first].step for n, first in self._sources.items() if first in rounded},
            weights + BITS_OF_OTHERS * self._others(rounded),
            weights / max(self._layers.count, 1),
            divergence,
            None if self._metric is None else self._measure(state),
        )

    def _rounded(self, divergence: float) -> dict[str, Rounded]:
        self._count += 1
        self._report(self._count, None, "searches")
        return self._layers.rounded(divergence, self._rate_weight)

    def _bits_at(self, divergence: float) -> float:
        found = self._rounded(divergence).values()
        return sum(tensor.bits for tensor in found) / max(self._layers.count, 1)

    def _state(self, rounded: dict[str, Rounded]) -> dict[str, torch.Tensor]:
        state = dict(self._original)
        for name, source in self._sources.items():
            if source in rounded:
                state[name] = rounded[source].tensor
        return state

    def _others(self, rounded: dict[str, Rounded]) -> int:
        left = [t for n, t in self._original.items() if self._sources.get(n) not in rounded]
        return sum(t.numel() for t in left if t.is_floating_point())

    def _measure(self, state: dict[str, torch.Tensor]) -> float:
        assert self._metric is not None
        self._model.load_state_dict(state)
        return float(self._metric(self._model.eval()))

    def _keep_metric(self, max_drop: float) -> float:
        least = self._tried(0.0) - max_drop
        found = largest_within(lambda divergence: self._tried(divergence) >= least)
        if found is None:
            raise ConfigError(
                "no rounding keeps the metric",
                where="max_drop",
                found=str(max_drop),
                allowed=f"a metric of {least} is wanted",
                remedy="allow a larger drop, or a metric over more data",
            )
        return found

    def _tried(self, divergence: float) -> float:
        """The metric at a divergence; at 0 that of the original."""
        if divergence not in self._kept.tried:
            state = self._original if divergence == 0 else self._state(self._rounded(divergence))
            self._kept.tried[divergence] = self._measure(state)
            self._kept.write(now=True)
        return self._kept.tried[divergence]


def _check(
    bits: float | None,
    divergence: float | None,
    max_drop: float | None,
    metric: Metric | None,
    output: str,
    samples: int | None,
    damping: float,
    rate_weight: float,
) -> None:
    goals = {"bits": bits, "divergence": divergence, "max_drop": max_drop}
    given = [name for name, value in goals.items() if value is not None]
    if len(given) != 1:
        raise ConfigError(
            "say in one way how coarse",
            where="calibrate",
            found=" and ".join(given) or "none",
            allowed="exactly one of bits, divergence and max_drop",
        )
    if max_drop is not None and metric is None:
        raise ConfigError(
            "max_drop needs a metric",
            where="calibrate",
            remedy="give metric=, a function of a model whose result is better when larger",
        )
    if output not in ("classes", "values"):
        raise ConfigError(
            "unknown kind of output", where="output", found=repr(output), allowed="classes, values"
        )
    _check_number("bits", bits, lambda x: x > 0, "more than 0")
    _check_number("divergence", divergence, lambda x: x > 0, "more than 0")
    _check_number("max_drop", max_drop, lambda x: x >= 0, "0 or more")
    _check_number("samples", samples, lambda x: x >= 1, "1 or more, or None")
    _check_number("damping", damping, lambda x: x > 0, "more than 0")
    _check_number("rate_weight", rate_weight, lambda x: x >= 0, "0 or more")


def _check_number(
    name: str, value: float | None, fits: Callable[[float], bool], allowed: str
) -> None:
    if value is not None and not (math.isfinite(value) and fits(value)):
        raise ConfigError("out of range", where=name, found=repr(value), allowed=allowed)
