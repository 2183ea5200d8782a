"""Updates: against a base, renamed, reshaped, added, removed; and the choice of a base."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
from codec_models import assert_equal, every_dtype, trained, tuned

import limosa
from limosa.codec.base import Base
from limosa.codec.decoder import Reader
from limosa.codec.inspect import inspect
from limosa.codec.joint import choose_base
from limosa.codec.measure import sample
from limosa.errors import BaseMismatchError, ConfigError
from limosa.files import bundle_from_tensors
from limosa.tensors import Tensor


def bundle_of(model):
    return bundle_from_tensors({name: Tensor.from_numpy(array) for name, array in model.items()})


@pytest.mark.parametrize("seed", range(3))
def test_an_update_comes_back_and_is_smaller(seed):
    base = trained(seed)
    new = tuned(base, seed)
    update = limosa.save(new, base=base)
    assert len(update) < 0.7 * len(limosa.save(new))
    assert_equal(limosa.load(update, base=base, verify=True), new)
    assert_equal(limosa.load(io.BytesIO(update), base=base, verify=True), new)


def test_every_dtype_against_itself_and_against_another():
    model, other = every_dtype(0), every_dtype(1)
    same = limosa.save(model, base=model)
    assert len(same) < 2500
    assert_equal(limosa.load(same, base=model, verify=True), model)
    changed = limosa.save(other, base=model)
    assert_equal(limosa.load(changed, base=model, verify=True), other)


def test_changed_shapes_dtypes_added_and_removed_tensors():
    base = trained()
    new = {
        "embed.weight": base["embed.weight"][:500],
        "head.weight": base["head.weight"].astype("f4"),
        "norm.bias": base["norm.bias"] + np.float32(1e-4),
        "extra": np.arange(100, dtype="i4"),
    }
    update = limosa.save(new, base=base)
    assert_equal(limosa.load(update, base=base, verify=True), new)


def test_renamed_tensors_are_recognised():
    base = trained()
    new = {f"module.{name}": array for name, array in base.items()}
    update = limosa.save(new, base=base)
    assert len(update) < 1500
    assert_equal(limosa.load(update, base=base, verify=True), new)
    layout = Reader(update).layout
    assert layout.base_names == tuple(base)


def test_renamed_and_changed_tensors_are_recognised():
    random = np.random.default_rng(0)
    base = {f"layer.{i}.weight": random.standard_normal((100, 100)).astype("f4") for i in range(6)}
    new = {f"blocks.{i}.weight": tuned({"w": base[f"layer.{i}.weight"]}, i)["w"] for i in range(6)}
    update = limosa.save(new, base=base)
    assert Reader(update).layout.base_names == tuple(base)
    assert len(update) < 0.6 * len(limosa.save(new))
    assert_equal(limosa.load(update, base=base, verify=True), new)


def test_swapped_names_are_not_taken_for_renamed():
    base = trained()
    new = {"norm.weight": base["norm.bias"], "norm.bias": base["norm.weight"]}
    update = limosa.save(new, base=base)
    assert_equal(limosa.load(update, base=base, verify=True), new)


def test_tied_tensors_against_a_base():
    base = trained()
    base["tied"] = base["embed.weight"].copy()
    new = {name: array.copy() for name, array in base.items()}
    new["embed.weight"][:100] += np.float32(1e-3)
    new["tied"] = new["embed.weight"].copy()
    update = limosa.save(new, base=base)
    (report,) = inspect(update)
    assert "tensor copy" in report.tensors[-1].modes
    for source in (update, io.BytesIO(update)):
        assert_equal(limosa.load(source, base=base, verify=True), new)
    with limosa.open_file(update, base=base) as file:
        assert np.array_equal(file.get_slice("tied")[99:101], new["tied"][99:101])


def test_another_base_is_refused():
    base = trained()
    update = limosa.save(tuned(base), base=base)
    with pytest.raises(BaseMismatchError, match="not the base"):
        limosa.load(update, base=tuned(base))
    with pytest.raises(BaseMismatchError, match="needs its base"):
        limosa.load(update)


def test_the_digest_of_a_base_does_not_depend_on_order():
    base = trained()
    update = limosa.save(tuned(base), base=base)
    turned = dict(reversed(base.items()))
    assert_equal(limosa.load(update, base=turned), tuned(base))


def test_a_coded_file_is_a_base(tmp_path):
    first, second = trained(), tuned(trained())
    path = tmp_path / "first.limosa"
    limosa.save_file(first, path)
    update = limosa.save(second, base=path)
    assert update == limosa.save(second, base=first)
    assert_equal(limosa.load(update, base=path, verify=True), second)


def test_a_reader_is_a_base_for_a_chain():
    versions = [trained()]
    for seed in range(3):
        versions.append(tuned(versions[-1], seed))
    reader = Reader(limosa.save(versions[0]))
    for before, after in pairwise(versions):
        reader = Reader(limosa.save(after, base=before), base=reader.as_base(), verify=True)
    found = {name: reader.get(name).numpy() for name in versions[-1]}
    assert_equal(found, versions[-1])


def test_the_cheapest_base_is_chosen():
    model = trained()
    near, far = tuned(model, 1, share=0.05), tuned(tuned(model, 2, share=0.9), 3, share=0.9)
    bases = [Base.from_bundle(bundle_of(base)) for base in (trained(9), far, near)]
    choice = choose_base(bundle_of(model), bases)
    assert choice.number == 2
    unrelated, far_bytes, near_bytes = choice.sampled
    assert near_bytes < far_bytes < unrelated <= choice.intra < choice.raw


def test_the_sample_tells_the_order_of_whole_updates():
    model = trained()
    shares = (0.8, 0.02, 0.3)
    bases = [tuned(model, 5, share=share) for share in shares]
    choice = choose_base(bundle_of(model), [Base.from_bundle(bundle_of(base)) for base in bases])
    whole = [len(limosa.save(model, base=base)) for base in bases]
    assert np.argsort(choice.sampled).tolist() == np.argsort(whole).tolist()


def test_choosing_needs_a_base():
    with pytest.raises(ConfigError):
        choose_base(bundle_of(trained()), [])


def test_a_sample_spreads_over_the_bytes():
    slices = sample(bundle_of(trained(rows=4000)))
    by_name = {piece.spec.name for piece in slices}
    assert {"embed.weight", "head.weight"} <= by_name
    assert sample(bundle_of({})) == []


@pytest.mark.parametrize("bad", [3, [1], object()])
def test_what_is_no_base(bad):
    with pytest.raises(ConfigError, match="as a base"):
        limosa.save({}, base=bad)
