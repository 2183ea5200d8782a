"""What is given stays as it was, odd models are taken or refused by name, budgets are kept."""

import pathlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from limosa.errors import ConfigError
from limosa.torch import optimize
from limosa.torch.optimize import Context
from limosa.torch.optimize.export import export
from limosa.torch.optimize.recipe import Recipe, Stage

X = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))


def batch_loss(model, batch):
    return functional.cross_entropy(model(batch[0]), batch[1])


BATCHES = [(X, torch.zeros(4, dtype=torch.int64))]
LEARNING = Context(X, BATCHES, batch_loss)


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 4))


class Stream(nn.Module):
    """Its buffer moves with each call."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 16)
        self.register_buffer("state", torch.zeros(1, 16))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        found = torch.tanh(self.layer(x) + self.state)
        self.state = found.mean(0, keepdim=True).detach()
        self.calls += 1
        return found


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(16, 8), nn.BatchNorm1d(8)

    def forward(self, x):
        found = self.norm(self.layer(x))
        return found + torch.randn_like(found)


class Keeps(nn.Module):
    """Holds on to what a call made."""

    def __init__(self):
        super().__init__()
        self.layer, self.seen = nn.Linear(16, 8), []

    def forward(self, x):
        self.seen = [self.layer(x)]
        return self.seen[0]


SIMPLE = [
    optimize.LinearRounding(8), optimize.MagnitudePruning(0.5), optimize.LowRank(rank=2),
    optimize.Encoding(),
]  # fmt: skip


@pytest.mark.parametrize("technique", SIMPLE, ids=repr)
@pytest.mark.parametrize("make", [Stream, Noisy, Keeps])
def test_models_that_a_call_changes(technique, make):
    torch.manual_seed(0)
    net = make().eval()
    net(X)
    before = {name: one.clone() for name, one in net.state_dict().items()}
    dice = torch.random.get_rng_state()
    assert technique.apply(net, Context(X)).changes
    assert all(torch.equal(before[name], one) for name, one in net.state_dict().items())
    assert torch.equal(dice, torch.random.get_rng_state())


def test_folding_leaves_no_symbols_behind():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.norm = nn.Linear(16, 8), nn.BatchNorm1d(8)

        def forward(self, x):
            self.seen = self.norm(self.layer(x))
            return self.seen

    done = optimize.BatchNormFolding("layer").apply(Net().eval())
    assert len(done.changes) == 1
    assert not hasattr(done.model, "seen")


@pytest.mark.parametrize("where", ["apply", "search", "measure", "export"])
def test_parameters_without_a_shape(where, tmp_path):
    net = nn.Sequential(nn.LazyLinear(8))
    with pytest.raises(ConfigError, match=r"0.weight: a parameter has no shape yet"):
        {
            "apply": lambda: optimize.LinearRounding(8).apply(net, Context(X)),
            "search": lambda: optimize.Search(net, LEARNING, lambda model: 0.0),
            "measure": lambda: optimize.measure(net),
            "export": lambda: export(net, tmp_path, ["safetensors"], Context(X)),
        }[where]()
    assert isinstance(net[0], nn.LazyLinear)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_whatever_mode_the_caller_is_in(mode):
    with mode():
        done = optimize.SaliencyPruning(0.5).apply(small(), LEARNING)
        narrow = optimize.StructuredPruning(0.5).apply(small(), LEARNING)
    for model in (done.model, narrow.model):
        batch_loss(model, BATCHES[0]).backward()
        assert model[0].weight.grad is not None


@pytest.mark.parametrize(
    "technique",
    [
        optimize.LowRank(rank=2), optimize.StructuredPruning(0.5), optimize.Student(width=0.5),
        optimize.MagnitudePruning(0.5),
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_frozen_or_in_training_stays_so(technique):
    net = small().train()
    net[0].requires_grad_(False)
    net[2].eval()
    model = technique.apply(net, Context(X)).model
    frozen = {name for name, one in model.named_parameters() if not one.requires_grad}
    assert frozen
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith("0.")}
    assert [model[at].training for at in (0, 2, 3)] == [True, False, True]


def test_structure_of_a_frozen_network():
    done = optimize.StructuredPruning(0.5).apply(small().requires_grad_(False), Context(X))
    assert done.model[0].out_features == 16
    assert not any(one.requires_grad for one in done.model.parameters())


def test_parameters_keep_their_order():
    net = small()
    optimizer = torch.optim.Adam(net.parameters())
    batch_loss(net, BATCHES[0]).backward()
    optimizer.step()
    done = optimize.MagnitudePruning(0.5).apply(net)
    assert list(done.model.state_dict()) == list(net.state_dict())
    other = torch.optim.Adam(done.model.parameters())
    other.load_state_dict(optimizer.state_dict())
    batch_loss(done.model, BATCHES[0]).backward()
    other.step()


@pytest.mark.parametrize("nbytes", [200_000, 150_000])
def test_bytes_of_many_layers_are_kept_to(nbytes):
    torch.manual_seed(0)
    sizes = [(64, 64), (64, 256), (256, 64)] * 12
    net = nn.Sequential(*(nn.Linear(*size, bias=False) for size in sizes))
    done = optimize.LowRank(nbytes=nbytes).apply(net)
    assert 0.95 * nbytes < sum(one.nbytes for one in done.model.parameters()) <= nbytes
    with pytest.raises(ConfigError, match="below the floor"):
        optimize.LowRank(nbytes=30_000).apply(net)


def test_hooks_are_not_lost():
    net = small()
    net[0].register_forward_hook(lambda module, given, output: output * 2)
    done = optimize.LowRank(rank=2).apply(net, Context(X))
    assert [one.layer for one in done.changes] == ["3"]
    assert "hooks" in done.refused[0].why


def test_imaginary_parts_are_compared():
    class Complex(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, 8)

        def forward(self, x):
            found = self.layer(x)
            return torch.complex(torch.zeros_like(found), found)

    one, two = Complex().eval(), Complex().eval()
    with pytest.raises(ConfigError, match="something else"):
        optimize.technique.guard(one, two, Context(X))
    optimize.technique.guard(one, one, Context(X))


class Asks(nn.Module):
    """Looks at its layers in one of several ways."""

    def __init__(self, look):
        super().__init__()
        self.layer, self.look = nn.Linear(16, 16), look

    def forward(self, x):
        return self.layer(x) * self.look(self.layer)


def test_looking_at_layers():
    asks = Asks(lambda layer: getattr(layer, "gain", 1.0)).eval()
    assert optimize.LowRank(rank=2).apply(asks, Context(X)).changes
    compiled = torch.compile(small().eval(), backend="eager")
    for _ in range(2):
        assert len(optimize.LowRank(rank=2).apply(compiled, Context(X)).changes) == 2

    def strict(layer):
        if type(layer) is not nn.Linear:
            raise TypeError("a Linear is wanted")
        return 1.0

    done = optimize.LowRank(rank=2).apply(Asks(strict).eval(), Context(X))
    assert not done.changes
    assert "a Linear is wanted" in done.refused[0].why


class Shuffle(nn.Module):
    """Mixes channels of groups, which torch-pruning does not see."""

    def __init__(self, last):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 32, 3, padding=1), last
        self.grouped, self.end = nn.Conv2d(32, 32, 3, padding=1, groups=4), nn.Conv2d(32, 10, 1)

    def forward(self, x):
        y = torch.relu(self.first(x))
        places, channels, high, wide = y.shape
        y = y.view(places, 4, -1, high, wide).transpose(1, 2).reshape(places, channels, high, wide)
        return self.last(self.end(torch.relu(self.grouped(y))).mean((2, 3)))


class Heads(nn.Module):
    """Attention whose layers have names that nobody knows."""

    def __init__(self, norm):
        super().__init__()
        self.inside, self.norm, self.out = nn.Linear(16, 32), norm, nn.Linear(32, 10)
        self.fc_q, self.fc_k, self.fc_v, self.fc_o = (nn.Linear(32, 32) for _ in range(4))

    def forward(self, x):
        x = self.inside(x)[None]
        y = self.norm(x)
        q, k, v = (
            layer(y).reshape(1, len(X), 4, -1).transpose(1, 2)
            for layer in (self.fc_q, self.fc_k, self.fc_v)
        )
        found = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.out((x + self.fc_o(found)).mean(1))


@pytest.mark.parametrize("last", [nn.Identity(), nn.Softmax(dim=1)])
def test_a_softmax_hides_nothing_from_the_guard(last):
    torch.manual_seed(0)
    with pytest.raises(ConfigError, match="something else"):
        optimize.StructuredPruning(0.5).apply(
            Shuffle(last).eval(), Context(torch.randn(2, 3, 8, 8))
        )


@pytest.mark.parametrize("norm", [nn.Identity(), nn.LayerNorm(32), nn.RMSNorm(32)])
def test_a_norm_over_channels_hides_nothing_from_the_guard(norm):
    torch.manual_seed(0)
    with pytest.raises(ConfigError, match="something else"):
        optimize.StructuredPruning(0.5).apply(Heads(norm).eval(), Context(X))


class OwnNorm(nn.Module):
    def __init__(self, wide):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(wide))

    def forward(self, x):
        return self.scale * x / x.square().mean(-1, keepdim=True).sqrt()


@pytest.mark.parametrize(
    "norm", [nn.LayerNorm(24), nn.RMSNorm(24), nn.GroupNorm(2, 24), OwnNorm(24)], ids=repr
)
def test_norms_over_channels_that_went(norm):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 24), norm, nn.ReLU(), nn.Linear(24, 4)).eval()
    done = optimize.StructuredPruning(0.5).apply(net, Context(X))
    assert done.model[0].out_features == 12
    assert len(done.kept["1"]) == 12


class Dense(nn.Module):
    """Puts what layers make beside each other."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.next, self.last = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(32, 10, 1)

    def forward(self, x):
        y = self.first(x)
        beside = torch.cat([y, self.next(torch.relu(self.norm(y)))], 1)
        return self.last(beside).mean((2, 3))


@pytest.mark.parametrize("seed", range(4))
def test_layers_behind_a_concatenation(seed):
    torch.manual_seed(seed)
    net, example = Dense().eval(), torch.randn(2, 3, 8, 8)
    done = optimize.StructuredPruning(0.5).apply(net, Context(example))
    assert done.model.last.in_channels == 16


def test_an_output_that_is_none():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(16, 8), nn.Linear(8, 4)

        def forward(self, x):
            return {"logits": self.last(torch.relu(self.first(x))), "loss": None}

    done = optimize.StructuredPruning(0.5).apply(Net().eval(), Context(X))
    assert done.model.first.out_features == 4
    assert {one.layer: one.why for one in done.refused}["last"].startswith("its outputs are")


def test_layers_that_cannot_be_followed_are_named():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.gate = nn.Linear(16, 32), nn.GLU()
            self.next, self.last = nn.Linear(16, 24), nn.Linear(24, 4)

        def forward(self, x):
            return self.last(torch.relu(self.next(self.gate(self.first(x)))))

    done = optimize.StructuredPruning(0.5).apply(Net().eval(), Context(X))
    assert [one.layer for one in done.changes] == ["next", "last"]
    assert "cannot be followed" in {one.layer: one.why for one in done.refused}["first"]


@pytest.mark.parametrize("metric", [lambda m: torch.tensor(0.9), lambda m: np.float32(0.9)])
def test_a_metric_may_be_a_tensor_of_one(metric, tmp_path):
    stages = [Stage("round", optimize.LinearRounding(4))]
    recipe = Recipe(stages)
    for _ in range(2):
        recipe.run(small(), Context(X), metric=metric, folder=tmp_path)
        assert [row.metric for row in recipe.rows] == [pytest.approx(0.9)] * 2


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (lambda m: "x", "gives one number"),
        (lambda m: torch.ones(2), "gives one number"),
        (X, "no metric"),
        (lambda m: float("nan"), "says nothing"),
    ],
)
def test_what_is_no_metric(metric, message):
    with pytest.raises(ConfigError, match=message):
        Recipe([]).run(small(), Context(X), metric=metric)
    with pytest.raises(ConfigError, match=message):
        optimize.Search(small(), LEARNING, metric)


def test_integer_kernels_in_a_recipe_with_a_folder(tmp_path):
    net = nn.Sequential(nn.Linear(64, 64)).eval()
    context = Context(torch.randn(2, 64))
    for _ in range(2):
        recipe = Recipe([Stage("integers", optimize.IntegerKernels())])
        model = recipe.run(net, context, folder=tmp_path)
        assert recipe.rows[-1].receiver_needs == "torchao"
        assert "receiver" not in repr(model)
    done = optimize.IntegerKernels().apply(net, context)
    assert done.changes[0].after == int((done.model[0].weight.dequantize() != 0).sum())


def test_a_recipe_leaves_the_dice_where_they_were(tmp_path):
    net, dice = nn.Linear(4, 4), torch.random.get_rng_state()
    Recipe([Stage("round", optimize.LinearRounding(4))]).run(net, Context())
    assert torch.equal(dice, torch.random.get_rng_state())


class Series(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.steps, self.last = nn.LSTM(16, 16, batch_first=True), nn.Linear(16, classes)
        self.unused = nn.Linear(4, 4)

    def forward(self, x):
        return self.last(self.steps(x[:, None])[0][:, -1])


@pytest.mark.parametrize("layer", ["steps", "unused"])
def test_what_gives_no_features(layer):
    settings = {"features": 1.0, "layers": {layer: layer}}
    with (
        optimize.Distillation(Series(), Series(), **settings) as loss,
        pytest.raises(ConfigError, match="no features"),
    ):
        loss(*BATCHES[0])


def test_soft_targets_of_other_classes():
    with pytest.raises(ConfigError, match="other classes"):
        optimize.Distillation(Series(4), Series(5))(*BATCHES[0])


REFUSED = {
    "share": lambda: optimize.StructuredPruning(1.0),
    "round_to": lambda: optimize.StructuredPruning(0.5, round_to=0),
    "bits": lambda: optimize.LinearRounding(bits="4"),
    "values": lambda: optimize.CodebookRounding(values=2.5),
    "width": lambda: optimize.Student(width="0.5"),
    "steps": lambda: optimize.GradualPruning(optimize.MagnitudePruning(0.5), steps=2.5),
    "above 0": lambda: optimize.CalibratedRounding(bits=0),
    "inputs of a batch": lambda: optimize.CalibratedRounding(bits=3).apply(
        small(), Context(X, [{"x": X}])
    ),
    "does not take": lambda: optimize.CalibratedRounding(bits=3).apply(
        small(), Context(X, [(torch.ones(2, 3), None)])
    ),
    "iterator": lambda: optimize.Search(
        small(), Context(X, iter(BATCHES), batch_loss), lambda model: 0.0
    ),
    "nothing to train": lambda: optimize.fit(
        lambda x, y: x.sum(), small().requires_grad_(False).parameters(), BATCHES
    ),
    "no weights": lambda: optimize.LinearRounding(4).apply(nn.Linear(4, 0)),
}


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_is_an_error_of_ours(message):
    with pytest.raises(ConfigError, match=message):
        REFUSED[message]()


def test_norms_of_several_processes_are_folded():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 8), nn.SyncBatchNorm(8)).eval()
    done = optimize.BatchNormFolding().apply(net, Context(X))
    assert done.model[1].running_var.unique().tolist() == [1.0]


def test_a_weight_norm_of_old(tmp_path):
    with pytest.warns(FutureWarning):
        net = nn.Sequential(nn.utils.weight_norm(nn.Linear(16, 8)), nn.Linear(8, 4))
    done = optimize.LinearRounding(4).apply(net, Context(X))
    assert [one.layer for one in done.changes] == ["1"]
    assert export(net, pathlib.Path(tmp_path), ["safetensors"], Context(X))[0].nbytes
    new = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(16, 8)), nn.Linear(8, 4))
    with pytest.raises(ConfigError, match="take parametrisations off"):
        Recipe([Stage("r", optimize.LinearRounding(4))]).run(new, Context(X), folder=tmp_path)
