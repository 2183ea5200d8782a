"""limosa.torch.cuts: where a model can be cut, what travels there, what is computed before."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from benchmarks.networks import tiny_resnet, vgg_tiny  # noqa: E402
from lite0 import lite0  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

import limosa.torch as lt  # noqa: E402
from limosa.errors import ConfigError  # noqa: E402


def image(side=32):
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(2))


def test_every_layer_of_a_chain_is_a_cut():
    torch.manual_seed(0)
    model, x = vgg_tiny().eval(), image()
    found = lt.cuts(model, x)
    assert [cut.module for cut in found] == ["", *(name for name, _ in model.named_children())]
    value = x
    for cut, layer in zip(found[1:], model, strict=True):
        value = layer(value)
        assert cut.shapes == (tuple(value.shape),)
        assert cut.dtypes == (torch.float32,)
        assert cut.nbytes == 4 * value.numel()
        assert cut.nonzero == torch.count_nonzero(value).item() / value.numel()
        assert cut.op == type(layer).__name__
        assert cut.tensors == 1


def test_kinds():
    kinds = {cut.op: cut.kind for cut in lt.cuts(lite0(), image(64))}
    assert kinds == {
        "input": "other", "ZeroPad2d": "other", "conv2d": "conv", "BatchNorm2d": "norm",
        "ReLU6": "activation", "iadd": "other", "AdaptiveAvgPool2d": "pool", "view": "other",
        "Dropout": "other", "Linear": "fc",
    }  # fmt: skip


def test_compute_before_is_that_of_the_head():
    torch.manual_seed(0)
    model, x = tiny_resnet().eval(), image()
    with FlopCounterMode(display=False) as whole:
        model(x)
    shares = []
    for cut in lt.cuts(model, x):
        head, _ = lt.split(model, cut.names)
        with FlopCounterMode(display=False) as counter:
            head(x)
        assert cut.flops == counter.get_total_flops()
        assert cut.share == cut.flops / whole.get_total_flops()
        shares.append(cut.share)
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)


def test_coded_bytes_are_those_of_the_feature():
    torch.manual_seed(0)
    model, x = tiny_resnet().eval(), image()
    for cut in lt.cuts(model, x, coded=True, max_tensors=2):
        head, _ = lt.split(model, cut.names)
        features = head(x) if cut.tensors > 1 else (head(x),)
        coded = [
            lt.save({name: feature}) for name, feature in zip(cut.names, features, strict=True)
        ]
        assert cut.coded_nbytes == sum(map(len, coded))
    assert all(cut.coded_nbytes is None for cut in lt.cuts(model, x))


def test_cuts_inside_a_block_need_the_skip():
    model = tiny_resnet().eval()
    ones = {cut.names for cut in lt.cuts(model, image())}
    twos = {cut.names for cut in lt.cuts(model, image(), max_tensors=2)}
    assert all(len(names) == 1 for names in ones)
    assert ones < twos
    inside = [names for names in twos if len(names) == 2]
    assert inside
    for *_, last in inside:
        with pytest.raises(ConfigError, match="other tensors that cross"):
            lt.split(model, last)


def test_the_example_and_the_model_stay_as_they_are():
    torch.manual_seed(0)
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 4)).eval()
    before, x = copy.deepcopy(model.state_dict()), -torch.ones(2, 4)
    lt.cuts(model, x)
    assert torch.equal(x, -torch.ones(2, 4))
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_the_network_runs_once():
    class Counting(nn.Linear):
        """A subclass that is traced, over a buffer that counts."""

        def __init__(self):
            super().__init__(4, 4)
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x):
            return super().forward(x) + self.count.add_(1)

    model = nn.Sequential(Counting(), nn.ReLU())
    lt.cuts(model, torch.zeros(1, 4))
    assert model[0].count.item() == 1.0


def test_a_table_for_people():
    torch.manual_seed(0)
    found = lt.cuts(tiny_resnet().eval(), image(), coded=True)
    lines = str(found).splitlines()
    assert len(lines) == len(found) + 1
    assert lines[0].split()[:5] == ["cut", "module", "op", "kind", "shape"]
    assert lines[1].split()[-1] == "0.0%"
    assert lines[-1].split()[-1] == "100.0%"
    assert "1x3x32x32" in lines[1]
    assert "12,288" in lines[1]
    assert str(found[2:4]).splitlines()[1].split()[0] == found[2].name
    assert repr(found) == str(found)


def test_a_plot(tmp_path):
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    found = lt.cuts(tiny_resnet().eval(), image(), coded=True)
    found.plot(tmp_path / "cuts.png")
    picture = imread(tmp_path / "cuts.png")
    assert picture.shape[0] > 300
    assert picture.std() > 0.05  # more than an empty sheet
    found[:1].plot(str(tmp_path / "one.png"))
    assert (tmp_path / "one.png").stat().st_size > 1000


def test_a_network_of_which_no_operation_is_counted():
    shares = [cut.share for cut in lt.cuts(nn.Sequential(nn.ReLU(), nn.Flatten()), image())]
    assert shares == [0.0, 0.0, 0.0]


def test_other_dtypes():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.fc = nn.Embedding(10, 4), nn.Linear(4, 2).to(torch.bfloat16)

        def forward(self, tokens):
            return self.fc(self.table(tokens).to(torch.bfloat16))

    found = lt.cuts(Tokens(), torch.arange(6).reshape(2, 3), coded=True)
    assert [cut.dtypes[0] for cut in found] == [
        torch.int64, torch.float32, torch.bfloat16, torch.bfloat16,
    ]  # fmt: skip
    assert [cut.nbytes for cut in found] == [48, 96, 48, 24]


def test_bad_input():
    model = tiny_resnet().eval()
    with pytest.raises(ConfigError, match="does not take the example"):
        lt.cuts(model, torch.zeros(1, 4, 32, 32))
    with pytest.raises(ConfigError, match="max_tensors"):
        lt.cuts(model, image(), max_tensors=0)
