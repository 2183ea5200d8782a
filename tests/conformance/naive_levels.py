"""Blocks of levels and base palettes (docs/format.md 3.11 to 3.13), and what they decode to.

Like naive_encoder.py it does what it is told, and shares no code with a decoder: values are exact
fractions until they are rounded.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import naive_encoder as naive
from naive_adaptive import adaptive_code

NEXT = [[0, 2], [7, 5], [1, 3], [6, 4], [2, 0], [5, 7], [3, 1], [4, 6]]
DEPENDENT, ROW_SCALES, BY_ROWS, BY_EXPONENTS, ADAPTIVE = 1, 2, 4, 8, 16


def binary32(value: float) -> int:
    """The bits of a step."""
    return struct.unpack("<I", struct.pack("<f", value))[0]


def nearest(exact: Fraction, E: int, M: int) -> int:
    """The unit of E and M bits, ties to even."""
    sign = int(exact < 0) << E + M
    size, lowest = abs(exact), Fraction(2) ** (2 - 2 ** (E - 1))
    if size == 0:
        return 0
    # The power of two at or below it: of the ratio of two integers, their lengths leave two.
    power = Fraction(2) ** (size.numerator.bit_length() - size.denominator.bit_length())
    power = max(power if power <= size else power / 2, lowest)
    steps = round(size / power * 2**M)  # round() of a Fraction: ties to even
    exponent = (power / lowest).numerator.bit_length() - 1
    return sign | min((exponent << M) + steps, (2**E - 1) << M)


def exact_value(unit: int, E: int, M: int) -> Fraction | None:
    """The value of a float; None if it is not finite."""
    top, low = unit >> M & 2**E - 1, unit & 2**M - 1
    if top == 2**E - 1:
        return None
    power = Fraction(2) ** (max(top, 1) - 2 ** (E - 1) + 1 - M)
    return (-1 if unit >> E + M else 1) * (low + (2**M if top else 0)) * power


def unit_of(exact: Fraction, dtype: str, base: int | None = None) -> int:
    """A value, or its sum with the base, as a unit."""
    E, M = naive.FLOATS[dtype]
    if base is not None:
        held = exact_value(base, E, M)
        if held is None:
            return base
        exact = exact_value(nearest(held + exact, 11, 52), 11, 52)
    if dtype != "F64":
        single = exact_value(nearest(exact, 8, 23), 8, 23)
        if single is None:
            return nearest(exact, E, M) | (2**E - 1) << M
        # What rounds to -0 is -0 in every narrower dtype.
        exact = single or exact / 2**200
    return nearest(exact, E, M)


def parity(q: int, s: int, m: int) -> int:
    """What the level does to the state: the parity of its token."""
    return (naive.token(naive.zigzag(q), s, m)[0] + 1 >> 1) & 1


@dataclass
class Levels:
    """A block: `q` has the coded levels of the units in their order, all else is as in the page."""

    dtype: str
    q: Sequence[int]
    step: int = field(default_factory=lambda: binary32(2.0**-8))
    dependent: bool = False
    scales: Sequence[int] = ()
    c: int = 0  # n where nothing else is said
    o: int = 0
    by_rows: tuple[int, Sequence[int], Sequence[int]] | None = None  # K, of rows, of columns
    by_exponents: tuple[int, int] | None = None  # K, the lowest exponent
    base: Sequence[int] | None = None
    exceptions: dict[int, int] = field(default_factory=dict)
    s: int = 4
    m: int = 1
    kind: int = 2
    scale: int = 10
    adaptive: bool = False
    g: int = 88  # of the adaptive code

    @property
    def n(self) -> int:
        return len(self.q)

    @property
    def columns(self) -> int:
        return self.c or self.n

    def place(self, i: int) -> tuple[int, int]:
        """Row and column of a unit."""
        return divmod(self.o + i, self.columns)

    def classes(self) -> tuple[int, list[int]]:
        """K, and the class of each unit."""
        if self.by_rows:
            K, rows, columns = self.by_rows
            places = map(self.place, range(self.n))
            return K, [min(rows[row] + columns[column], K - 1) for row, column in places]
        if self.by_exponents:
            K, lowest = self.by_exponents
            E, M = naive.FLOATS[self.dtype]
            return K, [min(max((b >> M & 2**E - 1) - lowest, 0), K - 1) for b in self.base]
        return 1, [0] * self.n

    def segments(self) -> list[list[int]]:
        """The units of each walk through the trellis."""
        if self.adaptive or self.n < 16384:
            return [list(range(self.n))]
        length = self.n // 32
        parts = [list(range(j * length, j * length + length)) for j in range(32)]
        parts[31] += range(32 * length, self.n)
        return parts

    def order(self) -> list[int]:
        """The units in the order of the integer stream."""
        parts = self.segments() if self.dependent else [list(range(self.n))]
        length = self.n // len(parts)
        dealt = [part[k] for k in range(length) for part in parts]
        return dealt + parts[-1][length:]

    def states(self) -> list[int]:
        """The state before the level of each unit."""
        states = [0] * self.n
        if not self.dependent:
            return states
        for part in self.segments():
            state = 0
            for i in part:
                states[i] = state
                odd = self.q[i] & 1 if self.adaptive else parity(self.q[i], self.s, self.m)
                state = NEXT[state][odd]
        return states

    def steps(self) -> list[int]:
        """rho of each unit."""
        out = []
        for i, (q, state) in enumerate(zip(self.q, self.states(), strict=True)):
            rho = q
            if self.dependent and q:
                rho = 2 * q - (state & 1) if q > 0 else 2 * q + (state & 1)
            if self.by_exponents and self.base[i] >> naive.WIDTHS[self.dtype] - 1:
                rho = -rho
            out.append(rho)
        return out

    def units(self) -> list[int]:
        """What the block decodes to."""
        step = exact_value(self.step, 8, 23)
        units = []
        for i, rho in enumerate(self.steps()):
            row_step = step
            if self.scales:
                s = self.scales[self.place(i)[0]]
                power = [2048, 2233, 2435, 2656, 2896, 3158, 3444, 3756][s % 8]
                row_step = step * power * Fraction(2) ** (s // 8 - 16 - 11)
            if i in self.exceptions:
                units.append(self.exceptions[i])
            elif self.base is None:
                units.append(unit_of(rho * row_step, self.dtype))
            elif rho == 0:
                units.append(self.base[i])
            else:
                units.append(unit_of(rho * row_step, self.dtype, self.base[i]))
        return units

    def head(self) -> bytes:
        """Everything before the levels."""
        flags = DEPENDENT * self.dependent + ROW_SCALES * bool(self.scales)
        flags += BY_ROWS * bool(self.by_rows) + BY_EXPONENTS * bool(self.by_exponents)
        flags += ADAPTIVE * self.adaptive
        assert self.step % 256 == 0
        out = bytes([flags]) + (self.step >> 8).to_bytes(3, "little")
        out += naive.decimal_exceptions(self.exceptions, naive.WIDTHS[self.dtype])
        out += naive.varint(self.columns) + naive.varint(self.o)
        if self.scales:
            out += naive.symbol_stream(self.scales)
        if self.by_rows:
            K, rows, columns = self.by_rows
            out += bytes([K]) + naive.symbol_stream(rows) + naive.symbol_stream(columns)
        if self.by_exponents:
            out += struct.pack("<BH", *self.by_exponents)
        return out

    def content(self) -> bytes:
        """The block after its mode and count."""
        K, classes = self.classes()
        states = self.states()
        if self.adaptive:
            return self.head() + adaptive_code(self.q, self.columns, self.o, states, self.g)
        order = self.order()
        return self.head() + naive.integer_stream(
            [naive.zigzag(self.q[i]) for i in order],
            self.s,
            self.m,
            kind=self.kind,
            scale=self.scale,
            contexts=[classes[i] + K * (states[i] & 1) for i in order],
            count=2 * K if self.dependent else K,
        )

    def block(self, count: int = 0) -> bytes:
        """The whole block."""
        return naive.block(15 if self.base is None else 16, self.content(), count)

    def changed(self, **changes) -> Levels:
        """Another block."""
        return replace(self, **changes)


def base_palette(
    differences: Sequence[int], exceptions: dict[int, int], width: int, **options
) -> bytes:
    """3.12; `differences`: units, one for each unit of the block."""
    return naive.decimal_exceptions(exceptions, width) + naive.palette(
        differences, width, **options
    )


def palette_units(
    dtype: str, base: Sequence[int], differences: Sequence[int], exceptions: dict[int, int]
) -> list[int]:
    """What such a block decodes to."""
    E, M = naive.FLOATS[dtype]
    return [
        exceptions[i]
        if i in exceptions
        else b
        if d == 0
        else unit_of(exact_value(d, E, M), dtype, b)
        for i, (b, d) in enumerate(zip(base, differences, strict=True))
    ]
