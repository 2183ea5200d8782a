"""Qualities as people write them: ``size=5%``, ``snr=30``."""

from __future__ import annotations

from limosa.codec.quality import Codebook, MaxError, Signs, Step, Target
from limosa.codec.quality import Quality as Quality
from limosa.errors import ConfigError

_ALLOWED = "size=, bits=, snr=, step=, max-error=, codebook=, signs"


def parse_quality(text: str) -> Quality:
    """What *text* asks for.

    Raises:
        ConfigError: nothing that is known, or nothing that is possible.

    >>> parse_quality("bits=4") == Target(bits=4)
    True
    >>> parse_quality("best")
    Traceback (most recent call last):
    limosa.errors.ConfigError: no quality; found 'best', allowed size=, bits=, snr=, step=, \
max-error=, codebook=, signs
    """
    kind, _, value = text.strip().partition("=")
    try:
        if kind == "size" and value:
            return Target(size=int(value) if value.isdigit() else value)
        if kind == "bits":
            return Target(bits=float(value))
        if kind == "snr":
            return Target(snr=float(value))
        if kind == "step":
            return Step(float(value))
        if kind == "codebook":
            return Codebook(int(value))
        if kind == "max-error":
            if value.endswith("%"):
                return MaxError(rel=float(value[:-1]) / 100)
            return MaxError(abs=float(value))
        if kind == "signs" and not value:
            return Signs()
    except ValueError:
        raise ConfigError("no number", where=kind, found=repr(value)[:60]) from None
    raise ConfigError("no quality", found=repr(text)[:60], allowed=_ALLOWED)
