"""Networks whose features are measured, with the images that they see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks import data
from benchmarks.lossy import images
from benchmarks.lossy.quality import lite0_network
from benchmarks.networks import NETWORKS, Residual
from benchmarks.papers.features.architectures import ARCHITECTURES
from benchmarks.papers.updates import training
from benchmarks.papers.updates.data import digits
from limosa.torch.features import Tap, tap
from limosa.torch.graphs.cutting import Cutter
from limosa.torch.graphs.tracing import trace
from limosa.torch.split import Tail, split_at

LITE0 = "EfficientNet-Lite0"
DIGITS_AT_ONCE = 16
_TEST_DIGITS = 1000
EPOCHS = 3
_RATE, _SEED = 4e-3, 2030
# What torchvision's weights are trained with.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Feature:
    """One feature of a network.

    Attributes:
        symbol: as printed.
        node: its name for :func:`limosa.torch.tap`.
        kind: "relu" (or ReLU6), "linear", "pool" or "fc".
        beside: what crosses the cut together with it.
    """

    symbol: str
    node: str
    kind: str
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Subject:
    """A network, its features and what it is shown.

    Attributes:
        title: as printed.
        network: ready to infer.
        features: in the order in which they are computed.
        batches: each one makes one message.
        labels: of all images, where they are known.
    """

    title: str
    network: nn.Module
    features: tuple[Feature, ...]
    batches: tuple[torch.Tensor, ...]
    labels: torch.Tensor | None = None
    _taps: dict[tuple[Feature, ...], Tap] = field(default_factory=dict)
    _tails: dict[Feature, Tail] = field(default_factory=dict)
    _cutters: list[Cutter] = field(default_factory=list)

    def __getitem__(self, symbol: str) -> Feature:
        """The feature of this name."""
        return next(one for one in self.features if one.symbol == symbol)

    def tail(self, feature: Feature) -> Tail:
        """What computes the rest of the network; others may cross beside the feature."""
        if feature not in self._tails:
            if not self._cutters:
                self._cutters.append(Cutter(trace(self.network, self.batches[0])))
            _, self._tails[feature] = split_at(self._cutters[0], [*feature.beside, feature.node])
        return self._tails[feature]

    def values(
        self, features: Sequence[Feature], batch: torch.Tensor
    ) -> dict[str, tuple[torch.Tensor, ...]]:
        """By symbol, of one batch: what crosses beside the feature, then itself, in C order."""
        key = tuple(features)
        if key not in self._taps:
            nodes = [name for one in features for name in (*one.beside, one.node)]
            self._taps[key] = tap(self.network, list(dict.fromkeys(nodes)), batch)
        with torch.no_grad():
            found = self._taps[key](batch)
        return {
            one.symbol: tuple(found[name].contiguous() for name in (*one.beside, one.node))
            for one in features
        }


def lite0(batches: Sequence[torch.Tensor] = ()) -> Subject:
    """EfficientNet-Lite0 with its ImageNet weights.

    Raises:
        ModuleNotFoundError: the package with the weights is missing.
    """
    network = lite0_network(data.load_model("lite0"))
    features = [Feature("stem", "_swish", "relu")]
    for number, block in enumerate(network._blocks):
        beside: tuple[str, ...] = ()
        if block._bn2.num_features == _inputs(block) and block._block_args.stride in (1, [1]):
            beside = (f"_blocks.{number - 1}",)
        wide = f"_blocks_{number}__swish"
        if hasattr(block, "_expand_conv"):
            features.append(Feature(f"expand{number}", wide, "relu", beside))
            wide += "_1"
        features.append(Feature(f"depth{number}", wide, "relu", beside))
        features.append(Feature(f"block{number}", f"_blocks.{number}", "linear"))
    features += [
        Feature("head", "_swish_1", "relu"), Feature("pool", "_avg_pooling", "pool"),
        Feature("fc", "_fc", "fc"),
    ]  # fmt: skip
    return Subject(LITE0, network, tuple(features), tuple(batches))


def _inputs(block: nn.Module) -> int:
    first = block._expand_conv if hasattr(block, "_expand_conv") else block._depthwise_conv
    return int(first.in_channels)


def photographs(count: int) -> tuple[torch.Tensor, ...]:
    """Crops of real photographs, as many of each, in Lite0's scale; each a batch of one."""
    crops = images.test_crops()
    chosen = torch.linspace(0, len(crops) - 1, count).round().long()
    return tuple(crops[int(one)][None] for one in chosen)


def small(name: str, cache: Path, *, epochs: float = EPOCHS) -> Subject:
    """A small network of :mod:`benchmarks.networks`, trained on digits and kept in *cache*."""
    held = digits()
    order = np.random.default_rng(_SEED).permutation(len(held.y))
    test, train = order[:_TEST_DIGITS], order[_TEST_DIGITS:]
    torch.manual_seed(_SEED)
    network = NETWORKS[name](channels=1)
    kept = cache / f"features-{name}-{_SEED}-{epochs:g}.pt"
    if kept.exists():
        network.load_state_dict(torch.load(kept, weights_only=True))
    else:
        training.train(
            network, network.parameters(), held, train, epochs=epochs, rate=_RATE, seed=_SEED
        )
        cache.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), kept)
    network.eval()
    shown = held.x[torch.from_numpy(test)].contiguous()
    return Subject(
        name, network, sequential_features(network), shown.split(DIGITS_AT_ONCE),
        held.y[torch.from_numpy(test)],
    )  # fmt: skip


def sequential_features(network: nn.Module) -> tuple[Feature, ...]:
    """Features of one module after another: after each ReLU, block, pooling and linear layer."""
    found = []
    counts = {"conv": 0, "pool": 0, "fc": 0}
    kinds = {"conv": "relu", "pool": "pool", "fc": "fc"}
    for name, module in network.named_children():
        part = ""
        if isinstance(module, (nn.ReLU, Residual)):
            part = "conv"
        elif isinstance(module, (nn.MaxPool2d, nn.AdaptiveAvgPool2d)):
            part = "pool"
        elif isinstance(module, nn.Linear):
            part = "fc"
        if part:
            counts[part] += 1
            found.append(Feature(f"{part}{counts[part]}", name, kinds[part]))
    return tuple(found)


def imagenet(name: str, folder: Path, batches: Sequence[torch.Tensor]) -> Subject | str:
    """One of the paper's networks with torchvision's weights, or why it cannot be had.

    Args:
        name: VGG-16, ResNet-50, ResNet-101 or ResNet-152.
        folder: where ``torch.hub`` keeps files like ``resnet50-11ad3fa6.pth``.
        batches: images in Lite0's scale.
    """
    stem = name.lower().replace("-", "")
    files = sorted(folder.glob(f"{stem}-*.pth"))
    if not files:
        return (
            f"{name} is left out: no {stem}-*.pth in {folder.name}/; "
            f"torchvision.models.{stem}(weights='DEFAULT') puts it there"
        )
    architecture = ARCHITECTURES[name]
    network = architecture.make()
    load_in_order(network, torch.load(files[-1], map_location="cpu", weights_only=True))
    features = tuple(
        Feature(symbol, module, "relu" if symbol.startswith("conv") else symbol.rstrip("1234567"))
        for symbol, module in architecture.features.items()
    )
    mean, deviation = torch.tensor(_MEAN)[:, None, None], torch.tensor(_DEVIATION)[:, None, None]
    shown = tuple((batch * images.DEVIATION + images.MEAN - mean) / deviation for batch in batches)
    return Subject(name, network.eval(), features, shown)


def load_in_order(network: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Load a state dict of other names: the order is the same in torchvision's networks."""
    own = network.state_dict()
    if [t.shape for t in own.values()] != [t.shape for t in state.values()]:
        raise ValueError("these weights are of another network")
    network.load_state_dict(dict(zip(own, state.values(), strict=True)))
