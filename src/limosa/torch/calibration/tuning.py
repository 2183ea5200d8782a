"""What is not rounded, biases and the like, moves to make good what rounding did."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from limosa.torch.calibration.samples import Data

PIECE = 16
"""Samples of a step, at most."""
RATE = 3e-4
"""First step of Adam as a share of a tensor's root mean square; it falls to zero linearly."""


def tune(
    model: nn.Module,
    original: Mapping[str, torch.Tensor],
    rounded: Mapping[str, torch.Tensor],
    data: Data,
    *,
    rounds: int,
    done: Callable[[int, int], None],
) -> dict[str, torch.Tensor]:
    """New values for the float parameters of at most one dimension.

    They follow the gradient of the divergence of the outputs, *rounded* from *original*, by Adam.
    Buffers, such as running means, stay: a bias can do what they could.

    Args:
        model: runs with the tensors given, in its own mode.
        original: its parameters and buffers.
        rounded: those of them that have been rounded.
        data: samples that can be gone through several times.
        rounds: how many times.
        done: called after each step with the steps so far and all.
    """
    fixed = {**original, **rounded}
    scales = {n: _scale(fixed[n]) for n, p in model.named_parameters() if _movable(p)}
    moves = {n: torch.zeros_like(fixed[n], requires_grad=True) for n in scales}
    if not moves:
        return {}
    total = rounds * sum(1 for _ in data.pieces(PIECE))
    optimizer = torch.optim.Adam(moves.values(), lr=RATE, betas=(0.9, 0.99))
    count = 0
    for _ in range(rounds):
        for piece in data.pieces(PIECE):
            optimizer.param_groups[0]["lr"] = RATE * (1 - count / total)
            moved = {n: fixed[n] + scales[n] * move for n, move in moves.items()}
            with torch.no_grad():
                expected = data.output(model, original, piece)
            actual = data.output(model, {**fixed, **moved}, piece)
            loss = data.distance(expected, actual)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            count += 1
            done(count, total)
    return {n: (fixed[n] + scales[n] * move).detach() for n, move in moves.items()}


def _movable(parameter: torch.Tensor) -> bool:
    return parameter.dim() <= 1 and parameter.is_floating_point()


def _scale(tensor: torch.Tensor) -> float:
    """The root mean square, or 1 of zeros."""
    return float(tensor.float().square().mean().sqrt()) or 1.0
