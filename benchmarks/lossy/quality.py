"""What a decoded model is still worth: signal-to-noise ratio, and quality at its own task.

A task is made once from the original weights and then called with decoded ones:

    task = lite0_task(cache)
    print(task(decoded))        # LiteQuality(kl=0.0123, agreement=0.957)

A decoded state is a dict of F32 arrays. Tensors that a codec drops (NNCodec drops integers) are
taken from the original.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.data import State, fingerprint, is_float, load_model
from benchmarks.papers.retrieval import mean_average_precision

from . import digits, images, sentences

THREADS = 2
BATCH = 16


@dataclass(frozen=True)
class LiteQuality:
    """EfficientNet-Lite0 over crops of photographs.

    Attributes:
        kl: Mean divergence in nats of the decoded model's classes from the original's.
        agreement: Share of the crops whose first class is the original's.
    """

    kl: float
    agreement: float


@dataclass(frozen=True)
class TextQuality:
    """MiniLM over docstrings.

    Attributes:
        map: Mean average precision of finding a docstring by its first sentence.
        cosine: Mean cosine of the decoded model's embeddings with the original's.
    """

    map: float
    cosine: float


@dataclass(frozen=True)
class DigitsQuality:
    """``accuracy``: share of handwritten digits, none of them trained on, that are read rightly."""

    accuracy: float


def weight_snr(original: State, decoded: State) -> float:
    """Return 10 log10(sum w² / sum error²), dB, over the float tensors of two dimensions or more.

    Infinite when they are equal.

    >>> ones = np.ones((2, 2), np.float32)
    >>> round(weight_snr({"w": ones}, {"w": 0.9 * ones}), 3)
    20.0
    """
    signal = noise = 0.0
    for name, array in original.items():
        if array.ndim > 1 and is_float(array):
            exact = array.astype(np.float64)
            signal += float(np.sum(exact**2))
            noise += float(np.sum((decoded[name].astype(np.float64) - exact) ** 2))
    return math.inf if noise == 0 else round(10 * math.log10(signal / noise), 6)


def lite0_task(cache: Path) -> Callable[[State], LiteQuality]:
    """Return the task of EfficientNet-Lite0: a call takes some ten seconds on two cores.

    The outputs of the original are kept in ``cache``.
    """
    original = load_model("lite0")
    crops = images.test_crops()
    kept = cache / f"lossy-lite0-{images.RECIPE}-{fingerprint(original)}-{torch_version()}.npy"
    expected = torch.from_numpy(_kept(kept, lambda: _logits(original, crops).numpy()))

    def quality(state: State) -> LiteQuality:
        return _compare(expected, _logits({**original, **state}, crops))

    return quality


def _compare(expected: torch.Tensor, actual: torch.Tensor) -> LiteQuality:
    p, q = expected.double().log_softmax(1), actual.double().log_softmax(1)
    kl = (p.exp() * (p - q)).sum(1).mean().item()
    return LiteQuality(kl, (p.argmax(1) == q.argmax(1)).double().mean().item())


def lite0_network(state: State) -> torch.nn.Module:
    """Return EfficientNet-Lite0 with these weights, ready to infer."""
    from efficientnet_lite_pytorch import EfficientNet

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict({n: torch.from_numpy(np.array(a)) for n, a in state.items()})
    module: torch.nn.Module = network.eval().to(memory_format=torch.channels_last)
    return module


def _logits(state: State, crops: torch.Tensor) -> torch.Tensor:
    network = lite0_network(state)
    with torch.no_grad(), threads(THREADS):
        batches = crops.split(BATCH)
        return torch.cat([network(b.to(memory_format=torch.channels_last)) for b in batches])


def minilm_task(cache: Path) -> Callable[[State], TextQuality]:
    """Return the task of all-MiniLM-L6-v2: a call takes some ten seconds on two cores.

    The embeddings of the original are kept in ``cache``.
    """
    original = load_model("minilm")
    tokenize = sentences.Tokenizer()
    chosen = sentences.pairs()
    texts = [tokenize(p.query) for p in chosen] + [tokenize(p.document) for p in chosen]

    def embed(state: State) -> np.ndarray:
        with threads(THREADS):
            return sentences.embed({**original, **state}, texts)

    digest = fingerprint({"texts": np.array([i for text in texts for i in text])})
    kept = cache / f"lossy-minilm-{digest}-{fingerprint(original)}-{torch_version()}.npy"
    expected = _kept(kept, lambda: embed(original))

    def quality(state: State) -> TextQuality:
        found = embed(state)
        similarity = found[: len(chosen)] @ found[len(chosen) :].T
        precision = mean_average_precision(similarity, np.eye(len(chosen), dtype=bool))
        return TextQuality(precision, float((found * expected).sum(1).mean()))

    return quality


def digits_task(cache: Path) -> Callable[[State], DigitsQuality]:
    """Return the task of the small network that ``digits.load`` returns."""
    original = digits.load(cache)
    return lambda state: DigitsQuality(digits.accuracy({**original, **state}))


def _kept(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, make())
    array: np.ndarray = np.load(path)
    return array


def torch_version() -> str:
    """Return torch's version as part of a file name: other releases may sum otherwise."""
    return torch.__version__.replace("+", "-")


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use ``count`` threads: the last bits of its sums depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
