"""Intermediate features of a model, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from limosa.errors import ConfigError
from limosa.torch.graphs.cutting import Cutter, names_of
from limosa.torch.graphs.parts import head_graph
from limosa.torch.graphs.tracing import Example, trace


class Tap:
    """Runs a model as far as its features are needed; made by :func:`tap`.

    Attributes:
        names: of the features.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """The features of one call of the model, by name, in the order asked for.

        They keep their graph of gradients, if there is one. None shares memory with what the
        model changes in place later.
        """
        raise NotImplementedError


def tap(model: nn.Module, names: str | Sequence[str], example: Example | None = None) -> Tap:
    """What takes the arguments of a model and returns features in it as ``{name: tensor}``.

    A feature is as it was when its module returned it, or its node made it, whatever changes it
    in place later. A module's name means its first call. Nothing is computed after the last
    feature.

    Names of modules alone work with every model: the model itself runs, in the mode it is then
    in. Names of nodes (``add_3``) need a graph, traced as :func:`limosa.torch.split.split` says.

    Args:
        model: is not changed.
        names: of modules or of nodes.
        example: arguments of the model, needed for nodes if torch.fx cannot trace it.

    Raises:
        ConfigError: no such module or node, or the model cannot be traced; when called: a module
            was not called, or returned something else than one tensor.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 2))
    >>> features = tap(model, ["0", "1"])(torch.ones(5, 4))
    >>> tuple(features["0"].shape), torch.equal(features["1"], features["0"].relu())
    ((5, 8), True)
    """
    wanted = tuple(names_of(names, "names"))
    modules = dict(model.named_modules()) if isinstance(model, nn.Module) else {}
    if all(name in modules for name in wanted):
        return _HookTap(model, wanted)
    return _GraphTap(model, wanted, example)


class _Complete(BaseException):
    """All features are there. No Exception: a model that catches these should not see it."""


class _HookTap(Tap):
    """Listens to modules while the model runs."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__(names)
        self._model = model

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}

        def listen(name: str) -> Any:
            def note(module: nn.Module, inputs: Any, output: Any) -> None:
                if name not in found:
                    found[name] = _copied(name, output)
                if len(found) == len(self.names):
                    raise _Complete

            return note

        modules = [(name, self._model.get_submodule(name)) for name in self.names]
        hooks = [module.register_forward_hook(listen(name)) for name, module in modules]
        try:
            self._model(*args, **kwargs)
        except _Complete:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        missing = [name for name in self.names if name not in found]
        if missing:
            raise ConfigError(
                "the model did not call this module",
                where=f"module {missing[0]!r}",
                remedy="name one of those inside it, or a node",
            )
        return {name: found[name] for name in self.names}


def _copied(name: str, output: Any) -> torch.Tensor:
    if not isinstance(output, torch.Tensor):
        raise ConfigError(
            "the module returns something else than one tensor",
            where=f"module {name!r}",
            found=type(output).__name__,
            allowed="a tensor",
            remedy="name a node that takes it apart",
        )
    # Whether the rest of the model changes it in place cannot be seen from here.
    return output.clone()


class _GraphTap(Tap):
    """Runs the part of the model's graph that the features need."""

    def __init__(self, model: nn.Module, names: tuple[str, ...], example: Example | None) -> None:
        super().__init__(names)
        cutter = Cutter(trace(model, example))
        self._nodes = {name: self._only(name, cutter.find(name, "feature")) for name in names}
        order = tuple(dict.fromkeys(self._nodes.values()))
        graph = head_graph(cutter, cutter.plan(order), order, keep=True)
        self._order = order
        self._part = fx.GraphModule(cutter.traced.root, graph)

    @staticmethod
    def _only(name: str, nodes: list[fx.Node]) -> fx.Node:
        if len(nodes) > 1:
            raise ConfigError(
                "this returns several tensors",
                where=f"feature {name!r}",
                found=", ".join(repr(node.name) for node in nodes),
                allowed="one of these",
            )
        return nodes[0]

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        values = self._part(*args, **kwargs)
        values = values if len(self._order) > 1 else (values,)
        by_node = dict(zip(self._order, values, strict=True))
        return {name: by_node[node] for name, node in self._nodes.items()}
