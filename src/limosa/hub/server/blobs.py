"""Blobs: immutable bytes, whole or in parts, from here or from whoever is nearer."""

from __future__ import annotations

import re
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from limosa.errors import NotFoundError
from limosa.hub.digest import content_digest, is_hex
from limosa.hub.server.context import Hub, HubHere, Repository, caller_of
from limosa.hub.server.files import FileResponse
from limosa.hub.store.blobs import blob_key

router = APIRouter(tags=["reading"])
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_REDIRECT_S = 900
_TYPE = "application/vnd.limosa"


_ADDRESS = "/v1/repos/{owner}/{name}/blobs/{sha256}"
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {_TYPE: {}}},
    206: {"content": {_TYPE: {}}},
    304: {"description": "not modified"},
    307: {"description": "at the object storage"},
    416: {"description": "no such range"},
}


@router.get(_ADDRESS, operation_id="get_blob", response_class=StreamingResponse, responses=_ANSWERS)
@router.head(
    _ADDRESS, operation_id="head_blob", response_class=StreamingResponse, responses=_ANSWERS
)
async def blob(request: Request, hub: HubHere, repository: Repository, sha256: str) -> Response:
    """A blob that an edge of the repository needs."""
    # All that may wait for a database or a disk in one visit to one thread: visits take longest.
    return await run_in_threadpool(_answer, request, hub, repository, sha256)


def _answer(request: Request, hub: Hub, repository: str, sha256: str) -> Response:
    size = _look_up(request, hub, repository, sha256)
    headers = {
        "ETag": f'"{sha256}"',
        "Cache-Control": "private, max-age=31536000, immutable",
        "Accept-Ranges": "bytes",
        "Vary": "Authorization",
    }
    if _names(request.headers.get("if-none-match"), sha256):
        return Response(status_code=304, headers=headers)
    span = _span(request, size, sha256)
    if span is None:
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
    start, end = span
    elsewhere = _elsewhere(hub, sha256, headers)
    if elsewhere is not None:
        _count(hub, request, end - start)
        return elsewhere
    status = 200
    if (start, end) != (0, size):
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        headers["Repr-Digest"] = content_digest(sha256)
    else:
        headers["Content-Digest"] = content_digest(sha256)
    headers["Content-Length"] = str(end - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=_TYPE)
    path = hub.store.blobs.local_path(blob_key(sha256))
    if path is None:
        pieces = hub.store.blobs.stream(blob_key(sha256), start, end)
        answer = StreamingResponse(pieces, status, headers, _TYPE)
    else:
        answer = FileResponse(path, start, end, status, headers, _TYPE)
    _count(hub, request, end - start)
    return answer


def _look_up(request: Request, hub: Hub, repository: str, sha256: str) -> int:
    caller_of(request).require("read", repository)
    if not is_hex(sha256):
        raise NotFoundError("no such blob", where=sha256[:80])
    return hub.store.graph.blob(repository, sha256)


def _names(field: str | None, sha256: str) -> bool:
    """Whether a list of entity tags has this one."""
    tags = [tag.strip().removeprefix("W/") for tag in (field or "").split(",")]
    return f'"{sha256}"' in tags or "*" in tags


def _span(request: Request, size: int, sha256: str) -> tuple[int, int] | None:
    """The bytes that are asked for; all of them for what is no single range; None: beyond."""
    field = request.headers.get("range")
    condition = request.headers.get("if-range")
    if field is None or (condition is not None and condition != f'"{sha256}"'):
        return 0, size
    found = _RANGE.fullmatch(field.strip())
    if found is None or found[1] == found[2] == "":
        return 0, size
    if found[1] == "":
        count = int(found[2])
        return (max(0, size - count), size) if count and size else None
    start = int(found[1])
    end = min(size, int(found[2]) + 1) if found[2] else size
    if found[2] and int(found[2]) < start:
        return 0, size
    return (start, end) if start < size else None


def _elsewhere(hub: Hub, sha256: str, headers: dict[str, str]) -> Response | None:
    """An answer that leaves the bytes to nginx or to the object storage, where they may."""
    key = blob_key(sha256)
    if hub.settings.accel is not None and hub.store.blobs.local_path(key) is not None:
        # nginx answers ranges and conditions itself, by its own view of the file.
        address = f"{hub.settings.accel.rstrip('/')}/{key}"
        kept = {name: headers[name] for name in ("ETag", "Cache-Control", "Vary")}
        kept |= {name: content_digest(sha256) for name in ("Content-Digest", "Repr-Digest")}
        return Response(headers={**kept, "X-Accel-Redirect": address}, media_type=_TYPE)
    if hub.settings.redirect:
        address_there = hub.store.blobs.presigned(key, _REDIRECT_S)
        if address_there is not None:
            # Only for as long as the signature holds.
            short = {"ETag": headers["ETag"], "Cache-Control": "no-store"}
            return RedirectResponse(address_there, 307, headers=short)
    return None


def _count(hub: Hub, request: Request, nbytes: int) -> None:
    if request.method == "GET":
        hub.metrics.sent.labels("blob").inc(nbytes)
