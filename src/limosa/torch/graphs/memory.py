"""Which nodes share memory, and which change it in place.

A cut puts some nodes before others, so beside the arguments of a node its memory counts: who reads
a tensor before it is changed in place must go first, who reads it afterwards must follow.
"""

from __future__ import annotations

from torch import fx, nn

from limosa.torch.graphs.nodes import base_name, changed_by_call, is_size
from limosa.torch.graphs.tracing import Traced

# Results that are the argument or a view of it, always or sometimes.
_VIEWS = frozenset(
    "getitem getattr view view_as reshape reshape_as flatten unflatten ravel transpose permute "
    "swapaxes swapdims movedim moveaxis adjoint t squeeze unsqueeze expand expand_as broadcast_to "
    "narrow select slice chunk split split_with_sizes tensor_split hsplit vsplit dsplit unbind "
    "unfold diagonal detach contiguous to type float double half bfloat16 cpu cuda type_as alias "
    "real imag view_as_real view_as_complex as_strided resolve_conj resolve_neg requires_grad_ "
    "dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout "
    "identity positive atleast_1d atleast_2d atleast_3d".split()
)
_VIEWING_MODULES = (
    nn.Identity, nn.Flatten, nn.Unflatten, nn.modules.dropout._DropoutNd,
)  # fmt: skip
_KNOWN = frozenset({"", "torch", "_operator", "operator", "math", "builtins"})


class Memory:
    """What the nodes of a graph do to each other's memory.

    Making one rewrites the graph, to the same effect: what is used after a change in place is
    the node that changed it, which is the same tensor.

    Attributes:
        group: node -> the node whose memory its value may share, itself if it has its own.
        changes: node -> groups that it changes in place.
        needs: node -> nodes that must run before it, its arguments among them.
        followed: node -> the node that is the same tensor after a change in place.
    """

    def __init__(self, traced: Traced) -> None:
        self._root = traced.root
        self.group: dict[fx.Node, fx.Node] = {}
        self.changes: dict[fx.Node, set[fx.Node]] = {}
        self.needs: dict[fx.Node, set[fx.Node]] = {}
        self.followed: dict[fx.Node, fx.Node] = {}
        nodes = traced.nodes
        self._rewire(nodes)
        touched: dict[fx.Node, list[fx.Node]] = {}
        changed: dict[fx.Node, list[fx.Node]] = {}
        for node in nodes:
            self._note(node, touched, changed)

    def _rewire(self, nodes: list[fx.Node]) -> None:
        position = {node: index for index, node in enumerate(nodes)}
        for node in nodes:
            changed = self._changed(node)
            if len(changed) != 1 or not self._returns_it(node):
                continue
            earlier = changed[0]
            self.followed[earlier] = node
            for user in list(earlier.users):
                if position[user] > position[node]:
                    user.replace_input_with(earlier, node)

    def _note(
        self,
        node: fx.Node,
        touched: dict[fx.Node, list[fx.Node]],
        changed: dict[fx.Node, list[fx.Node]],
    ) -> None:
        inputs = node.all_input_nodes
        changes = {self.group[one] for one in self._changed(node)}
        groups = {self.group[one] for one in inputs}
        self.changes[node] = changes
        self.group[node] = self.group[inputs[0]] if self._shares(node) else node
        needs = set(inputs)
        for group in groups:
            needs.update(changed.get(group, ()))
            # Sizes are read from a tensor, not from its memory.
            if not is_size(node):
                touched.setdefault(group, []).append(node)
        for group in changes:
            needs.update(touched.get(group, ()))
            changed.setdefault(group, []).append(node)
        self.needs[node] = needs - {node}

    def _changed(self, node: fx.Node) -> list[fx.Node]:
        """The arguments that a node changes in place."""
        if node.op == "call_module":
            module = self._root.get_submodule(str(node.target))
            return node.all_input_nodes[:1] if getattr(module, "inplace", False) else []
        if node.op not in ("call_method", "call_function"):
            return []
        schema = getattr(node.target, "_schema", None)
        if schema is not None:
            given = dict(zip((said.name for said in schema.arguments), node.args, strict=False))
            given.update(node.kwargs)
            written = [s.name for s in schema.arguments if s.alias_info and s.alias_info.is_write]
            values = [given.get(name) for name in written]
            return [value for value in values if isinstance(value, fx.Node)]
        return changed_by_call(node)

    @staticmethod
    def _returns_it(node: fx.Node) -> bool:
        """Whether what a changing node returns is what it changed."""
        return base_name(node.target) not in ("setitem", "__setitem__")

    def _shares(self, node: fx.Node) -> bool:
        inputs = node.all_input_nodes
        if not inputs or node.op in ("output", "placeholder", "get_attr") or is_size(node):
            return False
        if self._changed(node):
            return True
        if node.op == "call_module":
            module = self._root.get_submodule(str(node.target))
            if isinstance(module, _VIEWING_MODULES):
                return True
            # A leaf that is not torch's may return what it was given.
            return not type(module).__module__.startswith("torch.")
        schema = getattr(node.target, "_schema", None)
        if schema is not None and any(result.alias_info for result in schema.returns):
            return True
        return base_name(node.target) in _VIEWS or _is_foreign(node)


def _is_foreign(node: fx.Node) -> bool:
    """Whether a node calls a function that is neither torch's nor Python's own."""
    if node.op != "call_function":
        return False
    module = str(getattr(node.target, "__module__", "") or "")
    return module.partition(".")[0] not in (
        "",
        "torch",
        "_operator",
        "operator",
        "math",
        "builtins",
    )
