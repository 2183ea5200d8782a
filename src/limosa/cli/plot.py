"""``limosa inspect --plot``: what the weights look like, and what fewer bits would cost."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from limosa.codec.base import Base
from limosa.codec.constants import FLOAT_DTYPES
from limosa.codec.encoder import encode
from limosa.codec.layers import open_layer
from limosa.codec.opening import is_limosa, open_base
from limosa.codec.quality import Step
from limosa.codec.quantize import finite_values
from limosa.errors import MissingExtraError
from limosa.files import read
from limosa.files.bundle import Bundle
from limosa.limits import Limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Values of a model that are drawn, spread over its tensors.
_DRAWN = 2_000_000
_BINS = 201
# Steps of the curve, as powers of two of the deviation of the weights.
_STEPS = range(1, -8, -1)


def draw(path: str, output: Path, base: str | None, limits: Limits) -> None:
    """Draw the model in the file *path* (any kind that limosa reads) into the picture *output*.

    Left the distribution of its weights and, with *base*, of their differences from it, as in
    figure 2 of the first paper; right the size against the signal-to-noise ratio, measured by
    encoding with several steps.

    Raises:
        MissingExtraError: matplotlib is not installed.
        FormatError: the file is damaged.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        raise MissingExtraError.for_extra("plot", "drawing") from None
    held = None if base is None else open_base(base, limits=limits)
    with _open(path, held, limits) as bundle:
        bases = [None] if held is None else [None, held]
        count = len(bases) + 1
        figure, panels = pyplot.subplots(1, count, figsize=(5.2 * count, 4.2), layout="constrained")
        for axes, one in zip(panels, bases, strict=False):
            _draw_distribution(axes, bundle, one)
        _draw_rates(panels[-1], bundle, held)
        figure.suptitle(Path(path).name + (f" from {Path(base).name}" if base else ""))
        figure.savefig(output, dpi=120)
        pyplot.close(figure)


def _open(path: str, held: Base | None, limits: Limits) -> Bundle:
    if not is_limosa(path):
        return read(path, limits=limits)
    reader = open_layer(path, base=held, limits=limits)
    specs = list(reader.specs)
    return Bundle(reader.sources, specs, lambda i: reader.get(specs[i].name).data, limits=limits)


def _draw_distribution(axes: Axes, bundle: Bundle, held: Base | None) -> None:
    values = _sampled(bundle, held)
    axes.set_title("weights" if held is None else "differences from the base", fontsize="medium")
    axes.set_xlabel("value")
    axes.set_ylabel("share of the weights in a bin")
    axes.set_yscale("log")
    if not values.size:
        return
    # The farthest thousandth would leave the rest in one bin.
    edge = float(np.quantile(np.abs(values), 0.999)) or 1.0
    counts, edges = np.histogram(values, bins=_BINS, range=(-edge, edge))
    text = f"deviation {values.std():.3g}\nzeros {np.mean(values == 0):.1%}"
    axes.stairs(counts / values.size, edges, fill=True, alpha=0.7)
    axes.text(0.03, 0.97, text, transform=axes.transAxes, va="top")


def _sampled(bundle: Bundle, held: Base | None) -> NDArray[np.float64]:
    """Values of the tensors that are not kept, or their differences from the base."""
    quality = Step(1.0)
    drawn = {
        spec.name for spec in bundle.specs if spec.dtype in FLOAT_DTYPES and not quality.keeps(spec)
    }
    total = sum(spec.elements for spec in bundle.specs if spec.name in drawn)
    stride = max(1, total // _DRAWN)
    parts = []
    for spec, data in bundle:
        if spec.name not in drawn:
            continue
        old = None if held is None else held.data(spec.name, spec)
        if held is None or old is not None:
            parts.append(finite_values(data, old, spec.dtype)[::stride])
    return np.concatenate(parts) if parts else np.zeros(0)


def _draw_rates(axes: Axes, bundle: Bundle, held: Base | None) -> None:
    elements = sum(spec.elements for spec in bundle.specs)
    deviation = float(_sampled(bundle, held).std()) or 1.0
    for effort, label in ((5, "trellis"), (1, "plain rounding")):
        points = [
            _measure(bundle, held, Step(deviation * 2.0**k, effort), elements) for k in _STEPS
        ]
        shown = [point for point in points if math.isfinite(point[1])]
        axes.plot(*zip(*shown, strict=True) if shown else ([], []), marker="o", ms=3, label=label)
    lossless = encode(bundle, _nowhere, base=held).bytes_out * 8 / max(elements, 1)
    axes.axvline(lossless, color="gray", ls="--", label=f"lossless, {lossless:.2f} bits")
    axes.set_xlabel("bits of the file for each element")
    axes.set_ylabel("signal-to-noise ratio in dB")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def _measure(
    bundle: Bundle, held: Base | None, quality: Step, elements: int
) -> tuple[float, float]:
    result = encode(bundle, _nowhere, base=held, quality=quality)
    return result.bytes_out * 8 / max(elements, 1), result.snr


def _nowhere(piece: Any) -> None:
    """A sink for what is only measured."""
