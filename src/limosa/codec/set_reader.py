"""Models out of a set (docs/format.md 6)."""

from __future__ import annotations

from limosa.codec.base import Base
from limosa.codec.constants import FOOTER_BYTES, SET_END_MAGIC
from limosa.codec.decoder import Reader
from limosa.codec.index import read_footer
from limosa.codec.inputs import Far, Input, Memory, RandomAccess, open_input, sequential
from limosa.codec.set_table import read_set_header, read_set_index
from limosa.errors import ConfigError, CorruptError
from limosa.limits import Limits


class SetReader:
    """Opens the models of a set, one or all; bases inside the set are decoded as needed.

    Args:
        source: a path, bytes, or an object with ``size`` and ``read_at(offset, n)``.
        limits: what the set, and each model, may ask for.
        threads: how many to use; None for all processors.

    Raises:
        FormatError: the set is damaged or hostile.
        ConfigError: *source* is a pipe.
    """

    def __init__(
        self,
        source: Input | RandomAccess,
        *,
        limits: Limits | None = None,
        threads: int | None = None,
    ) -> None:
        opened = source if isinstance(source, Memory | Far) else open_input(source)
        if not isinstance(opened, Memory | Far):
            raise ConfigError("a set is not read from a pipe", remedy="write it to a file first")
        self._source = opened
        self._limits = limits or Limits()
        self._threads = threads
        self._members, start = read_set_header(
            sequential(opened, 0, opened.size, "set table"), self._limits
        )
        self._numbers = {member.name: number for number, member in enumerate(self._members)}
        self._spans = self._read_spans(start)

    @property
    def names(self) -> tuple[str, ...]:
        """The models, bases first."""
        return tuple(self._numbers)

    def base_of(self, name: str) -> str | None:
        """The model of the set that *name* is coded against, or None."""
        base = self._members[self._number(name)].base
        return None if base is None else self._members[base].name

    def open(self, name: str, *, base: Base | None = None, verify: bool = False) -> Reader:
        """A reader of one model.

        Args:
            name: the model.
            base: its base, where the caller has it already; otherwise it is decoded again from
                the set, tensor by tensor.
            verify: as for :class:`Reader`.

        Raises:
            ConfigError: there is no such model.
            FormatError: the model, or one that it is based on, is damaged.
        """
        member = self._members[self._number(name)]
        if base is None and member.base is not None:
            base = self.open(self._members[member.base].name).as_base()
        return Reader(
            self._source,
            base=base,
            limits=self._limits,
            threads=self._threads,
            verify=verify,
            span=self._spans[self._number(name)],
        )

    def span(self, name: str) -> tuple[int, int]:
        """Where in the file the stream of a model begins and ends."""
        return self._spans[self._number(name)]

    def _number(self, name: str) -> int:
        try:
            return self._numbers[name]
        except KeyError:
            raise ConfigError(
                "no such model", found=repr(name), allowed=", ".join(self._numbers)
            ) from None

    def _read_spans(self, start: int) -> list[tuple[int, int]]:
        end = self._source.size
        footer = self._source.read_at(max(end - FOOTER_BYTES, start), FOOTER_BYTES)
        offset, size = read_footer(footer, SET_END_MAGIC)
        if offset < start or offset + size + FOOTER_BYTES != end:
            raise CorruptError(
                "the footer does not point at the set index",
                where="last 24 bytes",
                found=f"byte {offset}, {size} bytes",
            )
        read = sequential(self._source, offset, end - FOOTER_BYTES, "set index")
        sizes, used = read_set_index(read, len(self._members), self._limits)
        if used != size or sum(sizes) != offset - start:
            raise CorruptError(
                "the set index does not fit the file",
                where="set index",
                found=f"models of {sum(sizes)} bytes",
                allowed=str(offset - start),
            )
        spans = []
        for length in sizes:
            spans.append((start, start + length))
            start += length
        return spans
