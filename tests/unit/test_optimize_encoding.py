"""The end of a recipe: grids that are found again, files near-lossless, integers of torchao."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import limosa
from limosa.codec.config import Lossless
from limosa.errors import ConfigError
from limosa.torch import optimize
from limosa.torch.calibration.rounding import short_step
from limosa.torch.optimize import Context
from limosa.torch.optimize.encoding import MAX_LEVELS, grid_of


@given(
    st.lists(st.integers(-MAX_LEVELS, MAX_LEVELS), min_size=1, max_size=40),
    st.floats(1e-6, 1e6),
)
def test_a_grid_is_found_and_holds_every_value(levels, size):
    step = short_step(size)
    tensor = (torch.tensor(levels, dtype=torch.float64) * step).float()
    found = grid_of(tensor)
    if not any(levels):
        assert found is None
        return
    multiples = tensor.double() / found
    assert torch.equal(multiples, multiples.round())
    assert found >= step, "the widest step of which all are multiples"
    assert round(found / step) * step == found


def test_what_lies_on_no_grid_is_left_alone():
    torch.manual_seed(0)
    assert grid_of(torch.randn(1000)) is None
    assert grid_of(torch.randn(100_000)) is None
    assert grid_of(torch.zeros(10)) is None
    assert grid_of(torch.tensor([1.0, torch.inf])) is None
    assert grid_of(torch.tensor([1e-30, 1.0])) is None
    assert grid_of(torch.tensor([0.5, 0.25 * (MAX_LEVELS + 1)])) is None


@pytest.fixture
def rounded():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 64),
        nn.ReLU(), nn.Linear(64, 1),
    )  # fmt: skip
    net = net.eval()
    net[1].running_mean.normal_()
    return optimize.LinearRounding(5, exclude="6").apply(net).model


def test_levels_stay_and_the_rest_is_near(rounded):
    context = Context(torch.randn(2, 3, 8, 8))
    before = {name: one.clone() for name, one in rounded.state_dict().items()}
    done = optimize.Encoding().apply(rounded, context)
    after = done.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in ("0.weight", "4.weight"))
    for name in before.keys() - {"0.weight", "4.weight"}:
        assert torch.allclose(before[name], after[name], rtol=2**-9, atol=0.0)
    assert torch.equal(rounded.state_dict()["1.running_mean"], before["1.running_mean"])
    decoded = limosa.torch.load(done.data)
    assert all(torch.equal(decoded[name], one) for name, one in after.items())
    # The one row of the last layer is a vector to the codec; it was not rounded.
    assert not torch.equal(before["6.weight"], after["6.weight"])
    lossless = optimize.Encoding(Lossless()).apply(rounded, context)
    assert len(done.data) < len(lossless.data) < optimize.measure(rounded).raw_nbytes
    assert all(torch.equal(before[n], one) for n, one in lossless.model.state_dict().items())


def test_a_second_encoding_changes_nothing(rounded):
    once = optimize.Encoding().apply(rounded)
    twice = optimize.Encoding().apply(once.model)
    assert once.data == twice.data


@pytest.fixture
def wide():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 8)
    ).eval()


@pytest.mark.parametrize("activations", ["int8", "float"])
def test_integer_kernels_travel_as_integers(wide, activations):
    context = Context(torch.randn(16, 1, 8, 8))
    done = optimize.IntegerKernels(activations).apply(wide, context)
    assert [change.layer for change in done.changes] == ["2"]
    assert {one.layer: one.why for one in done.refused} == {
        "0": "no integer kernel for a Conv2d", "4": "smaller than 16",
    }  # fmt: skip
    assert done.receiver_needs == "torchao"
    tensors, metadata = optimize.flat_state(done.model)
    assert tensors["2._weight_qdata"].dtype == torch.int8
    measures = optimize.measure(done.model, context)
    assert measures.raw_nbytes < optimize.measure(wide).raw_nbytes / 2
    assert measures.nonzeros > 0.9 * measures.parameters
    # Decoded into another network of the same form it computes the same bits.
    other = optimize.IntegerKernels(activations).apply(nn.Sequential(*wide)).model
    encoded = optimize.Encoding(Lossless()).apply(done.model, context)
    optimize.set_flat_state(other, limosa.torch.load(encoded.data), metadata)
    assert torch.equal(other(context.example), done.model(context.example))
    exact, near = wide(context.example), done.model(context.example)
    assert 0 < float(((exact - near).abs().max() / exact.abs().max()).detach()) < 0.05


def test_what_is_quantized_already_is_refused(wide):
    done = optimize.IntegerKernels().apply(wide).model
    for technique in (optimize.MagnitudePruning(0.5), optimize.LinearRounding(4)):
        why = {one.layer: one.why for one in technique.apply(done).refused}
        assert "already" in why["2"]
    with pytest.raises(ConfigError, match="already"):
        optimize.LowRank(rank=2, only="2").apply(done)


def test_the_files_of_an_integer_model(wide, tmp_path):
    from safetensors import safe_open

    from limosa.torch.optimize.export import export

    done = optimize.IntegerKernels().apply(wide).model
    context = Context(torch.randn(2, 1, 8, 8))
    export(done, tmp_path, ["safetensors", "limosa"], context)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        metadata, names = file.metadata(), list(file.keys())
        tensors = {name: file.get_tensor(name) for name in names}
    assert metadata["format"] == "pt"
    other = optimize.IntegerKernels().apply(nn.Sequential(*wide)).model
    other[2].bias.data.zero_()
    optimize.set_flat_state(other, tensors, metadata)
    assert torch.equal(other(context.example), done(context.example))
    with limosa.torch.open_file(tmp_path / "model.limosa") as file:
        assert file.metadata()["2.weight"] == metadata["2.weight"]
    with pytest.raises(ConfigError, match="no such choice"):
        optimize.IntegerKernels("int4")


def test_a_torchao_for_another_torch_is_told(monkeypatch):
    def import_module(name):
        raise AttributeError("module 'torch.utils._pytree' has no attribute 'register_constant'")

    monkeypatch.setattr("limosa.torch.optimize.kernels.import_module", import_module)
    with pytest.raises(ConfigError, match="release of torchao made for torch"):
        optimize.IntegerKernels().apply(nn.Sequential(nn.Linear(64, 64)))
