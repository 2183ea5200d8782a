"""An adapter merged into an update of its base: the factors travel, the edge multiplies them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from limosa.codec.base import Base
from limosa.codec.opening import BaseLike, open_base
from limosa.codec.refinement.rebuild import right_signs, sign_scale
from limosa.codec.refinement.records import (
    Change,
    Difference,
    Factors,
    numbers_of,
)
from limosa.codec.refinement.write import Written, quantize_levels, write_refinement
from limosa.errors import ConfigError, CorruptError
from limosa.exchange.adapter_parts import (
    ADDED,
    OWN_NAMES,
    Matrix,
    added_parts,
    base_values,
    learned_values,
    refined_spec,
)
from limosa.files.adapter import Adapter, read_adapter
from limosa.limits import Limits
from limosa.tensors import Tensor, TensorSpec

#: Signal-to-noise ratio of what the adapter adds, in dB, unless another is asked for.
SNR = 50.0
# The seeded signs, to which a right factor is a difference, shall be small beside it.
_ABOVE_SIGNS = 2.0**10
_LORA = {
    "lora_A.weight": "lora_B.weight",
    "lora_embedding_A": "lora_embedding_B",
}


class LowRank(NamedTuple):
    """What is added to a tensor: left (o, r) times right (r, i)."""

    name: str
    left: Matrix
    right: Matrix


def merge_adapter(
    base: BaseLike,
    folder: str | os.PathLike[str],
    *,
    snr: float = SNR,
    threads: int | None = None,
    limits: Limits | None = None,
) -> Written:
    """The update that merges an adapter into its base, as ``merge_and_unload`` of peft does.

    The factors of LoRA travel as they are; what SHiRA, IA3 and VeRA add to a tensor travels as a
    difference, since the edge has no method of theirs.

    Args:
        base: the model that the adapter was trained on, which the receiver holds.
        folder: as peft's ``save_pretrained`` writes it.
        snr: how exactly, in dB of what the adapter adds; 50 is a third of its bytes.

    Raises:
        ConfigError: the adapter is of a kind that cannot be merged, or of another base.
        FormatError: a file is damaged.
    """
    if not 0 < snr <= 120:
        raise ConfigError("bad ratio", where="snr", found=repr(snr), allowed="above 0 to 120 dB")
    held = open_base(base, limits=limits, threads=threads)
    adapter = read_adapter(folder, limits=limits)
    # Left and right factor add as much noise each: 2 share^2 / 12 of the signal.
    share = math.sqrt(6.0 * 10.0 ** (-snr / 10.0))
    return write_refinement(held, list(_changes(held, adapter, share)), threads=threads)


def low_rank_parts(adapter: Adapter, specs: Mapping[str, TensorSpec]) -> Iterator[LowRank]:
    """The products that a LoRA adapter adds to tensors of *specs*.

    Raises:
        ConfigError: the adapter is of another base, or a DoRA.
        CorruptError: its factors do not fit each other.
    """
    for name, tensor in adapter.tensors.items():
        for first, second in _LORA.items():
            if not name.endswith(f".{first}"):
                continue
            module = name.removesuffix(f".{first}")
            other = adapter.tensors.get(f"{module}.{second}")
            if other is None:
                raise CorruptError("a factor without the other", where=f"tensor {name!r}")
            if f"{module}.lora_magnitude_vector" in adapter.tensors:
                raise ConfigError(
                    "DoRA is no product", where=f"layer {module!r}", remedy="merge it with peft"
                )
            yield _part(adapter, module, first, tensor, other, specs)


def _part(
    adapter: Adapter, module: str, kind: str, a: Tensor, b: Tensor, specs: Mapping[str, TensorSpec]
) -> LowRank:
    spec = refined_spec(f"{module}.weight", specs)
    right = _matrix(a, f"{module}.{kind}")
    left = _matrix(b, f"{module}.{kind}")
    if right.shape[0] != left.shape[1]:
        raise CorruptError(
            "ranks that differ", where=f"layer {module!r}", found=f"{right.shape}, {left.shape}"
        )
    scaling = adapter.scaling(module, right.shape[0])
    if kind == "lora_embedding_A" or adapter.config.get("fan_in_fan_out"):
        left, right = right.T, left.T
    rows = spec.shape[0] if spec.shape else 0
    if left.shape[0] != rows or left.shape[0] * right.shape[1] != spec.elements:
        raise ConfigError(
            "an adapter of another base", where=f"tensor {spec.name!r}",
            found=f"{left.shape[0]} x {right.shape[1]}", allowed=str(spec.shape),
        )  # fmt: skip
    return LowRank(spec.name, left * scaling, right)


def _matrix(tensor: Tensor, where: str) -> Matrix:
    if len(tensor.shape) < 2:
        raise CorruptError("no factor", where=f"tensor {where!r}", found=f"{tensor.shape}")
    return learned_values(tensor, where).reshape(tensor.shape[0], -1)


def _changes(base: Base, adapter: Adapter, share: float) -> Iterator[Change]:
    numbers = numbers_of(base.specs)
    if adapter.kind == "LORA":
        for part in low_rank_parts(adapter, base.specs):
            change = _factors(part, numbers[part.name], share)
            if change is not None:
                yield change
    elif adapter.kind in ADDED:
        for name, added in added_parts(adapter, base):
            yield _difference(added, numbers[name], share)
    else:
        raise ConfigError(
            "an adapter that cannot be merged", where="adapter_config.json", found=adapter.kind,
            allowed=", ".join(["LORA", *ADDED]), remedy="merge it with peft, and diff the result",
        )  # fmt: skip
    for name, tensor in adapter.tensors.items():
        if OWN_NAMES.search(name):
            continue  # above
        spec = refined_spec(name, base.specs)
        if spec.shape != tensor.shape:
            raise ConfigError(
                "an adapter of another base", where=f"tensor {name!r}", found=str(tensor.shape),
                allowed=str(spec.shape),
            )  # fmt: skip
        yield _difference(
            learned_values(tensor, name) - base_values(base, spec), numbers[name], share
        )


def _factors(part: LowRank, number: int, share: float) -> Change | None:
    """Each column of the left and row of the right factor scaled to one step of their kind."""
    if not part.left.any() or not part.right.any():
        return None
    rank, columns = part.right.shape
    sizes = np.sqrt(np.mean(part.right**2, axis=1))
    signs = right_signs(0, number, 0, columns, rank)
    # Powers of two, so that nothing is rounded here.
    wanted = _ABOVE_SIGNS * sign_scale(columns)
    scale = np.exp2(np.rint(np.log2(wanted / np.where(sizes > 0, sizes, wanted))))
    left, right = part.left / scale, part.right * scale[:, None]
    arrays = (
        quantize_levels(left, share * float(np.sqrt(np.mean(left**2)))),
        quantize_levels(right - signs, share * wanted),
    )
    return Change(number, Factors(1, augmented=rank, learned_right=True), arrays)


def _difference(moved: Matrix, number: int, share: float) -> Change:
    size = float(np.sqrt(np.mean(moved * moved))) if moved.size else 0.0
    # Where few elements move, the noise is theirs alone.
    few = float(np.sqrt(np.mean(moved != 0))) if moved.size else 0.0
    step = share * size / few if few else 1.0
    return Change(number, Difference(), (quantize_levels(moved.reshape(-1), step),))
