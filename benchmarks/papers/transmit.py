"""Send a state as limosa would, and look at what arrives and in how many bytes."""

from __future__ import annotations

from dataclasses import dataclass

import limosa

from .models import State


@dataclass(frozen=True, eq=False)
class Arrival:
    """What a receiver gets.

    Attributes:
        ratio: Bytes of the tensors over bytes that travelled.
        state: The tensors as decoded.
    """

    ratio: float
    state: State


def send(state: State, quality: limosa.Lossless | limosa.Digits, base: State | None) -> Arrival:
    """Encode ``state``, alone or as a difference from ``base``, and decode it again.

    Raises:
        limosa.LimosaError: a setting is wrong.
    """
    blob = limosa.save(state, quality=quality, base=base, threads=1)
    raw = sum(array.nbytes for array in state.values())
    return Arrival(raw / len(blob), limosa.load(blob, base=base, threads=1))


def same(one: State, other: State) -> bool:
    """Tell whether two states have the same names, dtypes and bits."""
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and one[name].tobytes() == other[name].tobytes()
        for name in one
    )


def kept_or_truncated(decoded: State, truncated: State, original: State) -> bool:
    """Tell whether each value decoded is the truncated one or the original itself.

    Where all the bits of a block cost less than its digits, limosa's coder keeps the bits; lzma
    always truncates. So the two agree up to values that limosa brings back exactly.
    """
    return all(
        bool(((array == truncated[name]) | (array == original[name])).all())
        for name, array in decoded.items()
    )
