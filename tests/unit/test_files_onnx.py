"""ONNX models: equal as protobufs, and they run."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from limosa.errors import CorruptError, FormatError, LimitError, MissingExtraError
from limosa.files import Restorer, Source, read
from limosa.files.pack import pack, write_uvarint
from limosa.limits import Limits

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

RNG = np.random.default_rng(0)


def restore(bundle, out):
    """Write a bundle as a decoder would."""
    with Restorer(bundle.sources, bundle.specs, out, Limits()) as restorer:
        for spec, data in bundle:
            restorer.write(spec, data.copy())
        restorer.finish()


def model_of(initializers, nodes=None, inputs=("x",), outputs=("y",)):
    nodes = nodes or [helper.make_node("MatMul", ["x", "w"], ["y"])]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "graph",
        [info(name, TensorProto.FLOAT, [1, 4]) for name in inputs],
        [info(name, TensorProto.FLOAT, None) for name in outputs],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def mlp():
    w = numpy_helper.from_array(RNG.normal(size=(4, 30)).astype(np.float32), "/fc/w")
    b = numpy_helper.from_array(np.ones(30, np.float32), "b")
    typed = helper.make_tensor("typed", TensorProto.FLOAT, [30], list(range(30)))
    constant = numpy_helper.from_array(np.ones((30, 30), np.float32), "value")
    small = numpy_helper.from_array(np.array([1, 30]), "shape")
    then = helper.make_graph(
        [helper.make_node("Constant", [], ["t"], value=constant, name="inner")],
        "then",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["b"], ["e"])],
        "else",
        [],
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, None)],
    )
    condition = helper.make_tensor("condition", TensorProto.BOOL, [], [True])
    nodes = [
        helper.make_node("Gemm", ["x", "/fc/w", "b"], ["h"]),
        helper.make_node("Add", ["h", "typed"], ["h2"]),
        helper.make_node("Constant", [], ["shape"], value=small),
        helper.make_node("Reshape", ["h2", "shape"], ["h3"]),
        helper.make_node("If", ["condition"], ["m"], then_branch=then, else_branch=other),
        helper.make_node("Mul", ["h3", "m"], ["y"]),
    ]
    return model_of([w, b, typed, condition], nodes)


def there_and_back(model, tmp_path, **options):
    onnx.save(model, tmp_path / "in.onnx", **options)
    bundle = read(tmp_path / "in.onnx")
    restore(bundle, tmp_path / "out.onnx")
    return bundle, onnx.load(tmp_path / "out.onnx")


def test_a_model_is_equal_and_runs(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    model = mlp()
    bundle, out = there_and_back(model, tmp_path)
    assert out == model
    assert [spec.name for spec in bundle.specs] == ["/fc/w", "b", "typed", "inner.value"]
    assert len(bundle.sources[0].skeleton) < 1000
    x = {"x": RNG.normal(size=(1, 4)).astype(np.float32)}
    results = [
        runtime.InferenceSession(tmp_path / name).run(None, x)[0]
        for name in ("in.onnx", "out.onnx")
    ]
    np.testing.assert_array_equal(*results)


def test_external_data(tmp_path):
    model = mlp()
    options = {"save_as_external_data": True, "location": "w.data", "size_threshold": 0}
    bundle, _ = there_and_back(model, tmp_path, **options)
    assert (tmp_path / "w.data").exists()
    (tmp_path / "alone").mkdir()
    (tmp_path / "out.onnx").rename(tmp_path / "alone" / "out.onnx")
    assert onnx.load(tmp_path / "alone" / "out.onnx") == onnx.load(tmp_path / "in.onnx")
    assert bundle.get("b").numpy().sum() == 30


def test_every_data_type(tmp_path):
    tensors = []
    for name, number in TensorProto.DataType.items():
        if number in (0, 8):
            continue
        tensor = TensorProto(name=name, data_type=number, dims=[4], raw_data=bytes(range(4)))
        tensors.append(tensor)
        width = {1: 4, 6: 4, 12: 4, 7: 8, 11: 8, 13: 8, 14: 8, 15: 16}.get(number, 1)
        width = 2 if number in (4, 5, 10, 16) else width
        tensors.append(
            TensorProto(name=name + "2", data_type=number, dims=[2, 2], raw_data=bytes(4 * width))
        )
    tensors += [
        helper.make_tensor("strings", TensorProto.STRING, [2], [b"a", b"b"]),
        helper.make_tensor("halves", TensorProto.FLOAT16, [2], [1.0, 2.0]),
        helper.make_tensor("ints", TensorProto.INT32, [2], [1, -2]),
        helper.make_tensor("longs", TensorProto.INT64, [1], [-(2**63)]),
        helper.make_tensor("unsigned", TensorProto.UINT64, [1], [2**64 - 1]),
        helper.make_tensor("doubles", TensorProto.DOUBLE, [1], [0.1]),
        helper.make_tensor("nan", TensorProto.FLOAT, [1], [float("nan")]),
        helper.make_tensor("nothing", TensorProto.FLOAT, [0], []),
        TensorProto(name="ragged", data_type=1, dims=[3], raw_data=b"12345"),
        TensorProto(name="negative", data_type=2, dims=[-1], raw_data=b"1"),
        TensorProto(name="same", data_type=2, dims=[1], raw_data=b"1"),
        TensorProto(name="same", data_type=2, dims=[1], raw_data=b"1"),
        TensorProto(name="blank", data_type=1, dims=[0], raw_data=b""),
    ]
    model = model_of(tensors)
    bundle, _ = there_and_back(model, tmp_path)
    kept = (tmp_path / "out.onnx").read_bytes()
    assert kept == model.SerializeToString(deterministic=True)
    assert bundle.get("longs").numpy()[0] == -(2**63)


def test_sparse_and_functions(tmp_path):
    model = mlp()
    sparse = model.graph.sparse_initializer.add(dims=[9])
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(2, np.float32), "s"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array([1, 3]), "i"))
    model.graph.sparse_initializer.add(dims=[9])
    node = helper.make_node("Constant", [], ["o"], value=numpy_helper.from_array(np.ones(99)))
    model.functions.append(helper.make_function("d", "f", [], ["o"], [node], model.opset_import))
    _, out = there_and_back(model, tmp_path)
    assert out == model


def external(location, **entries):
    tensor = TensorProto(name="w", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


@pytest.mark.parametrize(
    "tensor",
    [
        external("../secret"),
        external("/etc/passwd"),
        external("missing"),
        external("link"),
        external("w.data", offset="9"),
        external("w.data", offset="-1"),
        external("w.data", offset="x"),
        external("w.data", length="9"),
        external("w.data", length="-1"),
        external("w.data", offset=str(2**70)),
        external(""),
        external("."),
    ],
)
def test_hostile_external_data(tensor, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(4))
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "w.data").write_bytes(bytes(4))
    (folder / "m.onnx").write_bytes(model_of([tensor]).SerializeToString())
    with pytest.raises(FormatError):
        read(folder / "m.onnx")


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\x08\x08", bytes(50), b"\x80\x04."])
def test_other_files(content, tmp_path):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(CorruptError, match="not an ONNX model"):
        read(tmp_path / "m.onnx")


def test_limits(tmp_path):
    onnx.save(mlp(), tmp_path / "m.onnx")
    with pytest.raises(LimitError):
        read(tmp_path / "m.onnx", limits=Limits(max_elements=10))
    with pytest.raises(LimitError, match="max_header_bytes"):
        read(tmp_path / "m.onnx", limits=Limits(max_header_bytes=10))
    with pytest.raises(LimitError):
        read(tmp_path / "m.onnx", limits=Limits(max_total_bytes=10))


def skeleton(table, proto):
    parts = [pack(table), pack(proto)]
    return b"".join(write_uvarint(len(part)) + part for part in parts)


PROTO = model_of([TensorProto(name="w", data_type=1, dims=[1])]).SerializeToString()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x05",
        skeleton(b"[]", PROTO),
        skeleton(b'[[0,"raw_data"]]', b""),
        skeleton(b'[[1,"raw_data"]]', PROTO),
        skeleton(b'[[-1,"raw_data"]]', PROTO),
        skeleton(b'[[0,"name"]]', PROTO),
        skeleton(b'[[0,"int64_data"]]', PROTO),
        skeleton(b"[[0]]", PROTO),
        skeleton(b"{", PROTO),
        skeleton(b'[[0,"raw_data"],[0,"raw_data"]]', PROTO),
        skeleton(b'[[0,"raw_data"]]', PROTO) + b"x",
    ],
)
def test_hostile_skeletons(content, tmp_path):
    onnx.save(model_of([numpy_helper.from_array(np.ones(1, np.float32), "w")]), tmp_path / "m.onnx")
    bundle = read(tmp_path / "m.onnx")
    bundle.sources = [Source("", "onnx", content, ("w",))]
    with pytest.raises(FormatError):
        restore(bundle, tmp_path / "out.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_without_onnx(tmp_path, monkeypatch):
    (tmp_path / "m.onnx").write_bytes(PROTO)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"limosa\[onnx\]"):
        read(tmp_path / "m.onnx")
