"""The modules on both sides of a cut."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import torch
from torch import fx, nn
from torch._ops import OpOverload

from limosa.torch.graphs.cutting import Cutter, Plan
from limosa.torch.graphs.nodes import is_device


class Part(fx.GraphModule):
    """A part of a model, which shares the model's modules, parameters and buffers.

    The keys of its state dict are the model's own.
    """

    def __init__(self, root: nn.Module, graph: fx.Graph) -> None:
        super().__init__(root, graph, _kind(self).__name__)
        for module in self.modules():
            # The containers between this and the shared modules are new.
            if type(module) is nn.Module:
                module.training = self.training
        for node in graph.nodes:
            if node.op == "get_attr":
                self._keep_out(root, str(node.target))

    def _keep_out(self, root: nn.Module, target: str) -> None:
        """Keep a tensor out of the state dict, as the model does: torch.fx makes it a buffer."""
        path, _, name = target.rpartition(".")
        mine, theirs = self.get_submodule(path), root.get_submodule(path)
        is_saved = name in theirs._buffers and name not in theirs._non_persistent_buffers_set
        if name in mine._buffers and not is_saved:
            mine._non_persistent_buffers_set.add(name)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the graph itself; to trace the code again, as torch.fx does, changes it."""
        state = {name: value for name, value in self.__dict__.items() if name != "_graph"}
        return _restore, (_kind(self), state, _picklable(self.graph))

    def _deepcopy_init(self) -> Callable[..., None]:
        return _kind(self).__init__


def _kind(part: Part) -> type[Part]:
    """The class of a part; torch.fx makes a new one for each instance."""
    return next(base for base in type(part).__mro__ if base.__module__.startswith("limosa."))


def _picklable(graph: fx.Graph) -> fx.Graph:
    """A copy that does not lead back to its module; ATen's operators are methods by their names."""
    made, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in graph.nodes:
        op, target = node.op, node.target
        if isinstance(target, OpOverload):
            op, target = "call_method", str(target)
        args, kwargs = fx.map_arg((node.args, node.kwargs), copies.__getitem__)
        copies[node] = made.create_node(op, target, args, kwargs, node.name, node.type)
    return made


def _restore(kind: type[Part], state: dict[str, Any], graph: fx.Graph) -> Part:
    for node in graph.nodes:
        if node.op == "call_method" and "." in node.target:
            node.op, node.target = "call_function", attrgetter(node.target)(torch.ops)
    holder = nn.Module()
    holder.__dict__.update(state)
    return kind(holder, graph)


def head_graph(
    cutter: Cutter, plan: Plan, returned: tuple[fx.Node, ...], *, keep: bool = False
) -> fx.Graph:
    """The nodes before a cut.

    Args:
        cutter: of the model.
        plan: of the cut.
        returned: nodes whose values the graph returns: one as it is, several as a tuple.
        keep: return each value as it was when it was made, whatever changes it in place later.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    results: dict[fx.Node, fx.Node] = {}
    nodes = [node for node in cutter.nodes if node in plan.before]
    changed = set[fx.Node]().union(*(cutter.memory.changes[node] for node in nodes))
    # Placeholders first: in a graph of torch.export, parameters come before them.
    for node in sorted(nodes, key=lambda node: node.op != "placeholder"):
        copies[node] = results[node] = _copied(graph, node, copies)
        if keep and node in returned and cutter.memory.group[node] in changed:
            results[node] = graph.call_method("clone", (copies[node],))
    values = tuple(results[node] for node in returned)
    graph.output(values[0] if len(values) == 1 else values)
    return graph


def tail_graph(cutter: Cutter, plan: Plan) -> fx.Graph:
    """The nodes behind a cut; its inputs are the crossing tensors, which it never changes."""
    graph = fx.Graph()
    copies = {node: graph.placeholder(node.name) for node in plan.crossing}
    for number, (tensor, dimension) in plan.numbers.items():
        copies[number] = graph.call_method("size", (copies[tensor], dimension))
    changed = cutter.changed_behind(plan)
    for node in plan.crossing:
        if node in changed:
            copies[node] = graph.call_method("clone", (copies[node],))
    for node in _behind(cutter, plan, set(copies)):
        if is_device(node):
            copies[node] = graph.call_function(getattr, (copies[plan.crossing[0]], "device"))
        else:
            copies[node] = _copied(graph, node, copies)
    return graph


def _copied(graph: fx.Graph, node: fx.Node, copies: dict[fx.Node, fx.Node]) -> fx.Node:
    """A copy without what tracing noted, which may be large and cannot always be copied."""
    made = graph.node_copy(node, copies.__getitem__)
    made.meta = {}
    return made


def _behind(cutter: Cutter, plan: Plan, given: set[fx.Node]) -> list[fx.Node]:
    """The nodes to run, constants that they need among them, in order."""
    needed = {
        node
        for node in cutter.nodes
        if node not in plan.before and (node in cutter.live or cutter.is_count(node))
    }
    for node in reversed(cutter.nodes):
        if node in needed:
            needed.update(n for n in node.all_input_nodes if n in cutter.constants)
    return [node for node in cutter.nodes if node in needed and node not in given]
