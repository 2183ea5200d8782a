"""A small model with two cuts and three tasks, services of it on loopback, and raw messages."""

from __future__ import annotations

import copy

import torch
from torch import nn

from limosa import FeatureEncoder, FeatureSource
from limosa.exchange.feature_service.server import Server
from limosa.exchange.feature_service.service import FeatureService
from limosa.exchange.feature_service.settings import Settings
from limosa.torch import model_digest, split
from limosa.torch.dtypes import to_tensor


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).eval()


class Retrieval(nn.Module):
    """A vector of unit length; more outputs than one."""

    def forward(self, x):
        mean = x.mean((2, 3))
        return {"vector": nn.functional.normalize(mean), "length": mean.norm(dim=1)}


class Touchy(nn.Module):
    """Fails on a feature whose first value is above 100, whoever's it is; changes its input."""

    def forward(self, x):
        if (x[:, 0, 0, 0] > 100).any():
            raise ValueError("touched")
        return x.mul_(2).sum((1, 2, 3))


def images(count: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, 3, 8, 8, generator=generator) for _ in range(count)]


def serve(model=None, at=("1",), tasks=None, **bounds) -> Server:
    tasks = tasks or {"class": "tail", "find": Retrieval()}
    service = FeatureService(model or network(), at, tasks, settings=Settings(**bounds))
    return Server(service)


class Camera:
    """Encodes without a client: raw messages, to spoil them."""

    def __init__(self, model=None, at="1", **options):
        self.model = copy.deepcopy(model or network())
        self.head, self.tail = split(self.model, at)
        self.source = FeatureSource(model_digest(self.model), at)
        self.encoder = FeatureEncoder(self.source, **options)

    def crossing(self, image):
        with torch.inference_mode():
            return self.head(image)

    def message(self, image, values=None):
        values = self.crossing(image) if values is None else values
        return self.encoder.encode({self.head.names[0]: to_tensor("x", values)})
