"""Every error that limosa raises on purpose.

LimosaError
 ├─ FormatError                  the bytes are not what they should be
 │   ├─ TruncatedError           they end too early
 │   ├─ CorruptError             they contradict themselves or the specification
 │   ├─ UnsupportedVersionError  they were written by a later limosa
 │   ├─ LimitError               they ask for more than Limits allow
 │   └─ ChecksumError            a checksum or a digest differs
 ├─ BaseMismatchError            an update is applied to another base than its own
 ├─ ConfigError                  the caller asked for something impossible
 ├─ MissingExtraError            an optional dependency is not installed
 └─ HubError
     ├─ NotFoundError            the hub has no such thing
     ├─ AuthError                the hub does not know, or does not allow, the caller
     ├─ UntrustedError           a signature or a policy refuses what came
     ├─ ConflictError            somebody else changed it first
     └─ TransportError           the network failed; a retry may help
"""

from __future__ import annotations


class LimosaError(Exception):
    """Base of the tree: catch it to catch all that limosa raises on purpose.

    Args:
        problem: what is wrong, without the place and the values.
        where: the place: a tensor, a file, a byte position.
        found: the value that was met.
        allowed: the values that would have been accepted.
        remedy: what the reader of the message can do.

    >>> str(LimosaError("bad rank", where="tensor 'w'", found="40", allowed="at most 32"))
    "tensor 'w': bad rank; found 40, allowed at most 32"
    """

    def __init__(
        self,
        problem: str,
        *,
        where: str | None = None,
        found: str | None = None,
        allowed: str | None = None,
        remedy: str | None = None,
    ) -> None:
        # Only the problem goes to Exception.args, so that the error survives pickling
        # between processes: the rest is restored from __dict__.
        super().__init__(problem)
        self.problem = problem
        self.where = where
        self.found = found
        self.allowed = allowed
        self.remedy = remedy

    def __str__(self) -> str:
        values = []
        if self.found is not None:
            values.append(f"found {self.found}")
        if self.allowed is not None:
            values.append(f"allowed {self.allowed}")
        parts = [self.problem, ", ".join(values), self.remedy or ""]
        text = "; ".join(part for part in parts if part)
        return f"{self.where}: {text}" if self.where else text


class FormatError(LimosaError):
    """The bytes are not a file that limosa can read."""


class TruncatedError(FormatError):
    """The bytes end before what they announce; fetch them again."""


class CorruptError(FormatError):
    """The bytes contradict themselves or the specification."""


class UnsupportedVersionError(FormatError):
    """The file was written by a later version of limosa; upgrade."""


class LimitError(FormatError):
    """The file asks for more memory, tensors or dimensions than ``Limits`` allow."""


class ChecksumError(FormatError):
    """A checksum or a digest differs from the bytes that it covers; fetch them again."""


class BaseMismatchError(LimosaError):
    """An update was given another base than the one that it was made from."""


class ConfigError(LimosaError):
    """The caller asked for a combination of settings that cannot work."""


class MissingExtraError(LimosaError):
    """An optional dependency is needed and not installed."""

    @classmethod
    def for_extra(cls, extra: str, purpose: str) -> MissingExtraError:
        """The error for the extra *extra*, needed for *purpose*.

        >>> str(MissingExtraError.for_extra("torch", "reading a .pt file"))
        'reading a .pt file needs an extra that is not installed; run: pip install "limosa[torch]"'
        """
        return cls(
            f"{purpose} needs an extra that is not installed",
            remedy=f'run: pip install "limosa[{extra}]"',
        )


class HubError(LimosaError):
    """Something went wrong between this side and the hub."""


class NotFoundError(HubError):
    """The hub has no blob, manifest or model of that name."""


class AuthError(HubError):
    """The hub does not know the caller, or does not allow the request."""


class UntrustedError(HubError):
    """A signature, a rollback check or a policy refuses what was received."""


class ConflictError(HubError):
    """The hub's state changed under the request; read it again and retry."""


class TransportError(HubError):
    """The network failed; the same request may succeed later."""
