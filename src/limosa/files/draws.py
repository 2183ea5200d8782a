"""Random tensors of peft, drawn from their seeds by torch as peft draws them.

torch promises the same numbers for the same seed only within a version of it, so whoever draws
compares a digest before the result is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from limosa.errors import CorruptError, LimitError
from limosa.files.torch_storage import import_torch
from limosa.limits import Limits
from limosa.tensors import Bytes, TensorSpec

if TYPE_CHECKING:
    import torch

#: Methods, and the sizes that each needs.
METHODS = {
    # rows and columns of A, rows and columns of B: VeRA, PVeRA
    "uniform": 4,
    # rank, the larger and the smaller side, 0 for bfloat16 or 1 for float16: RandLoRA
    "bases": 4,
    # rank, the larger and the smaller side, the sparsity or 0 for the root of the smaller side
    "sparse": 4,
    # outputs, inputs, elements chosen: SHiRA
    "mask": 3,
}
_STORED = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I32": "int32"}


@dataclass(frozen=True)
class Draw:
    """How a tensor is drawn.

    Attributes:
        method: one of :data:`METHODS`.
        seed: of torch's generator for the processor.
        sizes: what the method needs.
        part: which of the tensors that the method draws, one after another.
    """

    method: str
    seed: int
    sizes: tuple[int, ...]
    part: int = 0

    def check(self, limits: Limits) -> None:
        """Refuse what nobody would draw.

        Raises:
            CorruptError: the method is unknown, or its numbers are out of range.
            LimitError: it takes more elements than *limits* allow.
        """
        counts = METHODS.get(self.method)
        if counts is None or len(self.sizes) != counts or self.part not in (0, 1):
            raise CorruptError(
                "unknown draw", where="skeleton", found=f"{self.method[:20]!r} {self.sizes[:5]}",
                allowed=", ".join(METHODS), remedy="upgrade limosa",
            )  # fmt: skip
        if not -(2**63) <= self.seed < 2**64 or not all(0 <= n < 2**48 for n in self.sizes):
            raise CorruptError("a seed or a size out of range", where="skeleton")
        if not all(self.sizes[: 2 if self.method == "mask" else 3]):
            raise CorruptError("a draw of nothing", where="skeleton", found=str(self.sizes))
        if _elements(self) > limits.max_elements:
            raise LimitError(
                "too many random numbers", where="skeleton", found=str(_elements(self)),
                allowed=f"max_elements {limits.max_elements}",
                remedy="pass a larger Limits to read it",
            )  # fmt: skip


class Drawer:
    """Draws tensors; those that one seed gives together are drawn once where they follow.

    Raises:
        MissingExtraError: torch is not installed.
    """

    def __init__(self, limits: Limits) -> None:
        self._torch = import_torch("drawing an adapter's random tensors")
        self._limits = limits
        self._held: tuple[object, tuple[torch.Tensor, ...]] = (None, ())

    @property
    def version(self) -> str:
        """The version of torch, without what it was built for."""
        return str(self._torch.__version__).partition("+")[0]

    def draw(self, draw: Draw, spec: TensorSpec) -> Bytes:
        """The bytes of the tensor *spec*.

        Raises:
            CorruptError: the draw gives a tensor of another shape, or *spec* a dtype that is
                never drawn.
            LimitError: it takes more elements than allowed, or more memory than there is.
        """
        draw.check(self._limits)
        key = draw.method, draw.seed, draw.sizes
        if self._held[0] != key:
            self._held = None, ()
            try:
                self._held = key, self._together(draw)
            except (MemoryError, RuntimeError) as error:
                raise LimitError(
                    "torch cannot draw this", where=f"tensor {spec.name!r}", found=str(error)[:120]
                ) from None
        parts = self._held[1]
        if draw.part >= len(parts) or tuple(parts[draw.part].shape) != spec.shape:
            raise CorruptError("a draw of another shape", where=f"tensor {spec.name!r}")
        if spec.dtype not in _STORED:
            raise CorruptError(
                "a dtype that is never drawn", where=f"tensor {spec.name!r}", found=spec.dtype
            )
        stored = parts[draw.part].to(getattr(self._torch, _STORED[spec.dtype])).contiguous()
        data: Bytes = stored.reshape(-1).view(self._torch.uint8).numpy()
        return data

    def _together(self, draw: Draw) -> tuple[torch.Tensor, ...]:
        torch = self._torch
        generator = torch.Generator(device="cpu").manual_seed(draw.seed)
        with torch.no_grad():
            if draw.method == "uniform":
                shapes = draw.sizes[:2], draw.sizes[2:]
                return tuple(
                    _uniform(torch.empty(shape), shape[1], 0, generator) for shape in shapes
                )
            if draw.method == "mask":
                return (_mask(draw, generator),)
            return _bases(draw, generator)


def _elements(draw: Draw) -> int:
    """Numbers that are held at a time."""
    sizes = draw.sizes
    if draw.method == "uniform":
        return sizes[0] * sizes[1] + sizes[2] * sizes[3]
    if draw.method == "mask":
        return sizes[0] * sizes[1]
    rank, larger, smaller = sizes[:3]
    return smaller * rank + larger * -(-smaller // rank) * rank


def _uniform(tensor: torch.Tensor, fan: int, a: float, generator: torch.Generator) -> torch.Tensor:
    """Kaiming's initialisation: its bound in the order of operations that torch has."""
    bound = math.sqrt(3.0) * (math.sqrt(2.0 / (1 + a**2)) / math.sqrt(fan))
    tensor.uniform_(-bound, bound, generator=generator)
    return tensor


def _bases(draw: Draw, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    import torch

    rank, larger, smaller, last = draw.sizes
    count = -(-smaller // rank)
    if draw.method == "sparse":
        sparsity = last or math.sqrt(smaller)
        drawn = [
            torch.rand(shape, generator=generator)
            for shape in ((rank, 1, smaller), (larger, count, rank))
        ]
        signs = []
        for values in drawn:
            sign = torch.zeros(values.shape)
            sign[values < 1 / (2 * sparsity)] = -1
            sign[values > 1 - 1 / (2 * sparsity)] = 1
            signs.append(sign)
        return tuple(sign / sign.std() for sign in signs)
    dtype = torch.float16 if last else torch.bfloat16
    a = math.sqrt(5)
    left = _uniform(torch.empty((rank, 1, smaller), dtype=dtype), smaller, a, generator)
    rights = [
        _uniform(torch.empty((larger, 1, rank), dtype=dtype), rank, a, generator)
        for _ in range(count)
    ]
    right = torch.cat(rights, dim=1)
    return left / left.std(), right / right.std()


def _mask(draw: Draw, generator: torch.Generator) -> torch.Tensor:
    """Rows and columns of the chosen elements, in order."""
    import torch

    outputs, inputs, count = draw.sizes
    chosen = torch.randperm(outputs * inputs, generator=generator)[:count].sort().values
    rows = torch.div(chosen, inputs, rounding_mode="floor")
    return torch.stack([rows, chosen - rows * inputs])
