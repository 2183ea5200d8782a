"""Names made from content: of blobs by SHA-256, of versions by BLAKE3."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from limosa.errors import CorruptError

#: Hexadecimal digits of every digest here.
DIGITS = 64
_HEX = re.compile(r"[0-9a-f]{64}")
_FIELD = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]{1,64}):\s*(?:,|$)")


def sha256_hex(data: bytes) -> str:
    """The name of a blob.

    >>> sha256_hex(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(data).hexdigest()


def check_hex(text: object, where: str) -> str:
    """*text*, if it is a digest in lower-case hexadecimal digits.

    Raises:
        CorruptError: it is not.

    >>> check_hex("ab", "state")
    Traceback (most recent call last):
    limosa.errors.CorruptError: state: not a digest; found 'ab', allowed 64 hexadecimal digits
    """
    if isinstance(text, str) and _HEX.fullmatch(text):
        return text
    raise CorruptError(
        "not a digest", where=where, found=repr(text)[:80], allowed="64 hexadecimal digits"
    )


def is_hex(text: str) -> bool:
    """Whether *text* is a digest."""
    return _HEX.fullmatch(text) is not None


def version_digest(state: str, form: str) -> str:
    """The digest of a version: of its tensors and of the files around them (docs/hub-protocol.md).

    >>> version_digest("00" * 32, "00" * 32) == version_digest("00" * 32, "11" * 32)
    False
    """
    from blake3 import blake3

    digest = blake3(b"limosa version\0")
    digest.update(bytes.fromhex(check_hex(state, "state")))
    digest.update(bytes.fromhex(check_hex(form, "form")))
    return digest.hexdigest()


def content_digest(sha256: str) -> str:
    """A field of RFC 9530, for ``Content-Digest`` and ``Repr-Digest``.

    >>> content_digest(sha256_hex(b""))
    'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:'
    """
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"


def parse_content_digest(field: str | None) -> str | None:
    """The SHA-256 that a field of RFC 9530 holds; None if it holds none.

    Raises:
        CorruptError: it holds one that is no SHA-256.

    >>> parse_content_digest(content_digest("ab" * 32)) == "ab" * 32
    True
    >>> parse_content_digest("unixsum=:AQI=:") is None
    True
    """
    found = _FIELD.search(field or "")
    if found is None:
        return None
    try:
        value = base64.b64decode(found[1], validate=True).hex()
    except binascii.Error:
        value = found[1]
    return check_hex(value, "Content-Digest")
