"""The name of a blob that lies in a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from limosa.errors import ChecksumError, TransportError

_BLOCK = 2**20


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file.

    Raises:
        TransportError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise TransportError("cannot read", where=path.name, found=str(error)) from None
    return digest.hexdigest()


def check_sha256(path: Path, sha256: str) -> None:
    """Compare a blob with its name.

    Raises:
        ChecksumError: it differs.
        TransportError: it cannot be read.
    """
    found = sha256_of(path)
    if found != sha256:
        raise ChecksumError(
            "the bytes are not those of the blob", where=f"blob {sha256[:16]}", found=found,
            allowed=sha256, remedy="fetch it again",
        )  # fmt: skip
