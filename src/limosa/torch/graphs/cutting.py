"""Where a graph falls in two: what runs before a cut, and which tensors cross it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from torch import fx, nn

from limosa.errors import ConfigError
from limosa.torch.graphs.memory import Memory
from limosa.torch.graphs.nodes import KIND, base_name, is_device, is_size
from limosa.torch.graphs.sizes import Sizes
from limosa.torch.graphs.tracing import Traced

_TUPLES = frozenset(
    "chunk split split_with_sizes tensor_split hsplit vsplit dsplit unbind topk sort".split()
)
_TUPLE_MODULES = (nn.RNNBase, nn.MultiheadAttention)


def names_of(given: str | Sequence[str], where: str) -> list[str]:
    """One name or several, as a list.

    Raises:
        ConfigError: there are none, or they are something else.
    """
    names = (
        [given] if isinstance(given, str) else list(given) if isinstance(given, Sequence) else []
    )
    if not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            "names are needed",
            where=where,
            found=repr(given),
            allowed="the name of a module or of a node, or several",
        )
    return list(dict.fromkeys(names))


@dataclass(frozen=True)
class Plan:
    """A graph in two parts.

    Attributes:
        before: nodes that the head runs; the model's inputs are among them.
        crossing: what the tail needs of them, tensors, in the order of execution.
        numbers: number -> (tensor that crosses, dimension) that is this size behind the cut.
        unresolved: numbers that the tail needs and no crossing tensor tells.
    """

    before: frozenset[fx.Node]
    crossing: tuple[fx.Node, ...]
    numbers: dict[fx.Node, tuple[fx.Node, int]]
    unresolved: tuple[fx.Node, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the crossing tensors."""
        return tuple(node.name for node in self.crossing)


class Cutter:
    """Finds plans for one graph.

    Attributes:
        traced: the graph.
        memory: of its nodes.
        constants: nodes that no input reaches, but for its device; both sides compute those that
            they need.
        live: nodes that the output needs.
    """

    def __init__(self, traced: Traced) -> None:
        self.traced = traced
        self.sizes = Sizes(traced)
        self.memory = Memory(traced)
        self.nodes = traced.nodes
        self._position = {node: index for index, node in enumerate(self.nodes)}
        self._earlier: dict[fx.Node, frozenset[fx.Node]] = {}
        self.constants: set[fx.Node] = set()
        self._changed = set[fx.Node]().union(*self.memory.changes.values())
        for node in self.nodes:
            needs = self.memory.needs[node]
            self._earlier[node] = frozenset({node}).union(*(self._earlier[n] for n in needs))
            if self._is_constant(node):
                self.constants.add(node)
        self.live = self._earlier[self.nodes[-1]]
        self._inputs = [node for node in self.nodes if node.op == "placeholder"]

    def _is_constant(self, node: fx.Node) -> bool:
        if is_device(node):
            return True
        if node.op in ("placeholder", "output") or self.memory.changes[node]:
            return False
        if not self.memory.needs[node] <= self.constants:
            return False
        if node.op != "get_attr" and self.memory.group[node] in self._changed:
            return False
        if node.op == "call_module":
            module = self.traced.root.get_submodule(str(node.target))
            return not isinstance(module, nn.modules.dropout._DropoutNd)
        # What draws random numbers must run once.
        return node.op == "get_attr" or not node.is_impure()

    def is_tensor(self, node: fx.Node) -> bool:
        """Whether a node can cross a cut, as far as that is known."""
        if node.op in ("output", "get_attr") or node in self.constants or is_size(node):
            return False
        kind = node.meta.get(KIND)
        return kind == "tensor" if kind else not self._is_tuple(node)

    def _is_tuple(self, node: fx.Node) -> bool:
        kind = node.meta.get(KIND)
        if kind is not None:
            return bool(kind == "other")
        if node.op == "call_module":
            module = self.traced.root.get_submodule(str(node.target))
            return isinstance(module, _TUPLE_MODULES)
        if base_name(node.target) == "getitem" and node.args[1] == 1:
            # An LSTM returns (outputs, (h, c)).
            source = node.all_input_nodes[0]
            return source.op == "call_module" and isinstance(
                self.traced.root.get_submodule(str(source.target)), nn.LSTM
            )
        return node.op in ("call_function", "call_method") and base_name(node.target) in _TUPLES

    def find(self, name: str, where: str) -> list[fx.Node]:
        """The tensors that a module, or a node, of this name returns.

        Raises:
            ConfigError: there is none, or it is no tensor.
        """
        returned = self.traced.outputs.get(name)
        if returned is not None:
            found = [self._at(node, returned.last) for node in returned.nodes]
        else:
            found = [node for node in self.nodes if node.name == name and node.op != "output"]
        tensors = [part for node in found for part in self._parts(node) if self.is_tensor(part)]
        if not tensors:
            raise self._unknown(name, where, bool(found))
        return tensors

    def modules(self) -> dict[fx.Node, str]:
        """Node -> the outermost module that returns this one tensor."""
        found: dict[fx.Node, str] = {}
        for name in sorted(self.traced.outputs, key=lambda name: name.count(".")):
            returned = self.traced.outputs[name]
            if len(returned.nodes) == 1:
                found.setdefault(self._at(returned.nodes[0], returned.last), name)
        return found

    def _at(self, node: fx.Node, last: fx.Node) -> fx.Node:
        """What a tensor is after the changes in place up to the node *last*."""
        where = self._position
        while (later := self.memory.followed.get(node)) and where[later] <= where[last]:
            node = later
        return node

    def _parts(self, node: fx.Node) -> list[fx.Node]:
        """A node itself, or the nodes that take a tuple apart."""
        if not self._is_tuple(node):
            return [node]
        items = [u for u in node.users if base_name(u.target) == "getitem" and u in self.live]
        return [part for item in items for part in self._parts(item)]

    def _unknown(self, name: str, where: str, is_there: bool) -> ConfigError:
        if is_there:
            return ConfigError(
                "this is no tensor that depends on the inputs",
                where=f"{where} {name!r}",
                allowed="a node or a module that returns tensors",
            )
        modules = dict(self.traced.root.named_modules())
        if name in modules:
            return ConfigError(
                "the model never calls this module", where=f"{where} {name!r}",
                found=type(modules[name]).__name__,
                remedy="name one of those inside it, or the node that computes what you need",
            )  # fmt: skip
        names = [*self.traced.outputs, *(n.name for n in self.nodes if self.is_tensor(n))]
        near = get_close_matches(name, dict.fromkeys(names), n=4, cutoff=0.4)
        return ConfigError(
            "the model has no such module or node", where=f"{where} {name!r}",
            allowed="for example " + ", ".join(map(repr, near or names[:4])),
            remedy="cuts(model, example) lists all places to cut",
        )  # fmt: skip

    def plan(self, after: Collection[fx.Node]) -> Plan:
        """The cut behind the nodes *after*, whatever has to cross there."""
        last = max(self._position[node] for node in after)
        before = set(self._inputs).union(*(self._earlier[node] for node in after))
        for node in self.nodes[:last]:
            if self.is_count(node):
                before |= self._earlier[node]
        for node in self.nodes:
            if node not in before and self._is_free(node, before):
                before.add(node)
        needed = self._needed(before)
        tensors = tuple(node for node in needed if not is_size(node))
        numbers = {node: self._resolve(node, tensors) for node in needed if is_size(node)}
        return Plan(
            frozenset(before),
            tensors,
            {number: found for number, found in numbers.items() if found},
            tuple(number for number, found in numbers.items() if not found),
        )

    def is_count(self, node: fx.Node) -> bool:
        """Whether a node changes what the model keeps and no output needs: counts batches, say."""
        needs = self.memory.needs[node]
        is_dead = node not in self.live and bool(self.memory.changes[node])
        return is_dead and needs <= self.constants | self._counts(needs)

    def _counts(self, nodes: set[fx.Node]) -> set[fx.Node]:
        return {node for node in nodes if self.is_count(node)}

    def _is_free(self, node: fx.Node, before: set[fx.Node]) -> bool:
        """Whether a node goes before the cut although nothing there needs it."""
        inputs = node.all_input_nodes
        if node.op == "output" or not inputs or not self.memory.needs[node] <= before:
            return False
        if node not in self.live:
            return True  # a check, say, of the inputs
        if is_size(node):
            return True
        return base_name(node.target) == "getitem" and self._is_tuple(inputs[0])

    def _needed(self, before: set[fx.Node]) -> list[fx.Node]:
        """What of *before* the nodes behind it use."""
        return [
            node
            for node in self.nodes
            if node in before
            and node not in self.constants
            and any(user in self.live and user not in before for user in node.users)
        ]

    def _resolve(self, number: fx.Node, tensors: tuple[fx.Node, ...]) -> tuple[fx.Node, int] | None:
        for tensor in tensors:
            dimension = self.sizes.dimension(number, tensor)
            if dimension is not None:
                return tensor, dimension
        return None

    def changed_behind(self, plan: Plan) -> set[fx.Node]:
        """Crossing tensors that nodes behind the cut change in place."""
        changed = set[fx.Node]()
        for node in self.nodes:
            if node not in plan.before and node in self.live:
                changed |= self.memory.changes[node]
        return {node for node in plan.crossing if self.memory.group[node] in changed}

    def entangled(self, plan: Plan) -> list[fx.Node]:
        """Crossing views of one memory that is changed behind the cut, where they are apart."""
        changed = self.changed_behind(plan)
        counts = Counter(self.memory.group[node] for node in changed)
        return [n for n in plan.crossing if n in changed and counts[self.memory.group[n]] > 1]
