"""The golden refinements (docs/format.md 8): one for each method, and those that must fail."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import ml_dtypes
import numpy as np
from blake3 import blake3

import limosa
from limosa import _core
from limosa.codec.cursor import put_varint
from limosa.codec.opening import open_base
from limosa.codec.refinement.philox import mask
from limosa.codec.refinement.read import read_refinement
from limosa.codec.refinement.records import (
    Change,
    Copy,
    Difference,
    Exact,
    Factors,
    Integers,
    Levels,
    Masked,
    Record,
    Rows,
)
from limosa.codec.refinement.write import write_refinement

SEED = 2**40 + 9


def base() -> dict[str, np.ndarray]:
    """Made of integers, so that it is the same everywhere."""

    def grid(*shape: int, start: int = 0) -> np.ndarray:
        k = np.arange(start, start + int(np.prod(shape)), dtype=np.int64)
        return ((k * 7919 + k * k * 104729) % 2003 - 1001).reshape(shape) / 512

    return {
        "conv": grid(6, 3, 2).astype("f4"),
        "fc": grid(4, 9, start=50).astype("f8"),
        "half": grid(6, 5, start=100).astype("f2"),
        "brain": grid(5, 6, start=150).astype(ml_dtypes.bfloat16),
        "tied": grid(5, 6, start=150).astype(ml_dtypes.bfloat16),
        "mean": grid(5, start=200).astype("f4"),
        "var": np.abs(grid(5, start=250)).astype("f4"),
        "count": np.array(17),
        "flags": np.array([True, False, True]),
    }


NAMES = sorted(base(), key=str.encode)
RECORDS: dict[str, dict[str, Record]] = {
    "nothing": {},
    "difference": {name: Difference() for name in ("conv", "fc", "half", "brain", "mean")},
    "scaled": {"mean": Difference(2 + NAMES.index("var")), "var": Difference(1)},
    "masked": {"conv": Masked(2**30, 0), "mean": Masked(2**32, 0)},
    "rows": {"half": Rows((1, 4)), "conv": Rows((0, 2, 3), zero=True), "mean": Rows((2,))},
    "integers": {"count": Integers((-(2**63),))},
    "exact": {"flags": Exact(b"\0\1\1")},
    "tied": {"brain": Difference(), "tied": Copy(NAMES.index("brain"))},
    "augmented": {n: Factors(1, True, 2, True) for n in ("conv", "fc", "half", "brain")},
    "spectrum": {"fc": Factors(1, True), "half": Factors(1, True)},
    "seeded": {"conv": Factors(1, False, 3), "fc": Factors(1, False, 1)},
    "core": {"conv": Factors(1, False, 0, False, 4), "brain": Factors(1, True, 0, False, 2)},
    "mapping": {"fc": Factors(1, rank=2, mapping=True), "half": Factors(1, rank=5, mapping=True)},
    "approximation": {"conv": Factors(1, False, 0, True, 3, True)},
    "stacked": {"conv": Factors(3, True, 1, True, 2), "half": Factors(2, False, 0, False, 3)},
}  # fmt: skip


def changes(records: dict[str, Record]) -> list[Change]:
    """The records with levels that are made of integers, too."""
    specs = open_base(base()).specs
    found = []
    for name, record in records.items():
        number = NAMES.index(name)
        if isinstance(record, Masked):
            chosen = mask(SEED, (number, 0), specs[name].elements, record.threshold)
            record = Masked(record.threshold, int(chosen.sum()))
        arrays = []
        for n, need in enumerate(record.needs(specs[name])):
            levels = (np.arange(need.size) * 37 + n) % 11 - 5
            arrays.append(Levels(levels.astype(np.int32), 2.0**-5 if levels.any() else 0.0))
        found.append(Change(number, record, tuple(arrays)))
    return found


def refinement_cases() -> Iterator[tuple[str, dict[str, bytes], dict]]:
    """Name, files, expected.json."""
    held = open_base(base())
    for name, records in RECORDS.items():
        data = write_refinement(held, changes(records), seed=SEED, threads=1).data
        rows = [
            {
                "name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape),
                "blake3": blake3(new.tobytes()).hexdigest(),
            }
            for spec, new in read_refinement(io.BytesIO(data), base=held)
        ]  # fmt: skip
        files = {"file.limosa": data, "base.limosa": limosa.save(base())}
        yield f"refinement-{name}", files, {"tensors": rows}


def refinement_error_cases() -> Iterator[tuple[str, dict[str, bytes], dict]]:
    """Name, files, expected.json with the error and why."""
    whole = limosa.save(base())
    for name, error, why, data in _errors():
        files = (
            {"file.limosa": data}
            if name == "no-base"
            else {"file.limosa": data, "base.limosa": whole}
        )
        yield f"refinement-{name}", files, {"error": error, "why": why}


def _errors() -> Iterator[tuple[str, str, str, bytes]]:
    held = open_base(base())
    good = write_refinement(held, changes(RECORDS["augmented"]), seed=SEED, threads=1).data
    conv, fc, count = (NAMES.index(name) for name in ("conv", "fc", "count"))
    tied, brain = NAMES.index("tied"), NAMES.index("brain")

    def made(*records: bytes, tail: bytes = b"", count: int | None = None) -> bytes:
        body = bytearray(held.digest + bytes(32))
        put_varint(body, 0)
        put_varint(body, len(records) if count is None else count)
        return sealed(bytes(body) + b"".join(records) + tail)

    def factors(flags: int, parts: int, n: int, r: int) -> bytes:
        return bytes([conv, 5, flags, parts, n, r]) + bytes(20)

    yield "version", "unsupported", "version 1", good[:8] + b"\1" + good[9:]
    yield "cut", "truncated", "the section is cut", good[:-1]
    yield "more", "corrupt", "a byte follows", good + b"\0"
    yield "flipped", "checksum", "a byte of the section", good[:-1] + bytes([good[-1] ^ 1])
    yield "no-base", "base-mismatch", "no base is given", good
    yield "other-base", "base-mismatch", "a digest of another base", sealed(bytes(66))
    yield "digest", "checksum", "the new state is not what is promised", made()
    yield "number", "corrupt", "a tensor that the base lacks", made(bytes([9, 1, 0, 0, 0]))
    yield "method", "corrupt", "method 7", made(bytes([0, 7]) + bytes(9))
    yield "many", "truncated", "more records than bytes", made(count=90)
    yield "step", "corrupt", "a step that is infinite", made(bytes([conv, 1, 0, 0, 0xFF]))
    yield "of-integers", "corrupt", "a difference of integers", made(bytes([count, 1, 0, 0, 0]))
    yield "rank", "corrupt", "a rank above full", made(factors(0, 1, 7, 0))
    yield "parts", "corrupt", "parts that do not divide the rows", made(factors(0, 4, 1, 0))
    yield "no-parts", "corrupt", "no parts", made(factors(0, 0, 1, 0))
    yield "flags", "corrupt", "a flag that is not known", made(factors(8, 1, 1, 0))
    yield "mapping", "corrupt", "a mapping beside a spectrum", made(factors(5, 1, 0, 1))
    yield "row", "corrupt", "a row that is not there", made(bytes([conv, 3, 0, 1, 6, 0, 0]))
    yield "mask", "corrupt", "a mask of other numbers", made(bytes([conv, 2, 0, 3, 0, 0]))
    yield "tie-of-tie", "corrupt", "a tie to itself", made(bytes([tied, 0, tied]))
    yield "tie-of-other", "corrupt", "a tie to another shape", made(bytes([tied, 0, conv]))
    yield "scale", "corrupt", "a scale of another shape", made(bytes([conv, 1, 2 + fc, 0, 0]))
    yield "levels", "truncated", "no levels", made(bytes([brain, 1, 0, 0, 0x70]))
    yield "levels-left", "corrupt", "levels that nothing needs", made(tail=b"\2\0\0")
    yield "levels-short", "corrupt", "levels that run out", made(
        bytes([brain, 1, 0, 0, 0x70]), tail=b"\2\0\0"
    )  # fmt: skip


def sealed(content: bytes) -> bytes:
    """A refinement of that content, not deflated."""
    body = bytearray(b"\0")
    put_varint(body, len(content))
    body += content
    head = struct.pack("<II", len(body), _core.crc32c(bytes(body)))
    return b"\x89LMSR\r\n\x1a\0" + head + bytes(body)
