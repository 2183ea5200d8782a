"""The base that makes a family smallest, as the first paper clusters models; in real bytes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from workshop import LIMITS, unpacked

from limosa import ConfigError
from limosa.exchange.workshop.cluster import AVERAGE, ClusterReport, average, choose
from limosa.exchange.workshop.make import make_edge
from limosa.exchange.workshop.unpacked import base_of, open_unpacked


def family(count: int, noise: float, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Models that are one random model, each with noise of its own."""
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((120, 100)) * 0.05
    return {
        f"m{number}": {
            "w": (centre + noise * rng.standard_normal(centre.shape)).astype("f4"),
            "step": np.array(number),
        }
        for number in range(count)
    }


def folders(tmp_path, models):
    return {name: unpacked(tmp_path / name, model) for name, model in models.items()}


def measure(tmp_path, models, **options) -> ClusterReport:
    options = {"average_path": tmp_path / "average", **options}
    return choose(folders(tmp_path, models), limits=LIMITS, threads=1, **options)


def size(base, target) -> int:
    parts: list[bytes] = []
    make_edge(base_of(base, LIMITS, 1), target, parts.append, limits=LIMITS, threads=1)
    return sum(map(len, parts))


def test_all_that_is_reported_is_what_encoding_takes(tmp_path):
    found = measure(tmp_path, family(3, 1e-5))
    for name in found.whole:
        assert found.whole[name] == size(None, tmp_path / name)
        assert found.against_average[name] == size(tmp_path / "average", tmp_path / name)
        for other in found.whole:
            if other != name:
                assert found.against[other][name] == size(tmp_path / other, tmp_path / name)
    assert found.average_whole == size(None, tmp_path / "average")
    assert found.alone == sum(found.whole.values())
    stars = {name: found.star(name) for name in found.whole}
    assert stars["m0"] == found.whole["m0"] + found.against["m0"]["m1"] + found.against["m0"]["m2"]
    assert stars[found.medoid] == min(stars.values())
    assert found.tree_bytes <= min(found.alone, *stars.values())


def test_what_came_from_one_training_is_smaller_together(tmp_path):
    found = measure(tmp_path, family(6, 1e-5))
    assert found.best in ("tree", AVERAGE)
    assert found.star(AVERAGE) < 0.8 * found.alone
    assert sum(base is None for base in found.tree.values()) == 1


def test_the_average_of_many_is_nearer_to_each_than_any_member(tmp_path):
    """By half the variance: so at some count it pays to send one model more."""
    found = measure(tmp_path, family(9, 1e-4))
    nearest = {
        name: min(row[name] for base, row in found.against.items() if base != name)
        for name in found.whole
    }
    assert all(found.against_average[name] < nearest[name] for name in found.whole)


def test_strangers_are_best_alone_or_no_worse_than_alone(tmp_path):
    models = {f"m{n}": family(1, 0.0, seed=n)["m0"] for n in range(3)}
    found = measure(tmp_path, models)
    assert found.tree_bytes <= found.alone < found.star(AVERAGE)
    assert found.best in ("alone", "tree")


def test_a_chain_is_a_tree_and_no_star(tmp_path):
    rng = np.random.default_rng(0)
    weights, models = rng.standard_normal((100, 100)).astype("f4"), {}
    for number in range(5):
        weights = weights.copy()
        weights[number * 20 : number * 20 + 20] += 1
        models[f"m{number}"] = {"w": weights}
    found = measure(tmp_path, models)
    assert found.best == "tree"
    for one, two in zip(list(models)[:-1], list(models)[1:], strict=True):
        assert found.tree[two] == one or found.tree[one] == two


def test_fewer_than_two_are_no_family(tmp_path):
    with pytest.raises(ConfigError):
        measure(tmp_path, family(1, 0))


def test_members_may_have_nothing_in_common(tmp_path):
    models = {"a": {"w": np.arange(3)}, "b": {"v": np.ones((2, 2), "f4")}, "c": {}}
    found = measure(tmp_path, models)
    assert found.average_whole is None
    assert found.against_average == {}
    assert found.best in ("alone", "tree")


def test_progress_names_each_member(tmp_path):
    said: list[str] = []
    measure(tmp_path, family(2, 0), progress=said.append)
    assert said == ["m0", "m1"]


def test_the_average_is_the_mean_of_what_all_have(tmp_path):
    rng = np.random.default_rng(0)
    models = [
        {
            "w": rng.standard_normal((4, 5)).astype("f4"),
            "low": rng.standard_normal(7).astype(ml_dtypes.bfloat16),
            "ids": np.arange(number, number + 3),
            f"own{number}": np.ones(2, "f4"),
            "shape": np.ones((number + 1, 2), "f4"),
        }
        for number in range(3)
    ]
    paths = [unpacked(tmp_path / str(n), model) for n, model in enumerate(models)]
    assert average(paths, tmp_path / "out", LIMITS)
    with open_unpacked(tmp_path / "out", LIMITS) as bundle, open_unpacked(paths[0], LIMITS) as one:
        assert bundle.specs == one.specs
        assert bundle.sources == one.sources
        back = {spec.name: bundle.get(spec.name).numpy() for spec in bundle.specs}
    for name in ("w", "low"):
        mean = np.mean([model[name].astype("f8") for model in models], axis=0)
        assert np.array_equal(back[name], mean.astype(models[0][name].dtype))
    for name in ("ids", "own0", "shape"):
        assert np.array_equal(back[name], models[0][name])


def test_the_average_lives_with_nan_and_infinities(tmp_path):
    models = [{"w": np.float32([1, np.nan, np.inf, np.inf, 3e38])} for _ in range(2)]
    models[1]["w"][3] = -np.inf
    paths = [unpacked(tmp_path / str(n), model) for n, model in enumerate(models)]
    assert average(paths, tmp_path / "out", LIMITS)
    with open_unpacked(tmp_path / "out", LIMITS) as bundle:
        found = bundle.get("w").numpy()
    assert found[0] == 1
    assert np.isnan(found[[1, 3]]).all()
    assert found[2] == np.inf
    assert found[4] == np.float32(3e38)
