"""Profiles of features as files."""

from __future__ import annotations

import os

import numpy as np

from limosa.codec.arrays import load_file, save_file
from limosa.codec.feature.source import Channels, FeatureProfile
from limosa.errors import ConfigError, CorruptError
from limosa.limits import Limits

_PARTS = ("axis", "order", "scale")


def save_profile(
    profile: FeatureProfile,
    path: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
) -> None:
    """Write a profile as a .limosa file; *metadata* are for people.

    >>> import tempfile
    >>> two = Channels(1, np.array([1, 0], np.int32), np.array([1, 2], np.float32))
    >>> profile = FeatureProfile({"x": two})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_profile(profile, f"{folder}/x.profile")
    ...     load_profile(f"{folder}/x.profile").digest == profile.digest
    True
    """
    save_file(profile.arrays(), path, metadata)


def load_profile(path: str | os.PathLike[str], *, limits: Limits | None = None) -> FeatureProfile:
    """Read what :func:`save_profile` wrote.

    Raises:
        FormatError: it is damaged, or a file of something else.
    """
    arrays = load_file(path, limits=limits)
    channels = {}
    try:
        for name in dict.fromkeys(name.rpartition(".")[0] for name in arrays):
            axis, order, scale = (arrays[f"{name}.{part}"] for part in _PARTS)
            channels[name] = Channels(int(axis), order.astype(np.int32), scale.astype(np.float32))
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise CorruptError("no profile of a feature", found=str(error)[:80]) from None
    return FeatureProfile(channels)
