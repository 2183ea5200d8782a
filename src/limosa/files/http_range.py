"""Parts of a file on a web server, by HTTP range requests."""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping

from limosa.errors import ConfigError, CorruptError, NotFoundError, TransportError, TruncatedError

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)$")
_RETRIES = 3


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
        self._first = self._fetch(0, 1)

    @property
    def size(self) -> int:
        """Bytes in the file, as the server said in its first answer."""
        return self._size or 0

    def read_at(self, offset: int, count: int) -> bytes:
        """The *count* bytes from *offset* on, fewer only at the end of the file."""
        count = min(count, self.size - offset)
        return self._fetch(offset, count) if count > 0 else b""

    def _fetch(self, offset: int, count: int) -> bytes:
        for attempt in range(_RETRIES + 1):
            try:
                return self._request(offset, count)
            except TransportError:
                if attempt == _RETRIES:
                    raise
                time.sleep(0.1 * 2**attempt)
        raise AssertionError("unreachable")

    def _request(self, offset: int, count: int) -> bytes:
        headers = {
            "Range": f"bytes={offset}-{offset + count - 1}",
            "Accept-Encoding": "identity",
            **self._headers,
        }
        request = urllib.request.Request(self.url, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                self._check(answer.status, answer.headers, offset, count)
                data: bytes = answer.read(count)
        except urllib.error.HTTPError as error:
            raise self._refused(error) from None
        except (OSError, EOFError) as error:
            raise TransportError(
                "the request failed", where=self.url, found=str(error), remedy="try again later"
            ) from None
        if len(data) != count:
            raise TransportError(
                "the answer is too short",
                where=self.url,
                found=f"{len(data)} bytes",
                allowed=str(count),
                remedy="try again",
            )
        return data

    def _check(self, status: int, headers: Mapping[str, str], offset: int, count: int) -> None:
        """The answer must be the range that was asked for, of the file that was asked first."""
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
            self._size = size
            self._tag = headers.get("ETag")
        if (first, last) != (offset, offset + count - 1):
            raise TransportError(
                "the server answered another range",
                where=self.url,
                found=f"{first}-{last}",
                allowed=f"{offset}-{offset + count - 1}",
            )
        if size != self._size or headers.get("ETag") != self._tag:
            raise CorruptError(
                "the file on the server changed", where=self.url, remedy="open it again"
            )

    def _refused(self, error: urllib.error.HTTPError) -> Exception:
        if error.code == 404:
            return NotFoundError("no such file", where=self.url)
        if error.code == 416:
            return TruncatedError("the file on the server is shorter", where=self.url)
        return TransportError(
            "the server refused", where=self.url, found=f"status {error.code} {error.reason}"
        )
