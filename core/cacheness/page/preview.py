"""Show one entry: whether it is served, what to do if not, and its value."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from cacheness.errors import BlobMissing, CachenessError, CorruptEntry
from cacheness.printable import cut
from cacheness.records import DISPUTED, EXPIRED, REFRESHED
from cacheness.results.store import DAMAGED, FILE_CHANGED, LINK_BROKEN, UNKNOWN_SIGNER

if TYPE_CHECKING:
    from cacheness.cache import UnifiedCache
    from cacheness.records import Entry

_AGAIN: Final = "the next call computes it again"
_ADVICE: Final[Mapping[str, str]] = {
    DISPUTED: "decide with: cacheness disputes {key} --keep old|new",
    EXPIRED: f"{_AGAIN}, and cacheness evict deletes it",
    REFRESHED: _AGAIN,
    FILE_CHANGED: _AGAIN,
    LINK_BROKEN: _AGAIN,
    DAMAGED: "cacheness verify --deep shows what is wrong, and --repair removes it",
    UNKNOWN_SIGNER: "give the signing_key= that wrote it, or trust= its public key",
}


def not_served(cache: UnifiedCache, entry: Entry) -> str:
    """Return why an entry is not served, and what to do about it; "" if it is, as far as its row shows."""
    return _advised(cache.why_not_served(entry), entry)


def preview(cache: UnifiedCache, entry: Entry, most: int | None = None) -> str:
    """Return a text for an entry's value, or why it is not shown: at most so many characters, or a few words."""
    try:
        if reason := not_served(cache, entry):
            return f"(not served: {reason})"
        value = cache.value_of(entry)
    except (BlobMissing, CorruptEntry):
        return f"(not served: {_advised(DAMAGED, entry)})"
    except CachenessError as error:
        return f"(not readable here: {error})"
    try:
        return reprlib.repr(value) if most is None else cut(repr(value), most)
    except Exception as error:  # noqa: BLE001  the value's own class
        return f"(its repr raises {type(error).__name__})"


def _advised(reason: str, entry: Entry) -> str:
    advice = _ADVICE.get(reason, "")
    return f"{reason}; {advice.format(key=entry.cache_key[:12])}" if advice else reason
