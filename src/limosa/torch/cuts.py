"""Every place to cut a model, with what would travel there and how much is computed before."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from limosa.errors import ConfigError
from limosa.torch.graphs.cutting import Cutter, Plan
from limosa.torch.graphs.nodes import base_name
from limosa.torch.graphs.tracing import Example, trace
from limosa.torch.tensors import save

_KINDS = {
    "conv": ("conv",),
    "pool": ("pool",),
    "fc": ("linear", "addmm", "matmul", "bilinear"),
    "norm": ("norm",),
    "activation": (
        "relu", "elu", "gelu", "silu", "swish", "mish", "sigmoid", "tanh", "softmax", "softplus",
        "softsign", "hardshrink", "softshrink", "threshold", "glu", "logsigmoid",
    ),
}  # fmt: skip


_CODED = "coded"
_TITLES: tuple[str, ...] = (
    "cut", "module", "op", "kind", "shape", "bytes", _CODED, "nonzero", "compute before",
)  # fmt: skip
_TEXTS = 5  # of these stand to the left


@dataclass(frozen=True)
class Cut:
    """One place to cut.

    Attributes:
        name: of the last node before the cut.
        names: of all tensors that cross, for ``split(model, at=cut.names)``.
        module: the outermost module that returns what the last node does; empty if none.
        op: what the last node calls: the name of the module, or of the function.
        kind: "conv", "pool", "fc", "activation", "norm" or "other".
        shapes: of the tensors that cross, as :attr:`names`.
        dtypes: of the tensors that cross.
        nbytes: of the tensors that cross, as they are.
        nonzero: share of their elements that are not zero.
        coded_nbytes: as a `.limosa` file, lossless; None unless asked for.
        flops: operations before the cut.
        share: of all operations of the model, those before the cut; 0 if nothing is counted.
    """

    name: str
    names: tuple[str, ...]
    module: str
    op: str
    kind: str
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[torch.dtype, ...]
    nbytes: int
    nonzero: float
    coded_nbytes: int | None
    flops: int
    share: float

    @property
    def tensors(self) -> int:
        """How many tensors cross."""
        return len(self.names)


class Cuts(Sequence[Cut]):
    """Cuts in the order in which the model computes them; as a string, a table."""

    def __init__(self, cuts: Sequence[Cut]) -> None:
        self._cuts = tuple(cuts)

    def __len__(self) -> int:
        return len(self._cuts)

    @overload
    def __getitem__(self, index: int) -> Cut: ...

    @overload
    def __getitem__(self, index: slice) -> Cuts: ...

    def __getitem__(self, index: int | slice) -> Cut | Cuts:
        """One cut, or a part of the list."""
        return Cuts(self._cuts[index]) if isinstance(index, slice) else self._cuts[index]

    def __iter__(self) -> Iterator[Cut]:
        return iter(self._cuts)

    def __str__(self) -> str:
        rows = [_TITLES, *map(_row, self._cuts)]
        columns = [
            _aligned(column, left=number < _TEXTS)
            for number, column in enumerate(zip(*rows, strict=True))
            if column[0] != _CODED or any(cut.coded_nbytes is not None for cut in self._cuts)
        ]
        return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))

    __repr__ = __str__

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw bytes and the share of compute at each cut into the picture *path*.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        from limosa.torch.graphs.drawing import draw

        draw(self._cuts, path)


def cuts(model: nn.Module, example: Example, *, coded: bool = False, max_tensors: int = 1) -> Cuts:
    """List the places where a model can be cut, the input and the output among them.

    Runs the model once, without gradients, in the mode it is in (in train mode, batch norms see
    the example), and once more without data. Bytes are of the example: divide them by its batch.

    Args:
        model: is not changed.
        example: a tensor, a tuple of arguments or a dict of them by name.
        coded: whether to measure what lossless coding makes of each feature; takes a while.
        max_tensors: list cuts that so many tensors cross at most.

    Raises:
        ConfigError: the model cannot be traced, or does not take the example.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
    >>> found = cuts(model.eval(), torch.ones(1, 3, 8, 8), coded=True)
    >>> print(found[1:])  # doctest: +NORMALIZE_WHITESPACE
    cut  module  op       kind        shape    bytes  coded  nonzero  compute before
    _0   0       Conv2d   conv        1x8x6x6  1,152    ...   100.0%           73.0%
    _1   1       ReLU     activation  1x8x6x6  1,152    ...
    _2   2       Flatten  other       1x288    1,152    ...
    _3   3       Linear   fc          1x10        40    ...   100.0%          100.0%
    """
    if max_tensors < 1:
        raise ConfigError(
            "a cut needs a tensor", where="max_tensors", found=str(max_tensors), allowed="1 or more"
        )
    cutter = Cutter(trace(model, example))
    plans = _plans(cutter, max_tensors)
    needed = {node for plan in plans.values() for node in plan.crossing}
    recorder = _Recorder(cutter, needed, coded)
    recorder.measure()
    return Cuts([_cut(node, plan, recorder) for node, plan in plans.items()])


def _plans(cutter: Cutter, max_tensors: int) -> dict[fx.Node, Plan]:
    """The cut behind each node, one for each set of tensors that cross."""
    found: dict[fx.Node, Plan] = {}
    seen = set()
    for node in cutter.nodes:
        if node not in cutter.live or not cutter.is_tensor(node):
            continue
        plan = cutter.plan([node])
        is_cut = node in plan.crossing and len(plan.crossing) <= max_tensors
        is_possible = not plan.unresolved and all(map(cutter.is_tensor, plan.crossing))
        is_possible = is_possible and not cutter.entangled(plan)
        if is_cut and is_possible and plan.crossing not in seen:
            seen.add(plan.crossing)
            found[node] = plan
    return found


@dataclass(frozen=True)
class _Measured:
    shape: tuple[int, ...]
    dtype: torch.dtype
    nbytes: int
    nonzero: int
    coded: int | None


class _Recorder(fx.Interpreter):
    """Runs a graph and notes of each node its operations, of those in *needed* the sizes."""

    def __init__(self, cutter: Cutter, needed: set[fx.Node], coded: bool) -> None:
        super().__init__(cutter.traced.root, graph=cutter.traced.graph)
        self._values, self._needed, self._coded = cutter.traced.values or [], needed, coded
        self._counter = FlopCounterMode(display=False)
        self.measured: dict[fx.Node, _Measured] = {}
        self.flops: dict[fx.Node, int] = {}
        self.modules = cutter.modules()

    def measure(self) -> None:
        """Run the example."""
        # What a model changes in place should not be the caller's.
        values = [v.clone() if isinstance(v, torch.Tensor) else v for v in self._values]
        try:
            with torch.no_grad(), self._counter:
                self.run(*values)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise ConfigError(
                "the model does not take the example",
                where="example",
                found=str(error).strip().partition("\n")[0],
            ) from error

    def run_node(self, n: fx.Node) -> Any:
        before = self._counter.get_total_flops()
        value = super().run_node(n)
        self.flops[n] = self._counter.get_total_flops() - before
        if n in self._needed:
            # At once: it may be changed in place later.
            self.measured[n] = _measured(n.name, value, self._coded)
        return value


def _measured(name: str, value: torch.Tensor, coded: bool) -> _Measured:
    return _Measured(
        shape=tuple(value.shape),
        dtype=value.dtype,
        nbytes=value.numel() * value.element_size(),
        nonzero=int(torch.count_nonzero(value)),
        coded=len(save({name: value})) if coded else None,
    )


def _cut(node: fx.Node, plan: Plan, recorder: _Recorder) -> Cut:
    found = [recorder.measured[one] for one in plan.crossing]
    flops = sum(recorder.flops[one] for one in plan.before)
    total = sum(recorder.flops.values())
    elements = sum(one.nbytes // one.dtype.itemsize for one in found)
    coded = [one.coded for one in found if one.coded is not None]
    op = _op(node, recorder.module)
    return Cut(
        name=node.name,
        names=plan.names,
        module=recorder.modules.get(node, ""),
        op=op,
        kind=_kind(op, node),
        shapes=tuple(one.shape for one in found),
        dtypes=tuple(one.dtype for one in found),
        nbytes=sum(one.nbytes for one in found),
        nonzero=sum(one.nonzero for one in found) / max(elements, 1),
        coded_nbytes=sum(coded) if coded else None,
        flops=flops,
        share=flops / total if total else 0.0,
    )


def _op(node: fx.Node, root: nn.Module) -> str:
    if node.op == "placeholder":
        return "input"
    if node.op == "call_module":
        return type(root.get_submodule(str(node.target))).__name__
    return base_name(node.target)


def _kind(op: str, node: fx.Node) -> str:
    if node.op == "placeholder":
        return "other"
    name = op.lower()
    return next((kind for kind, parts in _KINDS.items() if any(p in name for p in parts)), "other")


def _aligned(column: tuple[str, ...], *, left: bool) -> list[str]:
    width = max(map(len, column))
    return [cell.ljust(width) if left else cell.rjust(width) for cell in column]


def _row(cut: Cut) -> tuple[str, ...]:
    return (
        " + ".join(cut.names),
        cut.module,
        cut.op,
        cut.kind,
        " + ".join("x".join(map(str, shape)) or "scalar" for shape in cut.shapes),
        f"{cut.nbytes:,}",
        "-" if cut.coded_nbytes is None else f"{cut.coded_nbytes:,}",
        f"{cut.nonzero:.1%}",
        f"{cut.share:.1%}",
    )
