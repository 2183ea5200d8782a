"""A search between trainings: fewer bytes for the same metric than without."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from limosa.errors import ConfigError
from limosa.torch import load, optimize
from limosa.torch.optimize.training import Training


def loss(model, batch):
    return functional.cross_entropy(model(batch[0]), batch[1])


@pytest.fixture(scope="module")
def task():
    torch.manual_seed(0)
    inputs = torch.randn(5120, 24)
    labels = (inputs @ torch.randn(24, 4)).argmax(1)
    net = nn.Sequential(
        nn.Linear(24, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(),
        nn.Linear(64, 4),
    )  # fmt: skip
    batches = [(inputs[i : i + 128], labels[i : i + 128]) for i in range(0, 4096, 128)]
    net = Training(epochs=6, rate=0.005).run(net, net, {}, batches).eval()

    def accuracy(model):
        with torch.no_grad():
            return 100 * float((model(inputs[4096:]).argmax(1) == labels[4096:]).float().mean())

    return net, optimize.Context(inputs[:1], batches, loss), accuracy, batches


def trainer(net, batches, epochs=4):
    calls = []

    def train(model, masks):
        calls.append(masks)
        return Training(epochs, 0.003, "first").run(model, net, masks, batches)

    return train, calls


@pytest.mark.parametrize("budget", [2300, 2600])
def test_more_is_right_in_the_same_bytes(task, budget):
    net, context, accuracy, batches = task
    before = {name: one.clone() for name, one in net.state_dict().items()}
    train, calls = trainer(net, batches)
    found = optimize.TrainedSearch(net, context, accuracy, train).within(budget)
    plain = optimize.Search(net, context, accuracy).within(budget)
    assert found.after > plain.after + 1
    assert len(calls) == 4
    assert 0.95 * budget <= found.nbytes == len(found.data) <= budget
    state = load(found.data)
    assert all(torch.equal(state[name], one) for name, one in found.model.state_dict().items())
    assert accuracy(found.model) == found.after
    assert found.before == accuracy(net), "of the network that was given"
    assert all(torch.equal(before[name], one) for name, one in net.state_dict().items())


def test_what_was_pruned_stays_away_while_it_trains(task):
    net, context, accuracy, batches = task
    train, calls = trainer(net, batches)
    seen = []

    def watched(model, masks):
        done = train(model, masks)
        layers = dict(done.named_modules())
        for name, mask in masks.items():
            weight = layers[name.rpartition(".")[0]].parametrizations.weight.original
            assert bool((weight[~mask] == 0).all())
            seen.append(int((~mask).sum()))
        return done

    optimize.TrainedSearch(net, context, accuracy, watched, steps=2).within(2000)
    assert len(calls) == 2
    assert max(seen) > 1000


def test_fewer_bytes_for_the_same_drop(task):
    net, context, accuracy, batches = task
    train, _ = trainer(net, batches)
    found = optimize.TrainedSearch(net, context, accuracy, train).down_to(2)
    plain = optimize.Search(net, context, accuracy).down_to(2)
    assert found.before - found.after <= 2
    assert found.nbytes < 0.85 * plain.nbytes


def test_a_training_that_does_harm_is_not_kept(task):
    net, context, accuracy, _ = task

    def harm(model, masks):
        with torch.no_grad():
            next(one for one in model.parameters() if one.dim() == 1).add_(100)
        return model

    search = optimize.TrainedSearch(net, context, accuracy, harm, steps=1)
    assert search.within(4000).after == optimize.Search(net, context, accuracy).within(4000).after
    plain = optimize.Search(net, context, accuracy).down_to(2)
    assert search.down_to(2).nbytes == plain.nbytes


def test_what_cannot_be_is_said_before_anything_is_trained(task):
    net, context, accuracy, batches = task
    train, calls = trainer(net, batches)
    search = optimize.TrainedSearch(net, context, accuracy, train)
    with pytest.raises(ConfigError, match="floor"):
        search.within(100)
    with pytest.raises(ConfigError, match="0 or more"):
        search.down_to(-1)
    with pytest.raises(ConfigError, match="steps"):
        optimize.TrainedSearch(net, context, accuracy, train, steps=0)
    assert not calls


def test_a_training_that_fails_says_so(task):
    net, context, accuracy, batches = task

    def train(model, masks):
        return Training(rate=1e30).run(model, net, masks, batches)

    with pytest.raises(ConfigError, match="lower the rate"):
        optimize.TrainedSearch(net, context, accuracy, train).within(2000)
    with pytest.raises(ConfigError, match="lower the rate"):
        optimize.TrainedSearch(net, context, accuracy, train).down_to(2)


def test_one_layer_alone(task):
    _, context, accuracy, batches = task
    torch.manual_seed(0)
    net = nn.Linear(24, 4)
    train, _ = trainer(net, batches)
    found = optimize.TrainedSearch(net, context, accuracy, train, steps=1).within(260)
    assert found.nbytes <= 260
    assert found.after > accuracy(net)
