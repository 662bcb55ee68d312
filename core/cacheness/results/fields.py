"""Check the fields of an entry, so that every store returns what was signed.

PostgreSQL stores no NUL in text, SQLite turns NaN into NULL, and JSON has no bytes. A value that
one of them changes or rejects is rejected for all, before the entry is signed.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Final

from cacheness.errors import CodecError
from cacheness.records import Entry

#: The end of the year 9999, in microseconds since the epoch: datetime has no later time.
LAST_TIME: Final = 253_402_300_799_999_999
#: Characters of a function's name. An index holds it, and indexes have a limit.
NAME_LENGTH: Final = 500
_LARGEST: Final = (1 << 63) - 1
_TEXTS: Final = ("namespace", "codec", "function", "prefix", "components", "provenance", "key_id")
_DIGESTS: Final = ("key", "digest")
_BYTES: Final = ("args", "mac")
#: The types of texts, bytes and numbers of a plain entry, and the lengths of its digests.
_PLAIN: Final = [str] * 9 + [bytes] * 8 + [int] * 4
_LENGTHS: Final = [32] * 6


def plain(entry: Entry) -> Entry:
    """Return the entry with each field of its plain type; raise CodecError for a field that cannot be stored."""
    if _is_plain(entry):
        return entry
    changes: dict[str, Any] = {name: _text(name, getattr(entry, name)) for name in _TEXTS}
    changes |= {name: _optional_text(name, getattr(entry, name)) for name in ("blob", "outputs")}
    changes |= {name: _digest(name, getattr(entry, name)) for name in _DIGESTS}
    changes |= {name: _optional_digest(name, getattr(entry, name)) for name in ("value", "fn", "alias", "link")}
    changes |= {name: _bytes(name, getattr(entry, name)) for name in _BYTES}
    changes |= {name: _number(name, getattr(entry, name), _LARGEST) for name in ("size", "raw_size")}
    changes["created_at"] = _number("created_at", entry.created_at, LAST_TIME)
    changes["expires_at"] = None if entry.expires_at is None else _number("expires_at", entry.expires_at, LAST_TIME)
    changes["compute_seconds"] = None if entry.compute_seconds is None else _seconds(entry.compute_seconds)
    changes["function"] = changes["function"][:NAME_LENGTH]
    changes["tags"] = tuple(map(_tag, entry.tags))
    new = {name: value for name, value in changes.items() if value is not getattr(entry, name)}
    return replace(entry, **new) if new else entry


def _is_plain(entry: Entry) -> bool:
    """Return True for an entry whose fields need no look one by one, as most do: without tags, all text in ASCII."""
    blob, outputs, expires, seconds = entry.blob, entry.outputs, entry.expires_at, entry.compute_seconds
    key, value, fn, alias, link = entry.key, entry.value, entry.fn, entry.alias, entry.link
    texts = (
        *(entry.namespace, entry.codec, entry.function, entry.prefix, entry.components, entry.provenance),
        *(entry.key_id, "" if blob is None else blob, "" if outputs is None else outputs),
    )
    digests = (
        *(key, entry.digest, key if value is None else value, key if fn is None else fn),
        *(key if alias is None else alias, key if link is None else link),
    )
    numbers = (entry.size, entry.raw_size, entry.created_at, 0 if expires is None else expires)
    return (
        [*map(type, (*texts, *digests, entry.args, entry.mac, *numbers))] == _PLAIN
        and (text := "".join(texts)).isascii()
        and "\0" not in text
        and entry.tags == ()
        and len(entry.function) <= NAME_LENGTH
        and [*map(len, digests)] == _LENGTHS
        and min(numbers) >= 0
        and max(numbers) <= LAST_TIME
        and (seconds is None or (type(seconds) is float and 0.0 < seconds < math.inf))
    )


def is_text(value: object) -> bool:
    """Return True when every store accepts this text: no NUL, and no half of a surrogate pair."""
    try:
        return isinstance(value, str) and "\0" not in value and (value.isascii() or value.encode() is not None)
    except UnicodeEncodeError:
        return False


def _text(name: str, value: Any) -> str:
    if not is_text(value):
        raise _refused(name, value, "it is not text, or contains a NUL or half of a surrogate pair")
    return str.__str__(value)


def _optional_text(name: str, value: Any) -> str | None:
    return None if value is None else _text(name, value)


def _tag(value: Any) -> str:
    tag = _text("tags", value)
    if not tag or "\n" in tag:
        raise _refused("tags", value, "a tag is not empty, and has no line break")
    return tag


def _bytes(name: str, value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise _refused(name, value, "it is not bytes")
    return bytes(value)


def _digest(name: str, value: Any) -> bytes:
    if len(_bytes(name, value)) != 32:
        raise _refused(name, value, "it has not 32 bytes")
    return bytes(value)


def _optional_digest(name: str, value: Any) -> bytes | None:
    return None if value is None else _digest(name, value)


def _number(name: str, value: Any, most: int) -> int:
    try:
        number = value.__index__()
    except AttributeError:
        raise _refused(name, value, "it is not a whole number") from None
    if not 0 <= number <= most:
        raise _refused(name, value, f"it is not between 0 and {most}")
    return int(number)


def _seconds(value: Any) -> float:
    if type(value) is float and 0.0 < value < math.inf:
        return value
    try:
        seconds = float(value) + 0.0  # databases turn -0.0 into 0.0
    except (TypeError, ValueError, OverflowError):
        raise _refused("compute_seconds", value, "it is not a number of seconds") from None
    if not 0.0 <= seconds < math.inf:
        raise _refused("compute_seconds", value, "it is not a number of seconds")
    return seconds


def _refused(name: str, value: object, why: str) -> CodecError:
    return CodecError(f"an entry cannot be stored with {name}={value!r:.80}: {why}")
