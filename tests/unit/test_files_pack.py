"""The general compressor, and values as JSON."""

from __future__ import annotations

import json
import math
import os
from collections import Counter, OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limosa.errors import CorruptError, FormatError, LimitError, TruncatedError
from limosa.files.pack import pack, read_uvarint, unpack, write_uvarint
from limosa.files.tree import MAX_DEPTH, TreeDecoder, TreeEncoder


@given(st.binary(max_size=300))
def test_pack(data):
    assert unpack(pack(data), len(data)) == data


@pytest.mark.parametrize(
    ("data", "method"),
    [(b"", 0), (os.urandom(1000), 0), (b"ab" * 40, 1), (json.dumps(list(range(9999))).encode(), 2)],
)
def test_the_smallest_method_is_taken(data, method):
    block = pack(data)
    assert block[0] == method
    assert unpack(block, len(data)) == data
    with pytest.raises(FormatError):
        unpack(block[:-1], 2**20)
    with pytest.raises(FormatError):
        unpack(block + b"x", 2**20)


def test_bombs_stop_at_what_they_announce():
    bomb = pack(bytes(2**24))
    with pytest.raises(LimitError, match="16777216"):
        unpack(bomb, 2**20)
    size = len(write_uvarint(2**24))
    lying = bomb[:1] + write_uvarint(10) + bomb[1 + size :]
    with pytest.raises(CorruptError, match="another length"):
        unpack(lying, 2**20)


@pytest.mark.parametrize(
    "block", [b"", b"\0", b"\x09\0", b"\1\5xxxxx", b"\2\5xxxxx", b"\1\0", b"\2\0"]
)
def test_malformed_blocks(block):
    with pytest.raises(FormatError):
        unpack(block, 100)


@given(st.integers(0, 2**63 - 1))
def test_uvarint(value):
    data = write_uvarint(value)
    assert read_uvarint(b"-" + data, 1) == (value, 1 + len(data))
    with pytest.raises(TruncatedError):
        read_uvarint(data[:-1], 0)


def test_uvarint_without_end():
    with pytest.raises(CorruptError):
        read_uvarint(b"\xff" * 20, 0)


def no_leaf(value, path):
    raise FormatError("leaf", where=".".join(path), found=type(value).__name__)


def there_and_back(value):
    node = json.loads(json.dumps(TreeEncoder(no_leaf).encode(value), allow_nan=False))
    return TreeDecoder(no_leaf).decode(node)


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.binary() | st.complex_numbers(allow_nan=False)
)  # fmt: skip
KEYS = st.text() | st.integers() | st.tuples(st.text(), st.integers())
VALUES = st.recursive(
    SCALARS | st.frozensets(st.integers()) | st.sets(st.text()),
    lambda inner: (
        st.lists(inner) | st.dictionaries(KEYS, inner) | st.lists(inner).map(tuple)
        | st.dictionaries(KEYS, inner).map(OrderedDict)
    ),
    max_leaves=20,
)  # fmt: skip


def same(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        pairs = zip(a.items(), b.items(), strict=True)
        return len(a) == len(b) and all(
            same(x, y) for p, q in pairs for x, y in zip(p, q, strict=True)
        )
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return repr(a) == repr(b) if isinstance(a, float | complex) else a == b


@given(VALUES)
def test_values_keep_types_and_order(value):
    assert same(there_and_back(value), value)


def test_values_that_json_lacks():
    out = there_and_back([math.nan, math.inf, -math.inf, -0.0, 2**5000, 1, 1.0, bytearray(b"x")])
    assert math.isnan(out[0])
    assert out[1:4] == [math.inf, -math.inf, 0]
    assert math.copysign(1, out[3]) == -1
    assert out[4] == 2**5000
    assert [type(v) for v in out[5:]] == [int, float, bytearray]
    assert there_and_back(Counter("aab")) == Counter("aab")


def test_shared_and_cyclic_values_stay_so():
    inner = [1]
    cycle = {"a": inner, "b": inner, ("k",): 1}
    cycle["self"] = cycle
    out = there_and_back(cycle)
    assert out["a"] is out["b"]
    assert out["self"] is out


def test_doubling_references_stay_small():
    value = []
    for _ in range(60):
        value = [value, value]
    assert len(json.dumps(TreeEncoder(no_leaf).encode(value))) < 2000


def test_attributes_of_ordered_dicts():
    value = OrderedDict(a=1)
    value._metadata = OrderedDict({"": {"version": 1}})
    assert there_and_back(value)._metadata == value._metadata


def test_deep_values():
    value = 1
    for _ in range(MAX_DEPTH):
        value = {"a": value}
    assert there_and_back(value) == value
    for _ in range(10):
        value = [value]
    with pytest.raises(LimitError):
        TreeEncoder(no_leaf).encode(value)
    node = ["list"]
    for _ in range(300):
        node = ["list", node]
    with pytest.raises(LimitError):
        TreeDecoder(no_leaf).decode(node)


@pytest.mark.parametrize(
    "node",
    [
        [], {}, ["exec", "1"], ["ref", 0], ["ref", -1], ["tuple", ["ref", 0]], ["int", "zz"],
        ["float", "00"], ["bytes", "0"], ["dict", [["list"], 1]], ["dict", 1], ["odict", 1],
        ["odict", ["dict", [1, 1]]], ["complex"], ["list", {}], [["list"]], ["set", ["list"]],
        ["complex", "a", "b"],
    ],
)  # fmt: skip
def test_malformed_nodes(node):
    with pytest.raises(FormatError):
        TreeDecoder(no_leaf).decode(node)
