"""How the tensors of a model are re-parameterised: the second paper's methods, and limosa's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from limosa.codec.refinement.records import Factors
from limosa.errors import ConfigError
from limosa.torch.refine.parametrizations import (
    DifferenceOf,
    Factored,
    MaskedDifference,
    Reparametrization,
)


class Place(NamedTuple):
    """A tensor to re-parameterise.

    Attributes:
        name: its name in the state dict.
        weight: the tensor.
        parts: of how many matrices it is a stack: 3 for a fused QKV, 4 and 3 for the gates of
            LSTM and GRU, otherwise 1.
        unit: the step that costs as much quality as that of every other tensor.
        number: among the names of the state dict, sorted; for the random numbers.
        seed: of the session.
        rank: in place of the method's own, or None.
    """

    name: str
    weight: torch.Tensor
    parts: int
    unit: float
    number: int
    seed: int
    rank: int | None = None

    @property
    def matrix(self) -> tuple[int, int]:
        """Rows (o) and columns (i) of each matrix."""
        rows = self.weight.shape[0] // self.parts
        return rows, self.weight.numel() // max(self.weight.shape[0], 1)


@dataclass(frozen=True)
class Method:
    """Base of the methods. A matrix has o rows (outputs) and i columns (inputs of a filter)."""

    def count(self, o: int, i: int) -> int:
        """Learned values of a matrix, as the paper counts them (without bias)."""
        raise NotImplementedError

    def apply(self, place: Place) -> Reparametrization:
        """The re-parameterisation of a tensor."""
        raise NotImplementedError


@dataclass(frozen=True)
class KnowledgeAugmentation(Method):
    """KA: the singular values move, and *n* new pairs of vectors are learned (eq. 14 and 15).

    In the form W + U diag(ds) V^T + U' V'^T: U' starts at 0 and V' at seeded signs, so that an
    update of nothing is the identity; the values that weigh the new vectors are absorbed in U'.

    >>> KnowledgeAugmentation(n=3).count(16, 27)
    148
    """

    n: int = 3

    def __post_init__(self) -> None:
        _check_rank("KnowledgeAugmentation", self.n, 0)

    def count(self, o: int, i: int) -> int:
        """n (o + i) + min(o, i) + n."""
        return self.n * (o + i) + min(o, i) + self.n

    def apply(self, place: Place) -> Reparametrization:
        """ds, U' and V'."""
        n = _rank(place, self.n)
        record = Factors(place.parts, spectrum=True, augmented=n, learned_right=n > 0)
        return Factored(place.weight, place.unit, record, place.seed, place.number)


@dataclass(frozen=True)
class MappingLearning(Method):
    """ML: the first *r* base filters stay, their mapping is learned (eq. 12 and 13)."""

    r: int = 8

    def __post_init__(self) -> None:
        _check_rank("MappingLearning", self.r, 1)

    def count(self, o: int, i: int) -> int:
        """r o."""
        return min(self.r, o, i) * o

    def apply(self, place: Place) -> Reparametrization:
        """L, which starts at U_r diag(s_r)."""
        record = Factors(place.parts, rank=_rank(place, self.r), mapping=True)
        return Factored(place.weight, place.unit, record, place.seed, place.number)


@dataclass(frozen=True)
class LowRankApproximation(Method):
    """LRA: a product of rank *r* takes the matrix's place, learned from its SVD (eq. 6)."""

    r: int = 8

    def __post_init__(self) -> None:
        _check_rank("LowRankApproximation", self.r, 1)

    def count(self, o: int, i: int) -> int:
        """r (o + i)."""
        return min(self.r, o, i) * (o + i)

    def apply(self, place: Place) -> Reparametrization:
        """L and R."""
        rank = _rank(place, self.r)
        record = Factors(place.parts, rank=rank, mapping=True, learned_right=True)
        return Factored(place.weight, place.unit, record, place.seed, place.number)


@dataclass(frozen=True)
class LowRankUpdate(Method):
    """LRU: L R is added, R being random from a seed (Konečný et al., 2016)."""

    r: int = 8

    def __post_init__(self) -> None:
        _check_rank("LowRankUpdate", self.r, 1)

    def count(self, o: int, i: int) -> int:
        """r o."""
        return min(self.r, o, i) * o

    def apply(self, place: Place) -> Reparametrization:
        """L."""
        record = Factors(place.parts, augmented=_rank(place, self.r))
        return Factored(place.weight, place.unit, record, place.seed, place.number)


@dataclass(frozen=True)
class RandomMask(Method):
    """RM: a share *p* of all parameters is learned; a seed says which (Konečný et al., 2016)."""

    p: float = 0.05

    def __post_init__(self) -> None:
        _check_share("RandomMask", self.p)

    def count(self, o: int, i: int) -> int:
        """p o i."""
        return round(self.p * o * i)

    def apply(self, place: Place) -> Reparametrization:
        """The chosen elements."""
        return MaskedDifference(place.weight, place.unit, self.p, place.seed, place.number)


@dataclass(frozen=True)
class FilterPruning(Method):
    """FP: a share *c* of the filters goes, those of least L1 norm; the rest is learned (Li et al.).

    Batch norms that follow a pruned convolution lose the same channels.
    """

    c: float = 0.5

    def __post_init__(self) -> None:
        _check_share("FilterPruning", self.c)

    def kept(self, o: int) -> int:
        """Filters that stay of *o*; one at least."""
        return max(1, o - int(self.c * o))

    def count(self, o: int, i: int) -> int:
        """What stays, if the layer before lost as many channels."""
        return self.kept(o) * max(1, i - int(self.c * i))


@dataclass(frozen=True)
class Core(Method):
    """A core of *r* x *r* between the first singular vectors (as LoRA-XS and SVFT do).

    Args:
        r: of the core.
        spectrum: let the other singular values move as well.
    """

    r: int = 16
    spectrum: bool = False

    def __post_init__(self) -> None:
        _check_rank("Core", self.r, 1)

    def count(self, o: int, i: int) -> int:
        """r r."""
        return min(self.r, o, i) ** 2 + (min(o, i) if self.spectrum else 0)

    def apply(self, place: Place) -> Reparametrization:
        """The core."""
        record = Factors(place.parts, spectrum=self.spectrum, rank=_rank(place, self.r))
        return Factored(place.weight, place.unit, record, place.seed, place.number)


@dataclass(frozen=True)
class Difference(Method):
    """Every element is learned: dense retraining, small only by a :class:`Rate`."""

    def count(self, o: int, i: int) -> int:
        """o i."""
        return o * i

    def apply(self, place: Place) -> Reparametrization:
        """The difference."""
        return DifferenceOf(place.weight, place.unit)


def _rank(place: Place, rank: int) -> int:
    """The rank for a tensor, at most full."""
    return min(rank if place.rank is None else place.rank, *place.matrix)


def _check_rank(method: str, rank: int, least: int) -> None:
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < least:
        raise ConfigError("bad rank", where=method, found=repr(rank), allowed=f"{least} or more")


def _check_share(method: str, share: float) -> None:
    if not 0 < share < 1:
        raise ConfigError("bad share", where=method, found=repr(share), allowed="above 0, below 1")
