"""Rows of an earlier run, read back from the CSV that it wrote."""

from __future__ import annotations

import csv
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
_KINDS = {"str": str, "int": int, "float": float}


def read_rows(path: Path, kind: type[T]) -> list[T]:
    """A row, a dataclass of texts and numbers, for each line; none where there is no such file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [
            kind(**{one.name: _KINDS[str(one.type)](line[one.name]) for one in fields(kind)})
            for line in csv.DictReader(file)
        ]
