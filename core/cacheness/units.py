"""Parse and format sizes and durations: 10_000_000, "10GB", "512 KiB", 3600, "1h", timedelta(hours=1)."""

from __future__ import annotations

import math
import operator
import re
from datetime import datetime, timedelta
from numbers import Real
from typing import Final, TypeAlias

Size: TypeAlias = int | str
Duration: TypeAlias = float | timedelta | str
Time: TypeAlias = float | datetime | str

#: In seconds; the most that, counted from today, ends before the year 9999 does.
LONGEST: Final = 7000 * 365.25 * 86400

_NUMBER: Final = r"((?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)"
#: Patterns are compiled on first use: most processes need none.
_SIZE: Final = rf"(?i){_NUMBER}\s*([kmgtp]?i?b?|bytes?)"
_DURATIONS: Final = rf"(?i)(?:{_NUMBER}\s*([a-z]*)[\s,]*)+"
_DURATION: Final = rf"(?i){_NUMBER}\s*([a-z]*)"
_PLAIN: Final = r"\d+(\.\d*)?"
_SECONDS: Final = {
    name: seconds
    for seconds, names in {
        1e-9: "ns nanosecond nanoseconds",
        1e-6: "us microsecond microseconds",
        0.001: "ms millisecond milliseconds",
        1.0: "s sec secs second seconds",
        60.0: "m min mins minute minutes",
        3600.0: "h hr hrs hour hours",
        86400.0: "d day days",
        604800.0: "w week weeks",
    }.items()
    for name in names.split()
}


def bytes_of(size: Size) -> int:
    """Return a size in bytes. "1 kB" is 1,000 bytes and "1 KiB" 1,024, as in Dask.

    Raises TypeError for other types than a whole number or text, ValueError for text that is not a size.
    """
    if isinstance(size, str):
        found = re.fullmatch(_SIZE, size.strip())
        if found is None:
            raise ValueError(f'{size!r:.40} is not a size: give bytes, or text such as "10GB" or "512 MiB"')
        unit = found[2].lower()
        power = "kmgtp".find(unit[:1]) + 1 if unit[:1] in tuple("kmgtp") else 0
        return int(float(found[1]) * (1024 if "i" in unit else 1000) ** power)
    try:
        return whole(size)
    except TypeError:
        raise TypeError(f'{size!r:.40} is not a size: give bytes, or text such as "10GB" or "512 MiB"') from None


def whole(number: float) -> int:
    """Return a whole number in any notation: 10, 1e9, an integer of NumPy. Raises TypeError for others."""
    if isinstance(number, float) and number.is_integer():
        return int(number)
    if isinstance(number, bool):
        raise TypeError(f"{number!r} is not a whole number")
    return operator.index(number)  # type: ignore[arg-type]


def seconds_of(duration: Duration) -> float:
    """Return a duration in seconds; text has units, "90" alone is seconds.

    Raises TypeError for other types than a number, text or timedelta, ValueError for text that is not a duration.
    """
    if isinstance(duration, str):
        seconds = _seconds_in(duration)
    elif isinstance(duration, bool) or not isinstance(duration, Real | timedelta):
        raise TypeError(f'{duration!r:.40} is not a duration: give seconds, a timedelta, or text such as "1h"')
    else:
        try:
            seconds = duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
        except OverflowError:
            seconds = math.inf
    if not abs(seconds) < LONGEST:
        raise ValueError(f"{duration!r:.40} is not a duration within the calendar: give less than 7,000 years")
    return seconds


def time_of(time: Time) -> float:
    """Return a moment in seconds since the epoch; text is such a number, or a date and time in ISO 8601.

    Raises TypeError for other types than a number, text or datetime, ValueError for text that is not a moment.
    """
    wanted = f"{time!r:.40} is not a time: give seconds since the epoch, or ISO 8601 with a zone"
    if isinstance(time, str):
        try:
            time = float(time) if re.fullmatch(_PLAIN, time.strip()) else datetime.fromisoformat(time.strip())
        except ValueError:
            raise ValueError(wanted) from None
    if isinstance(time, datetime):
        if time.tzinfo is None:  # another moment on each machine
            raise ValueError(f"{wanted}: it has no zone")
        return time.timestamp()
    if isinstance(time, bool) or not isinstance(time, int | float):
        raise TypeError(wanted)
    if not 0 <= time < LONGEST:
        raise ValueError(wanted)
    return float(time)


def number_of(number: int, one: str) -> str:
    """Return a number of things as text: "1 miss", "2 misses", "3 entries"."""
    many = f"{one[:-1]}ies" if one.endswith("y") else f"{one}es" if one.endswith("s") else f"{one}s"
    return f"{number:,} {one if number == 1 else many}"


def bytes_named(size: float) -> str:
    """Return a size as text."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def seconds_named(seconds: float) -> str:
    """Return a duration as text."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 0.1 or not seconds else f"{seconds * 1000:.1f} ms"


def _seconds_in(text: str) -> float:
    parts = re.findall(_DURATION, text)
    units = [unit.lower() for _, unit in parts]
    known = all(unit in _SECONDS for unit in units) or units == [""]
    if not known or not re.fullmatch(_DURATIONS, text.strip()):
        raise ValueError(f'{text!r:.40} is not a duration: give seconds, a timedelta, or text such as "1h" or "2 days"')
    return sum(float(number) * _SECONDS.get(unit, 1.0) for (number, _), unit in zip(parts, units, strict=True))
