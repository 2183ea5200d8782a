"""The models that are coded with loss, each with what tells how much was lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.data import State, fingerprint, load_model

from . import digits, images, quality, sentences


@dataclass(frozen=True)
class Work:
    """A model and its task.

    Attributes:
        recipe: Names what the task measures on: a quality that is kept is valid for it alone.
        qps: Where NNCodec codes it.
        measures: Names of what ``quality`` returns; the first is plotted.
        axis: What the plot calls the first.
        plotted: The first measure, as it is plotted: smaller is better.
    """

    name: str
    title: str
    recipe: str
    qps: tuple[int, ...]
    measures: tuple[str, ...]
    axis: str
    plotted: Callable[[float], float]
    state: State
    task: Callable[[State], Any]
    _known: dict[str, dict[str, float]] = field(default_factory=dict, repr=False)

    @property
    def raw_bytes(self) -> int:
        return sum(array.nbytes for array in self.state.values())

    def quality(self, decoded: State) -> dict[str, float]:
        """Return the measures of a decoded state by their names."""
        # Efforts that differ in the coder alone decode alike, and a task takes seconds.
        key = fingerprint(decoded)
        if key not in self._known:
            self._known[key] = asdict(self.task(decoded))
        return self._known[key]


def names() -> list[str]:
    return ["lite0", "minilm", "digits"]


def load(name: str, cache: Path) -> Work:
    """Read, or make, the model called ``name`` and prepare its task."""
    return {"lite0": _lite0, "minilm": _minilm, "digits": _digits}[name](cache)


def _lite0(cache: Path) -> Work:
    return Work(
        "lite0", "EfficientNet-Lite0", images.RECIPE, (-38, -32, -26, -20),
        ("kl", "agreement"), "KL divergence of the classes, nats", lambda kl: kl,
        load_model("lite0"), quality.lite0_task(cache),
    )  # fmt: skip


def _minilm(cache: Path) -> Work:
    return Work(
        "minilm", "all-MiniLM-L6-v2", sentences.RECIPE, (-38, -32, -26, -20),
        ("cosine", "map"), "1 - cosine of the embeddings", lambda cosine: 1 - cosine,
        load_model("minilm"), quality.minilm_task(cache),
    )  # fmt: skip


def _digits(cache: Path) -> Work:
    return Work(
        "digits", "a reader of digits", digits.RECIPE, (-38, -32, -26, -20),
        ("accuracy",), "share of digits read wrongly", lambda accuracy: 1 - accuracy,
        digits.load(cache), quality.digits_task(cache),
    )  # fmt: skip
