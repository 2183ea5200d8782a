"""Recipes: stages that are measured, kept and gone on with, in Python and from a file."""

import copy
import json
from functools import partial

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

import limosa
from limosa.cli.main import group
from limosa.errors import ConfigError
from limosa.torch import optimize
from limosa.torch.optimize.export import export
from limosa.torch.optimize.recipe import Recipe, Stage, Training

SHOP = """
import torch
from torch import nn
from torch.nn import functional

torch.manual_seed(0)
INPUTS = torch.randn(512, 20)
LABELS = (INPUTS @ torch.randn(20, 3)).argmax(1)


def network():
    torch.manual_seed(1)
    layers = [nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)]
    return nn.Sequential(*layers)


def batches():
    return [(INPUTS[i : i + 64], LABELS[i : i + 64]) for i in range(0, 384, 64)]


def accuracy(model):
    with torch.no_grad():
        return float((model(INPUTS[384:]).argmax(1) == LABELS[384:]).float().mean()) * 100
"""
RECIPE = """
model = "optimize_shop:network"
weights = "trained.safetensors"
train = "optimize_shop:batches"
metric = "optimize_shop:accuracy"
export = ["safetensors", "limosa", "pt2", "onnx"]

[[stage]]
do = "prune"
sparsity = 0.7
train = { epochs = 4, rate = 0.003, teacher = "first" }

[[stage]]
name = "4 bits"
do = "round"
bits = 4
train = { epochs = 3, rate = 0.001 }
"""


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A folder with a module, trained weights and a recipe."""
    (tmp_path / "optimize_shop.py").write_text(SHOP, encoding="utf-8")
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import importlib
    import sys

    sys.modules.pop("optimize_shop", None)
    module = importlib.import_module("optimize_shop")
    model = module.network()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(30):
        for inputs, labels in module.batches():
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
    from safetensors.torch import save_file

    save_file(model.state_dict(), tmp_path / "trained.safetensors")
    yield tmp_path, module, model
    sys.modules.pop("optimize_shop", None)


def test_a_recipe_runs_from_end_to_end(shop):
    folder, module, model = shop
    run = CliRunner().invoke(group, ["optimize", "recipe.toml", "-o", "small", "--json", "--plot"])
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)
    rows = found["rows"]
    assert [row["stage"] for row in rows] == ["start", "prune", "4 bits"]
    assert rows[0]["metric"] == pytest.approx(module.accuracy(model))
    assert rows[1]["nonzeros"] < 0.35 * rows[0]["nonzeros"]
    assert rows[2]["nonzeros"] <= rows[1]["nonzeros"]
    assert rows[2]["nbytes"] < rows[1]["nbytes"] < rows[0]["nbytes"]
    assert rows[2]["nbytes"] < rows[0]["raw_nbytes"] / 8
    assert rows[2]["metric"] > rows[0]["metric"] - 5
    assert all(row["receiver_needs"] == "" for row in rows)
    # What came out loads in plain torch, and computes what the table says.
    plain = module.network()
    plain.load_state_dict(load_file(folder / "small" / "model.safetensors"))
    assert module.accuracy(plain) == pytest.approx(rows[2]["metric"])
    decoded = limosa.torch.load_file(folder / "small" / "model.limosa")
    assert all(torch.equal(decoded[name], value) for name, value in plain.state_dict().items())
    kinds = {one["kind"]: one for one in found["files"]}
    assert set(kinds) == {"safetensors", "limosa", "pt2", "onnx"}
    assert kinds["onnx"]["difference"] < 1e-4
    assert (folder / "small" / "stages.png").stat().st_size > 1000
    text = (folder / "small" / "stages.csv").read_text(encoding="utf-8")
    assert len(text.splitlines()) == 4


def test_the_table_for_people(shop):
    run = CliRunner().invoke(group, ["optimize", "recipe.toml", "-o", "small"])
    assert run.exit_code == 0, run.output
    assert "4 bits" in run.stdout
    assert "needs no more than before" in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 110


@pytest.mark.parametrize(("option", "value"), [("--budget", "4KB"), ("--max-drop", "1")])
def test_a_search_behind_the_stages(shop, option, value):
    folder, _, _ = shop
    path = folder / "recipe.toml"
    path.write_text(path.read_text(encoding="utf-8").partition("[[stage]]")[0], encoding="utf-8")
    run = CliRunner().invoke(group, ["optimize", "recipe.toml", "-o", "s", "--json", option, value])
    assert run.exit_code == 0, run.output
    start, found = json.loads(run.stdout)["rows"]
    assert found["stage"] == "search"
    assert (folder / "s" / "model.limosa").stat().st_size == found["nbytes"]
    if option == "--budget":
        assert 0.95 * 4000 <= found["nbytes"] <= 4096
    else:
        assert start["metric"] - found["metric"] <= 1
        assert found["nbytes"] < start["nbytes"] / 4
    run = CliRunner().invoke(
        group, ["optimize", "recipe.toml", "-o", "s", "--budget", "4KB", "--max-drop", "1"]
    )
    assert run.exit_code != 0


STAGES = """
[[stage]]
do = "distil"
width = 0.75
train = { epochs = 2, rate = 0.003, teacher = "first", soft = 1.0, hard = 0.0 }

[[stage]]
do = "prune-gradually"
sparsity = 0.5
scope = "layer"
steps = 2
train = { epochs = 1 }

[[stage]]
do = "low-rank"
budget = 0.9
cost = "flops"

[[stage]]
do = "round-calibrated"
bits = 4

[[stage]]
name = "sent"
do = "encode"
effort = 9
"""


def test_every_kind_of_stage_can_be_written(shop):
    folder, _, _ = shop
    path = folder / "recipe.toml"
    head = path.read_text(encoding="utf-8").partition("[[stage]]")[0]
    path.write_text(head.replace(', "pt2", "onnx"', "") + STAGES, encoding="utf-8")
    run = CliRunner().invoke(group, ["optimize", "recipe.toml", "-o", "small", "--json"])
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)
    rows = {row["stage"]: row for row in found["rows"]}
    assert list(rows) == [
        "start", "distil", "prune-gradually", "low-rank", "round-calibrated", "sent",
    ]  # fmt: skip
    files = {one["kind"]: one for one in found["files"]}
    assert files["limosa"]["nbytes"] == rows["sent"]["nbytes"] < rows["round-calibrated"]["nbytes"]
    decoded = limosa.torch.load_file(folder / "small" / "model.limosa")
    plain = load_file(folder / "small" / "model.safetensors")
    assert decoded.keys() == plain.keys()
    assert all(torch.equal(decoded[name], one) for name, one in plain.items())


@pytest.mark.parametrize(
    ("stage", "text"),
    [
        ('do = "distil"\nmodel = "optimize_shop:batches"', "no torch module"),
        ('do = "distil"', "one of width and model"),
        ('do = "encode"\nquality = "best"', "no quality"),
        ('do = "prune-gradually"\nstep = 3', "no such setting"),
        ('do = "round-calibrated"\nbits = 3\ninputs_of = "x"', "no such setting"),
        ('do = "fold-norms"', "no layer can be changed"),
        ('do = "prune-heads"', "no layer can be changed"),
        ('do = "integer-kernels"\nactivations = "int4"', "activations: no such choice"),
    ],
)
def test_stages_that_make_no_sense(shop, stage, text):
    folder, _, _ = shop
    path = folder / "recipe.toml"
    head = path.read_text(encoding="utf-8").partition("[[stage]]")[0]
    path.write_text(f"{head}[[stage]]\n{stage}\n", encoding="utf-8")
    run = CliRunner().invoke(group, ["optimize", "recipe.toml", "-o", "small"])
    assert isinstance(run.exception, ConfigError), run.output
    assert text in str(run.exception)


def context(model):
    return optimize.Context(torch.zeros(1, 20))


def test_an_interrupted_run_goes_on(shop, tmp_path):
    _, module, model = shop
    calls = []

    class Counted:
        def __init__(self, name, fails=False):
            self.name, self.fails = name, fails

        def __repr__(self):
            return self.name

        def apply(self, model, context):
            calls.append(self.name)
            if self.fails:
                raise KeyboardInterrupt
            return optimize.MagnitudePruning(0.5).apply(model, context)

    def recipe(fails):
        return Recipe([Stage("one", Counted("one")), Stage("two", Counted("two", fails))])

    place = tmp_path / "stages"
    with pytest.raises(KeyboardInterrupt):
        recipe(True).run(model, context(model), folder=place)
    again = recipe(False)
    again.run(model, context(model), folder=place)
    assert calls == ["one", "two", "two"]
    assert [row.stage for row in again.rows] == ["start", "one", "two"]
    # Another model, or another seed, is another run.
    other = recipe(False)
    other.run(module.network(), context(model), folder=place)
    assert calls[3:] == ["one", "two"]


def test_what_training_heeds_is_another_run(shop, tmp_path):
    _, module, model = shop

    def run(net=model, criterion=None):
        recipe = Recipe([Stage("learn", None, Training(1, 1e-2))])
        recipe.criterion = criterion or nn.CrossEntropyLoss()
        left = recipe.run(net, context(net), batches=module.batches(), folder=tmp_path / "stages")
        return left.state_dict()["0.weight"]

    first = run()
    assert torch.equal(run(), first)
    assert not torch.equal(run(criterion=nn.CrossEntropyLoss(label_smoothing=0.5)), first)
    assert not torch.equal(
        run(criterion=partial(functional.cross_entropy, label_smoothing=0.3)), first
    )
    frozen = copy.deepcopy(model)
    frozen[0].requires_grad_(False)
    assert torch.equal(run(frozen), model[0].weight)
    with pytest.raises(ConfigError, match="cannot be told"):
        run(criterion=lambda outputs, labels: functional.cross_entropy(outputs, labels))


def test_the_same_recipe_gives_the_same_bits(shop):
    _, module, model = shop

    def run():
        recipe = Recipe(
            [
                Stage("prune", optimize.MagnitudePruning(0.5), Training(1)),
                Stage("train", None, Training(1)),
            ]
        )
        return recipe.run(model, context(model), batches=module.batches()).state_dict()

    one, two = run(), run()
    assert all(torch.equal(one[name], two[name]) for name in one)
    zeros = one["2.weight"] == 0
    assert zeros.float().mean() > 0.3, "the zeros of a stage stay in those behind it"


def test_bars_by_epochs_where_somebody_sees_them(monkeypatch):
    import io
    import sys

    from limosa.cli.optimize import epochs_bar

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with epochs_bar() as progress:
        for told in (("prune", 0, 2), ("prune", 1, 2), ("prune", 2, 2), ("encode", 0, 0)):
            progress(*told)
    shown = sys.stderr.getvalue()
    assert "prune" in shown
    assert "2/2" in shown
    assert "encode" in shown
    assert "1/1" in shown
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with epochs_bar() as progress:
        progress("prune", 0, 2)
        progress("prune", 1, 2)
    assert sys.stderr.getvalue() == "prune …\n"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("sparsity = 0.7", "sparsty = 0.7"), "sparsty"),
        (("sparsity = 0.7", "sparsity = 7"), "share"),
        (('do = "prune"', 'do = "shrink"'), "shrink"),
        (('"optimize_shop:network"', '"optimize_shop:nothing"'), "nothing"),
        (("trained.safetensors", "absent.safetensors"), "absent"),
        (("metric = ", "metrik = "), "metrik"),
        (("epochs = 4", "epoch = 4"), "epoch"),
        (("[[stage]]", "[[stage"), "recipe"),
        (('teacher = "first"', 'teacher = "last"'), "teacher"),
        (("model =", "modell ="), "modell"),
    ],
)
def test_a_recipe_that_makes_no_sense_says_where(shop, change, text):
    folder, _, _ = shop
    path = folder / "recipe.toml"
    path.write_text(path.read_text(encoding="utf-8").replace(*change), encoding="utf-8")
    run = CliRunner().invoke(group, ["optimize", "recipe.toml", "-o", "small"])
    assert isinstance(run.exception, ConfigError), run.output
    assert text in str(run.exception)


def test_files_that_compute_something_else_are_refused(shop, tmp_path):
    _, _, model = shop
    (done,) = export(model, tmp_path / "a", ["onnx"], context(model))
    assert done.difference < 1e-5
    with pytest.raises(ConfigError, match="something else"):
        export(model, tmp_path / "b", ["onnx"], optimize.Context(torch.randn(4, 20)), tolerance=-1)
    with pytest.raises(ConfigError, match="no kind"):
        export(model, tmp_path / "c", ["tflite"], context(model))
    with pytest.raises(ConfigError, match="example"):
        export(model, tmp_path / "d", ["pt2"], optimize.Context())


def test_a_model_that_cannot_be_exported_says_so(tmp_path):
    class Odd(nn.Module):
        def forward(self, x):
            return x if np.random.default_rng().random() > float(x.sum()) else -x

    with pytest.raises(ConfigError, match="cannot be exported"):
        export(Odd(), tmp_path, ["pt2"], optimize.Context(torch.ones(2)))
