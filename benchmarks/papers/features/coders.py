"""The paper's four coders of bytes, and limosa, with their times on one thread."""

from __future__ import annotations

import bz2
import gzip
import lzma
import time
import zlib
from collections.abc import Callable
from typing import TypeVar

import torch

from limosa import FeatureDecoder, FeatureEncoder, FeatureSource, Lossless, Step, Tensor
from limosa.codec.feature.source import FeatureProfile

# Short calls are repeated for so long; their best counts.
_REPEAT_SECONDS, _REPEATS = 0.02, 7
# One model for all: its digest is 8 bytes of every message, whatever they are.
MODEL = bytes(32)
Result = TypeVar("Result")

# With the settings that they have if nobody says anything, as in the paper.
GENERAL: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "bzip2": bz2.compress,
    "lzma": lzma.compress,
}


def timed(call: Callable[[], Result]) -> tuple[Result, float]:
    """What a call returns, and its processor time; of a short one, the fastest of a few.

    Nobody here starts a thread, and what else the machine does should not count.
    """
    best = float("inf")
    total = 0.0
    for _ in range(_REPEATS):
        started = time.thread_time()
        result = call()
        seconds = time.thread_time() - started
        best, total = min(best, seconds), total + seconds
        if total > _REPEAT_SECONDS:
            break
    return result, best


def source(cut: str, profile: FeatureProfile | None = None) -> FeatureSource:
    """The source of a cut's features."""
    return FeatureSource(MODEL, cut, profile)


def encoder(
    cut: str, quality: Lossless | Step, profile: FeatureProfile | None = None, key_every: int = 1
) -> FeatureEncoder:
    """An encoder on one thread."""
    return FeatureEncoder(
        source(cut, profile), quality=quality, key_every=key_every, threads=1
    )  # fmt: skip


def sent(
    values: torch.Tensor, encode: FeatureEncoder, decode: FeatureDecoder
) -> tuple[int, torch.Tensor]:
    """Bytes of the message, and what comes out at the other end."""
    profile = encode.source.profile
    # A profile knows tensors by their names; here one crosses, or the last of those that do.
    name = "x" if profile is None else list(profile.channels)[-1]
    message = encode.encode({name: Tensor.from_numpy(values.numpy())})
    return len(message), torch.from_numpy(decode.decode(message)[name].numpy())
