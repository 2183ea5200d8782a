"""Lossy copies, and how far they are from what they are copies of: measured, not believed."""

from __future__ import annotations

import json
import math

import ml_dtypes
import numpy as np
import pytest
from workshop import LIMITS, mixed, unpacked

import limosa
from limosa import ChecksumError, ConfigError
from limosa.codec.opening import open_base
from limosa.exchange.qualities import parse_quality
from limosa.exchange.workshop.compare import compare
from limosa.exchange.workshop.copies import make_copy
from limosa.hub.store.records import Bound


def copy(tmp_path, model, quality):
    target = unpacked(tmp_path / "target", model)
    return make_copy(target, quality, tmp_path / "blob", tmp_path / "out", limits=LIMITS, threads=1)


@pytest.mark.parametrize(
    "quality", ["size=20%", "bits=4", "snr=30", "step=0.01", "max-error=0.001", "codebook=16"]
)
def test_the_bound_is_what_a_receiver_finds(tmp_path, quality):
    model = mixed(rows=80)
    found = copy(tmp_path, model, quality)
    back = limosa.load((tmp_path / "blob").read_bytes())
    errors = {
        name: model[name].astype("f8") - back[name].astype("f8") for name in ("embed", "fc.weight")
    }
    worst = max(np.abs(error).max() for error in errors.values())
    signal = sum((model[name].astype("f8") ** 2).sum() for name in errors) + 1.5**2
    noise = sum((error**2).sum() for error in errors.values())
    assert found.bound["quality"] == quality
    assert found.bound["max_error"] == pytest.approx(worst)
    assert found.bound["snr"] == pytest.approx(10 * math.log10(signal / noise))
    assert found.manifest.state == open_base(tmp_path / "blob").digest.hex()
    for name in ("ids", "step", "empty", "odd"):
        assert back[name].tobytes() == model[name].tobytes()


def test_a_bound_on_every_error_is_kept(tmp_path):
    assert copy(tmp_path, mixed(), "max-error=0.002").bound["max_error"] <= 0.002


def test_a_copy_has_fewer_bytes(tmp_path):
    model = mixed(rows=80)
    copy(tmp_path, model, "bits=3")
    assert (tmp_path / "blob").stat().st_size < 0.4 * len(limosa.save(model))


def test_complex_numbers_may_lose_something_too(tmp_path):
    rng = np.random.default_rng(0)
    model = {"z": (rng.standard_normal((40, 40)) + 1j * rng.standard_normal((40, 40))).astype("c8")}
    found = copy(tmp_path, model, "step=0.01")
    assert 0 < found.bound["max_error"] <= 0.02
    assert 30 < found.bound["snr"] < 60


@pytest.mark.parametrize("model", [{}, {"ids": np.arange(100)}, {"z": np.zeros((50, 50), "f4")}])
def test_where_nothing_is_lost_there_is_no_copy(tmp_path, model):
    with pytest.raises(ConfigError, match="nothing is lost"):
        copy(tmp_path, model, "step=0.001")


@pytest.mark.parametrize(
    "text", ["", "bits", "bits=", "bits=x", "size=", "snr=30dB", "step=0", "step=-1", "signs=1",
             "codebook=1.5", "max-error=%", "best=1", "bits=4,snr=3", "step=nan", "step=inf"]
)  # fmt: skip
def test_what_is_no_quality_is_refused(text):
    with pytest.raises(ConfigError):
        parse_quality(text)


def test_qualities_as_people_write_them():
    assert parse_quality("size=5%") == limosa.Target(size="5%")
    assert parse_quality(" size=1000 ") == limosa.Target(size=1000)
    assert parse_quality("max-error=2%") == limosa.MaxError(rel=0.02)
    assert parse_quality("signs") == limosa.Signs()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (np.array([1, 2]), np.array([1, 3])),
        (np.float32([1, np.nan]), np.float32([1, 2])),
        (np.float32([1, np.inf]), np.float32([1, -np.inf])),
        (np.float32([1, 2]), np.float64([1, 2])),
        (np.float32([1, 2]), np.float32([[1, 2]])),
    ],
)
def test_no_loss_explains_other_integers_nan_dtypes_or_shapes(old, new):
    with pytest.raises(ChecksumError):
        compare(open_base({"w": old}), open_base({"w": new}))
    with pytest.raises(ChecksumError):
        compare(open_base({"w": old}), open_base({}))


def test_distance_counts_all_float_tensors():
    one = {"a": np.float32([3, 0]), "b": np.array([4, np.nan], ml_dtypes.bfloat16)}
    two = {"a": np.float32([3, 0.5]), "b": one["b"]}
    found = compare(open_base(one), open_base(two))
    assert found.snr == pytest.approx(20)
    assert found.max_error == 0.5


def test_an_infinite_ratio_can_be_written_as_json():
    zeros = compare(open_base({"w": np.float32([0.0])}), open_base({"w": np.float32([-0.0])}))
    assert (zeros.snr, zeros.max_error) == (math.inf, 0.0)
    told = json.dumps(Bound("bits=1", zeros.snr, 0.0).to_json(), allow_nan=False)
    assert json.loads(told)["snr"] is None


def test_huge_numbers_do_not_end_the_measurement():
    huge = np.float64([1e300, -1e300])
    found = compare(open_base({"w": huge}), open_base({"w": huge * 0.5}))
    assert found.max_error == 5e299
    assert found.snr == pytest.approx(10 * math.log10(4))
