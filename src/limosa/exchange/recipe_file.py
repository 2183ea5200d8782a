"""A recipe as a file of TOML names it (docs/guide/optimize.md)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from limosa.codec.config import Lossless
from limosa.errors import ConfigError, MissingExtraError
from limosa.exchange.feature_service.naming import find, find_model
from limosa.exchange.qualities import parse_quality
from limosa.files import read
from limosa.tensors import Tensor
from limosa.torch import load_file, optimize
from limosa.torch.dtypes import from_tensor
from limosa.torch.optimize.distill import Criterion, label_loss
from limosa.torch.optimize.export import KINDS
from limosa.torch.optimize.guard import Loss, check_metric
from limosa.torch.optimize.recipe import Metric, Recipe, Stage
from limosa.torch.optimize.training import Training

if sys.version_info >= (3, 11):
    import tomllib
else:
    try:
        import tomli as tomllib
    except ModuleNotFoundError:
        raise MissingExtraError.for_extra("optimize", "a recipe") from None


def _gradual(*, steps: int = 4, start: float = 0.0, **settings: Any) -> optimize.GradualPruning:
    return optimize.GradualPruning(optimize.MagnitudePruning(**settings), steps, start)


def _student(*, model: str = "", **settings: Any) -> optimize.Student:
    return optimize.Student(model=find_model(model) if model else None, **settings)


def _encoding(*, quality: str = "near-lossless", effort: int = 5) -> optimize.Encoding:
    if quality in ("near-lossless", "lossless"):
        return optimize.Encoding(Lossless() if quality == "lossless" else None, effort)
    return optimize.Encoding(parse_quality(quality))


#: What a stage may do: how it is made, and what other settings it takes than the maker names.
_TECHNIQUES: dict[str, tuple[Callable[..., Any], Any]] = {
    "prune": (optimize.MagnitudePruning, None),
    "prune-by-saliency": (optimize.SaliencyPruning, None),
    "prune-gradually": (_gradual, optimize.MagnitudePruning),
    "prune-structure": (optimize.StructuredPruning, None),
    "prune-heads": (optimize.HeadPruning, None),
    "low-rank": (optimize.LowRank, None),
    "round": (optimize.LinearRounding, None),
    "round-to-codebook": (optimize.CodebookRounding, None),
    "round-calibrated": (optimize.CalibratedRounding, None),
    "fold-norms": (optimize.BatchNormFolding, None),
    "distil": (_student, optimize.Student),
    "integer-kernels": (optimize.IntegerKernels, None),
    "encode": (_encoding, None),
}
_TOP = {
    "model",
    "weights",
    "train",
    "calibrate",
    "criterion",
    "metric",
    "example",
    "quality",
    "seed",
    "export",
    "stage",
    "search",
}


@dataclass(frozen=True)
class Searching:
    """How a search behind the stages is done.

    Attributes:
        train: after each of its steps; None: not at all.
        steps, only, exclude, ranks: as for :class:`limosa.torch.optimize.TrainedSearch`.
    """

    train: Training | None = None
    steps: int = 4
    only: str = ""
    exclude: str = ""
    ranks: bool = True


@dataclass(frozen=True)
class RecipeFile:
    """What a file says, found and loaded.

    Attributes:
        model: with its weights.
        recipe: the stages.
        context: example inputs, batches to calibrate with, loss.
        batches: to train on.
        metric: of a model.
        export: kinds of files to write at the end.
        search: how one behind the stages is done, where it is asked for.
    """

    model: nn.Module
    recipe: Recipe
    context: optimize.Context
    batches: Iterable[Any]
    metric: Metric | None
    export: tuple[str, ...]
    search: Searching


def read_recipe(path: Path, *, stages: bool = True) -> RecipeFile:
    """Read a recipe.

    Args:
        path: of the file.
        stages: whether it must have some.

    Raises:
        ConfigError: something in it is unknown, missing or impossible; the message says where.
        FormatError: the weights are damaged.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError("cannot read the recipe", where=str(path), found=str(error)) from None
    _check_names(found, _TOP, str(path))
    if "model" not in found or (stages and "stage" not in found):
        raise ConfigError("a recipe needs a model and stages", where=str(path))
    model = find_model(str(found["model"]))
    if "weights" in found:
        _load_weights(model, path.parent / str(found["weights"]))
    batches, first = _batches(found, "train")
    calibrate = batches
    if "calibrate" in found:
        calibrate, first = _batches(found, "calibrate")
    criterion = _criterion(found)
    given: Any = found.get("stage", [])
    seed: Any = found.get("seed", 0)
    if not isinstance(given, list) or not isinstance(seed, int):
        raise ConfigError(
            "stages are a list, and a seed is a whole number", where=str(path),
            remedy="begin each stage with [[stage]]",
        )  # fmt: skip
    steps = [_stage(one, f"{path}, stage {number}") for number, one in enumerate(given, 1)]
    quality = parse_quality(str(found["quality"])) if "quality" in found else None
    metric = find(str(found["metric"]), "metric") if "metric" in found else None
    if metric is not None:
        check_metric(metric, f"{path}, metric")
    context = optimize.Context(_example(found, first), calibrate, _loss(criterion))
    return RecipeFile(
        model, Recipe(steps, quality, seed, criterion), context, batches, metric,
        _kinds(found, path), _searching(found, path),
    )  # fmt: skip


def _kinds(found: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    given = found.get("export", ["safetensors", "limosa"])
    if not isinstance(given, list) or not set(map(str, given)) <= set(KINDS):
        raise ConfigError(
            "no kinds of files", where=f"{path}, export", found=repr(given),
            allowed=f"a list of {', '.join(KINDS)}",
        )  # fmt: skip
    return tuple(given)


def _searching(found: Mapping[str, Any], path: Path) -> Searching:
    given, where = found.get("search", {}), f"{path}, search"
    if not isinstance(given, dict):
        raise ConfigError("no search", where=where, found=repr(given), allowed="a table")
    made: Searching = _made(Searching, {**given, "train": _training(given, where)}, where)
    return made


def _training(given: Mapping[str, Any], where: str) -> Training | None:
    table = given.get("train")
    if not isinstance(table, dict | None):
        raise ConfigError("no training", where=where, found=repr(table), allowed="a table")
    return None if table is None else _made(Training, table, f"{where}, train")


def _stage(found: Mapping[str, Any], where: str) -> Stage:
    given = dict(found)
    kind = given.pop("do", "")
    name = str(given.pop("name", kind or "train"))
    trained = _training(given, where)
    given.pop("train", None)
    if not kind:
        if given or trained is None:
            raise ConfigError("a stage does something, or trains", where=where, found=str(found))
        return Stage(name, None, trained)
    if kind not in _TECHNIQUES:
        raise ConfigError(
            "no technique", where=where, found=repr(kind), allowed=", ".join(_TECHNIQUES)
        )
    maker, like = _TECHNIQUES[kind]
    return Stage(name, _made(maker, given, where, like), trained)


def _made(kind: Callable[..., Any], given: Mapping[str, Any], where: str, like: Any = None) -> Any:
    names = {*signature(kind).parameters, *(signature(like).parameters if like else ())}
    _check_names(given, names - {"settings", "inputs_of"}, where)
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        raise ConfigError("an impossible setting", where=where, found=str(error)) from None


def _check_names(found: Mapping[str, Any], allowed: set[str], where: str) -> None:
    unknown = sorted(set(found) - allowed)
    if unknown:
        raise ConfigError(
            "no such setting", where=where, found=unknown[0], allowed=", ".join(sorted(allowed))
        )


def _load_weights(model: nn.Module, path: Path) -> None:
    if path.suffix == ".limosa":
        state = load_file(path)
    else:
        with read(path) as bundle:
            held = {spec.name: bundle.get(spec.name) for spec in bundle.specs}
            # Copied, for torch warns of memory that cannot be written to.
            state = {
                name: from_tensor(Tensor(one.dtype, one.shape, np.array(one.data)))
                for name, one in held.items()
            }
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ConfigError(
            "weights of another model", where=str(path), found=str(error)[:300]
        ) from None


def _batches(found: Mapping[str, Any], name: str) -> tuple[Iterable[Any], Any]:
    """Batches, and the first of them; None where there are none."""
    if name not in found:
        return [], None
    made = find(str(found[name]), name)
    made = made() if callable(made) else made
    # They are gone through many times: a DataLoader is read anew for each epoch, not kept here.
    batches = list(made) if isinstance(made, Iterator) else made
    try:  # not asked whether it is an Iterable: a sequence may have __getitem__ alone
        first = next(iter(batches), None)
    except TypeError:
        first = batches
    if not isinstance(first, tuple | list) or len(first) != 2:
        raise ConfigError(
            "no batches", where=name, found=f"a first one of type {type(first).__name__}",
            allowed="pairs of inputs and labels",
        )  # fmt: skip
    return batches, first


def _example(found: Mapping[str, Any], first: Any) -> Any:
    if "example" in found:
        made = find(str(found["example"]), "example")
        return made() if callable(made) else made
    return None if first is None else first[0]


def _criterion(found: Mapping[str, Any]) -> Criterion:
    if "criterion" not in found:
        return functional.cross_entropy
    made: Any = find(str(found["criterion"]), "criterion")
    try:
        made = made() if isinstance(made, type) else made
        found_instead = "" if callable(made) else repr(made)
    except TypeError as error:
        found_instead = str(error)
    if found_instead:
        raise ConfigError(
            "no criterion", where="criterion", found=found_instead[:200],
            allowed="a function of outputs and labels, or a class of such that needs no settings",
            remedy="name a function of your own that calls it with its settings",
        )  # fmt: skip
    criterion: Criterion = made
    return criterion


def _loss(criterion: Criterion) -> Loss:
    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        inputs, labels = batch
        return label_loss(model, inputs, labels, criterion)

    return loss
