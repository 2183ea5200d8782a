"""Some tensors of a version, by ranges: the rest of its blobs stays where it is."""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from dataclasses import dataclass

from limosa.errors import ConfigError, LimosaError, TransportError
from limosa.exchange.held import Inventory, names_of
from limosa.exchange.on_disk import open_here
from limosa.exchange.route import Hop, check_plan, check_promise, open_route
from limosa.files import Restorer
from limosa.files.safetensors import bundle_from_tensors
from limosa.hub.client import HubClient
from limosa.hub.reference import Reference
from limosa.hub.settings import Places
from limosa.limits import Limits
from limosa.tensors import Tensor


@dataclass(frozen=True)
class TensorsResult:
    """What came of it: where, which, and the bytes that were fetched."""

    path: str
    reference: str
    tensors: tuple[str, ...]
    nbytes: int


class RemoteBlob:
    """A blob that is read where it is.

    Args:
        client: of the hub.
        repository: whose.
        sha256: of the blob.
        size: bytes of it that count.
    """

    def __init__(self, client: HubClient, repository: str, sha256: str, size: int) -> None:
        self._client, self._url = client, client.blob_url(repository, sha256)
        self.size, self.fetched = size, 0

    def read_at(self, offset: int, count: int) -> bytes:
        """The *count* bytes from *offset* on, fewer only at the end.

        Raises:
            TransportError: the hub answers something else.
        """
        count = min(count, self.size - offset)
        if count <= 0:
            return b""
        data = self._client.read_range(self._url, offset, count)
        if len(data) != count:
            raise TransportError("the answer is too short", where=self._url, found=str(len(data)))
        self.fetched += count
        return data


def pull_tensors(
    client: HubClient,
    reference: Reference,
    names: Sequence[str],
    output: str | os.PathLike[str],
    *,
    places: Places,
    limits: Limits | None = None,
    threads: int | None = None,
) -> TensorsResult:
    """Write some tensors of a version to a safetensors file.

    Every tensor is compared with its digest, as the blob has it.

    Raises:
        ConfigError: the version has no such tensor.
        HubError: whatever the hub says.
        FormatError: a blob is damaged.
    """
    held = Inventory(places.make_cache()).all()
    base = None
    while True:
        # Only over blobs that are there: one that is made for this would be read whole.
        plan = client.plan(
            reference.repository, reference.version, names_of(held), limits={"seconds": 0}
        )
        check_plan(plan, reference.digest)
        start = next((one for one in held if plan["start"] in (one.state, one.digest)), None)
        if start is None:
            break
        try:
            base = open_here(start.path, start.kind, limits=limits, threads=threads)
            break
        except (LimosaError, OSError):
            # It cannot be read any more: another one, or nothing, is started from.
            held = [one for one in held if one.path != start.path]
    blobs = [
        RemoteBlob(client, reference.repository, step["sha256"], step["nbytes"])
        for step in plan["route"]
    ]
    hops: list[Hop] = [
        (blob, step["layer"] or None) for blob, step in zip(blobs, plan["route"], strict=True)
    ]
    found: dict[str, Tensor] = {}
    if hops:
        model = open_route(base, hops, limits=limits, threads=threads)
        check_promise(model, plan["want"]["digest"])
        specs = {spec.name: spec for spec in model.specs}
        _check(names, specs)
        for name in names:
            got = model.get(name)
            spec = specs[name]
            found[name] = got if isinstance(got, Tensor) else Tensor(spec.dtype, spec.shape, got)
    elif base is not None:
        _check(names, base.specs)
        for name in names:
            data = base.data(name, base.specs[name])
            assert data is not None
            found[name] = Tensor(base.specs[name].dtype, base.specs[name].shape, data)
    bundle = bundle_from_tensors(found)
    with Restorer(bundle.sources, bundle.specs, os.fspath(output), limits) as restorer:
        for spec, data in bundle:
            restorer.write(spec, data)
        restorer.finish()
    fetched = sum(blob.fetched for blob in blobs)
    return TensorsResult(os.path.abspath(output), str(reference), tuple(names), fetched)


def _check(names: Sequence[str], known: Container[str]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(
                "the version has no such tensor", found=repr(name),
                remedy="limosa info REFERENCE lists them",
            )  # fmt: skip
