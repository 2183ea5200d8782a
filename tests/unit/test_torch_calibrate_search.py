"""limosa.torch.calibrate: the smallest file that keeps a metric, progress, and going on."""

from __future__ import annotations

import io

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from limosa.errors import ConfigError  # noqa: E402
from limosa.torch import load, save  # noqa: E402
from limosa.torch.calibrate import Calibration, calibrate, smallest_file  # noqa: E402
from limosa.torch.calibration.bar import reporting  # noqa: E402


def correlated(count, *shape):
    """Samples on few directions, as real activations are: H is far from a multiple of I."""
    raw = torch.randn(count, 4) @ torch.randn(4, int(np.prod(shape)))
    return (raw + 0.1 * torch.randn_like(raw)).reshape(count, *shape)


def perceptron():
    return nn.Sequential(nn.Linear(40, 60), nn.ReLU(), nn.Linear(60, 10))


def test_the_coarsest_that_keeps_the_metric():
    torch.manual_seed(6)
    model, data = perceptron().eval(), correlated(200, 40)
    expected = model(data).argmax(1)
    seen = []

    def agreement(candidate):
        assert not candidate.training
        seen.append(float((candidate(data).argmax(1) == expected).double().mean()))
        return seen[-1]

    found = calibrate(model, [data], max_drop=0.05, metric=agreement)
    coded = save(found.tensors, quality=found.quality())
    assert len(coded) == found.nbytes  # measured, and of what is decoded:
    assert found.metric == pytest.approx(agreement_of(load(coded), model, data, expected))
    assert found.metric >= 0.95
    assert found.bits_per_weight < 4
    assert seen[0] == 1.0
    assert len(seen) < 30
    coarser = calibrate(model, [data], divergence=1.5 * found.divergence, metric=agreement)
    assert coarser.bits < found.bits


def test_of_the_files_that_keep_the_metric_the_smallest_is_taken():
    def candidate(bits: float) -> Calibration:
        torch.manual_seed(0)
        return calibrate(nn.Sequential(nn.Linear(64, 64)), [torch.randn(64, 64)], bits=bits)

    made = [candidate(bits) for bits in (2.0, 3.0, 4.0)]
    sizes = {len(save(one.tensors, quality=one.quality(e))) for one in made for e in (5, 9)}
    chosen = smallest_file(made, lambda state: 1.0, 0.5)
    assert chosen.nbytes == min(sizes)
    assert len(save(chosen.tensors, quality=chosen.quality())) == chosen.nbytes
    fine = made[1].tensors["0.weight"]
    third = smallest_file(made, lambda state: float(torch.equal(state["0.weight"], fine)), 0.5)
    assert torch.equal(third.tensors["0.weight"], fine)
    first = smallest_file(iter(made[::-1]), lambda state: 1.0, 0.5, first=True)
    assert torch.equal(first.tensors["0.weight"], made[2].tensors["0.weight"])
    with pytest.raises(ConfigError, match="no file keeps the metric"):
        smallest_file(made, lambda state: 0.0, 0.5)


def test_a_tuned_model_keeps_the_metric_too():
    torch.manual_seed(12)
    model, data = perceptron().eval(), correlated(100, 40)
    expected = model(data).argmax(1)

    def agreement(candidate):
        return float((candidate(data).argmax(1) == expected).double().mean())

    found = calibrate(model, [data], max_drop=0.05, metric=agreement, tune=2)
    coded = save(found.tensors, quality=found.quality())
    assert len(coded) == found.nbytes
    assert agreement_of(load(coded), model, data, expected) == found.metric >= 0.95


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal_and_nowhere_else(monkeypatch):
    model, data = perceptron(), [torch.randn(10, 40)]
    screen, pipe = Terminal(), io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    calibrate(model, data, bits=3.0, progress=True)
    assert "calibrate" in screen.getvalue()
    monkeypatch.setattr("sys.stderr", pipe)
    calibrate(model, data, bits=3.0, progress=True)
    monkeypatch.setattr("sys.stderr", screen)
    shown = screen.getvalue()
    calibrate(model, data, bits=3.0)
    assert (pipe.getvalue(), screen.getvalue()) == ("", shown)


def test_no_bar_in_a_log_that_has_colors_nor_without_standard_error(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    for log in (io.StringIO(), None):
        monkeypatch.setattr("sys.stderr", log)
        with reporting(True) as report:
            report(1, None, "samples")
        assert log is None or log.getvalue() == ""


def test_ctrl_c_takes_the_bar_away_and_leaves_the_checkpoint(monkeypatch, tmp_path):
    torch.manual_seed(13)
    data, path, screen = correlated(30, 40), tmp_path / "c.npz", Terminal()
    model, seen = perceptron(), []

    def batches():
        yield data[:20]
        raise KeyboardInterrupt

    monkeypatch.setattr("sys.stderr", screen)
    with pytest.raises(KeyboardInterrupt):
        calibrate(model, batches(), bits=3.0, checkpoint=path, progress=True)
    assert "20/?" in screen.getvalue()
    assert screen.getvalue().rindex("\x1b[?25h") > screen.getvalue().rindex("20/?")  # a cursor
    calibrate(model, [data], bits=3.0, checkpoint=path, progress=lambda *now: seen.append(now))
    assert seen[0] == (21, None, "samples")


def agreement_of(tensors, model, data, expected):
    outputs = torch.func.functional_call(model, tensors, data)
    return float((outputs.argmax(1) == expected).double().mean())


def test_no_rounding_keeps_the_metric():
    values = iter([1.0, *[0.0] * 100])
    with pytest.raises(ConfigError, match="keeps the metric"):
        calibrate(perceptron(), [torch.randn(4, 40)], max_drop=0.1, metric=lambda _: next(values))


def test_an_interrupted_run_goes_on(tmp_path):
    torch.manual_seed(7)
    model, data, path = perceptron(), correlated(30, 40), tmp_path / "c.npz"
    whole = calibrate(model, data.split(7), bits=3.0)
    calls = []

    def stop(done, total, what):
        calls.append((done, total, what))
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(model, data.split(7), bits=3.0, checkpoint=path, progress=stop)
    assert calls == [(n, None, "samples") for n in range(1, 13)]
    calls.clear()
    found = calibrate(
        model, data.split(7), bits=3.0, checkpoint=path, progress=lambda *now: calls.append(now)
    )
    assert calls[0] == (13, None, "samples")
    assert found.steps == whole.steps
    assert all(torch.equal(t, whole.tensors[n]) for n, t in found.tensors.items())


def test_an_interrupted_search_goes_on(tmp_path):
    model, data, path = perceptron(), [torch.randn(10, 40)], tmp_path / "c.npz"
    count = [0]

    def metric(candidate):
        count[0] += 1
        if count[0] == 4:
            raise RuntimeError("out of memory")
        return -float((candidate[0].weight - model[0].weight).square().mean())

    with pytest.raises(RuntimeError):
        calibrate(model, data, max_drop=1e-4, metric=metric, checkpoint=path)
    before = count[0]
    first = calibrate(model, data, max_drop=1e-4, metric=metric, checkpoint=path)
    searched, count[0] = count[0] - before, 10
    again = calibrate(model, data, max_drop=1e-4, metric=metric, checkpoint=path)
    assert count[0] <= 10 + 3  # what is decoded from the coarsest three
    assert searched > count[0] - 10
    assert again.steps == first.steps
    assert -again.metric <= 1e-4


def test_a_checkpoint_serves_other_settings(tmp_path):
    torch.manual_seed(11)
    model, data, path = perceptron(), [correlated(20, 40)], tmp_path / "c.npz"
    calibrate(model, data, max_drop=0.1, metric=lambda m: 1.0, checkpoint=path)
    seen = []
    settings = {"damping": 1.0, "max_drop": 0.1, "metric": lambda m: seen.append(1) or 1.0}
    found = calibrate(model, data, checkpoint=path, progress=lambda *x: seen.append(x), **settings)
    assert not [now for now in seen if now != 1 and now[2] == "samples"]
    assert seen.count(1) > 5  # what another damping reached says nothing
    assert found.steps == calibrate(model, data, **settings).steps
    more = calibrate(model, [*data, correlated(5, 40)], bits=3.0, checkpoint=path)
    assert more.steps != found.steps


def test_a_checkpoint_of_something_else(tmp_path):
    path = tmp_path / "c.npz"
    calibrate(perceptron(), [torch.randn(4, 40)], bits=3.0, checkpoint=path)
    with pytest.raises(ConfigError, match="another calibration"):
        calibrate(perceptron(), [torch.randn(4, 40)], bits=3.0, checkpoint=path)
    path.write_bytes(b"no archive")
    with pytest.raises(ConfigError, match="not a checkpoint"):
        calibrate(perceptron(), [torch.randn(4, 40)], bits=3.0, checkpoint=path)
