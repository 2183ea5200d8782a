"""Models and tasks as a command line names them."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from limosa.errors import ConfigError
from limosa.exchange.feature_service.cuts import TAIL, TaskLike


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
        try:
            return _exported(name)
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError("cannot read this", where=where, found=str(error)[:200]) from None
    found = find(name, where)
    if not isinstance(found, nn.Module) and callable(found):
        found = found()
    if not isinstance(found, nn.Module):
        raise ConfigError("no torch module", where=where, found=type(found).__name__)
    return found


def _exported(path: str) -> nn.Module:
    module: Any = torch.export.load(path).module()
    for node in module.graph.nodes:
        if node.op == "call_module" and node.target == "_guards_fn":
            module.graph.erase_node(node)  # it checks the sizes of the example
    # What torch.export returns refuses eval(), which its graph is in or is not.
    return fx.GraphModule(module, module.graph)


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
