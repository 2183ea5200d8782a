"""The networks of the second paper's experiments; the counts that it prints are tested.

ResNet-18, ResNet-50 and MobileNetV2 are in the form usual for CIFAR: 32 x 32 images, a first
convolution of stride 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


def vgg(widths: Sequence[int], channels: int, classes: int, norm: bool) -> nn.Sequential:
    """Convolutions 3 x 3 with bias, each but the last before a pooling; one linear layer."""
    layers: list[nn.Module] = []
    inputs = channels
    for number, width in enumerate(widths):
        layers.append(nn.Conv2d(inputs, width, 3, padding=1))
        layers += [nn.BatchNorm2d(width)] if norm else []
        layers.append(nn.ReLU())
        layers += [nn.MaxPool2d(2)] if number < 4 and number < len(widths) - int(norm) else []
        inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def vgg_small(channels: int = 3, classes: int = 10) -> nn.Module:
    """136,266 parameters with three channels."""
    return vgg((16, 32, 64, 64, 128), channels, classes, norm=True)


def vgg_medium(channels: int = 3, classes: int = 10) -> nn.Module:
    """539,786 parameters with three channels."""
    return vgg((32, 64, 128, 128, 256), channels, classes, norm=True)


def vgg_tiny(channels: int = 3, classes: int = 10) -> nn.Module:
    """26,554 parameters with three channels; no batch norms."""
    return vgg((16, 16, 32, 64), channels, classes, norm=False)


class Residual(nn.Module):
    """Branch plus shortcut, which is a convolution 1 x 1 where the shapes differ."""

    def __init__(
        self, branch: nn.Module, inputs: int, outputs: int, stride: int, last: nn.Module
    ) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.last = last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block."""
        result: torch.Tensor = self.last(self.branch(x) + self.shortcut(x))
        return result


def conv(
    inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1, act: bool = True
) -> list[nn.Module]:
    """Convolution without bias, batch norm and, if wanted, ReLU."""
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(outputs)] + ([nn.ReLU()] if act else [])


def basic(inputs: int, width: int, stride: int) -> Residual:
    """Two convolutions 3 x 3."""
    branch = nn.Sequential(*conv(inputs, width, 3, stride), *conv(width, width, 3, act=False))
    return Residual(branch, inputs, width, stride, nn.ReLU())


def bottleneck(inputs: int, width: int, stride: int) -> Residual:
    """1 x 1, 3 x 3 and 1 x 1, the last four times as wide."""
    outputs = 4 * width
    branch = nn.Sequential(
        *conv(inputs, width, 1), *conv(width, width, 3, stride), *conv(width, outputs, 1, act=False)
    )
    return Residual(branch, inputs, outputs, stride, nn.ReLU())


def inverted(inputs: int, outputs: int, expansion: int, stride: int) -> nn.Module:
    """Wide, depthwise, narrow; with a shortcut where the image keeps its size."""
    width = expansion * inputs
    branch = nn.Sequential(
        *conv(inputs, width, 1),
        *conv(width, width, 3, stride, groups=width),
        *conv(width, outputs, 1, act=False),
    )
    return Residual(branch, inputs, outputs, 1, nn.Identity()) if stride == 1 else branch


def residual(blocks: list[nn.Module], stem: list[nn.Module], width: int, classes: int) -> nn.Module:
    """A stem, blocks and one linear layer on the mean over the image."""
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]
    return nn.Sequential(*stem, *blocks, *tail)


def tiny_resnet(channels: int = 3, classes: int = 10) -> nn.Module:
    """Three layers of one basic block each; the paper gives no widths."""
    blocks: list[nn.Module] = [basic(16, 16, 1), basic(16, 32, 2), basic(32, 64, 2)]
    return residual(blocks, conv(channels, 16, 3), 64, classes)


def resnet18(channels: int = 3, classes: int = 10) -> nn.Module:
    """11,173,962 parameters with three channels."""
    blocks: list[nn.Module] = []
    inputs = 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        blocks += [basic(inputs, width, stride), basic(width, width, 1)]
        inputs = width
    return residual(blocks, conv(channels, 64, 3), inputs, classes)


def resnet50(channels: int = 3, classes: int = 10) -> nn.Module:
    """23,520,842 parameters with three channels."""
    blocks: list[nn.Module] = []
    inputs = 64
    for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for number in range(count):
            blocks.append(bottleneck(inputs, width, stride if number == 0 else 1))
            inputs = 4 * width
    return residual(blocks, conv(channels, 64, 3), inputs, classes)


def mobilenet_v2(channels: int = 3, classes: int = 10) -> nn.Module:
    """2,296,922 parameters with three channels."""
    stages = (
        (1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2),
        (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    )  # fmt: skip
    blocks: list[nn.Module] = []
    inputs = 32
    for expansion, width, count, stride in stages:
        for number in range(count):
            blocks.append(inverted(inputs, width, expansion, stride if number == 0 else 1))
            inputs = width
    return residual([*blocks, *conv(inputs, 1280, 1)], conv(channels, 32, 3), 1280, classes)


NETWORKS = {
    "vgg-tiny": vgg_tiny,
    "vgg-small": vgg_small,
    "vgg-medium": vgg_medium,
    "tiny-resnet": tiny_resnet,
    "mobilenet-v2": mobilenet_v2,
    "resnet-18": resnet18,
    "resnet-50": resnet50,
}
