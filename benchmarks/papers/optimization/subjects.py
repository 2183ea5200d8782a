"""What is made smaller: trained networks, each with what measures it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

import limosa
from benchmarks.networks import NETWORKS
from benchmarks.papers.updates.data import Images, split
from benchmarks.papers.updates.training import accuracy, train
from limosa.torch import optimize
from limosa.torch.optimize.training import Training

#: Measured by how often its first class stays the same: nothing is asked of it.
LITE0 = "efficientnet-lite0"
_ROUNDS = 21
Batches = Sequence[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Row:
    """A way: whose it is, bytes that travel, and what is decoded from them.

    ``metric`` is in percent, ``lost`` in points; ``faster`` is how often the model runs in the
    time that the original takes, both measured by turns. Of one row the bytes of its coded
    ``levels`` and those of their ``entropy`` are known.
    """

    network: str
    way: str
    whose: str
    nbytes: int
    times_smaller: float
    metric: float
    lost: float
    parameters: int
    nonzeros: int
    mflop: float
    faster: float
    receiver_needs: str = ""
    levels: int = 0
    entropy: float = 0.0


@dataclass
class Subject:
    """A trained network, and all that is needed to go on with it.

    Attributes:
        name: in tables.
        model: as it would be sent, were it not for limosa.
        batches: to train on, labels and all.
        measure: the metric of a model, in percent, on what no way has seen.
        check: the same on other data, for what searches.
        epochs: of a training after a change.
        example: of a call.
        timed: how many images a timed call has: more where a call takes no time.
    """

    name: str
    model: nn.Module
    batches: Batches
    measure: Callable[[nn.Module], float]
    check: Callable[[nn.Module], float]
    epochs: int
    example: torch.Tensor
    timed: int = 64

    def __post_init__(self) -> None:
        looked_at = self.batches[: max(1, 2048 // len(self.batches[0][0]))]
        self.context = optimize.Context(self.example, looked_at, _loss)
        self.raw = optimize.measure(self.model).raw_nbytes
        self.right = self.measure(self.model)

    def training(self, rate: float = 1e-3) -> Training:
        """A training whose teacher is the network itself; labels count where there are some."""
        return Training(self.epochs, rate, "first")

    def trained(self, done: optimize.Optimized) -> nn.Module:
        """What came of a technique, trained further with its zeros kept."""
        return self.training().run(done.model, self.model, done.masks, self.batches).eval()

    def row(self, way: str, whose: str, model: nn.Module, nbytes: int, needs: str = "") -> Row:
        """Measure what the receiver has."""
        model = model.eval()
        measures = optimize.measure(model, self.context)
        right = self.measure(model)
        return Row(
            self.name, way, whose, nbytes, self.raw / nbytes, right, self.right - right,
            measures.parameters, measures.nonzeros,
            (measures.flops or 0) / len(self.example) / 1e6,
            speed_up(self.model, model, self.example, self.timed), needs,
        )  # fmt: skip

    def ours(self, way: str, model: nn.Module, *, lossless: bool = False) -> Row:
        """Encoded by limosa; what the row tests is what the file decodes to."""
        quality = limosa.Lossless() if lossless else None
        done = optimize.Encoding(quality, effort=9).apply(model)
        assert done.data is not None
        return self.row(way, "limosa", done.model, len(done.data))


def _loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


@torch.no_grad()
def speed_up(before: nn.Module, after: nn.Module, example: torch.Tensor, timed: int) -> float:
    """How many times as fast *after* is: the median of ratios of calls that follow each other."""
    example = torch.cat([example] * max(1, timed // len(example)))
    ratios = []
    for _ in range(_ROUNDS):
        times = []
        for model in (before, after):
            started = time.perf_counter()
            model(example)
            times.append(time.perf_counter() - started)
        ratios.append(times[0] / times[1])
    return float(np.median(ratios[1:]))


def digits_net(name: str, images: Images, epochs: float) -> Subject:
    """A network of the paper on updates, trained on 4 000 digits."""
    chosen = split(images, 120, 0)
    torch.manual_seed(0)
    model = NETWORKS[name](channels=images.channels)
    train(model, model.parameters(), images, chosen.second, epochs=epochs, rate=2e-3, seed=0)
    # Plain memory order, as files hold it.
    model = model.to(memory_format=torch.contiguous_format).eval()
    batches = [
        (images.x[part].contiguous(), images.y[part])
        for part in torch.from_numpy(chosen.second).split(64)
    ]
    return Subject(
        name, model, batches,
        lambda one: accuracy(one, images, chosen.test),
        lambda one: accuracy(one, images, chosen.second[-500:]),
        max(1, int(epochs / 2)), images.x[:8].contiguous(),
    )  # fmt: skip


def lite0(count: int = 256) -> Subject:
    """EfficientNet-Lite0 with its ImageNet weights; how often its first class stays the same on
    crops of photographs. Labels are what the network itself says of other crops."""
    from benchmarks.data import load_model
    from benchmarks.lossy import images
    from benchmarks.lossy.quality import lite0_network

    state = load_model("lite0")
    model = lite0_network(state).to(memory_format=torch.contiguous_format)
    test, seen = images.test_crops(), images.calibration_crops(count)
    wanted, labels = classes(model, test), classes(model, seen)
    batches = list(zip(seen.split(16), labels.split(16), strict=True))

    def agreement(crops: torch.Tensor, wanted: torch.Tensor) -> Callable[[nn.Module], float]:
        return lambda one: 100 * float((classes(one, crops) == wanted).double().mean())

    return Subject(
        LITE0, model, batches, agreement(test, wanted), agreement(seen, labels), 2,
        seen[:4], 4,
    )  # fmt: skip


@torch.no_grad()
def classes(model: nn.Module, crops: torch.Tensor) -> torch.Tensor:
    """The first class of each crop."""
    model = copy.deepcopy(model).eval().to(memory_format=torch.channels_last)
    parts = (one.to(memory_format=torch.channels_last) for one in crops.split(16))
    return torch.cat([model(one).argmax(1) for one in parts])
