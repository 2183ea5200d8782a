"""The kernels (core/bindings); arrays are C-contiguous ``uint8``; the GIL is released inside."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Bytes = NDArray[np.uint8]
_Buffer = _Bytes | bytes | memoryview

class CoreError(Exception):
    """``args``: kind, position of the tensor in the call, chunk, byte of its payload, message."""

    args: tuple[Any, ...]

def crc32c(buffer: _Buffer, value: int = 0) -> int: ...
def encode_tensors(
    datas: Sequence[_Bytes],
    bases: Sequence[_Bytes | None],
    dtypes: Sequence[int],
    *,
    digits: int,
    threads: int,
    level: int = 0,
) -> tuple[_Bytes, NDArray[np.uint32]]: ...
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
def decode_block_stats(
    frames: _Buffer, payload_lengths: NDArray[np.uint32]
) -> list[list[tuple[int, int, int]]]: ...
def simd_paths() -> list[str]: ...
def set_simd(name: str) -> None: ...
