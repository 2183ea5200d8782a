"""Models made smaller before they are sent: each technique alone, a recipe, and what others do.

    python -m benchmarks.papers.model_optimization --out docs/results

trains nets on 4 000 MNIST digits, makes them smaller in every way, and tests what was decoded on
1 000 others; EfficientNet-Lite0 is measured by how often its first class of a photograph stays the
same. Bytes that travel, accuracy, time of a forward pass. ``--quick`` takes a minute. The rivals
are torch's own pruning, int8 rounding, torch-pruning and torchao, each with zip or zstd.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.papers.optimization import report, rivals, ways
from benchmarks.papers.optimization.subjects import LITE0, Row, Subject, digits_net, lite0
from benchmarks.papers.updates.data import digits

_EPOCHS = 12
_DIGITS = ("vgg-small", "tiny-resnet", "vgg-medium")


def main() -> None:
    """Run from the command line."""
    options = _parse()
    names = ("vgg-tiny",) if options.quick else options.networks
    torch.set_num_threads(1)
    # Rows of networks that are not measured now stay: each takes its time.
    rows = [row for row in report.read(options.out) if row.network not in names]
    for name in names:
        subject = _subject(name, 2 if options.quick else _EPOCHS)
        print(f"{name}: {subject.right:.1f} %, {subject.raw:,} bytes", flush=True)
        for row in _rows(subject):
            rows.append(row)
            print(f"  {row.way}: {row.nbytes:,} bytes, {row.metric:.1f} %", flush=True)
        # After each network: a run that is cut off leaves what it has.
        report.write(options.out, rows)
    print((options.out / f"{report.NAME}.md").read_text(encoding="utf-8"))


def _subject(name: str, epochs: int) -> Subject:
    return lite0() if name == LITE0 else digits_net(name, digits(), epochs)


def _rows(subject: Subject) -> Iterator[Row]:
    is_digits = subject.name != LITE0
    yield from rivals.rows(subject, trained=is_digits)
    if is_digits:
        yield from ways.alone(subject)
        yield from ways.recipes(subject)
    else:
        yield from ways.without_labels(subject)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument(
        "--networks", nargs="+", choices=(*_DIGITS, "vgg-tiny", LITE0),
        default=(*_DIGITS, LITE0),
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true", help="a small network, trained for a moment"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
