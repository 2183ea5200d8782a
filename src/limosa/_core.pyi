"""The kernels (core/bindings); arrays are C-contiguous ``uint8``; the GIL is released inside."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Bytes = NDArray[np.uint8]
_Levels = tuple[float, bool, float, bool, bool, bool, float, Sequence[float]]
_Buffer = _Bytes | bytes | memoryview

class CoreError(Exception):
    """``args``: kind, position of the tensor in the call, its chunk, byte of frames, message."""

    args: tuple[Any, ...]

def crc32c(data: _Buffer, value: int = 0) -> int: ...

class OutputBuffer:
    """What an encoder has written so far; handing it out copies nothing."""

    def __len__(self) -> int: ...
    def append(self, part: _Buffer) -> None: ...
    def tail(self, start: int) -> bytes: ...
    def take(self) -> bytes: ...

def encode_tensors(
    datas: Sequence[_Bytes],
    bases: Sequence[_Bytes | None],
    dtypes: Sequence[int],
    *,
    digits: int,
    threads: int,
    levels: Sequence[_Levels | None] | None = None,
    columns: Sequence[int] | None = None,
    out: OutputBuffer,
) -> NDArray[np.uint32]: ...
def distortion(a: _Bytes, b: _Bytes, dtype: int) -> tuple[float, float, float]: ...
def decode_tensors(
    frames: _Buffer,
    payload_lengths: NDArray[np.uint32],
    outs: Sequence[_Bytes],
    bases: Sequence[_Bytes | None],
    dtypes: Sequence[int],
    copies: Sequence[_Bytes | None],
    *,
    digits: int,
    threads: int,
) -> None: ...
def inspect_tensors(
    frames: _Buffer,
    payload_lengths: NDArray[np.uint32],
    outs: Sequence[_Bytes],
    bases: Sequence[_Bytes | None],
    dtypes: Sequence[int],
    copies: Sequence[_Bytes | None],
    *,
    digits: int,
) -> list[list[tuple[int, int, int]]]: ...
def svd(
    a: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]: ...
def matmul(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]: ...
def merge(
    base: _Bytes | None, dtype: int, left: NDArray[np.float64], right: NDArray[np.float64]
) -> _Bytes: ...
def encode_levels(levels: NDArray[np.int32], columns: int) -> bytes: ...
def decode_levels(data: _Buffer, n: int, columns: int) -> NDArray[np.int32]: ...
def simd_paths() -> list[str]: ...
def simd() -> str: ...
def set_simd(name: str) -> None: ...
