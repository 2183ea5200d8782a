"""Plain training loops: Adam, one cycle of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import nn

from benchmarks.networks import NETWORKS
from benchmarks.papers.updates.data import Images

BATCH = 64
FIRST_BATCH, FIRST_EPOCHS, FIRST_RATE = 30, 120, 2e-3


def train(
    network: nn.Module,
    parameters: Iterable[nn.Parameter],
    images: Images,
    chosen: np.ndarray,
    *,
    epochs: float,
    rate: float,
    seed: int,
    batch: int = BATCH,
    extra_loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
) -> None:
    """Cross entropy, plus *extra_loss(logits, images)*, on the chosen images."""
    generator = torch.Generator().manual_seed(seed)
    steps = max(1, round(epochs * math.ceil(len(chosen) / batch)))
    optimizer = torch.optim.Adam(parameters, lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    positions = torch.from_numpy(chosen)
    network.train()
    done = 0
    while done < steps:
        order = positions[torch.randperm(len(positions), generator=generator)]
        for part in order.split(batch):
            logits = network(images.x[part])
            loss = nn.functional.cross_entropy(logits, images.y[part])
            if extra_loss is not None:
                loss = loss + extra_loss(logits, images.x[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            done += 1
            if done == steps:
                break


@torch.no_grad()
def accuracy(network: nn.Module, images: Images, chosen: np.ndarray) -> float:
    """Per cent that are right."""
    network.eval()
    positions = torch.from_numpy(chosen)
    right = sum(
        int((network(images.x[part]).argmax(1) == images.y[part]).sum())
        for part in positions.split(500)
    )
    return 100.0 * right / len(chosen)


def first_network(
    name: str, images: Images, chosen: np.ndarray, seed: int, epochs: float = FIRST_EPOCHS
) -> nn.Module:
    """The network that is deployed: trained on D1 alone."""
    torch.manual_seed(seed)
    network = NETWORKS[name](channels=images.channels).to(memory_format=torch.channels_last)
    train(
        network, network.parameters(), images, chosen,
        epochs=epochs, rate=FIRST_RATE, seed=seed, batch=FIRST_BATCH,
    )  # fmt: skip
    return network
