"""Models and tasks as a command line names them."""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import sys
import zipfile
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import fx, nn

from limosa.errors import ConfigError
from limosa.exchange.feature_service.cuts import TAIL, TaskLike
from limosa.files.beginnings import head_of, recognise


def find(name: str, where: str) -> Any:
    """What ``package.module:name`` names; the current folder is looked in first.

    Raises:
        ConfigError: there is no such thing.

    >>> find("math:pi", "here")
    3.14...
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ConfigError("not a name", where=where, found=name, allowed="package.module:name")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError("cannot import this", where=where, found=f"{name} ({error})") from None
    return found


def find_model(name: str) -> nn.Module:
    """A model: ``package.module:name`` of a module or of what returns one, or a ``.pt2`` file.

    Raises:
        ConfigError: it is none.
    """
    where = f"model {name!r}"
    if name.endswith(".pt2"):
        return _exported(name, where)
    found = find(name, where)
    if not isinstance(found, nn.Module) and callable(found):
        found = found()
    if not isinstance(found, nn.Module):
        raise ConfigError("no torch module", where=where, found=type(found).__name__)
    return found


def _exported(path: str, where: str) -> nn.Module:
    if not os.path.isfile(path):
        raise ConfigError("no such file", where=where, remedy="check the path")
    if not zipfile.is_zipfile(path):
        known = recognise(head_of(path))
        raise ConfigError(
            "not a file of torch.export", where=where,
            found="no zip archive" if known is None else known.name,
            remedy="fetch it again, or save it again with torch.export.save",
        )  # fmt: skip
    # torch logs its own traceback before it raises; what is raised is told, and once is enough.
    log = logging.getLogger("torch.export")
    before, log.disabled = log.disabled, True
    try:
        module: Any = torch.export.load(path).module()
    # A malformed file can make torch raise anything; it stays this file's fault.
    except Exception as error:
        raise ConfigError(
            "torch.export cannot load this", where=where, found=_said(error),
            remedy="save it again with torch.export.save, with this version of torch",
        ) from None  # fmt: skip
    finally:
        log.disabled = before
    for node in module.graph.nodes:
        if node.op == "call_module" and node.target == "_guards_fn":
            module.graph.erase_node(node)  # it checks the sizes of the example
    # What torch.export returns refuses eval(), which its graph is in or is not.
    return fx.GraphModule(module, module.graph)


def _said(error: Exception) -> str:
    """What torch says, unless that is to look at its log."""
    text = " ".join(str(error).split())[:200]
    return type(error).__name__ if not text or "warnings above" in text else text


def find_batches(name: str) -> list[Any]:
    """The batches that ``package.module:name`` is, or that it returns.

    Each is inputs (n, …), or a pair of inputs and labels.

    Raises:
        ConfigError: there is no such thing, or it is something else.
    """
    where = f"data {name!r}"
    found = find(name, where)
    allowed = "batches, or a function of nothing that returns them"
    if callable(found) and not isinstance(found, nn.Module):
        try:
            inspect.signature(found).bind()
        except TypeError as error:
            raise ConfigError("cannot call this", where=where, found=str(error)) from None
        except ValueError:
            pass  # of what is built in nobody knows the signature; the call tells
        found = found()
    single = isinstance(found, torch.Tensor) and found.ndim == 0
    if single or isinstance(found, nn.Module) or not isinstance(found, Iterable):
        kind = type(found).__name__
        raise ConfigError("no batches", where=where, found=f"a {kind}", allowed=allowed)
    batches = list(found)
    for number, batch in enumerate(batches):
        inputs = batch[0] if isinstance(batch, tuple | list) and batch else batch
        if not isinstance(inputs, torch.Tensor):
            raise ConfigError(
                "no batch", where=f"{where}, batch {number}", found=f"a {type(inputs).__name__}",
                allowed="a tensor of inputs, or a pair of inputs and labels",
            )  # fmt: skip
    return batches


def read_tasks(texts: Sequence[str]) -> dict[str, TaskLike]:
    """``NAME[@CUT]=tail`` or ``NAME[@CUT]=package.module:name``, each.

    A class of modules, or another function that takes nothing, is not called: name a module.

    Raises:
        ConfigError: one is none of these.

    >>> read_tasks(["class=tail", "find@layer3=torch:relu"])["class"]
    'tail'
    """
    tasks: dict[str, Any] = {}
    for text in texts:
        name, equals, what = text.partition("=")
        name, at, cut = name.partition("@")
        where = f"task {text!r}"
        if not equals or not what or not name or (at and not cut):
            raise ConfigError("not a task", where=where, allowed="NAME[@CUT]=tail or =module:name")
        behind = TAIL if what == TAIL else find(what, where)
        held = tasks.get(name)
        if held is not None and not (cut and isinstance(held, dict) and cut not in held):
            raise ConfigError("named twice", where=where)
        if cut:
            tasks.setdefault(name, {})[cut] = behind
        else:
            tasks[name] = behind
    return tasks
