"""limosa.torch.tap: features by name, as they were when they were made."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from benchmarks.networks import tiny_resnet  # noqa: E402
from torch import nn  # noqa: E402

from limosa.errors import ConfigError  # noqa: E402
from limosa.torch.features import tap  # noqa: E402


class Counting(nn.Module):
    """Counts its calls; changes in place what the layer before it returned."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x.mul_(-1)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4), Counting())


def by_hand(model, x):
    found = {}
    for name, layer in model.named_children():
        x = layer(x)
        found[name] = x.clone()
    return found


@pytest.mark.parametrize("names", [["0"], ["1", "0"], ["0", "1", "2", "3"]])
def test_features_of_modules(names):
    model, x = network(), torch.randn(3, 4)
    found = tap(model, names)(x)
    assert list(found) == names
    expected = by_hand(model, x)
    for name in names:
        assert torch.equal(found[name], expected[name]), name


def test_features_of_nodes_and_modules_together():
    model, x = network(), torch.randn(3, 4)
    expected = by_hand(model, x)
    found = tap(model, ["mul_", "0", "_2"])(x)
    assert list(found) == ["mul_", "0", "_2"]
    for node, name in (("mul_", "3"), ("0", "0"), ("_2", "2")):
        assert torch.equal(found[node], expected[name]), name


@pytest.mark.parametrize("names", [["0", "2"], ["_0", "_2"]])
def test_nothing_runs_after_the_last_feature(names):
    model = network()
    run = tap(model, names)
    before = model[3].calls  # a trace calls it, too
    run(torch.randn(3, 4))
    assert model[3].calls == before


def test_one_name_and_the_order_of_several():
    found = tap(tiny_resnet().eval(), "4")(torch.zeros(1, 3, 32, 32))
    assert {name: tuple(feature.shape) for name, feature in found.items()} == {"4": (1, 32, 16, 16)}


def test_the_models_mode_at_the_time_of_the_call_counts():
    model = nn.Sequential(nn.Dropout(0.5), nn.Identity())
    run, x = tap(model, "0"), torch.ones(1000)
    assert torch.equal(run(x)["0"], x) is False
    model.eval()
    assert torch.equal(run(x)["0"], x)


def test_gradients_flow_through_features():
    model = network()
    tap(model, ["1"])(torch.randn(3, 4))["1"].sum().backward()
    assert model[0].weight.grad is not None
    assert model[2].weight.grad is None


def test_hooks_do_not_stay():
    model = network()
    run = tap(model, ["0"])
    run(torch.randn(3, 4))
    with pytest.raises(RuntimeError):
        run(torch.randn(3, 5))
    assert not model[0]._forward_hooks
    assert model(torch.randn(3, 4)).shape == (3, 4)


def test_the_first_call_of_a_module_that_is_called_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(self.layer(x))

    model, x = Twice(), torch.randn(2, 4)
    assert torch.equal(tap(model, "layer")(x)["layer"], model.layer(x))
    both = tap(model, ["layer", "layer_1"])(x)
    assert torch.equal(both["layer"], model.layer(x))
    assert torch.equal(both["layer_1"], model(x))


def test_several_arguments_and_keywords():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(4, 4)

        def forward(self, x, y):
            return self.one(x) + y

    model, x, y = Sum(), torch.randn(2, 4), torch.randn(2, 4)
    assert torch.equal(tap(model, "add")(x, y)["add"], model(x, y))
    assert torch.equal(tap(model, "one")(x, y=y)["one"], model.one(x))


def test_a_model_that_cannot_be_traced_is_tapped_by_its_modules():
    class Choosing(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(4, 4)

        def forward(self, x):
            return self.one(x) if float(x.sum()) > 0 else x

    model, x = Choosing(), torch.ones(1, 4)
    assert torch.equal(tap(model, "one")(x)["one"], model.one(x))
    with pytest.raises(ConfigError, match="did not call this module"):
        tap(model, "one")(-x)
    with pytest.raises(ConfigError, match="cannot be traced"):
        tap(model, "linear")


def test_errors():
    model = network()
    with pytest.raises(ConfigError, match="no such module or node"):
        tap(model, ["0", "layer9"])
    with pytest.raises(ConfigError, match="names are needed"):
        tap(model, [])
    with pytest.raises(ConfigError, match="something else than one tensor"):
        tap(nn.Sequential(nn.LSTM(4, 4)), "0")(torch.randn(3, 4))
    with pytest.raises(ConfigError, match="cannot cut this"):
        tap(None, "0")
