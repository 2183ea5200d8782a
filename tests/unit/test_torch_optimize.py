"""Techniques that make a model smaller: each changes what it says and nothing else."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import limosa
from limosa.errors import ConfigError
from limosa.torch import optimize
from limosa.torch.optimize import Context


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 1)), nn.ReLU(),
        nn.Conv2d(32, 32, 3, groups=4), nn.Flatten(), nn.Linear(32 * 2 * 6, 40), nn.ReLU(),
        nn.Linear(40, 5),
    ).eval()  # fmt: skip


@pytest.fixture
def context():
    torch.manual_seed(1)
    inputs = [torch.randn(4, 3, 8, 8) for _ in range(3)]
    targets = [torch.randint(5, (4,)) for _ in range(3)]

    def loss(model, batch):
        return functional.cross_entropy(model(batch[0]), batch[1])

    return Context(inputs[0], list(zip(inputs, targets, strict=True)), loss)


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def unchanged(before, model):
    after = model.state_dict()
    return all(torch.equal(before[name], after[name]) for name in before)


TECHNIQUES = [
    optimize.MagnitudePruning(0.5),
    optimize.MagnitudePruning(0.5, scope="layer"),
    optimize.MagnitudePruning(pattern="2:4"),
    optimize.SaliencyPruning(0.5, order=1),
    optimize.SaliencyPruning(0.5, order=2),
    optimize.LowRank(energy=0.7),
    optimize.LowRank(budget=0.4, form="spatial"),
    optimize.LowRank(budget=0.5, round_to=2),
    optimize.LinearRounding(4),
    optimize.LinearRounding(8, by_row=True),
    optimize.CodebookRounding(8),
]


@pytest.mark.parametrize("technique", TECHNIQUES, ids=repr)
def test_the_given_model_stays_and_norms_and_biases_do_too(technique, net, context):
    before = state(net)
    done = technique.apply(net, context)
    assert unchanged(before, net)
    assert done.model is not net
    assert done.changes
    after = done.model.state_dict()
    kept = [name for name in before if name in after and not name.endswith("weight")]
    assert kept
    assert all(torch.equal(before[name], after[name]) for name in kept)
    assert torch.equal(before["1.weight"], after["1.weight"])
    assert not done.receiver_needs


@pytest.mark.parametrize("technique", TECHNIQUES, ids=repr)
def test_statistics_of_a_model_in_training_stay(technique, net, context):
    net.train()
    before = state(net)
    optimize.measure(net, context)
    done = technique.apply(net, context)
    assert unchanged(before, net)
    assert net[1].training
    assert torch.equal(done.model[1].running_mean, before["1.running_mean"])


@pytest.mark.parametrize("technique", TECHNIQUES, ids=repr)
def test_it_is_the_same_each_time(technique, net, context):
    one, two = technique.apply(net, context), technique.apply(net, context)
    assert unchanged(state(one.model), two.model)
    assert one.changes == two.changes


@pytest.mark.parametrize("technique", TECHNIQUES, ids=repr)
def test_what_travels_loads_in_plain_torch(technique, net, context):
    done = technique.apply(net, context)
    decoded = limosa.torch.load(limosa.torch.save(done.model.state_dict()))
    twin = technique.apply(net, context).model
    twin.load_state_dict(decoded)
    assert torch.equal(twin(context.example), done.model(context.example))


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.95, 1.0])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_sparsity_is_met_and_the_largest_stay(sparsity, scope, net):
    done = optimize.MagnitudePruning(sparsity, scope).apply(net)
    names = [change.layer + ".weight" for change in done.changes]
    old = torch.cat([net.state_dict()[name].flatten() for name in names])
    new = torch.cat([done.model.state_dict()[name].flatten() for name in names])
    assert torch.count_nonzero(new) == pytest.approx((1 - sparsity) * len(new), abs=len(names))
    assert torch.equal(new[new != 0], old[new != 0])
    if scope == "global" and 0 < sparsity < 1:
        assert old[new == 0].abs().max() <= old[new != 0].abs().min()


def test_patterns_keep_n_of_every_m():
    layer = nn.Linear(16, 8)
    done = optimize.MagnitudePruning(pattern="2:4").apply(layer)
    groups = done.model.weight.reshape(-1, 4)
    assert torch.equal(torch.count_nonzero(groups, 1), torch.full((32,), 2))
    kept = groups.abs().sum(1)
    assert torch.allclose(kept, layer.weight.reshape(-1, 4).abs().topk(2, 1).values.sum(1))


def test_saliency_spares_weights_that_matter():
    # Inputs of the second half are 0, so that their weights, however large, are of no use.
    layer = nn.Linear(8, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.1] * 4 + [10.0] * 4]))
    data = torch.cat([torch.ones(2, 4), torch.zeros(2, 4)], 1)
    context = Context(data, [data], lambda model, batch: model(batch).square().mean())
    by_size = optimize.MagnitudePruning(0.5).apply(layer, context).model.weight
    by_use = optimize.SaliencyPruning(0.5).apply(layer, context).model.weight
    assert not by_size[0, :4].any()
    assert by_use[0, :4].all()
    assert not by_use[0, 4:].any()


def test_gradual_pruning_keeps_zeros_while_it_trains(net, context):
    seen = []

    def train(done):
        seen.append(optimize.measure(done.model).nonzeros)
        optimizer = torch.optim.SGD(done.model.parameters(), 0.1)
        for batch in context.batches:
            optimizer.zero_grad()
            context.loss(done.model, batch).backward()
            optimizer.step()
            done.keep_zeros()

    gradual = optimize.GradualPruning(optimize.MagnitudePruning(0.8), steps=4)
    done = gradual.apply(net, context, train=train)
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == 4
    names = list(done.masks)
    left = sum(int(torch.count_nonzero(done.model.get_parameter(name))) for name in names)
    total = sum(mask.numel() for mask in done.masks.values())
    assert left == pytest.approx(0.2 * total, abs=len(names))
    assert not torch.equal(done.model[9].bias, net[9].bias), "it was trained"


@pytest.mark.parametrize("form", ["channel", "spatial"])
def test_two_layers_compute_what_their_product_does(form, net, context):
    # The guard compares them; here it is seen that it can fail.
    technique = optimize.LowRank(energy=0.6, form=form)
    done = technique.apply(net, context)
    assert any(isinstance(one, nn.Sequential) for one in done.model.children())
    with torch.no_grad():
        next(one for one in done.model.children() if isinstance(one, nn.Sequential))[0].weight.mul_(
            2
        )
    with pytest.raises(ConfigError, match="something else"):
        optimize.technique.guard(net, done.model, context)


def test_a_full_rank_that_saves_nothing_leaves_the_layer(net, context):
    done = optimize.LowRank(energy=1.0).apply(net, context)
    assert {refusal.why.split()[-1] for refusal in done.refused} >= {"nothing"}
    assert torch.allclose(done.model(context.example), net(context.example), atol=1e-5)


def test_low_rank_is_smaller_and_does_less(net, context):
    done = optimize.LowRank(rank=2, exclude="^9").apply(net, context)
    before, after = optimize.measure(net, context), optimize.measure(done.model, context)
    assert after.parameters < before.parameters
    assert after.flops < before.flops
    assert after.nbytes < before.nbytes


@pytest.mark.parametrize("settings", [{"energy": 0.6}, {"budget": 0.5}])
def test_ranks_are_multiples(settings):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(24, 64, 3), nn.Conv2d(64, 40, 3), nn.Flatten(), nn.Linear(40, 5))
    technique = optimize.LowRank(**settings, form="spatial", round_to=8)
    done = technique.apply(net, Context(torch.randn(2, 24, 5, 5)))
    assert [change.layer for change in done.changes] == ["0", "1"]
    assert all(done.model[place][0].out_channels % 8 == 0 for place in (0, 1))
    assert [refusal.layer for refusal in done.refused] == ["3"], "8 is above its full rank"
    kept, whole = [
        sum(p.numel() for p in model[:2].parameters() if p.dim() > 1) for model in (done.model, net)
    ]
    if "budget" in settings:
        assert 0.3 < kept / whole <= 0.5
    if "energy" in settings:
        for place in (0, 1):
            weight = net[place].weight.detach().permute(0, 3, 1, 2)
            s = torch.linalg.svdvals(weight.flatten(2).flatten(0, 1))
            rank = done.model[place][0].out_channels
            share = s.square().cumsum(0) / s.square().sum()
            assert share[rank - 1] >= 0.6 > share[rank - 9]


def test_bytes_are_kept_to():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 32)).bfloat16()
    done = optimize.LowRank(nbytes=6000).apply(net)
    spent = sum(one.nbytes for one in done.model.parameters() if one.dim() == 2)
    assert 0.9 * 6000 < spent <= 6000
    for settings in ({"nbytes": 0}, {"nbytes": 9, "budget": 0.5}, {"nbytes": 9, "cost": "flops"}):
        with pytest.raises(ConfigError):
            optimize.LowRank(**settings)


def test_a_budget_is_kept():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(80, 80), nn.ReLU(), nn.Linear(80, 80))
    done = optimize.LowRank(budget=0.3).apply(net, Context(torch.zeros(1, 80)))
    weights = sum(p.numel() for p in done.model.parameters() if p.dim() == 2)
    assert 0.27 * 2 * 80 * 80 <= weights <= 0.3 * 2 * 80 * 80


def test_rounding_has_so_many_values(net, context):
    done = optimize.LinearRounding(bits=3, by_row=True).apply(net, context)
    for row in done.model[9].weight:
        assert len(row.unique()) <= 7
    error = (done.model[9].weight - net[9].weight).abs()
    steps = net[9].weight.abs().amax(1, keepdim=True) / 3
    assert bool((error <= steps / 2 + 1e-6).all())


def test_codebooks_keep_zeros_and_lose_least():
    torch.manual_seed(0)
    layer = nn.Linear(100, 20)
    sparse = optimize.MagnitudePruning(0.5).apply(layer).model
    done = optimize.CodebookRounding(9).apply(sparse)
    weight = done.model.weight
    assert len(weight.unique()) == 9
    assert torch.equal(weight == 0, sparse.weight == 0)
    linear = optimize.LinearRounding(4, by_row=False).apply(sparse).model.weight
    assert (weight - sparse.weight).square().sum() < 2 * (linear - sparse.weight).square().sum()


def test_rounding_straight_through_trains_and_ends_on_the_grid(net, context):
    technique = optimize.LinearRounding(bits=4, by_row=True)
    trained = technique.prepare(net)
    first = context.loss(trained, context.batches[0]).item()
    optimizer = torch.optim.Adam(trained.parameters(), 1e-2)
    for _ in range(30):
        for batch in context.batches:
            optimizer.zero_grad()
            context.loss(trained, batch).backward()
            optimizer.step()
    outputs = trained(context.example)
    done = technique.finish(trained)
    assert torch.equal(done(context.example), outputs)
    assert context.loss(done, context.batches[0]).item() < first / 2
    assert len(done[9].weight[0].unique()) <= 15
    assert set(done.state_dict()) == set(net.state_dict())


def test_zeros_are_nearly_free(net):
    done = optimize.MagnitudePruning(0.9).apply(net)
    rounded = optimize.LinearRounding(4).apply(done.model)
    sizes = [optimize.measure(one).nbytes for one in (net, done.model, rounded.model)]
    assert sizes[1] < 0.3 * sizes[0]
    assert sizes[2] < 0.5 * sizes[1]


def test_zeros_have_one_sign(net, context):
    for technique in TECHNIQUES:
        done = technique.apply(net, context)
        done.keep_zeros()
        for change in done.changes:
            module = done.model.get_submodule(change.layer)
            weights = [one for one in module.parameters() if one.dim() > 1]
            assert not any(bool((one.signbit() & (one == 0)).any()) for one in weights)


def test_sparse_and_rounded_weights_cost_their_entropy():
    torch.manual_seed(0)
    layer = nn.Linear(512, 512)
    nn.init.normal_(layer.weight)
    sparse = optimize.MagnitudePruning(0.9, scope="layer").apply(layer).model
    weight = optimize.LinearRounding(4).apply(sparse).model.weight.detach()
    counts = weight.unique(return_counts=True)[1].double()
    entropy = float(-(counts * (counts / counts.sum()).log2()).sum()) / 8
    coded = len(limosa.torch.save({"w": weight})) - len(limosa.torch.save({}))
    assert entropy < coded < 1.03 * entropy


def tied():
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4))
    net[1].weight = net[0].weight
    return net, "tied"


def recurrent():
    return nn.Sequential(nn.LSTM(4, 4)), "recurrent"


def with_nan():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight.data[0, 0] = np.nan
    return net, "NaN"


def grouped():
    return nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), "grouped"


@pytest.mark.parametrize("made", [tied, recurrent, with_nan, grouped])
def test_layers_that_cannot_be_changed_are_named(made):
    net, why = made()
    technique = optimize.LowRank(rank=1)
    with pytest.raises(ConfigError, match=why):
        technique.apply(net, Context(refusals="stop"))


def test_refused_layers_are_skipped_and_told():
    net, _ = tied()
    done = optimize.MagnitudePruning(0.5).apply(net, Context(torch.zeros(1, 8)))
    assert [refusal.layer for refusal in done.refused] == ["0", "1"]
    assert done.model[0].weight is done.model[1].weight
    assert [change.layer for change in done.changes] == ["2"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: optimize.MagnitudePruning(1.5),
        lambda: optimize.MagnitudePruning(pattern="4:2"),
        lambda: optimize.MagnitudePruning(pattern="x"),
        lambda: optimize.LowRank(),
        lambda: optimize.LowRank(rank=2, energy=0.5),
        lambda: optimize.LowRank(rank=0),
        lambda: optimize.LowRank(energy=2),
        lambda: optimize.LowRank(energy=0.5, round_to=0),
        lambda: optimize.LowRank(rank=12, round_to=8),
        lambda: optimize.LinearRounding(1),
        lambda: optimize.CodebookRounding(1),
        lambda: optimize.GradualPruning(optimize.MagnitudePruning(0.5), steps=0),
        lambda: optimize.GradualPruning(optimize.MagnitudePruning(0.5), start=0.6),
        lambda: optimize.LowRank(rank=50).apply(nn.Linear(8, 8)),
        lambda: optimize.SaliencyPruning().apply(nn.Linear(8, 8)),
        lambda: optimize.SaliencyPruning().apply(
            nn.Linear(8, 8), Context(loss=lambda model, batch: model(batch).sum())
        ),
        lambda: optimize.MagnitudePruning().apply(nn.ReLU()),
        lambda: optimize.MagnitudePruning(only="nothing").apply(nn.Sequential(nn.Linear(2, 2))),
    ],
)
def test_what_is_impossible_is_refused(make):
    with pytest.raises(ConfigError):
        make()


def test_selection(net, context):
    done = optimize.MagnitudePruning(0.5, only="^[79]", exclude="9").apply(net, context)
    assert [change.layer for change in done.changes] == ["7"]


def test_modes_of_the_model_survive(net, context):
    net.train()
    net[1].eval()
    done = optimize.MagnitudePruning(0.5).apply(net, context)
    assert done.model.training
    assert not done.model[1].training
    assert torch.equal(done.model[1].running_mean, net[1].running_mean)


def test_half_precision_stays(context):
    net = nn.Sequential(nn.Linear(16, 16)).bfloat16()
    for technique in (
        optimize.LowRank(rank=2), optimize.LinearRounding(4), optimize.CodebookRounding(4),
        optimize.MagnitudePruning(0.5),
    ):  # fmt: skip
        done = technique.apply(net)
        assert {p.dtype for p in done.model.parameters()} == {torch.bfloat16}


class Residual(nn.Module):
    """A small network with a sum, which ties what may be pruned together."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.one = nn.Conv2d(16, 24, 3, padding=1)
        self.two = nn.Conv2d(24, 16, 1)
        self.depth = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.two(torch.relu(self.one(x)))
        return self.head(self.depth(x).mean((2, 3)))


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("importance", ["weight", "data"])
def test_structure_goes_and_the_rest_computes_what_it_did(scope, importance):
    torch.manual_seed(0)
    net, data = Residual().eval(), torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        net.norm.running_mean.uniform_(-1, 1)

    def loss(model, batch):
        return model(batch).square().mean()

    context = Context(data, [data], loss)
    before = state(net)
    # The guard compares with the old network whose later layers do not heed what went.
    done = optimize.StructuredPruning(0.5, scope, importance).apply(net, context)
    assert unchanged(before, net)
    assert done.model.head.out_features == 10
    assert done.model.stem.out_channels == done.model.two.out_channels == done.model.depth.groups
    one, two = optimize.measure(net, context), optimize.measure(done.model, context)
    assert two.flops < one.flops
    assert two.parameters < one.parameters
    assert two.nbytes < one.nbytes
    assert {change.layer for change in done.changes} >= {"stem", "one"}
    assert not done.receiver_needs


def test_structured_pruning_says_what_it_cannot():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.out = nn.Linear(4, 2)

        def forward(self, x):
            if torch.is_grad_enabled():  # as it is while the graph is followed
                raise RuntimeError("not on Thursdays")
            return self.out(self.fc(x))

    with pytest.raises(ConfigError, match="graph cannot be found"):
        optimize.StructuredPruning(0.5).apply(Odd(), Context(torch.zeros(1, 4)))
    with pytest.raises(ConfigError, match="example"):
        optimize.StructuredPruning(0.5).apply(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)))
    with pytest.raises(ConfigError):
        optimize.StructuredPruning(-1)
