"""A refinement read, and applied to its base: the receiver's side. Needs no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from limosa import _core
from limosa.codec.base import Base
from limosa.codec.config import thread_count
from limosa.codec.constants import DIGEST_BYTES, REFINEMENT_MAGIC, VERSION
from limosa.codec.cursor import Cursor, put_varint
from limosa.codec.digests import digest_of
from limosa.codec.inputs import Far, Input, Memory, RandomAccess, open_input, sequential
from limosa.codec.refinement.rebuild import Context, rebuild
from limosa.codec.refinement.records import (
    RECORDS,
    Change,
    Copy,
    Kind,
    Levels,
    Need,
    Record,
    numbers_of,
    step_of,
)
from limosa.codec.results import check_out
from limosa.codec.sections import exactly, read_section
from limosa.errors import (
    ChecksumError,
    ConfigError,
    CorruptError,
    LimitError,
    UnsupportedVersionError,
)
from limosa.files.bundle import Source
from limosa.limits import Limits
from limosa.tensors import Bytes, TensorSpec, state_digest

_LARGEST_STEP = 0xFF00
_HEAD = len(REFINEMENT_MAGIC) + 1


class Packed:
    """The bytes of a refinement with their two digests; the rest needs the base's specs.

    Raises:
        FormatError: this is no refinement, or it is damaged.
    """

    def __init__(self, source: Input | RandomAccess, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        opened = source if isinstance(source, Memory | Far) else open_input(source)
        read = (
            sequential(opened, 0, opened.size, "refinement")
            if isinstance(opened, Memory | Far)
            else lambda count: exactly(opened.read, count, "refinement")
        )
        head = read(_HEAD)
        if head[:-1] != REFINEMENT_MAGIC:
            raise CorruptError("not a refinement", where="byte 0", found=head[:-1].hex())
        if head[-1] != VERSION:
            raise UnsupportedVersionError(
                "an unknown version of refinements", where="byte 8", found=str(head[-1]),
                allowed=str(VERSION), remedy="upgrade limosa",
            )  # fmt: skip
        content, size = read_section(read, "refinement", self.limits)
        self.nbytes = _HEAD + size
        if opened.size > self.nbytes if isinstance(opened, Memory | Far) else opened.read(1):
            raise CorruptError("bytes follow the refinement", where=f"byte {self.nbytes}")
        cursor = Cursor(content, "refinement")
        self.base_digest = cursor.take(DIGEST_BYTES)
        self.digest = cursor.take(DIGEST_BYTES)
        self.seed = cursor.varint()
        self._cursor = cursor

    def changes(self, specs: tuple[TensorSpec, ...]) -> list[Change]:
        """What changes, for a base of these tensors; can be called once.

        Raises:
            FormatError: the bytes contradict the tensors or themselves.
        """
        cursor = self._cursor
        count = cursor.count("records", self.limits.max_tensors, "max_tensors", 2)
        heads: list[tuple[int, Record, list[Need], list[int]]] = []
        number = -1
        for _ in range(count):
            number += cursor.varint() + 1
            if number >= len(specs):
                raise CorruptError(
                    "no such tensor", where=cursor.place(), found=str(number),
                    allowed=f"below {len(specs)}",
                )  # fmt: skip
            heads.append((number, *self._head(cursor, specs[number])))
        _check_ties({number: record for number, record, _, _ in heads}, specs)
        return self._fill(cursor, heads)

    def _head(self, cursor: Cursor, spec: TensorSpec) -> tuple[Record, list[Need], list[int]]:
        method = cursor.u8()
        if method >= len(RECORDS):
            raise CorruptError(
                "unknown record", where=cursor.place(), found=str(method),
                allowed=f"below {len(RECORDS)}",
            )  # fmt: skip
        record = RECORDS[method].take(cursor, spec)
        needs = record.needs(spec)
        codes = [int.from_bytes(cursor.take(2), "little") for _ in needs]
        if any(code >= _LARGEST_STEP for code in codes):
            raise CorruptError("a step that is not finite", where=cursor.place())
        return record, needs, codes

    def _fill(
        self, cursor: Cursor, heads: list[tuple[int, Record, list[Need], list[int]]]
    ) -> list[Change]:
        wanted: Counter[Kind] = Counter()
        for _, _, needs, codes in heads:
            for need, code in zip(needs, codes, strict=True):
                wanted[need.kind] += need.size if code else 0
        total = sum(need.size for _, _, needs, _ in heads for need in needs)
        if total > self.limits.max_elements:
            raise LimitError(
                "too many levels", where="refinement", found=str(total),
                allowed=f"max_elements {self.limits.max_elements}",
                remedy="pass a larger Limits to decode it",
            )  # fmt: skip
        streams = {kind: _take_levels(cursor, wanted[kind]) for kind in Kind}
        cursor.finish()
        used: Counter[Kind] = Counter()
        changes = []
        for number, record, needs, codes in heads:
            arrays = []
            for need, code in zip(needs, codes, strict=True):
                begin = used[need.kind]
                levels = streams[need.kind][begin : begin + need.size]
                used[need.kind] += need.size if code else 0
                zeros = np.zeros(need.size, np.int32)
                arrays.append(Levels(levels if code else zeros, step_of(code)))
            changes.append(Change(number, record, tuple(arrays)))
        return changes


def _check_ties(records: dict[int, Record], specs: tuple[TensorSpec, ...]) -> None:
    for number, record in records.items():
        if not isinstance(record, Copy):
            continue
        spec, other = specs[number], record.other
        is_tied = other == number or isinstance(records.get(other), Copy)
        if (
            is_tied
            or other >= len(specs)
            or (spec.dtype, spec.shape) != (specs[other].dtype, specs[other].shape)
        ):
            raise CorruptError(
                "a tie to a tied tensor, or to one that differs",
                where=f"tensor {spec.name!r}",
                found=f"tensor number {other}",
            )


def _take_levels(cursor: Cursor, count: int) -> NDArray[np.int32]:
    if not count:
        return np.zeros(0, np.int32)
    where = cursor.place()
    size = cursor.varint()
    head = bytearray()
    put_varint(head, size)
    try:
        return _core.decode_levels(bytes(head) + cursor.take(size), count, 1)
    except ValueError as error:
        raise CorruptError("damaged levels", where=where, found=str(error)) from None


class Refinement:
    """A refinement on its base: gives the new tensors, as :class:`limosa.codec.decoder.Reader`.

    Args:
        packed: what came.
        base: what the receiver holds.
        threads: how many to use; the result does not depend on it.
        verify: compare the digest of what was rebuilt with what the sender promised.

    Raises:
        BaseMismatchError: *base* is not the one that the refinement was made from.
        FormatError: the bytes contradict themselves or the base.
    """

    def __init__(self, packed: Packed, base: Base, threads: int, verify: bool = True) -> None:
        base.check(packed.base_digest)
        self._base, self._packed = base, packed
        self._verify, self._threads = verify, threads
        ordered = ordered_specs(base)
        self.changes = packed.changes(ordered)
        self._records = {change.number: change for change in self.changes}
        self._numbers = numbers_of(base.specs)
        self._context = Context(ordered, self._old, packed.seed)

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """The tensors, in the order of the base."""
        return tuple(self._base.specs.values())

    @property
    def sources(self) -> tuple[Source, ...]:
        """The files that the base came from, which the new tensors go into."""
        return self._base.sources

    @property
    def base_digest(self) -> bytes:
        """The state digest of the base."""
        return self._packed.base_digest

    @property
    def digest(self) -> bytes:
        """The state digest of what is rebuilt."""
        return self._packed.digest

    def check_ready(self) -> None:
        """The base is here, and was checked."""

    def get(self, name: str) -> Bytes:
        """The new bytes of one tensor."""
        number = self._numbers[name]
        change = self._records.get(number)
        if change is None:
            return self._old(number)
        if isinstance(change.record, Copy):
            return self.get(self._context.specs[change.record.other].name)
        return rebuild(number, change.record, change.arrays, self._context)

    def read_all(self, outs: Mapping[str, Bytes] | None = None) -> dict[str, Bytes]:
        """All tensors, verified before any of *outs* changes, and then into *outs*.

        Raises:
            ConfigError: an array of *outs* is of no tensor, or does not fit.
        """
        results = {spec.name: data for spec, data in self}
        for name, out in (outs or {}).items():
            if name not in results:
                raise ConfigError("no such tensor", where=f"tensor {name!r}")
            target = check_out(self._base.specs[name], out)
            target[:] = results[name]
            results[name] = target
        return results

    def __iter__(self) -> Iterator[tuple[TensorSpec, Bytes]]:
        """The tensors in order.

        Raises:
            ChecksumError: the digest is not what the sender promised; raised after the last.
        """
        digests = {}
        for spec in self.specs:
            data = self.get(spec.name)
            if self._verify:
                digests[spec.name] = digest_of(spec, data, self._threads)
            yield spec, data
        if self._verify and state_digest(digests) != self.digest:
            raise ChecksumError(
                "the digest differs from what the sender promised",
                where="state", found=state_digest(digests).hex(), allowed=self.digest.hex(),
                remedy="fetch the update again; if it stays so, report it with both files",
            )  # fmt: skip

    def computed_digest(self) -> bytes:
        """The state digest of what these changes give."""
        return state_digest(
            {spec.name: digest_of(spec, self.get(spec.name), self._threads) for spec in self.specs}
        )

    def close(self) -> None:
        """Nothing is held open."""

    def __enter__(self) -> Refinement:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _old(self, number: int) -> Bytes:
        spec = self._context.specs[number]
        data = self._base.data(spec.name, spec)
        assert data is not None, spec
        return data


def read_refinement(
    source: Input,
    *,
    base: Base,
    limits: Limits | None = None,
    threads: int | None = None,
    verify: bool = True,
) -> Refinement:
    """Read a refinement and check it against its base; arguments as for :class:`Refinement`."""
    return Refinement(Packed(source, limits), base, thread_count(threads), verify)


def ordered_specs(base: Base) -> tuple[TensorSpec, ...]:
    """The tensors of a base by the UTF-8 bytes of their names: the order of their numbers."""
    return tuple(base.specs[name] for name in numbers_of(base.specs))
