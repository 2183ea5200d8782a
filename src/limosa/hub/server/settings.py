"""What an operator may choose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from limosa.limits import MIB

GIB = 1024 * MIB


@dataclass(frozen=True)
class HubSettings:
    """How a hub serves.

    Attributes:
        folder: for the database and the blobs where these have no other place, and for what is
            being decoded.
        database, blobs: addresses; in *folder* if they are empty.
        anonymous: patterns of repositories that may be read without a token.
        cache_bytes: of edges that were made on demand, kept beyond the last route to a version.
        decoded_bytes: of decoded versions, kept to start from.
        max_blob_bytes: of one upload.
        max_model_bytes: of one decoded model.
        max_piece_bytes: of one request of an upload.
        max_json_bytes: of any other request.
        rate: requests a second of one token or address; 0: any.
        burst: that may come at once before the rate counts.
        jobs: models that are decoded or encoded at once, in one worker.
        threads: of each of these; None for all processors.
        accel: prefix of an internal address of nginx that serves the folder of the blobs.
        redirect: send receivers to the object storage itself.
        estimate_seconds: for finding out what an edge would take, in one plan.
        chores_seconds: between two rounds of what the hub does by itself: gc, and making the
            updates that most devices need; 0: never.
    """

    folder: Path
    database: str = ""
    blobs: str = ""
    anonymous: tuple[str, ...] = ()
    cache_bytes: int = 20 * GIB
    decoded_bytes: int = 20 * GIB
    max_blob_bytes: int = 64 * GIB
    max_model_bytes: int = 256 * GIB
    max_piece_bytes: int = 64 * MIB
    max_json_bytes: int = 4 * MIB
    rate: float = 100.0
    burst: int = 500
    jobs: int = 2
    threads: int | None = None
    accel: str | None = None
    redirect: bool = False
    estimate_seconds: float = 30.0
    chores_seconds: float = 3600.0

    @property
    def database_url(self) -> str:
        """Where the tables stand."""
        return self.database or f"sqlite:///{self.folder.resolve() / 'hub.db'}"

    @property
    def blobs_url(self) -> str:
        """Where the blobs lie."""
        return self.blobs or str(self.folder.resolve() / "blobs")
