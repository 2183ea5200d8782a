"""Fine-tuning for retrieval with a triplet loss, as in the paper; results are kept in a cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from . import photos
from .models import Network, State, describe, from_module, to_module

EPOCHS = 20
NEAR_EPOCH = 15
"""The version that DoM2 starts from, as in the paper."""
STEPS = 8
"""Batches in an epoch; every crop of a batch is the query of one triplet tuple."""
REGIONS = 8
VIEWS = 2
NEGATIVES = 5
MARGIN = 0.1
RATE = 0.0001
DECAY = 0.1
"""The learning rate falls by exp(-DECAY) an epoch, so the last epochs move the weights less."""
SEED = 15


def triplet_loss(features: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
    """Return the mean triplet loss of one batch.

    Each row is a query; its positive is the other crop of its region and its negatives are the
    ``NEGATIVES`` nearest crops of other regions. Distances are squared, between unit features.

    Args:
        features: float (crops, channels).
        region: int (crops,), the same number on the two crops of one region.
    """
    unit = functional.normalize(features, dim=1)
    distance = 2 - 2 * unit @ unit.T
    same = region[:, None] == region[None, :]
    positive = distance.masked_fill(~same, 0).sum(dim=1, keepdim=True)
    negative = distance.masked_fill(same, torch.inf).topk(NEGATIVES, largest=False).values
    return (positive - negative + MARGIN).relu().mean()


def fine_tune(
    network: Network,
    base: State,
    prefixes: tuple[str, ...],
    keep: Iterable[int],
    progress: Callable[[str], object],
) -> dict[int, State]:
    """Train from ``base`` on the left halves of the photographs.

    Batch norms keep their stored statistics, so what is not trained stays the same to the bit.

    Args:
        network: The network of ``base``.
        base: Weights to start from; left as they are.
        prefixes: Only parameters whose names start with one of these are trained.
        keep: Epochs (1 to ``EPOCHS``) whose weights are returned.
        progress: Called with a line of text after each epoch.
    """
    module = to_module(network, base)
    trained = []
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name.startswith(prefixes))
        if parameter.requires_grad:
            trained.append(parameter)
    optimizer = torch.optim.AdamW(trained, lr=RATE)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, np.exp(-DECAY))
    rng = np.random.default_rng(SEED)
    cut = [r for names in photos.GROUPS.values() for r in photos.regions(names, test=False)]
    kept = {}
    for epoch in range(1, EPOCHS + 1):
        losses = [_step(network, module, optimizer, cut, rng) for _ in range(STEPS)]
        schedule.step()
        progress(f"epoch {epoch}: loss {np.mean(losses):.4f}")
        if epoch in keep:
            kept[epoch] = from_module(module)
    return kept


def _step(
    network: Network,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    cut: list[photos.Region],
    rng: np.random.Generator,
) -> float:
    chosen = [cut[i] for i in rng.choice(len(cut), REGIONS, replace=False)]
    batch = photos.crops(chosen, VIEWS, rng).flatten(0, 1)
    loss = triplet_loss(describe(network, module, batch), torch.arange(len(batch)) // VIEWS)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def cached(
    folder: Path, name: str, base: State, make: Callable[[], dict[int, State]], keep: Iterable[int]
) -> dict[int, State]:
    """Return what ``make`` gives, from ``folder`` when the same base and recipe were there.

    Args:
        folder: Where the ``.npz`` files lie; made when missing.
        name: What was trained, part of the file names.
        base: Weights that the training starts from.
        make: Trains and returns the weights after each epoch of ``keep``.
        keep: Epochs to return.
    """
    digest = hashlib.blake2b(digest_size=8)
    for source in (Path(__file__), Path(photos.__file__)):
        digest.update(source.read_bytes())
    for key, array in base.items():
        digest.update(key.encode() + array.tobytes())
    files = {epoch: folder / f"{name}-{epoch}-{digest.hexdigest()}.npz" for epoch in keep}
    if not all(file.exists() for file in files.values()):
        folder.mkdir(parents=True, exist_ok=True)
        for epoch, state in make().items():
            np.savez(files[epoch], **state)  # type: ignore[arg-type]
    return {epoch: dict(np.load(file)) for epoch, file in files.items()}
