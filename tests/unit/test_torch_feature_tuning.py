"""Tuning a cut: the drop that was allowed is kept, and channels that matter are coded finer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from limosa import ConfigError, FeatureDecoder, FeatureEncoder, FeatureSource, Step
from limosa.torch import split, tune_feature
from limosa.torch.dtypes import from_tensor, to_tensor


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5),
    ).eval()  # fmt: skip


def images(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def divergence(expected: torch.Tensor, found: torch.Tensor) -> float:
    p, q = expected.log_softmax(1), found.log_softmax(1)
    return float((p.exp() * (p - q)).sum(1).mean())


def test_what_is_sent_with_the_profile_keeps_the_drop():
    model, x = network(), images(24)
    tuning = tune_feature(model, "1", x.split(8), max_drop=1e-3)
    assert 0 < tuning.point.drop <= 1e-3
    assert tuning.quality == Step(1.0, effort=9)
    head, tail = split(model, "1")
    source = FeatureSource(bytes(32), "1", tuning.profile)
    encoder = FeatureEncoder(source, quality=tuning.quality, key_every=1)
    decoder = FeatureDecoder(source)
    bits, outputs = 0, []
    with torch.no_grad():
        for one in x.split(1):
            feature = head(one)
            sent = encoder.encode({head.names[0]: to_tensor("x", feature)})
            bits += 8 * len(sent)
            outputs.append(tail(from_tensor(decoder.decode(sent)[head.names[0]])))
        # The last bits of a tail depend on how many images it is given at a time.
        found = divergence(model(x), torch.cat(outputs))
        assert found == pytest.approx(tuning.point.drop, rel=0.1)
        assert bits / (len(x) * feature.numel()) == pytest.approx(tuning.point.bits, rel=0.02)


def test_the_curve_goes_from_fine_to_coarse():
    tuning = tune_feature(network(), "1", [images(8)], max_drop=1e-3)
    bits = [point.bits for point in tuning.curve]
    assert bits == sorted(bits, reverse=True)
    assert tuning.curve[0].drop < tuning.curve[-1].drop


def test_channels_that_nobody_reads_are_coded_coarsest():
    model = network()
    with torch.no_grad():
        model[2].weight[:, 4:] *= 1e-3
    tuning = tune_feature(model, "1", [images(16)], max_drop=1e-7)
    (channels,) = tuning.profile.channels.values()
    scale = np.empty(16)
    scale[channels.order] = channels.scale
    assert scale[:4].max() < scale[4:].min()


def test_labels_make_it_accuracy_and_a_metric_is_the_user_s():
    model, x = network(), images(32)
    labels = model(x).argmax(1)
    tuning = tune_feature(model, "1", [(x, labels)], max_drop=3.0)
    assert tuning.metric == 100.0
    assert tuning.point.drop <= 3.0
    calls = []

    def metric(outputs, given):
        calls.append(len(outputs))
        return -float(torch.cat(list(outputs)).abs().sum())

    done = []
    tune_feature(
        model,
        "1",
        [x[:4]],
        max_drop=1.0,
        metric=metric,
        progress=lambda n, of: done.append((n, of)),
    )
    assert calls
    assert done[-1][0] == done[-1][1]


def test_vectors_several_tensors_and_regression():
    torch.manual_seed(0)

    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 40), nn.Linear(40, 40)
            self.c = nn.Linear(40, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            one = torch.relu(self.a(x))
            return self.c(self.b(one) + one)

    model = Skip().eval()

    def metric(outputs, _):
        return -float(sum(output.square().sum() for output in outputs))

    data = [torch.randn(16, 6)]
    tuning = tune_feature(model, ["relu", "b"], data, max_drop=1e-2, metric=metric)
    assert len(tuning.profile.channels) == 2
    assert {one.axis for one in tuning.profile.channels.values()} == {1}


def test_what_cannot_be_kept_is_said():
    with pytest.raises(ConfigError, match="no batches"):
        tune_feature(network(), "1", [], max_drop=1.0)
    with pytest.raises(ConfigError, match="no step is fine enough"):
        tune_feature(network(), "1", [images(4)], max_drop=-1.0)
