"""A model as a graph: by torch.fx, or by torch.export where Python's control flow is in the way."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from limosa.errors import ConfigError
from limosa.torch.graphs.exporting import Returned, export
from limosa.torch.graphs.nodes import IN_PLACE_OPERATORS, changed_by_call
from limosa.torch.graphs.threads import ThreadTracer

Example = Any
"""What a model is called with: a tensor, a tuple of arguments, or a dict of them by name."""


@dataclass
class Traced:
    """A graph, and what it needs to run.

    Attributes:
        graph: of the model; in-place changes stand in it as such.
        root: has the modules, parameters and buffers that the graph names; shared with the model.
        by: who traced it.
        outputs: name of a module -> what it returns.
        values: what the placeholders of the graph get, in order; None without an example.
    """

    graph: fx.Graph
    root: nn.Module
    by: Literal["torch.fx", "torch.export"]
    outputs: dict[str, Returned] = field(default_factory=dict)
    values: list[Any] | None = None

    @property
    def nodes(self) -> list[fx.Node]:
        """All nodes, in the order of execution."""
        return list(self.graph.nodes)


def trace(model: nn.Module, example: Example | None = None) -> Traced:
    """The graph of *model*, in the mode (train or eval) that it is in.

    Arguments that are not tensors keep the values of the example, or their defaults.

    Args:
        model: is not changed and not called, except by torch.export.
        example: arguments; needed where torch.fx cannot trace the model.

    Raises:
        ConfigError: neither torch.fx nor, with an example, torch.export can trace it.

    >>> [node.name for node in trace(nn.Sequential(nn.Linear(2, 2), nn.ReLU())).nodes]
    ['input_1', '_0', '_1', 'output']
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(
            "cannot cut this", where="model", found=type(model).__name__, allowed="a torch module"
        )
    given = None if example is None else _bind(model, example)
    tracer = _Tracer()
    try:
        return _symbolic(model, tracer, given)
    except Exception as error:  # whatever the model's own code raises when it meets a proxy
        if given is None:
            raise _untraceable(model, tracer, error, exported=None) from error
        reason = error
    try:
        graph, root, outputs = export(model, given)
        values = [v for v in pytree.tree_leaves((given.args, given.kwargs)) if _is_tensor(v)]
        return Traced(graph, root, "torch.export", outputs, values)
    except ConfigError:
        raise
    except Exception as error:
        raise _untraceable(model, tracer, reason, exported=error) from error


def arguments(example: Example) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """An example as positional and keyword arguments.

    >>> arguments({"x": 1}), arguments(2)
    (((), {'x': 1}), ((2,), {}))
    """
    if isinstance(example, Mapping):
        return (), dict(example)
    return tuple(example) if isinstance(example, (tuple, list)) else (example,), {}


def _bind(model: nn.Module, example: Example) -> inspect.BoundArguments:
    positional, keywords = arguments(example)
    try:
        given = inspect.signature(model.forward).bind(*positional, **keywords)
    except TypeError as error:
        raise _unfit(model, str(error)) from None
    for name, value in given.arguments.items():
        if not _is_tensor(value) and any(map(_is_tensor, pytree.tree_leaves(value))):
            raise _unfit(model, f"tensors inside the argument {name!r}")
    return given


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _unfit(model: nn.Module, found: str) -> ConfigError:
    return ConfigError(
        "the example does not fit the model",
        where=f"{type(model).__name__}.forward",
        found=found,
        allowed="a tensor, a tuple of arguments, or a dict of them by name; an argument is a "
        "tensor or has none",
    )


class _Proxy(fx.Proxy):
    """A proxy that records ``x += y`` as what it is.

    torch.fx alone records an addition, which is another function where a second name of x lives on.
    """


def _in_place(operation: Any) -> Any:
    def apply(self: _Proxy, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operation, (self, other), {})

    return apply


for _operator in IN_PLACE_OPERATORS:
    setattr(_Proxy, f"__{_operator.__name__}__", _in_place(_operator))


class _Tracer(ThreadTracer):
    """torch.fx's tracer; notes besides what each module returned, the first time it was called."""

    # Else what is computed from buffers alone is a constant: of the weights at the time.
    proxy_buffer_attributes = True

    def __init__(self) -> None:
        super().__init__()
        self.returned: dict[str, Returned] = {}
        self._versions: dict[int, tuple[torch.Tensor, int]] = {}

    def create_arg(self, a: Any) -> Any:
        """An argument of a node; notes the state of tensors that the forward has made."""
        if isinstance(a, torch.Tensor) and not a.is_inference():
            self._versions.setdefault(id(a), (a, a._version))
        return super().create_arg(a)

    def check_constants(self, names: Collection[str]) -> None:
        """Refuse constants that do not stay: a run would not make them anew.

        What reads them may have been computed while tracing, before the change.
        """
        changed = any(tensor._version != version for tensor, version in self._versions.values())
        for node in self.graph.nodes:
            for target in changed_by_call(node):
                changed = changed or (target.op == "get_attr" and target.target in names)
        if changed:
            raise ConfigError("the forward changes a tensor that it made in place")

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """A proxy for a node of the graph."""
        return _Proxy(node, self)

    def record_call(
        self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Trace a call of a module."""
        result = super().record_call(m, forward, args, kwargs)
        nodes = [leaf.node for leaf in pytree.tree_leaves(result) if isinstance(leaf, fx.Proxy)]
        last = next(iter(reversed(self.graph.nodes)))
        self.returned.setdefault(
            self.path_of_module(m), Returned(tuple(dict.fromkeys(nodes)), last)
        )
        return result

    def layer(self) -> str | None:
        """The module that was being traced when an error struck."""
        stack = [path for path, _ in self.module_stack.values()]
        return stack[-1] if stack else None


def _symbolic(model: nn.Module, tracer: _Tracer, given: inspect.BoundArguments | None) -> Traced:
    if "forward" in vars(model):
        # torch.fx would trace the method of the class.
        raise ConfigError("this instance has a forward of its own")
    fixed = _fixed(model, given)
    graph, root = _graph(model, tracer, fixed)
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    for node in inputs[:]:
        if any(node.target == f"{name}_{number}" for number, name in _numbered(model, fixed)):
            _drop(graph, node)
            inputs.remove(node)
    returned = {name: one for name, one in tracer.returned.items() if name}
    values = None
    if given is not None:
        values = [value for name, value in given.arguments.items() if name not in fixed]
    return Traced(graph, root, "torch.fx", returned, values)


def _graph(model: nn.Module, tracer: _Tracer, fixed: dict[str, Any]) -> tuple[fx.Graph, nn.Module]:
    """A graph, and what has the attributes that it names.

    torch.fx puts constants that a forward makes, ``torch.tensor(3)``, into the model as attributes.
    """
    before = set(vars(model))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about fixed arguments that are no numbers
            graph = tracer.trace(model, fixed or None)
    finally:
        added = {name: vars(model)[name] for name in set(vars(model)) - before}
        for name in added:
            delattr(model, name)
    tracer.check_constants(added)
    if not added:
        return graph, model
    root = nn.Module()
    vars(root).update(vars(model) | added)
    return graph, root


def _fixed(model: nn.Module, given: inspect.BoundArguments | None) -> dict[str, Any]:
    """The arguments that keep a value: those that are not tensors, and defaults not overridden."""
    values = {
        name: parameter.default
        for name, parameter in inspect.signature(model.forward).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    values |= {} if given is None else given.arguments
    return {name: v for name, v in values.items() if not isinstance(v, torch.Tensor)}


def _numbered(model: nn.Module, fixed: dict[str, Any]) -> list[tuple[int, str]]:
    """The fixed arguments, with the numbers that torch.fx appends to their names."""
    names = list(inspect.signature(model.forward).parameters)
    return list(enumerate((name for name in names if name in fixed), start=1))


def _drop(graph: fx.Graph, node: fx.Node) -> None:
    """Take a fixed argument out, with the assertions about it; nothing else uses it."""
    for user in list(node.users):
        _drop(graph, user)
    graph.erase_node(node)


def _untraceable(
    model: nn.Module, tracer: _Tracer, error: Exception, exported: Exception | None
) -> ConfigError:
    found = str(error).strip().partition("\n")[0]
    if exported is not None:
        found += "; and by torch.export: " + str(exported).strip().partition("\n")[0]
    layer = getattr(tracer, "module_stack", None) and tracer.layer()
    remedy = (
        "pass example=, so that torch.export can try"
        if exported is None
        else "move the control flow out of this layer, or split a part of the model"
    )
    return ConfigError(
        "the model cannot be traced",
        where=f"module {layer!r}" if layer else type(model).__name__,
        found=found or type(error).__name__,
        allowed="a forward without control flow that depends on values",
        remedy=remedy,
    )
