"""What a recipe's file says: losses other than of classes, DataLoaders, batches that are none."""

import importlib
import json
import sys

import pytest
from click.testing import CliRunner

import limosa.torch
from limosa.cli.main import group
from limosa.errors import ConfigError

SHOP = """
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

torch.manual_seed(0)
INPUTS = torch.randn(256, 12)
TARGETS = torch.tanh(INPUTS @ torch.randn(12, 2))
READ = 0
HALVED = nn.HuberLoss()


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 2))


class Stream(IterableDataset):
    def __iter__(self):
        global READ
        for one in zip(INPUTS, TARGETS):
            READ += 1
            yield one


def loader():
    return DataLoader(TensorDataset(INPUTS, TARGETS), batch_size=32, shuffle=True)


def stream():
    return DataLoader(Stream(), batch_size=32)


def generator():
    yield from loader()


class Rows:  # a sequence by the old protocol: no __iter__
    def __len__(self):
        return 8

    def __getitem__(self, index):
        if index >= 8:
            raise IndexError(index)
        return INPUTS[32 * index : 32 * index + 32], TARGETS[32 * index : 32 * index + 32]


def one_by_one(found, wanted):
    return (found - wanted).square()


class Scaled(nn.Module):
    def __init__(self, scale):
        super().__init__()


def scalar():
    return 7


def triples():
    return [(INPUTS, TARGETS, 1)]


def fit(model):
    with torch.no_grad():
        return -float((model(INPUTS) - TARGETS).square().mean())
"""
RECIPE = """
model = "regression_shop:network"
train = "regression_shop:loader"
criterion = "torch.nn.functional:mse_loss"
metric = "regression_shop:fit"
export = ["limosa"]

[[stage]]
name = "learn"
train = { epochs = 20, rate = 0.02 }

[[stage]]
do = "prune-by-saliency"
sparsity = 0.4
train = { epochs = 4, rate = 0.01, teacher = "first", hard = 1.0, soft = 0.0 }
"""


@pytest.fixture
def shop(tmp_path, monkeypatch):
    (tmp_path / "regression_shop.py").write_text(SHOP, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("regression_shop", None)
    yield importlib.import_module("regression_shop")
    sys.modules.pop("regression_shop", None)


def run(text, *more):
    with open("recipe.toml", "w", encoding="utf-8") as file:
        file.write(text)
    return CliRunner().invoke(group, ["optimize", "recipe.toml", "-o", "small", "--json", *more])


@pytest.mark.parametrize("batches", ["loader", "stream", "generator", "Rows"])
def test_a_regression_from_what_gives_batches(shop, batches):
    done = run(RECIPE.replace(":loader", f":{batches}"))
    assert done.exit_code == 0, done.output
    start, learned, pruned = (row["metric"] for row in json.loads(done.stdout)["rows"])
    assert start < 4 * learned < 0, "mean squares fall to a quarter by mse_loss alone"
    assert pruned > start / 2
    # Read anew in each of 24 epochs, and once by saliency: it was not held as a list.
    read_at_least = 25 * 256 if batches == "stream" else 0
    assert read_at_least <= shop.READ


def test_another_criterion_is_another_run(shop):
    first = json.loads(run(RECIPE).stdout)["rows"]
    again = json.loads(run(RECIPE).stdout)["rows"]
    assert [row["nbytes"] for row in again] == [row["nbytes"] for row in first]
    assert [row["seconds"] for row in again[1:]] == [row["seconds"] for row in first[1:]]
    other = json.loads(run(RECIPE.replace("mse_loss", "l1_loss")).stdout)["rows"]
    assert other[1]["metric"] != first[1]["metric"]


@pytest.mark.parametrize("batches", ["scalar", "triples"])
def test_batches_that_are_none(shop, batches):
    done = run(RECIPE.replace(":loader", f":{batches}"))
    assert isinstance(done.exception, ConfigError)
    assert "pairs of inputs and labels" in str(done.exception)


@pytest.mark.parametrize("name", ["torch.nn:MSELoss", "regression_shop:HALVED"])
def test_a_criterion_may_be_a_class_or_a_module(shop, name):
    rows = json.loads(run(RECIPE.replace("torch.nn.functional:mse_loss", name)).stdout)["rows"]
    assert rows[0]["metric"] < 4 * rows[1]["metric"] < 0


@pytest.mark.parametrize("name", ["READ", "Scaled"])
def test_what_is_no_criterion(shop, name):
    done = run(RECIPE.replace("torch.nn.functional:mse_loss", f"regression_shop:{name}"))
    assert isinstance(done.exception, ConfigError)
    assert "a function of outputs and labels" in str(done.exception)


@pytest.mark.parametrize("training", ["epochs = 20", 'epochs = 1, teacher = "first"'])
def test_a_criterion_of_several_numbers(shop, training):
    recipe = RECIPE.replace("torch.nn.functional:mse_loss", "regression_shop:one_by_one")
    done = run(recipe.replace("epochs = 20", training))
    assert isinstance(done.exception, ConfigError)
    assert "one number" in str(done.exception)
    assert "(32, 2)" in str(done.exception)


def test_no_such_criterion(shop):
    done = run(RECIPE.replace("mse_loss", "mse_los"))
    assert isinstance(done.exception, ConfigError)
    assert "mse_los" in str(done.exception)


SEARCH = """
[search]
steps = 2
exclude = "^2$"
train = { epochs = 8, rate = 0.01 }
"""


def test_a_search_trains_where_the_recipe_says_so(shop):
    stage = RECIPE[: RECIPE.rindex("[[stage]]")]
    asked = ["--budget", "700B"]
    plain = run(stage + SEARCH[: SEARCH.index("train")], *asked)
    done = run(stage + SEARCH, *asked)
    assert done.exit_code == 0, done.output
    rows, others = json.loads(done.stdout)["rows"], json.loads(plain.stdout)["rows"]
    assert [row["stage"] for row in rows] == ["start", "learn", "search"]
    assert rows[-1]["nbytes"] <= 700
    assert rows[-1]["metric"] > 0.8 * others[-1]["metric"], "mean squares: less is lost"
    assert limosa.torch.load_file("small/model.limosa")["2.weight"].unique().numel() > 40


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('search = "long"', "no search"),
        ('search = { train = "long" }', "no training"),
        ("search = { step = 3 }", "no such setting"),
        ("search = { train = { epoch = 3 } }", "no such setting"),
    ],
)
def test_what_is_no_search(shop, table, message):
    done = run(table + RECIPE)
    assert isinstance(done.exception, ConfigError)
    assert message in str(done.exception)
    assert "search" in str(done.exception)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('export = ["limosa"]', 'export = ["limosa", "tflite"]', "no kinds of files"),
        ('export = ["limosa"]', 'export = "limosa"', "no kinds of files"),
        ("regression_shop:fit", "regression_shop:INPUTS", "no metric"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(shop, old, new, message):
    done = run(RECIPE.replace(old, new))
    assert isinstance(done.exception, ConfigError)
    assert message in str(done.exception)
    assert "learn" not in done.stderr
