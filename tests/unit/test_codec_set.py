"""Several models in one file: the cheapest tree, each of them readable by itself."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from codec_models import assert_equal, trained, tuned

import limosa
from limosa import Digits
from limosa.codec.arborescence import cheapest_tree
from limosa.codec.inspect import inspect
from limosa.codec.joint import encode_set
from limosa.codec.set_reader import SetReader
from limosa.errors import BaseMismatchError, ConfigError, FormatError, LimosaError
from limosa.files import bundle_from_tensors
from limosa.tensors import Tensor


def bundle_of(model):
    return bundle_from_tensors({name: Tensor.from_numpy(array) for name, array in model.items()})


def family():
    first = trained(rows=300)
    second = tuned(first, 1, share=0.1)
    third = tuned(second, 2, share=0.1)
    return {"third": third, "first": first, "second": second, "stranger": trained(7, rows=300)}


def coded(models, **options):
    parts = []
    result = encode_set({n: bundle_of(m) for n, m in models.items()}, parts.append, **options)
    return b"".join(parts), result


def cost(parents, intra, against):
    return sum(
        intra[j] if parent is None else against[parent][j] for j, parent in enumerate(parents)
    )


def is_tree(parents):
    for start in range(len(parents)):
        seen = set()
        node = start
        while node is not None:
            if node in seen:
                return False
            seen.add(node)
            node = parents[node]
    return True


def test_the_tree_is_the_cheapest_of_all():
    chance = random.Random(0)
    for _ in range(300):
        count = chance.randint(1, 4)
        intra = [chance.randint(1, 20) for _ in range(count)]
        against = [[chance.randint(0, 20) for _ in range(count)] for _ in range(count)]
        found = cheapest_tree(intra, against)
        trees = filter(is_tree, itertools.product([None, *range(count)], repeat=count))
        assert is_tree(found)
        assert cost(found, intra, against) == min(cost(t, intra, against) for t in trees)


def test_each_model_comes_back():
    models = family()
    data, result = coded(models)
    together = SetReader(data)
    assert sorted(together.names) == sorted(models)
    for name, model in models.items():
        reader = together.open(name, verify=True)
        assert_equal({n: reader.get(n).numpy() for n in model}, model)
        assert reader.verify() == result.digests[name]


def test_the_tree_follows_the_family():
    models = family()
    data, result = coded(models)
    assert result.bases["stranger"] is None
    chain = {frozenset((name, base)) for name, base in result.bases.items() if base}
    assert chain == {frozenset(("first", "second")), frozenset(("second", "third"))}
    alone = sum(len(limosa.save(model)) for model in models.values())
    assert len(data) < 0.7 * alone
    assert result.bytes_out == len(data)


def test_order_and_threads_do_not_change_the_bytes():
    models = family()
    assert coded(models, threads=1)[0] == coded(models, threads=2)[0]


def test_a_lossy_set_is_coded_against_what_was_decoded():
    models = family()
    data, result = coded(models, quality=Digits(3))
    together = SetReader(data)
    for name, model in models.items():
        reader = together.open(name)
        assert reader.verify() == result.digests[name]
        found = reader.get("embed.weight").numpy()
        assert np.abs(found - model["embed.weight"]).max() < 1.01e-3


def test_a_base_that_the_caller_has_is_not_decoded_again():
    models = family()
    together = SetReader(coded(models)[0])
    name = next(n for n in together.names if together.base_of(n))
    from limosa.codec.opening import open_base

    held = open_base(models[together.base_of(name)])
    reader = together.open(name, base=held, verify=True)
    assert_equal(limosa.load(limosa.save(models[name])), models[name])
    assert reader.verify()
    with pytest.raises(BaseMismatchError):
        together.open(name, base=open_base(models["stranger"]))


def test_inspect_reports_every_model():
    data, result = coded(family())
    reports = inspect(data)
    assert {report.model: report.base_model for report in reports} == result.bases
    for report in reports:
        parts = report.header_bytes + report.frame_bytes + report.index_bytes
        assert parts == report.nbytes


def test_no_such_model():
    together = SetReader(coded(family())[0])
    with pytest.raises(ConfigError, match="no such model"):
        together.open("fourth")


def test_no_models():
    with pytest.raises(ConfigError):
        coded({})


def test_every_prefix_and_every_flipped_bit_of_the_tables_is_refused():
    models = {"a": {"w": np.arange(30, dtype="f4")}, "b": {"w": np.arange(30, dtype="f4") + 1}}
    data, _ = coded(models)

    def verify_all(broken):
        together = SetReader(broken)
        for name in together.names:
            together.open(name).verify()

    verify_all(data)
    for size in range(len(data)):
        with pytest.raises(FormatError):
            verify_all(data[:size])
    for bit in range(8 * len(data)):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises((FormatError, BaseMismatchError)):
            verify_all(bytes(broken))


@pytest.mark.parametrize("name", ["", "../up", "/root", "a/../b", "a\\b", "c:d"])
def test_names_that_leave_the_folder_are_refused(name):
    data, _ = coded({"safe": {"w": np.ones(3, "f4")}})
    from limosa.codec.inputs import Memory, sequential
    from limosa.codec.set_table import Member, read_set_header, write_set_header
    from limosa.limits import Limits

    header = write_set_header([Member(name, None)])
    with pytest.raises(LimosaError):
        read_set_header(sequential(Memory(header), 0, len(header), "table"), Limits())
    assert SetReader(data).names == ("safe",)
