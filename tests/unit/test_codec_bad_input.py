"""Truncated, flipped and hostile files: a typed error, and no memory that was not allowed."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest

import limosa
from limosa import _core
from limosa.codec.constants import MAGIC
from limosa.codec.cursor import Cursor, put_text, put_varint
from limosa.codec.decoder import Reader
from limosa.codec.layout import Layout, write_header
from limosa.codec.sections import write_section
from limosa.errors import (
    BaseMismatchError,
    ConfigError,
    CorruptError,
    FormatError,
    LimitError,
    TruncatedError,
    UnsupportedVersionError,
)
from limosa.limits import Limits
from limosa.tensors import TensorSpec


def small():
    random = np.random.default_rng(0)
    weights = random.standard_normal((9, 7)).astype("f4")
    model = {"w": weights, "i": np.arange(40, dtype="i2"), "z": np.zeros(3, "f2")}
    model["tied"] = weights.copy()
    base = {"w": weights + np.float32(1e-3), "i": model["i"], "old name": model["z"]}
    return model, base


FILES = {
    "whole": lambda model, base: (limosa.save(model), None),
    "update": lambda model, base: (limosa.save(model, base=base), base),
    "lossy": lambda model, base: (limosa.save(model, quality=limosa.Digits(2)), None),
    "lzma": lambda m, b: (limosa.save(m, base=b, quality=limosa.Digits(2, "lzma")), b),
}


@pytest.fixture(params=FILES)
def coded(request):
    return FILES[request.param](*small())


WAYS = {
    "file": lambda data, base: limosa.load(data, base=base, verify=True),
    "pipe": lambda data, base: limosa.load(io.BytesIO(data), base=base, verify=True),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_proper_prefix_is_truncated(coded, way):
    data, base = coded
    for size in range(len(data)):
        with pytest.raises(TruncatedError):
            WAYS[way](data[:size], base)


@pytest.mark.parametrize("way", WAYS)
def test_every_flipped_bit_is_found(coded, way):
    data, base = coded
    for bit in range(8 * len(data)):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises((FormatError, BaseMismatchError)):
            WAYS[way](bytes(broken), base)


@pytest.mark.parametrize("way", WAYS)
def test_what_follows_the_footer_is_refused(coded, way):
    data, base = coded
    with pytest.raises(FormatError):
        WAYS[way](data + b"\0", base)


def test_magic_and_version():
    data = limosa.save({})
    with pytest.raises(CorruptError, match="not a limosa file"):
        limosa.load(b"PK\3\4" + data)
    with pytest.raises(UnsupportedVersionError, match="upgrade"):
        limosa.load(data[:8] + b"\1" + data[9:])
    with pytest.raises(TruncatedError):
        limosa.load(b"")


def test_an_error_names_tensor_and_byte():
    data = bytearray(limosa.save({"layer.weight": np.random.default_rng(0).random(500)}))
    data[1000] ^= 1
    with pytest.raises(limosa.ChecksumError, match=r"tensor 'layer\.weight'.*byte \d+") as caught:
        limosa.load(bytes(data))
    assert "fetch it again" in str(caught.value)


def header(specs, **options):
    return write_header(Layout(tuple(specs), (), limosa.Lossless(), **options))


def refused(data, error, limits=None):
    """Refused in both ways, with little memory."""
    for source in (data, io.BytesIO(data)):
        tracemalloc.start()
        with pytest.raises(error):
            limosa.load(source, limits=limits)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 4 * 2**20


@pytest.mark.parametrize(
    ("shape", "error"),
    [
        ((2**35,), LimitError),
        ((2**20, 2**20, 2**20), LimitError),
        ((2**63, 2), FormatError),
        ((0, 2**62), LimitError),
        ((1,) * 33, LimitError),
    ],
)
def test_shapes_beyond_the_limits(shape, error):
    refused(header([TensorSpec("w", "F32", shape)]), error)


def test_totals_beyond_the_limits():
    many = [TensorSpec(f"w{i}", "F64", (2**10,)) for i in range(100)]
    refused(header(many), LimitError, Limits(max_total_bytes=2**16))
    refused(header(many), LimitError, Limits(max_tensors=99))
    refused(header(many), LimitError, Limits(max_header_bytes=100))
    refused(header([TensorSpec("n" * 5000, "F32", ())]), LimitError)


def test_a_huge_tensor_without_chunks():
    specs = [TensorSpec("w", "U8", (2**34,))]
    with pytest.raises(TruncatedError):
        Reader(header(specs) + bytes(64))


def test_names_that_come_twice():
    refused(header([TensorSpec("w", "F32", (1,))] * 2), CorruptError)


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/../b", "nul\0"])
def test_names_that_are_paths_out_of_a_folder(name):
    refused(header([TensorSpec(name, "F32", (1,))]), CorruptError)


def section(body):
    return struct.pack("<II", len(body), _core.crc32c(body)) + body


def test_a_zlib_bomb():
    bomb = bytearray([1])
    put_varint(bomb, 100)
    bomb += zlib.compress(bytes(50 * 2**20))
    refused(MAGIC + b"\0" + section(bytes(bomb)), CorruptError)
    large = bytearray([1])
    put_varint(large, 2**40)
    refused(MAGIC + b"\0" + section(bytes(large)), LimitError)


@pytest.mark.parametrize("count", [2**16, 2**40, 2**64 - 1])
def test_counts_beyond_the_bytes(count):
    body = bytearray([0, 0])
    put_varint(body, count)
    refused(MAGIC + b"\0" + write_section(bytes(body)), FormatError)


def test_a_kept_tensor_that_does_not_exist():
    body = bytearray([4, 0, 1])
    put_text(body, "w")
    body += bytes([1, 0, 1])
    put_varint(body, 2 * 7)
    body += bytes([0])
    refused(MAGIC + b"\0" + write_section(bytes(body)), CorruptError)


def test_a_chunk_longer_than_allowed():
    model = {"w": np.random.default_rng(0).random(10_000)}
    data = limosa.save(model)
    for source in (data, io.BytesIO(data)):
        with pytest.raises(LimitError, match="max_chunk_bytes"):
            limosa.load(source, limits=Limits(max_chunk_bytes=1000))


def test_varints():
    assert Cursor(b"\xff" * 9 + b"\x01", "here").varint() == 2**64 - 1
    for bad in (b"\xff" * 9 + b"\x02", b"\x80" * 10 + b"\0"):
        with pytest.raises(CorruptError):
            Cursor(bad, "here").varint()
    with pytest.raises(TruncatedError):
        Cursor(b"\x80\x80", "here").varint()


def test_what_is_no_input():
    with pytest.raises(ConfigError):
        limosa.load(3)
