"""Columns of a layered drawing: who stands above whom, and how high."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limosa.hub.pages.layout import Box

_GAP = 26.0
_SWEEPS = 4


@dataclass(eq=False)
class Item:
    """What takes a place in a column: boxes below each other, or (without boxes) a passing line.

    Attributes:
        place: in history.
        y: of its upper edge.
        anchor: from there to where its neighbours should be level with it.
    """

    boxes: Sequence[Box] = ()
    place: int = 0
    column: int = 0
    height: float = 0.0
    anchor: float = 0.0
    y: float = 0.0
    near: tuple[list[Item], list[Item]] = field(default_factory=lambda: ([], []))


@dataclass
class Wire:
    """A line between items of different columns; *passes* are its places in those between."""

    first: Item
    last: Item
    passes: list[Item] = field(default_factory=list)


def place_columns(items: Sequence[Item], wires: Sequence[Wire]) -> list[list[Item]]:
    """The items of each column from top to bottom, passing lines among them, each with its *y*."""
    columns: list[list[Item]] = [[] for _ in range(max((i.column + 1 for i in items), default=0))]
    for item in items:
        columns[item.column].append(item)
    for wire in wires:
        chain = [wire.first]
        for place in range(wire.first.column + 1, wire.last.column):
            wire.passes.append(Item(column=place))
            columns[place].append(wire.passes[-1])
        chain += [*wire.passes, wire.last]
        for one, other in pairwise(chain):
            one.near[1].append(other)
            other.near[0].append(one)
    _order(columns)
    trunk = _trunk(columns)
    for _ in range(2):
        for column, item in zip(columns, trunk, strict=True):
            _level(column, item)
    highest = min((item.y for column in columns for item in column), default=0.0)
    for column in columns:
        for item in column:
            item.y += 14 - highest
    return columns


def _trunk(columns: Sequence[Sequence[Item]]) -> list[Item]:
    """Of each column what most of history follows, or else the newest; these stand level."""
    ahead: dict[int, int] = {}
    for column in reversed(columns):
        for item in column:
            ahead[id(item)] = max((ahead[id(other)] + 1 for other in item.near[1]), default=0)
    return [
        max(column, key=lambda item: (bool(item.boxes), ahead[id(item)], item.place))
        for column in columns
    ]


def _order(columns: list[list[Item]]) -> None:
    """Sort each column by the mean place of its neighbours, there and back some times."""
    place = {id(item): float(i) for column in columns for i, item in enumerate(column)}
    for sweep in range(_SWEEPS):
        side = sweep % 2
        for column in columns if side == 0 else columns[::-1]:
            wish = {
                id(item): _mean([place[id(other)] for other in item.near[side]], place[id(item)])
                for item in column
            }
            # A line passes below a box with the same wish.
            column.sort(key=lambda item: (wish[id(item)], not item.boxes))
            for i, item in enumerate(column):
                place[id(item)] = float(i)


def _level(column: list[Item], trunk: Item) -> None:
    """Put *trunk* at 0 and the others level with their neighbours, as far as their order allows.

    Pools those that would overlap and moves them together, which is the least sum of squares
    (R. Barlow et al., "Statistical inference under order restrictions", 1972).
    """
    offsets = [0.0]
    for item, below in pairwise(column):
        offsets.append(offsets[-1] + item.height + _gap(item, below))
    wishes = [
        _mean([other.y + other.anchor for other in item.near[0]], item.y + item.anchor)
        - item.anchor
        - offset
        for item, offset in zip(column, offsets, strict=True)
    ]
    place = column.index(trunk)
    fixed = -trunk.anchor - offsets[place]
    tops = [min(top, fixed) for top in _pool(wishes[:place])]
    tops += [fixed, *(max(top, fixed) for top in _pool(wishes[place + 1 :]))]
    for item, offset, top in zip(column, offsets, tops, strict=True):
        item.y = top + offset


def _pool(wishes: Sequence[float]) -> list[float]:
    """The rising numbers nearest to *wishes*."""
    pools: list[tuple[float, int]] = []
    for wish in wishes:
        pools.append((wish, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (one, many), (two, more) = pools[-2:]
            pools[-2:] = [((one * many + two * more) / (many + more), many + more)]
    return [value for value, many in pools for _ in range(many)]


def _gap(item: Item, below: Item) -> float:
    return _GAP if item.boxes or below.boxes else _GAP / 2


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
