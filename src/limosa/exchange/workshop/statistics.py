"""How the weights of a version, and their differences from another, are distributed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
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
        name, dtype, shape, nbytes: of it; the name is "" for all tensors as one.
        mean, std, low, high: of its finite elements; None if it has none, or is of no number.
        zeros: share of elements that are 0.
        edges: ends of the bins, one more than there are bins.
        counts: elements in each bin; those beyond the ends are in the first and the last.
        delta_edges, delta_counts: the same of the difference; None without a base's tensor.
        changed: share of elements that differ from the base's.
        delta_std: of the difference.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int = 0
    mean: float | None = None
    std: float | None = None
    low: float | None = None
    high: float | None = None
    zeros: float = 0.0
    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    delta_edges: tuple[float, ...] | None = None
    delta_counts: tuple[int, ...] | None = None
    changed: float | None = None
    delta_std: float | None = None


def tensor_statistics(
    held: Base, other: Base | None = None, *, bins: int = _BINS
) -> list[TensorStatistics]:
    """Of every tensor of *held*, one after the other, so that one at a time is in memory.

    Tensors of more than a million elements are judged by a million, in runs that are spread
    evenly. The last one of the list is of all float tensors as one, judged in the same way; of a
    tensor that *other* does not have nothing counts as changed there.

    Args:
        held: the version.
        other: what it is compared with.
        bins: of each histogram.
    """
    total = sum(spec.elements for spec in held.specs.values())
    share = min(1.0, _SAMPLE / max(1, total))
    found, values_of_all, before_of_all = [], [], []
    for name, spec in held.specs.items():
        values, before = _pair(held, other, spec)
        plain = TensorStatistics(name, spec.dtype, tuple(spec.shape), spec.nbytes)
        found.append(_describe(plain, values, before, bins))
        if values is not None and "F" in spec.dtype:
            most = math.ceil(spec.elements * share)
            values_of_all.append(_thin(values, most))
            before_of_all.append(_thin(values if before is None else before, most))
    nbytes = sum(spec.nbytes for spec in held.specs.values())
    whole = TensorStatistics("", "", (total,), nbytes)
    if values_of_all:
        before = None if other is None else np.concatenate(before_of_all)
        whole = _describe(whole, np.concatenate(values_of_all), before, bins)
    return [*found, whole]


def _pair(held: Base, other: Base | None, spec: TensorSpec) -> tuple[Floats | None, Floats | None]:
    """The values of a tensor, and those of the other's tensor of the same name and shape."""
    before = None
    if other is not None and other.specs.get(spec.name) == spec:
        before = _values(other, spec)
    return _values(held, spec), before


def _describe(
    plain: TensorStatistics, values: Floats | None, before: Floats | None, bins: int
) -> TensorStatistics:
    if values is None or not len(values):
        return plain
    finite = values[np.isfinite(values)]
    if not len(finite):
        return plain
    edges, difference = _edges(finite, bins), _difference(values, before)
    delta_edges = None if difference is None else _edges(difference, bins)
    return replace(
        plain,
        mean=_scaled(np.mean, finite), std=_scaled(np.std, finite),
        low=float(finite.min()), high=float(finite.max()),
        zeros=float(np.mean(values == 0)),
        edges=tuple(edges.tolist()),
        counts=_count(finite, edges),
        delta_edges=None if delta_edges is None else tuple(delta_edges.tolist()),
        delta_counts=_count(difference, delta_edges)
        if difference is not None and delta_edges is not None
        else None,
        changed=None if before is None else _changed(values, before),
        delta_std=_spread(difference),
    )  # fmt: skip


def _edges(values: Floats, bins: int) -> Floats:
    """Of bins around 0 that hold nearly all of *values*."""
    sizes = np.abs(values) if len(values) else np.zeros(1)
    reach = float(np.quantile(sizes, _SHARE)) or float(sizes.max()) or 1.0
    return np.linspace(-1, 1, bins + 1) * max(reach, _LEAST_REACH)


def _values(model: Base, spec: TensorSpec) -> Floats | None:
    data = model.data(spec.name, spec)
    if data is None:
        return None
    array = Tensor(spec.dtype, spec.shape, data).numpy().ravel()
    if array.dtype.kind in "cSU":
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(_thin(array, _SAMPLE), np.float64)


def _thin(values: NDArray[Any], most: int) -> NDArray[Any]:
    """So many of *values*; in runs, as every nth one could always be of the same columns."""
    if len(values) <= most:
        return values
    run = max(1, min(_RUN, most // 64))
    starts = np.linspace(0, len(values) - run, most // run).astype(np.int64)
    return np.asarray(values[(starts[:, None] + np.arange(run)).ravel()])


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
