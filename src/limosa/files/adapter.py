"""Adapters as peft writes them: a folder with ``adapter_config.json`` and safetensors."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limosa.errors import ConfigError, CorruptError, LimitError
from limosa.files.read import read
from limosa.limits import Limits
from limosa.tensors import TensorMap

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
#: Of all names in the weights of an adapter.
PREFIX = "base_model.model."
_MAX_CONFIG_BYTES = 2**20


@dataclass(frozen=True)
class Adapter:
    """An adapter.

    Attributes:
        kind: the ``peft_type`` of its configuration, such as ``"LORA"``.
        config: the rest of it.
        tensors: by peft's names, less the prefix ``base_model.model.``.
    """

    kind: str
    config: Mapping[str, Any]
    tensors: TensorMap

    def scaling(self, module: str, rank: int) -> float:
        """By what a LoRA product of a module is multiplied: alpha / r, or alpha / sqrt(r).

        Raises:
            CorruptError: the configuration has no number there.
        """
        alpha = _of_module(self.config.get("alpha_pattern"), module, self.config.get("lora_alpha"))
        if not isinstance(alpha, (int, float)) or not math.isfinite(alpha) or rank < 1:
            raise CorruptError("no lora_alpha", where=CONFIG, found=repr(alpha))
        return alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)


def read_adapter(folder: str | os.PathLike[str], *, limits: Limits | None = None) -> Adapter:
    """Read an adapter; nothing in it is executed.

    Raises:
        ConfigError: there is no adapter, or only a pickled one.
        FormatError: a file is damaged or exceeds *limits*.
    """
    path = Path(folder)
    if not (path / CONFIG).is_file():
        raise ConfigError(
            "no adapter", where=os.fspath(folder), found=f"no {CONFIG}",
            allowed="a folder that peft's save_pretrained wrote",
        )  # fmt: skip
    if not (path / WEIGHTS).is_file():
        raise ConfigError(
            "no weights of an adapter", where=os.fspath(folder), found=f"no {WEIGHTS}",
            remedy="a pickled adapter_model.bin is not read: save it again with safetensors",
        )  # fmt: skip
    config = _read_config(path / CONFIG)
    with read(path / WEIGHTS, limits=limits) as bundle:
        tensors = {spec.name.removeprefix(PREFIX): bundle.get(spec.name) for spec in bundle.specs}
    return Adapter(str(config.get("peft_type")), config, tensors)


def _read_config(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MAX_CONFIG_BYTES:
        raise LimitError(
            "the configuration is too long", where=CONFIG, found=f"{path.stat().st_size} bytes",
            allowed=f"{_MAX_CONFIG_BYTES}",
        )  # fmt: skip
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CorruptError("not JSON", where=CONFIG, found=str(error)[:80]) from None
    if not isinstance(config, dict):
        raise CorruptError("not an object", where=CONFIG, found=type(config).__name__)
    return config


def _of_module(patterns: Any, module: str, default: Any) -> Any:
    """The value of the first pattern that names *module*, as peft matches: a suffix of it."""
    if isinstance(patterns, dict):
        for pattern, value in patterns.items():
            if re.fullmatch(rf"(.*\.)?({re.escape(pattern)})", module):
                return value
    return default
