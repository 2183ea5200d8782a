"""The part of a version's tensors that was asked for: filtered, sorted, one page of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from limosa.hub.pages import words
from limosa.hub.pages.views import Asked, TensorRow

#: Rows of a page.
ROWS = 200


@dataclass(frozen=True)
class Column:
    """A column: its heading, and what its cells are sorted by; *words* sort as text."""

    key: str
    heading: str
    value: Callable[[TensorRow], str | float | None]
    words: bool = False


@dataclass(frozen=True)
class Selection:
    """What is shown of *total* tensors: *rows* of the *found* that match; which page."""

    rows: Sequence[TensorRow]
    found: int
    total: int
    page: int
    pages: int


def _changed(row: TensorRow) -> float | None:
    return None if row.changed is None else words.ratio(row.changed, row.elements)


COLUMNS = (
    Column("name", "Tensor", lambda row: row.name, words=True),
    Column("dtype", "Type", lambda row: row.dtype, words=True),
    Column("elements", "Shape", lambda row: row.elements),
    Column("size", "Size", lambda row: row.nbytes),
    Column("mean", "Mean", lambda row: row.mean),
    Column("std", "Deviation", lambda row: row.std),
    Column("low", "Least", lambda row: row.low),
    Column("high", "Greatest", lambda row: row.high),
    Column("changed", "Changed", _changed),
)


def select(tensors: Sequence[TensorRow], asked: Asked) -> Selection:
    """What *asked* asks of *tensors*; what it asks beyond them is ignored.

    >>> rows = [TensorRow("fc.weight", "F32", (4,), 16), TensorRow("fc.bias", "F32", (1,), 4)]
    >>> [row.name for row in select(rows, Asked(text="FC", sort="size")).rows]
    ['fc.bias', 'fc.weight']
    >>> select(rows, Asked(text="bias", page=99)).page
    1
    """
    wanted = asked.text.strip().casefold()
    found = [
        row for row in tensors if wanted in f"{row.name} {row.dtype}".casefold()
    ]  # fmt: skip
    column = next((column for column in COLUMNS if column.key == asked.sort), None)
    if column is not None:
        found = _sort(found, column, asked.descending)
    pages = max(-(-len(found) // ROWS), 1)
    page = min(max(asked.page, 1), pages)
    rows = found[(page - 1) * ROWS : page * ROWS]
    return Selection(rows, len(found), len(tensors), page, pages)


def _sort(rows: list[TensorRow], column: Column, descending: bool) -> list[TensorRow]:
    keyed: list[tuple[str | float, TensorRow]] = []
    last: list[TensorRow] = []  # what has no value is last in both directions
    for row in rows:
        value = column.value(row)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            last.append(row)
        else:
            keyed.append((value, row))
    keyed.sort(key=_first, reverse=descending)
    return [row for _, row in keyed] + last


def _first(pair: tuple[str | float, TensorRow]) -> tuple[str, float]:
    value = pair[0]
    return (value, 0.0) if isinstance(value, str) else ("", value)
