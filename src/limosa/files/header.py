"""The header of a safetensors file: parsed with suspicion, and written as everybody does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from limosa.errors import CorruptError, FormatError, LimitError, TruncatedError
from limosa.limits import Limits
from limosa.tensors import TensorSpec, check_specs

# The header follows its own length, an unsigned 64-bit integer.
LENGTH_BYTES = 8
METADATA = "__metadata__"


@dataclass(frozen=True)
class Header:
    """A parsed header: *specs* in the order of the data, *offsets* from the data's start."""

    text: bytes
    specs: tuple[TensorSpec, ...]
    offsets: tuple[int, ...]
    data_bytes: int
    metadata: Mapping[str, str] | None


def header_length(prefix: bytes, limits: Limits) -> int:
    """The length of the header from the first eight bytes of the file.

    Raises:
        TruncatedError: there are fewer than eight bytes.
        LimitError: the length exceeds ``limits.max_header_bytes``.
    """
    if len(prefix) < LENGTH_BYTES:
        raise TruncatedError(
            "too short for a safetensors file",
            found=f"{len(prefix)} bytes",
            allowed="at least 8 bytes and a header",
            remedy="fetch the file again",
        )
    length = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    if length > limits.max_header_bytes:
        raise LimitError(
            "the header is too long for a safetensors file",
            where="byte 0",
            found=f"{length} bytes",
            allowed=f"max_header_bytes {limits.max_header_bytes}",
            remedy="check that it is a safetensors file, or pass a larger Limits",
        )
    return length


def parse_header(text: bytes, limits: Limits) -> Header:
    """Parse and check the JSON *text* of a header.

    Raises:
        CorruptError: it is not JSON, repeats a key, or its offsets overlap or leave holes.
        LimitError: it describes more than *limits* allow.
    """
    entries = _parse_json(text)
    metadata = entries.pop(METADATA, None)
    if metadata is not None and not _is_string_map(metadata):
        raise _corrupt("the metadata are not a map of strings", found=_show(metadata))
    if len(entries) > limits.max_tensors:
        raise LimitError(
            "too many tensors",
            where="header",
            found=str(len(entries)),
            allowed=f"max_tensors {limits.max_tensors}",
            remedy="pass a larger Limits to read it",
        )
    rows = [(*_parse_entry(name, entry), name) for name, entry in entries.items()]
    # Empty tensors share their offset with a neighbour: the sort is stable, in header order.
    rows.sort(key=lambda row: row[:2])
    specs = tuple(TensorSpec(name, dtype, shape) for _, _, dtype, shape, name in rows)
    check_specs(specs, limits)
    position = 0
    for (begin, end, *_), spec in zip(rows, specs, strict=True):
        _check_offsets(begin, end, position, spec)
        position = end
    return Header(text, specs, tuple(row[0] for row in rows), position, metadata)


def render_header(specs: Sequence[TensorSpec], metadata: Mapping[str, str] | None) -> bytes:
    """The header that the safetensors library writes for *specs* in data order.

    Compact JSON, the metadata first, spaces up to a multiple of 8.
    """
    entries: dict[str, Any] = {} if metadata is None else {METADATA: dict(metadata)}
    position = 0
    for spec in specs:
        end = position + spec.nbytes
        entries[spec.name] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    return text + b" " * (-len(text) % 8)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys differ: which of two equal keys counts is up to the parser.

    For ``json.loads(object_pairs_hook=…)``.

    Raises:
        CorruptError: a key comes twice.
    """
    out = dict(pairs)
    if len(out) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _corrupt("a JSON key comes twice", found=_show(twice))
    return out


def _parse_json(text: bytes) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise _corrupt("not a safetensors header", found=_show(text[:16]), allowed="'{' first")
    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=unique_keys)
    except FormatError:
        raise
    # RecursionError: nesting without end; ValueError: not JSON, not UTF-8, endless digits.
    except (ValueError, RecursionError) as error:
        raise _corrupt("the header is not JSON", found=str(error)[:120]) from None
    if not isinstance(entries, dict):
        raise _corrupt("the header is not a JSON object", found=type(entries).__name__)
    return entries


def _parse_entry(name: str, entry: Any) -> tuple[int, int, str, tuple[int, ...]]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _corrupt(
            "bad entry", name, found=_show(entry), allowed="dtype, shape and data_offsets"
        )
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str):
        raise _corrupt("bad dtype", name, found=_show(dtype), allowed="a string")
    if not isinstance(shape, list):
        raise _corrupt("bad shape", name, found=_show(shape), allowed="a list of integers")
    if not (isinstance(offsets, list) and len(offsets) == 2 and all(map(_is_count, offsets))):
        raise _corrupt("bad data_offsets", name, found=_show(offsets), allowed="[begin, end]")
    return offsets[0], offsets[1], dtype, tuple(shape)


def _check_offsets(begin: int, end: int, position: int, spec: TensorSpec) -> None:
    """Data lie end to end: a hole would be lost, an overlap would be read twice."""
    expected = (position, position + spec.nbytes)
    if (begin, end) != expected:
        raise _corrupt(
            "data_offsets overlap, leave a hole or contradict the shape",
            spec.name,
            found=f"[{begin}, {end}]",
            allowed=f"[{expected[0]}, {expected[1]}]",
        )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_string_map(value: Any) -> bool:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        return False
    try:
        "".join([*value, *value.values()]).encode()
    except UnicodeEncodeError:  # an unpaired surrogate, which no file could hold
        return False
    return True


def _show(value: Any) -> str:
    return repr(value)[:120]


def _corrupt(
    problem: str, name: str | None = None, *, found: str, allowed: str | None = None
) -> CorruptError:
    where = "header" if name is None else f"tensor {name[:80]!r}"
    remedy = "fetch the file again, or save it again with safetensors"
    return CorruptError(problem, where=where, found=found, allowed=allowed, remedy=remedy)
