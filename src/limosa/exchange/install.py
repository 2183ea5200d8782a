"""Pull: what do I hold, plan, fetch, verify, decode beside the old file, swap."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from limosa.codec.opening import open_base
from limosa.errors import (
    AuthError,
    CorruptError,
    FormatError,
    HubError,
    LimosaError,
    TransportError,
)
from limosa.exchange.held import Held, Inventory
from limosa.exchange.publish import Progress
from limosa.exchange.route import check_promise, open_route
from limosa.exchange.swap import copy_into, finish_swap, restore_into
from limosa.hub.client import HubClient
from limosa.hub.file_digest import check_sha256
from limosa.hub.reference import Reference
from limosa.hub.settings import Places
from limosa.limits import Limits

# An edge that is still to be made may take so much more than its estimate.
_MARGIN, _MARGIN_BYTES = 1.25, 64 * 2**10


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
        raw_nbytes: of the decoded tensors.
        fallback: why the update did not do, and the whole model was fetched; "" if it did.
    """

    path: str
    reference: str
    digest: str
    start: str
    hops: int
    nbytes: int
    whole_nbytes: int | None
    raw_nbytes: int
    fallback: str = ""


@dataclass(frozen=True)
class Wishes:
    """What is asked for beside the reference.

    Attributes:
        quality: of a lossy copy, such as ``size=5%``; "" for the version itself.
        layer: take so many layers of the version's blob; None: all.
        limits: of the route: ``hops``, ``memory``, ``seconds``.
        whole: start from nothing, whatever is held.
    """

    quality: str = ""
    layer: int | None = None
    limits: Mapping[str, float] | None = None
    whole: bool = False


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
        FormatError: not even the whole model was what it should be.
    """
    puller = _Puller(
        client, reference, Path(os.path.abspath(output)), places, wishes or Wishes(), limits,
        threads, progress or Progress(),
    )  # fmt: skip
    with _alone(places, puller.output):
        return puller.run()


def pull_offline(
    reference: Reference, output: str | os.PathLike[str], *, places: Places
) -> PullResult:
    """Make *output* a version that this machine holds, without asking anybody.

    A tag may have moved since; only versions by name, and digests, are sure.

    Raises:
        TransportError: the version is not here.
    """
    place = Path(os.path.abspath(output))
    for one in Inventory(places.make_cache()).all():
        if str(reference) == one.reference or reference.digest == one.digest:
            with _alone(places, place):
                copy_into(place, Path(one.path))
            Inventory(places.cache).look(place, reference=one.reference)
            return PullResult(str(place), str(reference), one.digest, one.state, 0, 0, None, 0)
    raise TransportError(
        "offline, and no copy of it is here", where=str(reference),
        remedy="unset LIMOSA_OFFLINE; limosa cache ls shows what is here",
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
        name = f"{self.reference.repository}:{plan['want']['name'] or '@' + target[:12]}"
        if here is not None and here.digest == target:
            inventory.look(self.output, reference=name)
            self._report(inventory, plan, 0)
            return self._result(name, plan, 0)
        failure = ""
        try:
            nbytes = self._take(plan, held)
        except LimosaError as error:
            if isinstance(error, AuthError) or not plan["start"]:
                raise
            failure = str(error)
            self.told.stage(f"the update failed ({error.problem}); fetching the whole model", 0)
            plan = self._plan(want, [])
            nbytes = self._take(plan, [])
        inventory.look(self.output, reference=name, limits=self.limits, threads=self.threads)
        self._report(inventory, plan, nbytes)
        return replace(self._result(name, plan, nbytes), fallback=failure)

    def _here(self, inventory: Inventory) -> Held | None:
        """What the output is now; None if there is none, or it is no model."""
        if not self.output.exists():
            return None
        try:
            return inventory.look(self.output, limits=self.limits, threads=self.threads)
        except LimosaError:
            return None

    def _want(self) -> str:
        version = self.reference.version
        if not self.wishes.quality:
            return version
        self.told.stage("the hub makes a copy", 0)
        copy = self.client.copy(self.reference.repository, version, self.wishes.quality)
        return f"@{copy['digest']}"

    def _plan(self, want: str, held: Sequence[Held]) -> dict[str, Any]:
        have = sorted({one.digest for one in held} | {one.state for one in held})
        return self.client.plan(
            self.reference.repository, want, have, limits=self.wishes.limits,
            layer=self.wishes.layer,
        )  # fmt: skip

    def _take(self, plan: Mapping[str, Any], held: Sequence[Held]) -> int:
        """Fetch a route and decode it into the output; the bytes that it has."""
        folder = self.places.make_cache() / "pulls" / plan["want"]["digest"]
        folder.mkdir(parents=True, exist_ok=True)
        self.told.stage("fetching", plan["nbytes"])
        hops, nbytes = [], 0
        for step in plan["route"]:
            path = self._fetch(step, folder)
            hops.append((path, step["layer"] or None))
            nbytes += path.stat().st_size
        try:
            self._decode(plan, held, hops)
        except FormatError:
            # What is wrong with these bytes will not mend itself.
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)
        return nbytes

    def _fetch(self, step: Mapping[str, Any], folder: Path) -> Path:
        repository, nbytes = self.reference.repository, step["nbytes"]
        sha256 = step["sha256"]
        if sha256 is None:
            return self._fetch_unmade(step, folder)
        path = folder / f"{sha256}-{nbytes}.limosa"
        self.told.advance(path.stat().st_size if path.exists() else 0)
        self.client.fetch_blob(repository, sha256, nbytes, path, self.told.advance)
        if not step["layer"]:
            try:
                check_sha256(path, sha256)
            except FormatError:
                path.unlink()
                raise
        return path

    def _fetch_unmade(self, step: Mapping[str, Any], folder: Path) -> Path:
        """An edge that is made as it comes; one that broke off is asked for anew, and then is a
        blob soon."""
        path = folder / f"edge-{step['base'][:32]}-{step['target'][:32]}.limosa"
        most = int(step["nbytes"] * _MARGIN) + _MARGIN_BYTES
        for last in (False, False, True):
            try:
                self.client.fetch_edge(
                    self.reference.repository, step["base"], step["target"], most, path,
                    self.told.advance,
                )  # fmt: skip
                break
            except TransportError:
                if last:
                    raise
        return path

    def _decode(
        self,
        plan: Mapping[str, Any],
        held: Sequence[Held],
        hops: Sequence[tuple[Path, int | None]],
    ) -> None:
        start, want = plan["start"], plan["want"]
        base = None
        if start:
            found = next((one for one in held if start in (one.state, one.digest)), None)
            if found is None:
                raise CorruptError("the route starts elsewhere", found=start[:80])
            base = open_base(found.path, limits=self.limits, threads=self.threads)
        if not hops:
            # It is held under another name.
            assert base is not None
            source = next(one.path for one in held if start in (one.state, one.digest))
            self._copy(source)
            return
        self.told.stage("decoding", want["nbytes"])
        model = open_route(base, hops, limits=self.limits, threads=self.threads)
        check_promise(model, want["digest"])
        restore_into(self.output, model, self.limits, self.told.advance)

    def _copy(self, source: str) -> None:
        self.told.stage("copying what is here", 0)
        copy_into(self.output, Path(source))

    def _result(self, name: str, plan: Mapping[str, Any], nbytes: int) -> PullResult:
        want = plan["want"]
        start = plan["start"] if plan["route"] else want["state"]
        return PullResult(
            str(self.output), name, want["digest"], start, len(plan["route"]), nbytes,
            plan["whole_nbytes"], want["nbytes"],
        )  # fmt: skip

    def _report(self, inventory: Inventory, plan: Mapping[str, Any], nbytes: int) -> None:
        """Tell the hub, for its page; a pull does not fail because the hub does not listen."""
        repository, want = self.reference.repository, plan["want"]
        with suppress(HubError):
            if nbytes:
                body = {
                    "repository": repository, "target": want["digest"], "start": plan["start"],
                    "nbytes": nbytes,
                }  # fmt: skip
                self.client.post("/v1/deliveries", body)
            if self.client.whoami()["kind"] == "device":
                self.client.put("/v1/devices/self", {"holds": _holdings(inventory)})


def _holdings(inventory: Inventory) -> list[dict[str, str]]:
    return [
        {
            "repository": one.reference.partition(":")[0],
            "digest": one.digest,
            "path": one.path[-1000:],
        }
        for one in inventory.all()
        if one.reference
    ]


@contextmanager
def _alone(places: Places, output: Path) -> Iterator[None]:
    """One pull to one output at a time; the second waits, and finds it done."""
    folder = places.make_cache() / "locks"
    folder.mkdir(exist_ok=True)
    name = hashlib.sha256(os.fsencode(output)).hexdigest()[:32]
    with (folder / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
