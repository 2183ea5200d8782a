"""A recipe: techniques one after the other, each measured in bytes and in the task's own metric."""

from __future__ import annotations

import hashlib
import itertools
import json
import pickle
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

import limosa
from limosa.codec.quality import Quality
from limosa.errors import ConfigError
from limosa.files.atomic import AtomicFile
from limosa.torch.digest import model_digest
from limosa.torch.optimize.calibrated import CalibratedRounding
from limosa.torch.optimize.distill import Batch, Criterion
from limosa.torch.optimize.encoding import Encoding
from limosa.torch.optimize.folding import BatchNormFolding
from limosa.torch.optimize.guard import Context, check_value, seeded, value_of
from limosa.torch.optimize.kernels import IntegerKernels
from limosa.torch.optimize.measure import measure
from limosa.torch.optimize.pruning import GradualPruning
from limosa.torch.optimize.rounding import CodebookRounding, LinearRounding
from limosa.torch.optimize.student import Student
from limosa.torch.optimize.technique import Optimized
from limosa.torch.optimize.training import Progress, Training, still_there

Metric = Callable[[nn.Module], float]
_LAST = (CalibratedRounding, BatchNormFolding, IntegerKernels, Encoding)


@dataclass(frozen=True)
class Stage:
    """One step of a recipe.

    Attributes:
        name: for the table.
        technique: what has ``apply(model, context)``; None to train only.
        training: afterwards, with :class:`GradualPruning` after each of its steps; None: none.
            Zeros of pruning stay; weights that this stage rounds are trained through its rounding
            and end on its grid, which no later training keeps.

    Raises:
        ConfigError: training behind what it would undo: calibrated rounding, folding, integer
            kernels, encoding.
    """

    name: str
    technique: Any = None
    training: Training | None = None

    def __post_init__(self) -> None:
        if self.training is not None and isinstance(self.technique, _LAST):
            raise ConfigError(
                "training would undo this stage", where=f"stage {self.name!r}",
                found=type(self.technique).__name__, remedy="train in a stage before it",
            )  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What a stage left.

    Attributes:
        stage: its name; "start" for the model as it was.
        parameters, nonzeros, flops, raw_nbytes, nbytes, metric: as of
            :class:`limosa.torch.optimize.Measures`.
        seconds: that the stage took.
        receiver_needs: beyond an ordinary runtime; "" for nothing: all was the sender's work.
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
        quality: with which models are encoded to be measured; None: without loss. A stage of
            :class:`limosa.torch.optimize.Encoding` has its own.
        seed: of everything random.
        criterion: what training makes small, of outputs and labels.

    Attributes:
        rows: what the stages left, after :meth:`run`.
        data: the file, if the last stage was one of encoding.
    """

    stages: Sequence[Stage]
    quality: Quality | None = None
    seed: int = 0
    criterion: Criterion = functional.cross_entropy
    rows: list[Row] = field(default_factory=list)
    data: bytes | None = field(default=None, repr=False)

    def run(
        self,
        model: nn.Module,
        context: Context,
        *,
        batches: Iterable[Batch] = (),
        metric: Metric | None = None,
        folder: Path | None = None,
        progress: Progress = lambda stage, done, total: None,
    ) -> nn.Module:
        """Do all stages; the rows are in :attr:`rows`.

        Args:
            model: is not changed.
            context: for the techniques, with example inputs.
            batches: inputs and labels to train on, gone through once an epoch.
            metric: of a model, such as accuracy.
            folder: what each stage leaves is kept here, and a later run of the same recipe on the
                same model goes on behind it. Other data are no other run: empty the folder.
            progress: is told the stage, how many epochs are done, and of how many.

        Raises:
            ConfigError: a stage is impossible.
        """
        with seeded(None):
            return self._run(model, context, batches, metric, folder, progress)

    def _run(
        self,
        model: nn.Module,
        context: Context,
        batches: Iterable[Batch],
        metric: Metric | None,
        folder: Path | None,
        progress: Progress,
    ) -> nn.Module:
        self.rows, self.data = [], None
        settings = f"{limosa.__version__} {self.seed} {self.quality} {model!r}"
        if folder is not None:
            settings += f" {_trained(model)} {_bytes_of(self.criterion).hex()}"
        key = _digest(settings, model)
        done = _Done(model)
        self._add(done, "start", context, metric, time.monotonic())
        if self.rows[0].metric is not None:
            check_value(self.rows[0].metric)
        for number, stage in enumerate(self.stages, 1):
            progress(stage.name, 0, _epochs(stage))
            given = getattr(stage.technique, "model", None)
            key = _digest(f"{key} {stage!r}", given if isinstance(given, nn.Module) else None)
            place = None if folder is None else folder / f"stage-{number}-{key[:16]}.pt"
            kept = _load(place, model)
            started = time.monotonic()
            if kept is not None:
                done, row = kept
                self.rows.append(
                    row if metric is None else replace(row, metric=value_of(metric, done.model))
                )
                continue
            torch.manual_seed(self.seed + number)
            done = self._do(stage, done, model, context, batches, progress)
            self._add(done, stage.name, context, metric, started)
            _keep(place, done, self.rows[-1])
        self.data = done.data
        return done.model

    def _do(
        self,
        stage: Stage,
        done: _Done,
        first: nn.Module,
        context: Context,
        batches: Iterable[Batch],
        progress: Progress,
    ) -> _Done:
        technique, training = stage.technique, stage.training
        epochs = itertools.count(1)

        def epoch(number: int, loss: float) -> None:
            progress(stage.name, next(epochs), _epochs(stage))

        def train(model: nn.Module, masks: dict[str, torch.Tensor]) -> nn.Module:
            return (
                model
                if training is None
                else training.run(model, first, masks, batches, epoch, self.criterion)
            )

        if technique is None:
            return replace(done, model=train(done.model, done.masks), refused=(), data=None)
        if training is not None and isinstance(technique, LinearRounding | CodebookRounding):
            found = technique.apply(done.model, context)  # for what it refuses
            return _after(
                done, found, technique.finish(train(technique.prepare(done.model), done.masks))
            )
        if isinstance(technique, GradualPruning):

            def step(pruned: Optimized) -> Optimized:
                masks = {**still_there(done.masks, pruned.model), **pruned.masks}
                return replace(pruned, model=train(pruned.model, masks))

            found = technique.apply(done.model, context, train=step)
            return _after(done, found, found.model)
        if isinstance(technique, Student) and technique.model is not None:
            done = _Done(done.model)  # zeros, and what the receiver needs, were the old network's
        found = technique.apply(done.model, context)
        masks = {**still_there(done.masks, found.model), **found.masks}
        return _after(done, found, train(found.model, masks))

    def _add(
        self, done: _Done, name: str, context: Context, metric: Metric | None, started: float
    ) -> None:
        seconds = time.monotonic() - started
        found = asdict(measure(done.model, context, quality=self.quality, metric=metric))
        if done.data is not None:
            found["nbytes"] = len(done.data)
        self.rows.append(
            Row(name, **found, seconds=seconds, receiver_needs=done.needs, refused=done.refused)
        )


@dataclass(frozen=True)
class _Done:
    """What the stages so far left; *data* where the last of them encoded."""

    model: nn.Module
    masks: dict[str, torch.Tensor] = field(default_factory=dict)
    needs: str = ""
    refused: tuple[str, ...] = ()
    data: bytes | None = None


def _epochs(stage: Stage) -> int:
    steps = stage.technique.steps if isinstance(stage.technique, GradualPruning) else 1
    return steps * stage.training.epochs if stage.training is not None else 0


def _after(done: _Done, found: Optimized, model: nn.Module) -> _Done:
    needs = ", ".join(dict.fromkeys(one for one in (done.needs, found.receiver_needs) if one))
    refused = tuple(f"{one.layer}: {one.why}" for one in found.refused)
    masks = {**still_there(done.masks, model), **found.masks}
    return _Done(model, masks, needs, refused, found.data)


def _bytes_of(criterion: Criterion) -> bytes:
    """A function by its name, a module or a partial with its settings."""
    try:
        return pickle.dumps(criterion)
    except (AttributeError, TypeError, pickle.PicklingError) as error:
        raise ConfigError(
            "this criterion cannot be told from another", found=str(error)[:200],
            remedy="define it in a module, or give no folder",
        ) from None  # fmt: skip


def _trained(model: nn.Module) -> str:
    """What of a model is trained, and what is in training, as training heeds both."""
    free = [one.requires_grad for one in model.parameters()]
    return f"{free} {[one.training for one in model.modules()]}"


def _digest(settings: str, model: nn.Module | None) -> str:
    weights = "" if model is None else model_digest(model).hex()
    return hashlib.sha256(f"{settings} {weights}".encode()).hexdigest()


def _keep(path: Path | None, done: _Done, row: Row) -> None:
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with AtomicFile(path) as file:
            torch.save({"done": done, "row": json.dumps(asdict(row))}, file.file)
            file.commit()
    except (AttributeError, TypeError, RuntimeError, pickle.PicklingError) as error:
        raise ConfigError(
            "what a stage left cannot be kept", where=str(path), found=str(error)[:200],
            remedy="define the model's classes in a module, take parametrisations off, or give no "
            "folder",
        ) from None  # fmt: skip


def _load(path: Path | None, model: nn.Module) -> tuple[_Done, Row] | None:
    """What an earlier run kept; it was written here, by this user."""
    if path is None or not path.exists():
        return None
    device = next((one.device for one in model.parameters()), None)
    kept = torch.load(path, map_location=device, weights_only=False)
    row = json.loads(kept["row"])
    return kept["done"], Row(**{**row, "refused": tuple(row["refused"])})
