"""Which tensors of a peft adapter its seed gives again: peft itself draws them, on one layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from limosa.errors import ConfigError, LimitError, MissingExtraError
from limosa.files.adapter import Adapter
from limosa.limits import Limits
from limosa.tensors import Tensor, TensorMap
from limosa.torch.dtypes import TORCH_DTYPES, to_tensor

#: What peft draws for each kind of adapter, and saves although it need not.
DRAWN = {
    "VERA": ("vera_A", "vera_B"),
    "PVERA": ("pvera_A", "pvera_B"),
    "RANDLORA": ("randlora_A", "randlora_B"),
    "SHIRA": ("shira_indices",),
}
# What the draw depends on, beside the shapes of the layers.
_SETTINGS = ("r", "projection_prng_key", "sparse", "very_sparse", "random_seed", "mask_type")


@dataclass(frozen=True)
class Draw:
    """The largest layer that peft draws for.

    Attributes:
        inputs, outputs: of the layer.
        dtype: of its weights.
    """

    inputs: int
    outputs: int
    dtype: str


def find_draws(adapter: Adapter, *, limits: Limits | None = None) -> dict[str, Draw]:
    """The tensors that peft draws again, bit for bit, when it loads the adapter.

    peft draws the projections of VeRA, PVeRA and RandLoRA from ``projection_prng_key``, and the
    indices of SHiRA from ``random_seed``. torch promises the same numbers only within a version of
    it, so whoever leaves them out keeps their digests.

    Args:
        adapter: as :func:`limosa.files.adapter.read_adapter` reads it.
        limits: how large a layer may be.

    Raises:
        MissingExtraError: peft is not installed.
    """
    held = limits or Limits()
    found: dict[str, Draw] = {}
    made: dict[Draw, TensorMap] = {}  # layers of one shape are many, and their draws are one
    for start in _starts(adapter):
        names = [start + last for last in DRAWN[adapter.kind]]
        draw = _draw_of(adapter, names, made, held)
        if draw is not None:
            found |= dict.fromkeys(names, draw)
        elif adapter.kind != "SHIRA":
            return {}  # save_projection is for all of them
    return found


def _draw_of(
    adapter: Adapter, names: list[str], made: dict[Draw, TensorMap], limits: Limits
) -> Draw | None:
    for draw in _candidates(adapter, [adapter.tensors[name] for name in names], limits):
        if draw not in made:
            made[draw] = draw_again(adapter, draw, limits=limits)
        if all(_same(made[draw].get(_last(name)), adapter.tensors[name]) for name in names):
            return draw
    return None


def draw_again(adapter: Adapter, draw: Draw, *, limits: Limits | None = None) -> TensorMap:
    """What peft draws for one layer, by the last part of the names.

    Raises:
        ConfigError: no such adapter has a seed.
        LimitError: the layer is larger than *limits* allow.
        MissingExtraError: peft is not installed.
    """
    dtype = TORCH_DTYPES.get(draw.dtype)
    if adapter.kind not in DRAWN or not _sound(adapter.config) or dtype is None:
        raise ConfigError("an adapter without a seed", found=f"{adapter.kind} {draw.dtype}")
    # SHiRA shuffles the elements of the layer; the others draw this many times the rank.
    sides = draw.inputs + draw.outputs
    elements = draw.inputs * draw.outputs if adapter.kind == "SHIRA" else sides * 4
    if elements * adapter.config["r"] > (limits or Limits()).max_elements:
        raise LimitError("a layer too large to draw for", found=f"{draw.inputs} x {draw.outputs}")
    made = _adapted(adapter, draw, dtype)
    return {
        _last(name): to_tensor(name, tensor)
        for name, tensor in made.items()
        if _last(name) in DRAWN[adapter.kind]
    }


def _sound(config: Mapping[str, Any]) -> bool:
    """Whether the settings of the draw are numbers that peft would have taken."""
    rank, key = config.get("r"), config.get("projection_prng_key", config.get("random_seed"))
    flags = [config.get(name, False) for name in ("sparse", "very_sparse")]
    if not isinstance(rank, int) or not 0 < rank < 2**31 or not all(f in (0, 1) for f in flags):
        return False
    if config.get("mask_type", "random") != "random":
        return False  # drawn by code that we do not have
    return isinstance(key, int) and not isinstance(key, bool) and 0 <= key < 2**63


def _starts(adapter: Adapter) -> list[str]:
    """The starts of the names of tensors that are drawn together."""
    kinds = DRAWN.get(adapter.kind)
    if kinds is None or not _sound(adapter.config):
        return []
    starts = [name.removesuffix(kinds[0]) for name in adapter.tensors if _last(name) == kinds[0]]
    return [start for start in starts if all(start + kind in adapter.tensors for kind in kinds)]


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _same(drawn: Tensor | None, stored: Tensor) -> bool:
    if drawn is None or drawn.dtype != stored.dtype or drawn.shape != stored.shape:
        return False
    return np.array_equal(drawn.data, stored.data)


def _candidates(adapter: Adapter, stored: list[Tensor], limits: Limits) -> Iterator[Draw]:
    """The layers that *stored* may have been drawn for."""
    if adapter.kind == "SHIRA":
        yield from _masked(adapter.config["r"], stored[0], limits)
        return
    first, second = stored
    if first.dtype == "F32" and first.shape and second.shape and first.data.size:
        # Unless told otherwise peft saves float32: of layers in half precision, what they rounded.
        for dtype in ("F32", "BF16", "F16"):
            yield Draw(first.shape[-1], second.shape[0], dtype)


def _masked(rank: int, indices: Tensor, limits: Limits) -> Iterator[Draw]:
    """SHiRA's indices are rank * (inputs + outputs), and come near to the last row and column."""
    if indices.dtype != "I32" or len(indices.shape) != 2 or indices.shape[0] != 2:
        return
    count = indices.shape[1]
    if not count or count % rank:
        return
    rows, columns = (int(n) + 1 for n in indices.data.view("<i4").reshape(2, -1).max(axis=1))
    for outputs in range(rows, rows + 3):
        inputs = count // rank - outputs
        fits = rows > 0 and columns <= inputs and count <= inputs * outputs
        if fits and inputs * outputs * rank <= limits.max_elements:
            yield Draw(inputs, outputs, "F32")


class _OneLayer(nn.Module):
    """A model of one layer, whose weights take no memory."""

    def __init__(self, inputs: int, outputs: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, outputs, bias=False, device="meta")
        weight = torch.zeros((), dtype=dtype).expand(outputs, inputs)
        self.layer.weight = nn.Parameter(weight, requires_grad=False)


def _adapted(adapter: Adapter, draw: Draw, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """What peft would save of a new adapter of one layer."""
    try:
        import peft
    except ImportError:
        raise MissingExtraError(
            "peft is not installed", where=adapter.kind, remedy="pip install peft"
        ) from None
    known: Any = peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(adapter.kind)]
    settings = {name: adapter.config[name] for name in _SETTINGS if name in adapter.config}
    layer = _OneLayer(draw.inputs, draw.outputs, dtype)
    model = peft.get_peft_model(layer, known(target_modules=["layer"], **settings))
    made: dict[str, torch.Tensor] = peft.get_peft_model_state_dict(model)
    return made
