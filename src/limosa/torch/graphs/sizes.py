"""What each node of a graph is (tensor or number), and which numbers are the batch's size.

Networks flatten with ``x.view(inputs.size(0), -1)``: a number of the first tensor is used behind
the last convolution. It need not cross a cut, since the tensor that does has the same size.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from limosa.torch.graphs.nodes import KIND
from limosa.torch.graphs.tracing import Traced

NUMBERS = (int, float, torch.Size, torch.device, torch.dtype)

# More than two: a size that equals another for each of them is not so by accident.
_BATCHES = (5, 7, 11)


class _Recorder(fx.Interpreter):
    """Runs a graph without data: statistics and counters of the model stay as they are."""

    def __init__(self, module: nn.Module, graph: fx.Graph, mode: FakeTensorMode) -> None:
        super().__init__(module, graph=graph)
        self._mode = mode
        self.found: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node and note what it is."""
        value = super().run_node(n)
        self.found[n] = tuple(value.shape) if isinstance(value, torch.Tensor) else value
        n.meta[KIND] = _kind(value)
        return value

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """A parameter or a buffer, without its data."""
        return self._without_data(super().get_attr(target, args, kwargs))

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Call a module with parameters and buffers without data."""
        module = self.fetch_attr(target)
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        empty = {name: self._without_data(tensor) for name, tensor in tensors.items()}
        return functional_call(module, empty, args, kwargs)

    def _without_data(self, value: Any) -> Any:
        return self._mode.from_tensor(value) if isinstance(value, torch.Tensor) else value


def _kind(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return "tensor"
    return "number" if isinstance(value, NUMBERS) else "other"


class Sizes:
    """The sizes of all nodes for several sizes of the batch, from runs without data.

    Notes in the ``meta`` of each node what it is: a tensor, a number or something else. Knows
    nothing where the model cannot run on tensors without data, or without an example.
    """

    def __init__(self, traced: Traced) -> None:
        self._traced = traced
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._runs: list[dict[fx.Node, Any]] | None = None
        self._run(None)

    def dimension(self, number: fx.Node, tensor: fx.Node) -> int | None:
        """Which dimension of *tensor* has the size *number*, whatever the batch; None if none."""
        if self._runs is None:
            runs = [self._run(batch) for batch in _BATCHES]
            self._runs = [run for run in runs if run is not None]
        known = self._runs
        if len({run[number] for run in known}) < len(_BATCHES):
            return None  # it is no size of the batch
        for dimension in range(min(len(run[tensor]) for run in known)):
            if all(run[number] == run[tensor][dimension] for run in known):
                return dimension
        return None

    def _run(self, batch: int | None) -> dict[fx.Node, Any] | None:
        """What the nodes are for a batch of this size, or for the example as it is."""
        if self._traced.values is None:
            return None
        try:
            with self._mode, torch.no_grad(), _quiet():
                recorder = _Recorder(self._traced.root, self._traced.graph, self._mode)
                recorder.run(*(_empty(value, batch) for value in self._traced.values))
        except Exception:  # of any operator; what stays unknown is asked of the user
            return None
        return recorder.found


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from logging what fails: that a model wants one size is no error."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = disabled


def _empty(value: torch.Tensor, batch: int | None) -> torch.Tensor:
    first = value.shape[:1] if batch is None else value.shape[:1] and (batch,)
    return torch.empty((*first, *value.shape[1:]), dtype=value.dtype, device=value.device)
