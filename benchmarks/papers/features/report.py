"""The results as Markdown and CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import machine
from benchmarks.papers.features import accuracy, plots, tables, video
from benchmarks.papers.features.neighbours import WANTED, Curve
from benchmarks.papers.features.tables import CODERS, LOSSY_EFFORT, LOSSY_STEP, Row
from benchmarks.papers.features.verdicts import Results, by_feature, judge

NAME = "intermediate_features"

HEAD = """# Intermediate features

What *Intermediate Deep Feature Compression: the Next Battlefield of Intelligent Sensing* (Zhuo Chen
et al., 2018) measures, measured again with `limosa.FeatureEncoder`, by `python -m
benchmarks.papers.intermediate_features`. On {machine}.

{networks}

gzip, zlib, bzip2 and lzma have their default settings, as in the paper. Times are
processor times of encoding one message on one thread; of short ones, the fastest of a few runs. A
message of limosa is a whole one, with source, shape and digest; that of the others is bare data.
Means of speeds are geometric, over the features. The background of a digit is one value, and so are
the early features behind it, zero or not: lzma and even zlib find what repeats exactly, limosa
looks at values one by one. Photographs seldom have such areas.
"""

NEIGHBOURS = """## Against the neighbours, at equal quality

Bits an element at which the divergence of the network's output is {wanted} nats, over {images}
crops of photographs, each coded alone: settings on either side are measured and the size between
them is read off in the logarithms of both ([plot]({plot})). `block` is what a linear
bottleneck returns, its shortcut added; `depth` the depthwise convolution after ReLU6: where a
block has a shortcut, its input crosses this cut too, and stays exact here for every coder.

- *limosa*: `FeatureEncoder(quality=Step(size, effort=9))`{profiles}.
- *order-0 entropy*: one plain uniform step; the entropy of each channel of each image by itself,
  its tables for nothing. No coder, but a bound for those that look at one level at a time.
- The others get the channels side by side in one picture, 8 bits between the smallest and the
  largest value of the tensor, as Choi and Bajić do: JPEG, WebP and AVIF at the quality that does;
  lossless WebP and zlib at the number of levels, at most 256, that does.
"""

VIDEO = """## A picture that slides by a pixel a frame

{frames} frames of 224 x 224 from {photographs}; a frame differs from the one before by {pan:.0%}
of its mean magnitude. Keys only (`key_every=1`) against a key in {every}, at one step.

| cut | bytes, keys only | predicted | fewer | KL, keys only | predicted |
|---|--:|--:|--:|--:|--:|"""

FEWEST = """## Digits: bits an element for a point of accuracy

The coarsest step (effort 9) at which {network}, which reads {before:.1f} % of {images} test
digits, loses at most {points:g} point; 16 digits in a message.

| cut | step | bits an element | accuracy |
|---|--:|--:|--:|"""


def write(out: Path, results: Results) -> Path:
    """Write the page, the table and the pictures into a folder; returns the page."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / f"{NAME}.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, _COLUMNS, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(
            {key: _plain(value) for key, value in row.items()} for row in _records(results)
        )
    plots.draw(out, NAME, results)
    page = out / f"{NAME}.md"
    page.write_text(render(results), encoding="utf-8")
    return page


def render(results: Results) -> str:
    """The whole page."""
    images = "; ".join(f"{name}: {text}" for name, text in _shown(results))
    parts = [
        HEAD.format(machine=machine.describe(), networks=f"{images}."),
        *(f"- {note}" for note in results.notes),
        "" if results.notes else None,
        "## The numbers to reach\n",
        "| | to reach | this run | |\n|---|---|---|---|",
        *(
            f"| {v.what} | {v.goal} | {v.figure} | {'reached' if v.is_reached else '**missed**'} |"
            for v in judge(results)
        ),
        "",
        *_neighbours(results),
        *_videos(results),
        *_fewest(results),
        *_tables(results),
        *_shapes(results),
    ]
    return "\n".join(part for part in parts if part is not None).rstrip() + "\n"


def _shown(results: Results) -> Iterator[tuple[str, str]]:
    for name, count in results.images.items():
        at_once = next(r.shape[0] for r in results.rows if r.network == name)
        each = "crops of photographs, one in" if at_once == 1 else f"times {at_once} digits in"
        yield name, f"{count} {each} a message"


def _neighbours(results: Results) -> Iterator[str]:
    if not results.curves:
        return
    profiles = "" if not results.profiled else f", with a profile at {results.profiled}"
    yield NEIGHBOURS.format(
        wanted=WANTED, images=results.rated, plot=f"{NAME}_rates.png", profiles=profiles
    )
    coders = list(dict.fromkeys(curve.coder for curve in results.curves))
    yield f"| cut | {' | '.join(coders)} |"
    yield f"|---|{'--:|' * len(coders)}"
    for cut in dict.fromkeys(curve.cut for curve in results.curves):
        held = {curve.coder: curve.bits_at() for curve in results.curves if curve.cut == cut}
        best = min(value for value in held.values() if value is not None)
        cells = (_bits(held.get(coder), best) for coder in coders)
        yield f"| {cut} | {' | '.join(cells)} |"
    yield ""


def _bits(value: float | None, best: float) -> str:
    if value is None:
        return "not reached"
    return f"**{value:.2f}**" if value == best else f"{value:.2f}"


def _videos(results: Results) -> Iterator[str]:
    if not results.videos:
        return
    yield VIDEO.format(
        frames=results.videos[0].frames, photographs=", ".join(video.PHOTOGRAPHS),
        pan=results.pan, every=video.KEY_EVERY,
    )  # fmt: skip
    for one in results.videos:
        yield (
            f"| {one.cut} | {one.nbytes[0]:,} | {one.nbytes[1]:,} | {one.saved:.1%} "
            f"| {one.divergences[0]:.4f} | {one.divergences[1]:.4f} |"
        )
    yield ""


def _fewest(results: Results) -> Iterator[str]:
    if not results.fewest:
        return
    first = results.fewest[0]
    yield FEWEST.format(
        network=first.network, before=first.before, images=first.images, points=accuracy.POINTS
    )
    for one in results.fewest:
        yield f"| {one.cut} | {one.step:.3g} | {one.bits:.3f} | {one.accuracy:.1f} |"
    yield ""


def _tables(results: Results) -> Iterator[str]:
    networks = list(dict.fromkeys(row.network for row in results.rows))
    if networks:
        yield "## Tables II to V: each feature by each coder\n"
        yield (
            "Coded bytes over raw bytes, and milliseconds to encode, mean ± deviation over the "
            f"messages. The lossy column: a step of {LOSSY_STEP} of the feature's deviation, "
            f"effort {LOSSY_EFFORT}, with the divergence of the output that it costs. "
            f"[Figure 4]({NAME}_figure4.png).\n"
        )
    for network in networks:
        yield f"### {network}\n"
        names = " | ".join(f"{coder} | ms" for coder in CODERS)
        yield f"| feature | shape | bytes | non-zero | {names} | KL |"
        yield f"|---|---|--:|--:|{'--:|--:|' * len(CODERS)}--:|"
        for feature, own in by_feature([r for r in results.rows if r.network == network]).items():
            yield _table_row(feature, own)
        yield ""


def _table_row(feature: str, own: dict[str, Row]) -> str:
    first = next(iter(own.values()))
    shape = " × ".join(map(str, first.shape))
    cells = [
        feature,
        shape,
        f"{first.nbytes:,}",
        f"{first.nonzero[0]:.3f} ± {first.nonzero[1]:.3f}",
    ]
    for coder in CODERS:
        row = own[coder]
        cells += [f"{row.ratio[0]:.3f} ± {row.ratio[1]:.3f}"]
        cells += [" ± ".join(_milliseconds(second) for second in row.seconds)]
    lost = own[tables.LOSSY].divergence
    return f"| {' | '.join([*cells, '' if lost is None else f'{lost:.4f}'])} |"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g}" if seconds < 0.1 else f"{1000 * seconds:.0f}"


def _shapes(results: Results) -> Iterator[str]:
    if not results.shapes:
        return
    yield "## Table I: shapes\n"
    yield (
        "As `limosa.torch.cuts` finds them for an image of 224 × 224, with the share of the "
        "network's operations before each cut.\n"
    )
    yield "| network | feature | shape | bytes | compute before |"
    yield "|---|---|---|--:|--:|"
    for one in results.shapes:
        shape = " × ".join(map(str, one.shape))
        yield f"| {one.network} | {one.feature} | {shape} | {one.nbytes:,} | {one.share:.1%} |"


_COLUMNS = (
    "part", "network", "feature", "kind", "coder", "shape", "nbytes", "nonzero",
    "nonzero_deviation", "ratio", "ratio_deviation", "seconds", "seconds_deviation", "setting",
    "bits", "divergence", "accuracy",
)  # fmt: skip


def _records(results: Results) -> Iterator[dict[str, object]]:
    for row in results.rows:
        yield {
            "part": "tables", "network": row.network, "feature": row.feature, "kind": row.kind,
            "coder": row.coder, "shape": "x".join(map(str, row.shape)), "nbytes": row.nbytes,
            "nonzero": row.nonzero[0], "nonzero_deviation": row.nonzero[1],
            "ratio": row.ratio[0], "ratio_deviation": row.ratio[1], "seconds": row.seconds[0],
            "seconds_deviation": row.seconds[1], "bits": row.bits, "divergence": row.divergence,
        }  # fmt: skip
    yield from _points(results.curves)
    for one in results.videos:
        for number, coder in enumerate(("keys only", "predicted")):
            yield {
                "part": "video", "feature": one.cut, "coder": coder,
                "nbytes": one.nbytes[number], "divergence": one.divergences[number],
            }  # fmt: skip
    for few in results.fewest:
        yield {
            "part": "digits", "network": few.network, "feature": few.cut, "kind": few.kind,
            "setting": few.step, "bits": few.bits, "accuracy": few.accuracy,
        }  # fmt: skip


def _points(curves: Sequence[Curve]) -> Iterator[dict[str, object]]:
    for curve in curves:
        for point in curve.points:
            yield {
                "part": "neighbours", "feature": curve.cut, "kind": curve.kind,
                "coder": curve.coder, "setting": point.setting, "bits": point.bits,
                "divergence": point.divergence,
            }  # fmt: skip


def _plain(value: object) -> object:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else value
