"""Make a model ready to be refined, and rebuild it from an update."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.utils import parametrize

from limosa.codec.base import Base
from limosa.codec.inputs import Input
from limosa.codec.opening import Path
from limosa.codec.refinement.read import read_refinement
from limosa.codec.refinement.records import numbers_of
from limosa.errors import ConfigError
from limosa.limits import Limits
from limosa.torch.refine.methods import FilterPruning, Method, Place, RandomMask
from limosa.torch.refine.parametrizations import (
    DifferenceOf,
    PrunedRows,
    Reparametrization,
)
from limosa.torch.refine.rate import Rate
from limosa.torch.refine.session import Session, remove, state_of
from limosa.torch.refine.targets import (
    ALL_LINEAR_CONV,
    Selection,
    Selector,
    Spot,
    folded_biases,
    neighbours,
    norms_of,
    spots_of,
)
from limosa.torch.tensors import open_torch_base

# An error in a value of a norm or a bias reaches as many outputs as one in this many weights.
_WEIGHTS_OF_A_VECTOR = 64
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def prepare(
    model: nn.Module,
    method: Method | Mapping[str, Method | None],
    *,
    targets: Selector = ALL_LINEAR_CONV,
    exclude: Selector = (),
    ranks: Mapping[str, int] | None = None,
    rate: Rate | None = None,
    seed: int = 0,
    statistics: str = "send",
) -> Session:
    """Re-parameterise *model*, in place, so that what training learns is small to send.

    Every target gets *method*'s re-parameterisation, by ``torch.nn.utils.parametrize``, its
    original frozen; biases and norms move freely, but a bias that a batch norm follows stays. So
    any training loop works; give the optimizer ``session.parameters()``.

    Args:
        model: what the receiver holds, bit for bit.
        method: such as :class:`KnowledgeAugmentation` or :class:`Core`; or one for each name of a
            target, as :func:`choose` finds them, where None, or no entry, freezes it.
        targets: ``"all-linear-conv"``, a regular expression for whole names, or a list of names
            or suffixes of names, as in peft.
        exclude: the same, for parameters that stay as they are. So do those that require no
            gradient.
        ranks: regular expression of a name -> rank, in place of the method's own.
        rate: quantize in the loop, and let bits cost something.
        seed: of the random numbers that a method draws, below 2**64; travels with the update.
        statistics: of batch norms: ``"send"`` what training makes of them, or ``"freeze"`` them.

    Raises:
        ConfigError: a setting is out of range, nothing matches the targets, a layer is tied or
            parametrized in a way that cannot be refined, or a weight is not finite; the model is
            left as it was.

    >>> from limosa.torch.refine import Core
    >>> model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    >>> base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    >>> session = prepare(model, Core(r=2))
    >>> with torch.no_grad():
    ...     for parameter in session.parameters():
    ...         _ = parameter.normal_()
    >>> update = session.update()
    >>> rebuilt = reconstitute(base, update)
    >>> all(torch.equal(rebuilt[name], tensor) for name, tensor in model.state_dict().items())
    True
    """
    if statistics not in ("send", "freeze") or not 0 <= seed < 2**64:
        raise ConfigError(
            "bad setting", found=f"statistics={statistics!r}, seed={seed}",
            allowed="'send' or 'freeze', and a seed of 0 to 2**64 - 1",
        )  # fmt: skip
    _check_plain(model)
    base = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    chosen = _reparametrizations(model, method, Selection(targets, exclude, ranks), base, seed)
    required = [(p, p.requires_grad) for p in model.parameters()]
    orders = [(module, list(module._parameters)) for module in model.modules()]
    handles = [
        module.register_forward_pre_hook(_freeze)
        for module in norms_of(model)
        if statistics == "freeze"
    ]

    def undo() -> None:
        remove(model)
        for module, names in orders:  # taking a parametrization off puts its tensor last
            module._parameters = {name: module._parameters[name] for name in names}
        for handle in handles:
            handle.remove()
        for parameter, wanted in required:
            parameter.requires_grad_(wanted)

    for parameter in model.parameters():
        parameter.requires_grad_(False)
    placed: dict[str, Reparametrization] = {}
    tied: dict[str, str] = {}
    for spot, made in chosen:
        tied |= {name: spot.name for _, _, name in spot.owners}
        # A module that stands in two places has one attribute under two names.
        for module, attribute in {(id(m), a): (m, a) for m, a, _ in spot.owners}.values():
            parametrize.register_parametrization(module, attribute, made, unsafe=True)
        placed[spot.name] = made
        tied.pop(spot.name)
    return Session(model, base, placed, tied, rate, seed, undo)


def reconstitute(
    base: Mapping[str, torch.Tensor] | Path | Base, update: Input, *, limits: Limits | None = None
) -> dict[str, torch.Tensor]:
    """The state dict that *update* makes of *base*, bit for bit what the sender's model holds.

    Args:
        base: a state dict, or the path of a model.
        update: bytes, a path or a stream; of :meth:`Session.update`.
        limits: what the update may ask for.

    Raises:
        BaseMismatchError: *base* is not what the update was made from.
        FormatError: the update is damaged, or what it gives is not what was promised.
    """
    held = open_torch_base(base, limits=limits)
    with read_refinement(update, base=held, limits=limits) as rebuilt:
        return state_of(rebuilt)


def count(model: nn.Module, method: Method) -> int:
    """Values of an update as the second paper counts them, for table 1.

    For each convolution and linear layer what *method* learns and the bias; 2 C for each batch
    norm, whose statistics are not counted; for a random mask a share of all parameters.

    >>> count(nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)), RandomMask(p=0.5))
    240
    """
    total = sum(parameter.numel() for parameter in model.parameters())
    if isinstance(method, RandomMask):
        return round(method.p * total)
    selection, learned = Selection(ALL_LINEAR_CONV), 0
    spots = spots_of(model)
    targets = [spot for spot in spots if selection.is_target(spot)]
    last = targets[-1] if targets else None
    inputs_pruned = False
    for spot in spots:
        size = spot.parameter.numel()
        if spot not in targets:
            if isinstance(method, FilterPruning) and _is_norm(spot):
                size = method.kept(size)
            learned += size
            continue
        o, i = spot.parameter.shape[0], size // spot.parameter.shape[0]
        if isinstance(method, FilterPruning):
            columns = max(1, i - int(method.c * i)) if inputs_pruned else i
            learned += (o if spot is last else method.kept(o)) * columns
            inputs_pruned = True
        else:
            learned += spot.parts * method.count(o // spot.parts, i)
    return learned


def _reparametrizations(
    model: nn.Module,
    methods: Method | Mapping[str, Method | None],
    selection: Selection,
    base: Mapping[str, torch.Tensor],
    seed: int,
) -> list[tuple[Spot, Reparametrization]]:
    numbers = numbers_of(base)
    folded = folded_biases(model)
    pruned = _pruned(model, methods, selection) if isinstance(methods, FilterPruning) else {}
    chosen: list[tuple[Spot, Reparametrization]] = []
    for spot in spots_of(model):
        parameter = spot.parameter
        movable = parameter.requires_grad and parameter.numel() and parameter.dtype in _FLOATS
        if not movable or selection.is_excluded(spot) or spot.name not in numbers:
            continue
        if not torch.isfinite(parameter.detach()).all():
            raise ConfigError(
                "a weight is not finite", where=f"tensor {spot.name!r}", remedy="exclude it"
            )
        place = Place(
            spot.name, parameter.detach(), spot.parts, unit_of(spot), numbers[spot.name], seed,
            selection.rank(spot),
        )  # fmt: skip
        is_target = selection.is_target(spot)
        method = methods.get(spot.name) if isinstance(methods, Mapping) else methods
        made = _made(place, method, is_target, pruned, folded)
        if made is not None:
            chosen.append((spot, made))
    selection.check_used()
    if not chosen:
        raise ConfigError("nothing to refine", where=type(model).__name__)
    return chosen


def _made(
    place: Place,
    method: Method | None,
    is_target: bool,
    pruned: Mapping[str, torch.Tensor],
    folded: set[str],
) -> Reparametrization | None:
    if place.name in pruned:
        return PrunedRows(place.weight, place.unit, pruned[place.name])
    if place.name in folded:
        return None
    if isinstance(method, RandomMask):
        made = method.apply(place)
        return made if made.size else None
    if is_target and not isinstance(method, FilterPruning):
        return None if method is None else method.apply(place)
    return DifferenceOf(place.weight, place.unit)


def _pruned(
    model: nn.Module, method: FilterPruning, selection: Selection
) -> dict[str, torch.Tensor]:
    """The filters that stay, for each target and for the batch norm behind it."""
    after = {id(one): (path, two) for (_, one), (path, two) in neighbours(model)}
    targets = [spot for spot in spots_of(model) if selection.is_target(spot)]
    found = {}
    for spot in targets:
        norm = after.get(id(spot.module))
        if norm is None or not isinstance(spot.module, nn.modules.conv._ConvNd):
            continue
        weight = spot.parameter.detach()
        size = weight.abs().reshape(weight.shape[0], -1).sum(1)
        kept = size.topk(method.kept(weight.shape[0])).indices.sort().values
        names = [spot.name, f"{norm[0]}.weight", f"{norm[0]}.bias"]
        if getattr(spot.module, "bias", None) is not None:
            names.append(spot.name.removesuffix("weight") + "bias")
        found.update(dict.fromkeys(names, kept))
    return found


def unit_of(spot: Spot) -> float:
    """The scale of a tensor: the deviation of a weight; for vectors see the comment above."""
    values = spot.parameter.detach().double()
    size = math.sqrt(float(values.square().mean()))
    if values.dim() > 1:
        return max(size, 1e-12)
    around = [
        math.sqrt(float(p.detach().double().square().mean()))
        * (math.sqrt(p.numel() / max(p.shape[0], 1)) if p.dim() > 1 else 1.0)
        for p in spot.module.parameters(recurse=False)
    ]
    return max(*around, 1e-12, 0.0) / math.sqrt(_WEIGHTS_OF_A_VECTOR)


def _freeze(module: nn.Module, _: tuple[torch.Tensor, ...]) -> None:
    """Before each pass: a batch norm computes with its statistics, whatever ``train()`` said."""
    module.eval()


def _check_plain(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module):
            raise ConfigError(
                "a layer is parametrized already", where=f"layer {name!r}",
                remedy="finish the session, or remove_parametrizations, before another",
            )  # fmt: skip


def _is_norm(spot: Spot) -> bool:
    return isinstance(spot.module, nn.modules.batchnorm._BatchNorm)
