"""What a node of a graph calls, and what is known of it from that."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx

KIND = "limosa_kind"
"""Where the ``meta`` of a node says "tensor", "number" or "other", if a run has shown it."""

IN_PLACE_OPERATORS = frozenset(
    getattr(operator, name)
    for name in "iadd iand ifloordiv ilshift imatmul imod imul ior ipow irshift isub itruediv ixor"
    .split()
)  # fmt: skip
_SIZES = frozenset({"size", "dim", "numel", "ndimension", "len"})
_SIZE_ATTRIBUTES = frozenset({"shape", "ndim", "device", "dtype"})
_ARITHMETIC = frozenset(
    "add sub mul floordiv truediv mod neg getitem iadd isub imul ifloordiv int".split()
)


def base_name(target: Any) -> str:
    """The name of what a node calls: ``relu`` of ``aten.relu.default`` and ``torch.relu``.

    >>> import torch
    >>> base_name(torch.relu), base_name(torch.ops.aten.relu_.default), base_name("view")
    ('relu', 'relu_', 'view')
    """
    if isinstance(target, str):
        return target
    packet = getattr(target, "overloadpacket", None)
    return str(getattr(packet or target, "__name__", target))


def is_size(node: fx.Node) -> bool:
    """Whether a node is a size, a shape, a device, or a number computed from such: no tensor.

    Known from a run if there was one, else told from what is called.
    """
    if KIND in node.meta:
        return bool(node.meta[KIND] == "number")
    if node.op not in ("call_method", "call_function"):
        return False
    name = base_name(node.target)
    if name in _SIZES or name.startswith("sym_"):
        return True
    if name == "getattr":
        return node.args[1] in _SIZE_ATTRIBUTES
    inputs = node.all_input_nodes
    return name in _ARITHMETIC and bool(inputs) and all(is_size(one) for one in inputs)


def is_device(node: fx.Node) -> bool:
    """Whether a node is the device of a tensor: behind a cut, that of whatever crossed it."""
    return node.target is getattr and node.args[1] == "device"


def changed_by_call(node: fx.Node) -> list[fx.Node]:
    """The arguments that a call of a function or a method changes in place, told by its name."""
    name = base_name(node.target)
    out = node.kwargs.get("out")
    found = [out] if isinstance(out, fx.Node) else []
    first = node.args[0] if node.args else node.kwargs.get("input")
    changes = (
        (name.endswith("_") and not name.endswith("__") and name != "requires_grad_")
        or name in ("setitem", "__setitem__")
        or (node.target in IN_PLACE_OPERATORS and not is_size(node))
        or bool(node.kwargs.get("inplace", False))
    )
    return [*found, first] if changes and isinstance(first, fx.Node) else found
