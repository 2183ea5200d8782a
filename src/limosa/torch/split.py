"""A model cut in two: a head for the edge, a tail for the cloud."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from limosa.errors import ConfigError
from limosa.torch.graphs.cutting import Cutter, Plan, names_of
from limosa.torch.graphs.parts import Part, head_graph, tail_graph
from limosa.torch.graphs.tracing import Example, trace


class Head(Part):
    """The part of a model before a cut: takes the model's inputs, returns what crosses the cut.

    One tensor, or a tuple of them in the order of :attr:`names`.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """The nodes of the model that cross the cut, in the order in which it computes them."""
        returned = self.graph.output_node().args[0]
        nodes = returned if isinstance(returned, tuple) else (returned,)
        return tuple(str(node) for node in nodes)


class Tail(Part):
    """The part of a model behind a cut: takes what the head returns, returns what the model does.

    Several tensors come as one tuple, or as an argument each. It never changes what it is given.
    """

    def __call__(self, *features: Any) -> Any:
        """Compute the rest of the model."""
        if len(features) == 1 and isinstance(features[0], (tuple, list)):
            features = tuple(features[0])
        if len(features) != len(self.names):
            raise ConfigError(
                "the tail needs other tensors",
                where="Tail",
                found=f"{len(features)} of them",
                allowed=f"{len(self.names)}: {', '.join(self.names)}",
            )
        return super().__call__(*features)

    @property
    def names(self) -> tuple[str, ...]:
        """The nodes of the model that cross the cut, as of the :class:`Head`."""
        return tuple(str(node.target) for node in self.graph.nodes if node.op == "placeholder")


def split(
    model: nn.Module, at: str | Sequence[str], example: Example | None = None
) -> tuple[Head, Tail]:
    """Cut a model into a head and a tail that together compute what it computes, to the bit.

    Both share the model's modules, parameters and buffers: training either trains the model, and
    ``head.eval()`` is seen by it. :func:`copy.deepcopy` and pickle give independent parts. The
    keys of their state dicts are the model's own, so either loads from a checkpoint of the model
    with those keys; a module that both call stands in both.

    The tensors that cross come in the order in which the model computes them, whatever the order
    of *at*. An input that the model uses behind the cut crosses it too. A module's name means
    what it returns when it is first called; a later call has a node of its own (``relu_1``).

    The model is traced by torch.fx, in the mode it is in: what reads ``self.training`` in a
    ``forward`` stays as it is now. Arguments that are not tensors keep their defaults, or the
    values of *example*. If torch.fx cannot trace it, torch.export does with the sizes of
    *example*, but for the batch if there is more than one in it; nodes are then called after
    ATen's operators (``conv2d``, ``relu_1``). In train mode, what draws random numbers draws the
    same ones as the model only if the head's come first there too. Contexts that a ``forward``
    enters, such as autocast, are not in a graph of torch.fx.

    Args:
        model: is not changed.
        at: name of a module (``"layer3"``) or of a node of its graph (``"add_3"``), or names of
            all tensors that cross.
        example: a tensor, a tuple of arguments or a dict of them by name. Needed if torch.fx
            cannot trace the model, and if a size of an early tensor is used behind the cut:
            ``x.view(image.size(0), -1)`` will do without the image, as a run without data for
            several sizes of the batch shows.

    Raises:
        ConfigError: the model cannot be traced; it has no such module or node; other tensors
            cross the cut as well, which the error names; or a tensor does not.

    >>> import torch
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
    >>> head, tail = split(model.eval(), at="1")
    >>> image = torch.zeros(1, 3, 8, 8)
    >>> tuple(head(image).shape), torch.equal(tail(head(image)), model(image))
    ((1, 8, 6, 6), True)
    >>> list(tail.state_dict())
    ['3.weight', '3.bias']
    """
    names = names_of(at, "at")
    return split_at(Cutter(trace(model, example)), names)


def split_at(cutter: Cutter, names: Sequence[str]) -> tuple[Head, Tail]:
    """As :func:`split`, for a model that is traced already."""
    chosen = {node for name in names for node in cutter.find(name, "at")}
    plan = cutter.plan(chosen)
    where = f"at {', '.join(map(repr, names))}"
    _check_crossing(plan, {node.name for node in chosen}, where, cutter.traced.values is not None)
    _check_memory(cutter, plan, where)
    root = cutter.traced.root
    head = Head(root, head_graph(cutter, plan, plan.crossing))
    return head, Tail(root, tail_graph(cutter, plan))


def _check_crossing(plan: Plan, chosen: set[str], where: str, has_example: bool) -> None:
    others = [name for name in plan.names if name not in chosen]
    if others:
        raise ConfigError(
            "the cut does not separate the model",
            where=where,
            found=f"other tensors that cross it: {', '.join(map(repr, others))}",
            allowed="all tensors that cross, by name",
            remedy=f"pass at={list(plan.names)}, or choose another of cuts(model, example)",
        )
    unused = chosen.difference(plan.names)
    if unused:
        raise ConfigError(
            "nothing behind the cut uses these",
            where=where,
            found=", ".join(map(repr, sorted(unused))),
            allowed=f"{', '.join(map(repr, plan.names)) or 'none'} of these",
            remedy="leave them out",
        )
    if plan.unresolved:
        raise ConfigError(
            "a size from before the cut is used behind it",
            where=where,
            found=", ".join(repr(node.name) for node in plan.unresolved),
            allowed="the size of the batch, if a tensor that crosses has it",
            remedy="choose another of cuts(model, example)" if has_example else "pass example=",
        )


def _check_memory(cutter: Cutter, plan: Plan, where: str) -> None:
    """Refuse views of one memory that the tail changes: they would cross as separate tensors."""
    shared = [node.name for node in cutter.entangled(plan)]
    if shared:
        raise ConfigError(
            "tensors that cross the cut share memory, which is changed in place behind it",
            where=where,
            found=", ".join(map(repr, shared)),
            remedy="choose another of cuts(model, example)",
        )
