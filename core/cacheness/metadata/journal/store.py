"""Store metadata in a text file: one line of JSON for each change."""

from __future__ import annotations

import errno
import heapq
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

from cacheness import forks
from cacheness.circuit import Guard
from cacheness.deadlines import Limits, waiting
from cacheness.errors import StoreBusy, StoreFull, StoreUnavailable
from cacheness.file_locks import FileLocks
from cacheness.jitter import between
from cacheness.keys import FunctionCode
from cacheness.logs import logger_of
from cacheness.metadata.disk_reserve import Reserve, free_bytes
from cacheness.metadata.folding import (
    Place,
    Sums,
    added,
    bounds_by_function,
    bounds_by_hour,
    is_of_functions,
    span_of_hours,
)
from cacheness.metadata.journal.file import JournalFile
from cacheness.metadata.journal.index import JournalIndex, Kept
from cacheness.metadata.journal.lines import (
    dispute_to_json,
    entry_from_json,
    entry_to_json,
    equivalence_to_json,
    time_to_text,
)
from cacheness.protocols import MetadataStore
from cacheness.records import (
    DAY,
    HOUR,
    Activity,
    Candidate,
    Deleted,
    Dispute,
    Entry,
    Equivalence,
    Holdings,
    Identity,
    Presence,
    Process,
    Quota,
    SessionInfo,
    Totals,
    Use,
    Where,
    may_replace,
)

_log = logger_of(__name__)

T = TypeVar("T")

#: With fewer bytes of dead lines a journal is never rewritten.
_LEAST_WASTE: Final = 1 << 20
_DELETE_BATCH: Final = 1000
_MOST_FOUND: Final = 1000  #: keys that are found by the values of their entries
_READS: Final = 5  #: of a file that is replaced each time it is read
#: Bytes of a line besides a value, approximately.
_LINE: Final = 2 << 10
EPOCHS_KEPT: Final = 500  #: characters, about thirty epochs


class JournalStore:
    """A metadata store in the file `path`, for a small cache on one machine.

    One lock keeps every other process from writing during a put or a repair, so sessions are not
    needed here, and the lock already provides single flight. Entries are held in memory, without
    their inline bytes; a put costs one line, however many there are.
    """

    needs_key = False

    def __init__(self, path: Path, *, limits: Limits) -> None:
        self._limits = limits
        self._path = Path(path).absolute()
        self._file = JournalFile(self._path)
        self._reserve = Reserve(self._path)
        self._index = JournalIndex()
        self._reading = threading.RLock()  # held briefly: protects the index and the position in the file
        self._writing = threading.RLock()  # held during a put
        self._depth = 0
        self._is_appending = self._is_refreshing = False
        self._maintained_at: dict[str, int] = {}
        self._make_directory()
        self._guard = Guard(f"the journal {self._path}", limits)
        self._locks = FileLocks(self._path.parent)
        forks.watch_forks(self)
        self._open()

    def now(self) -> int:
        """Return the machine's clock in microseconds since the epoch: the file is on this machine."""
        return time.time_ns() // 1000

    def measure_clock(self) -> None:
        """Do nothing: each `now()` reads the machine's clock."""

    def identity(self) -> Identity:
        """Return the journal's identity: a copied directory has another inode number, a renamed one the same."""
        with self._reading:
            self._refresh()
            inode = os.stat(self._path.parent).st_ino
            return Identity(self._file.header["store"], f"inode {inode}", self._index.epoch)

    def begin_epoch(self, epoch: str) -> None:
        """Put a new repair's random epoch before the last ones, atomically."""
        self._append(lambda: [{"epoch": f"{epoch},{self._index.epoch}"[:EPOCHS_KEPT]}], deletes=True)

    def is_unused(self) -> bool:
        """Return True when this journal is unused: no repair, and no blob that it names."""
        with self._reading:
            self._refresh()
            names = (kept.entry.blob for space in self._index.namespaces() for kept in self._index.every(space))
            return "," not in self._index.epoch and not self._index.tombstones and not any(names)

    def check_times(self, namespace: str) -> dict[int, int]:
        """Return when each shard was last checked deeply: first byte of its keys -> microseconds."""
        with self._reading:
            self._refresh()
            return dict(self._index.checks.get(namespace, {}))

    def damage(self, *, whole: bool) -> list[str] | None:
        """Return nothing: each line is checked when it is read, and a damaged line is skipped with a warning."""
        return None

    def record_checks(self, namespace: str, shards: Sequence[int], at: int) -> None:
        """Record that shards were checked deeply."""
        self._append(lambda: [{"checked": [[namespace, shard, at] for shard in shards]}], durable=False)

    # entries

    def last_change(self) -> object | None:
        """Return None: the rows are in memory."""
        return None

    def find(self, namespace: str, key: bytes) -> Entry | None:
        """Return one row by its key, expired or not."""

        def look() -> Entry | None:
            kept = self._index.get(namespace, key)
            is_found = kept is not None and not self._index.is_disputed(namespace, kept.entry)
            return self._whole(kept) if kept is not None and is_found else None

        return self._steadily(look)

    def find_many(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        """Return rows by their keys."""
        found = self.scan(Where(namespace, keys=tuple(keys)), limit=len(keys))
        return {entry.key: entry for entry in found if not self._index.is_disputed(namespace, entry)}

    def present(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, Presence]:
        """Return the keys that have an unexpired row; reads no inline bytes."""
        with self._reading:
            self._refresh()
            found = [kept.entry for kept in self._index.matching(Where(namespace, keys=tuple(keys)))]
            served = {e.key: self._named_by(e) for e in found if self._is_served(namespace, e)}
        return {
            key: Presence(
                e.size, e.raw_size, e.compute_seconds, e.outputs, e.created_at, e.key if e.key != key else None
            )
            for key, e in served.items()
            if e is not None
        }

    def _is_served(self, namespace: str, entry: Entry) -> bool:
        is_over = entry.expires_at is not None and entry.expires_at <= self.now()
        return not is_over and not self._index.is_disputed(namespace, entry)

    def _named_by(self, entry: Entry) -> Entry | None:
        """Return the entry, or the entry that a link names if that is served."""
        if entry.link is None:
            return entry
        kept = self._index.get(entry.namespace, entry.link)
        named = None if kept is None else kept.entry
        if named is None or named.link is not None or named.alias != entry.alias:
            return None
        return named if self._is_served(entry.namespace, named) else None

    def commit(self, entries: Sequence[Entry], session: str, *, fresh: bool = False) -> list[str]:
        """Publish entries, all or none; there are no sessions that could be fenced, and only one clock."""
        replaced: list[str] = []

        def records() -> list[dict[str, Any]]:
            stored, replaced[:] = self._replacing(entries, fresh=fresh)
            shown = [{"put": entry_to_json(entry)} for entry in stored]
            return [*shown, {"bury": replaced}] if replaced else shown

        if entries:
            self._require_room(sum(2 * len(entry.inline or b"") + _LINE for entry in entries))
            self._append(records)
        return replaced

    def find_by_alias(self, namespace: str, alias: bytes) -> list[Entry]:
        """Return some entries with this alias, newest first, without links and disputed ones."""

        def look() -> list[Entry]:
            found = [kept for kept in self._index.with_alias(namespace, alias) if kept.entry.link is None]
            open_ = (kept for kept in found if not self._index.is_disputed(namespace, kept.entry))
            return [self._whole(kept) for kept in heapq.nlargest(9, open_, key=_age)]

        return self._steadily(look)

    def named_codes(self, namespace: str, digests: Sequence[bytes]) -> set[bytes]:
        """Return which of these digests an entry names as its `fn`."""
        with self._reading:
            self._refresh()
            return {kept.entry.fn for kept in self._index.every(namespace) if kept.entry.fn is not None}.intersection(
                digests
            )

    def keys_by_value(self, namespace: str, values: Sequence[bytes]) -> dict[bytes, list[bytes]]:
        """Return the keys of entries whose value has one of these digests, by digest."""
        with self._reading:
            self._refresh()
            wanted = dict.fromkeys(values)
            found: dict[bytes, list[bytes]] = {}
            for kept in islice((one for one in self._index.every(namespace) if one.entry.value in wanted), _MOST_FOUND):
                found.setdefault(kept.entry.value or b"", []).append(kept.entry.key)
            return {value: sorted(found[value]) for value in sorted(found)}

    def scan(self, where: Where, *, after: bytes = b"", limit: int = 1000) -> list[Entry]:
        """Return the first `limit` matching entries with a key greater than `after`, in key order."""
        return self._steadily(
            lambda: [self._whole(kept) for kept in islice(self._index.matching(where, after, self.now()), limit)]
        )

    def functions(self, namespace: str) -> list[str]:
        """Return the functions that entries name, each once, sorted."""
        with self._reading:
            self._refresh()
            return sorted({kept.entry.function for kept in self._index.every(namespace)})

    def newest(self, where: Where, *, before: tuple[int, bytes] | None = None, limit: int = 1000) -> list[Entry]:
        """Return the newest matching entries before `before` (a time and key), newest first."""

        def look() -> list[Entry]:
            found = self._index.matching(where, now=self.now())
            earlier = (kept for kept in found if before is None or _age(kept) < before)
            return [self._whole(kept) for kept in heapq.nlargest(limit, earlier, key=_age)]

        return self._steadily(look)

    def sample(self, namespace: str, start: bytes, limit: int) -> list[Candidate]:
        """Return neighbours in key order, starting at a key and wrapping around."""
        with self._reading:
            self._refresh()
            return [_candidate(kept) for kept in self._index.neighbours(namespace, start, limit)]

    def swap(self, old: Entry, new: Entry) -> bool:
        """Replace expiry and signature of a row that still equals `old`."""
        with self.exclusive():
            if self.find(old.namespace, old.key) != old:
                return False
            change = {"namespace": new.namespace, "key": new.key.hex(), "expires_at": time_to_text(new.expires_at)}
            self._append(lambda: [{"change": {**change, "key_id": new.key_id, "mac": new.mac.hex()}}])
        return True

    def delete(self, where: Where, *, most: int | None = None, waits: bool = True, lasting: bool = True) -> Deleted:
        """Delete matching rows, in batches in key order, each with its tombstones in one line."""
        with self.exclusive(), self._reading:
            self._refresh()
            found = [kept.entry for kept in islice(self._index.matching(where, now=self.now()), most)]
            links = [link for entry in found for link in self._index.links_to(where.namespace, entry)]
            gone = list({entry.key: entry for entry in [*found, *links]}.values())
            for start in range(0, len(gone), _DELETE_BATCH):
                self._append_deletion(gone[start : start + _DELETE_BATCH])
        return Deleted(len(found), tuple(entry.blob for entry in gone if entry.blob is not None))

    def record_use(self, namespace: str, uses: Mapping[bytes, tuple[int, int]]) -> None:
        """Add hits and raise `accessed_at`: key -> (hits, microseconds). Keys without an entry are skipped."""
        if uses:
            used = [[namespace, key.hex(), hits, at] for key, (hits, at) in uses.items()]
            # Not synced: a power cut may lose the time of a last use.
            self._append(lambda: [{"use": used}], durable=False)

    def uses(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, Use]:
        """Return when the entries under these keys were last used, and how often."""
        with self._reading:
            self._refresh()
            return {key: kept.use for key in keys if (kept := self._index.get(namespace, key)) is not None}

    def totals(self, namespace: str) -> Totals:
        """Return the kept totals: entries and bytes."""
        with self._reading:
            self._refresh()
            return self._index.totals(namespace)

    def recount(self, namespace: str, *, correct: bool) -> tuple[int, int]:
        """Return zero: the totals are computed from the file's lines each time it is read."""
        return 0, 0

    # figures

    def record_activity(self, namespace: str, who: str, rows: Sequence[Activity]) -> None:
        """Replace the figures that a process wrote for the same hours by these."""
        if rows:
            lines = [[namespace, *_place_of(row, who), *_sums_of(row)] for row in rows]
            self._append(lambda: [{"figures": lines}], durable=False)

    def fold_activity(self, namespace: str, most: int) -> int:
        """Add up to `most` old rows of figures to others, or drop those that were added; return how many."""
        hour = self.now() // HOUR
        with self._reading:
            self._refresh()
            if not self._index.old_figures(namespace, hour, 1):
                return 0
        old = 0

        def records() -> list[dict[str, Any]]:
            nonlocal old
            old = len(self._index.old_figures(namespace, hour, most))
            return [{"fold": [[namespace, hour, most]]}]

        self._append(records, durable=False, deletes=True)
        return old

    def activity(self, namespace: str, since: int | None = None) -> list[Activity]:
        """Return calls since an hour, or ever, by function, outcome and reason."""
        bounds = None if since is None else bounds_by_function(since)

        def place_of(place: Place) -> Place | None:
            span, _, function, outcome, reason, who = place
            counts = is_of_functions(place, bounds) if bounds else span == "all" or bool(who)
            return ("all", 0, function, outcome, reason, "") if counts else None

        return self._summed(namespace, place_of)

    def activity_by_hour(self, namespace: str, since: int) -> list[Activity]:
        """Return calls in each span since an hour, for all functions and reasons together."""
        bounds = bounds_by_hour(since, self.now() // HOUR)

        def place_of(place: Place) -> Place | None:
            span = span_of_hours(place, bounds)
            return None if span is None else (span, place[1], "", place[3], "", "")

        return self._summed(namespace, place_of)

    def _summed(self, namespace: str, place_of: Callable[[Place], Place | None]) -> list[Activity]:
        with self._reading:
            self._refresh()
            known = list(self._index.activity.get(namespace, {}).items())
        together: dict[Place, Sums] = {}
        for place, sums in known:
            if (target := place_of(place)) is not None:
                together[target] = added(together.get(target, (0, 0.0, 0.0, 0)), sums)
        return [Activity(*place[:5], *sums) for place, sums in together.items()]  # type: ignore[arg-type]

    # quotas

    def holdings(self, namespace: str) -> Holdings:
        """Return what the namespace holds, its quota, and when it was last maintained."""
        with self._reading:
            self._refresh()
            totals = self._index.totals(namespace)
            quota = self._index.quotas.get(namespace, Quota())
            return Holdings(totals.entries, totals.bytes, quota, self._maintained_at.get(namespace, 0))

    def set_quota(self, namespace: str, quota: Quota) -> bool:
        """Set the namespace's quota; return whether it changed."""
        with self.exclusive(), self._reading:
            self._refresh()
            if self._index.quotas.get(namespace, Quota()) == quota:
                return False
            line = {"namespace": namespace, **asdict(quota)}
            self._append(lambda: [{"quota": line}], durable=False, deletes=True)
            return True

    def note_maintenance(self, namespace: str) -> None:
        """Recorded for this process only: a small file needs little maintenance."""
        self._maintained_at[namespace] = self.now()

    # reasons for results that are not stored

    def note_unstored(self, namespace: str, reasons: Mapping[bytes, str]) -> None:
        """Store the reasons why results of keys were not stored: key -> reason."""

        def records() -> list[dict[str, Any]]:
            known, at = self._index.unstored.get(namespace, {}), self.now()
            new = {key: why for key, why in reasons.items() if known.get(key, ("", 0))[0] != why}
            return [{"unstored": [[namespace, key.hex(), why, at] for key, why in new.items()]}]

        if reasons:
            self._append(records, durable=False)

    def unstored(self, namespace: str, keys: Sequence[bytes], age: int) -> dict[bytes, str]:
        """Return the reasons that were recorded at most so many microseconds ago."""
        with self._reading:
            self._refresh()
            known, first = self._index.unstored.get(namespace, {}), self.now() - age
            return {key: known[key][0] for key in keys if key in known and known[key][1] >= first}

    def delete_unstored(self, namespace: str, age: int) -> None:
        """Drop the reasons that were recorded longer ago than this, in microseconds."""
        self._append(lambda: [{"forget_unstored": [[namespace, self.now() - age]]}], durable=False, deletes=True)

    # the code that made results

    def note_functions(self, namespace: str, functions: Sequence[FunctionCode]) -> None:
        """Store rows, and that they were seen today, unless that is stored already; a power cut may undo this."""
        today = self.now() // DAY * DAY
        with self.exclusive(), self._reading:
            self._refresh()
            known = self._index.functions.get(namespace, {})
            news = {c.digest: c for c in functions if c.digest not in known or known[c.digest].last_seen < today}
            lines = [[namespace, c.name, c.module, c.components, today, today] for c in news.values()]
            if lines:
                self._append(lambda: [{"functions": lines}], durable=False)

    def function_codes(self, namespace: str, digests: Sequence[bytes]) -> dict[bytes, FunctionCode]:
        """Return the rows under many digests."""
        with self._reading:
            self._refresh()
            known = self._index.functions.get(namespace, {})
            return {digest: known[digest].code for digest in digests if digest in known}

    def forget_functions(self, namespace: str, age: int, most: int) -> int:
        """Drop rows that were not seen for so long and that no entry names; return how many were checked."""
        with self.exclusive(), self._reading:
            self._refresh()
            known, first = self._index.functions.get(namespace, {}), self.now() - age
            old = [digest for digest, kept in known.items() if kept.last_seen < first][:most]
            gone = [digest for digest in old if not self._index.names_function(namespace, digest)]
            if gone:
                dropped = [[namespace, digest.hex()] for digest in gone]
                self._append(lambda: [{"forget_functions": dropped}], durable=False, deletes=True)
            self.note_functions(namespace, [known[digest].code for digest in old if digest not in gone])
            return len(old)

    # disputes

    def dispute(self, namespace: str, dispute: Dispute, most: int) -> bool:
        """Stop serving the entry under a key; return False if its function has `most` disputes of the last day."""
        with self.exclusive(), self._reading:
            self._refresh()
            known = self._index.disputes.get(namespace, {}).values()
            first = self.now() - DAY
            if sum(one.function == dispute.function and one.at > first for one in known) >= most:
                return False
            self._append(lambda: [{"disputed": [[namespace, *dispute_to_json(dispute)]]}])
            return True

    def disputes(self, namespace: str, keys: Sequence[bytes] | None = None) -> list[Dispute]:
        """Return the disputes about entries that still exist, in key order; of these keys, or of all."""
        with self._reading:
            self._refresh()
            found = self._index.open_disputes(namespace)
            return [one for one in found if keys is None or one.key in keys]

    def settle(self, namespace: str, keys: Collection[bytes]) -> int:
        """Drop the disputes about these keys; return how many there were."""
        with self.exclusive(), self._reading:
            self._refresh()
            gone = [key for key in sorted(keys) if key in self._index.disputes.get(namespace, {})]
            if gone:
                self._append(lambda: [{"settled": [[namespace, key.hex()] for key in gone]}], deletes=True)
            return len(gone)

    def delete_stale_disputes(self, namespace: str) -> None:
        """Drop the disputes about entries that are deleted or replaced."""
        with self._reading:
            self._refresh()
            still = {one.key for one in self._index.open_disputes(namespace)}
            gone = self._index.disputes.get(namespace, {}).keys() - still
        if gone:
            self.settle(namespace, gone)

    # equivalences

    def equivalences(self, namespace: str) -> list[Equivalence]:
        """Return the equivalences of a namespace, by their fingerprints; a thousand at most."""
        with self._reading:
            self._refresh()
            return [one for _, one in sorted(self._index.equivalences.get(namespace, {}).items())[:_MOST_FOUND]]

    def find_equivalent(self, namespace: str, new: bytes, keys: Sequence[bytes]) -> list[tuple[Entry, Equivalence]]:
        """Return each undisputed row under one of a few keys, with each current equivalence of this fingerprint."""
        equal = [one for one in self.equivalences(namespace) if one.new == new]
        found = self.find_many(namespace, keys) if equal else {}
        return [(entry, one) for entry in found.values() for one in equal]

    def set_equivalence(self, equivalence: Equivalence) -> bool:
        """Write an equivalence. Return False, and change nothing, if the existing one has ended."""
        with self.exclusive(), self._reading:
            self._refresh()
            known = self._index.equivalences.get(equivalence.namespace, {}).get((equivalence.new, equivalence.old))
            if known is not None and known.until <= 0:
                return False
            self._append(lambda: [{"equal": [equivalence_to_json(equivalence)]}])
            return True

    def delete_equivalence(self, namespace: str, new: bytes, old: bytes) -> bool:
        """Delete an equivalence; return False if there is none."""
        with self.exclusive(), self._reading:
            self._refresh()
            if (new, old) not in self._index.equivalences.get(namespace, {}):
                return False
            self._append(lambda: [{"unequal": [[namespace, new.hex(), old.hex()]]}], deletes=True)
            return True

    def delete_old_equivalences(self, namespace: str, before: int) -> None:
        """Drop the equivalences from before a time, in microseconds since the epoch; keep revoked ones."""
        with self._reading:
            self._refresh()
            known = list(self._index.equivalences.get(namespace, {}).values())
        for one in known:
            if one.created_at < before and one.until >= 0:
                self.delete_equivalence(namespace, one.new, one.old)

    # tombstones

    def tombstones(self, prefix: str = "", *, after: str = "", limit: int = 1000) -> list[str]:
        """Return blobs that wait to be deleted, sorted by name."""
        with self._reading:
            self._refresh()
            waiting = (name for name in self._index.tombstones if name.startswith(prefix) and name > after)
            return heapq.nsmallest(limit, waiting)

    def clear_tombstones(self, blobs: Collection[str]) -> None:
        """Delete the tombstones of deleted blobs."""
        if blobs:
            # Not synced: deleting a blob twice is harmless.
            self._append(lambda: [{"unbury": sorted(blobs)}], durable=False, deletes=True)

    # sessions: none, because the lock keeps writers and repairs apart

    def open_session(self, process: Process, *, lasting: bool = True) -> str:
        """Return a random id, for the names of blobs."""
        return os.urandom(8).hex()

    def renew_session(self, session: str) -> bool:
        """Return True: there is no lease to lose."""
        return True

    def end_session(self, session: str) -> None:
        """Do nothing: a commit is complete when the call returns."""

    def live_sessions(self) -> list[SessionInfo]:
        """Return none: the caller holds the lock, so no other process writes."""
        return []

    def fence(self, session: str) -> bool:
        """Return True: the caller holds the lock."""
        return True

    def dead_sessions(self, sessions: Collection[str]) -> set[str]:
        """Return all: the caller holds the lock, so no other process uploads."""
        return set(sessions)

    def condemn(self, sessions: Collection[str]) -> set[str]:
        """Return nothing: every session but the caller's is dead, known or not."""
        return set()

    def delete_sessions(self, age: int) -> int:
        """Return zero: sessions are not stored."""
        return 0

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Lock out all other writers, threads and processes, during a block. May be nested."""
        self._guard.once(self._take_lock)
        generation = forks.generation()
        try:
            yield
        finally:
            if generation == forks.generation():  # a child that was forked inside the block holds no lock
                self._leave()

    def _leave(self) -> None:
        self._depth -= 1
        if not self._depth:
            self._locks.release(self._lock_name)
        self._writing.release()

    # compute leases

    def take_compute_lease(self, namespace: str, key: bytes, token: str, seconds: float) -> bool:
        """Return True: two processes that compute the same key cost time and do no harm."""
        return True

    def end_compute_lease(self, namespace: str, key: bytes, token: str) -> None:
        """Does nothing: a journal keeps no compute leases."""

    def compute_lease_holder(self, namespace: str, key: bytes) -> str | None:
        """Return None."""
        return None

    def close(self) -> None:
        """Close the file and release the lock. May be called twice."""
        self._locks.close()
        self._file.close()
        self._reserve.restore()

    def reset_after_fork(self) -> None:
        """In a child, make new locks and read the file again.

        A thread of the parent may have been in the middle of a change.
        """
        self._reading, self._writing, self._depth = threading.RLock(), threading.RLock(), 0
        self._index, self._is_appending, self._is_refreshing = JournalIndex(), False, False
        self._file.close()

    @property
    def _lock_name(self) -> str:
        return self._path.name + ".lock"

    def _take_lock(self) -> None:
        with waiting(self._limits.busy) as deadline:
            if not self._writing.acquire(timeout=max(deadline - time.monotonic(), 0.0)):
                raise StoreBusy(
                    f"another thread kept the journal {self._path} locked for longer than this call may wait"
                )
            try:
                if not self._depth:
                    self._take_file_lock(deadline)
            except BaseException:
                self._writing.release()
                raise
            self._depth += 1

    def _take_file_lock(self, deadline: float) -> None:
        try:
            while not self._locks.take(self._lock_name):
                if time.monotonic() > deadline:
                    raise StoreBusy(
                        f"another process kept the journal {self._path} locked for longer than this call may wait"
                    )
                time.sleep(between(0.001, 0.01))
        except OSError as error:
            self._file.refuse(error)

    def _make_directory(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._file.refuse(error)

    def _open(self) -> None:
        if self._file.is_missing():
            with self.exclusive():
                if self._file.is_missing():
                    self._file.create()
        with self._reading:
            self._refresh()

    def _refresh(self) -> None:
        """Read the lines that any process has added since the last call."""
        if self._is_refreshing:
            return  # a finalizer interrupted this very thread: lines read twice would count twice
        self._is_refreshing = True
        try:
            self._apply_news()
        finally:
            self._is_refreshing = False

    def _apply_news(self) -> None:
        for _ in range(_READS):
            if self._file.was_replaced():
                self._index = JournalIndex()
                self._index.epoch = self._file.header["epoch"]
            self._take_in()
            if not self._file.is_cut():
                return

    def _take_in(self) -> None:
        for offset, length, record in self._file.news():
            try:
                self._index.apply(offset, length, record)
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                _log.warning(
                    "%s: the line at byte %d is not read by this version: %s: %s",
                    self._path,
                    offset,
                    type(error).__name__,
                    error,
                )

    def _steadily(self, look: Callable[[], T]) -> T:
        """Call a function on the newest file's contents, again if the file is replaced during the read."""
        with self._reading:
            for _ in range(_READS):
                self._refresh()
                try:
                    return look()
                except _Replaced:
                    continue
        raise StoreUnavailable(f"the journal {self._path} was replaced each time it was read")

    def _append(
        self, records: Callable[[], list[dict[str, Any]]], *, durable: bool = True, deletes: bool = False
    ) -> None:
        with self.exclusive(), self._reading:
            if self._is_appending:
                # Lines appended here would be cut off when the interrupted call continues.
                raise StoreBusy(f"a finalizer or signal handler interrupted a write to the journal {self._path}")
            self._is_appending = True
            try:
                self._append_within(records, durable, deletes)
            finally:
                self._is_appending = False

    def _append_within(self, records: Callable[[], list[dict[str, Any]]], durable: bool, deletes: bool) -> None:
        self._refresh()
        lines = records()
        if not lines:
            return
        least = _LEAST_WASTE
        try:
            self._file.append(lines, durable=durable)
        except StoreFull:
            if not deletes:
                raise
            least = 0
            self._reserve.give_up()
            self._file.append(lines, durable=durable)
        self._refresh()
        waste = self._file.size - self._index.live_bytes
        if waste > max(least, self._index.live_bytes):
            self._rewrite()
        self._reserve.restore()

    def _rewrite(self) -> None:
        """Remove dead lines, if there is space for the live ones."""
        try:
            is_narrow = free_bytes(self._path.parent) < 2 * self._index.live_bytes
            if is_narrow:
                self._reserve.give_up()
            self._file.replace(self._live_records())
            if is_narrow:
                self._file.cut_replaced()
                self._refresh()
        except StoreFull as error:
            _log.debug("the journal %s was not rewritten: %s", self._path, error)

    def _require_room(self, size: int) -> None:
        """Raise StoreFull before a put that would leave too little space to delete something afterwards."""
        if self._reserve.is_roomy(size):
            return
        if not self._reserve.keep() or free_bytes(self._path.parent) < size:
            self._file.refuse(OSError(errno.ENOSPC, "too little room is left on it"))

    def _live_records(self) -> Iterator[dict[str, Any]]:
        yield {**self._file.header, "epoch": self._index.epoch}
        for namespace in self._index.namespaces():
            for kept in self._index.every(namespace):
                yield {"put": entry_to_json(self._whole(kept))}
                if kept.use != Use(kept.entry.created_at, 0):
                    yield {"use": [[namespace, kept.entry.key.hex(), kept.use.hits, kept.use.accessed_at]]}
        for namespace, quota in self._index.quotas.items():
            yield {"quota": {"namespace": namespace, **asdict(quota)}}
        yield from self._live_notes()
        if self._index.tombstones:
            yield {"bury": sorted(self._index.tombstones)}

    def _live_notes(self) -> Iterator[dict[str, Any]]:
        """What is stored besides the entries."""
        checked = [[name, shard, at] for name, times in self._index.checks.items() for shard, at in times.items()]
        if checked:
            yield {"checked": checked}
        noted = [
            [name, key.hex(), why, at]
            for name, reasons in self._index.unstored.items()
            for key, (why, at) in reasons.items()
        ]
        if noted:
            yield {"unstored": noted}
        figures = [
            [name, *place, *sums] for name, known in self._index.activity.items() for place, sums in known.items()
        ]
        if figures:
            yield {"figures": figures, "kept": True}
        for namespace, functions in self._index.functions.items():
            rows = [(kept.code, kept.first_seen, kept.last_seen) for kept in functions.values()]
            yield {"functions": [[namespace, c.name, c.module, c.components, *seen] for c, *seen in rows]}
        for namespace, disputes in self._index.disputes.items():
            yield {"disputed": [[namespace, *dispute_to_json(dispute)] for dispute in disputes.values()]}
        for known in self._index.equivalences.values():
            yield {"equal": [equivalence_to_json(one) for one in known.values()]}

    def _append_deletion(self, entries: Sequence[Entry]) -> None:
        blobs = [entry.blob for entry in entries if entry.blob is not None]
        self._append(lambda: [{"delete": [[e.namespace, e.key.hex()] for e in entries], "bury": blobs}], deletes=True)

    def _replacing(self, entries: Sequence[Entry], *, fresh: bool) -> tuple[list[Entry], list[str]]:
        """Return the entries that may replace existing ones, and the blobs that nothing names then."""
        newest: dict[tuple[str, bytes], Entry] = {}
        stored, unnamed = list[Entry](), list[str]()
        for entry in entries:
            place = (entry.namespace, entry.key)
            kept = self._index.get(*place)
            old = newest.get(place, kept.entry if kept else None)
            is_link = old is not None and old.link is not None
            if old is None or may_replace(entry, is_link=is_link, created_at=old.created_at, fresh=fresh):
                newest[place], gone = entry, old
                stored.append(entry)
            else:
                newest[place], gone = old, entry
            if gone is not None and gone.blob is not None and gone.blob != newest[place].blob:
                unnamed.append(gone.blob)
        return stored, unnamed

    def _whole(self, kept: Kept) -> Entry:
        if kept.entry.blob is not None:
            return kept.entry
        record = self._file.read(kept.offset, kept.length)
        if record is None:
            raise _Replaced
        return replace(kept.entry, inline=entry_from_json(record["put"], with_bytes=True).inline)


class _Replaced(Exception):
    """The journal was replaced while it was read."""


def _place_of(row: Activity, who: str) -> Place:
    return row.span, row.hour, row.function, row.outcome, row.reason, who


def _sums_of(row: Activity) -> Sums:
    return row.calls, row.seconds_spent, row.seconds_saved, row.bytes


def _age(kept: Kept) -> tuple[int, bytes]:
    return kept.entry.created_at, kept.entry.key


def _candidate(kept: Kept) -> Candidate:
    entry, use = kept.entry, kept.use
    seconds = entry.compute_seconds or 0.0
    return Candidate(entry.key, entry.size, entry.created_at, seconds, use.accessed_at, use.hits)


_conforms: type[MetadataStore] = JournalStore
