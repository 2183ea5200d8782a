"""Runs of tensors with loss: through the core, or through lzma as the first paper does."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from limosa import _core
from limosa.codec.config import Digits
from limosa.codec.constants import (
    CHUNK_UNITS,
    FLOAT_DTYPES,
    UNIT_BYTES,
    core_dtype,
)
from limosa.codec.lzma_decimal import encode_payload
from limosa.codec.packed import encode_run
from limosa.codec.quality import Lossy, MaxError, Quality, Step
from limosa.codec.quantize import Treatment, row_units, treat
from limosa.codec.sections import frame
from limosa.codec.steps_by_cost import with_cheaper_rows
from limosa.errors import CorruptError
from limosa.tensors import Bytes, TensorSpec

_Pair = tuple[TensorSpec, Bytes]


def encode_lossy(
    out: _core.OutputBuffer,
    run: Sequence[_Pair],
    bases: Sequence[Bytes | None],
    quality: Quality,
    threads: int,
) -> NDArray[np.uint32]:
    """Append the frames of *run* and return the lengths of their payloads."""
    if isinstance(quality, Digits) and quality.coder == "lzma":
        lengths = [
            _put_lzma(out, pair, base, quality, threads)
            for pair, base in zip(run, bases, strict=True)
        ]
        return np.concatenate(lengths)
    treated = [
        _treated(pair, base, quality, threads) if isinstance(quality, Lossy) else Treatment(pair[1])
        for pair, base in zip(run, bases, strict=True)
    ]
    digits = quality.p if isinstance(quality, Digits) else -1

    def core(start: int, end: int, buffer: _core.OutputBuffer) -> NDArray[np.uint32]:
        return _core.encode_tensors(
            [treatment.data for treatment in treated[start:end]],
            list(bases[start:end]),
            [core_dtype(spec.dtype) for spec, _ in run[start:end]],
            digits=digits,
            threads=threads,
            levels=[treatment.levels for treatment in treated[start:end]],
            columns=[row_units(spec) for spec, _ in run[start:end]],
            out=buffer,
        )

    # What is coded with loss is no matter of packing.
    exact = [
        base is None and spec.dtype not in FLOAT_DTYPES
        for (spec, _), base in zip(run, bases, strict=True)
    ]
    return encode_run(out, run, exact, core, threads)


def _treated(pair: _Pair, base: Bytes | None, quality: Lossy, threads: int) -> Treatment:
    spec, data = pair
    treatment = treat(spec, data, base, quality)
    if not isinstance(quality, Step) or quality.by_row != "auto":
        return treatment
    if treatment.levels is None or quality.keeps(spec):
        return treatment
    levels = with_cheaper_rows(spec, data, base, treatment.levels, quality, threads)
    return treatment._replace(levels=levels)


class Loss:
    """What was lost so far, over the float tensors that are not kept."""

    def __init__(self) -> None:
        self._signal = self._noise = 0.0
        self.largest = 0.0

    @property
    def snr(self) -> float:
        """10 log10 of signal to noise; infinite without noise."""
        if not self._noise:
            return math.inf
        return 10 * math.log10(self._signal / self._noise) if self._signal else -math.inf

    def add(
        self,
        run: Sequence[_Pair],
        decoded: Sequence[_Pair],
        bases: Sequence[Bytes | None],
        quality: Quality,
    ) -> None:
        """Compare what was decoded with what was given; against a base, differences are the signal.

        Raises:
            CorruptError: a promised bound is not kept, which would be a defect of the encoder.
        """
        for (spec, data), (_, result), base in zip(run, decoded, bases, strict=True):
            if spec.dtype not in FLOAT_DTYPES:
                continue
            code = core_dtype(spec.dtype)
            signal, noise, largest = _core.distortion(data, result, code)
            if base is not None:
                _, signal, _ = _core.distortion(data, base, code)
            bound = quality.abs if isinstance(quality, MaxError) else None
            if bound is not None and largest > bound:
                raise CorruptError(
                    "the promised bound is not kept",
                    where=f"tensor {spec.name!r}",
                    found=f"{largest!r}",
                    allowed=f"{bound!r}",
                )
            if not (isinstance(quality, Lossy) and quality.keeps(spec)):
                self._signal += signal
                self._noise += noise
                self.largest = max(self.largest, largest)


def _put_lzma(
    out: _core.OutputBuffer, pair: _Pair, base: Bytes | None, quality: Digits, threads: int
) -> NDArray[np.uint32]:
    spec, data = pair
    if spec.dtype not in FLOAT_DTYPES:
        return encode_lossy(out, [pair], [base], Digits(quality.p), threads)
    lengths = []
    size = CHUNK_UNITS * UNIT_BYTES[spec.dtype]
    for start in range(0, data.nbytes, size):
        part = slice(start, start + size)
        payload = encode_payload(
            data[part], None if base is None else base[part], spec.dtype, quality.p
        )
        out.append(frame(payload))
        lengths.append(len(payload))
    return np.array(lengths, np.uint32)
