"""limosa's ways: each technique alone, recipes, a search, and the entropy of what is sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

import limosa
from benchmarks.papers.optimization.subjects import Row, Subject
from limosa.codec.inspect import inspect
from limosa.torch import optimize
from limosa.torch.optimize.recipe import Recipe, Stage

#: Whose speed is measured, as the issue asks for.
FASTER = (
    "half of the channels", "low rank, 40 % of the FLOPs",
    "low rank, spatial, 40 % of the FLOPs", "norms into layers",
)  # fmt: skip


def alone(subject: Subject) -> Iterator[Row]:
    """Each technique, trained further where that is usual."""
    model, context = subject.model, subject.context
    yield subject.ours("without loss", model, lossless=True)
    yield subject.ours("near-lossless", model)
    if _has_norms(subject):
        yield subject.ours("norms folded", optimize.BatchNormFolding().apply(model, context).model)
        fused = optimize.BatchNormFolding("layer").apply(model, context).model
        yield subject.ours("norms into layers", fused)
    yield _target(subject, 3)
    yield subject.ours("4 bits, linear", optimize.LinearRounding(4).apply(model).model)
    yield subject.ours("16 values, codebook", optimize.CodebookRounding(16).apply(model).model)
    calibrated = optimize.CalibratedRounding(bits=3).apply(model, context).model
    yield subject.ours("3 bits, calibrated", calibrated)
    for way, technique in {
        "90 % pruned": optimize.MagnitudePruning(0.9),
        "90 % pruned by saliency": optimize.SaliencyPruning(0.9),
        "2:4": optimize.MagnitudePruning(pattern="2:4"),
        "half of the channels": optimize.StructuredPruning(0.5),
        "low rank, 40 % of the parameters": optimize.LowRank(budget=0.4),
        "low rank, 40 % of the FLOPs": optimize.LowRank(budget=0.4, cost="flops"),
        "low rank, spatial, 40 % of the FLOPs": optimize.LowRank(
            budget=0.4, cost="flops", form="spatial", round_to=8
        ),
        "a student of half the width": optimize.Student(width=0.5, fresh=True),
    }.items():
        yield subject.ours(way, subject.trained(technique.apply(model, context)))
    yield entropy(subject)


def _target(subject: Subject, bits: int) -> Row:
    """Plain limosa: the codec alone at so many bits a weight."""
    import copy

    data = limosa.torch.save(subject.model.state_dict(), quality=limosa.Target(bits=bits))
    decoded = copy.deepcopy(subject.model)
    decoded.load_state_dict(limosa.torch.load(data))
    return subject.row(f"the codec alone, {bits} bits", "limosa", decoded, len(data))


def recipe(subject: Subject, sparsity: float, width: float | None = None) -> Recipe:
    """Narrow or not, prune in steps, round, fold, encode; trained after each of the first three."""
    stages = []
    if width is not None:
        stages.append(Stage("narrow", optimize.Student(width=width), subject.training(2e-3)))
    # In steps: what goes at once, all layers together, may take a whole layer with it.
    pruning = optimize.GradualPruning(optimize.MagnitudePruning(sparsity), steps=3)
    stages += [
        Stage("prune", pruning, subject.training(2e-3)),
        Stage("round", optimize.LinearRounding(4), subject.training(5e-4)),
    ]
    if _has_norms(subject):
        stages.append(Stage("fold", optimize.BatchNormFolding()))
    return Recipe([*stages, Stage("encode", optimize.Encoding(effort=9))])


def _has_norms(subject: Subject) -> bool:
    return any(isinstance(one, nn.BatchNorm2d) for one in subject.model.modules())


def recipes(subject: Subject, shares: Sequence[float] = (0.85, 0.95)) -> Iterator[Row]:
    """Whole recipes, then searches in as many bytes as the smallest and the largest take twice."""
    sizes = []
    for sparsity, width in [*((share, None) for share in shares), (shares[0], 0.6)]:
        todo = recipe(subject, sparsity, width)
        small = todo.run(subject.model, subject.context, batches=subject.batches)
        assert todo.data is not None
        sizes.append(len(todo.data))
        first = f"{width:.0%} wide, " if width else ""
        way = f"recipe: {first}{sparsity:.0%} pruned, 4 bits"
        yield subject.row(way, "limosa", small, len(todo.data))
    search = optimize.Search(subject.model, subject.context, subject.check)
    training = subject.training(2e-3)

    def train(model: nn.Module, masks: dict[str, torch.Tensor]) -> nn.Module:
        return training.run(model, subject.model, masks, subject.batches)

    trained = optimize.TrainedSearch(subject.model, subject.context, subject.check, train)
    for asked in (2 * min(sizes), 2 * max(sizes)):
        for how, one in (("not trained", search), ("trained", trained)):
            found = one.within(asked)
            way = f"search, {how}, {asked:,} bytes asked"
            yield subject.row(way, "limosa", found.model, found.nbytes)


def without_labels(subject: Subject) -> Iterator[Row]:
    """For a network that nobody trains anew: techniques alone, and a recipe of some minutes."""
    model, context = subject.model, subject.context
    yield subject.ours("without loss", model, lossless=True)
    yield subject.ours("near-lossless", model)
    for bits in (6, 3):
        yield _target(subject, bits)
    yield subject.ours("8 bits, linear", optimize.LinearRounding(8).apply(model).model)
    fused = optimize.BatchNormFolding("layer").apply(model, context).model
    yield subject.ours("norms into layers", fused)
    for bits in (6.0, 4.0, 3.0):
        rounded = optimize.CalibratedRounding(bits=bits, tune=2).apply(model, context).model
        yield subject.ours(f"{bits:g} bits, calibrated, norms tuned", rounded)
    pruning = optimize.GradualPruning(optimize.MagnitudePruning(0.5, scope="layer"), steps=2)
    todo = Recipe(
        [
            Stage("prune", pruning, replace(subject.training(2e-4), statistics="freeze")),
            Stage("round", optimize.CalibratedRounding(bits=3.5, tune=2)),
            Stage("fold", optimize.BatchNormFolding()),
            Stage("encode", optimize.Encoding(effort=9)),
        ]
    )
    small = todo.run(model, context, batches=subject.batches)
    assert todo.data is not None
    yield subject.row(
        "recipe: 50 % pruned, calibrated, norms folded", "limosa", small, len(todo.data)
    )


def entropy(subject: Subject) -> Row:
    """90 % zeros and 4 bits: bytes of the coded levels of all weights, and of the entropy of the
    levels, each tensor with its own frequencies."""
    done = optimize.MagnitudePruning(0.9, scope="layer").apply(subject.model).model
    done = optimize.LinearRounding(4).apply(done).model
    weights = {name: one for name, one in done.state_dict().items() if one.dim() > 1}
    data = limosa.torch.save(weights, quality=optimize.near_lossless(weights, effort=9))
    bits = 0.0
    for one in weights.values():
        _, counts = np.unique(one.numpy(), return_counts=True)
        bits += float(-(counts * np.log2(counts / counts.sum())).sum())
    row = subject.ours("90 % zeros in each layer, 4 bits, not trained", done)
    return replace(row, levels=levels_nbytes(data), entropy=bits / 8)


def levels_nbytes(data: bytes) -> int:
    """What of a file are coded levels; the rest are its index, its header and heads of frames."""
    (one,) = inspect(data)
    return sum(nbytes for tensor in one.tensors for _, nbytes in tensor.modes.values())
