"""What a page shows of weights and their differences is right, whatever is in them."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from codec_models import every_dtype
from workshop import mixed, tuned

from limosa.codec.opening import open_base
from limosa.exchange.workshop.statistics import tensor_statistics


def of(model, base=None, **options):
    other = None if base is None else open_base(base)
    return {one.name: one for one in tensor_statistics(open_base(model), other, **options)}


def test_the_figures_of_a_tensor():
    values = mixed()["fc.weight"]
    found = of({"w": values}, bins=10)["w"]
    wide = values.astype("f8")
    assert (found.dtype, found.shape) == ("F32", values.shape)
    assert found.mean == pytest.approx(wide.mean())
    assert found.std == pytest.approx(wide.std())
    assert (found.low, found.high) == (wide.min(), wide.max())
    assert (len(found.edges), len(found.counts)) == (11, 10)
    assert sum(found.counts) == values.size
    inside = (wide >= found.edges[4]) & (wide < found.edges[5])
    assert found.counts[4] == inside.sum()
    assert (found.changed, found.delta_counts, found.delta_std) == (None, None, None)


def test_the_difference_from_a_base():
    old, new = mixed(), tuned(mixed())
    found = of(new, old)
    for name in ("embed", "fc.weight"):
        delta = new[name].astype("f8") - old[name].astype("f8")
        assert found[name].changed == pytest.approx((delta != 0).mean())
        assert found[name].delta_std == pytest.approx(delta.std())
        assert sum(found[name].delta_counts) == delta.size
    assert found["ids"].changed == 0
    assert found["odd"].changed == 0  # NaN is equal to NaN here


def test_a_base_of_other_tensors_is_of_no_use():
    found = of({"w": np.ones((2, 3), "f4")}, {"w": np.ones((3, 2), "f4"), "v": np.ones(2, "f4")})
    assert found["w"].changed is None


def test_zeros_are_counted():
    assert of({"w": np.float32([0, -0.0, 1, 2])})["w"].zeros == 0.5


def test_nan_and_infinities_do_not_hide_the_rest():
    found = of({"w": np.float32([np.nan, np.inf, -np.inf, 1, 3])})["w"]
    assert (found.mean, found.low, found.high) == (2, 1, 3)
    assert sum(found.counts) == 2


@pytest.mark.parametrize(
    "values",
    [
        np.float32([np.nan]),
        np.zeros((0, 5), "f4"),
        np.complex64([1 + 1j]),
        np.zeros(9, "f4"),
        np.float32([1e-45]),
        np.float32([3e38, -3e38]),
        np.float64([1.7e308, -1.7e308]),
        np.float64([5e-324, 0]),
        np.array([2**63], "u8"),
        np.array([True, False]),
    ],
)
def test_odd_tensors_give_figures_that_json_can_hold(values):
    found = of({"w": values}, {"w": values[::-1].copy()})["w"]
    assert found.std is None or found.std >= 0
    json.dumps(asdict(found), allow_nan=False)
    if found.counts:
        assert sum(found.counts) == np.isfinite(np.asarray(values, "f8")).sum()
        assert list(found.edges) == sorted(set(found.edges))


def test_the_difference_has_bins_of_its_own():
    rng = np.random.default_rng(0)
    old = {"w": rng.standard_normal((100, 100))}
    found = of({"w": old["w"] + 1e-6 * rng.standard_normal((100, 100))}, old)["w"]
    assert found.delta_edges[-1] < 1e-5 < 1 < found.edges[-1]
    assert max(found.delta_counts) < 2000


def test_all_tensors_as_one_count_each_by_its_size():
    model = {"long": np.zeros(2**22, "f4"), "short": np.ones(2**20, "f4"), "ids": np.arange(5)}
    found = of(model, {"long": model["long"] + 1, "ids": model["ids"]})[""]
    assert found.mean == pytest.approx(0.2, abs=0.01)
    assert found.changed == pytest.approx(0.8, abs=0.01)
    assert found.nbytes == sum(array.nbytes for array in model.values())


def test_every_dtype_is_listed():
    model = every_dtype()
    found = of(model, model)
    assert list(found) == [*model, ""]
    json.dumps([asdict(one) for one in found.values()], allow_nan=False)
    assert found["float4_e2m1fn"].changed == 0


def test_long_tensors_are_judged_by_a_sample():
    values = np.tile(np.float32([1, 2, 3]), 2**20)
    found = of({"w": values})["w"]
    assert sum(found.counts) < 2**21
    assert found.mean == pytest.approx(2, abs=0.01)
