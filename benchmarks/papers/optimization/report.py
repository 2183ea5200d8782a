"""The rows as CSV, as tables with what was asked for, and as a picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from benchmarks import machine
from benchmarks.papers.csv_rows import read_rows
from benchmarks.papers.optimization.subjects import LITE0, Row
from benchmarks.papers.optimization.ways import FASTER

NAME = "model_optimization"
_HEAD = """# Models made smaller before they are sent

By `python -m benchmarks.papers.model_optimization`.
{machine}

Digits: nets trained on 4 000 MNIST digits, accuracy on 1 000 others. EfficientNet-Lite0: how often
the first class of 256 crops of photographs stays what it was; its halves of the photographs are
never trained or calibrated on, and nothing is trained on true labels. All is measured on what is
*decoded*. *Smaller* is against the tensors as F32. Rows that say pruned (not torch's alone), 2:4,
channels, low rank, student, recipe or *trained* were trained further with the network itself as a
teacher, the rivals' too; the others were not. *Faster* is how often a model runs while the original
runs once, on one thread, 64 digits or 4 photographs, both by turns.
"""


def write(out: Path, rows: Sequence[Row]) -> None:
    """Write the table as CSV, Markdown and PNG."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / f"{NAME}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows([asdict(row) for row in rows])
    lines = [_HEAD.format(machine=machine.describe())]
    for name in dict.fromkeys(row.network for row in rows):
        mine = [row for row in rows if row.network == name]
        lines += [f"## {name}", "", *_table(mine), "", *verdicts(mine), ""]
    (out / f"{NAME}.md").write_text("\n".join(lines), encoding="utf-8")
    draw(out / f"{NAME}.png", rows)


def read(out: Path) -> list[Row]:
    """The rows that :func:`write` wrote; none where there is no such file."""
    return read_rows(out / f"{NAME}.csv", Row)


def _table(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| way | whose | bytes | smaller | % right | lost | parameters | not 0 | MFLOP | faster |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        needs = f" (needs {row.receiver_needs})" if row.receiver_needs else ""
        lines.append(
            f"| {row.way}{needs} | {row.whose} | {row.nbytes:,} | {row.times_smaller:.1f} × | "
            f"{row.metric:.1f} | {row.lost:.1f} | {row.parameters:,} | {row.nonzeros:,} | "
            f"{row.mflop:.2f} | {row.faster:.2f} × |"
        )
    return lines


def verdicts(rows: Sequence[Row]) -> list[str]:
    """What was asked for, beside what came out."""
    lines = []
    asked = rows[0].network != LITE0
    good = [row for row in rows if row.whose == "limosa" and row.lost <= 0.5]
    best = max(good, key=lambda row: row.times_smaller, default=None)
    if best is not None:
        lines.append(
            f"- The smallest at 0.5 point lost or less: {best.way}, {best.times_smaller:.1f} ×"
            + (f" (20 asked): {_reached(best.times_smaller >= 20)}." if asked else ".")
        )
        others = [row for row in rows if row.whose != "limosa" and row.lost <= best.lost + 0.3]
        if others:
            other = min(others, key=lambda row: row.nbytes)
            ratio = other.nbytes / best.nbytes
            lines.append(
                f"- The smallest rival at most 0.3 worse: {other.way} ({other.whose}), "
                f"{ratio:.2f} × its bytes"
                + (f" (2 asked): {_reached(ratio >= 2)}." if asked else ".")
            )
    for row in rows:
        if row.levels:
            ratio = row.levels / row.entropy
            lines.append(
                f"- {row.way}: {row.levels:,} bytes of coded levels, {ratio:.3f} × the entropy of "
                f"the symbols, {row.entropy:,.0f} (1.03 asked): {_reached(ratio <= 1.03)}."
            )
    plain = next(row for row in rows if row.way == "without loss")
    for row in rows:
        if row.whose == "limosa" and row.way in FASTER:
            lines.append(
                f"- {row.way}: {row.faster:.2f} × as fast as before, "
                f"{plain.mflop / row.mflop:.2f} × fewer FLOPs: {_reached(row.faster > 1)}."
            )
    return lines


def _reached(is_reached: bool) -> str:
    return "reached" if is_reached else "**missed**"


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Bytes against the metric, a picture a network."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(row.network for row in rows))
    columns = min(2, len(names))
    high = -(-len(names) // columns)
    figure, axes = plt.subplots(
        high, columns, figsize=(6.4 * columns, 4.4 * high), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(names) :]:
        axis.remove()
    for axis, name in zip(axes.flat, names, strict=False):
        mine = [row for row in rows if row.network == name]
        top = max(row.metric for row in mine)
        shown = [row for row in mine if row.metric > top - (25 if name == LITE0 else 6)]
        for label, marker, colour, chosen in (
            ("others", "x", "#a33b20", [row for row in shown if row.whose != "limosa"]),
            ("limosa, a technique", "o", "#00727a", [r for r in shown if _is_technique(r)]),
            ("limosa, a recipe", "D", "#1b9e3e", [r for r in shown if r.way.startswith("recipe")]),
        ):
            axis.plot(
                [row.nbytes for row in chosen], [row.metric for row in chosen], marker,
                color=colour, label=label, markersize=6,
            )  # fmt: skip
        best = [row for row in shown if row.way.startswith("recipe") or row.whose != "limosa"]
        for row in sorted(best, key=lambda row: row.nbytes)[:4]:
            axis.annotate(
                row.way.removeprefix("recipe: "), (row.nbytes, row.metric), (3, -4),
                textcoords="offset points", rotation=-28, va="top", fontsize=7,
            )  # fmt: skip
        label = "% of first classes as before" if name == LITE0 else "% right"
        axis.set(xscale="log", xlabel="bytes on the wire", ylabel=label, title=name)
        axis.grid(alpha=0.3, which="both")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _is_technique(row: Row) -> bool:
    return row.whose == "limosa" and not row.way.startswith("recipe")
