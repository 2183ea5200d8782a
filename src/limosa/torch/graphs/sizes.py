"""What each node of a graph is (tensor or number), and which numbers are the batch's size.

Networks flatten with ``x.view(inputs.size(0), -1)``: a number of the first tensor is used behind
the last convolution. It need not cross a cut, since the tensor that does has the same size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from limosa.torch.graphs.memory import KIND
from limosa.torch.graphs.tracing import Traced

NUMBERS = (int, float, torch.Size, torch.device, torch.dtype)

# More than two: a size that equals another for each of them is not so by accident.
_BATCHES = (5, 7, 11)


class _Recorder(fx.Interpreter):
    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        super().__init__(module, graph=graph)
        self.found: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.found[n] = tuple(value.shape) if isinstance(value, torch.Tensor) else value
        n.meta[KIND] = _kind(value)
        return value


def _kind(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return "tensor"
    return "number" if isinstance(value, NUMBERS) else "other"


class Sizes:
    """The sizes of all nodes for several sizes of the batch, from runs without data.

    Notes in the ``meta`` of each node what it is: a tensor, a number or something else.
    Knows nothing where the model cannot run on tensors without data, or without an example.
    """

    def __init__(self, traced: Traced) -> None:
        self._runs: list[dict[fx.Node, Any]] = []
        if traced.values is None:
            return
        try:
            self._runs = [_run(traced, traced.values, batch) for batch in _BATCHES]
        except Exception:  # of any operator; what is unknown is then asked of the user
            self._runs = []

    def dimension(self, number: fx.Node, tensor: fx.Node) -> int | None:
        """Which dimension of *tensor* has the size *number*, whatever the batch; None if none."""
        if not self._runs or len({run[number] for run in self._runs}) != len(_BATCHES):
            return None
        shapes = [run[tensor] for run in self._runs]
        for dimension in range(min(len(shape) for shape in shapes)):
            if all(run[number] == run[tensor][dimension] for run in self._runs):
                return dimension
        return None


def _run(traced: Traced, values: list[Any], batch: int) -> dict[fx.Node, Any]:
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode, torch.no_grad():
        recorder = _Recorder(traced.root, traced.graph)
        recorder.run(*(_empty(value, batch) for value in values))
    return recorder.found


def _empty(value: Any, batch: int) -> Any:
    if not isinstance(value, torch.Tensor) or not value.dim():
        return value
    return torch.empty((batch, *value.shape[1:]), dtype=value.dtype, device=value.device)
