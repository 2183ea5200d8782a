"""Stages of a recipe that lean on others: calibrated rounding, students, pruning in steps."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import limosa
from limosa.errors import ConfigError
from limosa.torch import optimize
from limosa.torch.optimize import Context
from limosa.torch.optimize.recipe import Recipe, Stage
from limosa.torch.optimize.training import Training


class Odd(nn.Module):
    """A network whose way depends on its numbers: torch.fx and torch.export cannot trace it."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.left, self.right = nn.Linear(16, 32), nn.Linear(16, 32)
        self.last = nn.Linear(32, 4)

    def forward(self, x):
        y = self.norm(self.first(x)).relu().mean((2, 3))
        y = self.left(y) if float(y.sum().detach()) > 0 else self.right(y)
        return self.last(y.relu())


@pytest.fixture
def data():
    torch.manual_seed(0)
    inputs = torch.randn(256, 3, 8, 8)
    labels = inputs.mean((1, 2, 3)).mul(40).long().clamp(-1, 2) + 1
    return [(inputs[i : i + 32], labels[i : i + 32]) for i in range(0, 256, 32)]


@pytest.fixture
def context(data):
    def loss(model, batch):
        return functional.cross_entropy(model(batch[0]), batch[1])

    return Context(data[0][0], data, loss)


def plain():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4),
    ).eval()  # fmt: skip


@pytest.mark.parametrize(
    "technique",
    [
        optimize.MagnitudePruning(0.5),
        optimize.SaliencyPruning(0.5),
        optimize.LowRank(energy=0.5),
        optimize.LowRank(budget=0.5, cost="flops"),
        optimize.LinearRounding(4),
        optimize.CodebookRounding(8),
        optimize.CalibratedRounding(bits=3),
        optimize.BatchNormFolding(),
        optimize.IntegerKernels("float"),
        optimize.Encoding(),
    ],
    ids=repr,
)
def test_models_that_cannot_be_traced(technique, context):
    torch.manual_seed(0)
    odd = Odd().eval()
    before = {name: one.clone() for name, one in odd.state_dict().items()}
    done = technique.apply(odd, context)
    assert done.changes
    assert done.model(context.example).shape == (32, 4)
    assert all(torch.equal(before[name], one) for name, one in odd.state_dict().items())


def test_structure_is_not_guessed_where_the_way_depends_on_numbers(context):
    with pytest.raises(ConfigError, match=r"right.*passes a layer by"):
        optimize.StructuredPruning(0.5).apply(Odd().eval(), context)


def test_calibrated_rounding_keeps_zeros_and_looks_at_data(context):
    net = optimize.MagnitudePruning(0.6).apply(plain(), context).model
    zeros = [one == 0 for one in net.parameters()]
    done = optimize.CalibratedRounding(bits=3).apply(net, context)
    assert all(
        bool((one[mask] == 0).all())
        for one, mask in zip(done.model.parameters(), zeros, strict=True)
    )
    wanted = net(context.example)
    errors = {}
    for bits in (2.0, 3.0):
        rounded = optimize.CalibratedRounding(bits=bits).apply(net, context).model
        errors[bits] = float((rounded(context.example) - wanted).square().mean().detach())
    assert errors[3.0] < errors[2.0] / 2
    encoded = optimize.Encoding().apply(done.model, context)
    state = encoded.model.state_dict()
    assert all(
        torch.equal(
            state[f"{change.layer}.weight"], done.model.state_dict()[f"{change.layer}.weight"]
        )
        for change in done.changes
    ), "the coder finds the steps again"


def test_calibrated_rounding_touches_what_it_may(context):
    net = plain()
    done = optimize.CalibratedRounding(bits=3, only="3").apply(net, context)
    assert [change.layer for change in done.changes] == ["3"]
    before, after = net.state_dict(), done.model.state_dict()
    assert {n for n in before if not torch.equal(before[n], after[n])} == {"3.weight"}
    again = optimize.CalibratedRounding(bits=3, only="3").apply(net, context)
    assert torch.equal(again.model[3].weight, done.model[3].weight)
    with pytest.raises(ConfigError, match="batches"):
        optimize.CalibratedRounding(bits=3).apply(net, Context(context.example))
    with pytest.raises(ConfigError, match="one of"):
        optimize.CalibratedRounding()


def test_calibrated_rounding_reads_no_more_than_it_looks_at(context):
    read = []

    def endless():
        while True:
            read.append(context.batches[len(read) % 8])
            yield read[-1]

    done = optimize.CalibratedRounding(bits=3, samples=40).apply(
        plain(), Context(context.example, endless())
    )
    assert len(read) == 2, "batches of 32"
    few = optimize.CalibratedRounding(bits=3, samples=40).apply(plain(), context)
    for one, two in zip(done.model.parameters(), few.model.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_loss_of_several_numbers_is_refused(context):
    def loss(model, batch):
        return functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    many = Context(context.example, context.batches, loss)
    with pytest.raises(
        ConfigError, match=r"Context.loss: a loss is one number; found shape \(32,\)"
    ):
        optimize.SaliencyPruning(0.5).apply(plain(), many)


def test_low_rank_spends_flops_where_weights_are_used_often(context):
    torch.manual_seed(0)
    # The same weights and singular values, but one layer is used at 64 places.
    net = nn.Sequential(
        nn.Conv2d(3, 32, 1), nn.Conv2d(32, 32, 1), nn.Flatten(), nn.Linear(2048, 32),
        nn.Linear(32, 32),
    ).eval()  # fmt: skip
    net[4].weight.data.copy_(net[1].weight.data.reshape(32, 32))
    only = "1|4"
    by_flops = optimize.LowRank(budget=0.5, cost="flops", only=only).apply(net, context)
    measured = optimize.measure(net, context), optimize.measure(by_flops.model, context)
    ranks = {change.layer: change.what for change in by_flops.changes}
    assert "1" in ranks, ranks
    layers_only = 32 * 32 * 65 * 2 * 32  # two for each multiplication, for 32 samples
    saved = measured[0].flops - measured[1].flops
    assert 0.4 * layers_only < saved < 0.6 * layers_only
    with pytest.raises(ConfigError, match="example"):
        optimize.LowRank(budget=0.5, cost="flops").apply(net)
    with pytest.raises(ConfigError, match="cost: no such choice"):
        optimize.LowRank(budget=0.5, cost="bytes")


@pytest.mark.parametrize("fresh", [False, True])
def test_a_student_derived_by_width(context, fresh):
    teacher = plain()
    done = optimize.Student(width=0.5, fresh=fresh).apply(teacher, context)
    assert done.model[0].out_channels == 8
    assert done.model[3].out_channels == 16
    assert done.model(context.example).shape == (32, 4)
    assert teacher[0].out_channels == 16
    old = {tuple(row.flatten().tolist()) for row in teacher[0].weight}
    kept = [tuple(row.flatten().tolist()) in old for row in done.model[0].weight]
    assert not any(kept) if fresh else all(kept)


def test_a_student_that_is_given(context):
    teacher, small = plain(), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))
    done = optimize.Student(model=small).apply(teacher, context)
    assert done.model is not small
    assert torch.equal(done.model(context.example), small(context.example))
    with pytest.raises(ConfigError, match="another form"):
        optimize.Student(model=nn.Sequential(nn.Flatten(), nn.Linear(192, 3))).apply(
            teacher, context
        )
    for settings in ({}, {"width": 0.5, "model": small}, {"width": 1.5}):
        with pytest.raises(ConfigError):
            optimize.Student(**settings)


def test_saliency_leaves_no_layer_without_weights(context):
    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.loud, self.quiet = nn.Linear(192, 4), nn.Linear(192, 4)

        def forward(self, x):
            return self.loud(x.flatten(1)) + 1e-4 * self.quiet(x.flatten(1))

    torch.manual_seed(0)
    net = Beside()
    sparse = optimize.SaliencyPruning(0.9).apply(net, context).model
    bare = optimize.SaliencyPruning(0.9, floor=0.0).apply(net, context).model
    assert torch.count_nonzero(bare.quiet.weight) == 0
    assert torch.count_nonzero(sparse.quiet.weight) == round(0.02 * 768)
    kept = sparse.quiet.weight != 0
    assert sparse.quiet.weight[kept].equal(net.quiet.weight[kept])
    totals = [
        int(torch.count_nonzero(one.loud.weight) + torch.count_nonzero(one.quiet.weight))
        for one in (sparse, bare)
    ]
    assert totals[0] == totals[1] == round(0.1 * 2 * 768), "as sparse as was asked"


def test_a_whole_recipe(data, context, tmp_path):
    seen = []
    net = plain()
    recipe = Recipe(
        [
            Stage("narrow", optimize.Student(width=0.5), Training(2, 3e-3, "first")),
            Stage(
                "prune", optimize.GradualPruning(optimize.MagnitudePruning(0.7), steps=3),
                Training(1, 3e-3, "first", features=0.1, layers={"3": "3"}),
            ),
            Stage("round", optimize.LinearRounding(4), Training(1)),
            Stage("fold", optimize.BatchNormFolding()),
            Stage("encode", optimize.Encoding()),
        ]
    )  # fmt: skip

    def run():
        return recipe.run(
            net, context, batches=data, folder=tmp_path,
            progress=lambda *told: seen.append(told),
        )  # fmt: skip

    small = run()
    assert [row.stage for row in recipe.rows] == [
        "start", "narrow", "prune", "round", "fold", "encode",
    ]  # fmt: skip
    assert seen == [
        ("narrow", 0, 2), ("narrow", 1, 2), ("narrow", 2, 2),
        ("prune", 0, 3), ("prune", 1, 3), ("prune", 2, 3), ("prune", 3, 3),
        ("round", 0, 1), ("round", 1, 1), ("fold", 0, 0), ("encode", 0, 0),
    ]  # fmt: skip
    # Zeros of pruning are zeros to the end.
    weights = torch.cat([small[i].weight.flatten() for i in (0, 3, 8)])
    assert float((weights == 0).float().mean()) >= 0.69
    nbytes = [row.nbytes for row in recipe.rows]
    assert nbytes[0] > nbytes[1] > nbytes[2] > nbytes[3] > nbytes[4] > nbytes[5]
    assert nbytes[5] == len(recipe.data)
    decoded = limosa.torch.load(recipe.data)
    assert all(torch.equal(decoded[name], one) for name, one in small.state_dict().items())
    # A second run finds it all.
    data_before, rows = recipe.data, recipe.rows
    again = run()
    assert recipe.rows[1:] == rows[1:]
    assert recipe.data == data_before
    assert all(torch.equal(again.state_dict()[n], one) for n, one in small.state_dict().items())


def test_what_is_refused_is_told_though_it_is_trained(data, context):
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.gru = plain(), nn.GRU(4, 4)

        def forward(self, x):
            return self.gru(self.net(x)[None])[0][0]

    recipe = Recipe([Stage("round", optimize.LinearRounding(4), Training(1))])
    net = recipe.run(Head(), context, batches=data)
    assert recipe.rows[1].refused == ("gru: a recurrent layer",)
    assert len(net.net[0].weight.unique()) <= 15


def test_what_the_receiver_needs_is_told_to_the_end(context):
    recipe = Recipe(
        [
            Stage("kernels", optimize.IntegerKernels(least=4)),
            Stage("encode", optimize.Encoding()),
        ]
    )
    recipe.run(plain(), context)
    assert [row.receiver_needs for row in recipe.rows] == ["", "torchao", "torchao"]


def test_training_that_makes_no_sense():
    for settings in ({"teacher": "last"}, {"epochs": 0}, {"rate": 0.0}):
        with pytest.raises(ConfigError):
            Training(**settings)


def test_frozen_layers_matter_as_much(context, data):
    """As in a network with adapters, most of which is frozen."""
    net, frozen = plain(), plain()
    frozen[0].weight.requires_grad_(False)
    for technique in (optimize.SaliencyPruning(0.5), optimize.SaliencyPruning(0.5, order=1)):
        one, two = (technique.apply(model, context).model for model in (net, frozen))
        assert torch.equal(one[0].weight, two[0].weight)
        assert not two[0].weight.requires_grad
    for one in frozen.parameters():
        one.requires_grad_(False)
    optimize.SaliencyPruning(0.5).apply(frozen, context)
    assert not any(one.requires_grad for one in frozen.parameters())


@pytest.mark.parametrize(
    "technique",
    [
        optimize.Encoding(),
        optimize.BatchNormFolding(),
        optimize.CalibratedRounding(bits=3),
        optimize.IntegerKernels(),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_training_would_undo_takes_none(technique):
    with pytest.raises(ConfigError, match="undo"):
        Stage("last", technique, Training())


def test_zeros_of_other_layers_stay_while_one_is_pruned(data, context):
    gradual = optimize.GradualPruning(optimize.MagnitudePruning(0.5, only="3"), steps=2)
    recipe = Recipe(
        [
            Stage("first", optimize.MagnitudePruning(0.9, only="0")),
            Stage("then", gradual, Training(1)),
        ]
    )
    net = recipe.run(plain(), context, batches=data)
    assert torch.count_nonzero(net[0].weight) <= round(0.1 * net[0].weight.numel())


def test_a_student_has_no_zeros_of_its_teacher(data, context):
    torch.manual_seed(5)
    recipe = Recipe(
        [
            Stage("prune", optimize.MagnitudePruning(0.9)),
            Stage("student", optimize.Student(model=plain()), Training(1)),
        ]
    )
    net = recipe.run(plain(), context, batches=data)
    assert torch.count_nonzero(net[3].weight) > 0.9 * net[3].weight.numel()


def test_another_student_or_architecture_is_another_run(data, context, tmp_path):
    def run(net, student, metric=None):
        recipe = Recipe([Stage("student", optimize.Student(model=student))])
        return recipe.run(net, context, folder=tmp_path, metric=metric), recipe.rows

    one, two = plain(), plain()
    with torch.no_grad():
        two[8].bias.add_(1)
    assert torch.equal(run(plain(), one)[0][8].bias, one[8].bias)
    assert torch.equal(run(plain(), two)[0][8].bias, two[8].bias)
    smooth = plain()
    smooth[2] = nn.GELU()
    assert isinstance(run(smooth, smooth)[0][2], nn.GELU)
    assert [row.metric for row in run(plain(), one, metric=lambda model: 7.0)[1]] == [7.0, 7.0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_passes_the_guard(dtype):
    torch.manual_seed(0)
    net = plain().to(dtype)
    net[4].running_var.uniform_(0.5, 2)
    context = Context(torch.randn(4, 3, 8, 8, dtype=dtype))
    for technique in (
        optimize.LowRank(rank=2), optimize.BatchNormFolding(), optimize.BatchNormFolding("layer"),
        optimize.LinearRounding(4), optimize.Encoding(),
    ):  # fmt: skip
        assert technique.apply(net, context).changes


def test_arguments_as_a_tuple_a_list_or_by_name():
    torch.manual_seed(0)
    net = nn.Bilinear(4, 4, 3)
    whole = nn.ModuleDict({"sum": net, "last": nn.Linear(3, 8)})
    whole.forward = lambda left, right: whole["last"](whole["sum"](left, right))
    a, b = torch.randn(2, 4), torch.randn(2, 4)
    found = [
        optimize.measure(whole, Context(example)).flops
        for example in ((a, b), [a, b], {"left": a, "right": b})
    ]
    assert found[0]
    assert len(set(found)) == 1


def test_a_guard_that_sees_nothing_says_so(context):
    class Hidden(nn.Module):
        def __init__(self, answer):
            super().__init__()
            self.layer, self.answer = nn.Linear(4, 4), answer

        def forward(self, x):
            return self.answer(self.layer(x))

    seen = Context(torch.ones(1, 4))
    with pytest.raises(ConfigError, match="no tensor"):
        optimize.LinearRounding(4).apply(Hidden(lambda y: object()), seen)
    masked = Hidden(lambda y: y.masked_fill(torch.tensor([True, False, False, False]), -torch.inf))
    assert optimize.LowRank(rank=1).apply(masked, seen).changes


def test_layers_of_another_kind_are_not_taken_for_plain_ones(context):
    class Standardised(nn.Conv2d):
        def forward(self, x):
            return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)

    net = nn.Sequential(Standardised(3, 16, 3), nn.Conv2d(16, 16, 3)).eval()
    done = optimize.LowRank(rank=2).apply(net, Context(context.example))
    assert [one.layer for one in done.refused] == ["0"]
    assert "of its own" in done.refused[0].why


def test_norms_that_are_frozen_keep_their_statistics(context):
    torch.manual_seed(0)
    net = plain()
    batches = [(torch.randn(4, 3, 8, 8), torch.randint(3, (4,)))]
    frozen, free = (
        Training(1, 1e-2, statistics=one).run(net, net, {}, batches) for one in ("freeze", "train")
    )
    norm = next(name for name, one in net.named_modules() if isinstance(one, nn.BatchNorm2d))
    before, kept, moved = (one.get_submodule(norm) for one in (net, frozen, free))
    assert torch.equal(before.running_mean, kept.running_mean)
    assert not torch.equal(before.running_mean, moved.running_mean)
    assert not torch.equal(before.weight, kept.weight), "scales are trained all the same"


def test_a_layer_that_is_called_with_names_stays():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.up = nn.Conv2d(3, 16, 3, 2), nn.ConvTranspose2d(16, 16, 3, 2)
            self.last = nn.Conv2d(16, 16, 3)

        def forward(self, x):
            return self.last(input=self.up(self.down(x), output_size=x.shape[-2:]))

    example = torch.randn(2, 3, 8, 8)
    done = optimize.LowRank(rank=2).apply(Net().eval(), Context(example))
    assert [one.layer for one in done.changes] == ["down"]
    assert {one.layer: one.why for one in done.refused}["last"] == "the model names its arguments"


@pytest.mark.parametrize("groups", [2, 4, 8, 16])
@pytest.mark.parametrize("share", [0.25, 0.5])
def test_channels_of_grouped_convolutions(groups, share):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1, groups=groups),
        nn.ReLU(), nn.Conv2d(16, 4, 1),
    ).eval()  # fmt: skip
    done = optimize.StructuredPruning(share).apply(net, Context(torch.randn(2, 3, 8, 8)))
    assert done.model[0].out_channels < 16


def test_layers_whose_weights_an_encoder_reads_stay():
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    net = nn.Sequential(nn.Linear(16, 16), encoder).eval()
    done = optimize.LowRank(rank=2).apply(net, Context(torch.randn(2, 5, 16)))
    assert [one.layer for one in done.changes] == ["0"]
    assert {one.layer for one in done.refused} == {
        "1.self_attn.out_proj", "1.linear1", "1.linear2"
    }  # fmt: skip
    assert {one.why for one in done.refused[1:]} == {"the model reads its weight"}
    with torch.no_grad():  # of rank 1, so that nothing is better than two thin layers
        for layer in (net[0], encoder.linear1, encoder.linear2):
            layer.weight.copy_(layer.weight[:, :1] @ layer.weight[:1])
    targets = torch.randn(2, 5, 16)
    context = Context(targets, [(targets, None)], lambda model, batch: model(batch[0]).std())
    search = optimize.Search(net, context, lambda model: 0.0)
    offered = {path: any(one.rank for one in ways) for path, ways in search._options.items()}
    assert offered == {
        "0": True, "1.self_attn.out_proj": False, "1.linear1": False, "1.linear2": False
    }  # fmt: skip
    assert type(search._model[1].linear1) is nn.Linear, "what watched it is gone"
    with pytest.raises(ConfigError, match="does not take the example"):
        optimize.Search(net, Context(torch.randn(2, 5, 7)), lambda model: 0.0)


def test_frequencies_that_near_lossless_would_spoil():
    class Rotary(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 4)
            self.register_buffer("frequencies", torch.logspace(0, -4, 64))

        def forward(self, x):
            return self.layer(torch.sin(x * self.frequencies))

    seen = Context(torch.arange(2000.0)[:, None])
    with pytest.raises(ConfigError, match="without loss"):
        optimize.Encoding().apply(Rotary(), seen)
    done = optimize.Encoding(limosa.Lossless()).apply(Rotary(), seen)
    assert done.data


def test_tables_of_whole_numbers_stay_exact():
    net = nn.Linear(4, 4)
    net.register_buffer("positions", torch.arange(2000.0))
    done = optimize.Encoding().apply(net)
    assert torch.equal(done.model.positions, net.positions)


@pytest.mark.parametrize(
    "make",
    [
        lambda: optimize.HeadPruning(importance="taylor"),
        lambda: optimize.StructuredPruning(importance="taylor"),
        lambda: optimize.StructuredPruning(scope="all"),
        lambda: optimize.MagnitudePruning(scope="all"),
        lambda: optimize.SaliencyPruning(order=3),
        lambda: optimize.LowRank(rank=1, form="x"),
        lambda: optimize.LowRank(rank=2.0),
        lambda: optimize.CalibratedRounding(bits=3, output="x"),
        lambda: optimize.MagnitudePruning(0.5, only="[").apply(nn.Linear(2, 2)),
        lambda: Training(epochs=1.5),
        lambda: Training(statistics="send"),
        lambda: Training(layers={"0": "0"}, features=1.0),
    ],
)
def test_choices_that_there_are_not(make):
    with pytest.raises(ConfigError):
        make()


@pytest.mark.parametrize(
    "technique",
    [
        optimize.LowRank(rank=2), optimize.BatchNormFolding("layer"), optimize.LinearRounding(4),
        optimize.StructuredPruning(0.5), optimize.Student(width=0.5), optimize.Encoding(),
    ],
)  # fmt: skip
def test_an_example_that_is_not_the_models(technique):
    net = plain().train()
    with pytest.raises(ConfigError, match="does not take the example"):
        technique.apply(net, Context(torch.ones(2, 5, 8, 8)))
    assert net.training
