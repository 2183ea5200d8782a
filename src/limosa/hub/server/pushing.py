"""How a version comes in: announced, sent in pieces, verified, then visible."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from limosa.errors import (
    ChecksumError,
    ConflictError,
    CorruptError,
    LimitError,
    LimosaError,
    TransportError,
)
from limosa.hub.digest import parse_content_digest, sha256_hex, version_digest
from limosa.hub.problems import UnavailableError, from_problem
from limosa.hub.server.bodies import TagBody, UploadBody
from limosa.hub.server.context import Asking, Hub, HubHere, Repository, caller_of, log
from limosa.hub.server.reading import require_version
from limosa.hub.store.uploads import Upload
from limosa.hub.trust import Caller

router = APIRouter(tags=["pushing"])
# How long a request waits for the verification before it says that it goes on.
_PATIENCE_S = 8.0
_ROOM = "/v1/repos/{owner}/{name}/uploads"


@router.post(_ROOM, status_code=201, responses={200: {"description": "under way, or done"}})
def begin(
    hub: HubHere, caller: Asking, repository: Repository, body: UploadBody, response: Response
) -> dict[str, Any]:
    """Announce a version."""
    caller.require("push", repository)
    announced = body.announced()
    if announced.nbytes > hub.settings.max_blob_bytes:
        raise LimitError(
            "too large", where=announced.version, found=f"{announced.nbytes} bytes",
            allowed=str(hub.settings.max_blob_bytes), remedy="ask the hub's operator for more",
        )  # fmt: skip
    upload = hub.store.begin_upload(repository, announced, token_id=caller.id, by=caller.name)
    response.headers["Location"] = f"/v1/repos/{repository}/uploads/{upload.id}"
    if upload.status != "open" or upload.received:
        response.status_code = 200
    if upload.status == "done":
        hub.metrics.pushes.labels("known").inc()
    return upload.to_json()


@router.head(_ROOM + "/{number}", status_code=204)
def offset(hub: HubHere, caller: Asking, repository: Repository, number: str) -> Response:
    """How many bytes have arrived."""
    caller.require("push", repository)
    upload = hub.store.uploads.get(repository, number, caller.id)
    return Response(status_code=204, headers=_progress(upload, upload.received))


@router.patch(
    _ROOM + "/{number}",
    status_code=204,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            },
        },
        "parameters": [
            {
                "name": "Upload-Offset",
                "in": "header",
                "required": True,
                "schema": {"type": "integer", "minimum": 0, "maximum": 2**62},
            }
        ],
    },
)
async def piece(request: Request, hub: HubHere, repository: Repository, number: str) -> Response:
    """The next bytes."""
    upload = await run_in_threadpool(_mine, request, hub, repository, number)
    if upload.status != "open":
        raise ConflictError("the upload takes no more bytes", found=upload.status)
    begin = _number(request.headers.get("upload-offset"))
    if begin != upload.received:
        problem = ConflictError(
            "the bytes do not follow on what is here", where=f"upload {upload.id}",
            found=f"offset {begin}", allowed=str(upload.received), remedy="go on from there",
        )  # fmt: skip
        return _conflict(problem, upload)
    with hub.pieces.room() as room:
        data = await _body(request, hub.settings.max_piece_bytes, room)
        return await _keep(request, hub, upload, begin, data)


async def _keep(request: Request, hub: Hub, upload: Upload, begin: int, data: bytes) -> Response:
    expected = parse_content_digest(request.headers.get("content-digest"))
    if expected is not None and sha256_hex(data) != expected:
        raise ChecksumError(
            "the piece changed on its way", where=f"upload {upload.id}", remedy="send it again"
        )
    await run_in_threadpool(hub.store.receive, upload, begin, data)
    hub.metrics.received.inc(len(data))
    return Response(status_code=204, headers=_progress(upload, begin + len(data)))


@router.post(_ROOM + "/{number}/complete", responses={202: {"description": "being verified"}})
async def complete(
    request: Request,
    hub: HubHere,
    caller: Asking,
    repository: Repository,
    number: str,
    response: Response,
) -> dict[str, Any]:
    """All has been sent: verify it, and let the version be seen."""
    caller.require("push", repository)
    upload = await hub.slowly(request, _complete, hub, caller, repository, number)
    if upload.status != "done":
        response.status_code = 202
        response.headers["Retry-After"] = "1"
    return upload.to_json()


def _complete(hub: Hub, caller: Caller, repository: str, number: str) -> Upload:
    upload = hub.store.uploads.get(repository, number, caller.id)
    if upload.status in ("open", "verifying"):
        if upload.received != upload.announced.nbytes:
            raise ConflictError(
                "the upload is not whole", where=f"upload {upload.id}",
                found=f"{upload.received} bytes", allowed=str(upload.announced.nbytes),
                remedy="send the rest first",
            )  # fmt: skip
        ended = _wait_for(hub, upload)
        upload = hub.store.uploads.get(repository, number, caller.id)
        if ended and upload.status == "open":
            raise UnavailableError(
                "the hub could not verify the upload now", where=f"upload {upload.id}",
                retry_after=5.0, remedy="ask again: the bytes are kept",
            )  # fmt: skip
    if upload.status == "failed":
        raise from_problem(upload.problem or {})
    return upload


@router.delete(_ROOM + "/{number}", status_code=204)
def give_up(hub: HubHere, caller: Asking, repository: Repository, number: str) -> None:
    """Forget an upload."""
    caller.require("push", repository)
    upload = hub.store.uploads.get(repository, number, caller.id)
    if upload.status == "verifying" and hub.store.locks.is_held(f"upload {upload.id}"):
        raise ConflictError("it is being verified", where=f"upload {upload.id}", remedy="wait")
    hub.store.drop_parts(upload.id)
    hub.store.uploads.remove(upload)


def _wait_for(hub: Hub, upload: Upload) -> bool:
    """Verify here, unless another worker does, and wait a while; whether it ended here."""
    if hub.stopping:
        raise UnavailableError("the hub stops", remedy="ask again in a moment")
    key = f"upload {upload.id}"
    if upload.status == "verifying" and hub.store.locks.is_held(key):
        time.sleep(min(1.0, _PATIENCE_S))
        return False
    work = hub.start(key, lambda: _verify(hub, upload, key))
    try:
        work.result(timeout=_PATIENCE_S)
    except NotYet:
        return False
    return True


def _verify(hub: Hub, upload: Upload, key: str) -> None:
    with hub.store.locks.hold(key) as mine:
        if not mine:
            return
        # Whoever had the lock before may have ended it since we looked.
        upload = hub.store.uploads.get(upload.repository, upload.id, upload.token_id)
        if upload.status not in ("open", "verifying"):
            return
        hub.store.uploads.set_status(upload, "verifying")
        try:
            with hub.metrics.work_seconds.labels("verify").time():
                _verify_and_publish(hub, upload)
        except TransportError as error:
            # Ours to mend, not the sender's: the bytes are kept, and it may be asked for again.
            hub.store.uploads.set_status(upload, "open")
            log.warning("an upload could not be verified", extra={"problem": str(error)})
            raise
        except LimosaError as error:
            hub.store.uploads.set_status(upload, "failed", error)
            hub.store.drop_parts(upload.id)
            hub.metrics.pushes.labels("failed").inc()
            log.info("an upload failed", extra={"upload": upload.id, "problem": str(error)})
        except BaseException:
            hub.store.uploads.set_status(upload, "open")
            raise
        else:
            hub.metrics.pushes.labels("done").inc()
            extra = {"repository": upload.repository, "version": upload.announced.version}
            log.info("a version was published", extra=extra)


def _verify_and_publish(hub: Hub, upload: Upload) -> None:
    announced = upload.announced
    with TemporaryDirectory(prefix="upload-", dir=hub.settings.folder / "work") as folder:
        blob = Path(folder) / "blob.limosa"
        try:
            hub.store.assemble(upload, blob)
        except OSError as error:
            raise TransportError(
                "no room to verify", found=str(error), remedy="free some, then ask again"
            ) from None
        found = hub.workshop.verify(
            upload.repository, blob, announced.base, announced.digest, announced.state
        )
        manifest = found.manifest
        if manifest.digest != announced.digest or manifest.state != announced.state:
            raise ChecksumError(
                "the blob gives another version than announced", where=announced.version,
                found=version_digest(manifest.state, manifest.form), allowed=announced.digest,
            )  # fmt: skip
        hub.store.publish(upload, manifest, blob, memory=found.memory, layers=found.layers)


@router.put("/v1/repos/{owner}/{name}/tags/{tag}")
def move_tag(
    hub: HubHere, caller: Asking, repository: Repository, tag: str, body: TagBody
) -> dict[str, Any]:
    """Let a tag mean a version."""
    from limosa.hub.reference import check_name
    from limosa.hub.store.records import iso

    caller.require("push", repository)
    moved = hub.store.catalog.move_tag(repository, check_name(tag), body.version, body.expect)
    return {**vars(moved), "moved": iso(moved.moved)}


@router.delete("/v1/repos/{owner}/{name}/tags/{tag}", status_code=204)
def remove_tag(hub: HubHere, caller: Asking, repository: Repository, tag: str) -> None:
    """Forget a tag."""
    caller.require("push", repository)
    hub.store.catalog.remove_tag(repository, tag)


@router.delete("/v1/repos/{owner}/{name}/versions/{version}", status_code=204)
def remove_version(hub: HubHere, caller: Asking, repository: Repository, version: str) -> None:
    """Forget a version."""
    caller.require("admin", repository)
    require_version(hub, repository, version)
    hub.store.catalog.remove_version(repository, version)


def _mine(request: Request, hub: Hub, repository: str, number: str) -> Upload:
    caller = caller_of(request)
    caller.require("push", repository)
    return hub.store.uploads.get(repository, number, caller.id)


def _progress(upload: Upload, received: int) -> dict[str, str]:
    return {
        "Upload-Offset": str(received),
        "Upload-Length": str(upload.announced.nbytes),
        "Cache-Control": "no-store",
    }


def _conflict(problem: LimosaError, upload: Upload) -> Response:
    from limosa.hub.problems import PROBLEM, to_problem

    headers = _progress(upload, upload.received)
    return JSONResponse(to_problem(problem), 409, headers, media_type=PROBLEM)


def _number(field: str | None) -> int:
    if field is None or not field.isascii() or not field.isdigit() or len(field) > 18:
        raise CorruptError(
            "no offset", where="Upload-Offset", found=repr(field)[:40], allowed="a count of bytes"
        )
    return int(field)


async def _body(request: Request, most: int, room: Callable[[int], None]) -> bytes:
    """All of a request's body, if it is not too long."""
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise LimitError(
                    "too many bytes in one piece", where="upload", found=f"more than {most}",
                    allowed=str(most), remedy="send smaller pieces",
                )  # fmt: skip
            room(len(part))
            parts.append(part)
    except ClientDisconnect:
        # Nobody hears this; it keeps a connection that ended out of the log of failures.
        raise TransportError("the sender went away", remedy="go on from the offset") from None
    return b"".join(parts)
