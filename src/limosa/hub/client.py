"""A hub, from the side of who pushes and pulls (docs/hub-protocol.md)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from limosa.errors import (
    ChecksumError,
    LimitError,
    MissingExtraError,
    TransportError,
)
from limosa.hub.connection import TRIES, Connection, unreachable
from limosa.hub.digest import content_digest

try:
    import httpx
except ModuleNotFoundError:
    raise MissingExtraError.for_extra("hub", "a hub's client") from None

_PIECE = 8 * 2**20
Progress = Callable[[int], None]


class HubClient(Connection):
    """Says to a hub what docs/hub-protocol.md has.

    Args:
        url, token, timeout, pause: as for :class:`limosa.hub.connection.Connection`.

    >>> HubClient("http://localhost:8470/").url
    'http://localhost:8470'
    """

    def whoami(self) -> dict[str, Any]:
        """Name, kind and scopes of the token."""
        return self.json("GET", "/v1/whoami")

    def repositories(self) -> list[dict[str, Any]]:
        """All that the token may read."""
        found: list[dict[str, Any]] = self.json("GET", "/v1/repos")["repositories"]
        return found

    def repository(self, name: str) -> dict[str, Any]:
        """Versions and tags of a repository."""
        return self.json("GET", f"/v1/repos/{name}")

    def version(self, repository: str, reference: str) -> dict[str, Any]:
        """A version with its manifest."""
        return self.json("GET", f"/v1/repos/{repository}/versions/{quote(reference, safe='@')}")

    def plan(
        self,
        repository: str,
        want: str,
        have: Sequence[str] = (),
        *,
        limits: Mapping[str, float] | None = None,
        layer: int | None = None,
    ) -> dict[str, Any]:
        """The fewest bytes from what is held to what is wanted."""
        body = {"want": want, "have": list(have), "limits": dict(limits or {}), "layer": layer}
        return self.json("POST", f"/v1/repos/{repository}/plan", json=body)

    def copy(self, repository: str, want: str, quality: str) -> dict[str, Any]:
        """A lossy copy of a version."""
        body = {"want": want, "quality": quality}
        return self.json("POST", f"/v1/repos/{repository}/copies", json=body)

    def move_tag(
        self, repository: str, tag: str, version: str, expect: str | None
    ) -> dict[str, Any]:
        """Let a tag mean a version."""
        body = {"version": version, "expect": expect}
        return self.json("PUT", f"/v1/repos/{repository}/tags/{quote(tag)}", json=body)

    def remove_tag(self, repository: str, tag: str) -> None:
        """Forget a tag."""
        self.json("DELETE", f"/v1/repos/{repository}/tags/{quote(tag)}")

    def remove_version(self, repository: str, version: str) -> None:
        """Forget a version."""
        self.json("DELETE", f"/v1/repos/{repository}/versions/{quote(version)}")

    def get(self, path: str) -> dict[str, Any]:
        """Any other answer: tokens, devices."""
        return self.json("GET", path)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Any other request that changes something: gc, fsck, cluster, tokens, devices."""
        return self.json("POST", path, json=dict(body), timeout=None)

    def put(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """As :meth:`post`, of what takes the place of something."""
        return self.json("PUT", path, json=dict(body))

    def delete(self, path: str) -> None:
        """Remove what has that address."""
        self.json("DELETE", path)

    def blob_url(self, repository: str, sha256: str) -> str:
        """Where a blob is."""
        return f"{self.url}/v1/repos/{repository}/blobs/{sha256}"

    def fetch_blob(
        self,
        repository: str,
        sha256: str,
        nbytes: int,
        path: Path,
        progress: Progress | None = None,
    ) -> None:
        """Fetch the first *nbytes* of a blob to *path*; what is there already is not fetched again.

        The caller checks what it holds: of a prefix nobody knows a digest beforehand.

        Raises:
            TransportError: it ended too early again and again; what came is kept.
            LimitError: more comes than was said.
        """
        tries = 0
        while (have := path.stat().st_size if path.exists() else 0) < nbytes:
            try:
                self._fetch_rest(repository, sha256, have, nbytes, path, progress)
                if path.stat().st_size < nbytes:
                    raise TransportError("it ended too early", where=f"blob {sha256[:16]}")
            except TransportError as error:
                grew = (path.stat().st_size if path.exists() else 0) > have
                tries = 1 if grew else tries + 1
                if tries >= TRIES:
                    raise
                self.sleep(tries, error)

    def _fetch_rest(
        self,
        repository: str,
        sha256: str,
        have: int,
        nbytes: int,
        path: Path,
        progress: Progress | None,
    ) -> None:
        headers = {**self._headers, "Accept-Encoding": "identity", "If-Range": f'"{sha256}"'}
        headers["Range"] = f"bytes={have}-{nbytes - 1}"
        with self.streaming("GET", self.blob_url(repository, sha256), headers) as answer:
            skip = 0 if answer.status_code == 206 else have
            if answer.status_code == 206:
                _check_range(answer, have)
            with path.open("ab") as file:
                # As they come: of a connection that breaks, nothing that came is lost.
                for piece in answer.iter_bytes():
                    taken = piece[skip:]
                    skip = max(0, skip - len(piece))
                    room = nbytes - file.tell()
                    if len(taken) > room and answer.status_code == 206:
                        raise LimitError("more bytes than announced", where=f"blob {sha256[:16]}")
                    file.write(taken[:room])
                    if progress is not None:
                        progress(min(len(taken), room))
                    if room <= len(taken):
                        return

    def read_range(self, url: str, offset: int, count: int) -> bytes:
        """Some bytes of a blob.

        Raises:
            TransportError: it broke off again and again, or the hub answers no ranges.
        """
        headers = {**self._headers, "Accept-Encoding": "identity"}
        headers["Range"] = f"bytes={offset}-{offset + count - 1}"
        for attempt in range(1, TRIES + 1):
            try:
                with self.streaming("GET", url, headers) as answer:
                    if answer.status_code != 206 and offset:
                        raise TransportError("the hub answers no ranges", where=url)
                    parts, size = [], 0
                    for piece in answer.iter_bytes():
                        parts.append(piece)
                        size += len(piece)
                        if size >= count:
                            break
                    return b"".join(parts)[:count]
            except TransportError as error:
                if attempt == TRIES:
                    raise
                self.sleep(attempt, error)
        raise AssertionError("unreachable")  # pragma: no cover

    def fetch_edge(
        self,
        repository: str,
        base: str,
        target: str,
        most: int,
        path: Path,
        progress: Progress | None = None,
    ) -> None:
        """Fetch an edge to *path* while it is made.

        Args:
            most: bytes that are taken; whoever is told of fewer and sends more is cut off.

        Raises:
            TransportError: it broke off again and again; asked for again, it is soon a blob.
            LimitError: it is longer than *most*.
        """
        for attempt in range(1, TRIES + 1):
            try:
                self._fetch_edge(repository, {"base": base, "target": target}, most, path, progress)
                return
            except TransportError as error:
                if attempt == TRIES:
                    raise
                self.sleep(attempt, error)

    def _fetch_edge(
        self,
        repository: str,
        body: Mapping[str, str],
        most: int,
        path: Path,
        progress: Progress | None,
    ) -> None:
        address = f"{self.url}/v1/repos/{repository}/edges"
        asked = self.streaming("POST", address, self._headers, body)
        with asked as answer, path.open("wb") as file:
            for piece in answer.iter_bytes():
                if file.tell() + len(piece) > most:
                    raise LimitError(
                        "the edge is longer than it may be", where=f"edge to {body['target'][:16]}",
                        found=f"more than {most} bytes",
                    )  # fmt: skip
                file.write(piece)
                if progress is not None:
                    progress(len(piece))

    def begin_upload(self, repository: str, announced: Mapping[str, Any]) -> dict[str, Any]:
        """Announce a version; the upload that is to be sent."""
        return self.json("POST", f"/v1/repos/{repository}/uploads", json=dict(announced))

    def send(
        self, repository: str, upload: str, path: Path, progress: Progress | None = None
    ) -> int:
        """Send a file from where the hub has it on; returns the bytes that travelled.

        Raises:
            TransportError: it broke off again and again; the next call goes on.
        """
        address = f"{self.url}/v1/repos/{repository}/uploads/{upload}"
        size, sent, tries = path.stat().st_size, 0, 0
        offset = self._offset(address)
        if progress is not None:
            progress(offset)
        with path.open("rb") as file:
            while offset < size:
                file.seek(offset)
                data = file.read(_PIECE)
                try:
                    self._send_piece(address, offset, data)
                except (ChecksumError, TransportError) as error:
                    tries += 1
                    if tries >= TRIES:
                        raise
                    self.sleep(tries, error)
                    offset = self._offset(address)
                    continue
                tries, sent, offset = 0, sent + len(data), offset + len(data)
                if progress is not None:
                    progress(len(data))
        return sent

    def _offset(self, address: str) -> int:
        field = self.request("HEAD", address).headers.get("upload-offset", "")
        if not field.isascii() or not field.isdigit():
            raise TransportError("no answer of a hub", where=address, found=repr(field)[:40])
        return int(field[:18])

    def _send_piece(self, address: str, offset: int, data: bytes) -> None:
        digest = content_digest(hashlib.sha256(data).hexdigest())
        headers = {
            **self._headers, "Upload-Offset": str(offset), "Content-Digest": digest,
            "Content-Type": "application/octet-stream",
        }  # fmt: skip
        try:
            answer = self._bounded("PATCH", address, content=data, headers=headers)
        except httpx.TransportError as error:
            raise unreachable(address, error) from None
        if answer.status_code == 409 and "upload-offset" in answer.headers:
            raise TransportError("the hub has another offset", where=address)
        if answer.status_code >= 400:
            raise self.problem(answer)

    def complete(
        self, repository: str, upload: str, waiting: Callable[[], None] | None = None
    ) -> dict[str, Any]:
        """Wait until the hub has verified an upload.

        Raises:
            LimosaError: what the hub found wrong with it.
        """
        while True:
            found = self.json("POST", f"/v1/repos/{repository}/uploads/{upload}/complete")
            if found["state"] == "done":
                return found
            if waiting is not None:
                waiting()
            time.sleep(min(1.0, self._pause * 2))


def _check_range(answer: httpx.Response, start: int) -> None:
    field = answer.headers.get("content-range", "")
    if not field.startswith(f"bytes {start}-"):
        raise TransportError(
            "another range than asked for", found=field[:60], allowed=f"from {start}"
        )
