"""What a hub asks of those who know what is in a blob (``limosa.exchange.workshop``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from limosa.hub.manifest import Manifest
from limosa.hub.store.records import Version
from limosa.hub.store.uploads import Layer


@dataclass(frozen=True)
class Verified:
    """What a blob was found to hold.

    Attributes:
        manifest: of what it decodes to.
        memory: bytes that a receiver needs to apply it.
        layers: what its prefixes give, where it has layers.
    """

    manifest: Manifest
    memory: int
    layers: tuple[Layer, ...] = ()


class Workshop(Protocol):
    """Decodes and encodes for a hub; safe to call from several threads."""

    def close(self) -> None:
        """Let what is under way end."""

    def verify(self, repository: str, blob: Path, base: str, digest: str, state: str) -> Verified:
        """Decode an upload against the version of state *base*; it must give *digest*.

        Raises:
            FormatError: the blob is damaged, hostile, or gives something else.
            BaseMismatchError: it is coded against another base.
        """

    def estimates(
        self, repository: str, bases: Sequence[str], target: str
    ) -> dict[str, tuple[int, float]]:
        """Bytes and seconds of edges that could be made: state of a base -> what it would take."""

    def edge(self, repository: str, base: str, target: str) -> Iterator[bytes]:
        """Make an edge and give its bytes while it is made; it is verified and kept at the end.

        Raises:
            NotFoundError: the repository has no such state, or no such version.
        """

    def copy(self, repository: str, digest: str, quality: str) -> Version:
        """A lossy copy of a version, made if it is not there, with a bound that was measured.

        Raises:
            ConfigError: *quality* says nothing.
        """

    def statistics(self, repository: str, digest: str, base: str | None) -> list[dict[str, Any]]:
        """Of each tensor, and of its difference from that of the version *base*."""

    def prebake(self, repository: str, *, seconds: float, dry_run: bool) -> list[dict[str, Any]]:
        """Make the edges that most devices need, those first that save most."""

    def cluster(
        self,
        references: Mapping[str, tuple[str, str]],
        *,
        apply: bool,
        progress: Callable[[str], None] | None = None,
    ) -> dict[str, Any]:
        """What a family takes from each base: reference -> repository and digest."""
