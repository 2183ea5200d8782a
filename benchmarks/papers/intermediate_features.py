"""What the paper on intermediate features measures, measured again with limosa.

    python -m benchmarks.papers.intermediate_features --out docs/results

codes every feature of EfficientNet-Lite0 before real photographs and of small networks before
digits, without and with loss; compares limosa with coders of pictures at equal quality; codes a
video; and writes ``intermediate_features.md``, ``.csv`` and plots: some five minutes. The paper's
own networks come too, those whose weights of torchvision are in the folder of ``torch.hub`` or in
``--weights``. ``--quick``: half a minute's worth, to see that everything runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.finetune import default_cache
from benchmarks.papers.features import (
    accuracy,
    architectures,
    neighbours,
    report,
    subjects,
    tables,
    video,
)
from benchmarks.papers.features.subjects import Subject
from benchmarks.papers.features.verdicts import Results

PAPER = ("VGG-16", "ResNet-50", "ResNet-101", "ResNet-152")
SMALL = ("vgg-tiny", "vgg-small", "tiny-resnet")
LINEAR = ("block2", "block4", "block8", "block12")
RELU = ("depth4", "depth8", "depth12")
# Digits in the search for the coarsest step, in messages of 16.
_SEARCHED = 32
# Steps of the progress bar: settings of a coder, or features.
_SETTINGS_OF_A_CUT, _SETTINGS_OF_A_SEARCH = 49, 6
Progressed = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Size:
    """How much of everything."""

    tables: int = 4
    rated: int = 24
    frames: int = video.FRAMES
    small: tuple[str, ...] = SMALL
    linear: tuple[str, ...] = LINEAR
    relu: tuple[str, ...] = RELU
    shapes: tuple[str, ...] = tuple(architectures.ARCHITECTURES)
    features: tuple[str, ...] = ()
    searched: int = _SEARCHED
    epochs: float = subjects.EPOCHS
    profiled: bool = True


QUICK = Size(
    tables=1, rated=2, frames=3, small=("vgg-tiny",), linear=("block12",), relu=("depth12",),
    shapes=("AlexNet",), features=("depth12", "block12", "pool", "fc"), searched=4, epochs=1,
    profiled=False,
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment from the command line."""
    options = _parse(arguments)
    results = run(options, QUICK if options.quick else Size())
    page = report.write(options.out, results)
    print(page.read_text(encoding="utf-8"))


def run(options: argparse.Namespace, size: Size) -> Results:
    """Everything that is asked for."""
    results = Results()
    # Codecs are timed on one thread; a second one for the networks would only wake up late.
    torch.set_num_threads(1)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(file=sys.stderr)) as bar:
        results.shapes = architectures.table1(size.shapes)
        small = [subjects.small(one, options.cache, epochs=size.epochs) for one in size.small]
        others = [*_lite0(results, size), *_paper(options, results, size)]
        for subject in [*others, *small]:
            chosen = _some(subject, size.features) if subject in others else subject
            task = bar.add_task(f"{subject.title}: features", total=len(chosen.features))
            results.rows += tables.measure(chosen, size.tables, lambda t=task: bar.advance(t))
            results.images[subject.title] = size.tables
        results.excess = tables.random_excess()
        if others and others[0].title == subjects.LITE0:
            _curves(results, others[0], size, bar)
            _videos(results, others[0], size, bar)
        searched = dataclasses.replace(small[0], batches=small[0].batches[: size.searched])
        cuts = searched.features[:-1]
        task = bar.add_task("bits for a point", total=_SETTINGS_OF_A_SEARCH * len(cuts))
        results.fewest = [
            accuracy.measure(searched, one, lambda: bar.advance(task)) for one in cuts
        ]
        bar.update(task, completed=_SETTINGS_OF_A_SEARCH * len(cuts))
    return results


def _lite0(results: Results, size: Size) -> list[Subject]:
    try:
        return [subjects.lite0(subjects.photographs(size.tables))]
    except ModuleNotFoundError as error:
        results.notes.append(f"EfficientNet-Lite0 is left out: {error}")
        return []


def _paper(options: argparse.Namespace, results: Results, size: Size) -> list[Subject]:
    found = []
    for name in () if options.quick else options.networks:
        subject = subjects.imagenet(name, options.weights, subjects.photographs(size.tables))
        if isinstance(subject, str):
            results.notes.append(subject)
            print(subject, file=sys.stderr)
        else:
            found.append(subject)
    return found


def _some(subject: Subject, symbols: Sequence[str]) -> Subject:
    chosen = [one for one in subject.features if not symbols or one.symbol in symbols]
    return dataclasses.replace(subject, features=tuple(chosen))


def _curves(results: Results, subject: Subject, size: Size, bar: Progress) -> None:
    shown = dataclasses.replace(subject, batches=subjects.photographs(size.rated))
    results.rated = size.rated
    for cut in (*size.linear, *size.relu):
        task = bar.add_task(f"{cut}: coders", total=_SETTINGS_OF_A_CUT)
        known = size.profiled
        profile = neighbours.profile_for(subject, subject[cut]) if known else None
        if profile is not None:
            results.profiled += f", {cut}" if results.profiled else cut
        results.curves += neighbours.measure(
            shown, shown[cut], lambda t=task: bar.advance(t), profile
        )
        bar.update(task, completed=_SETTINGS_OF_A_CUT)


def _videos(results: Results, subject: Subject, size: Size, bar: Progress) -> None:
    videos = [video.sliding(name, size.frames) for name in video.PHOTOGRAPHS]
    results.pan = sum(map(video.pan, videos)) / len(videos)
    task = bar.add_task("video", total=2 * len(size.linear))
    for cut in size.linear:
        curve = next(
            one for one in results.curves if (one.cut, one.coder) == (cut, neighbours.LIMOSA)
        )
        step = curve.setting_at() or curve.points[0].setting
        results.videos.append(
            video.measure(subject, subject[cut], step, videos, lambda: bar.advance(task))
        )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--cache", type=Path, default=default_cache() / report.NAME)
    parser.add_argument("--networks", nargs="+", choices=PAPER, default=PAPER, help="besides")
    parser.add_argument(
        "--weights", type=Path, default=Path(torch.hub.get_dir()) / "checkpoints",
        help="folder with torchvision's resnet50-….pth",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
