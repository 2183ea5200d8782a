"""A model as a graph: by torch.fx, or by torch.export where Python's control flow is in the way."""

from __future__ import annotations

import inspect
import operator
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from limosa.errors import ConfigError

Example = Any
"""What a model is called with: a tensor, a tuple of arguments, or a dict of them by name."""


@dataclass(frozen=True)
class Returned:
    """What a module returned, the first time it was called.

    Attributes:
        nodes: as they were returned.
        last: the last node of the graph at that time.
    """

    nodes: tuple[fx.Node, ...]
    last: fx.Node


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
        return _exported(model, given)
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
        return inspect.signature(model.forward).bind(*positional, **keywords)
    except TypeError as error:
        raise ConfigError(
            "the example does not fit the model",
            where=f"{type(model).__name__}.forward",
            found=str(error),
            allowed="a tensor, a tuple of arguments, or a dict of them by name",
        ) from None


class _Proxy(fx.Proxy):
    """A proxy that records ``x += y`` as what it is.

    torch.fx alone records an addition, which is another function where a second name of x lives on.
    """


def _in_place(operation: Any) -> Any:
    def apply(self: _Proxy, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operation, (self, other), {})

    return apply


IN_PLACE_OPERATORS = frozenset(
    getattr(operator, name)
    for name in "iadd iand ifloordiv ilshift imatmul imod imul ior ipow irshift isub itruediv ixor"
    .split()
)  # fmt: skip
for _operator in IN_PLACE_OPERATORS:
    setattr(_Proxy, f"__{_operator.__name__}__", _in_place(_operator))


class _Tracer(fx.Tracer):
    """torch.fx's tracer; notes besides what each module returned, the first time it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.returned: dict[str, Returned] = {}

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """A proxy for a node of the graph."""
        return _Proxy(node, self)

    def call_module(
        self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Trace a call of a module."""
        result = super().call_module(m, forward, args, kwargs)
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about fixed arguments that are neither None nor numbers
        graph = tracer.trace(model, fixed or None)
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    for node in inputs[:]:
        if any(node.target == f"{name}_{number}" for number, name in _numbered(model, fixed)):
            _drop(graph, node)
            inputs.remove(node)
    returned = {name: one for name, one in tracer.returned.items() if name}
    traced = Traced(graph, model, "torch.fx", returned)
    if given is not None:
        free = [value for name, value in given.arguments.items() if name not in fixed]
        traced.values = pytree.tree_leaves(free)
        if len(traced.values) != len(inputs):
            raise ConfigError("arguments are nested")
    return traced


def _fixed(model: nn.Module, given: inspect.BoundArguments | None) -> dict[str, Any]:
    """The arguments that keep a value: those that are not tensors, and defaults not overridden."""
    values = {
        name: parameter.default
        for name, parameter in inspect.signature(model.forward).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    values |= {} if given is None else given.arguments
    return {name: v for name, v in values.items() if not _has_tensors(v, name, given)}


def _has_tensors(value: Any, name: str, given: inspect.BoundArguments | None) -> bool:
    leaves = pytree.tree_leaves(value)
    is_given = given is not None and name in given.arguments
    return is_given and any(isinstance(leaf, torch.Tensor) for leaf in leaves)


def _numbered(model: nn.Module, fixed: dict[str, Any]) -> list[tuple[int, str]]:
    """The fixed arguments, with the numbers that torch.fx appends to their names."""
    names = list(inspect.signature(model.forward).parameters)
    return list(enumerate((name for name in names if name in fixed), start=1))


def _drop(graph: fx.Graph, node: fx.Node) -> None:
    """Take a fixed argument out, with the assertions about it; nothing else uses it."""
    for user in list(node.users):
        _drop(graph, user)
    graph.erase_node(node)


def _exported(model: nn.Module, given: inspect.BoundArguments) -> Traced:
    batch = pytree.tree_map(_batch, (given.args, given.kwargs))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch, about its own parts
        program = torch.export.export(
            model, given.args, given.kwargs, dynamic_shapes=_dynamic(model, given, batch)
        )
        module: Any = program.module()
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        if node.target == "_guards_fn":
            continue  # checks the sizes of the inputs; the cut ones are not the model's
        if node.op == "output":
            leaves = [copies.get(leaf, leaf) for leaf in node.args[0]]
            graph.output(pytree.tree_unflatten(leaves, module._out_spec))
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    values = pytree.tree_leaves((given.args, given.kwargs))
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    for node, value in zip(inputs, values, strict=True):
        if not isinstance(value, torch.Tensor):
            _drop(graph, node)
    values = [value for value in values if isinstance(value, torch.Tensor)]
    return Traced(graph, module, "torch.export", _outputs_by_stack(graph), values)


def _batch(value: Any) -> Any:
    # A batch of one would be taken for a constant.
    if isinstance(value, torch.Tensor) and value.dim() and value.shape[0] > 1:
        return {0: torch.export.Dim.AUTO}
    return None


def _dynamic(model: nn.Module, given: inspect.BoundArguments, batch: Any) -> dict[str, Any]:
    positional, keywords = batch
    names = list(inspect.signature(model.forward).parameters)
    return {**dict(zip(names, positional, strict=False)), **keywords}


def _outputs_by_stack(graph: fx.Graph) -> dict[str, Returned]:
    """What each module returns: its nodes that something outside it uses."""
    inside: dict[str, dict[str, set[fx.Node]]] = {}
    for node in graph.nodes:
        for key, (path, _) in (node.meta.get("nn_module_stack") or {}).items():
            inside.setdefault(path.partition("@")[0], {}).setdefault(key, set()).add(node)
    found = {}
    for path, calls in inside.items():
        nodes = next(iter(calls.values()))
        inside_it = [node for node in graph.nodes if node in nodes]
        used = tuple(node for node in inside_it if not nodes.issuperset(node.users))
        found[path] = Returned(used, inside_it[-1])
    return found


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
