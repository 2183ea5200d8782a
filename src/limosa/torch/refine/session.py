"""A session: a model made ready to be refined, and the update that comes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from limosa.codec.base import Base
from limosa.codec.refinement.read import Refinement
from limosa.codec.refinement.rebuild import as_doubles
from limosa.codec.refinement.records import (
    INTEGER_DTYPES,
    REFINED_DTYPES,
    Change,
    Copy,
    Difference,
    Exact,
    Integers,
    Record,
    numbers_of,
)
from limosa.codec.refinement.write import Written, packed_size, quantize_levels, write_refinement
from limosa.errors import ConfigError
from limosa.tensors import Tensor, TensorSpec, numpy_dtype
from limosa.torch.dtypes import from_tensor, to_tensor
from limosa.torch.refine.learned import Learned
from limosa.torch.refine.parametrizations import Reparametrization
from limosa.torch.refine.rate import Rate
from limosa.torch.refine.size import reach_bytes

# Of what is not quantized in the loop, where the caller does not say.
DEFAULT_STEP = 0.25
_STATISTICS_SHARE = 0.25
# Bytes by which deflate may differ with the digest, which is not known while sizes are compared.
_DEFLATE_MARGIN = 3


class Session:
    """What :func:`limosa.torch.refine.prepare` gives: train the model, then ask for the update.

    Attributes:
        model: the model, with parametrizations until :meth:`update`.
        parametrizations: name in the state dict -> its re-parameterisation.
        rate: the price of bits, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        base: dict[str, torch.Tensor],
        placed: Mapping[str, Reparametrization],
        tied: Mapping[str, str],
        rate: Rate | None,
        seed: int,
        undo: Callable[[], None],
    ) -> None:
        self.model = model
        self.rate = rate
        self.parametrizations = dict(placed)
        self._seed = seed
        self._undo = undo
        self._held = {name: to_tensor(name, tensor) for name, tensor in base.items()}
        self.base = Base.from_tensors(self._held)
        self._numbers = numbers_of(base)
        self._tied = dict(tied)
        self._open = True
        if rate is not None:
            for array in self._arrays():
                array.quantize(rate.step)

    @property
    def size_in_parameters(self) -> int:
        """Values that are learned."""
        return sum(array.latent.numel() for array in self._arrays())

    def parameters(self) -> Iterator[nn.Parameter]:
        """What an optimizer should change; nothing else of the model requires a gradient."""
        for array in self._arrays():
            yield array.latent

    def rate_loss(self) -> torch.Tensor:
        """What the bits of the update cost now, to be added to the loss; 0 without a rate.

        The bits are estimated by log2(1 + |level|), differentiable in what is learned.
        """
        if self.rate is None:
            return torch.zeros(())
        arrays = list(self._arrays())
        for array in arrays:
            array.quantize(self.rate.step)
        bits = torch.stack([array.bits() for array in arrays]).sum()
        self.rate.follow(float(bits.detach()) / 8)
        return self.rate.lam * bits

    def encode(self, *, step: float | None = None, target_bytes: int | None = None) -> Written:
        """The update as it would be now; the session goes on.

        Args:
            step: share of each tensor's own scale; that of the rate unless given, or else 0.25.
            target_bytes: search the step that gives this size, within 3 % and never above.

        Raises:
            ConfigError: the session is over, a learned value is not finite (training diverged),
                or the size is out of reach.
        """
        self._check_open()
        share = step or (self.rate.step if self.rate else DEFAULT_STEP)
        wanted = target_bytes or (self.rate.target_bytes if self.rate else None)
        if wanted is not None:
            share = reach_bytes(
                lambda x: packed_size(self.base, self._changes(x), seed=self._seed),
                share,
                wanted - _DEFLATE_MARGIN,
            )
        return write_refinement(self.base, self._changes(share), seed=self._seed)

    def update(self, *, step: float | None = None, target_bytes: int | None = None) -> bytes:
        """The update; the model becomes exactly what the receiver rebuilds, and plain again.

        So a chain of updates cannot drift: prepare the same model again for the next one.
        Arguments and errors as for :meth:`encode`.
        """
        written = self.encode(step=step, target_bytes=target_bytes)
        new = state_of(written.refinement)
        self.close()
        self.model.load_state_dict(new)
        return written.data

    def close(self) -> None:
        """Take the parametrizations off; the model is what it was before :func:`prepare`."""
        if self._open:
            self._open = False
            self._undo()
            old = {name: from_tensor(tensor) for name, tensor in self._held.items()}
            self.model.load_state_dict(old)

    def _arrays(self) -> Iterator[Learned]:
        for parametrization in self.parametrizations.values():
            yield from parametrization.learned()

    def _check_open(self) -> None:
        if not self._open:
            raise ConfigError("the session is over", remedy="prepare the model again")

    def _changes(self, share: float) -> list[Change]:
        changes = []
        for name, parametrization in self.parametrizations.items():
            try:
                record, arrays = parametrization.record(share)
            except ConfigError as error:
                error.where = f"tensor {name!r}"
                raise
            if any(array.step for array in arrays) or _always(record):
                changes.append(Change(self._numbers[name], record, arrays))
        changed = {change.number for change in changes}
        for name, first in self._tied.items():
            if self._numbers[first] in changed:
                changes.append(Change(self._numbers[name], Copy(self._numbers[first])))
        return changes + self._buffers(share)

    def _buffers(self, share: float) -> list[Change]:
        """What training moved beside the parameters: statistics and counters."""
        changes = []
        for name, tensor in plain_state(self.model).items():
            if name in self.parametrizations or name in self._tied or name not in self._held:
                continue
            old, new = self._held[name], to_tensor(name, tensor)
            if not np.array_equal(old.data, new.data):
                change = self._buffer(old.spec(name), old, new, share)
                if change is not None:
                    changes.append(change)
        return changes

    def _buffer(self, spec: TensorSpec, old: Tensor, new: Tensor, share: float) -> Change | None:
        number = self._numbers[spec.name]
        if spec.dtype in INTEGER_DTYPES and spec.elements < 2**16:
            kind = numpy_dtype(spec.dtype)
            pairs = zip(new.data.view(kind).tolist(), old.data.view(kind).tolist(), strict=True)
            return Change(number, Integers(tuple(_signed(a - b) for a, b in pairs)))
        if spec.dtype not in REFINED_DTYPES:
            return Change(number, Exact(new.data.tobytes()))
        before, moved = as_doubles(spec, old.data), as_doubles(spec, new.data)
        scale, unit = self._scale(spec, before)
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.where(unit > 0, (moved - before) / unit, 0.0)
        levels = quantize_levels(relative, _STATISTICS_SHARE * share)
        return Change(number, Difference(scale), (levels,)) if levels.step else None

    def _scale(
        self, spec: TensorSpec, before: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
    ) -> tuple[int, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
        """In what units a buffer moves: a mean in deviations, a variance in itself."""
        path, _, last = spec.name.rpartition(".")
        variance = f"{path}.running_var" if path else "running_var"
        if last == "running_mean" and variance in self._held:
            held = self._held[variance]
            values = as_doubles(held.spec(variance), held.data)
            return 2 + self._numbers[variance], np.sqrt(np.abs(values))
        if last == "running_var":
            return 1, np.abs(before)
        return 0, np.ones_like(before) * (float(np.sqrt(np.mean(before**2))) or 1.0)


def state_of(refinement: Refinement) -> dict[str, torch.Tensor]:
    """The state dict that a refinement gives, in memory of its own."""
    return {
        spec.name: from_tensor(Tensor(spec.dtype, spec.shape, np.array(data)))
        for spec, data in refinement
    }


def plain_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict under the names that it has without parametrizations; originals in place."""
    found = {}
    for name, tensor in model.state_dict().items():
        if ".parametrizations." in f".{name}":
            head, _, rest = f".{name}".rpartition(".parametrizations.")
            attribute, _, last = rest.partition(".")
            if last != "original":
                continue
            name = f"{head}.{attribute}".lstrip(".")
        found[name] = tensor
    return found


def remove(model: nn.Module) -> None:
    """Take all parametrizations of this package off; the originals come back."""
    for module in list(model.modules()):
        if not parametrize.is_parametrized(module):
            continue
        for attribute, chain in list(module.parametrizations.items()):  # type: ignore[union-attr, operator]
            if any(isinstance(one, Reparametrization) for one in chain):
                parametrize.remove_parametrizations(module, attribute, leave_parametrized=False)


def _always(record: Record) -> bool:
    """Whether a record changes the tensor although all of its levels are 0."""
    return getattr(record, "mapping", False) or getattr(record, "zero", False)


def _signed(value: int) -> int:
    """A difference of 64-bit integers in the signed range."""
    return (value + 2**63) % 2**64 - 2**63
