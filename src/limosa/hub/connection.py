"""Requests to a hub: tried again where that may help, and errors as they were raised there."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from limosa.errors import (
    AuthError,
    LimitError,
    LimosaError,
    MissingExtraError,
    TransportError,
)
from limosa.hub.problems import PROBLEM, BusyError, from_problem

try:
    import httpx
except ModuleNotFoundError:
    raise MissingExtraError.for_extra("hub", "a hub's client") from None

if TYPE_CHECKING:
    from typing_extensions import Self

#: How often a request that fails in passing is made.
TRIES = 5
_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 30.0
#: Of RFC 6750, which is more than any hub makes.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_AGAIN = frozenset([408, 429, 500, 502, 503, 504])
#: Of an answer that is no blob.
_MOST_JSON = 512 * 2**20
#: Of one that says why there is no blob.
_MOST_PROBLEM = 2**20


class Answer(dict[str, Any]):
    """An object of a hub's; what is missing in it is an error of the hub.

    >>> Answer(name="x")["digest"]
    Traceback (most recent call last):
    limosa.errors.TransportError: no answer of a hub; found nothing named 'digest'
    """

    def __missing__(self, key: str) -> Any:
        raise TransportError("no answer of a hub", found=f"nothing named {key!r}")


class Connection:
    """Asks a hub; what passes is tried again.

    Args:
        url: of the hub.
        token: shown to the hub, and to nobody else; space around it is left out.
        timeout: seconds to wait for the next bytes.
        pause: seconds before the second try, doubled for each further one.

    Raises:
        AuthError: the token cannot be one.
    """

    def __init__(
        self, url: str, token: str = "", *, timeout: float = 60.0, pause: float = _PAUSE_S
    ) -> None:
        self.url = url.rstrip("/")
        self._pause = pause
        token = check_token(token, self.url)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(timeout=httpx.Timeout(timeout, connect=10.0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connections."""
        self._client.close()

    @property
    def headers(self) -> dict[str, str]:
        """What shows who asks; for this hub only."""
        return dict(self._headers)

    @contextmanager
    def streaming(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
    ) -> Iterator[httpx.Response]:
        """An answer that is read piece by piece; redirects elsewhere are shown no token."""
        shown = dict(headers)
        try:
            for _ in range(3):
                request = self._client.build_request(method, url, headers=shown, json=body)
                answer = self._client.send(request, stream=True)
                try:
                    if answer.status_code in (302, 303, 307):
                        there = answer.headers.get("location", "")
                        url, method, body = urljoin(url, there), "GET", None
                        if origin_of(url) != origin_of(self.url):
                            shown.pop("Authorization", None)
                            # A signature covers no conditions of ours.
                            shown.pop("If-Range", None)
                        continue
                    if answer.status_code >= 400:
                        raise self.problem(_read(answer, _MOST_PROBLEM))
                    yield answer
                    return
                finally:
                    answer.close()
            raise TransportError("too many redirects", where=url)
        except (httpx.TransportError, httpx.StreamError) as error:
            raise unreachable(url, error) from None

    def json(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """The object that the hub answers with.

        Raises:
            LimosaError: what the hub says.
        """
        answer = self.request(method, self.url + path, **more)
        if answer.status_code == 204:
            return {}
        try:
            found = answer.json(object_hook=Answer)
        except (ValueError, RecursionError):
            raise TransportError(
                "no answer of a hub", where=self.url, found=answer.text[:80]
            ) from None
        if not isinstance(found, dict):
            raise TransportError("no answer of a hub", where=self.url, found=answer.text[:80])
        return found

    def request(self, method: str, url: str, **more: Any) -> httpx.Response:
        """An answer that is no error."""
        for attempt in range(1, TRIES + 1):
            try:
                answer = self._bounded(method, url, **more)
            except httpx.TransportError as error:
                failure: LimosaError = unreachable(url, error)
            else:
                if answer.status_code < 400:
                    return answer
                failure = self.problem(answer)
                if answer.status_code not in _AGAIN:
                    raise failure
            if attempt == TRIES:
                raise failure
            self.sleep(attempt, failure)
        raise AssertionError("unreachable")  # pragma: no cover

    def _bounded(self, method: str, url: str, **more: Any) -> httpx.Response:
        """An answer of no more bytes than there is memory for."""
        more = {"headers": self._headers, "timeout": httpx.USE_CLIENT_DEFAULT, **more}
        request = self._client.build_request(method, url, **more)
        answer = self._client.send(request, stream=True)
        try:
            return _read(answer, _MOST_JSON)
        finally:
            answer.close()

    def problem(self, answer: httpx.Response) -> LimosaError:
        """The error that an answer tells."""
        if answer.headers.get("content-type", "").startswith(PROBLEM):
            try:
                return _told(from_problem(answer.json()), answer)
            except (ValueError, TypeError):
                pass
        if answer.status_code in (401, 403):
            return AuthError("not allowed", where=self.url, found=f"status {answer.status_code}")
        said = answer.headers.get("retry-after", "")
        if answer.status_code in (429, 503) and said.isdigit():
            # A proxy in front of the hub says so, too.
            return BusyError("not now", where=self.url, retry_after=float(said[:9]))
        return TransportError(
            "the hub refused", where=self.url, found=f"status {answer.status_code}",
            remedy="see whether this is the address of a hub",
        )  # fmt: skip

    def sleep(self, attempt: int, error: LimosaError) -> None:
        """Pause before another try."""
        pause = self._pause * 2 ** (attempt - 1) * (0.75 + random.random() / 2)
        if isinstance(error, BusyError):
            pause = max(pause, error.retry_after)
        time.sleep(min(pause, _LONGEST_PAUSE_S))


def _read(answer: httpx.Response, most: int) -> httpx.Response:
    """All of an answer, of no more bytes than there is memory for."""
    parts, size, url = [], 0, answer.request.url
    for piece in answer.iter_bytes():
        size += len(piece)
        if size > most:
            raise LimitError("the answer is too long", where=str(url), allowed=f"{most} bytes")
        parts.append(piece)
    kept = {n: v for n, v in answer.headers.items() if n != "content-encoding"}
    return httpx.Response(
        answer.status_code, headers=kept, content=b"".join(parts), request=answer.request
    )


def _told(error: LimosaError, answer: httpx.Response) -> LimosaError:
    """A failure of the hub's own may pass; tell it so that it is tried again."""
    if answer.status_code == 500 and type(error) is LimosaError:
        return TransportError(error.problem, where=error.where, found=error.found)
    return error


def origin_of(url: str) -> tuple[str, str]:
    """Whom an address belongs to: a token for https is not shown to http on the same host.

    >>> origin_of("https://hub/v1") == origin_of("http://hub/v1")
    False
    """
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def check_token(token: str, hub: str) -> str:
    """*token* without the space around it, if it may be one; ``""`` stays as it is.

    What an HTTP library says of a header that it refuses has all of it: a secret would end in
    somebody's log. So this is asked first, and the answer does not tell the token.

    Raises:
        AuthError: no hub makes such tokens.

    >>> check_token("limosa_00\\r\\n", "http://hub")
    'limosa_00'
    """
    token = token.strip()
    if token and not _TOKEN.fullmatch(token):
        raise AuthError(
            "this cannot be a token", where=hub, found=f"{len(token)} characters, some of others",
            allowed="letters of ASCII, digits, and '-', '.', '_', '~', '+', '/'",
            remedy="see LIMOSA_TOKEN and --token, or run limosa login again",
        )  # fmt: skip
    return token


def unreachable(url: str, error: Exception) -> TransportError:
    """The error for a network that failed."""
    parts = urlsplit(url)
    # A complaint about our own request repeats its headers, and one of them is a secret.
    ours = isinstance(error, httpx.LocalProtocolError)
    said = type(error).__name__ if ours else str(error) or type(error).__name__
    return TransportError(
        "the hub cannot be reached", where=f"{parts.scheme}://{parts.netloc}",
        found=said, remedy="try again; what came is kept",
    )  # fmt: skip
