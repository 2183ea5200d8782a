"""Heads of attention that go whole, and the guard that proves where they lay."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from limosa.errors import ConfigError
from limosa.torch import optimize
from limosa.torch.optimize import Context


class Fused(nn.Module):
    """Attention as timm writes it."""

    def __init__(self, dim=32, heads=4, order="3hd"):
        super().__init__()
        self.num_heads, self.order = heads, order
        self.scale = (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        b, n, _ = x.shape
        y = self.qkv(x)
        if self.order == "3hd":
            q, k, v = y.reshape(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        else:  # as GPT-NeoX has it, each head's parts side by side
            q, k, v = y.reshape(b, n, self.num_heads, 3, -1).permute(3, 0, 2, 1, 4)
        y = ((q @ k.transpose(-2, -1)) * self.scale).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(b, n, -1))


class Inner(nn.Module):
    """Attention as transformers' BERT writes it: the projection is somebody else's."""

    def __init__(self, dim=32, heads=4):
        super().__init__()
        self.num_attention_heads, self.all_head_size = heads, dim
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))

    def forward(self, x):
        b, n, _ = x.shape
        shape = (b, n, self.num_attention_heads, -1)
        parts = (
            layer(x).view(shape).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        y = functional.scaled_dot_product_attention(*parts)
        return y.transpose(1, 2).reshape(b, n, self.all_head_size)


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.self, self.output = Inner(), nn.ModuleDict({"dense": nn.Linear(32, 32)})

    def forward(self, x):
        return self.output["dense"](self.self(x))


class Block(nn.Module):
    def __init__(self, attention):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(32), attention
        self.wide, self.narrow = nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x):
        x = x + self.attention(self.norm(x))
        return x + self.narrow(functional.gelu(self.wide(x)))


def network(make):
    torch.manual_seed(0)
    return nn.Sequential(Block(make()), Block(make()), nn.Linear(32, 5)).eval()


@pytest.fixture
def context():
    torch.manual_seed(1)
    x = torch.randn(3, 6, 32)

    def loss(model, batch):
        return model(batch).square().mean()

    return Context(x, [x, -x], loss)


@pytest.mark.parametrize("make", [Fused, Outer])
@pytest.mark.parametrize("importance", ["weight", "data"])
def test_heads_go_and_the_rest_computes_what_it_did(make, importance, context):
    net = network(make)
    done = optimize.HeadPruning(0.5, importance).apply(net, context)
    assert not done.refused
    assert [change.what for change in done.changes] == ["4 heads to 2"] * 2
    before, after = optimize.measure(net, context), optimize.measure(done.model, context)
    assert after.parameters < before.parameters
    assert after.flops < before.flops
    # As the old network does that does not heed two of its heads.
    twin = network(make)
    for path, columns in done.gone.items():
        twin.get_submodule(path).weight.data[:, list(columns)] = 0.0
        assert len(columns) == 16
    assert torch.allclose(twin(context.example), done.model(context.example), atol=1e-5)
    assert not torch.allclose(net(context.example), done.model(context.example), atol=1e-3)


@pytest.mark.parametrize("importance", ["weight", "data"])
def test_the_head_that_matters_stays(importance, context):
    net = network(Fused)
    for block in net[:2]:
        with torch.no_grad():
            block.attention.proj.weight[:, 8:16] *= 30
    done = optimize.HeadPruning(0.75, importance).apply(net, context)
    for path, columns in done.gone.items():
        assert path.endswith("proj")
        assert set(range(32)) - set(columns) == set(range(8, 16))


def test_one_head_stays(context):
    done = optimize.HeadPruning(1.0).apply(network(Fused), context)
    assert [change.what for change in done.changes] == ["4 heads to 1"] * 2
    again = optimize.HeadPruning(0.5).apply(done.model, context)
    assert not again.changes
    assert "no head of 1" in again.refused[0].why


def test_heads_that_lie_elsewhere_are_never_taken_in_silence(context):
    net = network(lambda: Fused(order="h3d"))
    with pytest.raises(ConfigError, match="something else"):
        optimize.HeadPruning(0.5).apply(net, context)


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.num_heads = 4
        self.q, self.k, self.v = nn.Linear(32, 32), nn.Linear(32, 12), nn.Linear(32, 12)
        self.proj = nn.Linear(32, 32)

    def forward(self, x):
        return self.proj(self.q(x)) + self.k(x).sum() + self.v(x).sum()


def test_what_it_cannot_take_it_names(context):
    layers = nn.ModuleDict(
        {"a": Odd(), "b": nn.MultiheadAttention(32, 4), "c": Fused(), "d": Fused(heads=5)}
    )
    del layers["c"].proj
    with pytest.raises(ConfigError) as caught:
        optimize.HeadPruning(0.5).apply(layers)
    text = str(caught.value)
    assert "a: its queries, keys and values differ in width" in text
    assert "b: its queries" in text
    assert "c: its layers have other names" in text
    assert "d: 32 columns do not divide into 5 heads" in text
    with pytest.raises(ConfigError, match="example"):
        optimize.HeadPruning(0.5).apply(network(Fused))
    with pytest.raises(ConfigError, match="share"):
        optimize.HeadPruning(2)


def test_structured_pruning_leaves_heads_whole(context):
    net = nn.Sequential(nn.Linear(32, 32), network(Fused)).eval()
    done = optimize.StructuredPruning(0.5).apply(net, context)
    assert [one.layer for one in done.refused] == ["1.0.attention.qkv", "1.1.attention.qkv", "1.2"]
    assert all("HeadPruning" in one.why for one in done.refused[:2])
    assert "the network's" in done.refused[2].why
    assert done.model[1][0].attention.qkv.weight.shape == (96, 16)
    assert done.kept, "norms lost channels, and the guard compared numbers all the same"
    inner = optimize.StructuredPruning(0.5, only="wide").apply(net, context)
    assert [change.what for change in inner.changes] == ["64 outputs to 32, 32 inputs to 32"] * 2
    assert not inner.kept


def test_a_result_that_cannot_be_run_is_refused(context):
    class Fixed(Fused):
        def forward(self, x):
            y = super().forward(x)
            assert self.num_heads == 4
            return y

    with pytest.raises(ConfigError, match="cannot be run"):
        optimize.HeadPruning(0.5).apply(network(Fixed), context)


def test_modules_whose_heads_lie_elsewhere_are_left_alone(context):
    torch.manual_seed(0)
    odd = network(lambda: Fused(order="h3d"))
    net = nn.Sequential(*network(Fused)[:2], *odd[:2]).eval()
    done = optimize.HeadPruning(0.5).apply(net, context)
    assert {one.layer for one in done.changes} == {"0.attention", "1.attention"}
    assert {one.layer for one in done.refused} == {"2.attention", "3.attention"}
    assert all("elsewhere" in one.why for one in done.refused)
    with pytest.raises(ConfigError, match="elsewhere"):
        optimize.HeadPruning(0.5).apply(
            net, Context(context.example, context.batches, context.loss, refusals="stop")
        )
