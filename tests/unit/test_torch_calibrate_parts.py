"""The parts of limosa.torch.calibrate: views, rounding, Fisher information, search, tuning."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from limosa.errors import ConfigError  # noqa: E402
from limosa.torch.calibrate import calibrate  # noqa: E402
from limosa.torch.calibration import views  # noqa: E402
from limosa.torch.calibration.fisher import FisherSums, collect  # noqa: E402
from limosa.torch.calibration.rounding import (  # noqa: E402
    entropy_bits,
    factor,
    round_levels,
    short_step,
)
from limosa.torch.calibration.samples import Data  # noqa: E402
from limosa.torch.calibration.search import largest_within, reach_bits  # noqa: E402
from limosa.torch.calibration.views import MatrixView, views_of  # noqa: E402


def hessian(columns, groups=1):
    torch.manual_seed(columns)
    inputs = torch.randn(groups, columns, 3) @ torch.randn(groups, 3, 4 * columns)
    inputs += 0.3 * torch.randn_like(inputs)
    return inputs @ inputs.transpose(1, 2)


def cost(errors, matrix):
    return float((errors @ matrix * errors).sum())


@pytest.mark.parametrize("view", [
    MatrixView((6, 4), 4), MatrixView((6, 4), 4, parts=2), MatrixView((8, 2, 3, 3), 18, groups=4),
    MatrixView((8, 2, 3, 3), 18, groups=2, parts=3), MatrixView((1, 5, 6), 6),
])  # fmt: skip
def test_views_cut_and_join(view):
    tensor = torch.randn(view.shape)
    matrices = view.cut(tensor)
    assert tuple(matrices.shape) == view.size
    assert torch.equal(view.join(matrices), tensor)


def test_views_of_modules(monkeypatch):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.position = nn.Parameter(torch.zeros(1, 7, 4))
            self.grouped = nn.Conv1d(6, 9, 5, groups=3)
            self.turned = nn.ConvTranspose2d(4, 6, 3, groups=2)
            self.linear = nn.Linear(12, 2)
            self.norm = nn.LayerNorm(4)

    sizes = {name: view.size for name, view in views_of(Model()).items()}
    assert sizes == {
        "position": (1, 7, 4),
        "grouped.weight": (3, 3, 10),
        "turned.weight": (1, 4, 27),
        "linear.weight": (1, 2, 12),
    }
    assert "position" not in views_of(Model(), ("pos*",))
    monkeypatch.setattr(views, "MAX_COLUMNS", 5)
    assert views_of(Model())["linear.weight"].size == (3, 2, 4)


def test_the_factor_is_of_the_inverse():
    matrix = hessian(6, 2)
    found = factor(matrix, 0.1)
    mean = matrix.diagonal(dim1=1, dim2=2).mean()
    for group in range(2):
        order = found.order[group]
        damped = (matrix[group] + 0.1 * mean * torch.eye(6))[order][:, order]
        assert torch.equal(damped.diagonal(), damped.diagonal().sort(descending=True)[0])
        upper = found.upper[group]
        assert torch.allclose(upper.T @ upper @ damped, torch.eye(6), atol=1e-4)
    assert factor(torch.zeros(1, 3, 3), 0.1) is None
    assert factor(torch.full((1, 3, 3), math.nan), 0.1) is None
    # Slightly indefinite, as sums in float32 are
    assert factor(torch.ones(1, 30, 30) - 1e-5 * torch.eye(30), 1e-9) is not None


def test_without_correlations_rounding_is_plain():
    weights = torch.randn(2, 5, 300)
    found = round_levels(weights, factor(torch.eye(300).repeat(2, 1, 1), 0.1), 0.25)
    assert torch.equal(found, (weights / 0.25).round())
    assert not found[found == 0].signbit().any()


@pytest.mark.parametrize("columns", [8, 200])  # within a block, and over several
def test_rounding_follows_the_hessian(columns):
    matrix, weights, step = hessian(columns), torch.randn(1, 20, columns), 0.5
    known = factor(matrix, 1e-3)
    found = round_levels(weights, known, step) * step - weights
    nearest = (weights / step).round() * step - weights
    assert cost(found, matrix) < 0.5 * cost(nearest, matrix)
    # What the pivots promise: the mean cost of a column's error, which is uniform.
    expected = known.sensitivity * weights.numel() * step**2 / 12
    assert 0.5 < cost(found, matrix) / expected < 1.2


def test_rounding_is_near_the_best_of_all():
    # One row of five columns: the 3^5 neighbours of the nearest levels can be tried.
    ratios = []
    for seed in range(20):
        torch.manual_seed(seed)
        matrix, weights, step = hessian(5), torch.randn(1, 1, 5), 1.0
        nearest = weights.round()
        choices = [torch.tensor([[c]]) + nearest for c in itertools.product((-1.0, 0, 1), repeat=5)]
        best = min(cost(choice * step - weights, matrix) for choice in choices)
        found = round_levels(weights, factor(matrix, 1e-3), step) * step - weights
        ratios.append((cost(found, matrix) + 1e-9) / (best + 1e-9))
    assert sorted(ratios)[10] < 1.5


def test_rates_shorten_the_code():
    matrix, weights = hessian(40), torch.randn(1, 50, 40)
    known = factor(matrix, 0.1)
    free, dear = (round_levels(weights, known, 0.7, w) for w in (0.0, 0.15))
    assert entropy_bits(dear) < 0.98 * entropy_bits(free)
    assert cost(dear * 0.7 - weights, matrix) < 2 * cost(free * 0.7 - weights, matrix)


@pytest.mark.parametrize("step", [0.1, 1.0, 3e-9, 7.77e20, 2.0**-100])
def test_short_steps(step):
    found = short_step(step)
    assert step * (1 - 2**-11) < found <= step
    assert np.float32(found).view(np.uint32) & 0xFFF == 0
    assert float(np.float32(found)) == found


def test_fisher_information_is_the_hessian_of_the_divergence():
    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Linear(3, 4, bias=False)), torch.randn(1, 3)
    view, found = views_of(model)["0.weight"], FisherSums()
    many = Data([data.expand(4000, 3)])
    collect(model, many, {"0.weight": view}, found, seed=0, done=lambda count: None)
    p = model(data).softmax(1)[0].detach()
    expected = (p * (1 - p)).mean() * data.T @ data
    assert torch.allclose(found.hessian("0.weight", view)[0], expected, rtol=0.1, atol=1e-3)


def test_scores_of_classes_have_the_right_covariance():
    logits = torch.tensor([[3.0, 1.0, 0.0, -1.0]])
    generator, total = torch.Generator().manual_seed(0), torch.zeros(4, 4)
    for _ in range(3000):
        leaf = logits.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(Data([]).score(leaf, generator), leaf)
        total += gradient.T @ gradient / 3000
    p = logits.softmax(1)[0]
    assert torch.allclose(total, p.diag() - p.outer(p), atol=0.01)


def test_fisher_information_of_values():
    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Linear(3, 4, bias=False)), torch.randn(1, 3)
    view, found = views_of(model)["0.weight"], FisherSums()
    many = Data([data.expand(4000, 3)], kind="values")
    collect(model, many, {"0.weight": view}, found, seed=0, done=lambda count: None)
    expected = data.T @ data / model(data).square().sum().detach()
    assert torch.allclose(found.hessian("0.weight", view)[0], expected, rtol=0.1, atol=1e-3)


def test_searches():
    calls = []

    def bits_at(nats):
        calls.append(nats)
        return max(0.0, 3 - math.log2(nats) / 2 + math.sin(math.log(nats)) / 9)

    for target in (0.3, 2.0, 9.0):
        assert bits_at(reach_bits(bits_at, target)) == pytest.approx(target, rel=3e-3)
    assert len(calls) < 30
    reach_bits(bits_at, 100.0)  # beyond what there is: ends all the same
    for limit in (1e-8, 0.3, 700.0):
        assert limit / 1.11 < largest_within(lambda nats, x=limit: nats <= x) <= limit
    assert largest_within(lambda nats: False) is None
    assert largest_within(lambda nats: True) > 100


def test_broken_tensors_are_left_alone():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    with torch.no_grad():
        model[0].weight[1, 1] = math.inf
    found = calibrate(model, [torch.randn(8, 4)], bits=3.0, output="values")
    assert "0.weight" not in found.steps
    assert torch.equal(found.tensors["0.weight"], model[0].weight)


def test_a_model_without_gradients():
    class Still(nn.Linear):
        def forward(self, x):
            return super().forward(x).detach()

    with pytest.raises(ConfigError, match="no gradient"):
        calibrate(Still(3, 4), [torch.randn(8, 3)], bits=3.0)


def test_inside_inference_mode():
    with torch.inference_mode():
        found = calibrate(nn.Sequential(nn.Linear(3, 4)), [torch.randn(8, 3)], bits=3.0)
    assert list(found.steps) == ["0.weight"]
