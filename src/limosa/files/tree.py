"""Nested Python values as JSON, so that a checkpoint comes back without a pickle.

A node is ``null``, a boolean, an integer, a finite float or a string as JSON has it, or a list
whose first item says what it is::

    ["float", hex]          8 bytes, big-endian: NaN and the infinities
    ["int", hex]            integers beyond 64 bits
    ["complex", re, im]     two nodes
    ["bytes", hex]  ["bytearray", hex]
    ["list", …]  ["tuple", …]  ["set", …]  ["frozenset", …]       nodes
    ["dict", [k, v], …]  ["counter", [k, v], …]
    ["odict", attributes, [k, v], …]      attributes: a node, what OrderedDict.__dict__ holds
    ["leaf", n]             the n-th value that is none of these: a tensor, a torch.dtype …
    ["ref", n]              the n-th container or leaf again, counted as they begin

References keep shared and cyclic values as they were, and keep a file of a few bytes from
growing into more nodes than it has.
"""

from __future__ import annotations

import math
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from limosa.errors import CorruptError, FormatError, LimitError

# Deeper than any checkpoint, and well within the recursion that Python and its JSON allow.
MAX_DEPTH = 100

_UNKNOWN = object()

Leaf = Callable[[Any, tuple[str, ...]], int]


class TreeEncoder:
    """Turns a value into a node; *leaf* numbers what is not a plain Python value.

    *leaf* is called with the value and its path, and raises for what it does not know.
    """

    def __init__(self, leaf: Leaf) -> None:
        self._leaf = leaf
        self._begun: dict[int, int] = {}
        self._keep: list[Any] = []  # an id() is unique only while its object lives

    def encode(self, value: Any, path: tuple[str, ...] = ()) -> Any:
        """The node of *value*.

        Raises:
            FormatError: the value, or one within, is of a type that cannot be kept.
            LimitError: values are nested deeper than :data:`MAX_DEPTH`.
        """
        node = _encode_scalar(value)
        if node is not _UNKNOWN:
            return node
        if len(path) > MAX_DEPTH:
            raise LimitError(
                "values are nested too deeply",
                where=".".join(path[:4]) + "…",
                allowed=f"{MAX_DEPTH} levels",
                remedy="save the tensors in a flatter structure",
            )
        if id(value) in self._begun:
            return ["ref", self._begun[id(value)]]
        self._begun[id(value)] = len(self._begun)
        self._keep.append(value)
        return self._encode_container(value, path)

    def _encode_container(self, value: Any, path: tuple[str, ...]) -> list[Any]:
        kind = type(value)
        if kind in (list, tuple):
            items = enumerate(value)
            return [kind.__name__, *(self.encode(item, (*path, str(i))) for i, item in items)]
        if kind in (set, frozenset):
            # A set has no order of its own; sorted, the same set gives the same bytes.
            return [kind.__name__, *(self.encode(v, (*path, "?")) for v in sorted(value, key=repr))]
        if kind in (dict, Counter):
            return [kind.__name__.lower(), *self._encode_pairs(value.items(), path)]
        if kind is OrderedDict:
            attributes = self.encode(dict(vars(value)), (*path, "__dict__"))
            return ["odict", attributes, *self._encode_pairs(value.items(), path)]
        return ["leaf", self._leaf(value, path)]

    def _encode_pairs(
        self, items: Iterable[tuple[Any, Any]], path: tuple[str, ...]
    ) -> list[list[Any]]:
        return [
            [self.encode(key, (*path, "?")), self.encode(value, (*path, str(key)))]
            for key, value in items
        ]


def _encode_scalar(value: Any) -> Any:
    if value is None or type(value) is bool:
        return value
    if type(value) is int:
        return value if -(2**63) <= value < 2**64 else ["int", hex(value)]
    if type(value) is float:
        return value if math.isfinite(value) else ["float", struct.pack(">d", value).hex()]
    if type(value) is str:
        return value
    if type(value) is complex:
        return ["complex", _encode_scalar(value.real), _encode_scalar(value.imag)]
    if type(value) in (bytes, bytearray):
        return [type(value).__name__, value.hex()]
    return _UNKNOWN


class TreeDecoder:
    """Turns nodes back into values; ``leaf(n)`` gives the n-th leaf."""

    def __init__(self, leaf: Callable[[int], Any]) -> None:
        self._leaf = leaf
        self._begun: list[Any] = []

    def decode(self, node: Any, depth: int = 0) -> Any:
        """The value of *node*.

        Raises:
            CorruptError: the node is not one that :class:`TreeEncoder` makes.
            LimitError: nodes are nested deeper than :data:`MAX_DEPTH`.
        """
        if depth > MAX_DEPTH + 1:
            raise LimitError("values are nested too deeply", allowed=f"{MAX_DEPTH} levels")
        if not isinstance(node, list):
            return _checked(node)
        try:
            return self._decode_list(node[0], node[1:], depth)
        except FormatError:
            raise
        # A node with too few items, unhashable keys, odd hexadecimal digits …
        except (IndexError, TypeError, ValueError, AttributeError, struct.error) as error:
            raise CorruptError(
                "malformed node", where="skeleton", found=f"{repr(node)[:60]}: {error}"
            ) from None

    def _decode_list(self, tag: str, args: list[Any], depth: int) -> Any:
        if tag in _SCALARS:
            return _SCALARS[tag](*args)
        if tag == "complex":
            real, imaginary = (self.decode(arg, depth + 1) for arg in args)
            return complex(real, imaginary)
        if tag == "ref":
            value = self._begun[args[0]] if args[0] >= 0 else _UNKNOWN
            if value is _UNKNOWN:
                raise CorruptError("a reference into what is not complete", where="skeleton")
            return value
        slot = len(self._begun)
        self._begun.append(_UNKNOWN)
        if tag == "leaf":
            self._begun[slot] = self._leaf(args[0])
        elif tag in ("list", "dict", "counter", "odict"):
            # Known before its items are, so that they may refer to it.
            self._begun[slot] = _EMPTY[tag]()
            self._fill(self._begun[slot], tag, args, depth)
        elif tag in _FROZEN:
            self._begun[slot] = _FROZEN[tag](self.decode(arg, depth + 1) for arg in args)
        else:
            raise CorruptError("unknown node", where="skeleton", found=repr(tag)[:60])
        return self._begun[slot]

    def _fill(self, value: Any, tag: str, args: list[Any], depth: int) -> None:
        if tag == "list":
            value.extend(self.decode(arg, depth + 1) for arg in args)
            return
        if tag == "odict":
            attributes = self.decode(args[0], depth + 1)
            if not all(isinstance(name, str) for name in attributes):
                raise CorruptError("an attribute without a name", where="skeleton")
            vars(value).update(attributes)
            args = args[1:]
        for key, item in args:
            # Two statements: the key comes first in the numbering of references.
            name = self.decode(key, depth + 1)
            value[name] = self.decode(item, depth + 1)


def _checked(node: Any) -> Any:
    if isinstance(node, dict):
        raise CorruptError("unknown node", where="skeleton", found="a JSON object")
    return node


_SCALARS: dict[str, Callable[..., Any]] = {
    "float": lambda digits: struct.unpack(">d", bytes.fromhex(digits))[0],
    "int": lambda digits: int(digits, 16),
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
}

_EMPTY: dict[str, Callable[[], Any]] = {
    "list": list,
    "dict": dict,
    "counter": Counter,
    "odict": OrderedDict,
}

_FROZEN: dict[str, Callable[[Iterable[Any]], Any]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}
