"""A recipe: techniques one after the other, each measured in bytes and in the task's own metric."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from limosa.codec.quality import Quality
from limosa.errors import ConfigError
from limosa.files.atomic import AtomicFile
from limosa.torch.optimize.distill import Batch, Distillation, fit
from limosa.torch.optimize.measure import measure
from limosa.torch.optimize.rounding import CodebookRounding, LinearRounding
from limosa.torch.optimize.technique import Context, Optimized

Metric = Callable[[nn.Module], float]


@dataclass(frozen=True)
class Training:
    """Training after a stage.

    Attributes:
        epochs, rate: as for :func:`limosa.torch.optimize.fit`.
        teacher: "first" learns from the model before all stages as well, "" from labels alone.
    """

    epochs: int = 1
    rate: float = 1e-3
    teacher: str = ""


@dataclass(frozen=True)
class Stage:
    """One step of a recipe.

    Attributes:
        name: for the table.
        technique: what has ``apply(model, context)``; None to train only.
        training: afterwards; None: none. Zeros of pruning stay; rounded weights stay on their grid.
    """

    name: str
    technique: Any = None
    training: Training | None = None


@dataclass(frozen=True)
class Row:
    """What a stage left.

    Attributes:
        stage: its name; "start" for the model as it was.
        parameters, nonzeros, flops, raw_nbytes, nbytes, metric: as of
            :class:`limosa.torch.optimize.Measures`.
        seconds: that the stage took.
        receiver_needs: beyond an ordinary runtime; "" for nothing, as all stages here.
        refused: layers that were left as they were, and why.
    """

    stage: str
    parameters: int
    nonzeros: int
    flops: int | None
    raw_nbytes: int
    nbytes: int
    metric: float | None
    seconds: float
    receiver_needs: str = ""
    refused: tuple[str, ...] = ()


@dataclass
class Recipe:
    """Stages, in order.

    Args:
        stages: what to do.
        quality: with which models are encoded to be measured; None: without loss.
        seed: of everything random.
    """

    stages: Sequence[Stage]
    quality: Quality | None = None
    seed: int = 0
    rows: list[Row] = field(default_factory=list)

    def run(
        self,
        model: nn.Module,
        context: Context,
        *,
        batches: Iterable[Batch] = (),
        metric: Metric | None = None,
        folder: Path | None = None,
        progress: Callable[[str], None] = lambda text: None,
    ) -> nn.Module:
        """Do all stages; the rows are in :attr:`rows`.

        Args:
            model: is not changed.
            context: for the techniques, with example inputs.
            batches: inputs and labels to train on, gone through once an epoch.
            metric: of a model, such as accuracy.
            folder: what each stage leaves is kept here, and a later run of the same recipe on the
                same model goes on behind it.
            progress: is told what begins.

        Raises:
            ConfigError: a stage is impossible.
        """
        self.rows = []
        first, done = model, model
        key = _digest(f"{self.seed} {self.quality}", model)
        started = time.monotonic()
        self._add(folder, f"0-{key[:16]}", "start", done, context, metric, started, ())
        masks: dict[str, torch.Tensor] = {}
        for number, stage in enumerate(self.stages, 1):
            progress(stage.name)
            key = hashlib.sha256(f"{key} {stage!r}".encode()).hexdigest()
            place = f"{number}-{key[:16]}"
            kept = _load(folder, place)
            started = time.monotonic()
            if kept is not None:
                done, masks, row = kept
                self.rows.append(row)
                continue
            torch.manual_seed(self.seed + number)
            done, masks, refused = self._do(stage, done, first, masks, context, batches)
            self._add(folder, place, stage.name, done, context, metric, started, refused, masks)
        return done

    def _do(
        self,
        stage: Stage,
        model: nn.Module,
        first: nn.Module,
        masks: dict[str, torch.Tensor],
        context: Context,
        batches: Iterable[Batch],
    ) -> tuple[nn.Module, dict[str, torch.Tensor], tuple[str, ...]]:
        refused: tuple[str, ...] = ()
        technique = stage.technique
        rounding = technique if isinstance(technique, LinearRounding | CodebookRounding) else None
        trained = stage.training is not None
        if rounding is not None and trained:
            model = rounding.prepare(model)
        elif technique is not None:
            found = technique.apply(model, context)
            model = found.model
            refused = tuple(f"{one.layer}: {one.why}" for one in found.refused)
            masks = {**_still_there(masks, model), **found.masks}
        if stage.training is not None:
            model = _train(model, first, stage.training, masks, batches, rounding is not None)
        if rounding is not None and trained:
            model = rounding.finish(model)
        return model, masks, refused

    def _add(
        self,
        folder: Path | None,
        place: str,
        name: str,
        model: nn.Module,
        context: Context,
        metric: Metric | None,
        started: float,
        refused: tuple[str, ...],
        masks: dict[str, torch.Tensor] | None = None,
    ) -> None:
        seconds = time.monotonic() - started
        found = measure(model, context, quality=self.quality, metric=metric)
        row = Row(name, **asdict(found), seconds=seconds, refused=refused)
        self.rows.append(row)
        if folder is not None and masks is not None:
            _keep(folder, place, model, masks, row)


def _train(
    model: nn.Module,
    first: nn.Module,
    training: Training,
    masks: dict[str, torch.Tensor],
    batches: Iterable[Batch],
    parametrized: bool,
) -> nn.Module:
    import copy

    from torch.nn import functional

    twin = copy.deepcopy(model).train()
    kept = {} if parametrized else _still_there(masks, twin)
    zeros = Optimized(twin, (), masks=kept)

    def plain(inputs: Any, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(twin(inputs), labels)

    if training.teacher not in ("", "first"):
        raise ConfigError("no teacher", found=training.teacher, allowed="first, or none")
    if not training.teacher:
        fit(
            plain, twin.parameters(), batches, epochs=training.epochs, rate=training.rate,
            after_step=zeros.keep_zeros,
        )  # fmt: skip
    else:
        with Distillation(first, twin) as loss:
            fit(
                loss, twin.parameters(), batches, epochs=training.epochs, rate=training.rate,
                after_step=zeros.keep_zeros,
            )  # fmt: skip
    return twin.train(model.training)


def _still_there(masks: dict[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    """Masks of parameters that a later stage left in their form."""
    shapes = {name: one.shape for name, one in model.named_parameters()}
    return {name: mask for name, mask in masks.items() if shapes.get(name) == mask.shape}


def _digest(settings: str, model: nn.Module) -> str:
    from limosa.torch.digest import model_digest

    return hashlib.sha256(f"{settings} {model_digest(model).hex()}".encode()).hexdigest()


def _keep(
    folder: Path, place: str, model: nn.Module, masks: dict[str, torch.Tensor], row: Row
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with AtomicFile(folder / f"stage-{place}.pt") as file:
        torch.save({"model": model, "masks": masks, "row": json.dumps(asdict(row))}, file.file)
        file.commit()


def _load(folder: Path | None, place: str) -> tuple[nn.Module, dict[str, torch.Tensor], Row] | None:
    """What an earlier run kept; it was written here, by this user."""
    path = None if folder is None else folder / f"stage-{place}.pt"
    if path is None or not path.exists():
        return None
    kept = torch.load(path, weights_only=False)
    row = json.loads(kept["row"])
    return kept["model"], kept["masks"], Row(**{**row, "refused": tuple(row["refused"])})
