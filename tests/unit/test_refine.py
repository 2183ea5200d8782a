"""Compact refinement in torch: every method, every kind of layer, and what comes of it."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from refined import METHODS, Mixed, same, small_update, state_of, trained
from torch import nn
from torch.nn.utils import parametrize

import limosa
from limosa.errors import BaseMismatchError, ConfigError
from limosa.torch import load, refine

TOKENS = torch.randint(0, 40, (8, 12), generator=torch.Generator().manual_seed(1))


def mixed(seed: int = 0) -> Mixed:
    torch.manual_seed(seed)
    return Mixed()


@pytest.mark.parametrize("rate", [None, refine.Rate(lam=1e-5, step=0.5)], ids=["plain", "rate"])
@pytest.mark.parametrize("name", METHODS)
def test_the_edge_gets_the_server_s_bits(name: str, rate: refine.Rate | None):
    model = mixed()
    base = state_of(model)
    session = refine.prepare(model, METHODS[name], rate=copy.deepcopy(rate))
    trained(model, session, TOKENS)
    missing = [
        place
        for place, one in session.parametrizations.items()
        if any(array.latent.grad is None for array in one.learned())
    ]
    assert not missing
    update = session.update()
    rebuilt = refine.reconstitute(base, update)
    assert same(rebuilt, state_of(model))
    assert not same(rebuilt, base)
    assert model.tied.weight is model.embed.weight
    assert not any(parametrize.is_parametrized(module) for module in model.modules())
    assert all(p.requires_grad for p in model.parameters())


# The others put something smaller in the base's place from the beginning.
ADDING = sorted(METHODS.keys() - {"ML", "LRA", "FP"})


@pytest.mark.parametrize("name", ADDING)
def test_nothing_learned_changes_nothing(name: str):
    model = mixed()
    base = state_of(model)
    before = model.eval()(TOKENS)
    session = refine.prepare(model, METHODS[name])
    torch.testing.assert_close(model(TOKENS), before, rtol=1e-5, atol=1e-6)
    update = session.update()
    assert len(update) < 110
    assert same(refine.reconstitute(base, update), base)


def test_refinement_learns():
    model = mixed()
    session = refine.prepare(model, refine.Core(r=8))
    first = trained(model, session, TOKENS, steps=1)
    assert trained(model, session, TOKENS, steps=40) < 0.5 * first


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes_are_rounded_once_to_what_is_stored(dtype: torch.dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 4)).to(dtype)
    base = state_of(model)
    session = refine.prepare(model, refine.KnowledgeAugmentation(n=2))
    trained(model, session, torch.randn(8, 16, dtype=dtype))
    rebuilt = refine.reconstitute(base, session.update())
    assert rebuilt["0.weight"].dtype == dtype
    assert same(rebuilt, state_of(model))


def test_a_chain_of_fifty_updates_does_not_drift():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 12), nn.BatchNorm1d(12), nn.Linear(12, 4))
    edge = state_of(model)
    methods = [METHODS[name] for name in ("KA", "core", "LRU", "RM", "difference")]
    for number in range(50):
        session = refine.prepare(model, methods[number % 5], seed=number)
        trained(model, session, torch.randn(8, 12), steps=1)
        edge = refine.reconstitute(edge, session.update())
    assert same(edge, state_of(model))


def test_touched_rows_of_an_embedding_travel_alone():
    model = mixed()
    base = state_of(model)
    few = TOKENS % 3
    session = refine.prepare(model, refine.Core(r=2), exclude=["head", "lstm", "gru"])
    optimizer = torch.optim.SGD(session.parameters(), lr=1.0)
    (model.embed(few).sum() + session.rate_loss()).backward()
    optimizer.step()
    update = session.update()
    changed = (refine.reconstitute(base, update)["embed.weight"] != base["embed.weight"]).any(1)
    assert changed.nonzero().flatten().tolist() == [0, 1, 2]
    assert len(update) < 250


def test_selectors_are_those_of_peft():
    def targets(**settings) -> set[str]:
        model = mixed()
        session = refine.prepare(model, refine.Core(r=2), **settings)
        found = {
            name
            for name, one in session.parametrizations.items()
            if type(one).__name__ == "Factored"
        }
        session.close()
        return found

    assert targets(targets=["head"]) == {"head.weight"}
    assert targets(targets=r"(conv|head)") == {"conv.weight", "head.weight"}
    assert "lstm.weight_hh_l0" in targets()
    assert "attention.in_proj_weight" in targets()
    assert "head.weight" not in targets(exclude=["head"])
    with pytest.raises(ConfigError, match="no layer matches"):
        targets(targets=["nothing"])
    with pytest.raises(ConfigError, match="regular expression"):
        targets(targets="(")


def test_ranks_by_name():
    model = mixed()
    session = refine.prepare(model, refine.Core(r=2), ranks={"head.weight": 4})
    sizes = {n: one.size for n, one in session.parametrizations.items() if n.endswith("weight")}
    assert (sizes["head.weight"], sizes["conv.weight"]) == (16, 4)


def test_frozen_statistics_stay_and_send_nothing():
    model = mixed()
    base = state_of(model)
    session = refine.prepare(model, refine.Core(r=2), statistics="freeze")
    trained(model, session, TOKENS)
    rebuilt = refine.reconstitute(base, session.update())
    assert torch.equal(rebuilt["norm.running_mean"], base["norm.running_mean"])
    model.train()
    model(TOKENS)
    assert not torch.equal(model.norm.running_mean, base["norm.running_mean"])  # plain again


def test_statistics_and_counters_travel():
    model = mixed()
    base = state_of(model)
    session = refine.prepare(model, refine.Core(r=2))
    trained(model, session, TOKENS, steps=4)
    moved = model.norm.running_mean.clone()
    rebuilt = refine.reconstitute(base, session.update())
    assert rebuilt["norm.num_batches_tracked"] == 4
    torch.testing.assert_close(rebuilt["norm.running_mean"], moved, rtol=0, atol=0.1)


def test_a_wanted_size_is_reached():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    base = state_of(model)
    session = refine.prepare(model, refine.Difference())
    trained(model, session, torch.randn(8, 64), steps=5)
    for wanted in (600, 1000, 2500):
        data = session.encode(target_bytes=wanted).data
        assert 0.97 * wanted <= len(data) <= wanted
    with pytest.raises(ConfigError, match="too few bytes"):
        session.encode(target_bytes=50)
    with pytest.raises(ConfigError, match="more bytes"):
        session.encode(target_bytes=10**6)
    assert same(refine.reconstitute(base, session.update(target_bytes=1000)), state_of(model))


def test_a_price_that_follows_a_wanted_size():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    rate = refine.Rate(lam=1e-7, target_bytes=700)
    session = refine.prepare(model, refine.Difference(), rate=rate)
    trained(model, session, torch.randn(8, 64), steps=30)
    assert rate.lam > 1e-7
    assert 0.97 * 700 <= len(session.update()) <= 700


def test_encode_leaves_the_session_open_and_update_ends_it():
    model = mixed()
    session = refine.prepare(model, refine.Core(r=2))
    trained(model, session, TOKENS)
    preview = session.encode().data
    assert session.update() == preview
    with pytest.raises(ConfigError, match="session is over"):
        session.update()


def test_close_gives_the_model_back_as_it_was():
    model = mixed()
    base = state_of(model)
    session = refine.prepare(model, refine.MappingLearning(r=2))
    trained(model, session, TOKENS)
    session.close()
    assert same(state_of(model), base)


def test_a_model_that_is_parametrized_is_refused():
    model = mixed()
    refine.prepare(model, refine.Core(r=2))
    with pytest.raises(ConfigError, match="parametrized already"):
        refine.prepare(model, refine.Core(r=2))


def test_weights_that_are_not_finite_are_refused_and_nothing_changes():
    model = mixed()
    with torch.no_grad():
        model.conv.weight[0, 0, 0] = float("nan")
    with pytest.raises(ConfigError, match=r"conv\.weight"):
        refine.prepare(model, refine.Core(r=2))
    assert not any(parametrize.is_parametrized(module) for module in model.modules())
    session = refine.prepare(model, refine.Core(r=2), exclude=["conv"])
    trained(model, session, TOKENS)


def test_training_that_diverged_names_the_tensor():
    model = mixed()
    session = refine.prepare(model, refine.Core(r=2))
    with torch.no_grad():
        next(iter(session.parametrizations["head.weight"].learned())).latent.fill_(float("nan"))
    with pytest.raises(ConfigError, match=r"head\.weight.*not finite"):
        session.update()


@pytest.mark.parametrize(
    "make",
    [
        lambda: refine.Core(r=0),
        lambda: refine.KnowledgeAugmentation(n=-1),
        lambda: refine.RandomMask(p=0),
        lambda: refine.FilterPruning(c=1.0),
        lambda: refine.Rate(step=0),
        lambda: refine.Rate(lam=-1),
        lambda: refine.prepare(nn.Linear(2, 2), refine.Core(), statistics="drop"),
        lambda: refine.prepare(nn.Linear(2, 2), refine.Core(), seed=-1),
        lambda: refine.prepare(nn.ReLU(), refine.Core()),
    ],
)
def test_settings_out_of_range(make):
    with pytest.raises(ConfigError):
        make()


def test_another_base_is_refused():
    base, update = small_update()
    other = {name: tensor + (tensor.dtype.is_floating_point) for name, tensor in base.items()}
    with pytest.raises(BaseMismatchError):
        refine.reconstitute(other, update)
    renamed = {f"x.{name}": tensor for name, tensor in base.items()}
    with pytest.raises(BaseMismatchError):
        refine.reconstitute(renamed, update)


def test_load_knows_refinements():
    base, update = small_update()
    expected = refine.reconstitute(base, update)
    assert same(load(update, base=base), expected)
    arrays = limosa.load(update, base={name: tensor.numpy() for name, tensor in base.items()})
    assert all(arrays[name].tobytes() == expected[name].numpy().tobytes() for name in expected)
    with pytest.raises(BaseMismatchError, match="needs its base"):
        limosa.load(update)


@pytest.mark.parametrize("rate", [None, refine.Rate(lam=1e-5, step=0.5)], ids=["plain", "rate"])
def test_works_compiled(rate: refine.Rate | None):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 4))
    base = state_of(model)
    session = refine.prepare(model, refine.KnowledgeAugmentation(n=2), rate=rate)
    compiled = torch.compile(model, backend="eager")
    trained(compiled, session, torch.randn(8, 16))
    assert same(refine.reconstitute(base, session.update()), state_of(model))


def test_works_with_amp_and_deepcopy():
    model = mixed()
    base = state_of(model)
    session = refine.prepare(model, refine.KnowledgeAugmentation(n=1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model.head(torch.randn(2, 50)).float().sum()
    loss.backward()
    assert copy.deepcopy(model)(TOKENS).shape == (8, 4)
    assert same(refine.reconstitute(base, session.update()), state_of(model))


def test_a_state_dict_in_training_can_be_saved_and_loaded():
    model = mixed()
    session = refine.prepare(model, refine.KnowledgeAugmentation(n=1))
    trained(model, session, TOKENS)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    other = mixed()
    again = refine.prepare(other, refine.KnowledgeAugmentation(n=1))
    file.seek(0)
    other.load_state_dict(torch.load(file))
    assert again.encode().data == session.encode().data


def test_each_layer_gets_the_method_that_says_most_for_its_bits():
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(48, 48) for _ in range(4)])
    base = state_of(model)
    refined = {name: tensor.clone() for name, tensor in base.items()}
    refined["1.weight"] += torch.outer(torch.randn(48), torch.randn(48)) * 0.2  # of rank 1
    u, _, v = torch.linalg.svd(base["2.weight"])
    refined["2.weight"] += u[:, :6] @ torch.randn(6, 6) @ v[:6]  # between the first vectors
    refined["3.weight"].view(-1)[::97] += 0.5  # sparse
    chosen = refine.choose(model, refined)
    assert chosen["0.weight"].method is None
    assert chosen["1.weight"].method == refine.KnowledgeAugmentation(n=1)
    assert chosen["2.weight"].method == refine.Core(r=8)
    assert chosen["3.weight"].method == refine.Difference()
    assert all(choice.share > 0.7 for name, choice in chosen.items() if name != "0.weight")
    session = refine.prepare(model, {name: choice.method for name, choice in chosen.items()})
    assert "0.weight" not in session.parametrizations
    trained(model, session, torch.randn(8, 48))
    assert same(refine.reconstitute(base, session.update()), state_of(model))
    with pytest.raises(ConfigError, match="no such tensor"):
        refine.choose(model, {})
    with pytest.raises(ConfigError, match="cannot be chosen"):
        refine.choose(model, refined, candidates=[refine.RandomMask()])
