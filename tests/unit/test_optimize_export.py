"""Models out to where they run: for batches of any size where that works, with names or without."""

import numpy as np
import pytest
import torch
from torch import nn

from limosa.errors import ConfigError
from limosa.torch.optimize import Context
from limosa.torch.optimize.export import export

onnxruntime = pytest.importorskip("onnxruntime")


class Fixed(nn.Module):
    """Works for a batch of 4 alone."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(x.reshape(4, 6))


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.layer = nn.Embedding(20, 8), nn.Linear(8, 3)

    def forward(self, tokens, mask=None, other=None):
        found = self.words(tokens)
        if mask is not None:
            found = found * mask[..., None]
        return {"scores": self.layer(found.mean(1)), "words": found}


def ran(path, **inputs):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {name: np.asarray(one) for name, one in inputs.items()})


@pytest.mark.parametrize("batch", [1, 4])
def test_batches_of_any_size(tmp_path, batch):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)).eval()
    done = export(net, tmp_path, ["pt2", "onnx"], Context(torch.randn(batch, 3, 8, 8)))
    assert [one.any_batch for one in done] == [True, True]
    assert max(one.difference for one in done) < 1e-5
    others = torch.randn(7, 3, 8, 8)
    wanted = net(others).detach()
    (found,) = ran(tmp_path / "model.onnx", input0=others)
    assert torch.allclose(torch.from_numpy(found), wanted, atol=1e-5)
    program = torch.export.load(tmp_path / "model.pt2").module()
    assert torch.allclose(program(others), wanted, atol=1e-5)


def test_a_model_for_one_size_is_written_for_that(tmp_path):
    net = Fixed().eval()
    done = export(net, tmp_path, ["safetensors", "pt2", "onnx"], Context(torch.randn(4, 6)))
    assert [one.any_batch for one in done] == [None, False, False]
    assert max(one.difference for one in done[1:]) < 1e-5


class Nearly(nn.Module):
    """What it computes for a batch of any size but 1 is a little else once it is exported."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(x) * (1 if torch.compiler.is_exporting() else 1.001)


def test_the_tolerance_is_the_users_for_any_batch_too(tmp_path):
    context = Context(torch.randn(4, 6))
    with pytest.raises(ConfigError, match="something else"):
        export(Nearly().eval(), tmp_path, ["pt2"], context)
    (done,) = export(Nearly().eval(), tmp_path, ["pt2"], context, tolerance=1e-2)
    assert done.any_batch
    assert done.difference > 1e-4


class Shifted(nn.Module):
    """Becomes a file that onnxruntime reads, and cannot run for a batch of 4."""

    def __init__(self):
        super().__init__()
        self.layer, self.shift = nn.Linear(6, 3), nn.Parameter(torch.ones(8, 3))

    def forward(self, x):
        places = x.shape[0]
        found = self.layer(x.reshape(places // 4, 4, 6)).reshape(-1, 3)
        return found + (self.shift if places == 8 else self.shift[:4])


def test_a_try_that_fails_says_nothing_on_stderr(tmp_path, capfd):
    (done,) = export(Shifted().eval(), tmp_path, ["onnx"], Context(torch.randn(4, 6)))
    assert not done.any_batch
    assert capfd.readouterr().err == ""


def test_arguments_keep_their_names(tmp_path):
    torch.manual_seed(0)
    net = Named().eval()
    tokens, mask = torch.randint(20, (2, 5)), torch.ones(2, 5)
    done = export(net, tmp_path, ["pt2", "onnx"], Context({"tokens": tokens, "mask": mask}))
    assert [one.any_batch for one in done] == [True, True]
    more, less = torch.randint(20, (3, 5)), torch.rand(3, 5)
    wanted = net(more, less)["scores"].detach()
    scores, _ = ran(tmp_path / "model.onnx", tokens=more, mask=less)
    assert torch.allclose(torch.from_numpy(scores), wanted, atol=1e-5)
    program = torch.export.load(tmp_path / "model.pt2").module()
    assert torch.allclose(program(tokens=more, mask=less)["scores"], wanted, atol=1e-5)


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x, hide=None, twice=False):
        found = self.layer(x) * (2 if twice else 1)
        return found.masked_fill(torch.tensor([False, False, False, True]), -torch.inf)


@pytest.mark.parametrize(
    "example", [{"x": torch.randn(3, 6), "twice": True}, (torch.randn(3, 6), None, True)]
)
def test_arguments_that_are_no_tensors_are_written_into_the_file(tmp_path, example):
    done = export(Masked().eval(), tmp_path, ["pt2", "onnx"], Context(example))
    assert [one.any_batch for one in done] == [True, True]
    assert max(one.difference for one in done) < 1e-5


def test_infinities_and_nan_hide_no_difference():
    from limosa.torch.optimize.export import _difference

    net, inputs = Masked().eval(), torch.randn(3, 6)
    wanted = net(inputs).detach()
    assert _difference(net, lambda x: wanted, inputs) == 0
    assert _difference(net, lambda x: wanted + 1, inputs) > 0.1
    assert not _difference(net, lambda x: wanted * torch.nan, inputs) <= 1
    assert not _difference(net, lambda x: -wanted, inputs) <= 1


def test_what_onnxruntime_cannot_run_is_an_error_of_ours(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 8, 3)).to(torch.bfloat16).eval()
    example = torch.randn(2, 3, 8, 8, dtype=torch.bfloat16)
    (tmp_path / "model.onnx").write_bytes(b"an earlier one")
    with pytest.raises(ConfigError, match="ONNX"):
        export(net, tmp_path, ["onnx"], Context(example))
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [
        ("model.onnx", b"an earlier one")
    ]
