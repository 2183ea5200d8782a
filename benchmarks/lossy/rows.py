"""Steps by row: what they cost on real weights where ``by_row="auto"`` compares them.

    python -m benchmarks.lossy.rows --data lite0

Prints, for each step as a share of a tensor's root mean square, squared error plus the worth of the
bits (``limosa.codec.steps_by_cost``) with a step for each row over that with the shared step: the
least, the median and the largest over the tensors, and how many of them the rows win.
"""

from __future__ import annotations

import argparse
import math

import numpy as np

import limosa
from benchmarks.data import MODELS, is_float, load_model

SHARES = (0.02, 0.1, 0.25, 0.5, 1.0)


def cost(array: np.ndarray, quality: limosa.Step, size: float) -> float:
    """Squared error plus what the bits of the file are worth with a step of *size*."""
    coded = limosa.save({"": array}, quality=quality)
    error = limosa.load(coded)[""].astype(np.float64) - array
    bits = 8 * (len(coded) - len(str(quality)))
    return float((error**2).sum()) + math.log(2) / 6 * size**2 * bits


def rows_over_shared(array: np.ndarray, share: float, effort: int) -> float:
    """The cost with a step for each row over that with one, both about as exact."""
    size = share * float(np.sqrt(np.mean(array.astype(np.float64) ** 2)))
    rows = cost(array, limosa.Step(share, effort, by_row=True), size)
    return rows / cost(array, limosa.Step(size, effort), size)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lossy.rows", description=__doc__)
    parser.add_argument("--data", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--effort", type=int, choices=(1, 5, 9), default=5)
    options = parser.parse_args()
    for name in options.data:
        arrays = load_model(name).values()
        tensors = [a for a in arrays if is_float(a) and sum(dim > 1 for dim in a.shape) > 1]
        for share in SHARES:
            ratios = np.array([rows_over_shared(a, share, options.effort) for a in tensors])
            print(
                f"{name} effort {options.effort} step {share:4} rms: rows / shared "
                f"{ratios.min():.3f} {np.median(ratios):.3f} {ratios.max():.3f}, "
                f"rows win {(ratios < 1).sum()} of {ratios.size}"
            )


if __name__ == "__main__":
    main()
