"""Numbers, times and names as the pages write them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone

#: Stands where there is no value.
NONE = "–"
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")
# What XML 1.0 cannot hold, even escaped; names of tensors may be anything.
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_STEPS = ((60, "minute"), (24, "hour"), (30, "day"))


def clean(text: str) -> str:
    """*text* without what neither XML nor UTF-8 can hold.

    >>> clean("a\\x00b\\ud800")
    'a\ufffdb\ufffd'
    """
    return _UNWRITABLE.sub("\ufffd", text)


def human(count: int | None) -> str:
    """A number of bytes for people.

    >>> human(1536), human(999), human(None)
    ('1.5 KiB', '999 B', '–')
    """
    if count is None:
        return NONE
    if abs(count) < 1024:
        return f"{count} B"
    power = min((abs(count).bit_length() - 1) // 10, len(_UNITS))
    # Integers first: what a hostile manifest announces may be too large for a float.
    tenths = (10 * count + (1 << (10 * power - 1))) >> (10 * power)
    if tenths >= 10240 and power < len(_UNITS):
        power, tenths = power + 1, 10
    return f"{tenths // 10:,}.{tenths % 10} {_UNITS[power - 1]}"


def percent(part: int | None, whole: int | None) -> str:
    """What *part* is of *whole*.

    >>> percent(1, 8), percent(1, 3000), percent(0, 5), percent(1, 0)
    ('12.5 %', '0.03 %', '0 %', '–')
    """
    if part is None or not whole:
        return NONE
    thousandths = part * 100_000 // whole
    if part and not thousandths:
        return "< 0.001 %"
    value = f"{thousandths // 1000:,}"
    if thousandths >= 100_000 or not thousandths:
        return f"{value} %"
    return f"{thousandths / 1000:.{1 if thousandths >= 1000 else 2}f} %"


def ratio(part: int, whole: int) -> float:
    """What *part* is of *whole*, to sort by.

    >>> ratio(1, 8), ratio(3, 0), ratio(10**400, 1)
    (0.125, 3.0, inf)
    """
    try:
        return part / (whole or 1)
    except OverflowError:
        return math.inf


def times(part: int, whole: int) -> str:
    """How many times *part* goes into *whole*.

    >>> times(2, 9), times(0, 9), times(1, 1234)
    ('4.5×', '–', '1,234×')
    """
    if part <= 0:
        return NONE
    tenths = 10 * whole // part
    return f"{tenths // 10:,}×" if tenths >= 1000 else f"{tenths / 10:.1f}×"


def number(value: float | None, digits: int = 3) -> str:
    """A measured value.

    >>> number(0.0123456), number(float("nan")), number(-0.00000123), number(None)
    ('0.0123', 'NaN', '−1.23e−6', '–')
    """
    if value is None:
        return NONE
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.{digits}g}"
    if "e" in text:
        mantissa, _, exponent = text.partition("e")
        text = f"{mantissa}e{int(exponent)}"
    return text.replace("-", "−")


def count(value: int | None) -> str:
    """An integer, in groups of three.

    >>> count(1234567)
    '1,234,567'
    """
    return NONE if value is None else f"{value:,}"


def plural(value: int, word: str) -> str:
    """A count and what is counted.

    >>> plural(1, "version"), plural(2, "repository"), plural(2, "day")
    ('1 version', '2 repositories', '2 days')
    """
    if value != 1:
        word = word[:-1] + "ies" if word.endswith(("ry", "py")) else word + "s"
    return f"{value:,} {word}"


def shape(extents: Sequence[int]) -> str:
    """The shape of a tensor.

    >>> shape((64, 3)), shape(())
    ('64 × 3', 'scalar')
    """
    return " × ".join(map(str, extents)) or "scalar"


def short(digest: str) -> str:
    """The first digits of a digest, enough to tell versions apart."""
    return digest[:12]


def cut(text: str, length: int) -> str:
    """*text* in at most *length* characters.

    >>> cut("a-very-long-name", 8)
    'a-very-…'
    """
    return text if len(text) <= length else text[: length - 1] + "…"


def stamp(seconds: float) -> str:
    """A time as RFC 3339 writes it, in UTC.

    >>> stamp(0)
    '1970-01-01T00:00:00Z'
    """
    # From the epoch by addition: fromtimestamp refuses what some platforms' C library does.
    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    try:
        when = epoch + timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        return NONE
    return when.isoformat(timespec="seconds").replace("+00:00", "Z")


def ago(seconds: float | None, now: float) -> str:
    """When something was, seen from *now*; both in seconds since 1970.

    >>> ago(0, 30), ago(0, 7300), ago(0, 1e9), ago(None, 0)
    ('just now', '2 hours ago', '1970-01-01', 'never')
    """
    if seconds is None:
        return "never"
    passed = now - seconds
    if -60 < passed < 60:
        return "just now"
    left = int(abs(passed) // 60) if math.isfinite(passed) else 10**9
    for size, word in _STEPS:
        if left < (60 if word == "minute" else size):
            return f"in {plural(left, word)}" if passed < 0 else f"{plural(left, word)} ago"
        left //= 60 if word == "minute" else size
    return stamp(seconds)[:10]


def day(value: date) -> str:
    """A day, short.

    >>> day(date(2026, 3, 4))
    '4 Mar'
    """
    names = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
    return f"{value.day} {names[value.month - 1]}"
