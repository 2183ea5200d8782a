"""limosa.torch.calibrate: what is rounded, how well, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from limosa.errors import ConfigError  # noqa: E402
from limosa.torch.calibrate import calibrate  # noqa: E402


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.embedding.weight
        with torch.no_grad():
            self.embedding.weight.copy_(correlated(50, 16))

    def forward(self, tokens):
        x = self.embedding(tokens)
        return self.head(x + self.attention(x, x, x)[0])


def convolutions():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding="same", padding_mode="reflect", groups=16),
        nn.Conv2d(16, 32, 1, groups=4),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 8, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )


def correlated(count, *shape):
    """Samples on few directions, as real activations are: H is far from a multiple of I."""
    raw = torch.randn(count, 4) @ torch.randn(4, int(np.prod(shape)))
    return (raw + 0.1 * torch.randn_like(raw)).reshape(count, *shape)


def perceptron():
    return nn.Sequential(nn.Linear(40, 60), nn.ReLU(), nn.Linear(60, 10))


def divergence(model, state, data):
    with torch.no_grad():
        p = model.eval()(data).log_softmax(-1)
        q = torch.func.functional_call(model, state, data, tie_weights=False).log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).mean())


def entropy(levels):
    counts = np.unique(levels.numpy(), return_counts=True)[1]
    return float((counts * np.log2(counts.sum() / counts)).sum())


def plain(model, names, bits):
    """Every weight to the nearest multiple of one step, at the same total entropy."""
    state = model.state_dict()
    low, high = 1e-6, 10.0
    for _ in range(40):
        step = (low * high) ** 0.5
        levels = {n: (state[n] / step).round() for n in names}
        above = sum(map(entropy, levels.values())) > bits
        low, high = (step, high) if above else (low, step)
    return {**state, **{n: q * step for n, q in levels.items()}}


def levels_of(found):
    return {n: (found.tensors[n].double() / step).round() for n, step in found.steps.items()}


def check_levels(found):
    for name, step in found.steps.items():
        assert step > 0
        assert np.float32(step) == step
        assert np.float32(step).view(np.uint32) & 0xFFF == 0
        tensor = found.tensors[name]
        again = ((tensor.double() / step).round() * step).to(tensor.dtype)
        assert torch.equal(again, tensor), name


@pytest.mark.parametrize(
    ("make", "data"),
    [
        (convolutions, lambda: correlated(48, 3, 12, 12)),
        (perceptron, lambda: correlated(200, 40)),
        (Attention, lambda: torch.randint(0, 50, (60, 12)).sort(1)[0]),
    ],
)
def test_outputs_move_less_than_with_plain_rounding(make, data):
    torch.manual_seed(1)
    model, data = make().eval(), data()
    found = calibrate(model, data[: len(data) // 2].split(10), bits=3.0)
    check_levels(found)
    names = [n for n, p in model.named_parameters() if p.dim() > 1]
    assert sorted(set(found.steps)) == sorted(
        {*names, *([] if make is not Attention else ["head.weight"])}
    )
    bits = sum(entropy(q) for n, q in levels_of(found).items() if n in names)
    weights = sum(model.state_dict()[n].numel() for n in names)
    assert found.bits_per_weight == pytest.approx(bits / weights, rel=1e-6)
    assert found.bits_per_weight == pytest.approx(3.0, rel=0.02)
    other = plain(model, names, bits)
    fresh = data[len(data) // 2 :]
    assert divergence(model, found.tensors, fresh) < 0.7 * divergence(model, other, fresh)


def test_errors_are_fed_forward():
    # One step for one tensor: what remains is the order and the feedback along H.
    torch.manual_seed(2)
    model, data = nn.Sequential(nn.Linear(64, 32)), correlated(300, 64)
    found = calibrate(model, [data], bits=2.0, output="values", damping=0.01)
    other = plain(model, ["0.weight"], found.bits_per_weight * 64 * 32)
    with torch.no_grad():
        exact = model(data)
        errors = [
            float((torch.func.functional_call(model, s, data) - exact).square().mean())
            for s in (found.tensors, other)
        ]
    assert errors[0] < 0.3 * errors[1]


def test_sensitive_layers_get_smaller_steps():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20))
    with torch.no_grad():
        model[0].weight /= 100  # and what it computes is multiplied by the second
        model[1].weight *= 100
    found = calibrate(model, [torch.randn(50, 20)], bits=4.0)
    assert found.steps["1.weight"] > 30 * found.steps["0.weight"]


def test_the_model_is_left_alone():
    torch.manual_seed(4)
    model = convolutions().train()
    model[1].eval()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    found = calibrate(model, [correlated(8, 3, 12, 12)], divergence=0.1)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert modes == [m.training for m in model.modules()]
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert list(found.tensors) == list(before)
    for name in before.keys() - found.steps.keys():
        assert torch.equal(found.tensors[name], before[name])


def test_tied_tensors_stay_tied():
    model = Attention()
    found = calibrate(model, [torch.randint(0, 50, (20, 8))], bits=4.0)
    assert torch.equal(found.tensors["head.weight"], found.tensors["embedding.weight"])
    assert found.steps["head.weight"] == found.steps["embedding.weight"]


def test_kept_and_unreached_tensors():
    class Partly(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.kept, self.unused = (nn.Linear(8, 8) for _ in range(3))

        def forward(self, x):
            return self.kept(self.used(x))

    model = Partly()
    found = calibrate(model, [torch.randn(20, 8)], bits=3.0, keep=("kept.*",))
    assert list(found.steps) == ["used.weight"]
    assert torch.equal(found.tensors["unused.weight"], model.unused.weight)
    # 3 bits for each of 64, and 10.5 for the 128 kept weights and the 24 biases
    assert found.bits == pytest.approx(64 * found.bits_per_weight + 10.5 * (128 + 24))


def test_tuning_moves_only_what_was_not_rounded():
    torch.manual_seed(10)
    model, data = convolutions().eval(), correlated(64, 3, 12, 12)
    seen = []
    settings = {"bits": 1.5, "progress": lambda *now: seen.append(now)}
    plain = calibrate(model, [data], **settings)
    tuned = calibrate(model, [data], tune=20, **settings)
    assert seen[-1] == (80, 80, "tuning")
    assert tuned.steps == plain.steps
    buffers = {name for name, _ in model.named_buffers()}
    for name, tensor in tuned.tensors.items():
        still = name in tuned.steps or name in buffers
        assert torch.equal(tensor, plain.tensors[name]) == still, name
        assert not tensor.requires_grad
    before, after = (divergence(model, found.tensors, data) for found in (plain, tuned))
    assert after < 0.9 * before


def test_tuning_needs_the_batches_again():
    with pytest.raises(ConfigError, match="again"):
        calibrate(perceptron(), iter([torch.randn(4, 40)]), bits=3.0, tune=1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_floats(dtype):
    model = perceptron().to(dtype)
    found = calibrate(model, [correlated(40, 40).to(dtype)], bits=3.0)
    assert found.tensors["0.weight"].dtype == dtype
    check_levels(found)


def test_a_price_for_bits_saves_bits():
    torch.manual_seed(5)
    model, data = perceptron(), correlated(100, 40)
    free, dear = (calibrate(model, [data], divergence=0.3, rate_weight=w) for w in (0.0, 0.1))
    assert dear.steps == free.steps
    assert dear.bits < 0.98 * free.bits


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "exactly one"),
        ({"bits": 3.0, "divergence": 0.1}, "exactly one"),
        ({"max_drop": 0.1}, "needs a metric"),
        ({"bits": 0.0}, "bits: out of range"),
        ({"bits": float("nan")}, "bits: out of range"),
        ({"bits": 3.0, "damping": 0.0}, "damping"),
        ({"bits": 3.0, "output": "logits"}, "classes, values"),
        ({"bits": 3.0, "keep": ("*",)}, "nothing to round"),
        ({"bits": 3.0, "batches": []}, "no samples"),
        ({"bits": 3.0, "batches": [(torch.zeros(2, 40), torch.zeros(3))]}, "number of samples"),
        ({"bits": 3.0, "batches": [object()]}, "found object"),
        ({"bits": 3.0, "pick": lambda out: (out,)}, "pick="),
    ],
)
def test_impossible_settings(settings, words):
    batches = settings.pop("batches", [torch.randn(4, 40)])
    with pytest.raises(ConfigError, match=words):
        calibrate(perceptron(), batches, **settings)


def test_batches_of_arguments():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 6), nn.Linear(7, 6)

        def forward(self, x, y, *, scale=1.0):
            return {"logits": self.a(x) + scale * self.b(y)}

    torch.manual_seed(8)
    model, x, y = Two(), torch.randn(20, 5), torch.randn(20, 7)
    settings = {"bits": 3.0, "pick": lambda out: out["logits"]}
    by_place = calibrate(model, [(x, y)], **settings)
    by_name = calibrate(model, [{"x": x, "y": y, "scale": 1.0}], **settings)
    assert by_place.steps == by_name.steps
    assert len(by_place.steps) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    torch.manual_seed(9)
    model, data = convolutions().cuda(), correlated(20, 3, 12, 12)
    found = calibrate(model, [data], bits=3.0)
    assert all(t.is_cuda for t in found.tensors.values())
    check_levels(
        type(found)(**{**vars(found), "tensors": {n: t.cpu() for n, t in found.tensors.items()}})
    )
