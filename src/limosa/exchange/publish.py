"""Push: choose a base that the hub has too, encode, send what is missing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from limosa import __version__
from limosa.codec.base import Base
from limosa.codec.joint import choose_base
from limosa.codec.quality import Quality
from limosa.errors import (
    AuthError,
    BaseMismatchError,
    ConfigError,
    ConflictError,
    FormatError,
    LimosaError,
    NotFoundError,
)
from limosa.exchange import local
from limosa.exchange.held import Held, Inventory, alone, stamp_of
from limosa.exchange.on_disk import check_pushable, open_here
from limosa.files import read
from limosa.hub.client import HubClient
from limosa.hub.file_digest import sha256_of
from limosa.hub.reference import Reference, parse_reference
from limosa.hub.settings import Places
from limosa.hub.trust import parse_scopes
from limosa.limits import Limits

_NEWEST = 4
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Description:
    """What a sender says of a version.

    Attributes:
        notes, metrics: for people.
        parents: versions that it was made from, as far as they are on the hub.
        tags: to move to it.
    """

    notes: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    parents: Sequence[str] = ()
    tags: Sequence[str] = ()


@dataclass(frozen=True)
class PushResult:
    """What came of a push.

    Attributes:
        reference: what it is called now.
        digest: of the version.
        base: name of the version that it was coded against; "" for none.
        nbytes: of the blob.
        sent: bytes that travelled in this run.
        raw_nbytes: of the model's tensors.
        known: whether the hub had it already, so that nothing was sent.
    """

    reference: str
    digest: str
    base: str
    nbytes: int
    sent: int
    raw_nbytes: int
    known: bool


@dataclass(frozen=True)
class Progress:
    """Whom to tell.

    Attributes:
        stage: is called with what begins, and how many bytes it has.
        advance: with each number of bytes done.
    """

    stage: Callable[[str, int], None] = lambda text, total: None
    advance: Advance = lambda done: None


def push(
    client: HubClient,
    model: str | os.PathLike[str],
    reference: Reference,
    *,
    places: Places,
    bases: Sequence[str | os.PathLike[str]] = (),
    layers: Sequence[Quality] = (),
    description: Description | None = None,
    threads: int | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> PushResult:
    """Make a version of *model* on the hub.

    Args:
        client: of the hub.
        model: a file or a folder.
        reference: a repository, and the name that the version shall have.
        places: where the cache is; an interrupted push goes on from there.
        bases: models to try as a base, beside those that this machine is known to hold.
        layers: qualities, coarse to fine, if receivers shall be able to take a part.
        description: for people.
        threads: to encode with.
        limits: for reading the model.
        progress: whom to tell.

    Raises:
        ConfigError: the reference has no name, or a base is not on the hub.
        ConflictError: the version exists, and is another; or the hub has the model without the
            *layers*.
        NotFoundError: there is no such parent.
        HubError: whatever the hub says.
    """
    if not reference.name:
        raise ConfigError("a version needs a name", found=str(reference), allowed="owner/name:NAME")
    told, words = progress or Progress(), description or Description()
    inventory = Inventory(places.make_cache())
    told.stage("reading", 0)
    check_pushable(model)
    held = inventory.look(model, limits=limits, threads=threads)
    _check_may_push(client, reference.repository)
    with read(model, kind=held.kind, limits=limits) as bundle:
        raw = bundle.nbytes
    # The second push of one model waits, and finds that the hub has it.
    with alone(places.make_cache(), f"push {held.digest}"):
        versions, tags = _versions(client, reference.repository)
        _check_free(reference, held, versions)
        words = replace(words, parents=_parents(client, words.parents, versions, tags))
        named = _named(bases, versions, inventory, threads, limits)
        if layers:
            _check_layers(client, reference, held, len(layers))
        if held.digest in [one["digest"] for one in versions]:
            _name(client, reference, held, words)
            _drop_blobs(places, held)
            _note(client, inventory, held, reference)
            return PushResult(str(reference), held.digest, "", 0, 0, raw, True)
        chosen = _choose(held, versions, inventory, named, threads, limits)
        state = "" if chosen is None else chosen.state
        blob = _uploads(places) / _blob_name(held, state, layers)
        for left in blob.parent.glob(f".{blob.name}.tmp-*"):
            left.unlink()  # of a push that was killed while it encoded
        if not blob.exists():
            _encode(held, blob, chosen, layers, threads, limits, told)
        nbytes, sent = _send(client, reference, held, state, blob, words, told)
        _drop_blobs(places, held)
        _note(client, inventory, held, reference)
    names = {one["state"]: one["name"] for one in versions if state}
    base = names.get(state, state)
    return PushResult(str(reference), held.digest, base, nbytes, sent, raw, False)


def _check_may_push(client: HubClient, repository: str) -> None:
    """Refuse before an hour of encoding what the hub would refuse after it."""
    who = client.whoami()
    allowed = [] if not who["scopes"] else parse_scopes(who["scopes"])
    if not any(scope.allows("push", repository) for scope in allowed):
        raise AuthError(
            "the token does not allow to push", where=repository,
            found=", ".join(who["scopes"]) or "no scopes", allowed=f"push:{repository}",
            remedy="run limosa login with a token that does",
        )  # fmt: skip


def _check_free(reference: Reference, held: Held, versions: Sequence[Mapping[str, Any]]) -> None:
    taken = next((one["digest"] for one in versions if one["name"] == reference.name), None)
    if taken not in (None, held.digest):
        raise ConflictError(
            "the version exists, and is another model", where=str(reference), found=held.digest,
            allowed=taken, remedy="a version never changes; give this one another name",
        )  # fmt: skip


def _note(client: HubClient, inventory: Inventory, held: Held, reference: Reference) -> None:
    """Remember what a model is called, unless it was changed meanwhile."""
    if stamp_of(Path(held.path)) == held.stamp:
        inventory.remember(
            held.path, held.state, held.form, kind=held.kind, reference=str(reference),
            hub=client.url,
        )  # fmt: skip


def _blob_name(held: Held, base: str, layers: Sequence[Quality]) -> str:
    # Another limosa may encode otherwise.
    key = f"{__version__} {held.digest} {base} {list(map(str, layers))}"
    return f"{held.digest[:32]}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.limosa"


def _drop_blobs(places: Places, held: Held) -> None:
    """What earlier pushes of the model left, killed before or just after the hub had it."""
    for left in _uploads(places).glob(f"*{held.digest[:32]}-*"):
        left.unlink(missing_ok=True)


def _name(client: HubClient, reference: Reference, held: Held, words: Description) -> None:
    """Give another name to what the hub has: no bytes are needed."""
    announced = {
        "version": reference.name, "digest": held.digest, "state": held.state, "base": "",
        "nbytes": 0, "sha256": hashlib.sha256(b"").hexdigest(), **_told(words),
    }  # fmt: skip
    client.begin_upload(reference.repository, announced)


def _told(words: Description) -> dict[str, Any]:
    return {
        "notes": words.notes, "metrics": dict(words.metrics), "parents": list(words.parents),
        "tags": list(words.tags),
    }  # fmt: skip


def _versions(
    client: HubClient, repository: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The versions and tags that the hub has; nothing if the repository is new."""
    try:
        found = client.repository(repository)
    except NotFoundError:
        return [], []
    return found["versions"], found["tags"]


def _parents(
    client: HubClient,
    parents: Sequence[str],
    versions: Sequence[Mapping[str, Any]],
    tags: Sequence[Mapping[str, Any]],
) -> list[str]:
    """What a version was made from: versions that there are; a tag, which moves, is the version
    that it means now."""
    names = {one["name"]: one["name"] for one in versions}
    names |= {one["digest"]: one["digest"] for one in versions}
    meant = {one["name"]: str(one["version"]) for one in tags} | names
    found = []
    for parent in parents:
        if "/" in parent:  # of another repository
            other = parse_reference(parent)
            client.version(other.repository, other.version)
        elif parent.removeprefix("@") not in meant:
            raise NotFoundError(
                "no such version to be made from", where="--parent", found=parent,
                allowed="a version of this repository, or OWNER/NAME:VERSION",
                remedy="limosa ls OWNER/NAME lists them",
            )  # fmt: skip
        found.append(meant.get(parent.removeprefix("@"), parent))
    return found


def _check_layers(client: HubClient, reference: Reference, held: Held, count: int) -> None:
    """Refuse layers that would not be sent, as the hub has the model already."""
    try:
        graph = client.get(f"/v1/repos/{reference.repository}/graph")
    except NotFoundError:
        return
    if held.digest not in [one["digest"] for one in graph["nodes"]]:
        return
    blobs = {one["sha256"] for one in graph["edges"] if one["target"] == held.digest}
    there = 1 + sum(
        one["sha256"] in blobs and one["target"] != held.digest for one in graph["edges"]
    )
    if there != count:
        raise ConflictError(
            "the hub has this model already, and layers go with the first push of a model",
            where=str(reference), found=f"{there} layers" if there > 1 else "no layers",
            allowed=f"{count} layers",
            remedy="push it without --layers; receivers may pull --quality. Or forget it first: "
            "limosa rm its versions, then limosa gc --thin",
        )  # fmt: skip


def _named(
    bases: Sequence[str | os.PathLike[str]],
    versions: Sequence[Mapping[str, Any]],
    inventory: Inventory,
    threads: int | None,
    limits: Limits | None,
) -> list[Held]:
    """The bases that somebody named, each of which the hub has to have."""
    states = [one["state"] for one in versions]
    named = [inventory.look(path, limits=limits, threads=threads) for path in bases]
    for one in named:
        if one.state not in states:
            raise ConfigError(
                "the hub does not have this base", where=one.path, remedy="push it first"
            )
    return named


def _choose(
    held: Held,
    versions: Sequence[Mapping[str, Any]],
    inventory: Inventory,
    named: Sequence[Held],
    threads: int | None,
    limits: Limits | None,
) -> Held | None:
    """The base against which the model takes the fewest bytes by a sample; None: whole."""
    states = [one["state"] for one in versions]
    here = inventory.of_states(set(states))
    # The newest ones: models of one line are nearest to the last.
    newest = [here[state] for state in dict.fromkeys(reversed(states)) if state in here]
    opened: dict[str, tuple[Held, Base]] = {}
    for one in [*named, *newest[:_NEWEST]]:
        if one.state in opened:
            continue
        try:
            base = open_here(one.path, one.kind, limits=limits, threads=threads)
            opened[one.state] = one, base
        except (LimosaError, OSError):
            # One that nobody named, and that cannot be read any more, is no candidate.
            if one in named:
                raise
    if not opened:
        return None
    candidates = [one for one, _ in opened.values()]
    with read(held.path, kind=held.kind, limits=limits) as bundle:
        choice = choose_base(bundle, [base for _, base in opened.values()], threads=threads)
    if choice.sampled[choice.number] >= choice.intra:
        return None
    return candidates[choice.number]


def _encode(
    held: Held,
    blob: Path,
    base: Held | None,
    layers: Sequence[Quality],
    threads: int | None,
    limits: Limits | None,
    told: Progress,
) -> None:
    with read(held.path, kind=held.kind, limits=limits) as bundle:
        told.stage("encoding", bundle.nbytes * max(1, len(layers)))
    start = None
    if base is not None:
        start = open_here(base.path, base.kind, limits=limits, threads=threads)
    if layers:
        local.compress_layers(
            held.path, blob, layers, base=start, threads=threads, limits=limits, kind=held.kind,
            progress=told.advance,
        )  # fmt: skip
    else:
        local.compress(
            held.path, blob, base=start, threads=threads, limits=limits, kind=held.kind,
            progress=told.advance,
        )  # fmt: skip


def _send(
    client: HubClient,
    reference: Reference,
    held: Held,
    base: str,
    blob: Path,
    words: Description,
    told: Progress,
) -> tuple[int, int]:
    """Send a blob, and remove it when the hub has it; its bytes, and those that travelled."""
    nbytes, sent = blob.stat().st_size, 0
    announced = {
        "version": reference.name, "digest": held.digest, "state": held.state, "base": base,
        "nbytes": nbytes, "sha256": sha256_of(blob), **_told(words),
    }  # fmt: skip
    try:
        upload = client.begin_upload(reference.repository, announced)
        if upload["state"] != "done":
            told.stage("sending", nbytes)
            sent = client.send(reference.repository, upload["id"], blob, told.advance)
            told.stage("the hub verifies", 0)
            client.complete(reference.repository, upload["id"])
    except (FormatError, BaseMismatchError):
        # The hub found it bad: the next push encodes anew.
        blob.unlink(missing_ok=True)
        raise
    blob.unlink(missing_ok=True)
    return nbytes, sent


def _uploads(places: Places) -> Path:
    folder = places.make_cache() / "uploads"
    folder.mkdir(exist_ok=True)
    return folder
