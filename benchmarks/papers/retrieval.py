"""Retrieval accuracy: mean average precision over queries, by cosine similarity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from . import photos

QUERIES = 2
DATABASE = 2
SEED = 20
BATCH = 16

Describe = Callable[[torch.Tensor], torch.Tensor]
"""Crops (n, 3, side, side) in 0..1 to pooled features (n, channels)."""


def mean_average_precision(similarity: np.ndarray, relevant: np.ndarray) -> float:
    """Return the mean over queries of the average precision, from 0 to 1.

    A query's average precision is the mean, over its relevant items, of the share of relevant
    items among those ranked down to that one. Equal similarities keep the database's order.

    Args:
        similarity: float (queries, items); a greater value ranks first.
        relevant: bool (queries, items), at least one true in each row.

    Raises:
        ValueError: the shapes differ, or a query has nothing to find.

    >>> mean_average_precision(np.array([[0.9, 0.5, 0.7]]), np.array([[True, True, False]]))
    0.8333333333333333
    """
    if similarity.shape != relevant.shape:
        raise ValueError(f"similarity is {similarity.shape}, relevant is {relevant.shape}")
    if not relevant.any(axis=1).all():
        raise ValueError("a query has no relevant item in the database")
    order = np.argsort(-similarity, axis=1, kind="stable")
    hits = np.take_along_axis(relevant, order, axis=1)
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return float(np.mean((precision * hits).sum(axis=1) / hits.sum(axis=1)))


@dataclass(frozen=True, eq=False)
class RetrievalSet:
    """Queries and a database of crops; crop ``i`` shows region ``i // views``."""

    name: str
    queries: torch.Tensor
    database: torch.Tensor

    def mean_average_precision(self, describe: Describe) -> float:
        """Return the mAP (0..1) of the features that ``describe`` gives."""
        query, item = _features(describe, self.queries), _features(describe, self.database)
        label = np.arange(len(query)) // QUERIES
        item_label = np.arange(len(item)) // DATABASE
        return mean_average_precision(query @ item.T, label[:, None] == item_label[None, :])


def _features(describe: Describe, crops: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        parts = [describe(batch) for batch in crops.split(BATCH)]
    features = torch.cat(parts).double()
    return torch.nn.functional.normalize(features, dim=1).numpy()


def retrieval_sets() -> list[RetrievalSet]:
    """Build the three test sets: always the same crops, of the right halves only."""
    sets = []
    for index, (name, members) in enumerate(photos.GROUPS.items()):
        rng = np.random.default_rng([SEED, index])
        views = photos.crops(photos.regions(members, test=True), QUERIES + DATABASE, rng)
        sets.append(
            RetrievalSet(name, views[:, :QUERIES].flatten(0, 1), views[:, QUERIES:].flatten(0, 1))
        )
    return sets
