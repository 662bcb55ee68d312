"""Every entry of one cache into another: keys, times, tags and provenance kept, signatures made anew."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from cacheness.cache import Cache, Draft
from cacheness.entry import Entry
from cacheness.errors import BlobMissing, CorruptEntry

_log = logging.getLogger(__name__)

PAGE = 1000
BATCH_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy did."""

    copied: int
    already_there: int  #: the same bytes, made at the same time
    unreadable: int  #: missing or corrupt in the source, so not copied


def copy(
    source: Cache, target: Cache, entries: Iterator[Entry], progress: Callable[[Copied], None] | None = None
) -> Copied:
    """Copy entries, verified, as stored bytes: nothing is decoded. Interrupted, it may be run again."""
    done = Copied(0, 0, 0)
    while page := list(islice(entries, PAGE)):
        there = target.metadata.find_many(target.namespace, [entry.key for entry in page])
        missing = [entry for entry in page if not _is_same(there.get(entry.key), entry)]
        done = replace(done, already_there=done.already_there + len(page) - len(missing))
        for drafts in _batches(source, target, missing):
            target.publish([draft for draft in drafts if draft is not None])
            lost = drafts.count(None)
            done = replace(done, copied=done.copied + len(drafts) - lost, unreadable=done.unreadable + lost)
            if progress is not None:
                progress(done)
    return done


def _batches(source: Cache, target: Cache, entries: list[Entry]) -> Iterator[list[Draft | None]]:
    batch: list[Draft | None] = []
    held = 0
    for entry in entries:
        batch.append(_draft(source, target, entry))
        held += entry.size
        if held >= BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _draft(source: Cache, target: Cache, entry: Entry) -> Draft | None:
    try:
        data = source.read_bytes(entry)
    except (BlobMissing, CorruptEntry) as error:
        _log.warning("entry %s was not copied: %s", entry.cache_key, error)
        return None
    bare = replace(entry, namespace=target.namespace, object=None, inline=None, key_id="", mac=b"")
    return Draft(bare, [data])


def _is_same(found: Entry | None, entry: Entry) -> bool:
    return found is not None and (found.digest, found.created_at) == (entry.digest, entry.created_at)
