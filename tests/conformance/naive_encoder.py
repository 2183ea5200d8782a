"""Writes .limosa files the slow and obvious way, with every block mode on demand.

Limosa's encoder chooses among block modes by cost; this one does what it is told, so that decoders
can be tried on blocks that no real encoder would write. It shares no code with limosa or with
reference/limosa_reference.py. Functions are named after the sections of docs/format.md and take
units as lists of unsigned integers.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from blake3 import blake3

NAMES = [
    "F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "I64", "I32", "I16", "I8",
    "U64", "U32", "U16", "U8", "BOOL", "C64", "F6_E2M3", "F6_E3M2",
    "F8_E4M3FNUZ", "F8_E5M2FNUZ",
]  # fmt: skip
WIDTHS = dict.fromkeys(NAMES, 8) | {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16,
    "U64": 64, "U32": 32, "U16": 16, "C64": 32,
}  # fmt: skip
BITS = WIDTHS | {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "C64": 64}  # of an element
FLOATS = {"F64": (11, 52), "F32": (8, 23), "F16": (5, 10), "BF16": (8, 7), "C64": (8, 23)}
CHUNK = 262_144

# 1 Conventions


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def zigzag(d: int) -> int:
    return 2 * d if d >= 0 else -2 * d - 1


def bits(pairs: Sequence[tuple[int, int]]) -> bytes:
    """(value, number of bits) pairs to bytes."""
    text = "".join(format(value, f"0{n}b")[::-1] if n else "" for value, n in pairs)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[i : i + 8][::-1], 2) for i in range(0, len(text), 8))


def crc32c(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    return struct.pack("<I", crc ^ 0xFFFFFFFF)


def pack(units: Sequence[int], width: int) -> bytes:
    return b"".join(u.to_bytes(width // 8, "little") for u in units)


def unpack(data: bytes, width: int) -> list[int]:
    size = width // 8
    return [int.from_bytes(data[i : i + size], "little") for i in range(0, len(data), size)]


# 2 File


@dataclass
class Coded:
    """A tensor, the payloads of its chunks already made."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes
    payloads: list[bytes] = field(default_factory=list)

    def digest(self) -> bytes:
        rank = struct.pack("<I", len(self.shape))
        dims = b"".join(struct.pack("<Q", n) for n in self.shape)
        return blake3(self.dtype.encode() + b"\0" + rank + dims + self.data).digest()


def state_digest(tensors: Sequence[Coded]) -> bytes:
    parts = sorted((t.name.encode(), t.digest()) for t in tensors)
    return blake3(b"".join(struct.pack("<I", len(n)) + n + d for n, d in parts)).digest()


def section(content: bytes, method: int = 0) -> bytes:
    body = bytes([method]) + varint(len(content))
    body += zlib.compress(content) if method else content
    return struct.pack("<I", len(body)) + crc32c(body) + body


def layout(
    tensors: Sequence[Coded],
    *,
    base: bytes | None = None,
    digits: int | None = None,
    lossy: str | None = None,
    base_names: Sequence[str | None] | None = None,
    kept: Sequence[int] = (),
    sources: Sequence[tuple[str, int, bytes, Sequence[int]]] | None = None,
) -> bytes:
    """`sources`: (path, kind, skeleton, numbers of tensors); None is one source of kind 0."""
    if sources is None:
        sources = [("", 0, b"", range(len(tensors)))]
    flags = (base is not None) + 2 * (base_names is not None) + 4 * bool(kept)
    out = bytes([flags]) + (base or b"")
    if lossy is not None:
        out += b"\2" + varint(len(lossy.encode())) + lossy.encode()
    else:
        out += b"\0" if digits is None else bytes([1, digits])
    out += varint(len(tensors))
    for t in tensors:
        name = t.name.encode()
        out += varint(len(name)) + name + bytes([NAMES.index(t.dtype)])
        out += varint(len(t.shape)) + b"".join(map(varint, t.shape))
    for t, name in zip(tensors, base_names or (), strict=False):
        if name is None or name == t.name:
            out += varint(int(name is None))
        else:
            out += varint(2 + len(name.encode())) + name.encode()
    if kept:
        out += numbers_of(kept)
    out += varint(len(sources))
    for path, kind, skeleton, numbers in sources:
        out += varint(len(path.encode())) + path.encode() + bytes([kind])
        out += varint(len(skeleton)) + skeleton + numbers_of(numbers)
    return out


def numbers_of(numbers: Sequence[int]) -> bytes:
    out = varint(len(numbers))
    previous = -1
    for number in numbers:
        out += varint(zigzag(number - (previous + 1)))
        previous = number
    return out


def frame(payload: bytes) -> bytes:
    return struct.pack("<I", len(payload)) + crc32c(payload) + payload


def index(tensors: Sequence[Coded]) -> bytes:
    parts = [b"".join(varint(len(p)) for p in t.payloads) + t.digest()[:8] for t in tensors]
    return b"".join(parts) + state_digest(tensors)


def footer(offset: int, length: int, magic: bytes = b"LMSA_END") -> bytes:
    place = struct.pack("<QI", offset, length)
    return place + crc32c(place) + magic


def file(tensors: Sequence[Coded], *, method: int = 0, version: int = 0, **options) -> bytes:
    """A whole file; `options` as for `layout`."""
    out = b"\x89LMSA\r\n\x1a" + bytes([version]) + section(layout(tensors, **options), method)
    out += b"".join(frame(payload) for t in tensors for payload in t.payloads)
    end = section(index(tensors), method)
    return out + end + footer(len(out), len(end))


# 3 Chunk payload: a block is mode, count and one of the contents below


def block(mode: int, content: bytes, count: int = 0) -> bytes:
    return bytes([mode]) + varint(count) + content


# 3.2 Symbol stream


def symbol_stream(
    symbols: Sequence[int], kind: int = 0, scale: int = 10, contexts: Sequence[int] | None = None,
    count: int = 1,
) -> bytes:  # fmt: skip
    if kind == 0:
        return b"\0" + bytes(symbols)
    if kind == 1:
        assert len(set(symbols)) == 1
        return bytes([1, symbols[0]])
    contexts = contexts or [0] * len(symbols)
    tables = [
        frequencies([s for s, c in zip(symbols, contexts, strict=True) if c == context], scale)
        for context in range(count)
    ]
    lanes = 32 if kind == 2 else 1
    states = [2**16] * lanes
    words: list[int] = []
    for i in reversed(range(len(symbols))):
        freq, s, x = tables[contexts[i]], symbols[i], states[i % lanes]
        if x >= freq[s] << (32 - scale):
            words.append(x % 2**16)
            x //= 2**16
        states[i % lanes] = (x // freq[s] << scale) + x % freq[s] + sum(freq[:s])
    out = bytes([kind, scale]) + b"".join(map(frequency_table, tables)) + varint(len(words))
    return out + struct.pack(f"<{lanes}I{len(words)}H", *states, *reversed(words))


def frequencies(symbols: Sequence[int], scale: int) -> list[int]:
    """Near the counts, and with sum 2^scale."""
    counts = Counter(symbols) or Counter([0])
    if scale == 12 and len(counts) == 1:  # a frequency of 4096 is not allowed
        counts[(symbols[0] + 1) % 256] += 1
    total = sum(counts.values())
    freq = [max(1, counts[s] * 2**scale // total) if counts[s] else 0 for s in range(256)]
    while sum(freq) != 2**scale:
        most = freq.index(max(freq))
        freq[most] += 1 if sum(freq) < 2**scale else -1
    return freq


def frequency_table(freq: Sequence[int]) -> bytes:
    used = [s for s in range(256) if freq[s]]
    pairs = []
    before = 0
    for f in freq[used[0] : used[-1] + 1]:
        length = f.bit_length()
        if length == before:
            pairs.append((0, 1))
        elif abs(length - before) == 1:
            pairs += [(1, 1), (0, 1), (int(length > before), 1)]
        else:
            pairs += [(1, 1), (1, 1), (length, 4)]
        before = length
        if f > 1:
            pairs.append((f - 2 ** (f.bit_length() - 1), f.bit_length() - 1))
    return bytes([used[0], used[-1]]) + bits(pairs)


# 3.3 Integer stream


def token(value: int, s: int, m: int) -> tuple[int, int, int]:
    """The token, the extra bits and how many these are."""
    if value < 2**s:
        return value, 0, 0
    b = value.bit_length() - 1 - m
    return 2**s + ((b - s + m) << m) + (value >> b) - 2**m, value % 2**b, b


def integer_stream(values: Sequence[int], s: int = 4, m: int = 1, **options) -> bytes:
    """`options` as for `symbol_stream`."""
    parts = [token(value, s, m) for value in values]
    tokens, tail = [t for t, _, _ in parts], bits([(low, b) for _, low, b in parts])
    return bytes([s, m]) + symbol_stream(tokens, **options) + varint(len(tail)) + tail


# 3.4 Fields


def fields(
    units: Sequence[int], dtype: str, k: int = 0, z: int = 0, w: int | None = None,
    classes: bytes = b"", unsigned: bool = False, **options,
) -> bytes:  # fmt: skip
    """`classes` stand between w and the escapes (3.14)."""
    E, M = FLOATS[dtype]
    W = WIDTHS[dtype]
    tops = [(u % 2 ** (W - 1)) >> (M - k) for u in units]
    if w is None:
        w = max(min(tops) - 1, 0)
    symbols = [t - w if 1 <= t - w <= 255 else 0 for t in tops]
    escapes = [t for t, s in zip(tops, symbols, strict=True) if s == 0]
    out = struct.pack("<BBH", k + 128 * unsigned, z, w) + classes + varint(len(escapes))
    if escapes:
        out += integer_stream(escapes, s=1, m=0)
    assert all(u % 2**z == 0 for u in units)
    r = W - E - k - z
    rests = [(u >> (W - 1) << (r - 1)) + (u % 2 ** (M - k) >> z) for u in units]
    return out + symbol_stream(symbols, **options) + bit_planes(rests, r - unsigned)


def bit_planes(values: Sequence[int], r: int) -> bytes:
    planes = r // 8
    out = b"".join(bytes(v >> 8 * j & 255 for v in values) for j in range(planes))
    at = 8 * planes
    for b in (4, 2, 1):
        if (r % 8) & b:
            out += bit_plane([v >> at & (2**b - 1) for v in values], b)
            at += b
    return out


def bit_plane(values: Sequence[int], b: int) -> bytes:
    g = 256 // b
    out = b""
    for first in range(0, len(values), g):
        group = values[first : first + g]
        S = -(-len(group) * b // 8)
        padded = [*group, *[0] * (S * (8 // b) - len(group))]
        out += bytes(sum(padded[j + S * q] << b * q for q in range(8 // b)) for j in range(S))
    return out


# 3.5, 3.6, 3.7


def palette(units: Sequence[int], width: int, **options) -> bytes:
    values = sorted(set(units))
    indices = [values.index(u) for u in units]
    return bytes([len(values) - 1]) + pack(values, width) + symbol_stream(indices, **options)


def zero_mask(units: Sequence[int], mode: int, content: bytes, **options) -> bytes:
    """`content`: that of `mode` for the units that are not zero."""
    mask = bits([(int(u != 0), 1) for u in units])
    count = sum(u != 0 for u in units)
    return varint(count) + symbol_stream(list(mask), **options) + bytes([mode]) + content


def planes(units: Sequence[int], width: int, **options) -> bytes:
    parts = [[u >> 8 * j & 255 for u in units] for j in range(width // 8)]
    return b"".join(symbol_stream(part, **options) for part in parts)


def base_planes(units: Sequence[int], base: Sequence[int], width: int, **options) -> bytes:
    return planes([u ^ b for u, b in zip(units, base, strict=True)], width, **options)


# 3.8, 3.9


def ordered(u: int, dtype: str) -> int:
    half = 2 ** (WIDTHS[dtype] - 1)
    return half - 1 - u if dtype in FLOATS and u >= half else u


def steps(
    units: Sequence[int], base: Sequence[int], dtype: str, C: int = 1, c: int = 0, **options
) -> bytes:
    W = WIDTHS[dtype]
    E, M = FLOATS.get(dtype, (0, 0))
    values, contexts = [], []
    for u, b in zip(units, base, strict=True):
        d = (ordered(u, dtype) - ordered(b, dtype)) % 2**W
        values.append(zigzag(d - 2**W if d >= 2 ** (W - 1) else d))
        contexts.append(min(max((b >> M) % 2**E - c, 0), C - 1))
    out = struct.pack("<BH", C, c)
    return out + integer_stream(values, contexts=contexts, count=C, **options)


def base_sparse(
    units: Sequence[int], base: Sequence[int], dtype: str, C: int = 1, c: int = 0, **options
) -> bytes:
    places = [i for i, (u, b) in enumerate(zip(units, base, strict=True)) if u != b]
    gaps = [place - before - 1 for before, place in zip([-1, *places], places, strict=False)]
    changed = steps([units[i] for i in places], [base[i] for i in places], dtype, C, c, **options)
    return varint(len(places)) + integer_stream(gaps) + changed


# 3.10


def decimal(integers: Sequence[int], exceptions: dict[int, int], width: int, **options) -> bytes:
    """Modes 11 and 12; `exceptions`: place -> unit."""
    head = decimal_exceptions(exceptions, width)
    return head + integer_stream([zigzag(w) for w in integers], **options)


def decimal_lzma(integers: Sequence[int], exceptions: dict[int, int], width: int) -> bytes:
    """Modes 13 and 14."""
    stream = lzma.compress(struct.pack(f"<{len(integers)}q", *integers))
    return decimal_exceptions(exceptions, width) + varint(len(stream)) + stream


def decimal_exceptions(exceptions: dict[int, int], width: int) -> bytes:
    out = varint(len(exceptions))
    previous = -1
    for place in sorted(exceptions):
        out += varint(place - previous - 1) + pack([exceptions[place]], width)
        previous = place
    return out


# 6 Set of models


def model_set(members: Sequence[tuple[str, int | None, bytes]]) -> bytes:
    """(name, number of the base, file) of each model."""
    table = varint(len(members))
    for name, base, _ in members:
        table += (
            varint(len(name.encode())) + name.encode() + varint(0 if base is None else base + 1)
        )
    out = b"\x89LMSS\r\n\x1a\0" + section(table) + b"".join(data for _, _, data in members)
    end = section(b"".join(varint(len(data)) for _, _, data in members))
    return out + end + footer(len(out), len(end), b"LMSS_END")
