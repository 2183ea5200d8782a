"""limosa's side: all that this benchmark calls of it."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.data import State, is_float
from limosa.tensors import Tensor

from .quality import weight_snr

EFFORTS = (1, 5, 9)
NAMES = {1: "limosa plain", 5: "limosa trellis", 9: "limosa adaptive"}
CALIBRATED = "limosa calibrated"
ATTEMPTS = 10
# dB above the wanted ratio that a search leaves: a third of a hundredth of a bit for each weight.
CLOSE_ENOUGH = 0.02


def encode(state: State, step: float, effort: int) -> bytes:
    """Return the whole file, with the steps that a target takes (finer in small tensors)."""
    limosa = importlib.import_module("limosa")
    specs = [Tensor.from_numpy(np.asarray(array)).spec(name) for name, array in state.items()]
    quality = limosa.Target(snr=1.0, effort=effort).step(step, specs)
    coded: bytes = limosa.save(state, quality=quality, threads=1)
    return coded


def encode_target(state: State, **target: Any) -> bytes:
    """Return the file for ``size=``, ``bits=`` or ``snr=``."""
    limosa = importlib.import_module("limosa")
    coded: bytes = limosa.save(state, quality=limosa.Target(**target), threads=1)
    return coded


def decode(coded: bytes) -> State:
    """Return all tensors."""
    state: State = importlib.import_module("limosa").load(coded, threads=1)
    return state


def calibrate(
    network: torch.nn.Module, crops: Iterable[torch.Tensor], divergence: float, kept: Path
) -> bytes:
    """Return the file of the network, rounded with second-order information from ``crops``.

    ``kept`` is where what the samples say is kept from one divergence to the next.
    """
    tools = importlib.import_module("limosa.torch")
    found = tools.calibrate(network, crops, divergence=divergence, checkpoint=kept)
    coded: bytes = tools.save(found.tensors, quality=found.quality(), threads=1)
    return coded


def why_not(what: str = "Step") -> str:
    """Return why ``what`` cannot be measured; empty when it can."""
    try:
        if what == "calibrate":
            importlib.import_module("limosa.torch").calibrate  # noqa: B018
        else:
            getattr(importlib.import_module("limosa"), what)
    except (ImportError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def step_for_snr(state: State, snr: float, effort: int, first: float | None = None) -> float:
    """Return a step whose signal-to-noise ratio is ``snr`` dB or hardly more.

    Halving the step gains 6.02 dB, nearly: a few encodes do. ``first`` is where to begin.
    """

    def missing(step: float) -> float:
        decoded = decode(encode(state, step, effort))
        return snr + CLOSE_ENOUGH / 2 - weight_snr(state, decoded)

    return _search(missing, first or typical_step(state, snr), 6.02, CLOSE_ENOUGH / 2)


def typical_step(state: State, snr: float) -> float:
    """Return the step with ``snr`` dB by the theory of fine quantization."""
    arrays = [a.astype("f8").ravel() for a in state.values() if a.ndim > 1 and is_float(a)]
    energy = sum(float(a @ a) for a in arrays)
    return math.sqrt(12 * energy / sum(a.size for a in arrays)) * 10.0 ** (-snr / 20)


def _search(
    missing: Callable[[float], float], step: float, slope: float, tolerance: float
) -> float:
    """Return the coarsest step tried where at most ``tolerance`` is missing, once it is close.

    ``missing`` grows by about ``slope`` when the step doubles.
    """
    best = 0.0
    for _ in range(ATTEMPTS):
        found = missing(step)
        if found <= tolerance:
            best = max(best, step)
        if abs(found) <= tolerance:
            break
        step *= 2 ** (-found / slope)
    if not best:
        raise ValueError(f"no step reached what was asked for; the last was {step}")
    return best


def divergence_for_kl(kl_of: Callable[[float], float], kl: float) -> float:
    """Return what to ask a calibration for, so that ``kl_of`` gives ``kl`` or a little less."""

    def missing(divergence: float) -> float:
        return math.log2(max(kl_of(divergence), 1e-9) / kl) + 0.05

    return _search(missing, kl, 1.0, 0.05)
