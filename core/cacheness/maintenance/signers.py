"""List the signers of a store's entries, and replace an old key by a new one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from cacheness.errors import ConfigError
from cacheness.lazy_dataclass import dataclass
from cacheness.records import Entry, Where
from cacheness.results.store import Cache

_PAGE: Final = 1000


@dataclass(slots=True)
class Signer:
    """A key that entries name, or that this cache has."""

    id: str  #: "" for entries without a signature
    is_trusted: bool  #: this cache has the key, and accepts its entries
    signs: bool  #: this cache signs with it
    entries: int = 0
    forged: int = 0  #: of them, those that name a trusted key but have an invalid signature


def signers(cache: Cache) -> list[Signer]:
    """Return every key of this cache, and every key that an entry names. Reads each row once."""
    keyring = cache.keyring
    found = {key_id: Signer(key_id, True, key_id == keyring.signs_as) for key_id in keyring.ids}
    for entry in _rows(cache):
        signer = found.get(entry.key_id) or found.setdefault(entry.key_id, Signer(entry.key_id, False, False))
        signer.entries += 1
        signer.forged += signer.is_trusted and not cache.is_genuine(entry)
    return sorted(found.values(), key=lambda one: (not one.signs, not one.is_trusted, one.id))


def sign_again(cache: Cache, *, dry_run: bool = False, progress: Callable[[int, int], None] | None = None) -> int:
    """Sign entries of other trusted keys with the first key; invalid ones are not changed.

    An entry that another process replaces during the run is not changed. It can be interrupted and run again.

    Args:
        cache: the store, whose mode writes.
        dry_run: only count.
        progress: called after each page with the numbers of entries that were checked and signed.

    Returns:
        How many entries were signed, or would be.

    Raises:
        ConfigError: this cache has no key to sign with.
    """
    if not cache.keyring.signs_as:
        raise ConfigError("this cache has no key to sign with: give signing_key=, with the new key first")
    signed = 0
    for looked_at, entry in enumerate(_rows(cache), 1):
        if entry.key_id != cache.keyring.signs_as and cache.is_genuine(entry):
            signed += dry_run or cache.resign(entry)
        if progress is not None and looked_at % _PAGE == 0:
            progress(looked_at, signed)
    return signed


def _rows(cache: Cache) -> Iterator[Entry]:
    after, where = b"", Where(cache.namespace)
    while page := cache.metadata.scan(where, after=after, limit=_PAGE):
        yield from page
        after = page[-1].key
