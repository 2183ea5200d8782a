"""The price of bits while a model is refined."""

from __future__ import annotations

import math
from dataclasses import dataclass

from limosa.codec.quality import check_positive
from limosa.errors import ConfigError

# How fast the price follows a wanted size: a factor e**GAIN for a size twice as large as wanted.
_GAIN = 0.02
_RANGE = 1e-9, 1.0


@dataclass
class Rate:
    """Quantize in the loop, and let bits cost something.

    Args:
        lam: what a bit costs, in units of the loss (nats for cross entropy).
        step: of the quantizer, a share of each tensor's own scale.
        target_bytes: let *lam* follow, so that the update comes to about this size.

    Raises:
        ConfigError: a value is out of range.

    >>> Rate(lam=1e-6).step
    0.5
    """

    lam: float = 1e-6
    step: float = 0.5
    target_bytes: int | None = None

    def __post_init__(self) -> None:
        check_positive("Rate.step", self.step)
        if self.lam < 0 or not math.isfinite(self.lam):
            raise ConfigError("bad price", where="Rate.lam", found=repr(self.lam), allowed="0 up")
        if self.target_bytes is not None:
            check_positive("Rate.target_bytes", self.target_bytes)

    def follow(self, nbytes: float) -> None:
        """Move the price towards the wanted size."""
        if self.target_bytes is not None:
            excess = math.log2(max(nbytes, 1.0) / self.target_bytes)
            excess = max(-2.0, min(2.0, excess))
            low, high = _RANGE
            self.lam = min(high, max(low, self.lam * math.exp(_GAIN * excess)))
