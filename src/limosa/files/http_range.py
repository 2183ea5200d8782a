"""Parts of a file on a web server, by HTTP range requests."""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException

from limosa.errors import ConfigError, CorruptError, NotFoundError, TransportError

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)$")
_RETRIES = 3
_PAUSE = 0.1  # seconds, doubled each time
# The header of most files, in the request that finds out the size.
_HEAD_BYTES = 2**16


class _PassingError(TransportError):
    """A failure that another attempt may not meet."""


class HttpRangeFile:
    """Bytes behind a URL, fetched as they are asked for.

    ``limosa.open_file(HttpRangeFile(url))`` reads single tensors, or rows of them, without the
    rest of the file.

    Args:
        url: ``http://`` or ``https://``.
        headers: sent with every request, for instance for authorization.
        timeout: seconds to wait for the server each time.

    Raises:
        NotFoundError: the server has no such file.
        TransportError: the server cannot be reached, or does not answer ranges.
        CorruptError: the file on the server changed between two requests.
        ConfigError: another kind of URL.
    """

    def __init__(
        self, url: str, *, headers: Mapping[str, str] | None = None, timeout: float = 30.0
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError("not a web address", found=url, allowed="http:// or https://")
        self.url = url
        self._headers = dict(headers or {})
        self._timeout = timeout
        # A later answer with another tag would mix two versions of the file.
        self._tag: str | None = None
        self._size: int | None = None
        self._head = self._fetch(0, _HEAD_BYTES)

    @property
    def size(self) -> int:
        """Bytes in the file, as the server said in its first answer."""
        return self._size or 0

    def read_at(self, offset: int, count: int) -> bytes:
        """The *count* bytes from *offset* on, fewer only at the end of the file."""
        count = max(0, min(count, self.size - offset))
        if count == 0 or offset + count <= len(self._head):
            return self._head[offset : offset + count]
        return self._fetch(offset, count)

    def _fetch(self, offset: int, count: int) -> bytes:
        for attempt in range(_RETRIES):
            try:
                return self._request(offset, count)
            except _PassingError:
                time.sleep(_PAUSE * 2**attempt)
        return self._request(offset, count)

    def _request(self, offset: int, count: int) -> bytes:
        headers = {
            "Range": f"bytes={offset}-{offset + count - 1}",
            "Accept-Encoding": "identity",
            **self._headers,
        }
        request = urllib.request.Request(self.url, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                expected = self._check(answer.status, answer.headers, offset, count)
                data: bytes = answer.read(expected)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error) from None
        except (OSError, HTTPException) as error:
            raise _PassingError(
                "the request failed", where=self.url, found=str(error), remedy="try again later"
            ) from None
        if len(data) != expected:
            raise _PassingError(
                "the answer is too short",
                where=self.url,
                found=f"{len(data)} bytes",
                allowed=str(expected),
                remedy="try again",
            )
        return data

    def _check(self, status: int, headers: Mapping[str, str], offset: int, count: int) -> int:
        """The bytes to come: the answer must be the range asked for, of the file first asked."""
        found = _CONTENT_RANGE.match(headers.get("Content-Range") or "")
        if status != 206 or found is None:
            raise TransportError(
                "the server does not answer ranges",
                where=self.url,
                found=f"status {status}",
                allowed="206 with a Content-Range",
                remedy="fetch the whole file and open that",
            )
        first, last, size = map(int, found.groups())
        if self._size is None:
            self._size, self._tag = size, headers.get("ETag")
        if size != self._size or headers.get("ETag") != self._tag:
            raise CorruptError(
                "the file on the server changed", where=self.url, remedy="open it again"
            )
        expected = min(count, size - offset)
        if (first, last) != (offset, offset + expected - 1):
            raise TransportError(
                "the server answered another range",
                where=self.url,
                found=f"{first}-{last}",
                allowed=f"{offset}-{offset + expected - 1}",
            )
        return expected

    def _refused(self, error: urllib.error.HTTPError) -> Exception:
        if error.code == 404:
            return NotFoundError("no such file", where=self.url)
        if error.code == 416:
            return CorruptError("the file on the server is empty or became shorter", where=self.url)
        kind = _PassingError if error.code in (429, *range(500, 600)) else TransportError
        return kind(
            "the server refused", where=self.url, found=f"status {error.code} {error.reason}"
        )
