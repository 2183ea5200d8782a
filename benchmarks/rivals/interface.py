"""What a rival must offer, so that all are timed alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

Buffer = bytes | bytearray | memoryview | np.ndarray

# The unsigned type of one element, for codecs that work on bits.
WORDS = {"F32": np.dtype("<u4"), "BF16": np.dtype("<u2"), "F16": np.dtype("<u2")}


class Rival(ABC):
    """A lossless codec over the bytes of all tensors, one after the other.

    ``dtype`` is F32, BF16 or F16. With ``needs_base`` the bytes are coded as a difference from
    ``base``, which has the same length. Preparing is not timed; encoding and decoding are.
    """

    name: ClassVar[str]
    needs_base: ClassVar[bool] = False
    threaded: ClassVar[bool] = False
    # Slow codecs run once, for their size.
    slow: ClassVar[bool] = False

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads

    def prepare(self, raw: bytes) -> Buffer:
        """Return what ``encode`` gets instead of ``raw``; for codecs that overwrite their input."""
        return raw

    @abstractmethod
    def encode(self, raw: Buffer, dtype: str, base: bytes | None = None) -> bytes: ...

    @abstractmethod
    def decode(self, blob: bytes, dtype: str, base: bytes | None = None) -> Buffer: ...


def xor(left: Buffer, right: Buffer) -> np.ndarray:
    """Return the exclusive or of two buffers of one length, as a new array of bytes.

    >>> bytes(xor(b"ab", b"ac"))
    b'\\x00\\x01'
    """
    a, b = np.frombuffer(left, np.uint8), np.frombuffer(right, np.uint8)
    # Eight bytes at a time where possible: NumPy is then as fast as memory.
    whole = a.size - a.size % 8
    out = np.empty(a.size, np.uint8)
    np.bitwise_xor(a[:whole].view("u8"), b[:whole].view("u8"), out=out[:whole].view("u8"))
    np.bitwise_xor(a[whole:], b[whole:], out=out[whole:])
    return out
