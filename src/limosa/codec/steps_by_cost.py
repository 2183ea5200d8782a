"""One step for a tensor, or one for each of its rows: the choice that costs less."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from limosa import _core
from limosa.codec.constants import core_dtype
from limosa.codec.quality import Step
from limosa.codec.quantize import Levels, finite_values, row_units, with_twelve_bits
from limosa.tensors import Bytes, TensorSpec

# Of D = step**2 / 12 and R = h - log2(step) follow dD/dstep = step / 6 and dR/dstep =
# -1 / (step ln 2), so -dD/dR = (ln 2 / 6) step**2: what a bit is worth in squared error where the
# step is right. Of dependent quantization, each of whose two quantizers has the step that the
# caller names, about the same holds (docs/adr/0009-steps-by-row-by-cost.md).
_WORTH = math.log(2) / 6


def with_cheaper_rows(
    spec: TensorSpec,
    data: Bytes,
    base: Bytes | None,
    levels: Levels,
    quality: Step,
    threads: int,
) -> Levels:
    """*levels* with a step for each row in place of the shared one, if that costs less.

    Both are encoded and decoded, and squared error plus the worth of their bits compared. A
    row's step is its share of the tensor's root mean square, which leaves the squared error about
    as it is. By theory (concavity of the logarithm) a shared step never takes more bits at high
    rates; what rows of their own can save are the tables that tell rows apart.
    """
    values = finite_values(data, base, spec.dtype)
    with np.errstate(over="ignore"):
        size = math.sqrt(float(np.mean(values * values))) if values.size else 0.0
    share = levels.step / size if size else 0.0
    if not 2.0**-24 < share < 2.0**24 or len(spec.shape) < 2 or levels.row_scales:
        return levels
    own = levels._replace(step=with_twelve_bits(share), row_scales=True)
    worth = _WORTH * quality.size_of(spec.name) ** 2
    costs = [_cost(spec, data, base, option, worth, threads) for option in (levels, own)]
    return own if costs[1] < costs[0] else levels


def _cost(
    spec: TensorSpec, data: Bytes, base: Bytes | None, levels: Levels, worth: float, threads: int
) -> float:
    """Squared error plus *worth* for each bit."""
    out = _core.OutputBuffer()
    dtype = core_dtype(spec.dtype)
    columns: Sequence[int] = [row_units(spec)]
    lengths = _core.encode_tensors(
        [data], [base], [dtype],
        digits=-1, threads=threads, levels=[levels], columns=columns, out=out,
    )  # fmt: skip
    decoded = np.empty(data.nbytes, np.uint8)
    _core.decode_tensors(
        out.tail(0), lengths, [decoded], [base], [dtype], [None], digits=-1, threads=threads
    )
    _, noise, _ = _core.distortion(data, decoded, dtype)
    return noise + worth * 8 * len(out)
