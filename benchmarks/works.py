"""The work that every codec is given: a model, or a model with the base it differs from."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from benchmarks import finetune
from benchmarks.data import FLOAT_DTYPES, MODELS, State, concatenate, load_model

DIFFERENCES = ("finetune-bf16", "finetune-f32", "step-bf16", "kept-bf16")
DESCRIPTIONS = {
    "minilm": "all-MiniLM-L6-v2, the whole model",
    "lite0": "EfficientNet-Lite0, the whole model",
    "finetune": "version 2 of a fine-tune of Lite0 from version 1, 60 steps of AdamW before",
    "step": "version 1 after a step so small that 1 % of its weights change, from version 1",
    "kept": "version 1 with 1 % of its weights taken from version 2, from version 1",
}


@dataclass(frozen=True)
class Work:
    """Tensors to code: ``raw`` is what ``state`` holds, byte after byte; so is the base's."""

    name: str
    dtype: str
    state: State
    base: State | None = None
    raw: bytes = field(init=False, repr=False)
    base_raw: bytes | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "raw", concatenate(self.state))
        base_raw = None if self.base is None else concatenate(self.base)
        object.__setattr__(self, "base_raw", base_raw)


def work_names() -> list[str]:
    """Return the names of all works, smallest files last."""
    models = [f"{model}-{dtype.lower()}" for model in MODELS for dtype in FLOAT_DTYPES]
    return models + list(DIFFERENCES)


def select(patterns: list[str] | None) -> list[str]:
    """Return the names that match one of the shell patterns; all without patterns."""
    names = work_names()
    if not patterns:
        return names
    chosen = [name for name in names if any(fnmatch(name, p) for p in patterns)]
    if not chosen:
        raise ValueError(f"no data matches {patterns}; there are {', '.join(names)}")
    return chosen


def load_work(name: str, cache: Path) -> Work:
    """Read, or make, the tensors of the work called ``name``."""
    kind, _, dtype = name.partition("-")
    dtype = dtype.upper()
    if kind in MODELS:
        return Work(name, dtype, load_model(kind, dtype))
    loaders = {
        "finetune": lambda: finetune.load_versions(cache, dtype),
        "step": lambda: finetune.load_small_step(cache),
        "kept": lambda: finetune.load_kept_step(cache),
    }
    base, state = loaders[kind]()
    return Work(name, dtype, state, base)
