"""Typed errors over HTTP: which status they have, and how the other side gets them back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from limosa import errors
from limosa.errors import (
    AuthError,
    BaseMismatchError,
    ConfigError,
    ConflictError,
    FormatError,
    LimitError,
    LimosaError,
    NotFoundError,
    TransportError,
    UntrustedError,
)

PROBLEM = "application/problem+json"
#: Close codes of a stream (4000 to 4999 are for applications).
IDLE, CROWDED, STOPPING, TOO_LARGE = 4408, 4429, 4503, 1009


class BusyError(TransportError):
    """The service has enough to do; the same request may succeed after *retry_after* seconds."""

    def __init__(self, problem: str, *, retry_after: float = 1.0, **more: Any) -> None:
        super().__init__(problem, **more)
        self.retry_after = retry_after


class UnavailableError(BusyError):
    """The service stops, or has as many connections as it may."""


class SlowError(TransportError):
    """A client did not send, or take, what it should in time."""


class ForbiddenError(AuthError):
    """The caller is known, and may not do this."""


class UnfitError(ConfigError):
    """A feature that the tasks cannot take: a tensor with NaN, a shape that fails in a tail."""


_STATUS: tuple[tuple[type[LimosaError], int], ...] = (
    (LimitError, 413),
    (FormatError, 400),
    (BaseMismatchError, 409),
    (ConflictError, 409),
    (ForbiddenError, 403),
    (AuthError, 401),
    (UntrustedError, 422),
    (NotFoundError, 404),
    (UnavailableError, 503),
    (BusyError, 429),
    (SlowError, 408),
    (ConfigError, 422),
    (TransportError, 503),
)
_PUBLIC = {
    UnfitError: "ConfigError",
    ForbiddenError: "AuthError",
    BusyError: "TransportError",
    UnavailableError: "TransportError",
    SlowError: "TransportError",
}
_PARTS = ("where", "found", "allowed", "remedy")


def status_of(error: Exception) -> int:
    """The status code of an error.

    >>> status_of(errors.CorruptError("")), status_of(BusyError("")), status_of(ValueError())
    (400, 429, 500)
    """
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def name_of(error: Exception) -> str:
    """The name of an error's public class.

    >>> name_of(UnfitError("NaN")), name_of(ValueError())
    ('ConfigError', 'LimosaError')
    """
    if not isinstance(error, LimosaError):
        return "LimosaError"
    return _PUBLIC.get(type(error), type(error).__name__)


def to_problem(error: Exception) -> dict[str, Any]:
    """An error as an object of RFC 9457, with limosa's parts beside the standard's.

    Of an unexpected error nothing is told: its text may say what is no client's business.
    """
    known = isinstance(error, LimosaError)
    problem: dict[str, Any] = {
        "type": name_of(error),
        "title": error.problem if isinstance(error, LimosaError) else "the service failed",
        "status": status_of(error),
        "detail": str(error) if known else "an error that the service logs",
    }
    for part in _PARTS:
        value = getattr(error, part, None) if known else None
        if value is not None:
            problem[part] = value
    if isinstance(error, BusyError):
        problem["retry_after"] = error.retry_after
    return problem


def from_problem(problem: Mapping[str, Any]) -> LimosaError:
    """The reverse.

    >>> from_problem(to_problem(BaseMismatchError("another model", found="ab")))
    BaseMismatchError('another model')
    """
    title = str(problem.get("title", "the service refuses"))
    parts = {part: str(problem[part]) for part in _PARTS if problem.get(part) is not None}
    if problem.get("retry_after") is not None:
        kind = UnavailableError if problem.get("status") == 503 else BusyError
        return kind(title, retry_after=float(problem["retry_after"]), **parts)
    found = getattr(errors, str(problem.get("type")), LimosaError)
    good = isinstance(found, type) and issubclass(found, LimosaError)
    made: LimosaError = (found if good else LimosaError)(title, **parts)
    return made
