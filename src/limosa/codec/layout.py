"""The layout (docs/format.md 2.1, 2.3): everything that is known before the first chunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from limosa.codec.config import Digits, Lossless
from limosa.codec.constants import (
    BASE_NAME,
    BASE_NONE,
    BASE_SAME_NAME,
    DIGEST_BYTES,
    DTYPE_CODES,
    DTYPE_NAMES,
    FLAG_BASE,
    FLAG_BASE_NAMES,
    FLAG_KEPT,
    MAGIC,
    MAX_DIGITS,
    MAX_QUALITY_TEXT,
    QUALITY_DIGITS,
    QUALITY_LOSSLESS,
    QUALITY_LOSSY,
    SOURCE_KINDS,
    VERSION,
)
from limosa.codec.cursor import Cursor, put_text, put_varint, unzigzag, zigzag
from limosa.codec.quality import Described, StreamQuality
from limosa.codec.sections import read_section, write_section
from limosa.errors import CorruptError, LimitError, UnsupportedVersionError
from limosa.files.beginnings import POINTER, recognise
from limosa.files.bundle import Source
from limosa.files.paths import check_paths
from limosa.limits import Limits
from limosa.tensors import TensorSpec, check_specs


@dataclass(frozen=True)
class Layout:
    """What a stream holds.

    Attributes:
        specs: the tensors, in the order of their chunks.
        sources: the files that they came from.
        quality: how floats are coded.
        base_digest: the state digest of the base; None without a base.
        base_names: for each tensor the name of its base tensor or None; None where every
            tensor's base is the one of the same name.
        kept: numbers of the tensors that later ones may copy.
    """

    specs: tuple[TensorSpec, ...]
    sources: tuple[Source, ...]
    quality: StreamQuality
    base_digest: bytes | None = None
    base_names: tuple[str | None, ...] | None = None
    kept: frozenset[int] = frozenset()

    @property
    def digits(self) -> int:
        """The Representation Precision as the core takes it: -1 where there is none."""
        return self.quality.p if isinstance(self.quality, Digits) else -1

    def base_name(self, number: int) -> str | None:
        """The name of the base tensor of tensor *number*."""
        if self.base_digest is None:
            return None
        return self.specs[number].name if self.base_names is None else self.base_names[number]


def write_header(layout: Layout) -> bytes:
    """Magic, version and the layout section."""
    return MAGIC + bytes([VERSION]) + write_section(_layout_content(layout))


def read_header(read: Callable[[int], bytes], limits: Limits) -> tuple[Layout, int]:
    """The layout, and the bytes that the header took.

    Raises:
        CorruptError: it is not a limosa file, or its layout contradicts docs/format.md.
        UnsupportedVersionError: it was written by a later limosa.
        LimitError: it exceeds *limits*; nothing of that size was allocated.
    """
    head = read(len(MAGIC) + 1)
    check_magic(head, MAGIC)
    content, size = read_section(read, "layout", limits)
    return _parse_layout(Cursor(content, "layout"), limits), len(head) + size


def check_magic(head: bytes, magic: bytes) -> None:
    """Check magic and version.

    Raises:
        CorruptError: another magic.
        UnsupportedVersionError: another version.
    """
    if not head.startswith(magic):
        known = recognise(head)
        raise CorruptError(
            "not a limosa file",
            where="byte 0",
            found=head[: len(magic)].hex(" ") if known is None else known.name,
            allowed=magic.hex(" ") if known is None else None,
            remedy=POINTER.remedy
            if known == POINTER
            else "check that the file was written by limosa and fetched in binary mode",
        )
    if head[len(magic)] != VERSION:
        raise UnsupportedVersionError(
            "unknown format version",
            where=f"byte {len(magic)}",
            found=str(head[len(magic)]),
            allowed=str(VERSION),
            remedy="upgrade limosa, or encode the file again",
        )


def _layout_content(layout: Layout) -> bytes:
    out = bytearray()
    has_base = layout.base_digest is not None
    has_names = has_base and layout.base_names is not None
    out.append(FLAG_BASE * has_base + FLAG_BASE_NAMES * has_names + FLAG_KEPT * bool(layout.kept))
    out += layout.base_digest or b""
    if isinstance(layout.quality, Digits):
        out += bytes([QUALITY_DIGITS, layout.quality.p])
    elif isinstance(layout.quality, Lossless):
        out.append(QUALITY_LOSSLESS)
    else:
        out.append(QUALITY_LOSSY)
        put_text(out, _cut(str(layout.quality)))
    put_specs(out, layout.specs)
    if has_names:
        _put_base_names(out, layout)
    if layout.kept:
        put_varint(out, len(layout.kept))
        _put_numbers(out, sorted(layout.kept))
    _put_sources(out, layout)
    return bytes(out)


def put_specs(out: bytearray, specs: Sequence[TensorSpec]) -> None:
    """Number, names, dtypes and shapes of tensors (docs/format.md 2.3)."""
    put_varint(out, len(specs))
    for spec in specs:
        put_text(out, spec.name)
        out.append(DTYPE_CODES[spec.dtype])
        put_varint(out, len(spec.shape))
        for dim in spec.shape:
            put_varint(out, dim)


def _cut(text: str) -> str:
    """As much of *text* as may be written."""
    return text.encode()[:MAX_QUALITY_TEXT].decode(errors="ignore")


def _put_base_names(out: bytearray, layout: Layout) -> None:
    for spec, name in zip(layout.specs, layout.base_names or (), strict=True):
        if name == spec.name:
            put_varint(out, BASE_SAME_NAME)
        elif name is None:
            put_varint(out, BASE_NONE)
        else:
            encoded = name.encode()
            put_varint(out, BASE_NAME + len(encoded))
            out += encoded


def _put_sources(out: bytearray, layout: Layout) -> None:
    numbers = {spec.name: number for number, spec in enumerate(layout.specs)}
    put_varint(out, len(layout.sources))
    for source in layout.sources:
        put_text(out, source.path)
        out.append(SOURCE_KINDS.index(source.kind))
        put_varint(out, len(source.skeleton))
        out += source.skeleton
        put_varint(out, len(source.tensors))
        _put_numbers(out, [numbers[name] for name in source.tensors])


def _put_numbers(out: bytearray, numbers: Sequence[int]) -> None:
    """Tensor numbers, each as its distance from the successor of the one before."""
    expected = 0
    for number in numbers:
        put_varint(out, zigzag(number - expected))
        expected = number + 1


def _parse_layout(cursor: Cursor, limits: Limits) -> Layout:
    flags = cursor.u8()
    if flags & ~(FLAG_BASE | FLAG_BASE_NAMES | FLAG_KEPT) or (
        flags & FLAG_BASE_NAMES and not flags & FLAG_BASE
    ):
        raise CorruptError(
            "unknown flags", where=cursor.place(), found=f"{flags:#x}", allowed="bits 0 to 2"
        )
    digest = cursor.take(DIGEST_BYTES) if flags & FLAG_BASE else None
    quality = _parse_quality(cursor)
    specs = parse_specs(cursor, limits)
    names = None
    if flags & FLAG_BASE_NAMES:
        names = tuple(_parse_base_name(cursor, spec, limits) for spec in specs)
    kept: tuple[int, ...] = ()
    if flags & FLAG_KEPT:
        kept = _parse_numbers(cursor, len(specs), limits)
        if not kept or any(a >= b for a, b in pairwise(kept)):
            raise CorruptError("kept tensors are not ascending", where=cursor.place())
    sources = _parse_sources(cursor, specs, limits)
    cursor.finish()
    return Layout(specs, sources, quality, digest, names, frozenset(kept))


def _parse_quality(cursor: Cursor) -> StreamQuality:
    kind = cursor.u8()
    if kind == QUALITY_LOSSLESS:
        return Lossless()
    if kind == QUALITY_LOSSY:
        return Described(cursor.text("bytes in a quality", MAX_QUALITY_TEXT))
    digits = cursor.u8() if kind == QUALITY_DIGITS else -1
    if not 0 <= digits <= MAX_DIGITS:
        raise CorruptError(
            "unknown quality",
            where=cursor.place(),
            found=f"kind {kind}, {digits} digits",
            allowed=f"kind 0 or 2, or kind 1 with 0 to {MAX_DIGITS} digits",
        )
    return Digits(digits)


def parse_specs(cursor: Cursor, limits: Limits) -> tuple[TensorSpec, ...]:
    """What :func:`put_specs` writes.

    Raises:
        FormatError: it is malformed, or asks for more than *limits* allow.
    """
    # A tensor takes at least three bytes: name length, dtype, rank.
    count = cursor.count("tensors", limits.max_tensors, "max_tensors", 3)
    specs = []
    for _ in range(count):
        name = cursor.text("bytes in a tensor name", limits.max_name_bytes)
        code = cursor.u8()
        if code >= len(DTYPE_NAMES):
            raise CorruptError(
                "unknown dtype",
                where=f"tensor {name!r}",
                found=str(code),
                allowed=f"0 to {len(DTYPE_NAMES) - 1}",
            )
        rank = cursor.count("dimensions", limits.max_rank, "max_rank")
        shape = tuple([cursor.varint() for _ in range(rank)])
        specs.append(TensorSpec(name, DTYPE_NAMES[code], shape))
    check_specs(specs, limits)
    for spec in specs:
        if 0 in spec.shape:
            _check_empty(spec, limits)
    return tuple(specs)


def _check_empty(spec: TensorSpec, limits: Limits) -> None:
    """An empty tensor may have other dimensions, but array libraries multiply those as well."""
    size = 1
    for dim in spec.shape:
        size *= max(dim, 1)
    if size > limits.max_elements:
        raise LimitError(
            "the dimensions are too large",
            where=f"tensor {spec.name!r}",
            found=str(spec.shape),
            allowed=f"max_elements {limits.max_elements}",
            remedy="pass a larger Limits to decode it",
        )


def _parse_base_name(cursor: Cursor, spec: TensorSpec, limits: Limits) -> str | None:
    place = cursor.place()
    code = cursor.varint()
    if code == BASE_SAME_NAME:
        return spec.name
    if code == BASE_NONE:
        return None
    size = code - BASE_NAME
    if size > limits.max_name_bytes:
        raise LimitError(
            "a base name is too long",
            where=place,
            found=f"{size} bytes",
            allowed=f"max_name_bytes {limits.max_name_bytes}",
        )
    try:
        return cursor.take(size).decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorruptError("a base name is not UTF-8", where=place, found=str(error)) from None


def _parse_numbers(cursor: Cursor, tensors: int, limits: Limits) -> tuple[int, ...]:
    count = cursor.count("tensor numbers", limits.max_tensors, "max_tensors")
    numbers = []
    expected = 0
    for _ in range(count):
        number = expected + unzigzag(cursor.varint())
        if not 0 <= number < tensors:
            raise CorruptError(
                "no such tensor",
                where=cursor.place(),
                found=str(number),
                allowed=f"0 to {tensors - 1}",
            )
        numbers.append(number)
        expected = number + 1
    return tuple(numbers)


def _parse_sources(
    cursor: Cursor, specs: tuple[TensorSpec, ...], limits: Limits
) -> tuple[Source, ...]:
    # A source takes at least four bytes: path length, kind, skeleton length, tensor count.
    count = cursor.count("sources", limits.max_sources, "max_sources", 4)
    sources = []
    for _ in range(count):
        path = cursor.text("bytes in a path", limits.max_name_bytes)
        kind = cursor.u8()
        if kind >= len(SOURCE_KINDS):
            raise CorruptError(
                "unknown kind of source",
                where=cursor.place(),
                found=str(kind),
                allowed=f"0 to {len(SOURCE_KINDS) - 1}",
            )
        size = cursor.count("skeleton bytes", limits.max_header_bytes, "max_header_bytes")
        skeleton = cursor.take(size)
        numbers = _parse_numbers(cursor, len(specs), limits)
        names = tuple(specs[number].name for number in numbers)
        sources.append(Source(path, SOURCE_KINDS[kind], skeleton, names))
    # One source may have no path: it is a single file.
    check_paths([source.path for source in sources if count > 1 or source.path], limits)
    return tuple(sources)
