"""What the tables hold, as the rest of the hub sees it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any


@dataclass(frozen=True)
class Bound:
    """How far a lossy copy is from what it is a copy of, as measured by decoding it.

    Attributes:
        quality: what was asked for, such as ``size=5%``.
        snr: signal-to-noise ratio in dB over the float tensors that may lose something.
        max_error: the largest error of an element of these.
    """

    quality: str
    snr: float
    max_error: float

    def to_json(self) -> dict[str, Any]:
        """As docs/hub-protocol.md has it; JSON knows no infinity: such a ratio is null.

        >>> Bound("bits=4", float("inf"), 0.0).to_json()
        {'quality': 'bits=4', 'snr': None, 'max_error': 0.0}
        """
        snr = self.snr if math.isfinite(self.snr) else None
        return {"quality": self.quality, "snr": snr, "max_error": self.max_error}


@dataclass(frozen=True)
class Node:
    """A state of a model that the graph knows.

    Attributes:
        id: in the table.
        digest, state: as of a manifest.
        nbytes: of the decoded tensors.
        copy_of: of a lossy copy, the digest of what it is a copy of.
        bound: how far from it.
    """

    id: int
    digest: str
    state: str
    nbytes: int
    copy_of: str | None = None
    bound: Bound | None = None


@dataclass(frozen=True)
class Version:
    """A node with a name that people gave it; a lossy copy has the name ``""``.

    Attributes:
        node: what it is.
        name: it never moves.
        created: seconds since 1970.
        by: who pushed it.
        notes, metrics: what the sender says of it.
        parents: digests or names that it was made from, as the sender says.
        blob_nbytes: bytes of its smallest whole blob; None if it is stored as updates only.
    """

    node: Node
    name: str
    created: float
    by: str
    notes: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    parents: Sequence[str] = ()
    blob_nbytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As docs/hub-protocol.md has it."""
        bound = self.node.bound
        return {
            "name": self.name,
            "digest": self.node.digest,
            "state": self.node.state,
            "nbytes": self.node.nbytes,
            "blob_nbytes": self.blob_nbytes,
            "created": iso(self.created),
            "by": self.by,
            "notes": self.notes,
            "metrics": dict(self.metrics),
            "parents": list(self.parents),
            "of": self.node.copy_of,
            "bound": None if bound is None else bound.to_json(),
        }


@dataclass(frozen=True)
class Tag:
    """A name that moves."""

    name: str
    version: str
    digest: str
    moved: float


@dataclass(frozen=True)
class StoredEdge:
    """A blob, or the first layers of one, that turns a state into a node.

    Attributes:
        base: state of the base; "" for a whole model.
        target: digest of the node.
        target_state: its state.
        sha256: of the blob.
        nbytes: of it up to the end of *layer*.
        layer: from 1 on; 0 for all of a blob.
        kind: pushed, made, baked, copy or shared.
        memory: bytes that a receiver needs to apply it.
        used: when last, seconds since 1970.
        uses: how often.
    """

    base: str
    target: str
    target_state: str
    sha256: str
    nbytes: int
    layer: int = 0
    kind: str = "pushed"
    memory: int = 0
    used: float = 0.0
    uses: int = 0


@dataclass(frozen=True)
class RepositoryInfo:
    """A row of the list of repositories."""

    name: str
    description: str
    versions: int
    nbytes: int
    updated: float


def iso(seconds: float | None) -> str | None:
    """A time as RFC 3339 writes it, in UTC.

    >>> iso(0.0), iso(None)
    ('1970-01-01T00:00:00Z', None)
    """
    if seconds is None:
        return None
    when = datetime.fromtimestamp(seconds, timezone.utc)
    return when.isoformat(timespec="seconds").replace("+00:00", "Z")
