"""Calibrated rounding of a model: fewer bits at the same outputs, the decoder unchanged."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from glob import escape
from typing import Any

import torch
from torch import nn

from limosa.codec.quality import Step
from limosa.errors import ConfigError
from limosa.torch.calibration.bar import Progress, reporting
from limosa.torch.calibration.checkpoint import Checkpoint, identity_of
from limosa.torch.calibration.curve import Curve, Goal, Metric
from limosa.torch.calibration.fisher import collect
from limosa.torch.calibration.layers import Layers
from limosa.torch.calibration.samples import Batch, Data, Output
from limosa.torch.calibration.tuning import tune as tune_others
from limosa.torch.calibration.views import MatrixView, views_of
from limosa.torch.tensors import load, save

Measure = Callable[[dict[str, torch.Tensor]], float | None]
_EFFORTS = (5, 9)  # of two files of one size, the one that decodes faster
BITS_OF_OTHERS = 10.5
"""Bits that a value outside the rounded tensors takes near-lossless, about: for estimates only."""


@dataclass(frozen=True)
class Calibration:
    """A model rounded with the help of data.

    Attributes:
        tensors: the state dict; what was rounded holds integers times a step, the rest is the
            model's own, or tuned. On the model's device.
        steps: for each rounded tensor its step, a float32 whose significand has 12 bits:
            ``round(tensor / step)`` are the levels again.
        bits: of the whole state dict, estimated: the entropy of the levels of each tensor, and
            10.5 bits for each other float.
        bits_per_weight: entropy of the levels, the mean over all rounded weights.
        divergence: of the outputs, as a quadratic model expects it; where on the rate-distortion
            curve this is. Measure the real one.
        metric: of the rounded model, if a metric was given; with a max_drop of what is decoded
            from the file of *nbytes*.
        nbytes: of that file, measured; None without max_drop.
        effort: what :meth:`quality` takes unless told otherwise.
    """

    tensors: dict[str, torch.Tensor]
    steps: dict[str, float]
    bits: float
    bits_per_weight: float
    divergence: float
    metric: float | None = None
    nbytes: int | None = None
    effort: int = 9

    def quality(self, effort: int | None = None) -> Step:
        """What codes :attr:`tensors` as they are: their levels exactly, the rest near-lossless.

        Args:
            effort: as for :class:`limosa.Step`; levels that are few take fewest bits with 9.
                :attr:`effort` unless given.

        >>> from limosa.torch import load, save
        >>> _ = torch.manual_seed(0)
        >>> found = calibrate(nn.Sequential(nn.Linear(64, 64)), [torch.randn(32, 64)], bits=2.0)
        >>> coded = save(found.tensors, quality=found.quality())
        >>> torch.equal(load(coded)["0.weight"], found.tensors["0.weight"])
        True
        """
        others = tuple(escape(name) for name in self.tensors if name not in self.steps)
        return Step(
            max(self.steps.values()),
            self.effort if effort is None else effort,
            by_tensor=self.steps,
            rounded=True,
            keep=others,
            lossy=tuple(escape(name) for name in self.steps),
        )


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
    tune: int = 0,
    keep_zeros: bool = False,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Progress | bool | None = None,
) -> Calibration:
    """Round a model's weights so that its outputs on data like *batches* change least.

    Samples give each tensor a Hessian of the outputs' divergence (Fisher information); weights
    are rounded column by column, the error of each fed forward into those that follow (OBS,
    GPTQ); all tensors share one slope of rate and distortion, so sensitive ones get small steps.
    Exactly one of *bits*, *divergence* and *max_drop* says how coarse.

    Rounded are the floating-point parameters of two dimensions or more, of whatever module.
    Time: a forward and a backward pass for each sample, then some seconds for each million
    weights and each step of a search. Memory: a float32 for each pair of columns of each tensor.
    The caller's model is copied, never changed.

    Args:
        model: its outputs depend on its parameters through autograd; runs in ``eval()`` mode.
        batches: a tensor each, or a tuple or a dict of arguments; dimension 0 of each tensor
            is the sample. Hundreds of samples unlike each other are better than thousands alike.
        bits: entropy of a weight, on average over the rounded ones.
        divergence: nats, as the quadratic model expects it.
        max_drop: how much *metric* may fall at most. The coarsest rounding that keeps to it (within
            10 % in divergence) is searched, with some ten calls of *metric*; then the coarsest few
            are encoded with either effort, decoded and measured again, and the smallest file whose
            metric keeps to it is taken; with *tune* the first of them that does.
        metric: of a model; larger is better. Is given a copy of the model, in ``eval()`` mode.
        output: ``"classes"`` if the model returns logits (…, classes) and the Kullback-Leibler
            divergence counts; ``"values"`` if the relative squared error of a tensor does.
        pick: takes that tensor out of what the model returns; without it, its ``logits`` if it is
            no tensor.
        samples: how many to use; None for all that the batches have.
        keep: shell patterns of names that are not rounded.
        damping: share of the mean that is added to the Hessians' diagonals. More, 1 to 3, for few
            samples or if the data to come are unlike them.
        rate_weight: the cost of a bit, in units of the mean cost of an error of one step; above
            0, levels with shorter codes are preferred, as CERWU does. With Fisher information a
            larger step has served better so far.
        tune: how often to go through the samples again, at the end, to let the parameters of at
            most one dimension (biases, norms; sent near-lossless in any case) make good what
            rounding did. The batches must be a sequence then.
        keep_zeros: weights that are 0, as pruning leaves them, stay 0; others make good for them.
        seed: of the random draws; same seed, samples and machine, same result.
        checkpoint: a file that keeps what is done, so that the same call goes on after an
            interruption, or another call on the same samples need not look at them again;
            *batches* must come in the same order, and *metric* be the same. A file of other
            weights, or of another *output*, *keep* or *seed*, is refused.
        progress: True for a bar on standard error, if that is a terminal or a notebook; or what
            is called with (done, total or None, what), what being ``"samples"``, ``"searches"`` or
            ``"tuning"``. Nothing is shown unless asked for.

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
    goal = Goal(bits, divergence, max_drop)
    goal.check(metric)
    _check(goal, output, samples, damping, rate_weight, tune)
    if tune and isinstance(batches, Iterator):
        raise ConfigError(
            "tuning goes through the batches again",
            where="calibration batches",
            found=type(batches).__name__,
            allowed="a list, or something else that starts anew each time",
        )
    data = Data(batches, samples, output, pick)
    with torch.inference_mode(False), torch.enable_grad(), reporting(progress) as report:
        work = copy.deepcopy(model).eval()
        views = views_of(work, keep)
        original = _tensors(work, views)
        identity = identity_of(original, f"1 {output} {seed} {sorted(views)}")
        way = f"{damping} {rate_weight}{' zeros' if keep_zeros else ''}"
        kept = Checkpoint(checkpoint, identity, way, _device(original))
        _collect(work, data, views, kept, seed, report)
        curve = Curve(
            work, Layers(original, views, kept.found, damping, keep_zeros=keep_zeros),
            rate_weight, metric, kept, lambda count: report(count, None, "searches"),
        )  # fmt: skip
        return _round(work, original, data, curve, goal, tune, report)


def _collect(
    model: nn.Module,
    data: Data,
    views: dict[str, MatrixView],
    kept: Checkpoint,
    seed: int,
    report: Progress,
) -> None:
    def done(count: int) -> None:
        kept.write()
        report(count, data.samples, "samples")

    try:
        collect(model, data, views, kept.found, seed=seed, done=done)
    finally:  # an error or an interruption leaves what was found
        kept.write(now=True)


def _round(
    model: nn.Module,
    original: dict[str, torch.Tensor],
    data: Data,
    curve: Curve,
    goal: Goal,
    rounds: int,
    report: Progress,
) -> Calibration:
    found = curve.find(goal)
    if goal.max_drop is None:
        made = _rounded_at(found, model, original, data, curve, rounds, report)
        return replace(made, metric=curve.measure(made.tensors))
    accepted = curve.accepted(goal.max_drop, found)
    each = (_rounded_at(nats, model, original, data, curve, rounds, report) for nats in accepted)
    least = curve.least(goal.max_drop)
    # Tuning takes its time: the coarsest that keeps the metric will do.
    return smallest_file(each, curve.measure, least, first=rounds > 0)


def _rounded_at(
    divergence: float,
    model: nn.Module,
    original: dict[str, torch.Tensor],
    data: Data,
    curve: Curve,
    rounds: int,
    report: Progress,
) -> Calibration:
    rounded = curve.rounded(divergence)
    tensors = {name: found.tensor for name, found in rounded.items()}
    others = sum(
        t.numel() for n, t in original.items() if n not in rounded and t.is_floating_point()
    )
    if rounds:
        tensors |= tune_others(
            model, original, tensors, data,
            rounds=rounds, done=lambda step, steps: report(step, steps, "tuning"),
        )  # fmt: skip
    return Calibration(
        tensors=curve.state(tensors),
        steps={n: found.step for first, found in rounded.items() for n in curve.names(first)},
        bits=sum(found.bits for found in rounded.values()) + BITS_OF_OTHERS * others,
        bits_per_weight=curve.bits_per_weight(rounded),
        divergence=divergence,
    )


def smallest_file(
    candidates: Iterable[Calibration], measure: Measure, least: float, *, first: bool = False
) -> Calibration:
    """The candidate, and the effort, of the smallest file that still measures *least* or more.

    With *first* the first candidate that does is taken, and those after it are never made.

    Raises:
        ConfigError: what is decoded from none of them does.
    """
    best: Calibration | None = None
    for candidate in candidates:
        coded = {e: save(candidate.tensors, quality=candidate.quality(e)) for e in _EFFORTS}
        effort = min(coded, key=lambda e: len(coded[e]))
        nbytes = len(coded[effort])
        if best is not None and nbytes >= (best.nbytes or 0):
            continue
        # Either effort decodes to the same tensors, so one measurement tells of both.
        decoded = load(coded[effort])
        metric = measure({n: decoded[n].to(t.device) for n, t in candidate.tensors.items()})
        if metric is not None and metric >= least:
            best = replace(candidate, nbytes=nbytes, effort=effort, metric=metric)
            if first:
                break
    if best is None:
        raise ConfigError(
            "no file keeps the metric",
            where="max_drop",
            allowed=f"{least} of the metric is to be left",
            remedy="allow a larger drop: what is not rounded travels near-lossless",
        )
    return best


def _tensors(model: nn.Module, views: dict[str, MatrixView]) -> dict[str, torch.Tensor]:
    """Copies of the parameters and buffers, tied ones once."""
    if not views:
        raise ConfigError(
            "nothing to round",
            where=type(model).__name__,
            allowed="a model with float parameters of two dimensions or more that keep= leaves",
        )
    everything = (*model.named_parameters(), *model.named_buffers())
    return {name: tensor.detach().clone() for name, tensor in everything}


def _device(tensors: dict[str, torch.Tensor]) -> torch.device:
    return next(iter(tensors.values())).device


def _check(
    goal: Goal, output: str, samples: int | None, damping: float, rate_weight: float, tune: int
) -> None:
    if output not in ("classes", "values"):
        raise ConfigError(
            "unknown kind of output", where="output", found=repr(output), allowed="classes, values"
        )
    _check_number("bits", goal.bits, lambda x: x > 0, "more than 0")
    _check_number("divergence", goal.divergence, lambda x: x > 0, "more than 0")
    _check_number("max_drop", goal.max_drop, lambda x: x >= 0, "0 or more")
    _check_number("samples", samples, lambda x: x >= 1, "1 or more, or None")
    _check_number("damping", damping, lambda x: x > 0, "more than 0")
    _check_number("rate_weight", rate_weight, lambda x: x >= 0, "0 or more")
    _check_number("tune", tune, lambda x: x >= 0, "0 or more")


def _check_number(
    name: str, value: float | None, fits: Callable[[float], bool], allowed: str
) -> None:
    if value is not None and not (math.isfinite(value) and fits(value)):
        raise ConfigError("out of range", where=name, found=repr(value), allowed=allowed)
