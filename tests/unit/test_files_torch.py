"""PyTorch files: tensor for tensor, in the same structure, without running a pickle."""

from __future__ import annotations

import builtins
import json
import pickle
from collections import OrderedDict

import numpy as np
import pytest

import limosa
from limosa.errors import CorruptError, FormatError, LimitError, MissingExtraError
from limosa.files import Restorer, Source, read
from limosa.files.pack import pack, unpack
from limosa.limits import Limits

torch = pytest.importorskip("torch")


def restore(bundle, out):
    """Write a bundle as a decoder would."""
    with Restorer(bundle.sources, bundle.specs, out, Limits()) as restorer:
        for spec, data in bundle:
            restorer.write(spec, data.copy())
        restorer.finish()


def there_and_back(value, tmp_path, **options):
    torch.save(value, tmp_path / "in.pt", **options)
    bundle = read(tmp_path / "in.pt")
    restore(bundle, tmp_path / "out.pt")
    return bundle, torch.load(tmp_path / "out.pt", weights_only=True)


def same(a, b):
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert (a.dtype, a.shape, a.stride()) == (b.dtype, b.shape, b.stride())
        assert a.requires_grad == b.requires_grad
        raw = [t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
        assert torch.equal(*raw)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    else:
        assert a == b


def test_a_state_dict(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    state = model.state_dict()
    bundle, out = there_and_back(state, tmp_path)
    same(state, out)
    assert out._metadata == state._metadata
    assert bundle.get("0.weight").dtype == "F32"
    model.load_state_dict(out)


def test_a_training_checkpoint(tmp_path):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(2):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    value = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "loss": float("inf"),
        "args": {"name": "ü", "betas": (0.9, 0.999), "none": None, "flag": True},
        "history": [1, 2.5, "x", b"raw", [torch.arange(3)]],
        "dtype": torch.bfloat16,
        "size": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "rng": torch.get_rng_state(),
        7: "integer key",
        ("a", 1): "tuple key",
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "frozen": torch.nn.Parameter(torch.ones(2), requires_grad=False),
        "grad": torch.ones(2, requires_grad=True),
    }
    bundle, out = there_and_back(value, tmp_path)
    same(value, out)
    assert {"model.weight", "optimizer.state.0.exp_avg"} <= {spec.name for spec in bundle.specs}
    optimizer.load_state_dict(out["optimizer"])


DTYPES = [
    "float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu",
    "float8_e4m3fnuz", "float8_e5m2fnuz", "int64", "int32", "int16", "int8", "uint64", "uint32",
    "uint16", "uint8", "bool", "complex64", "complex128", "float4_e2m1fn_x2",
]  # fmt: skip


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype(name, tmp_path):
    dtype = getattr(torch, name)
    raw = torch.tensor([0, 1] * 48, dtype=torch.uint8)
    value = {"v": raw.view(dtype), "0d": raw[: dtype.itemsize].clone().view(dtype)[0].clone()}
    value["empty"] = torch.empty(0, 3, dtype=dtype)
    value["matrix"] = raw.clone().view(dtype).view(2, -1)
    same(value, there_and_back(value, tmp_path)[1])


def test_tied_tensors_are_kept_once_and_stay_tied(tmp_path):
    weight = torch.arange(6.0).reshape(2, 3)
    value = {"embed": weight, "head": weight, "alias": weight.detach(), "list": [weight]}
    bundle, out = there_and_back(value, tmp_path)
    assert [spec.shape for spec in bundle.specs] == [(2, 3)]
    assert out["embed"] is out["head"] is out["list"][0]
    out["embed"][0, 0] = 9
    assert out["alias"][0, 0] == 9


def test_views_of_one_buffer_share_it(tmp_path):
    buffer = torch.arange(20.0)
    value = {
        "rows": buffer[4:16].view(3, 4),
        "one": buffer[6],
        "tail": buffer[10:],
        "columns": buffer[4:16].view(3, 4).T,
    }
    bundle, out = there_and_back(value, tmp_path)
    same(value, out)
    assert len(bundle.specs) == 1
    out["rows"][0, 2] = 99
    assert out["one"] == 99


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.T, lambda x: x[:, ::2], lambda x: x[0].expand(5, 6), lambda x: x[1:, 2:4],
        lambda x: x.view(1, 4, 6, 1).to(memory_format=torch.channels_last), lambda x: x[:0],
    ],
)  # fmt: skip
def test_layouts(make, tmp_path):
    value = make(torch.arange(24.0).reshape(4, 6))
    same(value, there_and_back(value, tmp_path)[1])


def test_a_lone_slice_leaves_the_rest_of_its_buffer_behind(tmp_path):
    bundle, _ = there_and_back({"w": torch.ones(10_000)[:10]}, tmp_path)
    assert bundle.nbytes == 40


def test_the_old_format(tmp_path):
    value = {"w": torch.arange(3.0), "n": [1, "x"]}
    _, out = there_and_back(value, tmp_path, _use_new_zipfile_serialization=False)
    same(value, out)


class Evil:
    def __reduce__(self):
        return (builtins.exec, ("raise SystemExit('the pickle ran')",))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_refused(zipped, tmp_path):
    torch.save(
        {"w": torch.ones(1), "x": Evil()}, tmp_path / "in.pt", _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(CorruptError, match="could run code") as caught:
        read(tmp_path / "in.pt")
    assert caught.value.found.endswith("exec")
    assert caught.value.remedy


def test_what_is_refused_is_told_in_own_words_on_one_line(tmp_path, recwarn):
    path = tmp_path / "in.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    messages = [refusal(path)]
    assert "found torch.nn.modules.linear.Linear, allowed tensors" in messages[0]
    path.write_bytes(pickle.dumps({"w": 1}, protocol=4))
    messages.append(refusal(path))
    assert "found a pickle with operand" in messages[1]
    path.write_bytes(limosa.save({"w": np.zeros(9, np.float32)}))
    messages.append(refusal(path))
    assert "found a .limosa file" in messages[2]
    path.write_text("hello, this is a text")
    messages.append(refusal(path))
    for message in messages:
        assert message.isprintable()
        assert "weights_only" not in message
        assert len(message) < 400
    assert not recwarn.list


def refusal(path) -> str:
    with pytest.raises(CorruptError) as caught:
        read(path)
    return str(caught.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(2).to_sparse(),
        lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    ],
)
def test_what_cannot_be_kept_is_named(make, tmp_path):
    torch.save({"layer": {"w": make()}}, tmp_path / "in.pt")
    with pytest.raises(FormatError):
        read(tmp_path / "in.pt")


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"x" * 100, b"\x80\x02.", b"PK\x03\x04" + bytes(99)]
)
def test_other_files(content, tmp_path):
    (tmp_path / "in.pt").write_bytes(content)
    with pytest.raises(FormatError):
        read(tmp_path / "in.pt")


def test_truncated_files(tmp_path):
    torch.save({"w": torch.ones(10)}, tmp_path / "good.pt")
    good = (tmp_path / "good.pt").read_bytes()
    for size in range(0, len(good), 41):
        (tmp_path / "in.pt").write_bytes(good[:size])
        with pytest.raises(FormatError):
            read(tmp_path / "in.pt")


def test_limits(tmp_path):
    torch.save({"w": torch.ones(1000)}, tmp_path / "in.pt")
    with pytest.raises(LimitError, match="max_total_bytes"):
        read(tmp_path / "in.pt", limits=Limits(max_total_bytes=1000))
    with pytest.raises(LimitError, match="max_elements"):
        read(tmp_path / "in.pt", limits=Limits(max_elements=999))
    with pytest.raises(LimitError, match="max_header_bytes"):
        read(tmp_path / "in.pt", limits=Limits(max_header_bytes=10))


def test_without_torch(tmp_path, monkeypatch):
    torch.save({"w": torch.ones(2)}, tmp_path / "in.pt")
    bundle = read(tmp_path / "in.pt")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"limosa\[torch\]"):
        read(tmp_path / "in.pt")
    with pytest.raises(MissingExtraError, match=r"limosa\[torch\]"):
        restore(bundle, tmp_path / "out.pt")
    assert [p.name for p in tmp_path.iterdir()] == ["in.pt"]


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["views"][0].__setitem__(0, 1),
        lambda s: s["views"][0].__setitem__(2, "save"),
        lambda s: s["views"][0].__setitem__(2, "float64"),
        lambda s: s["views"][0].__setitem__(3, [2**40, 2**40]),
        lambda s: s["views"][0].__setitem__(4, [-1, 1]),
        lambda s: s["views"][0].__setitem__(4, [2**62, 1]),
        lambda s: s["views"][0].__setitem__(5, 1),
        lambda s: s["views"][0].__setitem__(5, True),
        lambda s: s["views"].clear(),
        lambda s: s["leaves"][0].__setitem__(0, "call"),
        lambda s: s["leaves"][0].__setitem__(1, "x"),
        lambda s: s["leaves"][0].clear(),
        lambda s: s.__setitem__("leaves", 1),
        lambda s: s.__setitem__("root", ["leaf", 5]),
        lambda s: s.__setitem__("root", ["call", "os.system"]),
        lambda s: s.pop("root"),
    ],
)
def test_hostile_skeletons(change, tmp_path):
    torch.save({"w": torch.ones(2, 3)}, tmp_path / "in.pt")
    bundle = read(tmp_path / "in.pt")
    skeleton = json.loads(unpack(bundle.sources[0].skeleton, 2**20))
    change(skeleton)
    source = Source("", "torch", pack(json.dumps(skeleton).encode()), ("w",))
    bundle.sources = [source]
    with pytest.raises(FormatError):
        restore(bundle, tmp_path / "out.pt")
    assert [p.name for p in tmp_path.iterdir()] == ["in.pt"]


def test_ordered_dict_stays_one(tmp_path):
    _, out = there_and_back(OrderedDict(b=torch.ones(1), a=2), tmp_path)
    assert type(out) is OrderedDict
    assert list(out) == ["b", "a"]
