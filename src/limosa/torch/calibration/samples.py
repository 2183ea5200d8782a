"""Samples out of batches, what a model makes of them, and how far two outputs are apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.func import functional_call

from limosa.errors import ConfigError

Output = Literal["classes", "values"]
Batch = Any
"""A tensor, or a tuple or dict of arguments; the first dimension of its tensors is the sample."""


def scores(output: Any) -> Any:
    """The scores in what a model returns: a tensor, or the ``logits`` of transformers."""
    return output if isinstance(output, torch.Tensor) else getattr(output, "logits", output)


@dataclass(frozen=True)
class Data:
    """Batches, and what counts of the outputs that a model gives for them.

    Attributes:
        batches: of samples.
        samples: how many to use; None for all.
        kind: what the outputs are.
        pick: the output out of what the model returns; None if it returns a tensor, or something
            that has it as ``logits``.
    """

    batches: Iterable[Batch]
    samples: int | None = None
    kind: Output = "classes"
    pick: Callable[[Any], torch.Tensor] | None = None

    def pieces(self, size: int) -> Iterator[Batch]:
        """The samples in batches of *size* at most.

        >>> [tuple(p.shape) for p in Data([torch.zeros(5, 3)], samples=3).pieces(2)]
        [(2, 3), (1, 3)]
        """
        left = math.inf if self.samples is None else self.samples
        for batch in self.batches:
            if left <= 0:
                return
            count = int(min(length_of(batch), left))
            left -= count
            for start in range(0, count, size):
                yield _map(batch, partial(_cut, slice(start, min(start + size, count))))

    def output(
        self, model: nn.Module, tensors: Mapping[str, torch.Tensor], batch: Batch
    ) -> torch.Tensor:
        """The output for a batch, computed with *tensors* in place of the model's own."""
        device = next(iter(tensors.values())).device
        batch = _map(batch, partial(_ready, device))
        keywords = batch if isinstance(batch, dict) else {}
        arguments = () if keywords else batch if isinstance(batch, tuple) else (batch,)
        found = functional_call(model, dict(tensors), arguments, keywords)
        found = self.pick(found) if self.pick else scores(found)
        if not isinstance(found, torch.Tensor) or not found.is_floating_point():
            raise ConfigError(
                "cannot compare what the model returns",
                where=type(model).__name__,
                found=type(found).__name__,
                allowed="a tensor of floats",
                remedy="choose one: pick=lambda output: output.logits",
            )
        return found.float()

    def score(self, output: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """A scalar whose gradient has the divergence's second derivative as its covariance.

        For classes that is the Fisher information, diag(p) - p pᵀ in the logits (Martens, arXiv
        1412.1193). It is projected on random signs: a class drawn from p has the same
        expectation, but seldom shows more than the first class of a model that is sure. Positions
        add up. For values, a random projection divided by the norm: the Hessian of half the
        relative squared error.
        """
        signs = torch.randint(2, output.shape, generator=generator).to(output) * 2 - 1
        if self.kind == "values":
            norm: torch.Tensor = torch.linalg.vector_norm(output.detach()).clamp_min(1e-12)
            return (output * signs).sum() / norm
        p = output.detach().softmax(-1)
        roots = p.sqrt() * signs
        return (output * (roots - p * roots.sum(-1, keepdim=True))).sum()

    def distance(self, expected: torch.Tensor, actual: torch.Tensor) -> torch.Tensor:
        """The divergence, in nats, of which :meth:`score` gives the second derivative.

        A mean over samples and positions, or half the squared error relative to the outputs.
        """
        if self.kind == "values":
            scale = expected.square().sum().clamp_min(1e-24)
            return (actual - expected).square().sum() / (2 * scale)
        p, q = (output.log_softmax(-1) for output in (expected, actual))
        return (p.exp() * (p - q)).sum(-1).mean()


def _cut(part: slice, tensor: torch.Tensor) -> torch.Tensor:
    return tensor[part] if tensor.dim() else tensor


def _ready(device: torch.device, tensor: torch.Tensor) -> torch.Tensor:
    # Tensors made under torch.inference_mode cannot take part in a backward pass.
    return (tensor.clone() if tensor.is_inference() else tensor).to(device)


def length_of(batch: Batch) -> int:
    """How many samples a batch has.

    Raises:
        ConfigError: its tensors differ in that, or it holds what no model takes.

    >>> length_of((torch.zeros(5, 3), torch.zeros(5)))
    5
    """
    lengths: set[int] = set()

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim():
            lengths.add(tensor.shape[0])
        return tensor

    _map(batch, note)
    if len(lengths) != 1:
        raise ConfigError(
            "the tensors of a batch differ in their number of samples",
            where="calibration batches",
            found=f"lengths {sorted(lengths)}",
            allowed="one length, the first dimension of each tensor",
        )
    return lengths.pop()


def _map(batch: Batch, function: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
    if isinstance(batch, torch.Tensor):
        return function(batch)
    if isinstance(batch, Mapping):
        return {name: _map(part, function) for name, part in batch.items()}
    if isinstance(batch, (tuple, list)):
        return tuple(_map(part, function) for part in batch)
    if batch is None or isinstance(batch, (bool, int, float, str)):
        return batch
    raise ConfigError(
        "cannot give this to the model",
        where="calibration batches",
        found=type(batch).__name__,
        allowed="tensors, and tuples or dicts of them as arguments",
        remedy="leave labels out: the model's own outputs are what counts",
    )
