"""How the weights of a version, and their differences from another, are distributed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limosa.codec.base import Base
from limosa.tensors import Tensor, TensorSpec

_BINS = 48
# Wider than nearly all weights, so that a few far ones do not flatten all others.
_SHARE = 0.9995
_SAMPLE = 2**20
_RUN = 2**12
# Bins narrower than this would be of no width; squares of larger numbers overflow.
_LEAST_REACH, _LARGE = 1e-150, 1e150

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TensorStatistics:
    """Of a tensor, and of its difference from the base's.

    Attributes:
        name, dtype, shape: of it.
        mean, std, low, high: of its finite elements; None if it has none, or is of no number.
        zeros: share of elements that are 0.
        edges: ends of the bins, one more than there are bins; both histograms have these.
        counts: elements in each bin; those beyond the ends are in the first and the last.
        delta_counts: the same of the difference; None without a base's tensor.
        changed: share of elements that differ from the base's.
        delta_std: of the difference.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    mean: float | None = None
    std: float | None = None
    low: float | None = None
    high: float | None = None
    zeros: float = 0.0
    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    delta_counts: tuple[int, ...] | None = None
    changed: float | None = None
    delta_std: float | None = None


def tensor_statistics(
    held: Base, other: Base | None = None, *, bins: int = _BINS
) -> list[TensorStatistics]:
    """Of every tensor of *held*, one after the other, so that one at a time is in memory.

    Tensors of more than a million elements are judged by a million, in runs that are spread evenly.

    Args:
        held: the version.
        other: what it is compared with.
        bins: of each histogram.
    """
    return [_one(held, other, name, spec, bins) for name, spec in held.specs.items()]


def _one(
    held: Base, other: Base | None, name: str, spec: TensorSpec, bins: int
) -> TensorStatistics:
    values = _values(held, spec)
    before = None
    if other is not None and other.specs.get(name) == spec:
        before = _values(other, spec)
    plain = TensorStatistics(name, spec.dtype, tuple(spec.shape))
    if values is None or not len(values):
        return plain
    finite = values[np.isfinite(values)]
    if not len(finite):
        return plain
    reach = float(np.quantile(np.abs(finite), _SHARE)) or float(np.abs(finite).max()) or 1.0
    edges = np.linspace(-1, 1, bins + 1) * max(reach, _LEAST_REACH)
    difference = _difference(values, before)
    return TensorStatistics(
        name, spec.dtype, tuple(spec.shape),
        mean=_scaled(np.mean, finite), std=_scaled(np.std, finite),
        low=float(finite.min()), high=float(finite.max()),
        zeros=float(np.mean(values == 0)),
        edges=tuple(edges.tolist()),
        counts=_count(finite, edges),
        delta_counts=None if difference is None else _count(difference, edges),
        changed=None if before is None else _changed(values, before),
        delta_std=_spread(difference),
    )  # fmt: skip


def _values(model: Base, spec: TensorSpec) -> Floats | None:
    data = model.data(spec.name, spec)
    if data is None:
        return None
    array = Tensor(spec.dtype, spec.shape, data).numpy().ravel()
    if array.dtype.kind in "cSU":
        return None
    if len(array) > _SAMPLE:
        # In runs: every nth element could always be of the same columns.
        starts = np.linspace(0, len(array) - _RUN, _SAMPLE // _RUN).astype(np.int64)
        array = array[(starts[:, None] + np.arange(_RUN)).ravel()]
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(array, np.float64)


def _scaled(measure: Callable[[Floats], Any], values: Floats) -> float:
    """A mean or deviation that no square overflows."""
    peak = float(np.abs(values).max())
    if _LEAST_REACH < peak < _LARGE:
        return float(measure(values))
    return float(measure(values / peak)) * peak if peak else 0.0


def _difference(values: Floats, before: Floats | None) -> Floats | None:
    if before is None:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        found = values - before
    return np.asarray(found[np.isfinite(found)], np.float64)


def _spread(difference: Floats | None) -> float | None:
    if difference is None or not len(difference):
        return None
    return _scaled(np.std, difference)


def _changed(values: Floats, before: Floats) -> float:
    same = (values == before) | (np.isnan(values) & np.isnan(before))
    return float(1.0 - same.mean())


def _count(values: Floats, edges: Floats) -> tuple[int, ...]:
    inside = np.clip(values, edges[0], edges[-1])
    return tuple(np.histogram(inside, edges)[0].tolist())
