"""A file that is open for reading single tensors and parts of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import EllipsisType, TracebackType
from typing import Any, Generic, TypeVar

from limosa.codec.decoder import Reader
from limosa.errors import ConfigError
from limosa.files import metadata_of
from limosa.limits import Limits
from limosa.tensors import Tensor, TensorSpec, dtype_of

ArrayT = TypeVar("ArrayT")
_One = int | slice | EllipsisType | None


class TensorFile(Generic[ArrayT]):
    """Tensors by name, decoded when asked for; made by ``open_file``.

    Not for several threads at once; open the file once for each.
    """

    def __init__(
        self, reader: Reader, convert: Callable[[Tensor], ArrayT], limits: Limits | None = None
    ) -> None:
        self._reader = reader
        self._convert = convert
        self._limits = limits or Limits()
        self._specs = {spec.name: spec for spec in reader.specs}

    def keys(self) -> list[str]:
        """The names, in the order of the file."""
        return list(self._specs)

    def metadata(self) -> dict[str, str] | None:
        """The metadata of the safetensors file that was coded, or None."""
        for source in self._reader.sources:
            if source.kind == "safetensors":
                return metadata_of(source, self._limits)
        return None

    def get_tensor(self, name: str) -> ArrayT:
        """One tensor.

        Raises:
            ConfigError: there is none of that name.
            FormatError: its chunks are damaged.
        """
        return self._convert(self._reader.get(name))

    def get_slice(self, name: str) -> TensorSlice[ArrayT]:
        """One tensor that is decoded when indexed, and then only the rows that are asked for.

        Raises:
            ConfigError: there is none of that name.
        """
        if name not in self._specs:
            raise ConfigError("no such tensor", where=f"tensor {name!r}")
        return TensorSlice(self._reader, self._specs[name], self._convert)

    def close(self) -> None:
        """Let go of the file. Arrays that were handed out stay valid."""
        self._reader.close()

    def __len__(self) -> int:
        return len(self._specs)

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __contains__(self, name: object) -> bool:
        return name in self._specs

    def __enter__(self) -> TensorFile[ArrayT]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class TensorSlice(Generic[ArrayT]):
    """A tensor that is not decoded yet."""

    def __init__(
        self, reader: Reader, spec: TensorSpec, convert: Callable[[Tensor], ArrayT]
    ) -> None:
        self._reader = reader
        self._spec = spec
        self._convert = convert

    def get_shape(self) -> list[int]:
        """The dimensions."""
        return list(self._spec.shape)

    def get_dtype(self) -> str:
        """The dtype's safetensors name, such as ``"BF16"``."""
        return self._spec.dtype

    def __getitem__(self, index: _One | tuple[_One, ...]) -> ArrayT:
        """What indexing the whole tensor would give; only the chunks needed are decoded."""
        indices = index if isinstance(index, tuple) else (index,)
        rows = self._rows(indices[0]) if indices and self._spec.shape else None
        if rows is None:
            whole: Any = self._convert(self._reader.get(self._spec.name))
            found: ArrayT = whole[index]
            return found
        start, stop, rest = rows
        part: Any = self._convert(self._reader.get_slice(self._spec.name, start, stop))
        taken: ArrayT = part[(rest, *indices[1:])]
        return taken

    def _rows(self, first: _One) -> tuple[int, int, int | slice] | None:
        """The rows to decode and what remains to be indexed; None for the whole tensor."""
        count = self._spec.shape[0]
        rest: int | slice
        if isinstance(first, int) and -count <= first < count:
            start, stop, rest = first % count, first % count + 1, 0
        elif isinstance(first, slice):
            wanted = range(*first.indices(count))
            start = min(wanted[0], wanted[-1]) if wanted else 0
            stop = max(wanted[0], wanted[-1]) + 1 if wanted else 0
            rest = slice(None, None, first.step)
        else:
            return None
        row_bits = dtype_of(self._spec.dtype).bits * self._spec.elements // max(count, 1)
        if start * row_bits % 8 or stop * row_bits % 8:
            return None
        return start, stop, rest
