"""An entry as a line of JSON that a person can read, and back, exactly."""

from __future__ import annotations

import base64
import json
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cacheness.records import Dispute, Entry, Equivalence

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_BYTES: Final = ("key", "digest", "args", "value", "fn", "alias", "link", "mac")
_TIMES: Final = ("created_at", "expires_at")
_JSON: Final = ("components", "outputs", "provenance")
_canonical_encoder: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def line_of(record: dict[str, Any]) -> bytes:
    """One record as a line."""
    return json.dumps(record, ensure_ascii=False, separators=(", ", ": ")).encode("utf-8", "surrogatepass") + b"\n"


def record_of(line: bytes) -> dict[str, Any]:
    """A line as a record. ValueError when it is none."""
    record: dict[str, Any] = json.loads(line.decode("utf-8", "surrogatepass"))
    return record


def entry_to_json(entry: Entry) -> dict[str, Any]:
    """An entry's fields, in hexadecimal, in words and in plain text."""
    shown = {field.name: getattr(entry, field.name) for field in fields(entry)}
    shown.update({name: None if shown[name] is None else shown[name].hex() for name in _BYTES})
    shown.update({name: time_to_text(shown[name]) for name in _TIMES})
    shown.update({name: None if shown[name] is None else _opened(shown[name]) for name in _JSON})
    shown["inline"] = None if entry.inline is None else base64.b64encode(entry.inline).decode()
    shown["tags"] = list(entry.tags)
    return shown


def entry_from_json(shown: dict[str, Any], *, with_bytes: bool) -> Entry:
    """The entry that was shown. Without its inline bytes, unless asked for."""
    read = dict(shown)
    read.update({name: None if shown[name] is None else bytes.fromhex(shown[name]) for name in _BYTES})
    read.update({name: time_from_text(shown[name]) for name in _TIMES})
    read.update({name: _closed(shown[name]) for name in _JSON})
    inline = shown["inline"]
    read["inline"] = base64.b64decode(inline) if with_bytes and inline is not None else None
    read["tags"] = tuple(shown["tags"])
    if not all(isinstance(read[name], int) for name in ("size", "raw_size", "created_at")):
        raise TypeError("an entry's sizes and times are whole numbers")
    return Entry(**read)


def dispute_to_json(dispute: Dispute) -> list[Any]:
    """A dispute's fields."""
    digests = [None if digest is None else digest.hex() for digest in (dispute.stored, dispute.computed)]
    return [dispute.cache_key, time_to_text(dispute.at), *digests, dispute.function, dispute.detail]


def dispute_from_json(shown: list[Any]) -> Dispute:
    """The dispute that was shown."""
    key, at, stored, computed, function, detail = shown
    stored, computed = (None if digest is None else bytes.fromhex(digest) for digest in (stored, computed))
    return Dispute(bytes.fromhex(key), time_from_text(at) or 0, stored, computed, function, detail)


def equivalence_to_json(equivalence: Equivalence) -> dict[str, Any]:
    """An equivalence's fields."""
    shown = {field.name: getattr(equivalence, field.name) for field in fields(equivalence)}
    shown.update({name: shown[name].hex() for name in ("new", "old", "mac")})
    shown.update({name: _opened(shown[name]) for name in ("parameters", "evidence")})
    return shown


def equivalence_from_json(shown: dict[str, Any]) -> Equivalence:
    """The equivalence that was shown."""
    read = {name: bytes.fromhex(shown[name]) for name in ("new", "old", "mac")}
    read_text = {name: _closed(shown[name]) for name in ("parameters", "evidence")}
    return Equivalence(**{**shown, **read, **read_text})


def time_to_text(microseconds: int | None) -> str | None:
    """A time as people write it, to the microsecond."""
    if microseconds is None:
        return None
    return (_EPOCH + timedelta(microseconds=microseconds)).isoformat(timespec="microseconds")


def time_from_text(text: str | None) -> int | None:
    """The same time in microseconds since the epoch."""
    if text is None:
        return None
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1)


def _opened(text: str) -> Any:
    """JSON within JSON, where it comes back letter for letter; else the text, which is what was signed."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, dict | list) and _canonical(value) == text else text


def _closed(shown: Any) -> str | None:
    return shown if shown is None or isinstance(shown, str) else _canonical(shown)


def _canonical(value: Any) -> str:
    return _canonical_encoder.encode(value)
