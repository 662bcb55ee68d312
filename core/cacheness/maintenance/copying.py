"""Copy the entries of a cache to another: keys, times, tags and provenance stay, signatures are new."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice

from cacheness.errors import CachenessError, StoreFull, StoreRefused, StoreUnavailable
from cacheness.lazy_dataclass import dataclass
from cacheness.logs import logger_of
from cacheness.records import Entry, Where
from cacheness.results.store import Cache, Draft, this_very

_log = logger_of(__name__)

PAGE = 1000
BATCH_BYTES = 64 << 20
#: After so many entries in a row with failures of a store, the store counts as down.
TROUBLE_IN_A_ROW = 10
_OF_THE_STORE = (StoreUnavailable, StoreFull, StoreRefused)


@dataclass(slots=True)
class Copied:
    """The progress of a copy."""

    copied: int = 0
    already_there: int = 0  #: the same bytes and time, or a newer entry, signed by a key of the target
    expired: int = 0  #: expired or disputed, so not copied
    unreadable: int = 0  #: missing, corrupt or not signed by a key of the source, so not copied
    refused: int = 0  #: the target cannot store them

    @property
    def skipped(self) -> int:
        """Return the number of results that should have been copied and were not."""
        return self.unreadable + self.refused

    @property
    def seen(self) -> int:
        """Return the number of entries that the copy has processed."""
        return self.copied + self.already_there + self.expired + self.skipped


def every_row(cache: Cache) -> Iterator[Entry]:
    """Yield every row of the namespace in key order, verified or not: a copy must report what it skips."""
    after = b""
    while page := cache.metadata.scan(Where(cache.namespace), after=after, limit=PAGE):
        yield from page
        after = page[-1].key


def copy(
    source: Cache,
    target: Cache,
    entries: Iterable[Entry],
    progress: Callable[[Copied], None] | None = None,
    *,
    skipped: Callable[[Entry, CachenessError], None] | None = None,
) -> Copied:
    """Copy entries, verified, as stored bytes: nothing is decoded. After an interruption, run it again.

    An entry that cannot be copied is skipped, counted, and passed to `skipped` with the reason;
    without `skipped` it is logged. If a store fails for many entries in a row, the copy ends with
    its error.
    """
    run = _Copy(source, target, skipped or _log_skipped)
    rest = iter(entries)
    while page := list(islice(rest, PAGE)):
        for batch in run.batches(run.wanted(page)):
            run.publish(batch)
            if progress is not None:
                progress(run.done)
    return run.done


class _Copy:
    """One run of `copy`."""

    def __init__(self, source: Cache, target: Cache, skipped: Callable[[Entry, CachenessError], None]) -> None:
        self._source = source
        self._target = target
        self._skipped = skipped
        self._in_a_row = 0
        self.done = Copied()

    def wanted(self, page: list[Entry]) -> list[Entry]:
        """Return the entries of a page that are results, and not in the target yet."""
        source = self._source
        alive = [entry for entry in page if not (source.is_genuine(entry) and source.is_expired(entry))]
        self.done.expired += len(page) - len(alive)
        there = self._target.metadata.find_many(self._target.namespace, [entry.key for entry in alive])
        missing = [entry for entry in alive if not self._is_there(there.get(entry.key), entry)]
        self.done.already_there += len(alive) - len(missing)
        for entry in missing:
            broken = there.get(entry.key)
            if broken is not None and not self._target.is_genuine(broken):
                self._target.delete(this_very(broken))  # it may look newer, and would stay
        return missing

    def batches(self, entries: list[Entry]) -> Iterator[list[Draft]]:
        """Read entries, a batch in memory at a time. Unreadable ones are counted, and skipped."""
        batch: list[Draft] = []
        held = 0
        codes = self._source.code_of(entries)
        for entry in entries:
            try:
                data = self._source.read_bytes(entry)
            except CachenessError as error:
                self.done.unreadable += 1
                self._skip(entry, error)
                continue
            self._in_a_row = 0
            code = None if entry.fn is None else codes.get(entry.fn)
            batch.append(Draft(_bare(entry, self._target.namespace), [data], code))
            held += entry.size
            if held >= BATCH_BYTES:
                yield batch
                batch, held = [], 0
        yield batch

    def publish(self, drafts: list[Draft]) -> None:
        """Store a batch; if it fails, its halves, until the entry with the error is found."""
        if not drafts:
            return
        try:
            self._target.publish(drafts, fresh=False)
        except CachenessError as error:
            if len(drafts) == 1:
                self.done.refused += 1
                self._skip(drafts[0].entry, error)
                return
        else:
            self.done.copied += len(drafts)
            self._in_a_row = 0
            self._copy_uses([draft.entry.key for draft in drafts])
            return
        middle = len(drafts) // 2
        self.publish(drafts[:middle])
        self.publish(drafts[middle:])

    def _copy_uses(self, keys: list[bytes]) -> None:
        used = self._source.metadata.uses(self._source.namespace, keys)
        counted = {key: (use.hits, use.accessed_at) for key, use in used.items()}
        try:
            self._target.metadata.record_use(self._target.namespace, counted)
        except CachenessError as error:
            _log.debug("usage counters were not copied: %s", error)

    def _skip(self, entry: Entry, error: CachenessError) -> None:
        self._skipped(entry, error)
        self._in_a_row = self._in_a_row + 1 if isinstance(error, _OF_THE_STORE) else 0
        if self._in_a_row >= TROUBLE_IN_A_ROW:
            raise error

    def _is_there(self, found: Entry | None, entry: Entry) -> bool:
        if found is None or not self._target.is_genuine(found):
            return False
        same = (found.digest, found.created_at) == (entry.digest, entry.created_at)
        return same or found.created_at > entry.created_at


def _bare(entry: Entry, namespace: str) -> Entry:
    """Return the entry without its store-specific fields: its place and its signature."""
    return replace(entry, namespace=namespace, blob=None, inline=None, key_id="", mac=b"")


def _log_skipped(entry: Entry, error: CachenessError) -> None:
    _log.warning("entry %s was not copied: %s", entry.cache_key, error)
