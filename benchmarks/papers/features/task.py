"""What decoded features are still worth to the rest of the network."""

from __future__ import annotations

import torch


def divergence(expected: torch.Tensor, actual: torch.Tensor) -> float:
    """Mean divergence in nats of the classes of *actual* logits from those of *expected* ones.

    >>> logits = torch.tensor([[1.0, 2.0]])
    >>> divergence(logits, logits)
    0.0
    """
    p, q = expected.double().log_softmax(1), actual.double().log_softmax(1)
    return float((p.exp() * (p - q)).sum(1).mean())


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Per cent of the images whose first class is right."""
    return 100 * float((logits.argmax(1) == labels).double().mean())
