"""Refinements of any records: limosa and the slow decoder agree, also on damaged ones."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refinements import NUMBER, SEED, arrays, base_of, body_of, changes, sealed

import limosa
from limosa.codec.refinement.read import read_refinement
from limosa.codec.refinement.records import Change, Difference, Levels
from limosa.codec.refinement.write import packed_size, write_refinement
from limosa.errors import FormatError, TruncatedError

PATH = Path(__file__).parents[2] / "reference" / "limosa_reference.py"
spec = importlib.util.spec_from_file_location("limosa_reference", PATH)
reference = importlib.util.module_from_spec(spec)
sys.modules["limosa_reference"] = reference
spec.loader.exec_module(reference)

BASE = base_of()
SLOW_BASE = reference.decode(limosa.save(arrays()))


def by_limosa(data: bytes) -> dict[str, bytes]:
    return {s.name: d.tobytes() for s, d in read_refinement(data, base=BASE, threads=1)}


def by_reference(data: bytes) -> dict[str, bytes]:
    return {t.name: t.data for t in reference.decode_refinement(data, SLOW_BASE).tensors}


@given(changes())
@settings(max_examples=60)
def test_both_decoders_rebuild_what_was_written(made):
    written = write_refinement(BASE, made, seed=SEED, threads=1)
    assert by_limosa(written.data) == by_reference(written.data)
    # Digests deflate by a byte more or less, and by half where nothing changes.
    assert -3 <= packed_size(BASE, made, seed=SEED) - len(written.data) <= 35


@given(changes(), st.data())
@settings(max_examples=60)
def test_damage_is_found_by_both_or_does_not_matter(made, data):
    good = write_refinement(BASE, made, seed=SEED, threads=1).data
    body = bytearray(body_of(good))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(st.integers(0, 255))
    bad = sealed(good, bytes(body))
    # What nobody reads, such as a seed that nothing draws on, may change; the digest sees to it
    # that nothing else does.
    fast = slow = None
    with suppress(FormatError, limosa.BaseMismatchError):
        fast = by_limosa(bad)
    with suppress(reference.ReferenceError):
        slow = by_reference(bad)
    assert fast == slow
    assert fast in (None, by_limosa(good))


@given(changes())
@settings(max_examples=20)
def test_every_prefix_is_truncated(made):
    good = write_refinement(BASE, made, seed=SEED, threads=1).data
    for size in {*range(0, len(good), 7), len(good) - 1}:
        with pytest.raises(TruncatedError):
            by_limosa(good[:size])
        body = body_of(good)[: max(0, size - 17)]
        with pytest.raises((FormatError, limosa.BaseMismatchError)):
            by_limosa(sealed(good, body))


def test_a_wrong_digest_is_found_and_nothing_is_taken():
    moved = Levels(np.array([3, -1, 4, 1, -5], np.int32), 0.5)
    change = Change(NUMBER["mean"], Difference(), (moved,))
    written = write_refinement(BASE, [change], threads=1)
    digest = written.refinement.digest
    body = body_of(written.data).replace(digest, digest[::-1])
    out = {"mean": np.zeros(5, "f4")}
    with pytest.raises(limosa.ChecksumError):
        limosa.load(sealed(written.data, body), base=arrays(), out=out)
    assert not out["mean"].any()
