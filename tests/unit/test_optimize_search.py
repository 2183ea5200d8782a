"""Sparsities, bits and ranks of all layers together, for a budget or a drop."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from limosa.errors import ConfigError
from limosa.torch import load, optimize


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    inputs = torch.randn(768, 30)
    labels = (inputs @ torch.randn(30, 4)).argmax(1)
    net = nn.Sequential(
        nn.Linear(30, 96), nn.BatchNorm1d(96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(),
        nn.Linear(96, 4),
    )  # fmt: skip
    batches = [(inputs[i : i + 64], labels[i : i + 64]) for i in range(0, 512, 64)]
    optimizer = torch.optim.AdamW(net.parameters(), 0.01, weight_decay=0.1)
    for _ in range(30):
        for x, y in batches:
            optimizer.zero_grad()
            functional.cross_entropy(net(x), y).backward()
            optimizer.step()
    net.eval()

    def accuracy(model):
        with torch.no_grad():
            return 100 * float((model(inputs[512:]).argmax(1) == labels[512:]).float().mean())

    def loss(model, batch):
        return functional.cross_entropy(model(batch[0]), batch[1])

    context = optimize.Context(inputs[:1], batches, loss)
    return net, context, accuracy, optimize.Search(net, context, accuracy)


@pytest.mark.parametrize("budget", [4500, 6000, 9000])
def test_a_budget_is_met_and_was_predicted(trained, budget):
    net, _, accuracy, search = trained
    found = search.within(budget)
    assert 0.98 * budget <= found.nbytes <= budget
    assert abs(found.predicted - found.nbytes) <= 0.03 * found.nbytes
    assert found.nbytes == len(found.data)
    # What is promised is what the file gives.
    state = load(found.data)
    assert all(torch.equal(state[name], one) for name, one in found.model.state_dict().items())
    assert accuracy(found.model) == found.after
    assert found.before == accuracy(net)


def test_more_bytes_do_less_damage(trained):
    *_, search = trained
    damages = [
        sum(one.damage for one in search.within(budget).choices.values())
        for budget in (4000, 6000, 10000)
    ]
    assert damages == sorted(damages, reverse=True)


def test_layers_are_treated_by_what_they_matter(trained):
    *_, search = trained
    choices = search.within(5000).choices
    assert len({(one.sparsity, one.bits, one.rank) for one in choices.values()}) > 1


def test_it_beats_one_setting_for_all_layers(trained):
    net, context, _, search = trained
    one = optimize.MagnitudePruning(0.7).apply(net, context).model
    plain = optimize.LinearRounding(4).apply(one, context).model
    size = optimize.measure(plain).nbytes
    found = search.within(size)

    def damage(model):
        with torch.no_grad():
            losses = [float(context.loss(model, batch)) for batch in context.batches]
        return sum(losses) / len(losses)

    assert damage(found.model) < damage(plain)


def test_a_drop_is_kept_with_few_bytes(trained):
    *_, search = trained
    strict, loose = search.down_to(0.5), search.down_to(5)
    assert strict.before - strict.after <= 0.5
    assert loose.before - loose.after <= 5
    assert loose.nbytes <= strict.nbytes < 8000


def test_what_cannot_be_is_said(trained):
    net, context, accuracy, search = trained
    with pytest.raises(ConfigError, match="floor"):
        search.within(100)
    with pytest.raises(ConfigError, match="0 or more"):
        search.down_to(-1)
    with pytest.raises(ConfigError, match="no layer"):
        optimize.Search(nn.Sequential(nn.ReLU()), context, accuracy)
    with pytest.raises(ConfigError, match="batches"):
        optimize.Search(net, optimize.Context(context.example), accuracy)


def test_the_given_model_stays(trained):
    net, *_, search = trained
    before = {name: one.clone() for name, one in net.state_dict().items()}
    grads = _grads(net)
    search.within(6000)
    assert all(torch.equal(before[name], one) for name, one in net.state_dict().items())
    assert all(one is two for one, two in zip(grads, _grads(net), strict=True))


def _grads(net):
    return [one.grad for one in net.parameters()]
