"""The cuts of a model, and the tasks that begin there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from limosa.codec.feature.source import FeatureProfile, FeatureSource
from limosa.errors import ConfigError
from limosa.torch.digest import model_digest
from limosa.torch.split import split

Outputs = dict[str, torch.Tensor]
Behind = Callable[..., Any]
#: What is behind a cut: the word "tail", something to call, or one of these for each cut.
TaskLike = str | Behind | Mapping[str, str | Behind]
Profiles = FeatureProfile | Mapping[str, FeatureProfile] | None
TAIL = "tail"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, eq=False)
class Cut:
    """One cut.

    Attributes:
        at: its name, as both sides say it.
        source: what its features are of.
        names: the tensors that cross, in order.
        tasks: name -> what takes these tensors.
        alone: tasks whose outputs have no axis of the batch, found out when they run.
    """

    at: str
    source: FeatureSource
    names: tuple[str, ...]
    tasks: Mapping[str, Behind]
    alone: set[str] = field(default_factory=set)


def make_cuts(
    model: nn.Module,
    at: str | Sequence[str],
    tasks: Mapping[str, TaskLike],
    profile: Profiles = None,
    example: Any = None,
) -> dict[str, Cut]:
    """The cuts of a model by name; sets it, and the tasks, to eval mode.

    Args:
        model: is cut, by :func:`limosa.torch.split`.
        at: names of cuts; one with commas is a cut with several tensors.
        tasks: by name.
        profile: of all cuts, or by cut.
        example: of the model's arguments, where it cannot be cut without.

    Raises:
        ConfigError: a cut or a task is impossible.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> sorted(make_cuts(model, ["0", "1"], {"class": "tail"})["1"].tasks)
    ['class']
    """
    names = list(dict.fromkeys([at] if isinstance(at, str) else at))
    if not names or not tasks:
        raise ConfigError("a service needs a cut and a task")
    for task, what in tasks.items():
        _check_task(task, what, names)
    model.eval()
    digest = model_digest(model)
    cuts = {}
    for name in names:
        _, tail = split(model, name.split(","), example)
        known = profile.get(name) if isinstance(profile, Mapping) else profile
        behind = {task: _behind(what, name, tail) for task, what in tasks.items()}
        here = {task: what for task, what in behind.items() if what is not None}
        cuts[name] = Cut(name, FeatureSource(digest, name, known), tail.names, here)
    return cuts


def _check_task(name: str, what: TaskLike, cuts: Sequence[str]) -> None:
    where = f"task {name!r}"
    if not _NAME.fullmatch(name):
        raise ConfigError("bad name", where=where, allowed="64 letters, digits, '_', '.', '-'")
    if isinstance(what, Mapping):
        unknown = [cut for cut in what if cut not in cuts]
        if unknown or not what:
            raise ConfigError(
                "no such cut", where=where, found=", ".join(unknown) or "none",
                allowed=", ".join(cuts),
            )  # fmt: skip
    elif what != TAIL and len(cuts) > 1:
        raise ConfigError(
            "which cut does this task begin at?", where=where, allowed=", ".join(cuts),
            remedy="name it: NAME@CUT=… on the command line, {cut: …} in Python",
        )  # fmt: skip
    for one in what.values() if isinstance(what, Mapping) else [what]:
        if one != TAIL and not callable(one):
            raise ConfigError("no task", where=where, found=repr(one), allowed="'tail', a module")


def _behind(what: TaskLike, cut: str, tail: nn.Module) -> Behind | None:
    one = what.get(cut) if isinstance(what, Mapping) else what
    if one is None:
        return None
    if isinstance(one, nn.Module):
        one.eval()
    return tail if isinstance(one, str) else one


def outputs_of(value: Any) -> Outputs:
    """What a task returned, as tensors by name.

    Raises:
        ConfigError: it is something else.

    >>> sorted(outputs_of((torch.zeros(1), torch.ones(1))))
    ['0', '1']
    """
    if isinstance(value, torch.Tensor):
        value = {"output": value}
    elif isinstance(value, (tuple, list)):
        value = {str(number): one for number, one in enumerate(value)}
    if not isinstance(value, Mapping) or not value:
        raise ConfigError("a task returns tensors", found=type(value).__name__)
    for name, one in value.items():
        if not isinstance(one, torch.Tensor) or not isinstance(name, str):
            raise ConfigError("a task returns tensors", found=f"{name!r}: {type(one).__name__}")
    return dict(value)
