"""What a service of features allows."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from limosa.errors import ConfigError
from limosa.limits import MIB, Limits

#: One feature of a network for images has a few million elements at most.
FEATURE_LIMITS = Limits(
    max_elements=2**24,
    max_tensors=64,
    max_name_bytes=256,
    max_rank=8,
    max_total_bytes=64 * MIB,
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Bounds of a service, each of which keeps one client from taking what others need.

    Attributes:
        batch: features that the tails compute at once.
        wait_ms: how long the first of a batch waits for others.
        queue: features of a cut that may wait; one more gets 429, a stream is not read.
        max_message_bytes: of one feature as it comes; so many for each connection may be held.
        max_pending_bytes: decoded, of all features that wait or are computed.
        max_connections: requests and streams at once.
        window: features of one stream under way; what follows is not read.
        rate: features a second from one address, None: any.
        burst: features that may come at once before the rate counts.
        idle_s: seconds that a stream may be silent, or a connection without a request.
        request_s: seconds for the body of a request to come, and again for its answer.
        stop_s: seconds that requests have to end when the service stops.
        decode_threads: threads that decode.
        limits: what a feature may ask for.

    Raises:
        ConfigError: a bound is not above 0.

    >>> Settings(batch=4).batch
    4
    """

    batch: int = 8
    wait_ms: float = 2.0
    queue: int = 64
    max_message_bytes: int = 8 * MIB
    max_pending_bytes: int = 512 * MIB
    max_connections: int = 256
    window: int = 8
    rate: float | None = None
    burst: int = 32
    idle_s: float = 30.0
    request_s: float = 60.0
    stop_s: float = 10.0
    decode_threads: int = 2
    limits: Limits = FEATURE_LIMITS

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "limits" or (field.name == "rate" and value is None):
                continue
            least = 0 if field.name == "wait_ms" else math.ulp(0.0)
            if not isinstance(value, (int, float)) or not least <= value < math.inf:
                raise ConfigError(
                    "bad bound", where=f"Settings.{field.name}", found=repr(value),
                    allowed="a number above 0",
                )  # fmt: skip
