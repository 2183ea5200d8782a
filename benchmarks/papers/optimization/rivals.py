"""What others offer for the same: torch's pruning, torch-pruning and torchao, with zip or zstd."""

from __future__ import annotations

import copy
import io
import zipfile
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils import prune

from benchmarks.papers.optimization.subjects import Row, Subject
from limosa.torch import optimize


def rows(subject: Subject, *, trained: bool = True) -> Iterator[Row]:
    """All rivals; those that are trained further only where *trained*."""
    yield subject.row("as it is, zip", "zip", subject.model, len(zipped(subject.model)))
    yield _int8_row(subject, "int8 by row, zstd", "int8", subject.model)
    yield _torchao(subject)
    if not trained:
        return
    pruned = torch_pruned(subject)
    yield subject.row("90 % pruned, zip", "torch prune", pruned, len(zipped(pruned)))
    yield _int8_row(subject, "90 % pruned, int8 by row, zstd", "torch prune", pruned)
    thinned = subject.trained(optimize.StructuredPruning(0.5).apply(subject.model, subject.context))
    way = "half of the channels"
    yield subject.row(f"{way}, zip", "torch-pruning", thinned, len(zipped(thinned)))
    yield _int8_row(subject, f"{way}, int8 by row, zstd", "torch-pruning", thinned)


def torch_pruned(subject: Subject) -> nn.Module:
    """90 % by torch's own global magnitude pruning, trained on under its masks."""
    twin = copy.deepcopy(subject.model)
    layers = [one for one in twin.modules() if isinstance(one, (nn.Linear, nn.Conv2d))]
    with torch.no_grad():  # the weights that it computes can then be copied
        prune.global_unstructured(
            [(one, "weight") for one in layers], pruning_method=prune.L1Unstructured, amount=0.9
        )
    twin = subject.training().run(twin, subject.model, {}, subject.batches)
    for one in twin.modules():
        if isinstance(one, (nn.Linear, nn.Conv2d)):
            prune.remove(one, "weight")
    return twin.eval()


def zipped(model: nn.Module) -> bytes:
    """torch.save in a zip file that is really compressed."""
    plain, packed = io.BytesIO(), io.BytesIO()
    torch.save(model.state_dict(), plain)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("model.pt", plain.getvalue())
    return packed.getvalue()


def _int8_row(subject: Subject, way: str, whose: str, model: nn.Module) -> Row:
    rounded, packed = int8(model)
    return subject.row(way, whose, rounded, len(packed))


def int8(model: nn.Module) -> tuple[nn.Module, bytes]:
    """All weights as int8 with a scale a row, as torchao has those of linear layers; zstd."""
    twin, parts = copy.deepcopy(model), []
    for name, one in twin.state_dict().items():
        if one.dim() < 2 or not one.is_floating_point():
            parts.append(one)
            continue
        matrix = one.reshape(one.shape[0], -1)
        scale = matrix.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
        levels = (matrix / scale).round().to(torch.int8)
        parts += [scale, levels]
        twin.state_dict()[name].copy_((levels * scale).reshape(one.shape))
    return twin, _zstd(parts)


def _torchao(subject: Subject) -> Row:
    """torchao's int8 with its own kernels: of linear layers, since it has none for others."""
    done = optimize.IntegerKernels(least=1).apply(subject.model, subject.context)
    tensors, _ = optimize.flat_state(done.model)
    packed = _zstd(list(tensors.values()))
    return subject.row("int8 of linear layers, zstd", "torchao", done.model, len(packed), "torchao")


def _zstd(tensors: list[torch.Tensor]) -> bytes:
    import zstandard

    plain = b"".join(one.contiguous().numpy().tobytes() for one in tensors)
    return zstandard.ZstdCompressor(level=19).compress(plain)
