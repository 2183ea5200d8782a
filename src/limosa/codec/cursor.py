"""Reading and writing the small things: bytes, varints, strings (docs/format.md 1)."""

from __future__ import annotations

from limosa.errors import CorruptError, LimitError, TruncatedError

_VARINT_LIMIT = 2**64


class Cursor:
    """A position in the body of a section; every read is checked against its end.

    *where* names the section in errors.
    """

    __slots__ = ("_data", "_position", "_where")

    def __init__(self, data: bytes, where: str) -> None:
        self._data = data
        self._position = 0
        self._where = where

    @property
    def remaining(self) -> int:
        """Bytes that are left."""
        return len(self._data) - self._position

    def place(self) -> str:
        """The position, for an error message."""
        return f"{self._where} (byte {self._position} of its body)"

    def take(self, count: int) -> bytes:
        """The next *count* bytes.

        Raises:
            TruncatedError: fewer are left.
        """
        end = self._position + count
        if end > len(self._data):
            raise TruncatedError(
                "the section ends too early",
                where=self.place(),
                found=f"{self.remaining} bytes",
                allowed=f"{count} or more",
                remedy="fetch the file again",
            )
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def u8(self) -> int:
        """One byte."""
        return self.take(1)[0]

    def varint(self) -> int:
        """An integer below 2**64.

        Raises:
            TruncatedError: the section ends within it.
            CorruptError: it does not end within ten bytes, or is too large.
        """
        data, position = self._data, self._position
        if position < len(data) and data[position] < 0x80:
            self._position = position + 1
            return data[position]
        value = shift = 0
        for byte in data[position : position + 10]:
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                if value >= _VARINT_LIMIT:
                    break
                self._position = position + shift // 7
                return value
        if shift < 70:
            self.take(shift // 7 + 1)
        raise CorruptError("an integer is too long", where=self.place(), allowed="below 2**64")

    def count(self, what: str, limit: int, limit_name: str, bytes_each: int = 1) -> int:
        """A number of things: within the caller's limit, and no more than the bytes can hold.

        Raises:
            LimitError: above *limit*.
            TruncatedError: more than the remaining bytes can hold at *bytes_each* or more.
        """
        value = self.varint()
        if value > limit:
            raise LimitError(
                f"too many {what}",
                where=self.place(),
                found=str(value),
                allowed=f"{limit_name} {limit}",
                remedy="pass a larger Limits to decode it",
            )
        if value * bytes_each > self.remaining:
            raise TruncatedError(
                f"more {what} than bytes",
                where=self.place(),
                found=f"{value} {what} in {self.remaining} bytes",
                remedy="fetch the file again",
            )
        return value

    def text(self, what: str, limit: int) -> str:
        """A string: its length in bytes, then UTF-8. *what* is plural.

        Raises:
            LimitError: longer than *limit* bytes.
            CorruptError: not UTF-8.
        """
        size = self.count(what, limit, "max_name_bytes")
        try:
            return self.take(size).decode("utf-8")
        except UnicodeDecodeError as error:
            raise CorruptError(
                f"{what} are not UTF-8", where=self.place(), found=str(error)
            ) from None

    def finish(self) -> None:
        """The section must be used up.

        Raises:
            CorruptError: bytes are left.
        """
        if self.remaining:
            raise CorruptError(
                "bytes follow the end of the section",
                where=self.place(),
                found=f"{self.remaining} bytes",
                allowed="none",
            )


def put_varint(out: bytearray, value: int) -> None:
    """Append an integer.

    >>> out = bytearray(); put_varint(out, 300); out.hex()
    'ac02'
    """
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def put_text(out: bytearray, text: str) -> None:
    """Append a string: its length in bytes, then UTF-8."""
    encoded = text.encode()
    put_varint(out, len(encoded))
    out += encoded


def zigzag(value: int) -> int:
    """An unsigned integer for a signed one: small for small magnitudes.

    >>> [zigzag(v) for v in (0, -1, 1, -2)]
    [0, 1, 2, 3]
    """
    return value * 2 if value >= 0 else -value * 2 - 1


def unzigzag(value: int) -> int:
    """The inverse of :func:`zigzag`."""
    return (value >> 1) ^ -(value & 1)
