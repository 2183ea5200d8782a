"""numpy archives (.npz): restored array for array, under the same names and dtypes.

The skeleton is a packed JSON object: ``deflate``, whether the archive was compressed, and
``members`` in order, each ``[name, header, order]``: the name in the archive, the .npy header in
hexadecimal, and ``"C"`` (the tensor is the array), ``"F"`` (the tensor is the array in C order,
the archive has Fortran's) or ``"B"`` (a U8 tensor of the bytes as they lie: strings, structured
types, big-endian numbers). A member that is no array has an empty header and ``"B"``.
"""

from __future__ import annotations

import ast
import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from limosa.errors import CorruptError, FormatError, LimitError, TruncatedError
from limosa.files.bundle import Bundle, Namer, Source
from limosa.files.header import unique_keys
from limosa.files.mapped import read_exactly
from limosa.files.pack import pack, unpack
from limosa.limits import Limits
from limosa.tensors import Bytes, Tensor, TensorSpec, check_name, numpy_dtype

_MAGIC = b"\x93NUMPY"
# numpy itself refuses to parse longer ones from files that it does not trust.
_MAX_NPY_HEADER = 10_000
# The dates of a zip archive start here; a clock would make the output differ from run to run.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_SUPPORTED = {numpy_dtype(n).str: n for n in (
    "F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "C64",
)}  # fmt: skip


@dataclass(frozen=True)
class _Member:
    name: str
    header: bytes
    order: str
    spec: TensorSpec


def read_file(path: str | os.PathLike[str], limits: Limits) -> Bundle:
    """The bundle of an .npz archive; members are decompressed when they are asked for.

    Raises:
        FormatError: the archive or a member is malformed, or holds objects (a pickle).
        LimitError: it holds more than *limits* allow, compressed or not.
    """
    where = os.fspath(path)
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise _corrupt("not an .npz archive", where, str(error)) from None
    try:
        infos = archive.infolist()
        _check_archive(infos, where, limits)
        name = Namer()
        members = [_describe(archive, info, where, name, limits) for info in infos]
        deflate = any(info.compress_type != zipfile.ZIP_STORED for info in infos)
        rows = [[member.name, member.header.hex(), member.order] for member in members]
        text = json.dumps({"deflate": deflate, "members": rows}, separators=(",", ":"))
        specs = [member.spec for member in members]
        source = Source("", "npz", pack(text.encode()), tuple(spec.name for spec in specs))

        def load(i: int) -> Bytes:
            return _load(archive, infos[i], members[i], where)

        return Bundle([source], specs, load, limits=limits, close=archive.close)
    except BaseException:
        archive.close()
        raise


def _check_archive(infos: Sequence[zipfile.ZipInfo], where: str, limits: Limits) -> None:
    """Refuse too many members, escaping names, encryption and bombs before reading any."""
    if len(infos) > limits.max_tensors:
        raise _beyond("too many members", where, len(infos), "max_tensors", limits.max_tensors)
    _check_names([info.filename for info in infos], limits)
    total = 0
    for info in infos:
        if info.flag_bits & 1:
            raise _corrupt("the member is encrypted", f"{where}:{info.filename}", "flag 1")
        total += info.file_size
    if total > limits.max_total_bytes:
        allowed = limits.max_total_bytes
        raise _beyond("too many bytes in all", where, total, "max_total_bytes", allowed)


def _check_names(names: Sequence[str], limits: Limits) -> None:
    """Names are keys, ``dense/kernel:0`` among them; but somebody may unzip the archive."""
    seen: set[str] = set()
    for name in names:
        check_name(name, limits)
        if name.startswith(("/", "\\")):
            raise _corrupt("the member's name is an absolute path", repr(name[:80]), "a leading /")
        if name in seen:
            raise _corrupt("the member's name comes twice", repr(name[:80]), "another one")
        seen.add(name)


def _describe(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str, name: Namer, limits: Limits
) -> _Member:
    place = f"{where}:{info.filename}"
    key = name(info.filename.removesuffix(".npy"))
    if not info.filename.endswith(".npy"):
        return _Member(info.filename, b"", "B", TensorSpec(key, "U8", (info.file_size,)))
    with _open(archive, info, place) as file:
        header, dtype, fortran, shape = _read_header(file, place)
    nbytes = info.file_size - len(header)
    count = dtype.itemsize
    for dim in shape:
        count *= dim
    if count != nbytes:
        raise _corrupt("the array has another size than its member", place, f"{nbytes} bytes")
    known = _SUPPORTED.get(dtype.str)
    if known is None:
        return _Member(info.filename, header, "B", TensorSpec(key, "U8", (nbytes,)))
    return _Member(info.filename, header, "F" if fortran else "C", TensorSpec(key, known, shape))


def _open(archive: zipfile.ZipFile, info: zipfile.ZipInfo, place: str) -> BinaryIO:
    try:
        return archive.open(info)  # type: ignore[return-value]
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        raise _corrupt("the member cannot be read", place, str(error)) from None


def _read_header(file: BinaryIO, place: str) -> tuple[bytes, np.dtype[Any], bool, tuple[int, ...]]:
    """The verbatim header of a .npy member, and what it says."""
    start = _take(file, 8, place)
    if start[:6] != _MAGIC or start[6] not in (1, 2, 3):
        raise _corrupt("not an .npy member", place, repr(start))
    length = _take(file, 2 if start[6] == 1 else 4, place)
    size = int.from_bytes(length, "little")
    if size > _MAX_NPY_HEADER:
        raise _beyond("the .npy header is too long", place, size, "numpy's", _MAX_NPY_HEADER)
    text = _take(file, size, place)
    header = start + length + text
    return header, *_parse_header(text, "latin-1" if start[6] < 3 else "utf-8", place)


def _parse_header(
    text: bytes, encoding: str, place: str
) -> tuple[np.dtype[Any], bool, tuple[int, ...]]:
    try:
        value = ast.literal_eval(text.decode(encoding))
        if not isinstance(value, dict) or set(value) != {"descr", "fortran_order", "shape"}:
            raise ValueError("keys other than descr, fortran_order, shape")
        dtype = np.lib.format.descr_to_dtype(value["descr"])
    # A hostile literal can fail in all of these ways; none of them runs code.
    except (ValueError, TypeError, SyntaxError, KeyError, IndexError, MemoryError,
            RecursionError, OverflowError, AttributeError) as error:  # fmt: skip
        raise _corrupt("bad .npy header", place, str(error)[:120]) from None
    shape, fortran = value["shape"], value["fortran_order"]
    if dtype.hasobject:
        raise FormatError(
            "an array of Python objects is a pickle, which may run code",
            where=place,
            found=str(dtype)[:80],
            allowed="numbers, strings and structures of them",
            remedy="save it without objects",
        )
    if not isinstance(fortran, bool) or not (
        isinstance(shape, tuple)
        and all(isinstance(d, int) and not isinstance(d, bool) and 0 <= d < 2**63 for d in shape)
    ):
        raise _corrupt("bad .npy header", place, repr(shape)[:120])
    return dtype, fortran, shape


def _take(file: BinaryIO, size: int, place: str) -> bytes:
    try:
        return read_exactly(file, size, place).tobytes()
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
        raise _corrupt("the member cannot be decompressed", place, str(error)) from None


def _load(archive: zipfile.ZipFile, info: zipfile.ZipInfo, member: _Member, where: str) -> Bytes:
    place = f"{where}:{info.filename}"
    spec = member.spec
    with _open(archive, info, place) as file:
        _take(file, len(member.header), place)
        try:
            data = read_exactly(file, spec.nbytes, place)
            file.read(1)  # makes zipfile compare the checksum
        except TruncatedError:
            raise
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
            raise _corrupt("the member cannot be decompressed", place, str(error)) from None
    if member.order != "F":
        return data
    array = data.view(numpy_dtype(spec.dtype)).reshape(spec.shape, order="F")
    return Tensor.from_numpy(array).data


class NpzWriter:
    """Writes the archive member by member."""

    def __init__(
        self, file: BinaryIO, source: Source, specs: Sequence[TensorSpec], limits: Limits
    ) -> None:
        text = unpack(source.skeleton, limits.max_header_bytes)
        self._deflate, self._members = _parse_skeleton(text, specs, limits)
        self._archive = zipfile.ZipFile(file, "w", allowZip64=True)
        self._next = 0

    def write(self, spec: TensorSpec, data: Bytes) -> None:
        """Add the next member."""
        member = self._members[self._next]
        self._next += 1
        if member.order == "F":
            array = data.view(numpy_dtype(spec.dtype)).reshape(spec.shape)
            data = np.ravel(array, order="F").view(np.uint8)
        info = zipfile.ZipInfo(member.name, _EPOCH)
        info.compress_type = zipfile.ZIP_DEFLATED if self._deflate else zipfile.ZIP_STORED
        with self._archive.open(info, "w", force_zip64=True) as file:
            file.write(member.header)
            file.write(data.data)

    def finish(self) -> None:
        """Write the archive's directory."""
        self._archive.close()


def _parse_skeleton(
    text: bytes, specs: Sequence[TensorSpec], limits: Limits
) -> tuple[bool, list[_Member]]:
    """The members, checked against the tensors so that only sound archives are written."""
    try:
        value = json.loads(text, object_pairs_hook=unique_keys)
        deflate, rows = value["deflate"], value["members"]
        triples = [(str(name), bytes.fromhex(header), order) for name, header, order in rows]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _corrupt("bad skeleton", "skeleton", str(error)[:120]) from None
    if len(triples) != len(specs):
        raise _corrupt("bad skeleton", "skeleton", f"{len(triples)} members")
    _check_names([name for name, _, _ in triples], limits)
    members = [_Member(*triple, spec) for triple, spec in zip(triples, specs, strict=True)]
    for member in members:
        if not _is_sound(member):
            raise _corrupt("a member contradicts its tensor", f"skeleton:{member.name}", "other")
    return bool(deflate), members


def _is_sound(member: _Member) -> bool:
    spec = member.spec
    if member.order not in ("C", "F", "B"):
        return False
    if not member.header:
        return member.order == "B"
    version = member.header[6] if len(member.header) > 10 else 0
    at = 10 if version == 1 else 12
    encoding = "latin-1" if version < 3 else "utf-8"
    dtype, fortran, shape = _parse_header(member.header[at:], encoding, f"skeleton:{member.name}")
    if member.order == "B":
        return spec.dtype == "U8" and spec.nbytes == dtype.itemsize * int(
            np.prod(shape, dtype=object)
        )
    known = _SUPPORTED.get(dtype.str)
    return (known, shape, fortran) == (spec.dtype, spec.shape, member.order == "F")


def _corrupt(problem: str, where: str, found: str) -> CorruptError:
    return CorruptError(
        problem, where=where, found=found, remedy="fetch the file again, or save it with numpy"
    )


def _beyond(problem: str, where: str, found: int, limit: str, allowed: int) -> LimitError:
    return LimitError(
        problem,
        where=where,
        found=str(found),
        allowed=f"{limit} {allowed}",
        remedy="pass a larger Limits to read it",
    )
