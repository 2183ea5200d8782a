"""Batch norms folded: the same function with fewer numbers."""

import pytest
import torch
from torch import nn

from limosa.errors import ConfigError
from limosa.torch import optimize
from limosa.torch.optimize import Context


class Residual(nn.Module):
    """A block whose first layer feeds a norm alone, and whose last norm sees a sum."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4)
        self.second, self.shared = nn.ConvTranspose2d(4, 4, 1), nn.BatchNorm2d(4)
        self.sum = nn.BatchNorm2d(4)
        self.head, self.after = nn.Linear(4, 3), nn.BatchNorm1d(3)

    def forward(self, x):
        y = self.shared(self.second(self.norm(self.first(x)).relu()))
        return self.after(self.head(self.sum(x + y).mean((2, 3))))


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = Residual()
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_()
            module.running_var.uniform_(0.3, 3)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return net.eval()


@pytest.fixture
def context():
    torch.manual_seed(1)
    return Context(torch.randn(5, 4, 6, 6))


def test_statistics_go_into_the_norms(net, context):
    done = optimize.BatchNormFolding().apply(net, context)
    assert not done.refused
    new = done.model
    for name in ("norm", "shared", "sum", "after"):
        norm = new.get_submodule(name)
        assert not norm.running_mean.any()
        assert torch.equal(norm.running_var, torch.ones_like(norm.running_var))
    assert not new.first.bias.any()
    assert not new.second.bias.any()
    assert not new.head.bias.any()
    assert torch.equal(new.first.weight, net.first.weight), "weights keep their grid"
    assert torch.allclose(new(context.example), net(context.example), rtol=1e-4, atol=1e-5)
    assert net.norm.running_mean.any(), "the given model stays"
    assert new.state_dict().keys() == net.state_dict().keys()
    assert optimize.measure(new).nbytes < optimize.measure(net).nbytes


def test_norms_go_into_layers(net, context):
    done = optimize.BatchNormFolding("layer").apply(net, context)
    new = done.model
    assert isinstance(new.norm, nn.Identity)
    assert isinstance(new.shared, nn.Identity)
    assert isinstance(new.after, nn.Identity)
    assert [(one.layer, one.why) for one in done.refused] == [
        ("sum", "no plain layer feeds it alone")
    ]
    assert torch.allclose(new(context.example), net(context.example), rtol=1e-4, atol=1e-5)


def test_a_model_that_cannot_be_traced(context):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.norm(self.layer(x))
            return y if float(y.sum()) > 0 else -y

    torch.manual_seed(0)
    odd = Odd().eval()
    done = optimize.BatchNormFolding().apply(odd, context)
    assert "cannot trace" in done.refused[0].why
    assert torch.equal(done.model.layer.bias, odd.layer.bias)
    done = optimize.BatchNormFolding("layer").apply(odd, context)
    assert "cannot trace" in done.refused[0].why
    assert isinstance(done.model.norm, nn.BatchNorm2d)


def test_layers_that_are_used_twice_or_bring_nothing(context):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
            self.plain = nn.BatchNorm2d(4, affine=False)
            self.batch = nn.BatchNorm2d(4, track_running_stats=False)

        def forward(self, x):
            return self.batch(self.plain(self.norm(self.layer(self.layer(x)))))

    done = optimize.BatchNormFolding().apply(Twice().eval(), context)
    assert [one.layer for one in done.refused] == ["plain", "batch"]
    assert done.model.layer.bias.any(), "it feeds itself, too"
    with pytest.raises(ConfigError, match="form: no such choice"):
        optimize.BatchNormFolding("layers")
    with pytest.raises(ConfigError, match="no layer can be changed"):
        optimize.BatchNormFolding().apply(nn.Linear(2, 2))


def test_what_is_tied_stays(context):
    torch.manual_seed(0)
    layers = [nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)]
    layers[2].bias = layers[0].bias
    net = nn.Sequential(*layers, nn.BatchNorm2d(4), nn.BatchNorm2d(4)).eval()
    net[5].weight = net[4].weight
    done = optimize.BatchNormFolding().apply(net, context)
    assert [one.layer for one in done.refused] == ["4", "5"]
    assert torch.equal(done.model[0].bias, net[0].bias)
    assert done.model[0].bias is done.model[2].bias


def test_zeros_of_pruning_stay_zeros(net, context):
    pruned = optimize.MagnitudePruning(0.5).apply(net, context).model
    fused = optimize.BatchNormFolding("layer").apply(pruned, context).model
    assert torch.equal(fused.first.weight == 0, pruned.first.weight == 0)


class Padded(nn.Conv2d):
    """A convolution that pads by itself, as those of networks that came from TensorFlow do."""

    def forward(self, x):
        return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))


class Standardised(nn.Conv2d):
    """A convolution whose weights are scaled to one variance, so that no scale can go into them."""

    def forward(self, x):
        weight = self.weight / self.weight.std((1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight, self.bias)


class Scaled(nn.Conv2d):
    def forward(self, x, by):
        return super().forward(x) * by


@pytest.mark.parametrize("named", [True, False])
def test_layers_that_take_more_are_proved_with_it(named, context):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.norm = Scaled(4, 8, 1), nn.BatchNorm2d(8)

        def forward(self, x):
            return self.norm(self.layer(x=x, by=2.0) if named else self.layer(x, 2.0))

    torch.manual_seed(0)
    net = Net().eval()
    net.norm.running_mean.normal_()
    done = optimize.BatchNormFolding("layer").apply(net, context)
    assert not done.changes, "twice the layer is twice its bias"
    assert torch.equal(done.model(context.example), net(context.example))


def test_a_weight_that_is_used_elsewhere_stays():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            return self.norm(self.layer(x)) + nn.functional.conv2d(x, self.layer.weight)

    torch.manual_seed(0)
    net, x = Net().eval(), torch.randn(2, 4, 5, 5)
    net.norm.running_var.fill_(4.0)
    done = optimize.BatchNormFolding("layer").apply(net)
    assert not done.changes
    assert torch.equal(done.model(x), net(x))


def test_layers_of_a_class_of_ones_own_are_proved_one_by_one(context):
    torch.manual_seed(0)
    net = nn.Sequential(
        Padded(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), Standardised(8, 4, 3), nn.BatchNorm2d(4)
    ).eval()
    for norm in (net[1], net[4]):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.3, 3)
    done = optimize.BatchNormFolding("layer").apply(net, context)
    assert [one.layer for one in done.changes] == ["1"]
    assert [one.layer for one in done.refused] == ["4"]
    assert type(done.model[0]) is Padded
    assert torch.allclose(done.model(context.example), net(context.example), rtol=1e-4, atol=1e-5)
    blind = optimize.BatchNormFolding("layer").apply(net)
    assert [one.layer for one in blind.refused] == ["1", "4"], "nothing proves them"
    kept = optimize.BatchNormFolding().apply(net, context).model
    assert not kept[0].bias.any()
    assert kept[3].bias.any()


class NormAndAct(nn.BatchNorm2d):
    """As timm has them: the activation is in the norm."""

    def __init__(self, channels, act, first=False):
        super().__init__(channels)
        self.act, self.first = act, first

    def forward(self, x):
        return super().forward(self.act(x)) if self.first else self.act(super().forward(x))


@pytest.mark.parametrize("form", ["norm", "layer"])
def test_a_norm_with_an_activation_in_it(form):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), NormAndAct(8, nn.Hardswish()), nn.Conv2d(8, 4, 1))
    net[1].running_mean.normal_()
    example = torch.randn(2, 3, 8, 8)
    done = optimize.BatchNormFolding(form).apply(net.train(), Context(example))
    assert [one.layer for one in done.changes] == ["1"]
    assert all(one.training for one in done.model.modules())
    assert torch.allclose(done.model.eval()(example), net.eval()(example), atol=1e-5)
    if form == "layer":
        assert [type(one) for one in done.model[1]] == [nn.Hardswish]
    else:
        assert not done.model[0].bias.any()


def test_a_norm_behind_its_activation_stays():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), NormAndAct(8, nn.ReLU(), first=True)).eval()
    net[1].running_mean.fill_(0.1)
    example = torch.randn(2, 3, 8, 8)
    done = optimize.BatchNormFolding("layer").apply(net, Context(example))
    assert not done.changes
    unseen = optimize.BatchNormFolding("layer").apply(net)
    assert not unseen.changes, "not proved"
    folded = optimize.BatchNormFolding("norm").apply(net, Context(example)).model
    assert folded[0].bias.any(), "the bias is not the norm's"
    assert torch.allclose(folded(example), net(example), atol=1e-5)
