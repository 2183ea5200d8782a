"""The extension module: what it refuses, what its errors say, and that threads change nothing."""

from __future__ import annotations

import numpy as np
import pytest

from limosa import _core

F32, BF16, I16, U8 = 1, 3, 10, 15
CHUNK = 262_144
HEAD = 8


def weights(n: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(0, 0.02, n).astype(np.float32)
    return values.view(np.uint8)


def encode(datas, dtypes, bases=None, digits=-1, threads=1):
    bases = bases or [None] * len(datas)
    out = _core.OutputBuffer()
    lengths = _core.encode_tensors(datas, bases, dtypes, digits=digits, threads=threads, out=out)
    return np.frombuffer(out.take(), np.uint8).copy(), lengths


def decode(frames, lengths, sizes, dtypes, bases=None, copies=None, digits=-1, threads=1):
    none = [None] * len(sizes)
    outs = [np.full(size, 0xCC, np.uint8) for size in sizes]
    _core.decode_tensors(
        frames, lengths, outs, bases or none, dtypes, copies or none, digits=digits, threads=threads
    )
    return outs


@pytest.fixture
def many() -> tuple[list[np.ndarray], list[int]]:
    datas = [weights(1000), weights(CHUNK + 5, 1), np.arange(77, dtype=np.uint8), weights(3, 2)]
    datas.append(np.zeros(0, np.uint8))
    return datas, [F32, F32, U8, BF16, F32]


def test_tensors_come_back(many):
    datas, dtypes = many
    frames, lengths = encode(datas, dtypes)
    assert len(lengths) == 1 + 2 + 1 + 1 + 0
    assert len(frames) == int(lengths.sum()) + HEAD * len(lengths)
    for out, data in zip(decode(frames, lengths, map_sizes(datas), dtypes), datas, strict=True):
        np.testing.assert_array_equal(out, data)


def map_sizes(datas: list[np.ndarray]) -> list[int]:
    return [data.size for data in datas]


def test_bytes_do_not_depend_on_the_threads(many):
    datas, dtypes = many
    frames, lengths = encode(datas, dtypes)
    for threads in (2, 5):
        other, other_lengths = encode(datas, dtypes, threads=threads)
        np.testing.assert_array_equal(frames, other)
        np.testing.assert_array_equal(lengths, other_lengths)
        outs = decode(frames, lengths, map_sizes(datas), dtypes, threads=threads)
        for out, data in zip(outs, datas, strict=True):
            np.testing.assert_array_equal(out, data)


def test_bytes_do_not_depend_on_the_instruction_set(many):
    datas, dtypes = many
    bases = [data.copy() for data in datas]
    for base in bases:
        base[::7] ^= 1
    before = _core.simd()
    assert before in _core.simd_paths()
    results = []
    try:
        for name in _core.simd_paths():
            _core.set_simd(name)
            assert _core.simd() == name
            results.append([a.tobytes() for a in encode(datas, dtypes, bases)])
    finally:
        _core.set_simd(before)
    assert all(result == results[0] for result in results)
    with pytest.raises(ValueError, match="instruction set"):
        _core.set_simd("abacus")


def test_base_and_digits():
    data, base = weights(5000), weights(5000, 1)
    frames, lengths = encode([data], [F32], [base])
    (out,) = decode(frames, lengths, [data.size], [F32], [base])
    np.testing.assert_array_equal(out, data)
    frames, lengths = encode([data], [F32], [base], digits=3)
    (out,) = decode(frames, lengths, [data.size], [F32], [base], digits=3)
    assert np.abs(out.view(np.float32) - data.view(np.float32)).max() < 1.0001e-3


def test_copy_of_an_earlier_tensor():
    data = weights(100)
    payload = bytes([2, 0, 7])
    frame = len(payload).to_bytes(4, "little") + _core.crc32c(payload).to_bytes(4, "little")
    frames, lengths = frame + payload, np.array([3], np.uint32)
    (out,) = decode(frames, lengths, [data.size], [F32], copies=[data])
    np.testing.assert_array_equal(out, data)
    with pytest.raises(_core.CoreError) as error:
        decode(frames, lengths, [data.size], [F32])
    assert error.value.args[0] == "corrupt"


def test_inspect_counts_every_unit_and_byte(many):
    datas, dtypes = many
    frames, lengths = encode(datas, dtypes)
    none, outs = [None] * len(datas), [np.empty_like(data) for data in datas]
    chunks = _core.inspect_tensors(frames, lengths, outs, none, dtypes, none, digits=-1)
    assert [sum(size for _, _, size in blocks) for blocks in chunks] == lengths.tolist()
    assert sum(units for blocks in chunks for _, units, _ in blocks) == 1000 + CHUNK + 5 + 77 + 6


@pytest.mark.parametrize("chunk", range(5))
def test_a_flipped_bit_names_its_chunk(many, chunk):
    datas, dtypes = many
    frames, lengths = encode(datas, dtypes)
    at = HEAD * (chunk + 1) + int(lengths[:chunk].sum())
    frames[at] ^= 4
    with pytest.raises(_core.CoreError) as error:
        decode(frames, lengths, map_sizes(datas), dtypes, threads=3)
    kind, tensor, index, byte, _ = error.value.args
    assert (kind, tensor, index) == ("checksum", [0, 1, 1, 2, 3][chunk], int(chunk == 2))
    assert byte == at


def test_lengths_that_differ_from_the_frames(many):
    datas, dtypes = many
    frames, lengths = encode(datas, dtypes)
    sizes = map_sizes(datas)
    wrong = lengths.copy()
    wrong[0] += 1
    with pytest.raises(_core.CoreError, match="length of a chunk"):
        decode(frames, wrong, sizes, dtypes)
    for cut in (1, HEAD + 1, len(frames) - 3):
        with pytest.raises(_core.CoreError) as error:
            decode(frames[:-cut], lengths, sizes, dtypes)
        assert error.value.args[0] == "truncated"
    with pytest.raises(ValueError, match="fill"):
        decode(np.append(frames, np.uint8(0)), lengths, sizes, dtypes)
    with pytest.raises(ValueError, match="one for each chunk"):
        decode(frames, lengths[:-1].copy(), sizes, dtypes)
    with pytest.raises(_core.CoreError):
        decode(frames, np.full_like(lengths, 2**32 - 1), sizes, dtypes)


def test_arguments_that_do_not_fit():
    data = weights(10)
    with pytest.raises(ValueError, match="dtype"):
        encode([data], [99])
    with pytest.raises(ValueError, match="whole number"):
        encode([data[:5]], [F32])
    with pytest.raises(ValueError, match="lists differ"):
        encode([data], [F32, F32])
    with pytest.raises(ValueError, match="lists differ"):
        encode([data], [F32], [None, None])
    with pytest.raises(ValueError, match="base and tensor"):
        encode([data], [F32], [data[:-4]])
    with pytest.raises(ValueError, match="digits"):
        encode([data], [F32], digits=19)
    frames, lengths = encode([data], [F32])
    with pytest.raises(ValueError, match="digits"):
        decode(frames, lengths, [data.size], [F32], digits=19)
    with pytest.raises(ValueError, match="copy and tensor"):
        decode(frames, lengths, [data.size], [F32], copies=[data[:-4]])


def test_arrays_of_another_layout():
    """A copy in the right layout would not outlive the call's check of its arguments."""
    data = weights(10)
    frames, lengths = encode([data], [F32])
    read_only = np.empty_like(data)
    read_only.flags.writeable = False
    strided, floats = np.zeros(80, np.uint8)[::2], np.zeros(10, np.float32)
    for bad in (strided, floats, floats.view(np.uint8).reshape(4, -1), [1, 2, 3], None, read_only):
        with pytest.raises((TypeError, RuntimeError)):
            _core.decode_tensors(
                frames, lengths, [bad], [None], [F32], [None], digits=-1, threads=1
            )
    for bad in (strided, floats, [1, 2, 3]):
        with pytest.raises((TypeError, RuntimeError)):
            encode([data], [F32], [bad])
        with pytest.raises((TypeError, RuntimeError)):
            decode(frames, lengths, [data.size], [F32], [bad])


def test_nothing_to_do():
    frames, lengths = encode([], [])
    assert (frames.size, lengths.size) == (0, 0)
    assert decode(frames, lengths, [], []) == []


def test_more_threads_than_chunks():
    data = np.arange(9, dtype=np.int16).view(np.uint8)
    frames, lengths = encode([data], [I16], threads=64)
    np.testing.assert_array_equal(decode(frames, lengths, [18], [I16], threads=64)[0], data)


def test_crc32c():
    assert _core.crc32c(b"123456789") == 0xE3069283
    assert _core.crc32c(b"") == 0
    assert _core.crc32c(b"6789", _core.crc32c(b"12345")) == 0xE3069283
    assert _core.crc32c(np.frombuffer(b"123456789", np.uint8)) == 0xE3069283


def test_columns_are_one_for_each_tensor():
    with pytest.raises(ValueError, match="differ in length"):
        _core.encode_tensors(
            [weights(9)], [None], [F32], digits=-1, threads=1, columns=[], out=_core.OutputBuffer()
        )


@pytest.mark.parametrize("old", [np.nan, np.inf, 1.0])
def test_a_decimal_difference_needs_a_finite_base(old):
    # Mode 12, all units, no exceptions, an integer stream of one constant token 0, no extra bits.
    payload = bytes([12, 0, 0, 1, 0, 1, 0, 0])
    head = np.array([len(payload), _core.crc32c(payload)], np.uint32).tobytes()
    frame = np.frombuffer(head + payload, np.uint8)
    base = np.full(3, old, np.float32).view(np.uint8)
    arguments = (frame, np.array([len(payload)], np.uint32), [12], [F32], [base])
    if np.isfinite(old):
        assert np.array_equal(decode(*arguments, digits=3)[0], base)
    else:
        with pytest.raises(_core.CoreError, match="not finite"):
            decode(*arguments, digits=3)
