"""A model as a graph by torch.export, where torch.fx cannot trace it."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from limosa.errors import ConfigError


@dataclass(frozen=True)
class Returned:
    """What a module returned, the first time it was called.

    Attributes:
        nodes: as they were returned.
        last: the last node of the graph at that time.
    """

    nodes: tuple[fx.Node, ...]
    last: fx.Node


def export(
    model: nn.Module, given: inspect.BoundArguments
) -> tuple[fx.Graph, nn.Module, dict[str, Returned]]:
    """A graph of ATen's operators, what has the tensors that it names, and what modules return.

    The sizes are those of the example, but for the batch if there is more than one in it.

    Raises:
        ConfigError: what was exported computes something else than the model.
        Exception: whatever torch.export raises where it fails.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch, about its own parts
        program = torch.export.export(
            model, given.args, given.kwargs, dynamic_shapes=_dynamic(model, given)
        )
        module: Any = program.module()
    if not model.training:
        _check(model, module, given)
    graph = _plain(module)
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    values = pytree.tree_leaves((given.args, given.kwargs))
    for node, value in zip(inputs, values, strict=True):
        if not isinstance(value, torch.Tensor):
            graph.erase_node(node)  # a constant of the graph
    return graph, module, _returned(graph)


def _dynamic(model: nn.Module, given: inspect.BoundArguments) -> dict[str, Any]:
    positional, keywords = pytree.tree_map(_batch, (given.args, given.kwargs))
    names = list(inspect.signature(model.forward).parameters)
    return {**dict(zip(names, positional, strict=False)), **keywords}


def _batch(value: Any) -> Any:
    # A batch of one would be taken for a constant; torch before 2.6 takes all for such.
    auto = getattr(torch.export.Dim, "AUTO", None)
    if auto is not None and isinstance(value, torch.Tensor) and value.dim() and len(value) > 1:
        return {0: auto}
    return None


def _check(model: nn.Module, exported: Any, given: inspect.BoundArguments) -> None:
    """Refuse a graph whose outputs differ in a bit: ATen's operators may be others than eager's."""
    with torch.no_grad():
        one, two = (
            pytree.tree_leaves(run(*_copied(given.args), **_copied(given.kwargs)))
            for run in (model, exported)
        )
    if not all(map(_same, one, two)):
        raise ConfigError(
            "what torch.export makes of the model computes other bits than the model",
            where=type(model).__name__,
            allowed="the same",
            remedy="where it has transformer layers of torch, call "
            "torch.backends.mha.set_fastpath_enabled(False) first",
        )


def _copied(values: Any) -> Any:
    return pytree.tree_map(lambda v: v.clone() if isinstance(v, torch.Tensor) else v, values)


def _same(one: Any, two: Any) -> bool:
    if not isinstance(one, torch.Tensor) or not isinstance(two, torch.Tensor):
        return bool(one == two)
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    return bool(((one == two) | ((one != one) & (two != two))).all())


def _plain(module: Any) -> fx.Graph:
    """The graph without the flattening of its inputs and outputs, and without the guards."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        if node.target == "_guards_fn":
            continue  # checks the sizes of the inputs: those of the tail are others
        if node.op == "output":
            leaves = [copies.get(leaf, leaf) for leaf in node.args[0]]
            graph.output(_packed(graph, leaves, module._out_spec))
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    return graph


class _Pack:
    """Makes what a model returns, where this is of a class that a graph cannot hold."""

    def __init__(self, spec: pytree.TreeSpec) -> None:
        # torch.fx calls a function by its module and name.
        self.__name__, self.__module__ = "pack", "limosa"
        self._spec = spec

    def __call__(self, *leaves: Any) -> Any:
        return pytree.tree_unflatten(leaves, self._spec)


def _packed(graph: fx.Graph, leaves: list[Any], spec: pytree.TreeSpec) -> Any:
    result = pytree.tree_unflatten(leaves, spec)
    parts = pytree.tree_leaves(result, is_leaf=lambda part: part is not result and _is_other(part))
    if _is_other(result) or any(map(_is_other, parts)):
        return graph.call_function(_Pack(spec), tuple(leaves))
    return result


def _is_other(part: Any) -> bool:
    """Whether a container is of a class of its own."""
    # Not tree_is_leaf, which torch has since 2.7.
    is_leaf = pytree.tree_structure(part).is_leaf()
    is_container = isinstance(part, (Mapping, tuple, list)) or not is_leaf
    return is_container and type(part) not in (dict, tuple, list)


def _returned(graph: fx.Graph) -> dict[str, Returned]:
    """What each module returns: its nodes that something outside it uses."""
    inside: dict[str, dict[str, set[fx.Node]]] = {}
    for node in graph.nodes:
        for key, (path, _) in (node.meta.get("nn_module_stack") or {}).items():
            inside.setdefault(path.partition("@")[0], {}).setdefault(key, set()).add(node)
    found = {}
    for path, calls in inside.items():
        nodes = next(iter(calls.values()))
        ordered = [node for node in graph.nodes if node in nodes]
        used = tuple(node for node in ordered if not nodes.issuperset(node.users))
        found[path] = Returned(used, ordered[-1])
    return found
