"""Protocols of stores and codecs: the methods that the cache calls.

Classes do not inherit from these; a line `_conforms: type[BlobStore] = LocalBlobStore` lets the
type checker prove that a class fits. `cacheness.testing.contracts` proves the behaviour.
"""

from __future__ import annotations

from collections.abc import Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeAlias, TypeVar, overload

from cacheness.errors import CachenessError
from cacheness.keys import FunctionCode, Key
from cacheness.records import (
    Activity,
    BlobInfo,
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
    Upload,
    Use,
    Where,
)
from cacheness.references import Ref

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")
P_method = ParamSpec("P_method")
R_method = TypeVar("R_method")

#: Anything with the buffer protocol, C-contiguous.
Buffer: TypeAlias = bytes | bytearray | memoryview


class BlobStore(Protocol):
    """Named bytes. Safe to call from many threads; not used across a fork.

    Raises StoreUnavailable, StoreRefused or StoreFull, never a driver's exception.
    """

    def write(self, name: str, buffers: Sequence[Buffer]) -> None:
        """Store the buffers, one after the other, as one blob: durable and whole, or not at all.

        Writing a name again replaces the whole blob. Nothing is visible before the last byte.
        """
        ...

    def read(self, name: str, size: int) -> Buffer:
        """Return the blob's bytes, in a writable buffer that belongs to the caller alone.

        Raises BlobMissing when there is no such blob, CorruptEntry when it is not `size` bytes
        long; never holds more than `size` bytes of it.
        """
        ...

    def stat(self, name: str) -> BlobInfo | None:
        """Return one blob's name and size. None means that it is not there, never that the store failed."""
        ...

    def delete(self, name: str) -> None:
        """Delete a blob. A blob that is already deleted is no error."""
        ...

    def delete_many(self, names: Collection[str]) -> dict[str, CachenessError]:
        """Delete blobs, in few requests if possible; return the error of each that may still be there."""
        ...

    def scan(self, prefix: str = "", *, after: str = "") -> Iterator[BlobInfo]:
        """List blobs whose names start with `prefix`, sorted by name (code points), in pages.

        A listing that begins `after` a name does not read earlier names.
        """
        ...

    def uploads(self, prefix: str = "") -> Iterator[Upload]:
        """List unfinished uploads, if the store can list them."""
        ...

    def abort(self, upload: Upload) -> None:
        """Delete an unfinished upload. One that is already gone is no error."""
        ...

    def close(self) -> None:
        """Close connections. May be called twice."""
        ...


class DiskBlobStore(BlobStore, Protocol):
    """A blob store whose caller may work while the disk writes. Any store may have this method."""

    def writing(self, name: str, buffers: Sequence[Buffer]) -> AbstractContextManager[None]:
        """Store the buffers as `write` does. The blob is durable, and visible, after the block; not after an exception.

        The buffers must not change until then.
        """
        ...


class Clock(Protocol):
    """The database's clock."""

    def now(self) -> int:
        """Return microseconds since the epoch by the database's clock; costs no round trip."""
        ...

    def measure_clock(self) -> None:
        """Read the database's clock, so that `now()` follows when it is set; may cost a round trip."""
        ...


class OwnIdentity(Protocol):
    """A store's database, for its relation to the blob store."""

    def identity(self) -> Identity:
        """Read the database's identity from the server."""
        ...

    def begin_epoch(self, epoch: str) -> None:
        """Put a new repair's random epoch before the last ones, atomically.

        `identity().epoch` lists about thirty of them, the newest first, with commas between.
        """
        ...

    def is_unused(self) -> bool:
        """Return True when this database is unused: no repair, no session and no entry with a blob."""
        ...


class EntryRows(Protocol):
    """Entries: one row per key."""

    def find(self, namespace: str, key: bytes) -> Entry | None:
        """Return one row by its key, expired or not, in one round trip; none that is disputed."""
        ...

    def last_change(self) -> object | None:
        """Return a mark that equals an earlier one only if no process has committed in between.

        None if the store cannot provide it for much less time than `find` takes.
        """
        ...

    def find_many(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        """Return undisputed rows by their keys, one statement per 1,000, because inline bytes are included."""
        ...

    def present(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, Presence]:
        """Return the keys with a row that is neither expired nor disputed.

        One statement per 10,000, no inline bytes.

        A link counts only if the row that it names is such a row with the same alias; the sizes are of that row.
        """
        ...

    def commit(self, entries: Sequence[Entry], session: str, *, fresh: bool = False) -> list[str]:
        """Publish entries in one transaction, if the session is still live.

        Locks the session's row, inserts or replaces the entries, and writes a tombstone for every
        replaced blob; returns those blobs' names. `fresh` entries were made now: a server rejects
        those whose `created_at` differs by more than a minute from its clock. Raises SessionLost or
        ClockMoved (nothing was changed), or CommitUnanswered (unknown).

        An existing row stays if it has bytes and the entry is a link, or if it is newer and the
        entry is not `fresh`. The entry's own blob is then among those returned.
        """
        ...

    def find_by_alias(self, namespace: str, alias: bytes) -> list[Entry]:
        """Return some entries with this alias, newest first, without links and disputed ones."""
        ...

    def named_codes(self, namespace: str, digests: Sequence[bytes]) -> set[bytes]:
        """Return which of these digests an entry names as its `fn`.

        One statement per 10,000, one index look-up each.
        """
        ...

    def keys_by_value(self, namespace: str, values: Sequence[bytes]) -> dict[bytes, list[bytes]]:
        """Return the keys of entries whose value has one of these digests, by digest; a thousand at most."""
        ...

    def scan(self, where: Where, *, after: bytes = b"", limit: int = 1000) -> list[Entry]:
        """Return the first `limit` matching entries with a key greater than `after`, in key order."""
        ...

    def functions(self, namespace: str) -> list[str]:
        """Return the functions that entries name, each once, sorted; one look-up per function, not per entry."""
        ...

    def newest(self, where: Where, *, before: tuple[int, bytes] | None = None, limit: int = 1000) -> list[Entry]:
        """Return the newest matching entries before `before` (a time and key), newest first.

        Uses an index if the conditions are a single function or none.
        """
        ...

    def sample(self, namespace: str, start: bytes, limit: int) -> list[Candidate]:
        """Return neighbours in key order, starting at a key and wrapping around: candidates for eviction."""
        ...

    def swap(self, old: Entry, new: Entry) -> bool:
        """Replace expiry and signature of a row that still equals `old`."""
        ...

    def delete(self, where: Where, *, most: int | None = None, waits: bool = True, lasting: bool = True) -> Deleted:
        """Delete matching rows, their links, uses and tags, in batches, each with tombstones and totals.

        At `most` so many, and without `waits` none that another transaction has locked. Rows of a
        function or an age are found by its index, others in key order. A power cut may undo a
        deletion that is not `lasting`, but never that of a row whose blob is in the result.
        """
        ...


class UsageRows(Protocol):
    """How entries are used, and what a namespace holds."""

    def record_use(self, namespace: str, uses: Mapping[bytes, tuple[int, int]]) -> None:
        """Add hits and raise `accessed_at`: key -> (hits, microseconds). Keys without an entry are skipped.

        A commit resets the uses of its entries: no hits, and used when the entry was made.
        """
        ...

    def uses(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, Use]:
        """Return when the entries under these keys were last used, and how often."""
        ...

    def totals(self, namespace: str) -> Totals:
        """Return the totals of entries and bytes that every transaction keeps; nothing is counted."""
        ...

    def recount(self, namespace: str, *, correct: bool) -> tuple[int, int]:
        """Return by how many entries and bytes the kept totals are too low; `correct` adds the difference."""
        ...

    def record_activity(self, namespace: str, who: str, rows: Sequence[Activity]) -> None:
        """Replace the figures that a process wrote for the same hours by these."""
        ...

    def fold_activity(self, namespace: str, most: int) -> int:
        """Add up to `most` old figures of processes to hour, day and month, and drop older ones; return how many."""
        ...

    def activity(self, namespace: str, since: int | None = None) -> list[Activity]:
        """Return calls since an hour, or ever, of all processes, by function, outcome and reason."""
        ...

    def activity_by_hour(self, namespace: str, since: int) -> list[Activity]:
        """Return calls in each span since an hour, by outcome; functions and reasons are left empty."""
        ...


class QuotaRows(Protocol):
    """The quota of a namespace."""

    def holdings(self, namespace: str) -> Holdings:
        """Return what the namespace holds, its quota, and when it was last maintained; nothing is counted."""
        ...

    def set_quota(self, namespace: str, quota: Quota) -> bool:
        """Set the namespace's quota; return whether it changed."""
        ...

    def note_maintenance(self, namespace: str) -> None:
        """Record that a process maintains the namespace now."""
        ...


class UnstoredRows(Protocol):
    """Why results are not stored."""

    def note_unstored(self, namespace: str, reasons: Mapping[bytes, str]) -> None:
        """Store the reasons why results of keys were not stored: key -> reason, a text that passes `is_text`."""
        ...

    def unstored(self, namespace: str, keys: Sequence[bytes], age: int) -> dict[bytes, str]:
        """Return the reasons that were recorded at most so many microseconds ago; one statement per 10,000 keys."""
        ...

    def delete_unstored(self, namespace: str, age: int) -> None:
        """Drop the reasons that were recorded longer ago than this, in microseconds."""
        ...


class FunctionRows(Protocol):
    """The code that made results, a row per fingerprint. A hint: readers compare its digest."""

    def note_functions(self, namespace: str, functions: Sequence[FunctionCode]) -> None:
        """Store rows, and that they were seen today, unless that is stored already; a power cut may undo this."""
        ...

    def function_codes(self, namespace: str, digests: Sequence[bytes]) -> dict[bytes, FunctionCode]:
        """Return the rows under many digests; one statement per 1,000."""
        ...

    def forget_functions(self, namespace: str, age: int, most: int) -> int:
        """Drop unused rows among at most so many last seen longer ago than this; return how many were checked.

        The age is in microseconds.

        A row that no entry names is dropped; the others count as seen today.
        """
        ...


class DisputeRows(Protocol):
    """Results that differed when they were computed again."""

    def dispute(self, namespace: str, dispute: Dispute, most: int) -> bool:
        """Stop serving the entry under a key; return False if its function has `most` disputes of the last day."""
        ...

    def disputes(self, namespace: str, keys: Sequence[bytes] | None = None) -> list[Dispute]:
        """Return the disputes about entries that still exist, in key order; of these keys, or of all."""
        ...

    def settle(self, namespace: str, keys: Collection[bytes]) -> int:
        """Drop the disputes about these keys; return how many there were."""
        ...

    def delete_stale_disputes(self, namespace: str) -> None:
        """Drop the disputes about entries that are deleted or replaced."""
        ...


class EquivalenceRows(Protocol):
    """Fingerprints of code whose results count for each other."""

    def equivalences(self, namespace: str) -> list[Equivalence]:
        """Return the equivalences of a namespace, by their fingerprints; a thousand at most."""
        ...

    def find_equivalent(self, namespace: str, new: bytes, keys: Sequence[bytes]) -> list[tuple[Entry, Equivalence]]:
        """Return each undisputed row under one of a few keys, with each current equivalence of this fingerprint."""
        ...

    def set_equivalence(self, equivalence: Equivalence) -> bool:
        """Write an equivalence. Return False, and change nothing, if a difference has ended the existing one."""
        ...

    def delete_equivalence(self, namespace: str, new: bytes, old: bytes) -> bool:
        """Delete an equivalence; return False if there is none."""
        ...

    def delete_old_equivalences(self, namespace: str, before: int) -> None:
        """Drop the equivalences from before a time, in microseconds since the epoch."""
        ...


class TombstoneRows(Protocol):
    """Blobs that wait to be deleted."""

    def tombstones(self, prefix: str = "", *, after: str = "", limit: int = 1000) -> list[str]:
        """Return blobs that wait to be deleted, sorted by name."""
        ...

    def clear_tombstones(self, blobs: Collection[str]) -> None:
        """Delete the tombstones of deleted blobs."""
        ...


class SessionRows(Protocol):
    """Writer processes, and which of them are dead."""

    def open_session(self, process: Process, *, lasting: bool = True) -> str:
        """Open a new session; return its id, 16 hexadecimal digits.

        A power cut may undo a session that is not `lasting` until its first commit is confirmed.
        """
        ...

    def renew_session(self, session: str) -> bool:
        """Extend the lease; return False when the session is no longer live."""
        ...

    def end_session(self, session: str) -> None:
        """Mark a session as ended; waits for its running commit."""
        ...

    def live_sessions(self) -> list[SessionInfo]:
        """Return sessions that are not fenced or ended."""
        ...

    def fence(self, session: str) -> bool:
        """Reject all later commits of a session. Return False if it is committing now, so it is alive."""
        ...

    def dead_sessions(self, sessions: Collection[str]) -> set[str]:
        """Return which of these are fenced or ended, and so will never commit again."""
        ...

    def condemn(self, sessions: Collection[str]) -> set[str]:
        """Fence those of these sessions that this database does not know, so that none can commit; return them."""
        ...

    def delete_sessions(self, age: int) -> int:
        """Drop the rows of sessions fenced or ended longer ago than this, in microseconds; return how many."""
        ...

    def exclusive(self) -> AbstractContextManager[None]:
        """Return a lock for each put and each repair if a store has no sessions; otherwise it does nothing."""
        ...


class CheckRows(Protocol):
    """When a check last read which blobs."""

    def check_times(self, namespace: str) -> dict[int, int]:
        """Return when each shard was last checked deeply: first byte of its keys -> microseconds."""
        ...

    def record_checks(self, namespace: str, shards: Sequence[int], at: int) -> None:
        """Record that shards were checked deeply."""
        ...

    def damage(self, *, whole: bool) -> list[str] | None:
        """Return descriptions of damage in the database itself; None if it cannot be checked.

        It reads the whole database; `whole` compares indexes with their tables, too.
        """
        ...


class ComputeLeaseRows(Protocol):
    """The right to compute a key."""

    def take_compute_lease(self, namespace: str, key: bytes, token: str, seconds: float) -> bool:
        """Take or renew the right to compute a key; return False when another token holds it."""
        ...

    def end_compute_lease(self, namespace: str, key: bytes, token: str) -> None:
        """Release a compute lease. One that is gone, or another token's, is not changed."""
        ...

    def compute_lease_holder(self, namespace: str, key: bytes) -> str | None:
        """Return the token that holds a key's compute lease, or None."""
        ...


class MetadataStore(
    Clock,
    OwnIdentity,
    EntryRows,
    UsageRows,
    QuotaRows,
    UnstoredRows,
    FunctionRows,
    DisputeRows,
    EquivalenceRows,
    TombstoneRows,
    SessionRows,
    CheckRows,
    ComputeLeaseRows,
    Protocol,
):
    """Rows, and the transactions that keep them consistent. Safe to call from many threads.

    Raises StoreUnavailable, StoreRefused, StoreFull or SchemaMismatch, never a driver's exception.
    """

    @property
    def needs_key(self) -> bool:
        """Return True when other users can write here, so that unsigned entries must not be trusted."""
        ...

    def close(self) -> None:
        """Close connections and release locks. May be called twice."""
        ...


class Codec(Protocol):
    """Encodes values of some types as bytes and decodes them.

    Pass one of your own as `UnifiedCache(codecs=[…])`, both when you write and when you read. Its
    name is in the signed row, so that an entry is decoded by the codec that wrote it.
    `CodecContract` in `cacheness.testing.contracts.codecs` has tests for it. Make it hashable, and
    equal to its copies (a frozen dataclass is): caches with equal configurations share their
    connections.
    """

    @property
    def name(self) -> str:
        """Return a name that never changes, because rows contain it.

        It has 1 to 32 small letters, digits and hyphens.
        """
        ...

    @property
    def safe(self) -> bool:
        """Return True when `decode` runs no code from the bytes.

        Unpickling does, for example.
        """
        ...

    def accepts(self, value: Any) -> bool:
        """Return True when `encode` accepts this value.

        Every put calls it, so it is fast and imports nothing.

        Args:
            value: the value of a put.
        """
        ...

    def encode(self, value: Any) -> list[Buffer]:
        """Return the encoded value as buffers.

        They share memory with the value if possible.

        Args:
            value: a value that `accepts` takes.
        """
        ...

    def decode(self, data: Buffer) -> Any:
        """Return the value that was encoded.

        Args:
            data: the encoded bytes, after their digest was verified. The value may keep their memory and write to it.
        """
        ...


class CachedFunction(Protocol[P, R_co]):
    """A decorated function: it is called as before, and has methods that take the arguments of a call.

    Args of several methods:
        args: arguments of a call.
        kwargs: arguments of a call, by name.
    """

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Return the cached result, or call the function and store what it returns."""
        ...

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...

    @overload
    def __get__(
        self: CachedFunction[Concatenate[S, P_method], R_method], instance: S, owner: type | None = None
    ) -> CachedFunction[P_method, R_method]: ...

    @overload
    def lazy(  # type: ignore[overload-overlap] # a coroutine is a result, too
        self: CachedFunction[P_method, Coroutine[Any, Any, S]], *args: P_method.args, **kwargs: P_method.kwargs
    ) -> Coroutine[Any, Any, Ref[S]]: ...

    @overload
    def lazy(self, *args: P.args, **kwargs: P.kwargs) -> Ref[R_co]: ...

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function, store its result in place of the old one, and return it."""
        ...

    def key(self, *args: P.args, **kwargs: P.kwargs) -> Key:
        """Return the key of a call."""
        ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Delete the result of a call; return True when there was one."""
        ...

    def explain(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Return why a call would miss, without calling the function."""
        ...
