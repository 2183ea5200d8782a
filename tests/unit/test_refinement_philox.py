"""Philox4x32-10 against the vectors that its authors publish (Random123, kat_vectors)."""

import numpy as np
import pytest

from limosa.codec.refinement.philox import mask, philox, signs, words

VECTORS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def numbers(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "expected"), VECTORS)
def test_published_vectors(counter: str, key: str, expected: str):
    counters = np.array([numbers(counter)], np.uint32)
    low, high = numbers(key)
    assert philox(counters, (low, high))[0].tolist() == numbers(expected)


def test_a_shorter_request_is_the_beginning_of_a_longer_one():
    assert words(7, (1, 2), 9).tolist() == words(7, (1, 2), 40)[:9].tolist()


def test_streams_and_seeds_differ():
    places = [(7, (1, 2)), (7, (2, 1)), (8, (1, 2)), (2**40, (1, 2))]
    assert len({words(seed, stream, 8).tobytes() for seed, stream in places}) == 4


def test_signs_and_masks_have_their_shares():
    assert abs(signs(3, (0, 0), 10_000).mean()) < 0.05
    assert abs(mask(3, (0, 0), 10_000, 2**30).mean() - 0.25) < 0.02
    assert mask(3, (0, 0), 10, 2**32).all()
    assert not mask(3, (0, 0), 10, 0).any()
