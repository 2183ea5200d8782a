"""The 3GPP contribution's table of footprints, computed for the networks that are at hand.

    python -m benchmarks.papers.footprints --out docs/results

prints parameters, megabytes and operations of its twelve networks beside what the document has.
Some of its cells lost their decimal points or digits on the way into the text that we have: a cell
that contradicts its row, or the network, is marked. Networks are taken from torchvision or timm
where these are installed, and from this repository where it defines them; detectors that neither
has are listed with what the document says alone.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.papers.features.architectures import resnet, vgg16

Maker = Callable[[], nn.Module]
_IMAGE = (1, 3, 224, 224)
# Cells that agree within this share are taken to say the same.
_NEAR = 0.08


@dataclass(frozen=True)
class Cell:
    """What the document has for a network, as its text spells it."""

    name: str
    parameters: str
    footprint: str
    flops: str
    sources: tuple[str, ...] = ()
    side: int = 224


#: In the document's order and spelling.
DOCUMENT = (
    Cell("1.0 MobileNet-224", "33", "132", "0.28", ("timm:mobilenetv1_100",)),
    Cell(
        "EfficientNet-B0", "53", "212", "0.39",
        ("torchvision.models:efficientnet_b0", "timm:efficientnet_b0"),
    ),
    Cell(
        "DenseNet-169", "14", "56", "3.5", ("torchvision.models:densenet169", "timm:densenet169")
    ),
    Cell(
        "Inception-v3", "24", "9%", "5.7", ("torchvision.models:inception_v3", "timm:inception_v3"),
        299,
    ),
    Cell("ResNet-50", "26", "104", "4.1", ("torchvision.models:resnet50", "timm:resnet50", "own")),
    Cell("VGG-16", "138", "552", "16", ("torchvision.models:vgg16", "timm:vgg16", "own")),
    Cell("SSD300-MobileNet", "6.8", "272", "12"),
    Cell("EfficientDet-DO", "39", "15.6", "2.5", ("effdet:create_model",), 512),
    Cell("FasterRCNN-MobileNet", "6.1", "244", "252"),
    Cell("SSD300-Deeplab", "33.1", "1324", "349"),
    Cell("FasterRCNN-VGG", "1385", "554", "643"),
    Cell("YOLOv3", "40.5", "122", "71"),
)  # fmt: skip
OWN: dict[str, Maker] = {"VGG-16": vgg16, "ResNet-50": lambda: resnet((3, 4, 6, 3))}


@dataclass(frozen=True)
class Measured:
    """What a network really has: parameters, bytes as F32, multiplications with additions."""

    source: str
    parameters: int
    macs: int

    @property
    def megabytes(self) -> float:
        """As F32."""
        return 4 * self.parameters / 1e6


def measure(cell: Cell) -> Measured | None:
    """Build a network without weights and count; None if nobody here has it."""
    for source in cell.sources:
        made = _make(cell, source)
        if made is not None:
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                made.eval()(torch.zeros(1, 3, cell.side, cell.side))
            parameters = sum(one.numel() for one in made.parameters())
            return Measured(source.partition(":")[0], parameters, counter.get_total_flops() // 2)
    return None


def _make(cell: Cell, source: str) -> nn.Module | None:
    if source == "own":
        return OWN[cell.name]()
    module, _, name = source.partition(":")
    try:
        found = importlib.import_module(module)
    except (ImportError, RuntimeError):  # the latter where torchvision was built for another torch
        return None
    if module == "timm":
        return found.create_model(name, pretrained=False)
    if module == "effdet":
        return found.create_model("tf_efficientdet_d0", pretrained=False, pretrained_backbone=False)
    # Without the classifiers beside the network, which only its training has.
    options = {"aux_logits": False, "init_weights": True} if name == "inception_v3" else {}
    return getattr(found, name)(weights=None, **options)


def doubts(cell: Cell, found: Measured | None) -> list[str]:
    """What is wrong with a row's cells, as far as the row or the network shows.

    >>> doubts(Cell("x", "10", "40", "1"), None)
    []
    >>> doubts(Cell("x", "33", "13.2", "1"), None)
    ['13.2 MB are not 4 bytes for each of 33 million']
    """
    found_out = []
    parameters, footprint = _number(cell.parameters), _number(cell.footprint)
    if footprint is None:
        found_out.append(f"the footprint {cell.footprint!r} is no number")
    elif parameters is not None and not _near(footprint, 4 * parameters):
        found_out.append(f"{footprint:g} MB are not 4 bytes for each of {parameters:g} million")
    if found is not None:
        if parameters is not None and not _near(parameters, found.parameters / 1e6):
            found_out.append(f"{parameters:g} million are {found.parameters / 1e6:.1f}")
        flops = _number(cell.flops)
        if flops is not None and not _near(flops, found.macs / 1e9, 0.15):
            found_out.append(f"{flops:g} billion are {found.macs / 1e9:.2f}")
    return found_out


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _near(one: float, other: float, share: float = _NEAR) -> bool:
    return abs(one - other) <= share * max(abs(one), abs(other))


def table() -> list[str]:
    """The document's rows, what is found, and what is doubtful, as Markdown."""
    lines = [
        "| network | document: millions | MB | billion FLOPs | found: parameters | MB as F32 | "
        "billion MACs | by | doubtful in the document |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for cell in DOCUMENT:
        found = measure(cell)
        here = (
            ["", "", "", "nobody here"]
            if found is None
            else [
                f"{found.parameters:,}", f"{found.megabytes:.1f}", f"{found.macs / 1e9:.2f}",
                found.source,
            ]
        )  # fmt: skip
        doubtful = "; ".join(doubts(cell, found))
        cells = [cell.name, cell.parameters, cell.footprint, cell.flops, *here, doubtful]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    text = "\n".join(
        [
            "# Footprints of networks, the document's and ours",
            "",
            "By `python -m benchmarks.papers.footprints`. The document counts a multiplication",
            "with its addition as one operation. Its cells are spelt as in the text that we have,",
            "in which decimal points and digits are missing; the last column says which cells",
            "contradict their row or the network. Networks of torchvision, timm and effdet are",
            "measured where these are installed.",
            "",
            *table(),
            "",
        ]
    )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "footprints.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
