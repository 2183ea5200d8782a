"""How people name what a hub holds: ``team/detector:v3``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from limosa.errors import ConfigError
from limosa.hub.digest import is_hex

_PART = r"[a-z0-9][a-z0-9._-]{0,95}"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_REPOSITORY = re.compile(f"{_PART}/{_PART}")
_VERSION = re.compile(_NAME)


@dataclass(frozen=True)
class Reference:
    """A version of a repository: by name, by digest, or the tag ``latest`` if neither is given.

    >>> str(Reference("team/detector", name="v3"))
    'team/detector:v3'
    """

    repository: str
    name: str | None = None
    digest: str | None = None

    @property
    def version(self) -> str:
        """What follows ``/versions/`` in an address."""
        return f"@{self.digest}" if self.digest else self.name or "latest"

    def __str__(self) -> str:
        if self.digest:
            return f"{self.repository}@{self.digest}"
        return f"{self.repository}:{self.version}"


def parse_reference(text: str) -> Reference:
    """What *text* names.

    Raises:
        ConfigError: it names nothing.

    >>> parse_reference("team/detector:v3")
    Reference(repository='team/detector', name='v3', digest=None)
    >>> parse_reference("team/../etc:v3")
    Traceback (most recent call last):
    limosa.errors.ConfigError: no name of a repository; found 'team/../etc', allowed owner/name of \
lower-case letters, digits, '.', '_' and '-'
    """
    repository, at, digest = text.partition("@")
    if at:
        if not is_hex(digest):
            raise ConfigError("no digest", where=text[:160], allowed="64 hexadecimal digits")
        return Reference(check_repository(repository), digest=digest)
    repository, colon, name = text.partition(":")
    return Reference(check_repository(repository), check_name(name) if colon else None)


def check_repository(text: str) -> str:
    """*text*, if a repository may have that name.

    Raises:
        ConfigError: it may not.
    """
    if _REPOSITORY.fullmatch(text) and ".." not in text:
        return text
    raise ConfigError(
        "no name of a repository", found=repr(text[:160]),
        allowed="owner/name of lower-case letters, digits, '.', '_' and '-'",
    )  # fmt: skip


def check_name(text: str) -> str:
    """*text*, if a version or a tag may have that name.

    Raises:
        ConfigError: it may not.

    >>> check_name("v1.0")
    'v1.0'
    """
    if _VERSION.fullmatch(text) and ".." not in text:
        return text
    raise ConfigError(
        "no name of a version or a tag", found=repr(text[:160]),
        allowed="up to 128 letters, digits, '.', '_' and '-'",
    )  # fmt: skip
