"""Send what a neural network knows over a network in as few bytes as it can.

A model goes into a ``.limosa`` file and comes back exactly; against a *base* that the receiver
already holds, only the difference travels.

>>> import numpy as np
>>> import limosa
>>> old = {"w": np.linspace(0, 1, 1000, dtype=np.float32)}
>>> new = {"w": np.nextafter(old["w"], np.float32(2))}
>>> update = limosa.save(new, base=old)
>>> len(update) < len(limosa.save(new))
True
>>> np.array_equal(limosa.load(update, base=old)["w"], new["w"])
True

Everything here is imported on first use, so that ``import limosa`` costs nothing. For torch
tensors see ``limosa.torch``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limosa.codec.arrays import load as load
    from limosa.codec.arrays import load_file as load_file
    from limosa.codec.arrays import open_file as open_file
    from limosa.codec.arrays import save as save
    from limosa.codec.arrays import save_file as save_file
    from limosa.codec.base import Base as Base
    from limosa.codec.config import Digits as Digits
    from limosa.codec.config import Lossless as Lossless
    from limosa.codec.feature.decode import FeatureDecoder as FeatureDecoder
    from limosa.codec.feature.encode import FeatureEncoder as FeatureEncoder
    from limosa.codec.feature.profile_file import load_profile as load_profile
    from limosa.codec.feature.profile_file import save_profile as save_profile
    from limosa.codec.feature.source import Channels as Channels
    from limosa.codec.feature.source import FeatureProfile as FeatureProfile
    from limosa.codec.feature.source import FeatureSource as FeatureSource
    from limosa.codec.inspect import inspect as inspect
    from limosa.codec.opening import open_base as open_base
    from limosa.codec.quality import Codebook as Codebook
    from limosa.codec.quality import MaxError as MaxError
    from limosa.codec.quality import Signs as Signs
    from limosa.codec.quality import Step as Step
    from limosa.codec.quality import Target as Target
    from limosa.errors import BaseMismatchError as BaseMismatchError
    from limosa.errors import ChecksumError as ChecksumError
    from limosa.errors import ConfigError as ConfigError
    from limosa.errors import CorruptError as CorruptError
    from limosa.errors import FormatError as FormatError
    from limosa.errors import LimitError as LimitError
    from limosa.errors import LimosaError as LimosaError
    from limosa.errors import MissingExtraError as MissingExtraError
    from limosa.errors import TruncatedError as TruncatedError
    from limosa.errors import UnsupportedVersionError as UnsupportedVersionError
    from limosa.exchange.local import apply as apply
    from limosa.exchange.local import compress as compress
    from limosa.exchange.local import compress_layers as compress_layers
    from limosa.exchange.local import decompress as decompress
    from limosa.exchange.local import diff as diff
    from limosa.exchange.local import verify as verify
    from limosa.limits import Limits as Limits
    from limosa.tensors import Tensor as Tensor

__version__ = "0.1.0"

_HOMES = {
    "limosa.codec.arrays": ("load", "load_file", "open_file", "save", "save_file"),
    "limosa.codec.base": ("Base",),
    "limosa.codec.config": ("Digits", "Lossless"),
    "limosa.codec.feature.decode": ("FeatureDecoder",),
    "limosa.codec.feature.encode": ("FeatureEncoder",),
    "limosa.codec.feature.profile_file": ("load_profile", "save_profile"),
    "limosa.codec.feature.source": ("Channels", "FeatureProfile", "FeatureSource"),
    "limosa.codec.inspect": ("inspect",),
    "limosa.codec.opening": ("open_base",),
    "limosa.codec.quality": ("Codebook", "MaxError", "Signs", "Step", "Target"),
    "limosa.errors": (
        "BaseMismatchError",
        "ChecksumError",
        "ConfigError",
        "CorruptError",
        "FormatError",
        "LimitError",
        "LimosaError",
        "MissingExtraError",
        "TruncatedError",
        "UnsupportedVersionError",
    ),
    "limosa.exchange.local": (
        "apply",
        "compress",
        "compress_layers",
        "decompress",
        "diff",
        "verify",
    ),
    "limosa.limits": ("Limits",),
    "limosa.tensors": ("Tensor",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Base",
    "BaseMismatchError",
    "Channels",
    "ChecksumError",
    "Codebook",
    "ConfigError",
    "CorruptError",
    "Digits",
    "FeatureDecoder",
    "FeatureEncoder",
    "FeatureProfile",
    "FeatureSource",
    "FormatError",
    "LimitError",
    "Limits",
    "LimosaError",
    "Lossless",
    "MaxError",
    "MissingExtraError",
    "Signs",
    "Step",
    "Target",
    "Tensor",
    "TruncatedError",
    "UnsupportedVersionError",
    "apply",
    "compress",
    "compress_layers",
    "decompress",
    "diff",
    "inspect",
    "load",
    "load_file",
    "load_profile",
    "open_base",
    "open_file",
    "save",
    "save_file",
    "save_profile",
    "verify",
]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'limosa' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
