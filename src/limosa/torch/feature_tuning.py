"""How coarse a feature may be: channels by what outputs owe them, a step by what they lose."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from limosa.codec.feature.decode import FeatureDecoder
from limosa.codec.feature.encode import FeatureEncoder
from limosa.codec.feature.source import Channels, FeatureProfile, FeatureSource
from limosa.codec.quality import Step
from limosa.errors import ConfigError
from limosa.torch.dtypes import from_tensor, to_tensor
from limosa.torch.graphs.tracing import Example
from limosa.torch.split import Head, Tail, split

Metric = Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor]], float]
# Scales go with these powers of the sensitivity. Half of the root is between one step for all and
# what the theory of high rates says of squared errors; which is best depends on the network.
_POWERS = (0.0, 0.5, 1.0)
_EFFORT = 9
_ATTEMPTS = 9
_FINEST, _COARSEST = -8.0, 2.0  # log2 of the step over the deviation of the feature
_DRAWS = 4
# Sensitivities below this share of the mean are taken for it: few images cannot tell them apart.
_LEAST_SHARE = 1e-3


@dataclass(frozen=True)
class TunedPoint:
    """One step: what it costs and what it loses.

    Attributes:
        step: of the channel with a scale of 1, in the unit of the feature.
        bits: of whole messages, an element.
        drop: of the metric against the feature as it is.
    """

    step: float
    bits: float
    drop: float


@dataclass(frozen=True)
class FeatureTuning:
    """What came of tuning a cut.

    Attributes:
        profile: order and scales of the channels; the scales hold the step, so that features are
            encoded with ``quality``.
        quality: ``Step(1.0, effort=9)``.
        point: the chosen one.
        curve: points from fine to coarse.
        metric: what the metric is without loss.
    """

    profile: FeatureProfile
    quality: Step
    point: TunedPoint
    curve: tuple[TunedPoint, ...]
    metric: float


def tune_feature(
    model: nn.Module,
    at: str | Sequence[str],
    batches: Iterable[Any],
    *,
    max_drop: float,
    metric: Metric | None = None,
    example: Example | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> FeatureTuning:
    """Find the fewest bits at which a metric drops by at most *max_drop*.

    The sensitivity of a channel is the mean square of the gradient of the outputs' log-likelihood
    (Fisher information, drawn from the network's own outputs). Channels are scaled by a power of
    it that is chosen by bytes, and coded in the order of their magnitudes, so that neighbours in
    the stream are alike. Every candidate is encoded, decoded and put through the rest of the model.

    Args:
        model: in eval mode.
        at: where to cut it, as for :func:`split`.
        batches: inputs (n, …), or pairs of inputs and labels (n); a few dozen images suffice.
        max_drop: by how much *metric* may fall.
        metric: of outputs and labels, larger is better. Unless given: per cent of right labels if
            there are labels, else the divergence (nats, Kullback-Leibler) of the outputs from the
            uncut model's, negated.
        example: for :func:`split`.
        seed: of the draws from the outputs.
        progress: is called with the number of measurements done and to do.

    Raises:
        ConfigError: there are no batches, or even the finest step loses more than *max_drop*.

    >>> network = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    >>> tuning = tune_feature(network, "1", [torch.randn(16, 8)], max_drop=0.01)
    >>> tuning.point.drop <= 0.01
    True
    """
    head, tail = split(model, at, example)
    calibration = _Calibration(head, tail, batches, metric)
    weights = calibration.sensitivities(seed)
    goal = _Goal(calibration, max_drop, progress)
    best = min((goal.search(calibration.profile(weights, p)) for p in _POWERS), key=_cost)
    if best is None:
        raise ConfigError(
            "no step is fine enough", where=str(at), allowed=f"a drop of at most {max_drop:g}",
            remedy="allow a larger drop, or send the feature without loss",
        )  # fmt: skip
    profile, point = best
    curve = goal.curve(profile, point.step)
    return FeatureTuning(
        _scaled(profile, point.step), Step(1.0, effort=_EFFORT), point, curve, calibration.reference
    )


def _cost(found: tuple[FeatureProfile, TunedPoint] | None) -> float:
    return math.inf if found is None else found[1].bits


class _Calibration:
    """Features of some inputs, and what the rest of the model makes of them."""

    def __init__(
        self, head: Head, tail: Tail, batches: Iterable[Any], metric: Metric | None
    ) -> None:
        self.names = head.names
        self._tail = tail
        self._features: list[tuple[torch.Tensor, ...]] = []
        self._labels: list[torch.Tensor] = []
        with torch.no_grad():
            for batch in batches:
                inputs, labels = batch if isinstance(batch, (tuple, list)) else (batch, None)
                made = head(inputs)
                self._features.append(made if isinstance(made, tuple) else (made,))
                self._labels += [] if labels is None else [labels]
            if not self._features:
                raise ConfigError("nothing to calibrate with", found="no batches")
            outputs = [_first(tail(*parts)) for parts in self._features]
        self._outputs = outputs
        if metric is None:
            metric = _accuracy if self._labels else self._divergence
        self._metric = metric
        self.reference = metric(outputs, self._labels)
        together = [torch.cat(parts).double() for parts in zip(*self._features, strict=True)]
        self.deviation = float(torch.cat([part.reshape(-1) for part in together]).std()) or 1.0

    def sensitivities(self, seed: int) -> list[NDArray[np.float64]]:
        """For each tensor and channel the mean square of the gradient."""
        generator = torch.Generator().manual_seed(seed)
        sums: list[Any] = [0.0] * len(self.names)
        for parts in self._features:
            leaves = [part.detach().clone().requires_grad_() for part in parts]
            output = _first(self._tail(*leaves))
            for _ in range(_DRAWS):
                value = _log_likelihood(output, generator)
                found = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
                for i, gradient in enumerate(found):
                    if gradient is not None:
                        axis = channel_axis(parts[i].dim())
                        others = [d for d in range(gradient.dim()) if d != axis]
                        sums[i] = sums[i] + gradient.double().square().mean(others).cpu().numpy()
        return [
            np.broadcast_to(total, (part.shape[channel_axis(part.dim())],)).astype(np.float64)
            for total, part in zip(sums, self._features[0], strict=True)
        ]

    def profile(self, weights: Sequence[NDArray[np.float64]], power: float) -> FeatureProfile:
        """Scales by a power of the sensitivities, and the order of magnitudes."""
        mean = float(np.mean(np.concatenate(weights)))
        channels = {}
        for i, name in enumerate(self.names):
            held = np.maximum(weights[i], _LEAST_SHARE * mean) if mean else np.ones(1)
            scale = np.broadcast_to(held, weights[i].shape) ** (-power / 2)
            scale = scale / np.exp(np.log(scale).mean())
            axis = channel_axis(self._features[0][i].dim())
            size = _magnitudes([parts[i] for parts in self._features], axis) / scale
            order = np.argsort(-size, kind="stable")
            channels[name] = Channels(axis, order.astype(np.int32), scale[order].astype(np.float32))
        return FeatureProfile(channels)

    def measure(self, profile: FeatureProfile, step: float) -> TunedPoint:
        """Code every feature alone, an input a message, and compare the outputs."""
        source = FeatureSource(bytes(32), ",".join(self.names), profile)
        encoder = FeatureEncoder(source, quality=Step(step, effort=_EFFORT), key_every=1)
        decoder = FeatureDecoder(source)
        size = elements = 0
        outputs = []
        for parts in self._features:
            decoded = []
            for i in range(len(parts[0])):
                sent = encoder.encode(
                    {n: to_tensor(n, p[i : i + 1]) for n, p in zip(self.names, parts, strict=True)}
                )
                size += 8 * len(sent)
                elements += sum(p[i].numel() for p in parts)
                decoded.append([from_tensor(t) for t in decoder.decode(sent).values()])
            device = parts[0].device
            batch = [torch.cat(column).to(device) for column in zip(*decoded, strict=True)]
            with torch.no_grad():
                outputs.append(_first(self._tail(*batch)))
        drop = self.reference - self._metric(outputs, self._labels)
        return TunedPoint(step, size / max(1, elements), drop)

    def _divergence(self, outputs: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]) -> float:
        p = torch.cat(list(self._outputs)).double().flatten(1).log_softmax(1)
        q = torch.cat(list(outputs)).double().flatten(1).log_softmax(1)
        return -float((p.exp() * (p - q)).sum(1).mean())


class _Goal:
    """Searches steps, and counts what it measures."""

    def __init__(
        self,
        calibration: _Calibration,
        max_drop: float,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._calibration = calibration
        self._max_drop = max_drop
        self._progress = progress
        self._done = 0

    def search(self, profile: FeatureProfile) -> tuple[FeatureProfile, TunedPoint] | None:
        """The coarsest step found that keeps the metric; None if there is none."""
        low, high = _FINEST, _COARSEST
        best = None
        for _ in range(_ATTEMPTS):
            middle = (low + high) / 2
            point = self._measure(profile, self._calibration.deviation * 2.0**middle)
            if point.drop <= self._max_drop:
                best, low = point, middle
            else:
                high = middle
        return None if best is None else (profile, best)

    def curve(self, profile: FeatureProfile, step: float) -> tuple[TunedPoint, ...]:
        """Points around *step*, half an octave apart."""
        return tuple(self._measure(profile, step * 2.0 ** (i / 2)) for i in range(-4, 5))

    def _measure(self, profile: FeatureProfile, step: float) -> TunedPoint:
        point = self._calibration.measure(profile, step)
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, _ATTEMPTS * len(_POWERS) + 9)
        return point


def channel_axis(rank: int) -> int:
    """Axis 1 of maps (n, channels, height, width), else the last.

    >>> channel_axis(4), channel_axis(3), channel_axis(2)
    (1, 2, 1)
    """
    return 1 if rank >= 4 else rank - 1


def _scaled(profile: FeatureProfile, step: float) -> FeatureProfile:
    return FeatureProfile(
        {
            name: Channels(one.axis, one.order, one.scale * np.float32(step))
            for name, one in profile.channels.items()
        }
    )


def _magnitudes(parts: Sequence[torch.Tensor], axis: int) -> NDArray[np.float64]:
    values = torch.cat(list(parts)).double().abs()
    found: NDArray[np.float64] = (
        values.mean([d for d in range(values.dim()) if d != axis]).cpu().numpy()
    )
    return found


def _first(output: Any) -> torch.Tensor:
    """The first tensor of whatever a model returns."""
    if isinstance(output, torch.Tensor):
        return output
    values = output.values() if isinstance(output, dict) else output
    for value in values if isinstance(output, (dict, tuple, list)) else ():
        if isinstance(value, torch.Tensor):
            return value
    raise ConfigError("no tensor among the outputs", found=type(output).__name__)


def _log_likelihood(output: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Of classes drawn from the outputs; of outputs that are no classes, a random projection."""
    if output.dim() != 2 or output.shape[1] < 2:
        noise = torch.randn(output.shape, generator=generator, dtype=output.dtype)
        return (output * noise).sum()
    likely = output.log_softmax(1)
    drawn = torch.multinomial(likely.detach().exp(), 1, generator=generator)
    return likely.gather(1, drawn).sum()


def _accuracy(outputs: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]) -> float:
    right = [(o.argmax(1) == y).double() for o, y in zip(outputs, labels, strict=True)]
    return 100.0 * float(torch.cat(right).mean())
