"""ONNX models: the weights as tensors, the graph as a topology record beside them.

The skeleton is two packed blocks, each behind its length (uvarint): the JSON list of
``[slot, field]``, one for each tensor, and the ModelProto without their data. A slot counts the
TensorProtos of the model in the order of :func:`_walk`; the field is the one that held the data,
or ``external``. What comes back is equal as a protobuf to what ``onnx.load`` gives; data that lay
in external files come back inside the model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from limosa.errors import CorruptError, FormatError, LimitError, MissingExtraError, TruncatedError
from limosa.files.bundle import Bundle, Namer, Source
from limosa.files.mapped import map_file
from limosa.files.pack import pack, read_uvarint, unpack, write_uvarint
from limosa.files.paths import check_path
from limosa.limits import Limits
from limosa.tensors import DTYPES, Bytes, TensorSpec, as_bytes, numpy_dtype

# onnx.TensorProto.DataType by number; strings stay in the graph, any other travels as bytes.
_NAMES = {
    1: "F32", 2: "U8", 3: "I8", 4: "U16", 5: "I16", 6: "I32", 7: "I64", 9: "BOOL", 10: "F16",
    11: "F64", 12: "U32", 13: "U64", 14: "C64", 16: "BF16", 17: "F8_E4M3", 18: "F8_E4M3FNUZ",
    19: "F8_E5M2", 20: "F8_E5M2FNUZ", 23: "F4", 24: "F8_E8M0",
}  # fmt: skip

# Fields that hold one number for each element, where that is the tensor's own type.
_TYPED = {
    1: "float_data",
    6: "int32_data",
    7: "int64_data",
    11: "double_data",
    13: "uint64_data",
}
_FIELDS = ("raw_data", "external", *_TYPED.values())

_EXTERNAL = 1  # TensorProto.EXTERNAL
_DEFAULT = 0

# Constants in the graph below this are shapes and axes: as tensors they would cost more.
_SMALL = 256
# No protobuf may be longer.
_MAX_PROTO = 2**31 - 1


def _import_onnx(purpose: str) -> Any:
    try:
        import onnx
    except ImportError:
        raise MissingExtraError.for_extra("onnx", purpose) from None
    return onnx


def read_file(path: str | os.PathLike[str], limits: Limits) -> Bundle:
    """The bundle of an ONNX model and of its external data.

    Raises:
        MissingExtraError: onnx is not installed.
        FormatError: the file is malformed, or its external data lie outside its folder.
        LimitError: it holds more than *limits* allow.
    """
    onnx = _import_onnx("reading an ONNX model")
    where = os.fspath(path)
    size = os.stat(path).st_size
    if size > min(limits.max_total_bytes, _MAX_PROTO):
        allowed = min(limits.max_total_bytes, _MAX_PROTO)
        raise _beyond("the model is too large", where, size, f"{allowed}")
    model = _parse(onnx, Path(path).read_bytes(), where)
    rows, specs, blocks = _extract(model, Path(path), limits)
    if sum(spec.nbytes for spec in specs) + model.ByteSize() > _MAX_PROTO:
        raise FormatError(
            "the model and its external data do not fit one protobuf",
            where=where,
            allowed=f"{_MAX_PROTO} bytes",
            remedy="compress the folder that holds them",
        )
    proto = model.SerializeToString(deterministic=True)
    if len(proto) > limits.max_header_bytes:
        allowed_text = f"max_header_bytes {limits.max_header_bytes}"
        raise _beyond("the graph is too large", where, len(proto), allowed_text)
    parts = [pack(json.dumps(rows, separators=(",", ":")).encode()), pack(proto)]
    skeleton = b"".join(write_uvarint(len(part)) + part for part in parts)
    source = Source("", "onnx", skeleton, tuple(spec.name for spec in specs))
    return Bundle([source], specs, blocks.__getitem__, limits=limits)


def _parse(onnx: Any, data: bytes, where: str) -> Any:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.ModelProto.FromString(data)
    except (DecodeError, RuntimeError) as error:
        raise _corrupt("not an ONNX model", where, str(error)[:120]) from None
    if not model.HasField("graph"):
        raise _corrupt("not an ONNX model", where, "a protobuf without a graph")
    return model


def _walk(model: Any) -> Iterator[tuple[str, bool, Any]]:
    """Every TensorProto: a name for it, whether it is an initializer, and itself."""
    yield from _walk_graph(model.graph)
    for training in model.training_info:
        yield from _walk_graph(training.initialization)
        yield from _walk_graph(training.algorithm)
    for function in model.functions:
        for node in function.node:
            yield from _walk_node(node)


def _walk_graph(graph: Any) -> Iterator[tuple[str, bool, Any]]:
    for tensor in graph.initializer:
        yield tensor.name, True, tensor
    for sparse in graph.sparse_initializer:
        yield from _walk_sparse(sparse, sparse.values.name)
    for node in graph.node:
        yield from _walk_node(node)


def _walk_node(node: Any) -> Iterator[tuple[str, bool, Any]]:
    stem = node.name or (node.output[0] if node.output else node.op_type)
    for attribute in node.attribute:
        name = f"{stem}.{attribute.name}"
        if attribute.HasField("t"):
            yield name, False, attribute.t
        for tensor in attribute.tensors:
            yield name, False, tensor
        if attribute.HasField("sparse_tensor"):
            yield from _walk_sparse(attribute.sparse_tensor, name)
        for sparse in attribute.sparse_tensors:
            yield from _walk_sparse(sparse, name)
        if attribute.HasField("g"):
            yield from _walk_graph(attribute.g)
        for graph in attribute.graphs:
            yield from _walk_graph(graph)


def _walk_sparse(sparse: Any, name: str) -> Iterator[tuple[str, bool, Any]]:
    # A missing message must stay missing: touching a field of it would create it.
    if sparse.HasField("values"):
        yield f"{name}.values", True, sparse.values
    if sparse.HasField("indices"):
        yield f"{name}.indices", True, sparse.indices


def _extract(
    model: Any, path: Path, limits: Limits
) -> tuple[list[tuple[int, str]], list[TensorSpec], list[Bytes]]:
    """Move the data out of *model*; what is left of it is the topology."""
    name = Namer()
    rows: list[tuple[int, str]] = []
    specs: list[TensorSpec] = []
    blocks: list[Bytes] = []
    for slot, (own, initializer, tensor) in enumerate(_walk(model)):
        if tensor.data_location == _EXTERNAL:
            field, data = "external", _read_external(tensor, path, limits)
        else:
            taken = _take(tensor, 0 if initializer else _SMALL)
            if taken is None:
                continue
            field, data = taken
        dtype, shape = _NAMES.get(tensor.data_type, "U8"), tuple(tensor.dims)
        spec = TensorSpec(name(own or f"tensor{slot}"), dtype, shape)
        if min(shape, default=0) < 0 or spec.elements * DTYPES[dtype].bits != data.size * 8:
            spec = TensorSpec(spec.name, "U8", (data.size,))
        rows.append((slot, field))
        specs.append(spec)
        blocks.append(data)
    return rows, specs, blocks


def _take(tensor: Any, smallest: int) -> tuple[str, Bytes] | None:
    """The data, removed from *tensor*, and their field; None where they stay."""
    if tensor.HasField("raw_data"):
        if len(tensor.raw_data) < smallest:
            return None
        data = as_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
        return "raw_data", data
    field = _TYPED.get(tensor.data_type)
    if field is None or not getattr(tensor, field):
        return None
    numbers = np.array(getattr(tensor, field), numpy_dtype(_NAMES[tensor.data_type]))
    # A NaN may change its bits on the way through Python's float.
    if numbers.nbytes < smallest or np.isnan(numbers).any():
        return None
    tensor.ClearField(field)
    return field, numbers.view(np.uint8)


def _read_external(tensor: Any, path: Path, limits: Limits) -> Bytes:
    """The external data of *tensor*, which becomes a tensor like any other."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    where = f"tensor {tensor.name[:80]!r}"
    location = entries.get("location", "")
    check_path(location, limits)
    file = (path.parent / location).resolve()
    if path.parent.resolve() not in file.parents or not file.is_file():
        raise FormatError(
            "external data are missing, or outside the folder of the model",
            where=where,
            found=location,
            allowed=f"a file below {path.parent}",
            remedy="fetch it as well, or replace a link by what it points to",
        )
    data = map_file(file)
    try:
        begin = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(data.size - begin)))
    except ValueError as error:
        raise _corrupt("bad offset or length of external data", where, str(error)[:80]) from None
    if begin < 0 or length < 0 or begin + length > data.size:
        raise _corrupt("external data out of range", where, f"{begin} + {length} of {data.size}")
    tensor.ClearField("external_data")
    tensor.data_location = _DEFAULT  # set, not cleared: as onnx.load leaves it
    return data[begin : begin + length]


class OnnxWriter:
    """Puts the tensors back into the graph, then writes the model."""

    def __init__(
        self, file: BinaryIO, source: Source, specs: Sequence[TensorSpec], limits: Limits
    ) -> None:
        onnx = _import_onnx("restoring an ONNX model")
        self._file = file
        table, proto = _split(source.skeleton, limits)
        self._model = _parse(onnx, proto, "skeleton")
        slots = [tensor for _, _, tensor in _walk(self._model)]
        self._rows = [(slots[n], field) for n, field in _parse_table(table, len(slots))]
        if len(self._rows) != len(specs):
            raise _corrupt("the graph has other tensors", "skeleton", f"{len(self._rows)} slots")
        self._next = 0

    def write(self, spec: TensorSpec, data: Bytes) -> None:
        """Fill the next slot."""
        tensor, field = self._rows[self._next]
        self._next += 1
        if field in ("raw_data", "external"):
            tensor.raw_data = data.tobytes()
            return
        if _TYPED.get(tensor.data_type) != field or _NAMES[tensor.data_type] != spec.dtype:
            raise _corrupt("a slot of another type", f"tensor {spec.name!r}", spec.dtype)
        getattr(tensor, field).extend(data.view(numpy_dtype(spec.dtype)).tolist())

    def finish(self) -> None:
        """Write the model."""
        self._file.write(self._model.SerializeToString(deterministic=True))


def _split(skeleton: bytes, limits: Limits) -> tuple[bytes, bytes]:
    blocks = []
    at = 0
    for _ in range(2):
        size, at = read_uvarint(skeleton, at)
        if size > len(skeleton) - at:
            raise TruncatedError("a block is cut off", where="skeleton", found=f"{size} bytes")
        blocks.append(unpack(skeleton[at : at + size], limits.max_header_bytes))
        at += size
    if at != len(skeleton):
        raise _corrupt("bytes follow the last block", "skeleton", f"{len(skeleton) - at}")
    return blocks[0], blocks[1]


def _parse_table(text: bytes, count: int) -> list[tuple[int, str]]:
    try:
        rows = [(slot, field) for slot, field in json.loads(text)]
    except (ValueError, TypeError, RecursionError) as error:
        raise _corrupt("bad table of slots", "skeleton", str(error)[:120]) from None
    slots = [slot for slot, _ in rows]
    if not all(type(s) is int and 0 <= s < count for s in slots) or slots != sorted(set(slots)):
        raise _corrupt("slots out of range or out of order", "skeleton", f"of {count}")
    if not all(field in _FIELDS for _, field in rows):
        raise _corrupt("unknown field", "skeleton", "a field other than " + ", ".join(_FIELDS))
    return rows


def _corrupt(problem: str, where: str, found: str) -> CorruptError:
    return CorruptError(problem, where=where, found=found, remedy="fetch or export the model again")


def _beyond(problem: str, where: str, found: int, allowed: str) -> LimitError:
    return LimitError(
        problem,
        where=where,
        found=f"{found} bytes",
        allowed=allowed,
        remedy="pass a larger Limits, or compress the folder that holds the model",
    )
