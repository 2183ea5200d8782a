"""The numbers of the bitstream (docs/format.md) and the sizes of the work done at once."""

from __future__ import annotations

from limosa.files.bundle import KINDS
from limosa.tensors import DTYPES, TensorSpec

# 2.1 and 2.6: what a file begins and ends with
MAGIC = b"\x89LMSA\r\n\x1a"
END_MAGIC = b"LMSA_END"
VERSION = 0
FOOTER_BYTES = 24

# 9: features
FEATURE_MAGIC = b"\x89LMSF\r\n\x1a"
SOURCE_ID_BYTES = 8
FEATURE_DIGEST_BYTES = 8

# 2.3: layout
FLAG_BASE = 1
FLAG_BASE_NAMES = 2
FLAG_KEPT = 4
QUALITY_LOSSLESS, QUALITY_DIGITS, QUALITY_LOSSY = 0, 1, 2
MAX_QUALITY_TEXT = 256
MAX_DIGITS = 18
BASE_SAME_NAME, BASE_NONE, BASE_NAME = 0, 1, 2
SOURCE_KINDS = ("tensors", *KINDS)
DTYPE_NAMES = tuple(DTYPES)
DTYPE_CODES = {name: code for code, name in enumerate(DTYPE_NAMES)}
# Bits of exponent and mantissa
FLOAT_FIELDS = {"F64": (11, 52), "F32": (8, 23), "F16": (5, 10), "BF16": (8, 7), "C64": (8, 23)}
FLOAT_DTYPES = frozenset(FLOAT_FIELDS)
# C64 is two units an element; packed dtypes are coded byte by byte.
UNIT_BYTES = {name: max(1, dtype.bits // 8) for name, dtype in DTYPES.items()} | {"C64": 4}

# 2.4: chunks
CHUNK_UNITS = 262_144
FRAME_HEAD_BYTES = 8
# No block is shorter than its mode and its count.
MIN_PAYLOAD_BYTES = 2

# 2.5: index
INDEX_DIGEST_BYTES = 8
DIGEST_BYTES = 32

# 3: block modes
MODE_NAMES = (
    "raw",
    "constant",
    "tensor copy",
    "base copy",
    "fields",
    "palette",
    "zero mask",
    "planes",
    "base planes",
    "base steps",
    "base sparse",
    "decimal",
    "base decimal",
    "decimal lzma",
    "base decimal lzma",
    "levels",
    "base levels",
    "base palette",
    "classed fields",
    "repeats",
    "packed",
)
MODE_TENSOR_COPY, MODE_LZMA, MODE_BASE_LZMA, MODE_PACKED = 2, 13, 14, 20

# 6: a set of models
SET_MAGIC = b"\x89LMSS\r\n\x1a"
SET_END_MAGIC = b"LMSS_END"

# 8: a refinement
REFINEMENT_MAGIC = b"\x89LMSR\r\n\x1a"
# Magic, version, footer, and two sections of ten bytes.
MIN_FILE_BYTES = len(MAGIC) + 1 + FOOTER_BYTES + 2 * 10

# Tensors are handed to the core in batches: large enough that threads have work and that the
# cost of a call vanishes, small enough that a pipe needs little memory.
BATCH_BYTES = 16 * 2**20
BATCH_TENSORS = 4096
# Below this a copy saves a few bytes at most, and costs its reader a dependency.
COPY_MIN_BYTES = 64


def unit_count(spec: TensorSpec) -> int:
    """Units (docs/format.md 2.3) in a tensor.

    >>> unit_count(TensorSpec("z", "C64", (3,)))
    6
    """
    return spec.nbytes // UNIT_BYTES[spec.dtype]


def chunk_count(spec: TensorSpec) -> int:
    """Chunks (docs/format.md 2.4) in a tensor; an empty one has none."""
    return -(-unit_count(spec) // CHUNK_UNITS)


def core_dtype(name: str) -> int:
    """The code under which ``_core`` knows a dtype; 8-bit units without fields are all alike."""
    return DTYPE_CODES[name] if DTYPE_CODES[name] < 20 else DTYPE_CODES["U8"]
