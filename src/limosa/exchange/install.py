"""Pull: what do I hold, plan, fetch, verify, decode beside the old file, swap."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from limosa.codec.base import Base
from limosa.errors import (
    AuthError,
    ChecksumError,
    ConfigError,
    CorruptError,
    FormatError,
    LimosaError,
    TransportError,
)
from limosa.exchange.copies import UnusableError, copy_held
from limosa.exchange.delivered import report
from limosa.exchange.forms import form_of
from limosa.exchange.held import Held, Inventory, alone, names_of
from limosa.exchange.on_disk import COMPRESSED, kind_of_sources, open_here
from limosa.exchange.placed import Placed, check_room
from limosa.exchange.publish import Progress
from limosa.exchange.route import check_plan, check_promise, open_route
from limosa.exchange.swap import finish_swap, restore_into
from limosa.hub.client import HubClient
from limosa.hub.file_digest import check_sha256
from limosa.hub.reference import Reference
from limosa.hub.settings import Places
from limosa.limits import Limits

# An edge that is still to be made may take so much more than its estimate.
_MARGIN, _MARGIN_BYTES = 1.25, 64 * 2**10
# So many models that are held and cannot be used are tried, before the whole is fetched.
_MOST_STARTS = 4


@dataclass(frozen=True)
class PullResult:
    """What came of a pull.

    Attributes:
        path: where the model is.
        reference: what it is, with the version's name where a tag was asked for.
        digest: of it.
        start: state that it was made from; "" for nothing.
        hops: blobs that were applied; 0 if it was there already.
        nbytes: that were fetched for the route that was taken.
        whole_nbytes: that the whole compressed model would have taken, if the hub knows.
        raw_nbytes: of the decoded tensors; None if nobody was asked.
        fallback: why the update did not do, and the whole model was fetched; "" if it did.
        copied: whether it was copied from another path of this machine.
    """

    path: str
    reference: str
    digest: str
    start: str
    hops: int
    nbytes: int
    whole_nbytes: int | None
    raw_nbytes: int | None
    fallback: str = ""
    copied: bool = False


@dataclass(frozen=True)
class Wishes:
    """What is asked for beside the reference.

    Attributes:
        quality: of a lossy copy, such as ``size=5%``; "" for the version itself.
        layer: take so many layers of the version's blob; None: all. Not of a lossy copy.
        limits: of the route: ``hops``, ``memory``, ``seconds``.
        whole: start from nothing, whatever is held.
        keep: the output stays, and is noted as held; one that is passed on is not.
    """

    quality: str = ""
    layer: int | None = None
    limits: Mapping[str, float] | None = None
    whole: bool = False
    keep: bool = True


def pull(
    client: HubClient,
    reference: Reference,
    output: str | os.PathLike[str],
    *,
    places: Places,
    wishes: Wishes | None = None,
    limits: Limits | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> PullResult:
    """Make *output* the version that *reference* means, by the fewest bytes.

    Until the last moment *output* is what it was. What was fetched before an interruption is not
    fetched again. If an update fails in any way, the whole model is fetched in the same run.

    Args:
        client: of the hub.
        reference: what is wanted.
        output: a file or a folder, which may be there already: it is what one starts from.
        places: where the cache is.
        wishes: how much of it.
        limits: what blobs may ask for.
        threads: to decode with.
        progress: whom to tell.

    Raises:
        HubError: whatever the hub says.
        ConfigError: *output* is a folder with something in it that would be lost.
        FormatError: not even the whole model was what it should be.
    """
    puller = _Puller(
        client, reference, Path(os.path.abspath(output)), places, wishes or Wishes(), limits,
        threads, progress or Progress(),
    )  # fmt: skip
    # The second pull to one output waits, and finds it done. One that does not stay has a name of
    # its own each time, and each would leave a lock.
    name = str(puller.output) if puller.wishes.keep else f"passed on: {reference}"
    with alone(places.make_cache(), name):
        return puller.run()


def pull_offline(
    reference: Reference, output: str | os.PathLike[str], *, places: Places, hub: str
) -> PullResult:
    """Make *output* a version that this machine is known to hold, without a network.

    Args:
        reference, output, places: as for :func:`pull`.
        hub: address of the hub that is not asked, and whose names count; "" for any.

    Raises:
        TransportError: it is not here, or nobody here knows what a tag means now.
    """
    place, inventory = Path(os.path.abspath(output)), Inventory(places.make_cache())
    name = str(reference)
    with alone(places.make_cache(), str(place)):
        finish_swap(place)
        placed = Placed(places.make_cache())
        fit = [
            one
            for one in inventory.all()
            if (one.reference == name and hub in ("", one.hub)) or one.digest == reference.digest
        ]
        failure: LimosaError | OSError | None = None
        # What is at the output already needs no copy.
        for found in sorted(fit, key=lambda one: one.path != str(place)):
            copied = found.path != str(place) or found.kind in ("", COMPRESSED)
            try:
                if copied:
                    kind = copy_held(place, found, guard=lambda copy: placed.replace(place, copy))
                    inventory.remember(
                        place, found.state, found.form, kind=kind,
                        reference=found.reference, hub=found.hub,
                    )  # fmt: skip
                return PullResult(
                    str(place), name, found.digest, found.state, 0, 0, None, None, copied=copied
                )
            except UnusableError as error:
                failure = failure or error.problem
    if failure is not None:
        raise failure
    raise TransportError(
        "offline, and this version is not here", where=name,
        remedy="unset LIMOSA_OFFLINE; limosa cache ls lists what is here",
    )  # fmt: skip


@dataclass(frozen=True)
class _Puller:
    client: HubClient
    reference: Reference
    output: Path
    places: Places
    wishes: Wishes
    limits: Limits | None
    threads: int | None
    told: Progress

    def run(self) -> PullResult:
        finish_swap(self.output)
        inventory = Inventory(self.places.make_cache())
        self.told.stage("looking at what is here", 0)
        here = self._here(inventory)
        want = self._want()
        held = [] if self.wishes.whole else inventory.all()
        plan = self._plan(want, held)
        target = plan["want"]["digest"]
        if here is not None and here.digest == target and here.kind != COMPRESSED:
            return self._done(inventory, plan, 0, here)
        repository = self.reference.repository
        check_room(Placed(self.places.cache), self.client, repository, want, self.output, here)
        with alone(self.places.make_cache(), target):
            now = [] if self.wishes.whole else inventory.all()
            if now != held:
                # Whoever was at it meanwhile has left a model to copy.
                held, plan = now, self._plan(want, now)
            return self._try(inventory, want, plan, held)

    def _try(
        self, inventory: Inventory, want: str, plan: dict[str, Any], held: list[Held]
    ) -> PullResult:
        """Take the route; whatever is wrong with it, a simpler one in the same run."""
        failure, tried = "", 0
        while True:
            try:
                nbytes, what = self._take(plan, held)
                done = self._done(inventory, plan, nbytes, what)
                fallback = "" if plan["start"] else failure
                return replace(done, fallback=fallback, copied=not plan["route"])
            except UnusableError as error:
                failure, tried = failure or str(error), tried + 1
                self.told.stage("what was here cannot be used; looking for another", 0)
                if isinstance(error.problem, ChecksumError):
                    inventory.forget(error.held.path)
                rest = [one for one in held if one.path != error.held.path]
                held = rest if tried < _MOST_STARTS else []
                plan = self._plan(want, held)
            except LimosaError as error:
                from_nothing = not plan["start"]
                simplest = from_nothing and len(plan["route"]) == 1
                if isinstance(error, AuthError | ConfigError) or simplest:
                    raise
                failure = failure or str(error)
                self.told.stage(f"the update failed ({error.problem}); fetching the whole", 0)
                # Of several blobs that lead from nothing to it, one may be what is wrong.
                plan, held = self._plan(want, [], {"hops": 1} if from_nothing else {}), []

    def _here(self, inventory: Inventory) -> Held | None:
        """What the output is now; None if there is none, or it is no model."""
        if not self.output.exists():
            return None
        try:
            return inventory.look(self.output, limits=self.limits, threads=self.threads)
        except LimosaError:
            return None

    def _guard(self, place: Path) -> None:
        Placed(self.places.make_cache()).replace(self.output, place)

    def _want(self) -> str:
        version = self.reference.version
        if not self.wishes.quality:
            return version
        self.told.stage("the hub makes a copy", 0)
        copy = self.client.copy(self.reference.repository, version, self.wishes.quality)
        return f"@{copy['digest']}"

    def _plan(
        self, want: str, held: Sequence[Held], bounds: Mapping[str, float] | None = None
    ) -> dict[str, Any]:
        plan = self.client.plan(
            self.reference.repository, want, names_of(held), layer=self.wishes.layer,
            limits={**(self.wishes.limits or {}), **(bounds or {})},
        )  # fmt: skip
        # A copy, and the first layers, have digests of their own that nobody knows beforehand.
        own = self.wishes.quality or self.wishes.layer is not None
        check_plan(plan, None if own else self.reference.digest)
        return plan

    def _take(self, plan: Mapping[str, Any], held: Sequence[Held]) -> tuple[int, Held]:
        """Fetch a route and decode it into the output; its bytes, and what came of it."""
        folder = self.places.make_cache() / "pulls" / plan["want"]["digest"]
        resumed = folder.exists() and any(folder.iterdir())
        try:
            done = self._fetch_and_decode(plan, held, folder)
        except FormatError:
            # What is wrong with these bytes will not mend itself.
            shutil.rmtree(folder, ignore_errors=True)
            if not resumed:
                raise
            done = self._fetch_and_decode(plan, held, folder)
        shutil.rmtree(folder, ignore_errors=True)
        return done

    def _fetch_and_decode(
        self, plan: Mapping[str, Any], held: Sequence[Held], folder: Path
    ) -> tuple[int, Held]:
        base = self._start(plan, held)
        folder.mkdir(parents=True, exist_ok=True)
        self.told.stage("fetching", plan["nbytes"])
        hops = [(self._fetch(step, folder), step["layer"] or None) for step in plan["route"]]
        what = self._decode(plan, base, hops)
        return sum(path.stat().st_size for path, _ in hops), what

    def _start(self, plan: Mapping[str, Any], held: Sequence[Held]) -> Base | Held | None:
        """What the route starts from, looked at before a byte is fetched for it; without a route,
        what is to be copied."""
        start, route = plan["start"], plan["route"]
        found = next((one for one in held if start in (one.state, one.digest)), None)
        if found is None and (start or not route):
            raise CorruptError("the route starts elsewhere", found=start[:80])
        if found is None or not route:
            return found
        try:
            base = open_here(found.path, found.kind, limits=self.limits, threads=self.threads)
            if base.digest.hex() != found.state:
                raise ChecksumError(
                    "the base of the update has changed", where=found.path,
                    found=base.digest.hex(), allowed=found.state,
                )  # fmt: skip
        except (LimosaError, OSError) as error:
            raise UnusableError(found, error) from None
        return base

    def _fetch(self, step: Mapping[str, Any], folder: Path) -> Path:
        repository, nbytes, sha256 = self.reference.repository, step["nbytes"], step["sha256"]
        unmade = folder / f"edge-{step['base'][:32]}-{step['target'][:32]}.limosa"
        if sha256 is None:
            most = int(nbytes * _MARGIN) + _MARGIN_BYTES
            self.client.fetch_edge(
                repository, step["base"], step["target"], most, unmade, self.told.advance
            )
            return unmade
        path = folder / f"{sha256}-{nbytes}.limosa"
        if unmade.exists() and not path.exists():
            # Made and kept meanwhile: what had come of it need not come again.
            os.replace(unmade, path)
        self.told.advance(path.stat().st_size if path.exists() else 0)
        self.client.fetch_blob(repository, sha256, nbytes, path, self.told.advance)
        if not step["layer"]:
            check_sha256(path, sha256)
        return path

    def _decode(
        self,
        plan: Mapping[str, Any],
        start: Base | Held | None,
        hops: Sequence[tuple[Path, int | None]],
    ) -> Held:
        want = plan["want"]
        if isinstance(start, Held):
            # It is held under another name.
            self.told.stage("copying what is here", 0)
            kind = copy_held(
                self.output, start, guard=self._guard, limits=self.limits, threads=self.threads,
                progress=self.told.advance,
            )  # fmt: skip
            return replace(start, kind=kind)
        self.told.stage("decoding", want["nbytes"])
        model = open_route(start, hops, limits=self.limits, threads=self.threads)
        check_promise(model, want["digest"])
        restore_into(self.output, model, self.limits, self.told.advance, guard=self._guard)
        kind = kind_of_sources(model.sources)
        return Held("", "", model.digest.hex(), form_of(model.sources), kind=kind)

    def _done(
        self, inventory: Inventory, plan: Mapping[str, Any], nbytes: int, what: Held
    ) -> PullResult:
        """Note what is here now, here and on the hub."""
        want, repository = plan["want"], self.reference.repository
        named = Reference(repository, want["name"] or None)
        if not want["name"]:
            named = Reference(repository, digest=want["digest"])
        if self.wishes.keep and (self.output.is_file() or self.output.is_dir()):
            inventory.remember(
                self.output, what.state, what.form, kind=what.kind, reference=str(named),
                hub=self.client.url,
            )  # fmt: skip
        report(self.client, repository, plan, nbytes, inventory.all())
        start = plan["start"] if plan["route"] else want["state"]
        return PullResult(
            str(self.output), str(named), want["digest"], start, len(plan["route"]), nbytes,
            plan["whole_nbytes"], want["nbytes"],
        )  # fmt: skip
