"""A model that this machine holds, put in another place: written anew where a copy would not do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from limosa.codec.opening import open_model
from limosa.errors import ChecksumError, ConfigError, LimosaError
from limosa.exchange.forms import form_of
from limosa.exchange.held import Held
from limosa.exchange.on_disk import (
    COMPRESSED,
    COPIED,
    kind_here,
    kind_of_sources,
    manifest_here,
    read_here,
    state_here,
)
from limosa.exchange.route import check_promise
from limosa.exchange.swap import Check, copy_into, restore_into
from limosa.limits import Limits


class UnusableError(Exception):
    """A model that was noted as held, and cannot be used; another one may do.

    Attributes:
        held: which.
        problem: why.
    """

    def __init__(self, held: Held, problem: LimosaError | OSError) -> None:
        super().__init__(str(problem))
        self.held, self.problem = held, problem


def copy_held(
    output: Path,
    held: Held,
    *,
    guard: Check,
    limits: Limits | None = None,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> str:
    """Make *output* the model that is held, in the form that its digest names; returns its kind.

    A compressed file is decoded. What has files beside it that its name does not tell, an ONNX
    model or an index of shards, is written as a pull from the hub would write it.

    Args:
        output: a file or a folder.
        held: what to copy; it may be what *output* is.
        guard: as for :func:`limosa.exchange.swap.restore_into`.
        limits: for reading it.
        threads: for decoding, and for digests.
        progress: is called with the number of tensor bytes done since the last call.

    Raises:
        UnusableError: it cannot be read, or is not what it was.
        ConfigError: *output* cannot be replaced.
    """
    try:
        kind = kind_here(held.path, held.kind)
        if kind == COMPRESSED:
            model = open_model(held.path, limits=limits, threads=threads, verify=True)
            check_promise(model, held.digest)
        elif kind not in COPIED:
            bundle = read_here(held.path, kind, limits=limits)
            _compare(held, held.form, form_of(bundle.sources))
    except (LimosaError, OSError) as error:
        raise UnusableError(held, error) from None
    try:
        if kind == COMPRESSED:
            restore_into(output, model, limits, progress, guard=guard)
            return kind_of_sources(model.sources)
        if kind not in COPIED:
            made = kind_of_sources(bundle.sources)

            def check(place: Path) -> None:
                state = state_here(place, made, limits=limits, threads=threads)
                _compare(held, held.state, state)

            restore_into(output, bundle, limits, progress, check=check, guard=guard)
            return made

        def check_bytes(place: Path) -> None:
            check_copy(place, held.digest, kind, limits=limits, threads=threads)

        copy_into(output, Path(held.path), check_bytes, guard)
        return kind
    except ConfigError:
        raise
    except LimosaError as error:
        raise UnusableError(held, error) from None


def check_copy(
    path: Path,
    digest: str,
    kind: str,
    *,
    limits: Limits | None = None,
    threads: int | None = None,
) -> None:
    """Compare a model with what it should be.

    Args:
        path: of the model.
        digest: of the version that it should be.
        kind: that it should be of: never a compressed file, whatever that would decode to.
        limits: for reading it.
        threads: for its digests.

    Raises:
        ChecksumError: it is another, or of another kind.
    """
    found_kind = kind_here(path, kind)
    if found_kind != kind:
        raise ChecksumError(
            "the model that was here has changed", where=str(path), found=found_kind, allowed=kind
        )
    found = manifest_here(path, kind, limits=limits, threads=threads).digest
    if found != digest:
        raise ChecksumError(
            "the model that was here has changed", where=str(path), found=found, allowed=digest
        )


def _compare(held: Held, allowed: str, found: str) -> None:
    if found != allowed:
        raise ChecksumError(
            "the model that was here has changed", where=held.path, found=found, allowed=allowed
        )
