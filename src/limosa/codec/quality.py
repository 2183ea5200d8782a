"""How much may be lost: what a sender can ask for, one vocabulary for models and differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Literal

from limosa.codec.config import Digits, Lossless, check_effort
from limosa.errors import ConfigError
from limosa.tensors import TensorSpec

#: Few values on which every output depends; their loss costs more than their bytes.
KEPT_PATTERNS = ("*position_embedding*", "*pos_embed*", "*token_type_embedding*")
#: Bits of mantissa of what is kept near-lossless: a relative error of at most 2**-9.
KEPT_MANTISSA = 8
#: Tensors of fewer elements get a finer step where the step is limosa's to choose.
SMALL_ELEMENTS = 32_768
_LEAST_SHARE = 1 / 8
MAX_CODEBOOK = 256
EFFORTS = (1, 5, 9)


@dataclass(frozen=True, kw_only=True)
class Lossy:
    """What all lossy qualities share.

    Tensors with fewer than two axes longer than 1 (biases, norms, statistics) and small tables of
    positions and token types are *kept*: rounded to a relative error of 2**-9 and coded exactly;
    in an update, their difference is kept with 47 dB. Integers are always exact.

    Args:
        keep: shell patterns of names of more tensors to keep.
        lossy: shell patterns of names of tensors that are not kept whatever their shape.
    """

    keep: tuple[str, ...] = ()
    lossy: tuple[str, ...] = ()

    def keeps(self, spec: TensorSpec) -> bool:
        """Whether a float tensor is kept near-lossless.

        >>> Step(0.01).keeps(TensorSpec("bias", "F32", (64,)))
        True
        >>> Step(0.01, lossy=("b*",)).keeps(TensorSpec("bias", "F32", (64,)))
        False
        """
        if any(fnmatchcase(spec.name, pattern) for pattern in self.lossy):
            return False
        if any(fnmatchcase(spec.name, pattern) for pattern in (*self.keep, *KEPT_PATTERNS)):
            return True
        return sum(dim > 1 for dim in spec.shape) < 2

    def __str__(self) -> str:
        """The settings that differ from their defaults, as they would be written."""
        parts = []
        for entry in fields(self):
            value = getattr(self, entry.name)
            if value != entry.default and entry.init and not isinstance(value, Mapping):
                shown = (
                    ",".join(value)
                    if isinstance(value, tuple)
                    else f"{value:g}"
                    if isinstance(value, float)
                    else str(value)
                )
                parts.append(f"{entry.name}={shown}")
        return f"{type(self).__name__.lower()} {' '.join(parts)}"


@dataclass(frozen=True)
class Step(Lossy):
    """Uniform quantization: levels *size* apart.

    Args:
        size: the distance of two levels, above 0, in the unit of the weights.
        effort: 1 rounds each weight by itself; 5 chooses levels with an 8-state trellis
            (dependent quantization) and the bits that they cost; 9 also codes them with adaptive
            contexts, whose decoder is some twenty times slower.
        by_tensor: other sizes, by the names of tensors.
        by_row: if true, *size* is a share of the root mean square of each row (output channel) in
            place of a distance; each row gets a step of its own. ``"auto"``: *size* is a distance,
            and each tensor gets the shared step or one for each row, whichever costs less in
            squared error and bits together; takes three times as long to encode.
        rounded: the weights are multiples of their sizes already, as calibrated rounding leaves
            them, and stay what they are; so rows cannot have steps of their own.

    Raises:
        ConfigError: a setting is out of range.

    >>> str(Step(0.01))
    'step size=0.01'
    """

    size: float
    effort: int = 5
    by_tensor: Mapping[str, float] = field(default_factory=dict)
    by_row: bool | Literal["auto"] = False
    rounded: bool = False

    def __post_init__(self) -> None:
        for where, size in {"Step": self.size, **self.by_tensor}.items():
            check_positive(where, size)
        check_effort("Step", self.effort, EFFORTS)
        if self.by_row not in (True, False, "auto"):
            raise ConfigError(
                "bad choice", where="by_row", found=repr(self.by_row), allowed="True, False, 'auto'"
            )
        if self.rounded and self.by_row:
            raise ConfigError(
                "what is rounded has its step already",
                where="Step",
                found=f"rounded and by_row={self.by_row!r}",
                allowed="one of them",
            )

    def size_of(self, name: str) -> float:
        """The distance of two levels of the tensor *name*."""
        return self.by_tensor.get(name, self.size)


@dataclass(frozen=True)
class MaxError(Lossy):
    """A bound that every element keeps, proved by decoding.

    Args:
        abs: the largest error, in the unit of the weights.
        rel: the largest error as a share of the element itself; rounded down to a power of two.

    Raises:
        ConfigError: neither or both are given, or one is out of range.

    >>> MaxError(rel=0.01).mantissa
    6
    """

    abs: float | None = None
    rel: float | None = None

    def __post_init__(self) -> None:
        if (self.abs is None) == (self.rel is None):
            raise ConfigError("one bound, please", where="MaxError", allowed="abs or rel")
        check_positive("MaxError", self.abs if self.rel is None else self.rel)
        if self.rel is not None and not 2.0**-52 <= self.rel < 1:
            raise ConfigError(
                "bad bound", where="MaxError", found=f"rel {self.rel!r}", allowed="2**-52 to 1"
            )

    @property
    def mantissa(self) -> int:
        """Bits of mantissa whose rounding keeps the relative bound."""
        return max(0, -math.floor(math.log2(self.rel or 1)) - 1)


@dataclass(frozen=True)
class Codebook(Lossy):
    """Non-linear quantization: each tensor has *k* values of its own, placed by Lloyd's algorithm.

    Raises:
        ConfigError: *k* is out of range.
    """

    k: int

    def __post_init__(self) -> None:
        if not isinstance(self.k, int) or not 2 <= self.k <= MAX_CODEBOOK:
            raise ConfigError(
                "bad size", where="Codebook", found=repr(self.k), allowed=f"2 to {MAX_CODEBOOK}"
            )


@dataclass(frozen=True)
class Signs(Lossy):
    """One bit a weight: its sign, and one scale for each row (BitDelta, arXiv 2402.10193).

    Meant for the difference of a fine-tune from its base.
    """


@dataclass(frozen=True)
class Target(Lossy):
    """A result instead of a step: one step for all tensors, found by encoding (at most 12 times).

    Tensors of fewer than 32,768 elements get a finer one; see :meth:`step`.

    Args:
        size: bytes of the file, such as 3_000_000, ``"3 MB"``, or ``"10%"`` of the raw tensors.
        bits: bits of the file for each element.
        snr: signal-to-noise ratio in dB over the tensors that are not kept; of an update, that
            of the difference.
        effort: as for :class:`Step`.

    Raises:
        ConfigError: not exactly one is given, or it makes no sense.

    >>> Target(size="10%").wanted_bytes(raw=5000, elements=1250)
    500.0
    """

    size: int | str | None = None
    bits: float | None = None
    snr: float | None = None
    effort: int = 5

    def __post_init__(self) -> None:
        given = [name for name in ("size", "bits", "snr") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ConfigError(
                "one target, please",
                where="Target",
                found=", ".join(given) or "none",
                allowed="size, bits or snr",
            )
        check_effort("Target", self.effort, EFFORTS)
        if self.size is None:
            check_positive("Target", self.bits if self.snr is None else self.snr)
        else:
            check_positive("Target", parse_size(self.size, 100))

    def wanted_bytes(self, raw: int, elements: int) -> float | None:
        """Bytes of the file for tensors of *raw* bytes; None for a signal-to-noise ratio."""
        if self.bits is not None:
            return self.bits * elements / 8
        return None if self.size is None else parse_size(self.size, raw)

    def step(self, size: float, specs: Sequence[TensorSpec]) -> Step:
        """The quality of one attempt: one step, finer in tensors of few elements.

        Noise that layers add in relation to their signal adds up at the output, whatever their
        sizes, while bits are paid for each element; so the step of a small tensor falls with the
        root of its size. That takes next to no bytes, and depthwise convolutions live on it.
        """
        finer = {spec.name: size * _share(spec) for spec in specs if _share(spec) < 1}
        return Step(size, self.effort, by_tensor=finer, keep=self.keep, lossy=self.lossy)


def _share(spec: TensorSpec) -> float:
    return float(min(1.0, max(_LEAST_SHARE, math.sqrt(spec.elements / SMALL_ELEMENTS))))


@dataclass(frozen=True)
class Described:
    """The quality of a stream as its header says it: it is nothing that a decoder needs."""

    text: str

    def __str__(self) -> str:
        return self.text


Quality = Lossless | Digits | Step | MaxError | Codebook | Signs | Target
StreamQuality = Quality | Described
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_size(size: int | str, raw: int) -> float:
    """Bytes that *size* stands for, of tensors of *raw* bytes.

    Raises:
        ConfigError: it cannot be read.

    >>> parse_size("3 MB", 0), parse_size("2.5%", 1000)
    (3000000.0, 25.0)
    """
    text = str(size).strip().lower()
    number = text.rstrip("%abcdefghijklmnopqrstuvwxyz ")
    unit = text[len(number) :].strip()
    try:
        value = float(number)
        return value * raw / 100 if unit == "%" else value * _UNITS[unit]
    except (ValueError, KeyError):
        raise ConfigError(
            "bad size",
            found=repr(size),
            allowed="a number of bytes, with KB, MB, GB, KiB, MiB, GiB or %",
        ) from None


def check_positive(where: str, value: float | None) -> None:
    """Refuse what is not a positive, finite number.

    Raises:
        ConfigError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ConfigError("bad number", where=where, found=repr(value), allowed="above 0, finite")
