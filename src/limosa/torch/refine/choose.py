"""For each layer the method that says most of a wanted change for its bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from limosa import _core
from limosa.codec.refinement.rebuild import Singular, decompose
from limosa.errors import ConfigError
from limosa.torch.refine.methods import Core, Difference, KnowledgeAugmentation, Method
from limosa.torch.refine.prepare import unit_of
from limosa.torch.refine.targets import ALL_LINEAR_CONV, Selection, Selector, Spot, spots_of

Matrix = NDArray[np.float64]
#: KA of 0 is the singular values alone.
CANDIDATES: tuple[Method, ...] = (
    KnowledgeAugmentation(n=0),
    KnowledgeAugmentation(n=1),
    KnowledgeAugmentation(n=3),
    Core(r=8),
    Core(r=16),
    Core(r=32),
    Core(r=64),
    Difference(),
)
# What a bit is worth in squared steps, from D = step^2 / 12 and R = h - log2(step).
_WORTH = math.log(2) / 6
# Of a record and a step, in bits.
_ARRAY_BITS, _RECORD_BITS = 16, 32


class Choice(NamedTuple):
    """What was chosen for a tensor.

    Attributes:
        method: None to leave it as it is.
        share: of the wanted change (squared) that the method says at this step.
        bits: of its levels, by the entropy coder.
    """

    method: Method | None
    share: float
    bits: float


def choose(
    model: nn.Module,
    refined: Mapping[str, torch.Tensor],
    *,
    step: float = 1.0,
    candidates: Sequence[Method] = CANDIDATES,
    targets: Selector = ALL_LINEAR_CONV,
    exclude: Selector = (),
) -> dict[str, Choice]:
    """The cheapest method for each target, by name, for ``prepare(method=)``.

    What a densely retrained copy (or one step along the gradient) changes is projected on what
    each candidate can say, quantized, and counted by the real entropy coder; the smallest sum of
    squared error and worth of bits wins, nothing at all included. One *step* for all layers makes
    their slopes equal.

    Args:
        model: what the receiver holds.
        refined: a state dict of where training would go.
        step: share of each tensor's own scale, as for :class:`Rate`.
        candidates: KA, cores and :class:`Difference`.
        targets, exclude: as for :func:`prepare`.

    Raises:
        ConfigError: *refined* lacks a tensor, or a candidate is of another method.

    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
    >>> refined = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    >>> refined["1.weight"][3, 5] += 1.0
    >>> {name: choice.method for name, choice in choose(model, refined).items()}
    {'0.weight': None, '1.weight': Difference()}
    """
    selection = Selection(targets, exclude)
    found = {}
    for spot in spots_of(model):
        if not selection.is_target(spot) or selection.is_excluded(spot):
            continue
        if spot.name not in refined or refined[spot.name].shape != spot.parameter.shape:
            raise ConfigError("no such tensor of that shape", where=f"tensor {spot.name!r}")
        found[spot.name] = _choice(spot, refined[spot.name], step, candidates)
    return found


def _choice(spot: Spot, refined: torch.Tensor, step: float, candidates: Sequence[Method]) -> Choice:
    old, new = (_stack(spot, tensor) for tensor in (spot.parameter, refined))
    size = step * unit_of(spot)
    wanted = float(((new - old) ** 2).sum())
    best, least = Choice(None, 0.0, 0.0), wanted
    svds = [decompose(part) for part in old]
    for method in candidates:
        bits, error = float(_RECORD_BITS), 0.0
        for svd, change in zip(svds, new - old, strict=True):
            said, levels = _said(method, svd, change, size)
            error += float(((change - said) ** 2).sum())
            bits += sum(_ARRAY_BITS + 8 * len(_core.encode_levels(part, 1)) for part in levels)
        cost = error + _WORTH * size**2 * bits
        if cost < least:
            best, least = Choice(method, 1.0 - error / wanted, bits), cost
    return best


def _stack(spot: Spot, tensor: torch.Tensor) -> Matrix:
    rows = spot.parameter.shape[0] // spot.parts
    found: Matrix = tensor.detach().to("cpu", torch.float64).reshape(spot.parts, rows, -1).numpy()
    return found


def _said(
    method: Method, svd: Singular, change: Matrix, step: float
) -> tuple[Matrix, list[NDArray[np.int32]]]:
    """What of *change* the method says at *step*, and the levels that it takes."""
    if isinstance(method, Difference):
        levels = _levels(change, step)
        return np.asarray(levels * step, np.float64), [levels.reshape(-1)]
    if isinstance(method, Core):
        left, right = svd.left[:, : method.r], svd.right[: method.r]
        levels = _levels(left.T @ change @ right.T, step)
        said: Matrix = left @ (levels * step) @ right
        return said, [levels.reshape(-1)]
    if isinstance(method, KnowledgeAugmentation):
        moved = _levels(np.einsum("ok,oi,ki->k", svd.left, change, svd.right), step)
        near: Matrix = svd.left * (moved * step) @ svd.right
        rest, factors = _augmented(change - near, method.n, step)
        return near + rest, [moved, *factors]
    raise ConfigError("cannot be chosen", found=repr(method), allowed="KA, Core, Difference")


def _augmented(change: Matrix, n: int, step: float) -> tuple[Matrix, list[NDArray[np.int32]]]:
    """The best n pairs of vectors, right ones of length 1, each factor in steps of its own."""
    if not n:
        return np.zeros_like(change), []
    u, s, vt = np.linalg.svd(change, full_matrices=False)
    left, right = u[:, :n] * s[:n], vt[:n]
    norm = math.sqrt(float(np.mean(s[:n] ** 2))) or 1.0
    one, two = _levels(left, step), _levels(right, step / norm)
    return (one * step) @ (two * (step / norm)), [one.reshape(-1), two.reshape(-1)]


def _levels(values: Matrix, step: float) -> NDArray[np.int32]:
    return np.ascontiguousarray(np.clip(np.rint(values / step), -(2**28), 2**28), np.int32)
