"""What each node of a graph is (tensor or number), and which numbers are the batch's size.

Networks flatten with ``x.view(inputs.size(0), -1)``: a number of the first tensor is used behind
the last convolution. It need not cross a cut, since the tensor that does has the same size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from limosa.torch.graphs.memory import KIND
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
        self._runs: list[dict[fx.Node, Any]] = []
        self._run(1)

    def dimension(self, number: fx.Node, tensor: fx.Node) -> int | None:
        """Which dimension of *tensor* has the size *number*, whatever the batch; None if none."""
        self._run(len(_BATCHES))
        runs = self._runs
        if len(runs) < len(_BATCHES) or len({run[number] for run in runs}) < len(_BATCHES):
            return None
        for dimension in range(min(len(run[tensor]) for run in runs)):
            if all(run[number] == run[tensor][dimension] for run in runs):
                return dimension
        return None

    def _run(self, count: int) -> None:
        """Have *count* runs, if the model can do that."""
        values = self._traced.values
        if values is None:
            return
        try:
            with self._mode, torch.no_grad():
                for batch in _BATCHES[len(self._runs) : count]:
                    recorder = _Recorder(self._traced.root, self._traced.graph, self._mode)
                    recorder.run(*(_empty(value, batch) for value in values))
                    self._runs.append(recorder.found)
        except Exception:  # of any operator; what stays unknown is asked of the user
            return


def _empty(value: Any, batch: int) -> Any:
    if not isinstance(value, torch.Tensor) or not value.dim():
        return value
    return torch.empty((batch, *value.shape[1:]), dtype=value.dtype, device=value.device)
