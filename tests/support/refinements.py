"""Refinements made of any records, and what is needed to damage them."""

from __future__ import annotations

import struct

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

from limosa import _core
from limosa.codec.base import Base
from limosa.codec.opening import open_base
from limosa.codec.refinement.philox import mask
from limosa.codec.refinement.records import (
    Change,
    Copy,
    Difference,
    Exact,
    Factors,
    Integers,
    Levels,
    Masked,
    Rows,
)

SEED = 2**33 + 5
_HEAD = 9 + 8  # magic and version; length and checksum of the section


def arrays() -> dict[str, np.ndarray]:
    """A base with each dtype that can be refined, and values that are special."""
    rng = np.random.default_rng(4)
    found = {
        "a": rng.normal(size=(6, 4, 2)).astype("f4"),
        "b": rng.normal(size=(3, 9)).astype("f8"),
        "c": rng.normal(size=(8, 5)).astype("f2"),
        "d": rng.normal(size=(4, 6)).astype(ml_dtypes.bfloat16),
        "e": rng.normal(size=(4, 6)).astype(ml_dtypes.bfloat16),
        "mean": rng.normal(size=5).astype("f4"),
        "var": np.abs(rng.normal(size=5)).astype("f4"),
        "count": np.array(17),
        "flags": np.array([True, False, True]),
        "scalar": np.array(0.5, "f4"),
        "empty": np.zeros((0, 3), "f4"),
    }
    found["a"].flat[:5] = [0.0, -0.0, np.nan, np.inf, 1e-45]
    return found


def base_of(tensors: dict[str, np.ndarray] | None = None) -> Base:
    return open_base(tensors or arrays())


NAMES = sorted(arrays())
NUMBER = {name: number for number, name in enumerate(NAMES)}


def levels_of(size: int) -> st.SearchStrategy[Levels]:
    def made(seed: int, spread: int, step: float) -> Levels:
        rng = np.random.default_rng(seed)
        values = np.rint(rng.normal(size=size) * spread).astype(np.int32)
        return Levels(values, step if values.any() else 0.0)

    steps = st.sampled_from([0.5, 2.0**-7, 0.099976, 2.0**-130, 2.0**100])
    return st.builds(made, st.integers(0, 99), st.sampled_from([0, 1, 40, 10**5]), steps)


def records_of(name: str, array: np.ndarray) -> st.SearchStrategy:
    """Records that fit a tensor of the base."""
    number = NUMBER[name]
    exact = st.binary(min_size=array.nbytes, max_size=array.nbytes).map(Exact)
    if array.dtype.kind == "b":
        return exact
    if array.dtype.kind == "i":
        added = st.integers(-(2**63), 2**63 - 1)
        return st.tuples(*[added] * array.size).map(Integers) | exact
    scales = [0, 1] + ([2 + NUMBER["var"]] if array.shape == (5,) else [])
    choices = [st.sampled_from(scales).map(Difference)]
    thresholds = st.sampled_from([0, 2**30, 2**32])
    choices.append(
        thresholds.map(lambda t: Masked(t, int(mask(SEED, (number, 0), array.size, t).sum())))
    )
    if array.ndim:
        rows = st.sets(st.integers(0, array.shape[0] - 1)) if array.shape[0] else st.just(set())
        choices.append(st.builds(lambda r, z: Rows(tuple(sorted(r)), z), rows, st.booleans()))
    if array.ndim > 1 and array.size:
        choices.append(factors_of(array))
    return st.one_of(choices)


def factors_of(array: np.ndarray) -> st.SearchStrategy[Factors]:
    divisors = [p for p in range(1, array.shape[0] + 1) if array.shape[0] % p == 0]

    def made(parts: int, spectrum: bool, n: int, learned: bool, r: int, mapping: bool) -> Factors:
        rows, columns = array.shape[0] // parts, array.size // array.shape[0]
        n, r = min(n, rows, columns), min(r, rows, columns)
        if mapping:
            return Factors(parts, False, 0, learned, r, True)
        return Factors(parts, spectrum, n, learned, r, False)

    few, flag = st.integers(0, 3), st.booleans()
    return st.builds(made, st.sampled_from(divisors), flag, few, flag, few, flag)


@st.composite
def changes(draw: st.DrawFn) -> list[Change]:
    """Any changes of :func:`arrays`."""
    base = base_of()
    found = []
    for name in draw(st.sets(st.sampled_from(NAMES))):
        if name == "e":  # tied to d, as its dtype and shape allow
            found.append(Change(NUMBER["e"], Copy(NUMBER["d"])))
            continue
        record = draw(records_of(name, arrays()[name]))
        needs = record.needs(base.specs[name])
        found.append(Change(NUMBER[name], record, tuple(draw(levels_of(n.size)) for n in needs)))
    return found


def sealed(data: bytes, body: bytes) -> bytes:
    """A refinement with another body of its section, and the right checksum."""
    return data[:9] + struct.pack("<II", len(body), _core.crc32c(body)) + body


def body_of(data: bytes) -> bytes:
    return data[_HEAD:]
