"""What the cache asks of a store or a codec, and nothing more.

Classes do not inherit from these; a line `_conforms: type[BlobStore] = LocalBlobStore` lets
the type checker prove that a class fits. `cacheness.testing.contracts` proves the behaviour.
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

        Writing a name again replaces the blob whole. Nothing is visible before the last byte.
        """
        ...

    def read(self, name: str, size: int) -> Buffer:
        """The blob's bytes, in a writable buffer that belongs to the caller alone.

        Raises BlobMissing when there is no such blob, CorruptEntry when it is not `size` bytes
        long; never holds more than `size` bytes of it.
        """
        ...

    def stat(self, name: str) -> BlobInfo | None:
        """Ask for one blob by name. None means that it is not there, never "could not ask"."""
        ...

    def delete(self, name: str) -> None:
        """Remove a blob. One that is gone already is no error."""
        ...

    def delete_many(self, names: Collection[str]) -> dict[str, CachenessError]:
        """Remove blobs, in few requests where the store can; why each that may still be there is."""
        ...

    def scan(self, prefix: str = "", *, after: str = "") -> Iterator[BlobInfo]:
        """List blobs whose names start with `prefix`, sorted by name (code points), in pages.

        A listing that begins `after` a name does not read what comes before it.
        """
        ...

    def uploads(self, prefix: str = "") -> Iterator[Upload]:
        """List uploads that were begun and not finished, where the store can list them."""
        ...

    def abort(self, upload: Upload) -> None:
        """Drop an unfinished upload. One that is gone already is no error."""
        ...

    def close(self) -> None:
        """Close connections. May be called twice."""
        ...


class Clock(Protocol):
    """The database's clock."""

    def now(self) -> int:
        """Microseconds since the epoch by the database's clock; costs no round trip."""
        ...

    def measure_clock(self) -> None:
        """Ask the database for its time, so that `now()` follows a clock that was set; may cost a round trip."""
        ...


class OwnIdentity(Protocol):
    """Which database a store is, for the tie to its blob store."""

    def identity(self) -> Identity:
        """Which database this is, asked of the server."""
        ...

    def begin_epoch(self, epoch: str) -> None:
        """Put a new repair's random epoch before the last ones, atomically.

        `identity().epoch` lists about thirty of them, the newest first, with commas between.
        """
        ...

    def is_unused(self) -> bool:
        """Return True when nobody has used this database: no repair, no session and no entry with a blob."""
        ...


class EntryRows(Protocol):
    """Entries: one row for each key."""

    def find(self, namespace: str, key: bytes) -> Entry | None:
        """One row by its key, expired or not, in one round trip; none that is disputed."""
        ...

    def last_change(self) -> object | None:
        """A mark that equals an earlier one only when nobody has committed in between, in this process or another.

        None where the store cannot say so for much less than `find` takes.
        """
        ...

    def find_many(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        """Rows by their keys that are not disputed, one statement per 1,000, since inline bytes come along."""
        ...

    def present(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, Presence]:
        """Which keys have a row that neither expired nor is disputed; one statement per 10,000, no inline bytes.

        A link counts only where the row that it names is such a row with the same alias; the sizes are of that.
        """
        ...

    def commit(self, entries: Sequence[Entry], session: str, *, fresh: bool = False) -> list[str]:
        """Publish entries in one transaction, if the session still lives.

        Locks the session's row, inserts or replaces the entries, and leaves a tombstone for
        every blob that was replaced; returns those blobs' names. `fresh` entries were made
        now: a server refuses those whose `created_at` is more than a minute from its clock. Raises
        SessionLost or ClockMoved (and nothing happened), or CommitUnanswered (and nobody knows).
        """
        ...

    def find_by_alias(self, namespace: str, alias: bytes) -> list[Entry]:
        """Some entries that say that this is their alias, none that is a link or disputed; the newest first."""
        ...

    def named_codes(self, namespace: str, digests: Sequence[bytes]) -> set[bytes]:
        """Which of these an entry names as its `fn`; one statement per 10,000, a step for each."""
        ...

    def keys_by_value(self, namespace: str, values: Sequence[bytes]) -> dict[bytes, list[bytes]]:
        """The keys of entries that say that their value has one of these digests, by digest; a thousand at most."""
        ...

    def scan(self, where: Where, *, after: bytes = b"", limit: int = 1000) -> list[Entry]:
        """The first `limit` matching entries with a key greater than `after`, in key order."""
        ...

    def functions(self, namespace: str) -> list[str]:
        """The functions that entries name, each once, sorted; a step for each of them, not for each entry."""
        ...

    def newest(self, where: Where, *, before: tuple[int, bytes] | None = None, limit: int = 1000) -> list[Entry]:
        """The newest matching entries, those after `before` (its time and key) in that order.

        By an index where the conditions are a single function or none.
        """
        ...

    def sample(self, namespace: str, start: bytes, limit: int) -> list[Candidate]:
        """Neighbours in key order, from a key on and round the end: what eviction chooses from."""
        ...

    def swap(self, old: Entry, new: Entry) -> bool:
        """Replace expiry and signature of a row that is still exactly `old`."""
        ...

    def delete(self, where: Where, *, most: int | None = None, waits: bool = True, lasting: bool = True) -> Deleted:
        """Delete matching rows, the links to them, uses and tags, in batches, each with tombstones and totals at once.

        At `most` so many, and without `waits` none that another transaction has locked. Those of a
        function or an age are found by its index, others in key order. A power cut may undo what is not
        `lasting`, but never the deletion of a row whose blob is in the result.
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
        """When the entries under these keys were used last, and how often."""
        ...

    def totals(self, namespace: str) -> Totals:
        """Entries and bytes, as every transaction keeps them; nothing is counted."""
        ...

    def recount(self, namespace: str, *, correct: bool) -> tuple[int, int]:
        """By how many entries and bytes the kept totals are too low; `correct` adds what is missing."""
        ...

    def record_activity(self, namespace: str, who: str, rows: Sequence[Activity]) -> None:
        """Write the figures of a process, whole: they replace those that it wrote for the same hours before."""
        ...

    def fold_activity(self, namespace: str, most: int) -> int:
        """Add up to `most` old figures of processes to hour, day and month, and drop what is too old; how many."""
        ...

    def activity(self, namespace: str, since: int | None = None) -> list[Activity]:
        """What calls came to, of all processes together, by function, outcome and reason: since an hour, or ever."""
        ...

    def activity_by_hour(self, namespace: str, since: int) -> list[Activity]:
        """What calls came to in each span since an hour, by outcome; functions and reasons are left empty."""
        ...


class QuotaRows(Protocol):
    """What a namespace may hold."""

    def holdings(self, namespace: str) -> Holdings:
        """What the namespace holds, what it may hold, and when it was looked after; nothing is counted."""
        ...

    def set_quota(self, namespace: str, quota: Quota) -> bool:
        """Say what the namespace may hold; whether that is news."""
        ...

    def note_maintenance(self, namespace: str) -> None:
        """Note that somebody looks after the namespace now."""
        ...


class UnstoredRows(Protocol):
    """Why results are not stored."""

    def note_unstored(self, namespace: str, reasons: Mapping[bytes, str]) -> None:
        """Keep beside keys why their results were not stored: key -> reason, which is text that `is_text`."""
        ...

    def unstored(self, namespace: str, keys: Sequence[bytes], age: int) -> dict[bytes, str]:
        """The reasons that were noted at most so many microseconds ago; one statement per 10,000 keys."""
        ...

    def delete_unstored(self, namespace: str, age: int) -> None:
        """Drop the reasons that were noted longer ago than this, in microseconds."""
        ...


class FunctionRows(Protocol):
    """The code that made results, a row for each fingerprint. A hint: who reads one compares its digest."""

    def note_functions(self, namespace: str, functions: Sequence[FunctionCode]) -> None:
        """Keep rows, and that they were seen today; a power cut may undo that. What is so already is not written."""
        ...

    def function_codes(self, namespace: str, digests: Sequence[bytes]) -> dict[bytes, FunctionCode]:
        """The rows under many digests, as they are; one statement per 1,000."""
        ...

    def forget_functions(self, namespace: str, age: int, most: int) -> int:
        """Of the rows last seen longer ago than this, in microseconds, look at most so many; how many it looked at.

        What no entry names is dropped; the others count as seen today.
        """
        ...


class DisputeRows(Protocol):
    """Results that came out differently when they were computed again."""

    def dispute(self, namespace: str, dispute: Dispute, most: int) -> bool:
        """Keep the entry under a key from being found; False where its function has `most` of the last day."""
        ...

    def disputes(self, namespace: str, keys: Sequence[bytes] | None = None) -> list[Dispute]:
        """The disputes about entries that are still those, in key order; of these keys, or of all."""
        ...

    def settle(self, namespace: str, keys: Collection[bytes]) -> int:
        """Drop the disputes about these keys; returns how many there were."""
        ...

    def delete_stale_disputes(self, namespace: str) -> None:
        """Drop the disputes about entries that are gone, or others by now."""
        ...


class EquivalenceRows(Protocol):
    """Fingerprints of code whose results count for each other's."""

    def equivalences(self, namespace: str) -> list[Equivalence]:
        """The equivalences of a namespace, by their fingerprints; a thousand at most."""
        ...

    def find_equivalent(self, namespace: str, new: bytes, keys: Sequence[bytes]) -> list[tuple[Entry, Equivalence]]:
        """Each row under one of a few keys that is not disputed, with each equivalence of this fingerprint now."""
        ...

    def set_equivalence(self, equivalence: Equivalence) -> bool:
        """Write an equivalence. False, and nothing is changed, where a difference has ended the one that is there."""
        ...

    def delete_equivalence(self, namespace: str, new: bytes, old: bytes) -> bool:
        """Delete an equivalence; False when there is none."""
        ...

    def delete_old_equivalences(self, namespace: str, before: int) -> None:
        """Drop the equivalences that were made before a time, in microseconds since the epoch."""
        ...


class TombstoneRows(Protocol):
    """Blobs that wait to be deleted."""

    def tombstones(self, prefix: str = "", *, after: str = "", limit: int = 1000) -> list[str]:
        """Blobs waiting to be deleted, sorted by name."""
        ...

    def clear_tombstones(self, blobs: Collection[str]) -> None:
        """Delete the tombstones of blobs that are gone."""
        ...


class SessionRows(Protocol):
    """Writer processes, and which of them are dead."""

    def open_session(self, process: Process, *, lasting: bool = True) -> str:
        """Begin to write: a new session's id, 16 hexadecimal digits.

        What is not `lasting` a power cut may undo until the session's first commit is answered.
        """
        ...

    def renew_session(self, session: str) -> bool:
        """Extend the lease; False when the session is no longer live."""
        ...

    def end_session(self, session: str) -> None:
        """Set a session ended; waits for a commit of it that is running."""
        ...

    def live_sessions(self) -> list[SessionInfo]:
        """Sessions not yet fenced or ended."""
        ...

    def fence(self, session: str) -> bool:
        """Refuse all later commits of a session. False: it is committing right now, so it lives."""
        ...

    def dead_sessions(self, sessions: Collection[str]) -> set[str]:
        """Which of these are fenced or ended, and so will never commit again."""
        ...

    def condemn(self, sessions: Collection[str]) -> set[str]:
        """Fence those of these sessions that this database does not know, so that none can commit; which they are."""
        ...

    def delete_sessions(self, age: int) -> int:
        """Drop the rows of sessions fenced or ended longer ago than this, in microseconds; returns how many."""
        ...

    def exclusive(self) -> AbstractContextManager[None]:
        """Held over each put and each repair by a store that has no sessions; else does nothing."""
        ...


class CheckRows(Protocol):
    """When a check last read which blobs."""

    def check_times(self, namespace: str) -> dict[int, int]:
        """When each shard was last checked deeply: first byte of its keys -> microseconds."""
        ...

    def record_checks(self, namespace: str, shards: Sequence[int], at: int) -> None:
        """Note that shards were checked deeply."""
        ...

    def damage(self, *, whole: bool) -> list[str] | None:
        """Return what is broken in the database itself, in words; None where it cannot be asked.

        It reads all of it; `whole` compares indexes with their tables, too.
        """
        ...


class ComputeLeaseRows(Protocol):
    """The right to compute a key."""

    def take_compute_lease(self, namespace: str, key: bytes, token: str, seconds: float) -> bool:
        """Take or renew the right to compute a key; False when another token holds it."""
        ...

    def end_compute_lease(self, namespace: str, key: bytes, token: str) -> None:
        """Give up a compute lease. One that is gone, or another token's, stays as it is."""
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
    """Rows, and the transactions that keep them true. Safe to call from many threads.

    Raises StoreUnavailable, StoreRefused, StoreFull or SchemaMismatch, never a driver's exception.
    """

    @property
    def needs_key(self) -> bool:
        """True when other people can write here, so that unsigned entries must not be trusted."""
        ...

    def close(self) -> None:
        """Close connections and release locks. May be called twice."""
        ...


class Codec(Protocol):
    """Turns values of some kinds into bytes and back.

    Give one of your own as `UnifiedCache(codecs=[…])`, where you write and where you read. Its name is in the
    signed row, so that an entry is decoded by the codec that wrote it. `CodecContract` in
    `cacheness.testing.contracts.codecs` has tests for it. Make it hashable, and equal to its copies (a frozen
    dataclass is): caches with equal configurations share their connections.
    """

    @property
    def name(self) -> str:
        """Return 1 to 32 small letters, digits and hyphens, which never change: rows hold them."""
        ...

    @property
    def safe(self) -> bool:
        """Return True when `decode` runs no code that the bytes choose, as unpickling does."""
        ...

    def accepts(self, value: Any) -> bool:
        """Return True when `encode` takes this value. It is called in every put, so it is quick and imports nothing.

        Args:
            value: the value of a put.
        """
        ...

    def encode(self, value: Any) -> list[Buffer]:
        """Return the encoded value as buffers, which share memory with the value where they can.

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
