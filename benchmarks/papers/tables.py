"""The paper's tables beside the measurements, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .measure import CORRUPT_DIGITS, CORRUPT_TABLE_DIGITS, TABLE_DIGITS, Accuracy, Measurements

UNCHANGED = 0.00001
"""An mAP that moves less than this is unchanged, as in the paper."""


@dataclass(frozen=True)
class Published:
    """What the paper prints for one row of table 3: by RP, mAP change and compression ratio."""

    name: str
    change: dict[int, float]
    ratio: dict[int, float]
    unchanged_at: int
    """RP of table 4."""


PAPER = {
    "last": Published(
        "VGG-retrain-epoch20",
        {6: 0.0, 5: -0.00004, 4: -0.00033, 3: -0.00100},
        {6: 1.9759, 5: 2.5419, 4: 3.5311, 3: 6.1535},
        6,
    ),
    "dom1": Published(
        "VGG-DoM1",
        {6: 0.0, 5: -0.00004, 4: -0.00004, 3: -0.00174},
        {6: 2.3156, 5: 3.1417, 4: 4.8506, 3: 12.5584},
        6,
    ),
    "dom2": Published(
        "VGG-DoM2",
        {6: 0.0, 5: 0.0, 4: -0.00018, 3: -0.01214},
        {6: 3.7322, 5: 6.9128, 4: 33.9115, 3: 28740.0},
        5,
    ),
    "partial": Published(
        "Resnet-retrain",
        {6: 0.0, 5: -0.0002, 4: -0.00069, 3: -0.00135},
        {6: 1.8582, 5: 2.3645, 4: 3.2119, 3: 4.9974},
        6,
    ),
    "partial_dom": Published(
        "Resnet-DoM",
        {6: 0.0, 5: 0.0, 4: 0.0, 3: -0.00157},
        {6: 2.8239, 5: 3.9300, 4: 7.1607, 3: 45.2715},
        4,
    ),
}
TARGET = {
    "last": "last",
    "dom1": "last",
    "dom2": "last",
    "partial": "partial",
    "partial_dom": "partial",
    "corrupted": "partial",
}
"""The model that a row of tables 3 to 5 delivers; its mAP at RP 6 is what counts as unchanged."""

PAPER_TABLE_1 = (
    ("VGG-16", 0.78066, 0.51699, 0.65799),
    ("VGG-retrain-epoch15", 0.78192, 0.68107, 0.69101),
    ("VGG-retrain-epoch20", 0.77720, 0.69614, 0.69929),
    ("Resnet-50", 0.84925, 0.44315, 0.64789),
    ("Resnet-retrain", 0.88957, 0.687493, 0.79061),
)
PAPER_TABLE_2 = (
    ("base", "VGG-16", 1.9759),
    ("last", "VGG-retrain-epoch20", 1.9759),
    ("base", "Resnet-50", 1.8582),
    ("partial", "Resnet-retrain", 1.8582),
)
PAPER_TABLE_5 = (
    ("partial", "Resnet-retrain", -0.00069, 3.2119),
    ("corrupted", "Resnet-DoM-U", -0.00051, 6.4760),
    ("partial_dom", "Resnet-DoM", 0.0, 7.1607),
)


def change(now: Accuracy, then: Accuracy) -> float:
    """Return the change of mAP of the set where it changes most.

    >>> change((0.5, 0.25), (0.5, 0.75))
    -0.5
    """
    return max((a - b for a, b in zip(now, then, strict=True)), key=abs)


def unchanged_at(curve: dict[int, Accuracy], target: Accuracy) -> int | None:
    """Return the lowest RP from which on every mAP is the target's, or None.

    >>> unchanged_at({6: (0.5,), 5: (0.5,), 4: (0.4,), 3: (0.5,)}, (0.5,))
    5
    """
    lowest = None
    for digits in sorted(curve, reverse=True):
        if abs(change(curve[digits], target)) >= UNCHANGED:
            break
        lowest = digits
    return lowest


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a table; columns after the first are aligned to the right."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _signed(value: float) -> str:
    return "0" if abs(value) < UNCHANGED else f"{value:+.5f}"


def _target(measured: Measurements, key: str) -> Accuracy:
    return measured.curves[TARGET[key]].accuracy[6]


def table_1(measured: Measurements) -> str:
    """The versions and their mAP before any coding, then the paper's."""
    head = ["model", *measured.sets]
    rows = [
        [measured.names[key], *(f"{value:.5f}" for value in accuracy)]
        for key, accuracy in measured.original.items()
    ]
    paper = [[name, *(f"{value:.5f}" for value in values)] for name, *values in PAPER_TABLE_1]
    return (
        markdown(head, rows)
        + "\nThe paper's:\n\n"
        + markdown(["model", "Holidays", "Oxford5K", "Paris6K"], paper)
    )


def table_2(measured: Measurements) -> str:
    """Compression ratio of single models at RP 6."""
    rows = []
    for key, name, ratio in PAPER_TABLE_2:
        curve = measured.curves[key]
        rows.append(
            [f"{curve.label} ({name})"]
            + [f"{value:.4f}" for value in (curve.ratio[6], curve.lzma[6], ratio, curve.exact)]
        )
    return markdown(["model (the paper's)", "limosa", "lzma", "paper", "limosa, every bit"], rows)


def table_3(measured: Measurements) -> str:
    """Change of mAP and compression ratio at RP 6, 5, 4 and 3."""
    head = ["", "RP", "mAP", "limosa", "lzma", "mAP, paper", "ratio, paper"]
    rows = []
    for key, published in PAPER.items():
        curve = measured.curves[key]
        for digits in TABLE_DIGITS:
            title = f"{curve.label} ({published.name})" if digits == TABLE_DIGITS[0] else ""
            moved = change(curve.accuracy[digits], _target(measured, key))
            rows.append(
                [
                    title,
                    str(digits),
                    _signed(moved),
                    f"{curve.ratio[digits]:.4f}",
                    f"{curve.lzma[digits]:.4f}",
                    _signed(published.change[digits]),
                    f"{published.ratio[digits]:.4f}",
                ]
            )
    return markdown(head, rows)


def table_4(measured: Measurements) -> str:
    """Lowest RP that leaves the mAP as it was, and the compression ratio there."""
    rows = []
    for key, published in PAPER.items():
        curve = measured.curves[key]
        accuracy = {p: a for p, a in curve.accuracy.items() if p in TABLE_DIGITS}
        digits = unchanged_at(accuracy, _target(measured, key))
        found = ["above 6", "", ""]
        if digits is not None:
            found = [str(digits), f"{curve.ratio[digits]:.4f}", f"{curve.lzma[digits]:.4f}"]
        at = published.unchanged_at
        rows.append(
            [f"{curve.label} ({published.name})", *found, str(at), f"{published.ratio[at]:.4f}"]
        )
    return markdown(["", "RP", "limosa", "lzma", "RP, paper", "ratio, paper"], rows)


def table_5(measured: Measurements) -> str:
    """A base that was itself received with loss, beside the true one and none."""
    digits = CORRUPT_TABLE_DIGITS
    rows = []
    for key, name, moved, ratio in PAPER_TABLE_5:
        curve = measured.curves[key]
        rows.append(
            [
                f"{curve.label} ({name})",
                _signed(change(curve.accuracy[digits], _target(measured, key))),
                f"{curve.ratio[digits]:.4f}",
                f"{curve.lzma[digits]:.4f}",
                _signed(moved),
                f"{ratio:.4f}",
            ]
        )
    head = ["", "mAP", "limosa", "lzma", "mAP, paper", "ratio, paper"]
    caption = f"RP {digits}; the base of the DoM-U was received at RP {CORRUPT_DIGITS}."
    return f"{caption}\n\n{markdown(head, rows)}"
