"""A student learns what a teacher says."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from limosa.errors import ConfigError
from limosa.torch.optimize import Distillation, MagnitudePruning, fit


def made(width):
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 4))


@pytest.fixture
def data():
    torch.manual_seed(0)
    inputs = torch.randn(256, 8)
    teacher = made(64)
    labels = teacher(inputs).argmax(1)
    batches = [(inputs[i : i + 32], labels[i : i + 32]) for i in range(0, 256, 32)]
    return teacher, batches, inputs


def test_the_soft_part_is_hintons():
    torch.manual_seed(0)
    found, wanted, t = torch.randn(5, 3), torch.randn(5, 3), 3.0
    from limosa.torch.optimize.distill import soft_loss

    p, q = functional.softmax(wanted / t, 1), functional.softmax(found / t, 1)
    expected = (p * (p / q).log()).sum(1).mean() * t * t
    assert soft_loss(found, wanted, t) == pytest.approx(float(expected), rel=1e-5)


def test_a_student_becomes_like_its_teacher(data):
    teacher, batches, inputs = data
    torch.manual_seed(1)
    student = made(8)
    before = [p.clone() for p in teacher.parameters()]
    with Distillation(teacher, student, soft=1.0, hard=0.0) as loss:
        losses = fit(loss, loss.parameters(), batches, epochs=30, rate=0.02)
    assert losses[-1] < losses[0] / 4
    agree = (student(inputs).argmax(1) == teacher(inputs).argmax(1)).float().mean()
    assert agree > 0.85
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))
    assert all(p.grad is None for p in teacher.parameters())
    assert not student[0]._forward_hooks


def test_parts_add_up(data):
    teacher, batches, _ = data
    student = made(8)
    inputs, labels = batches[0]
    parts = [
        Distillation(teacher, student, hard=1, soft=0)(inputs, labels),
        Distillation(teacher, student, hard=0, soft=1)(inputs, labels),
    ]
    both = Distillation(teacher, student, hard=0.3, soft=0.7)(inputs, labels)
    assert float(both.detach()) == pytest.approx(
        0.3 * float(parts[0].detach()) + 0.7 * float(parts[1].detach()), rel=1e-5
    )
    expected = functional.cross_entropy(student(inputs), labels)
    assert torch.equal(parts[0], expected)


def test_features_of_other_widths_are_mapped(data):
    teacher, batches, _ = data
    torch.manual_seed(1)
    student = made(8)
    with Distillation(
        teacher, student, hard=0.0, soft=0.0, features=1.0, layers={"1": "1"}
    ) as loss:
        first = float(loss(*batches[0]).detach())
        assert len(loss.parameters()) == len(list(student.parameters())) + 2
        losses = fit(loss, loss.parameters(), batches, epochs=20, rate=0.02)
    assert losses[-1] < 0.5 * first


def test_the_teachers_mode_survives(data):
    teacher, batches, _ = data
    teacher.train()
    Distillation(teacher, made(8))(*batches[0])
    assert teacher.training


def test_zeros_stay_while_a_pruned_student_learns(data):
    teacher, batches, _ = data
    done = MagnitudePruning(0.8).apply(teacher)
    with Distillation(teacher, done.model) as loss:
        fit(loss, loss.parameters(), batches, epochs=2, after_step=done.keep_zeros)
    for name, mask in done.masks.items():
        weight = done.model.get_parameter(name)
        assert not weight[mask == 0].any()
        assert weight[mask == 1].all()


@pytest.mark.parametrize(
    "options",
    [
        {"hard": -1},
        {"hard": 0, "soft": 0},
        {"temperature": 0},
        {"features": 1.0},
        {"layers": {"1": "1"}},
        {"features": 1.0, "layers": {"9": "1"}},
    ],
)
def test_what_makes_no_loss_is_refused(options):
    with pytest.raises(ConfigError):
        Distillation(made(4), made(4), **options)


def test_features_of_other_places_are_refused():
    teacher, student = nn.Sequential(nn.Conv2d(1, 2, 3)), nn.Sequential(nn.Conv2d(1, 2, 5))
    loss = Distillation(teacher, student, hard=0, soft=0, features=1, layers={"0": "0"})
    with pytest.raises(ConfigError, match="resolution"):
        loss(torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64))


def test_a_loss_that_is_no_number_stops(data):
    _, batches, _ = data
    student = made(4)

    def loss(inputs, labels):
        return student(inputs).sum() * float("nan")

    with pytest.raises(ConfigError, match="no number"):
        fit(loss, student.parameters(), batches)
    with pytest.raises(ConfigError, match="no batches"):
        fit(loss, student.parameters(), [])


def test_another_criterion_in_the_hard_part(data):
    teacher, batches, _ = data
    student, inputs = made(8), batches[0][0]
    targets = torch.randn(len(inputs), 4)
    loss = Distillation(teacher, student, hard=2, soft=0, criterion=functional.mse_loss)
    expected = 2 * functional.mse_loss(student(inputs), targets)
    assert torch.equal(loss(inputs, targets), expected)


def test_soft_targets_of_several_outputs_are_refused():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(x), x

    loss = Distillation(Two(), Two())
    loss.hard = 0.0
    with pytest.raises(ConfigError, match="soft=0"):
        loss(torch.ones(2, 4), None)


def test_a_wrong_name_leaves_no_hook(data):
    teacher, student = data[0], made(8)
    with pytest.raises(ConfigError, match="no such layer"):
        Distillation(teacher, student, features=1.0, layers={"0": "0", "2": "nope"})
    assert not any(one._forward_hooks for net in (teacher, student) for one in net.modules())


def test_outputs_that_have_logits():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 4)

        def forward(self, x):
            return SimpleNamespace(logits=self.layer(x), more=x)

    teacher, student = Named(), Named()
    inputs, labels = torch.randn(6, 8), torch.randint(4, (6,))
    found = Distillation(teacher, student)(inputs, labels)
    assert torch.equal(found, Distillation(teacher.layer, student.layer)(inputs, labels))
