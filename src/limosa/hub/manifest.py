"""A manifest: what a version consists of, without its bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from limosa.errors import CorruptError, LimitError
from limosa.hub.digest import check_hex, version_digest
from limosa.limits import Limits

#: Of the manifest's own form.
VERSION = 1
_LONGEST_DTYPE = 16


@dataclass(frozen=True)
class TensorEntry:
    """A tensor.

    Attributes:
        name, dtype, shape: as in the model's file; dtype in safetensors' words, such as ``BF16``.
        digest: the first 16 hexadecimal digits of the tensor's digest.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    digest: str

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)


@dataclass(frozen=True)
class FileEntry:
    """A file that the tensors come from: its path ("" for a single file) and kind."""

    path: str
    kind: str


@dataclass(frozen=True)
class Manifest:
    """What a version consists of.

    Attributes:
        state: digest of the tensors, which an update starts from.
        form: digest of the files around them.
        nbytes: of the decoded tensors.
        tensors, files: in order.

    >>> one = Manifest("00" * 32, "11" * 32, 8, (TensorEntry("w", "F32", (2,), "ab" * 8),), ())
    >>> Manifest.from_json(one.to_json()) == one
    True
    """

    state: str
    form: str
    nbytes: int
    tensors: tuple[TensorEntry, ...]
    files: tuple[FileEntry, ...]

    @property
    def digest(self) -> str:
        """The digest of the version."""
        return version_digest(self.state, self.form)

    def to_json(self) -> dict[str, Any]:
        """As an object that JSON can hold."""
        return {
            "version": VERSION,
            "state": self.state,
            "form": self.form,
            "nbytes": self.nbytes,
            "tensors": [
                {"name": t.name, "dtype": t.dtype, "shape": list(t.shape), "digest": t.digest}
                for t in self.tensors
            ],
            "files": [{"path": file.path, "kind": file.kind} for file in self.files],
        }

    @classmethod
    def from_json(cls, found: Any, limits: Limits | None = None) -> Manifest:
        """The reverse, of an object that nobody vouches for.

        Raises:
            CorruptError: it is no manifest.
            LimitError: it names more tensors or files than *limits* allow.
        """
        bounds = limits or Limits()
        record = _record(found, "manifest")
        if record.get("version") != VERSION:
            raise CorruptError(
                "a manifest of another version", where="manifest",
                found=repr(record.get("version"))[:40], allowed=str(VERSION),
            )  # fmt: skip
        return cls(
            check_hex(record.get("state"), "manifest: state"),
            check_hex(record.get("form"), "manifest: form"),
            _count(record.get("nbytes"), "manifest: nbytes"),
            tuple(_tensor(one) for one in _list(record, "tensors", bounds.max_tensors)),
            tuple(_file(one) for one in _list(record, "files", bounds.max_sources)),
        )


def _tensor(found: Any) -> TensorEntry:
    record = _record(found, "manifest: tensor")
    name = _text(record.get("name"), "manifest: name of a tensor", 4096)
    where = f"manifest: tensor {name!r}"
    shape = record.get("shape")
    if not isinstance(shape, list) or len(shape) > 64:
        raise CorruptError("no shape", where=where, found=repr(shape)[:80])
    return TensorEntry(
        name,
        _text(record.get("dtype"), where, _LONGEST_DTYPE),
        tuple(_count(length, where) for length in shape),
        _text(record.get("digest"), where, 16),
    )


def _file(found: Any) -> FileEntry:
    record = _record(found, "manifest: file")
    path = _text(record.get("path"), "manifest: path of a file", 4096)
    return FileEntry(path, _text(record.get("kind"), f"manifest: file {path!r}", 32))


def _record(found: Any, where: str) -> Mapping[str, Any]:
    if isinstance(found, Mapping):
        return found
    raise CorruptError("no object", where=where, found=type(found).__name__)


def _list(record: Mapping[str, Any], name: str, most: int) -> list[Any]:
    found = record.get(name)
    if not isinstance(found, list):
        raise CorruptError("no list", where=f"manifest: {name}", found=type(found).__name__)
    if len(found) > most:
        raise LimitError(
            "too many", where=f"manifest: {name}", found=str(len(found)), allowed=str(most)
        )
    return found


def _count(found: Any, where: str) -> int:
    if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 2**63:
        return found
    raise CorruptError("no count", where=where, found=repr(found)[:80])


def _text(found: Any, where: str, most: int) -> str:
    if isinstance(found, str) and len(found) <= most:
        return found
    raise CorruptError("no text", where=where, found=repr(found)[:80], allowed=f"{most} characters")
