"""What is run: methods with their settings, chosen on a validation part of D2, never on the test.

One learning rate for each family of methods.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from limosa.torch import refine

DIGITS_FIRST = 120


@dataclass(frozen=True)
class Setting:
    """One run: a network trained on *first* images, then refined on all of D2.

    Attributes:
        method: a class of :mod:`limosa.torch.refine`; ``"First"`` stops after D1.
        value: its n, r, p or c.
        steps: with which the trained update is quantized afterwards; 0 stands for the step that it
            was trained with.
        lam, step: of the rate; a lam of 0 trains without.
    """

    network: str
    method: str
    value: float = 0.0
    learning_rate: float = 1e-2
    lam: float = 0.0
    step: float = 0.0
    steps: tuple[float, ...] = (0.0,)
    epochs: float = 24.0
    first_epochs: float = 120.0
    first: int = DIGITS_FIRST
    seed: int = 0
    tuning: bool = False

    @property
    def key(self) -> str:
        """Names this run in the store."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def family(self) -> str:
        """The name of the method in tables."""
        return FAMILIES[self.method] + (", rate" if self.lam else "")

    @property
    def label(self) -> str:
        """Method and value."""
        value = f" {LETTERS[self.method]}={self.value:g}" if self.method in LETTERS else ""
        return self.family.replace(", rate", f"{value}, rate" if self.lam else "") + (
            "" if self.lam else value
        )

    def make(self) -> refine.Method:
        """The method itself."""
        kind = getattr(refine, self.method)
        if self.method == "Difference":
            return refine.Difference()
        letter = LETTERS[self.method]
        return kind(**{letter: self.value if letter in "pc" else int(self.value)})


FAMILIES = {
    "First": "first network",
    "Difference": "difference",
    "KnowledgeAugmentation": "KA",
    "MappingLearning": "ML",
    "LowRankApproximation": "LRA",
    "LowRankUpdate": "LRU",
    "RandomMask": "RM",
    "FilterPruning": "FP",
    "Core": "core",
}
LETTERS = {
    "KnowledgeAugmentation": "n", "MappingLearning": "r", "LowRankApproximation": "r",
    "LowRankUpdate": "r", "RandomMask": "p", "FilterPruning": "c", "Core": "r",
}  # fmt: skip

KA, ML, LRA = "KnowledgeAugmentation", "MappingLearning", "LowRankApproximation"
LRU, RM, FP = "LowRankUpdate", "RandomMask", "FilterPruning"
_DENSE_RATE = 3e-3
_DENSE_STEPS = (0.0625, 0.25, 0.5, 0.7, 0.85, 1.0, 1.5)
_FINE = 0.0625


def _paper(network: str, values: dict[str, tuple[float, ...]]) -> Iterator[Setting]:
    for method, chosen in values.items():
        for value in chosen:
            # What these learn is a network anew, or a difference: as fast as dense training.
            rate = _DENSE_RATE if method in (LRA, FP) else 1e-2
            yield Setting(network, method, value, rate, steps=(_FINE, 0.25, 0.5))


def table(network: str = "vgg-small") -> list[Setting]:
    """The rows that the numbers to reach are read from."""
    return [
        Setting(network, "First"),
        Setting(network, "Difference", learning_rate=_DENSE_RATE, steps=_DENSE_STEPS),
        # Trained for less long the difference is smaller: the rival that methods must beat, too.
        Setting(network, "Difference", learning_rate=_DENSE_RATE, steps=_DENSE_STEPS, epochs=8.0),
        *_paper(network, {KA: (3,), RM: (0.0545,), LRU: (20,)}),
        *(Setting(network, KA, 3, 1e-2, lam=lam, step=0.5) for lam in AUGMENTATIONS),
        *(Setting(network, "Core", 64, 1e-2, lam=lam, step=step) for lam, step in CORES),
        *(Setting(network, "Difference", 0, 6e-3, lam=lam, step=1.5) for lam in DIFFERENCES),
    ]


AUGMENTATIONS = (3e-6, 1e-5)
CORES = ((3e-5, 2.0),)
DIFFERENCES = (1e-5, 4e-5, 6e-5, 1e-4)


def figure4() -> list[Setting]:
    """Accuracy against size: VGG-small and the tiny ResNet."""
    values = {
        KA: (1, 6), ML: (4, 8, 16), LRA: (4, 8, 16), LRU: (4, 8, 32),
        RM: (0.02, 0.1, 0.2), FP: (0.2, 0.5, 0.8),
    }  # fmt: skip
    resnet = {KA: (1, 3), ML: (8,), LRA: (8,), LRU: (4, 12), RM: (0.02, 0.1), FP: (0.5,)}
    # Four times the operations of VGG-small: a third of the epochs, of all methods alike.
    rows = [
        Setting("tiny-resnet", "Difference", learning_rate=_DENSE_RATE, steps=_DENSE_STEPS),
        *_paper("tiny-resnet", resnet),
        Setting("tiny-resnet", "Difference", 0, 6e-3, lam=4e-5, step=1.5),
    ]
    return [
        *_paper("vgg-small", values),
        Setting("tiny-resnet", "First"),
        *(replace(row, epochs=8.0) for row in rows),
    ]


def figure5() -> list[Setting]:
    """VGG-tiny, which has little to spare."""
    values = {KA: (1, 2, 4), LRU: (4, 8, 16), RM: (0.04, 0.1, 0.2)}
    return [
        Setting("vgg-tiny", "First"),
        Setting("vgg-tiny", "Difference", learning_rate=_DENSE_RATE, steps=_DENSE_STEPS),
        *_paper("vgg-tiny", values),
        Setting("vgg-tiny", "Difference", 0, 6e-3, lam=4e-5, step=1.5),
    ]


def figure6() -> list[Setting]:
    """Lift against the share of D2 that the first network saw, with KA n=1 on VGG-tiny."""
    values = {KA: (1,), LRU: (7,), RM: (0.035,)}
    rows = [Setting("vgg-tiny", "First"), *_paper("vgg-tiny", values)]
    return [
        replace(row, first=round(share * 4000), first_epochs=120 * 120 / (share * 4000) + 4)
        for row in rows
        for share in (0.1, 0.3, 0.5, 0.7)
    ]


FIGURES = {4: figure4, 5: figure5, 6: figure6}


def quick() -> list[Setting]:
    """A minute's worth, to see that everything runs: a row of each kind."""
    rows = {row.family: replace(row, epochs=0.2, first_epochs=5) for row in table()}
    return list(rows.values())
