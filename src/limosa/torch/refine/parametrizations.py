"""The re-parameterisations of a tensor, for ``torch.nn.utils.parametrize``.

Each adds to (or replaces) the frozen original what its learned arrays say, keeps what is frozen in
buffers that no state dict holds, and names the record that the receiver rebuilds the tensor by.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from limosa.codec.refinement.philox import mask
from limosa.codec.refinement.rebuild import decompose, right_signs, sign_scale
from limosa.codec.refinement.records import Difference, Factors, Levels, Masked, Record, Rows
from limosa.torch.refine.learned import Learned, LearnedRight

# Below this share of the largest, singular values count as 0; nearer than this, as equal.
_RELATIVE_GAP = 1e-6
# A tensor whose touched rows are fewer than this share is sent by rows.
_FEW_ROWS = 0.5


class Reparametrization(nn.Module):
    """What all have in common.

    Attributes:
        arrays: what is learned, in the order in which it travels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.arrays = nn.ModuleList()

    def learned(self) -> Iterator[Learned]:
        """The learned arrays."""
        for array in self.arrays:
            assert isinstance(array, Learned)
            yield array

    @property
    def size(self) -> int:
        """Learned values."""
        return sum(array.latent.numel() for array in self.learned())

    def delta(self) -> torch.Tensor:
        """What is added to the original, in float32."""
        raise NotImplementedError

    def forward(self, original: torch.Tensor) -> torch.Tensor:
        """The tensor that the layer computes with."""
        return (original.float() + self.delta().reshape(original.shape)).to(original.dtype)

    def record(self, share: float) -> tuple[Record, tuple[Levels, ...]]:
        """What the receiver needs."""
        raise NotImplementedError


class DifferenceOf(Reparametrization):
    """Every element moves for itself."""

    def __init__(self, weight: torch.Tensor, unit: float) -> None:
        super().__init__()
        self.arrays.append(Learned(tuple(weight.shape), unit, weight.device))

    def delta(self) -> torch.Tensor:
        """The learned array."""
        found: torch.Tensor = self.arrays[0]()
        return found

    def record(self, share: float) -> tuple[Record, tuple[Levels, ...]]:
        """A difference, or the rows that were touched if they are few (an embedding)."""
        (array,) = self.learned()
        levels, shape = array.levels(share), array.latent.shape
        if len(shape) > 1 and levels.step:
            by_row = levels.levels.reshape(shape[0], -1)
            touched = np.flatnonzero(by_row.any(axis=1))
            if touched.size < _FEW_ROWS * shape[0]:
                kept = Levels(by_row[touched].reshape(-1), levels.step)
                return Rows(tuple(touched.tolist())), (kept,)
        return Difference(), (levels,)


class MaskedDifference(Reparametrization):
    """Random Mask: a seeded share of the elements moves (Konečný et al., 2016)."""

    def __init__(
        self, weight: torch.Tensor, unit: float, share: float, seed: int, number: int
    ) -> None:
        super().__init__()
        self._threshold = round(share * 2**32)
        chosen = mask(seed, (number, 0), weight.numel(), self._threshold)
        places = torch.from_numpy(np.flatnonzero(chosen)).to(weight.device)
        self.register_buffer("places", places, persistent=False)
        self._size = weight.numel()
        self.arrays.append(Learned((len(places),), unit, weight.device))

    def delta(self) -> torch.Tensor:
        """The learned values at their places."""
        values = self.arrays[0]()
        places = self.get_buffer("places")
        return torch.zeros(self._size, device=values.device).index_put((places,), values)

    def record(self, share: float) -> tuple[Record, tuple[Levels, ...]]:
        """The values; the places follow from the seed."""
        (array,) = self.learned()
        return Masked(self._threshold, array.latent.numel()), (array.levels(share),)


class PrunedRows(Reparametrization):
    """Filter Pruning: some rows become 0, the others move freely (Li et al., 2017)."""

    def __init__(self, weight: torch.Tensor, unit: float, kept: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", kept.to(weight.device), persistent=False)
        shape = (len(kept), *weight.shape[1:])
        self.arrays.append(Learned(shape, unit, weight.device))

    def forward(self, original: torch.Tensor) -> torch.Tensor:
        """The kept rows, moved; 0 elsewhere."""
        kept = self.get_buffer("kept")
        values = original[kept].float() + self.arrays[0]()
        result = torch.zeros(original.shape, device=original.device)
        return result.index_put((kept,), values).to(original.dtype)

    def record(self, share: float) -> tuple[Record, tuple[Levels, ...]]:
        """The rows that stay."""
        (array,) = self.learned()
        rows = tuple(self.get_buffer("kept").tolist())
        return Rows(rows, zero=True), (array.levels(share),)


class Factored(Reparametrization):
    """KA, ML, LRA, LRU and the core: what :class:`limosa.codec.refinement.records.Factors` says.

    Args:
        weight: the original.
        unit: of a step; see :class:`Learned`.
        record: which factors, and how many columns they have.
        seed, number: of the random numbers that V' starts from.
    """

    def __init__(
        self, weight: torch.Tensor, unit: float, record: Factors, seed: int, number: int
    ) -> None:
        super().__init__()
        self._record = record
        rows = weight.shape[0] // record.parts
        columns = weight.numel() // max(weight.shape[0], 1)
        stack = weight.detach().reshape(record.parts, rows, columns).to("cpu", torch.float64)
        device = weight.device
        for part in range(record.parts):
            if record.spectrum or record.rank:
                self._keep_singular(part, stack[part].numpy(), device)
            self._add_arrays(rows, columns, unit, device)
            drawn = right_signs(seed, number, part, columns, record.augmented)
            self._keep(f"drawn{part}", drawn, device)

    def _add_arrays(self, rows: int, columns: int, unit: float, device: torch.device) -> None:
        record = self._record
        if record.spectrum:
            self.arrays.append(Learned((min(rows, columns),), unit, device))
        count = record.augmented or (record.rank if record.mapping else 0)
        if count:
            left = Learned((rows, count), unit, device)
            self.arrays.append(left)
            if record.learned_right:
                right = LearnedRight((count, columns), unit, sign_scale(columns), left)
                self.arrays.append(right)
        if record.rank and not record.mapping:
            self.arrays.append(Learned((record.rank, record.rank), unit, device))

    def _keep_singular(self, part: int, matrix: NDArray[np.float64], device: torch.device) -> None:
        found = decompose(matrix)
        rank = self._record.rank
        columns = len(found.values) if self._record.spectrum else rank
        self._keep(f"left{part}", found.left[:, :columns], device)
        self._keep(f"right{part}", found.right[:columns], device)
        self._keep(f"values{part}", found.values[:columns], device)
        self._keep(f"free{part}", _free(found.values)[:columns], device)

    def _keep(self, name: str, array: NDArray[np.float64], device: torch.device) -> None:
        kept = torch.from_numpy(np.array(array, np.float32)).to(device)
        self.register_buffer(name, kept, persistent=False)

    def forward(self, original: torch.Tensor) -> torch.Tensor:
        """The tensor with its factors."""
        made = torch.cat([self._of_part(part) for part in range(self._record.parts)])
        made = made.reshape(original.shape)
        return (made if self._record.mapping else original.float() + made).to(original.dtype)

    def _of_part(self, part: int) -> torch.Tensor:
        record = self._record
        each = len(self.arrays) // record.parts
        arrays = iter([array() for array in self.arrays[part * each : (part + 1) * each]])

        def buffer(name: str) -> torch.Tensor:
            return self.get_buffer(f"{name}{part}")

        if record.mapping:
            left = buffer("left") * buffer("values") + next(arrays)
            right = buffer("right") + next(arrays) if record.learned_right else buffer("right")
            return torch.mm(left, right)
        terms = []
        if record.spectrum:
            moved = next(arrays) * buffer("free")
            terms.append((buffer("left") * moved) @ buffer("right"))
        if record.augmented:
            left, right = next(arrays), buffer("drawn")
            terms.append(left @ (right + next(arrays) if record.learned_right else right))
        if record.rank:
            left, right = buffer("left")[:, : record.rank], buffer("right")[: record.rank]
            terms.append(left @ next(arrays) @ right)
        return torch.stack(terms).sum(0)

    def record(self, share: float) -> tuple[Record, tuple[Levels, ...]]:
        """The factors."""
        return self._record, tuple(array.levels(share) for array in self.learned())


def _free(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 for singular values that are not 0 and stand alone; in a cluster vectors are arbitrary."""
    if not values.size:
        return values
    gap = _RELATIVE_GAP * values[0]
    near = np.diff(values) > -gap
    clustered = np.concatenate([[False], near]) | np.concatenate([near, [False]])
    return np.asarray((values > gap) & ~clustered, np.float64)
