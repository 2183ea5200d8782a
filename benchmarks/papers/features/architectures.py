"""The paper's networks in the form for ImageNet, by their shapes alone: table I.

Weights are zeros: what crosses a cut has the shape that it has with any weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.networks import bottleneck, conv, residual
from limosa.torch.cuts import cuts

IMAGE = (1, 3, 224, 224)


@dataclass(frozen=True)
class Architecture:
    """A network and the paper's names of its features.

    Attributes:
        make: the network.
        features: name of the module that makes each feature, by its symbol.
    """

    make: Callable[[], nn.Module]
    features: Mapping[str, str]


@dataclass(frozen=True)
class Shape:
    """One cell of table I: ``shape`` is (height, width, channels) or (length,)."""

    network: str
    feature: str
    shape: tuple[int, ...]
    nbytes: int
    share: float


def vgg16() -> nn.Module:
    """Thirteen convolutions in five blocks, each before a pooling, and three linear layers."""
    layers: list[nn.Module] = []
    inputs = 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
            inputs = width
        layers.append(nn.MaxPool2d(2))
    layers += [nn.Flatten(), nn.Linear(512 * 7 * 7, 4096), nn.ReLU()]
    layers += [nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000)]
    return nn.Sequential(*layers)


def resnet(counts: Sequence[int]) -> nn.Module:
    """Four layers of so many blocks of three convolutions each."""
    blocks: list[nn.Module] = []
    inputs = 64
    for layer, count in enumerate(counts):
        for number in range(count):
            stride = 2 if layer and number == 0 else 1
            blocks.append(bottleneck(inputs, 64 << layer, stride))
            inputs = 256 << layer
    stem = [*conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    return residual(blocks, stem, inputs, 1000)


def alexnet() -> nn.Module:
    """Five convolutions and three linear layers, of the sizes that the paper's table prints."""
    return nn.Sequential(
        nn.Conv2d(3, 96, 11, 4, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(96, 256, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(7 * 7 * 256, 4096), nn.ReLU(),
        nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000),
    )  # fmt: skip


def _resnet_features(counts: Sequence[int]) -> dict[str, str]:
    ends = [sum(counts[: layer + 1]) + 3 for layer in range(4)]
    blocks = {f"conv{layer + 2}": str(end) for layer, end in enumerate(ends)}
    last = ends[-1]
    return {"conv1": "2", "pool1": "3", **blocks, "pool5": str(last + 1), "fc1": str(last + 3)}


def _resnet(*counts: int) -> Architecture:
    return Architecture(lambda: resnet(counts), _resnet_features(counts))


ARCHITECTURES = {
    "AlexNet": Architecture(
        alexnet,
        {
            "conv1": "1", "pool1": "2", "conv2": "4", "pool2": "5", "conv3": "7", "conv4": "9",
            "conv5": "11", "pool5": "12", "fc1": "15", "fc2": "17", "fc3": "18",
        },
    ),
    "VGG-16": Architecture(
        vgg16,
        {
            "conv1": "3", "pool1": "4", "conv2": "8", "pool2": "9", "conv3": "15", "pool3": "16",
            "conv4": "22", "pool4": "23", "conv5": "29", "pool5": "30", "fc1": "33", "fc2": "35",
            "fc3": "36",
        },
    ),
    "ResNet-50": _resnet(3, 4, 6, 3),
    "ResNet-101": _resnet(3, 4, 23, 3),
    "ResNet-152": _resnet(3, 8, 36, 3),
}  # fmt: skip


def table1(names: Sequence[str] = tuple(ARCHITECTURES)) -> list[Shape]:
    """The shapes that :func:`limosa.torch.cuts` finds, with the share of compute before each."""
    found = []
    for name in names:
        architecture = ARCHITECTURES[name]
        with torch.device("meta"):
            network = architecture.make()
        network = network.to_empty(device="cpu").eval()
        with torch.no_grad():
            for tensor in [*network.parameters(), *network.buffers()]:
                tensor.zero_()
        by_module = {cut.module: cut for cut in cuts(network, torch.zeros(IMAGE))}
        for feature, module in architecture.features.items():
            cut = by_module[module]
            shape = cut.shapes[0][1:]
            shape = (*shape[1:], shape[0]) if len(shape) == 3 else shape
            found.append(Shape(name, feature, shape, cut.nbytes, cut.share))
    return found
