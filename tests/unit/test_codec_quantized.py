"""Checkpoints that others quantized: their symbols are coded below their raw size, exactly."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import limosa


def weights(rows: int = 512, columns: int = 768) -> np.ndarray:
    rng = np.random.default_rng(5)
    scales = rng.uniform(0.5, 2, (rows, 1))
    return (rng.standard_t(6, (rows, columns)) * 0.03 * scales).astype(np.float32)


def int8_rows() -> dict[str, np.ndarray]:
    """One scale a row, as torchao and bitsandbytes do."""
    w = weights()
    scale = np.abs(w).max(1, keepdims=True) / 127
    return {"w": np.round(w / scale).astype(np.int8), "scale": scale.astype(np.float16)}


def _int4() -> tuple[np.ndarray, np.ndarray]:
    groups = weights().reshape(-1, 128)
    scale = np.abs(groups).max(1, keepdims=True) / 7
    return (np.round(groups / scale) + 8).astype(np.uint32).reshape(512, 768), scale


def int4_in_bytes() -> dict[str, np.ndarray]:
    """Two in a byte, one scale for a group of 128."""
    q, scale = _int4()
    return {"w": (q[:, ::2] | q[:, 1::2] << 4).astype(np.uint8), "scale": scale.astype(np.float16)}


def int4_in_words() -> dict[str, np.ndarray]:
    """Eight in an int32 along the rows, as GPTQ writes them."""
    q, scale = _int4()
    words = sum(q[i::8] << np.uint32(4 * i) for i in range(8))
    return {"w": words.astype(np.uint32).view(np.int32), "scale": scale.astype(np.float16)}


def fp8(kind: str) -> dict[str, np.ndarray]:
    w = weights()
    scale = np.abs(w).max() / 448
    return {"w": (w / scale).astype(getattr(ml_dtypes, kind)), "scale": scale.reshape(1)}


def entropy(symbols: np.ndarray) -> float:
    counts = np.bincount(symbols.reshape(-1))
    p = counts[counts > 0] / symbols.size
    return float(-(p * np.log2(p)).sum())


@pytest.mark.parametrize(
    ("make", "most"),
    [
        (int8_rows, 0.86),
        (int4_in_bytes, 0.80),
        (int4_in_words, 0.80),
        (lambda: fp8("float8_e4m3fn"), 0.85),
        (lambda: fp8("float8_e5m2"), 0.72),
    ],
    ids=["int8", "int4", "gptq", "e4m3", "e5m2"],
)
def test_it_is_exact_and_smaller_than_raw(make, most):
    model = make()
    data = limosa.save(model)
    back = limosa.load(data)
    assert all(back[name].tobytes() == array.tobytes() for name, array in model.items())
    raw = sum(array.nbytes for array in model.values())
    assert len(data) <= most * raw
    # No worse than the order-0 entropy of its bytes, but for tables and the file around it.
    ideal = entropy(model["w"].view(np.uint8)) / 8 * model["w"].nbytes
    assert len(data) <= 1.01 * ideal + model["scale"].nbytes + 800
