"""Where a feature comes from, and what both sides know of its channels beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limosa.codec.constants import SOURCE_ID_BYTES
from limosa.errors import ConfigError
from limosa.tensors import Tensor, map_digest


@dataclass(frozen=True, eq=False)
class Channels:
    """What is known of the channels of one tensor before it comes.

    Attributes:
        axis: of the channels in the tensor's shape.
        order: int32 (channels,): in which order they are coded, so that those alike are neighbours.
        scale: float32 (channels,): by how much coarser than the step each is quantized, in that
            order.
    """

    axis: int
    order: NDArray[np.int32]
    scale: NDArray[np.float32]

    def __post_init__(self) -> None:
        count = self.order.size
        if not np.array_equal(np.sort(self.order), np.arange(count)):
            raise ConfigError("no order of channels", found=f"{count} numbers")
        good = self.scale.shape == (count,) and np.isfinite(self.scale).all()
        if not good or not (self.scale >= np.float32(2.0**-60)).all():
            raise ConfigError("bad scales of channels", allowed=f"{count} numbers above 0")

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        """Refuse a tensor that has other channels.

        Raises:
            ConfigError: it has.
        """
        if self.axis >= len(shape) or shape[self.axis] != self.order.size:
            raise ConfigError(
                "a tensor of other channels than the profile's", where=f"tensor {name!r}",
                found=f"shape {shape}", allowed=f"{self.order.size} along axis {self.axis}",
            )  # fmt: skip


@dataclass(frozen=True, eq=False)
class FeatureProfile:
    """What calibration found out of a cut; both sides have it (:func:`limosa.save_profile`).

    Args:
        channels: by the names of the tensors that cross the cut.

    >>> import numpy as np
    >>> two = Channels(1, np.array([1, 0], np.int32), np.array([1, 2], np.float32))
    >>> FeatureProfile({"x": two}).digest.hex()[:8]
    '1f23f6a9'
    """

    channels: Mapping[str, Channels]

    @property
    def digest(self) -> bytes:
        """The state digest of its arrays."""
        return map_digest({n: Tensor.from_numpy(array) for n, array in self.arrays().items()})

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What stands in its file, by names."""
        arrays: dict[str, NDArray[Any]] = {}
        for name, one in self.channels.items():
            arrays[f"{name}.axis"] = np.array(one.axis, np.int32)
            arrays[f"{name}.order"] = np.asarray(one.order, np.int32)
            arrays[f"{name}.scale"] = np.asarray(one.scale, np.float32)
        return arrays


@dataclass(frozen=True)
class FeatureSource:
    """What a feature is of; both sides name it, and a feature of another source is refused.

    Args:
        model: the state digest of the whole model (docs/format.md 4), 32 bytes.
        cut: where the model is cut, such as ``"layer3"``; several names with commas between.
        profile: what calibration found out of this cut.

    Raises:
        ConfigError: *model* is no digest.

    >>> FeatureSource(bytes(32), "layer3").id.hex()
    'aedabfc3eeb5972a'
    """

    model: bytes
    cut: str
    profile: FeatureProfile | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if len(self.model) != 32:
            raise ConfigError(
                "no digest of a model", found=f"{len(self.model)} bytes", allowed="32 bytes"
            )

    @cached_property
    def id(self) -> bytes:
        """8 bytes that name model, cut and profile in every feature (docs/format.md 9.1)."""
        from blake3 import blake3

        profile = b"" if self.profile is None else self.profile.digest
        whole: bytes = blake3(self.model + profile + self.cut.encode()).digest()
        return whole[:SOURCE_ID_BYTES]
