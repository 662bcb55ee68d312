"""Convert an entry to a readable line of JSON, and back without loss."""

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
    """Return one record as a line."""
    return json.dumps(record, ensure_ascii=False, separators=(", ", ": ")).encode("utf-8", "surrogatepass") + b"\n"


def record_of(line: bytes) -> dict[str, Any]:
    """Return a line as a record. Raises ValueError for any other text."""
    record: dict[str, Any] = json.loads(line.decode("utf-8", "surrogatepass"))
    return record


def entry_to_json(entry: Entry) -> dict[str, Any]:
    """Return an entry's fields, as hexadecimal digits, dates and plain text."""
    shown = {field.name: getattr(entry, field.name) for field in fields(entry)}
    shown.update({name: None if shown[name] is None else shown[name].hex() for name in _BYTES})
    shown.update({name: time_to_text(shown[name]) for name in _TIMES})
    shown.update({name: None if shown[name] is None else _opened(shown[name]) for name in _JSON})
    shown["inline"] = None if entry.inline is None else base64.b64encode(entry.inline).decode()
    shown["tags"] = list(entry.tags)
    return shown


def entry_from_json(shown: dict[str, Any], *, with_bytes: bool) -> Entry:
    """Return the entry of such fields, without its inline bytes unless requested."""
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
    """Return a dispute's fields."""
    digests = [None if digest is None else digest.hex() for digest in (dispute.stored, dispute.computed)]
    return [dispute.cache_key, time_to_text(dispute.at), *digests, dispute.function, dispute.detail]


def dispute_from_json(shown: list[Any]) -> Dispute:
    """Return the dispute of such fields."""
    key, at, stored, computed, function, detail = shown
    stored, computed = (None if digest is None else bytes.fromhex(digest) for digest in (stored, computed))
    return Dispute(bytes.fromhex(key), time_from_text(at) or 0, stored, computed, function, detail)


def equivalence_to_json(equivalence: Equivalence) -> dict[str, Any]:
    """Return an equivalence's fields."""
    shown = {field.name: getattr(equivalence, field.name) for field in fields(equivalence)}
    shown.update({name: shown[name].hex() for name in ("new", "old", "mac")})
    shown.update({name: _opened(shown[name]) for name in ("parameters", "evidence")})
    return shown


def equivalence_from_json(shown: dict[str, Any]) -> Equivalence:
    """Return the equivalence of such fields."""
    read = {name: bytes.fromhex(shown[name]) for name in ("new", "old", "mac")}
    read_text = {name: _closed(shown[name]) for name in ("parameters", "evidence")}
    return Equivalence(**{**shown, **read, **read_text})


def time_to_text(microseconds: int | None) -> str | None:
    """Return a time as text, to the microsecond."""
    if microseconds is None:
        return None
    return (_EPOCH + timedelta(microseconds=microseconds)).isoformat(timespec="microseconds")


def time_from_text(text: str | None) -> int | None:
    """Return the time of such text in microseconds since the epoch."""
    if text is None:
        return None
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1)


def _opened(text: str) -> Any:
    """JSON within JSON, if it can be restored letter for letter; otherwise the text, because the text was signed."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, dict | list) and _canonical(value) == text else text


def _closed(shown: Any) -> str | None:
    return shown if shown is None or isinstance(shown, str) else _canonical(shown)


def _canonical(value: Any) -> str:
    return _canonical_encoder.encode(value)
