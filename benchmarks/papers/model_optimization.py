"""Models made smaller before they are sent: each technique alone, a recipe, and what others do.

    python -m benchmarks.papers.model_optimization --out docs/results

trains nets on 4 000 MNIST digits, makes them smaller in every way, and tests what was decoded on
1 000 others: bytes that travel, accuracy, time of a forward pass. ``--quick`` takes a minute.
The rivals are torch's own pruning and int8 rounding with zip or zstd, and torch-pruning alone.
"""

from __future__ import annotations

import argparse
import csv
import io
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import nn

import limosa
from benchmarks import machine
from benchmarks.networks import NETWORKS
from benchmarks.papers.updates.data import Images, digits, split
from benchmarks.papers.updates.training import accuracy, train
from limosa.torch import optimize
from limosa.torch.optimize.recipe import Recipe, Stage, Training

_EPOCHS = 12
_ROUNDS = 15
_NETWORKS = ("vgg-small", "tiny-resnet", "vgg-medium")


@dataclass(frozen=True)
class Row:
    """A way: whose it is, bytes that travel, and what is decoded from them."""

    network: str
    way: str
    whose: str
    nbytes: int
    times_smaller: float
    accuracy: float
    lost: float
    parameters: int
    nonzeros: int
    mflop: float
    forward_ms: float


@dataclass
class Subject:
    """A trained network, and all that is needed to go on with it."""

    name: str
    model: nn.Module
    images: Images
    chosen: np.ndarray
    test: np.ndarray
    epochs: float

    def __post_init__(self) -> None:
        self.example = self.images.x[:8].contiguous()
        self.batches = [
            (self.images.x[part].contiguous(), self.images.y[part])
            for part in torch.from_numpy(self.chosen[:2000]).split(64)
        ]
        self.context = optimize.Context(self.example, self.batches, _loss)
        self.raw = optimize.measure(self.model).raw_nbytes
        self.right = accuracy(self.model, self.images, self.test)

    def fine_tune(self, done: optimize.Optimized) -> nn.Module:
        """Train on, with zeros kept."""
        self._fit(done.model, done.keep_zeros)
        return done.model.eval()

    def _fit(self, model: nn.Module, after_step: Callable[[], None]) -> None:
        model.train()

        def loss(inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(model(inputs), labels)

        optimize.fit(
            loss, model.parameters(), self.all_batches(), epochs=max(1, int(self.epochs)),
            rate=1e-3, after_step=after_step,
        )  # fmt: skip

    def all_batches(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """All of the training set."""
        return [
            (self.images.x[part].contiguous(), self.images.y[part])
            for part in torch.from_numpy(self.chosen).split(64)
        ]

    def row(self, way: str, whose: str, model: nn.Module, nbytes: int) -> Row:
        """Measure what the receiver has."""
        model = model.eval()
        measures = optimize.measure(model, self.context)
        right = accuracy(model, self.images, self.test)
        return Row(
            self.name, way, whose, nbytes, self.raw / nbytes, right, self.right - right,
            measures.parameters, measures.nonzeros, (measures.flops or 0) / 8e6,
            _forward_ms(model, self.example),
        )  # fmt: skip

    def ours(self, way: str, model: nn.Module) -> Row:
        """Encoded by limosa; what the row tests is what the file decodes to."""
        data = limosa.torch.save(model.state_dict())
        model.load_state_dict(limosa.torch.load(data))
        return self.row(way, "limosa", model, len(data))


def _loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


@torch.no_grad()
def _forward_ms(model: nn.Module, example: torch.Tensor) -> float:
    model(example)
    times = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        model(example)
        times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times))


def trained(name: str, images: Images, epochs: float) -> Subject:
    """A network, trained on what is no test image."""
    chosen = split(images, 120, 0)
    torch.manual_seed(0)
    model = NETWORKS[name](channels=images.channels)
    train(model, model.parameters(), images, chosen.second, epochs=epochs, rate=2e-3, seed=0)
    # Plain memory order, as files hold it.
    model = model.to(memory_format=torch.contiguous_format).eval()
    return Subject(name, model, images, chosen.second, chosen.test, epochs / 2)


def rivals(subject: Subject) -> list[Row]:
    """What others offer for the same."""
    rows = [subject.row("as it is, zip", "zip", subject.model, len(_zip(subject.model)))]
    pruned = _torch_pruned(subject)
    rows.append(subject.row("90 % pruned, zip", "torch prune", pruned, len(_zip(pruned))))
    structured = subject.fine_tune(
        optimize.StructuredPruning(0.5).apply(subject.model, subject.context)
    )
    rows.append(
        subject.row("half of the channels, zip", "torch-pruning", structured, len(_zip(structured)))
    )
    rounded, packed = _int8(subject.model)
    rows.append(subject.row("int8 by row, zstd", "int8", rounded, len(packed)))
    rounded, packed = _int8(pruned)
    rows.append(subject.row("90 % pruned, int8, zstd", "torch prune", rounded, len(packed)))
    return rows


def _torch_pruned(subject: Subject) -> nn.Module:
    """90 % by torch's own global magnitude pruning, trained on under its masks."""
    import copy

    from torch.nn.utils import prune

    twin = copy.deepcopy(subject.model)
    layers = [one for one in twin.modules() if isinstance(one, (nn.Linear, nn.Conv2d))]
    prune.global_unstructured(
        [(one, "weight") for one in layers], pruning_method=prune.L1Unstructured, amount=0.9
    )
    subject._fit(twin, lambda: None)
    for one in layers:
        prune.remove(one, "weight")
    return twin.eval()


def _zip(model: nn.Module) -> bytes:
    plain, packed = io.BytesIO(), io.BytesIO()
    torch.save(model.state_dict(), plain)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("model.pt", plain.getvalue())
    return packed.getvalue()


def _int8(model: nn.Module) -> tuple[nn.Module, bytes]:
    """Weights as int8 with a scale a row, as torchao has them; all packed by zstd."""
    import copy

    import zstandard

    twin, parts = copy.deepcopy(model), []
    for name, one in twin.state_dict().items():
        if one.dim() < 2 or not one.is_floating_point():
            parts.append(one.numpy().tobytes())
            continue
        rows = one.reshape(one.shape[0], -1)
        scale = rows.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
        levels = (rows / scale).round().to(torch.int8)
        parts += [scale.numpy().tobytes(), levels.numpy().tobytes()]
        twin.state_dict()[name].copy_((levels * scale).reshape(one.shape))
    return twin, zstandard.ZstdCompressor(level=19).compress(b"".join(parts))


def alone(subject: Subject) -> list[Row]:
    """Each technique of ours, fine-tuned where that is usual."""
    model, context = subject.model, subject.context
    rows = [subject.ours("without loss", model)]
    data = limosa.torch.save(model.state_dict(), quality=limosa.Target(bits=3))
    decoded = NETWORKS[subject.name](channels=subject.images.channels)
    decoded.load_state_dict(limosa.torch.load(data))
    rows.append(subject.row("3 bits, not trained", "limosa", decoded, len(data)))
    for way, technique in {
        "90 % pruned": optimize.MagnitudePruning(0.9),
        "90 % pruned by saliency": optimize.SaliencyPruning(0.9),
        "2:4": optimize.MagnitudePruning(pattern="2:4"),
        "half of the channels": optimize.StructuredPruning(0.5),
        "low rank, 40 %": optimize.LowRank(budget=0.4),
    }.items():
        rows.append(subject.ours(way, subject.fine_tune(technique.apply(model, context))))
    rows.append(subject.ours("4 bits, not trained", optimize.LinearRounding(4).apply(model).model))
    return rows


def recipes(subject: Subject, shares: tuple[float, ...] = (0.85, 0.95)) -> list[Row]:
    """Prune in steps, train, round, train; then a search in twice the bytes, to compare."""
    epochs = max(1, int(subject.epochs))
    rows = []
    for share in shares:
        # In steps: what goes at once, all layers together, may take a whole layer with it.
        again = Training(epochs, 2e-3, "first")
        steps = optimize.GradualPruning(optimize.MagnitudePruning(share), steps=3).sparsities()
        pruned = [
            Stage(f"{sparsity:.0%}", optimize.MagnitudePruning(sparsity), again)
            for sparsity in steps
        ]
        rounded = Stage("round", optimize.LinearRounding(4), Training(epochs, 5e-4, "first"))
        recipe = Recipe([*pruned, rounded])
        small = recipe.run(subject.model, subject.context, batches=subject.all_batches())
        rows.append(subject.ours(f"recipe: {share:.0%} pruned, 4 bits", small))

    def metric(model: nn.Module) -> float:
        return accuracy(model, subject.images, subject.chosen[-500:])

    search = optimize.Search(subject.model, subject.context, metric)
    for nbytes in sorted({row.nbytes for row in rows}):
        found = search.within(2 * nbytes)
        name = f"search, not trained, {2 * nbytes:,} bytes asked"
        rows.append(subject.row(name, "limosa", found.model, found.nbytes))
    return rows


def entropy_row(subject: Subject) -> tuple[float, int, float]:
    """90 % zeros and 4 bits: bytes of weights, beside the entropy of their symbols."""
    done = optimize.MagnitudePruning(0.9, scope="layer").apply(subject.model).model
    done = optimize.LinearRounding(4).apply(done).model
    nbytes, bits = 0, 0.0
    empty = len(limosa.torch.save({}))
    for name, one in done.state_dict().items():
        if one.dim() < 2:
            continue
        _, counts = np.unique(one.numpy(), return_counts=True)
        shares = counts / counts.sum()
        bits += float(-(counts * np.log2(shares)).sum())
        nbytes += len(limosa.torch.save({name: one})) - empty
    return nbytes / (bits / 8), nbytes, bits / 8


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=_NETWORKS)
    parser.add_argument(
        "--quick", action="store_true", help="a small network, trained for a moment"
    )
    options = parser.parse_args()
    names = ("vgg-tiny",) if options.quick else options.networks
    epochs = 2 if options.quick else _EPOCHS
    torch.set_num_threads(1)
    images, rows, entropies = digits(), [], {}
    for name in names:
        subject = trained(name, images, epochs)
        print(f"{name}: {subject.right:.1f} %, {subject.raw:,} bytes", flush=True)
        for make in (rivals, alone, recipes):
            for row in make(subject):
                rows.append(row)
                print(f"  {row.way}: {row.nbytes:,} bytes, {row.accuracy:.1f} %", flush=True)
        entropies[name] = entropy_row(subject)
        # After each network: a run that is cut off leaves what it has.
        write(options.out, rows, entropies)
    print((options.out / "model_optimization.md").read_text(encoding="utf-8"))


def write(out: Path, rows: list[Row], entropies: dict[str, tuple[float, int, float]]) -> None:
    """The table as CSV and Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "model_optimization.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows([asdict(row) for row in rows])
    lines = [
        "# Models made smaller before they are sent",
        "",
        "By `python -m benchmarks.papers.model_optimization`.",
        machine.describe(),
        "",
        "Nets trained on 4 000 MNIST digits; accuracy on 1 000 others, of what was decoded.",
        "*Smaller* is against F32 safetensors. Rows that say pruned, channels, low rank or recipe",
        "were trained further, the others were not. int8 is rounding by row as torchao has it, but",
        "without torchao's kernels. Forward passes are of 8 images on one thread.",
        "",
    ]
    for name in dict.fromkeys(row.network for row in rows):
        mine = [row for row in rows if row.network == name]
        lines += [f"## {name}", "", *_table(mine), "", *_verdicts(mine, entropies[name]), ""]
    (out / "model_optimization.md").write_text("\n".join(lines), encoding="utf-8")


def _table(rows: list[Row]) -> list[str]:
    head = "| way | whose | bytes | smaller | accuracy | lost | parameters | not 0 | MFLOP | ms |"
    lines = [head, "| --- | --- |" + " ---: |" * 8]
    for row in rows:
        lines.append(
            f"| {row.way} | {row.whose} | {row.nbytes:,} | {row.times_smaller:.1f} × | "
            f"{row.accuracy:.1f} | {row.lost:.1f} | {row.parameters:,} | {row.nonzeros:,} | "
            f"{row.mflop:.2f} | {row.forward_ms:.2f} |"
        )
    return lines


def _verdicts(rows: list[Row], entropy: tuple[float, int, float]) -> list[str]:
    """What was asked for, beside what came out."""
    good = [row for row in rows if row.whose == "limosa" and row.lost <= 0.5]
    best = max(good, key=lambda row: row.times_smaller, default=None)
    lines = []
    if best is not None:
        reached = "reached" if best.times_smaller >= 20 else "**missed**"
        lines.append(
            f"- The smallest at 0.5 point lost or less: {best.way}, {best.times_smaller:.1f} × "
            f"(20 asked): {reached}."
        )
        others = [row for row in rows if row.whose != "limosa" and row.lost <= best.lost + 0.3]
        if others:
            other = min(others, key=lambda row: row.nbytes)
            ratio = other.nbytes / best.nbytes
            reached = "reached" if ratio >= 2 else "**missed**"
            lines.append(
                f"- The smallest rival at an accuracy within 0.3 of it: {other.way}, {ratio:.2f} × "
                f"its bytes (2 asked): {reached}."
            )
    ratio, nbytes, bits = entropy
    reached = "reached" if ratio <= 1.03 else "**missed**"
    lines.append(
        f"- 90 % zeros in each layer and 4 bits: {nbytes:,} bytes, {ratio:.3f} × the entropy of "
        f"the symbols, {bits:,.0f} (1.03 asked; frames and index included): {reached}."
    )
    plain = next(row for row in rows if row.way == "without loss")
    for way in ("half of the channels", "low rank, 40 %"):
        row = next(one for one in rows if one.way == way and one.whose == "limosa")
        faster = plain.forward_ms / row.forward_ms
        fewer = plain.mflop / row.mflop
        lines.append(f"- {way}: {faster:.2f} × as fast as before, {fewer:.2f} × fewer FLOPs.")
    return lines


if __name__ == "__main__":
    main()
