"""Programs made at random, with other names, views and changes in place, are cut everywhere."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from limosa.torch.cuts import cuts  # noqa: E402
from limosa.torch.features import tap  # noqa: E402
from limosa.torch.graphs.cutting import Cutter  # noqa: E402
from limosa.torch.graphs.tracing import trace  # noqa: E402
from limosa.torch.split import split_at  # noqa: E402


def add_to(a, b):
    a += b
    return a


STEPS = (
    lambda a, b: a.sin(),
    lambda a, b: a + b,
    lambda a, b: a * 2 - b,
    lambda a, b: a,
    lambda a, b: a.view(4),
    lambda a, b: a[:2].repeat(2),
    lambda a, b: a.chunk(2)[1].repeat(2),
    lambda a, b: a.unsqueeze(0)[0],
    lambda a, b: a.mul_(b),
    lambda a, b: torch.relu_(a),
    lambda a, b: nn.functional.leaky_relu(a, inplace=True),
    lambda a, b: torch.sin(a, out=a.clone()),
    lambda a, b: a.flatten().clamp_(-1, 1),
    lambda a, b: a[2:].neg_().repeat(2),
    lambda a, b: a[:2].expand(2, 2).reshape(4),
    add_to,
)


class Program(nn.Module):
    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def forward(self, x):
        values = [x * 1, x.cos()]
        for step, one, two in self.steps:
            values.append(STEPS[step](values[one % len(values)], values[two % len(values)]))
        return values[-1] * 3 + values[len(values) // 2]


programs = st.lists(
    st.tuples(st.integers(0, len(STEPS) - 1), st.integers(0, 20), st.integers(0, 20)),
    min_size=1, max_size=14,
)  # fmt: skip


@given(programs)
@settings(max_examples=60)
def test_every_cut_of_a_random_program_is_exact(steps):
    model, x = Program(steps), torch.tensor([0.3, -1.2, 0.7, 2.5])
    expected = model(x.clone())
    cutter = Cutter(trace(model, x))
    for cut in cuts(model, x, max_tensors=4):
        head, tail = split_at(cutter, cut.names)
        features = head(x.clone())
        kept = [f.clone() for f in (features if isinstance(features, tuple) else (features,))]
        assert torch.equal(tail(features), expected)
        assert torch.equal(tail(*kept), expected)


@given(programs)
@settings(max_examples=40)
def test_a_tapped_value_is_what_it_was_when_it_was_made(steps):
    model, x = Program(steps), torch.tensor([0.3, -1.2, 0.7, 2.5])
    traced = trace(model, x)
    made = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n):
            made[n.name] = value = super().run_node(n)
            if isinstance(value, torch.Tensor):
                made[n.name] = value.clone()
            return value

    Recorder(model, graph=traced.graph).run(x.clone())
    tensors = [n for n, v in made.items() if isinstance(v, torch.Tensor) and n != "output"]
    for name, feature in tap(model, tensors, x)(x.clone()).items():
        assert torch.equal(feature, made[name]), name
