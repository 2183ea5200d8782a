"""How exactly tensors are coded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from limosa.codec.constants import MAX_DIGITS
from limosa.errors import ConfigError

Coder = Literal["rans", "lzma"]


@dataclass(frozen=True)
class Lossless:
    """Every bit comes back.

    Args:
        effort: 1 is the fast path; 5 looks for rows and columns of float tensors whose values
            differ in magnitude, and decodes a little slower where that saves something.

    Raises:
        ConfigError: an effort other than 1 and 5.

    >>> Lossless()
    Lossless(effort=5)
    """

    effort: int = 5

    def __post_init__(self) -> None:
        check_effort("Lossless", self.effort, (1, 5))


@dataclass(frozen=True)
class Digits:
    """Floats keep *p* decimal digits behind the point ("Representation Precision").

    A value w travels as ``int64(w * 10**p)`` and comes back as that integer divided by
    ``10**p``; against a base, the difference travels so. Values that do not fit, NaN and
    infinities are kept exactly; integer tensors are always exact.

    Args:
        p: digits, 0 to 18.
        coder: ``"rans"`` is limosa's; ``"lzma"`` is the paper's baseline, for comparisons.

    Raises:
        ConfigError: *p* or *coder* is out of range.

    >>> Digits(4)
    Digits(p=4, coder='rans')
    """

    p: int
    coder: Coder = "rans"

    def __post_init__(self) -> None:
        if not isinstance(self.p, int) or isinstance(self.p, bool) or not 0 <= self.p <= MAX_DIGITS:
            raise ConfigError(
                "bad Representation Precision",
                where="Digits",
                found=repr(self.p),
                allowed=f"0 to {MAX_DIGITS}",
            )
        if self.coder not in ("rans", "lzma"):
            raise ConfigError(
                "unknown coder", where="Digits", found=repr(self.coder), allowed="rans, lzma"
            )


def check_effort(where: str, effort: int, allowed: tuple[int, ...]) -> None:
    """Refuse an effort that is none of *allowed*.

    >>> check_effort("Lossless", 1, (1, 5))
    """
    if isinstance(effort, bool) or effort not in allowed:
        words = ", ".join(map(str, allowed))
        raise ConfigError("unknown effort", where=where, found=repr(effort), allowed=words)


def thread_count(threads: int | None) -> int:
    """The number of threads to use; ``None`` means every processor this process may use.

    Raises:
        ConfigError: *threads* is not a positive integer.
    """
    if threads is None:
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise ConfigError("bad number of threads", found=repr(threads), allowed="1 or more")
    return threads
