"""Implement put and lookup, step by step.

put      value -> codec.encode -> blobs.write -> sign -> metadata.commit -> Entry
lookup   key   -> metadata.find -> verify -> blobs.read -> verify -> codec.decode -> Hit | None
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, TypeAlias

from cacheness.blobs.near import NearBlobStore
from cacheness.codecs.compression import Share, compress, decompress
from cacheness.coordination.ownership import Marker
from cacheness.coordination.sessions import Sessions
from cacheness.errors import (
    BlobMissing,
    ClockMoved,
    CodecError,
    CommitUnanswered,
    CorruptEntry,
    SessionLost,
    StoreFull,
    StoreUnavailable,
)
from cacheness.keys import FunctionCode, Key, closed_digest, still_left
from cacheness.keys.closed import MOST_NODES
from cacheness.lazy_dataclass import dataclass
from cacheness.logs import logger_of
from cacheness.protocols import BlobStore, Buffer, Codec, MetadataStore
from cacheness.records import DAY, EXPIRED, MICROSECONDS, REFRESHED, Entry, Hit, OpenEntry, Where, closed, may_replace
from cacheness.results.access_counts import UseCounter
from cacheness.results.fields import plain
from cacheness.results.kept import KeptRows
from cacheness.results.signing import Keyring, digest_buffers, verify_bytes
from cacheness.results.tombstones import Tombstones
from cacheness.transfers import concurrently

_log = logger_of(__name__)

PUBLISH_ATTEMPTS = 5  #: sessions that one put may lose before it raises an error
COPY_LOOKS = 3  #: damaged local copies that a reader may find before it reads the blob itself
MOVED_ROW_LOOKS = 5  #: times that a reader repeats a look-up of a row that is being overwritten
FUNCTIONS_NOTED = 10_000  #: rows of `functions` that a process remembers to have written
KINDS_AT_MOST = 20  #: items of a container whose types are checked
ITEMS_AT_MOST = 1000  #: items whose types are compared with those that are read back
#: Why an existing entry is not served, as figures report it.
FILE_CHANGED, DAMAGED, LINK_BROKEN, UNKNOWN_SIGNER = (
    "a file that it wrote changed",
    "damaged",
    "the result that it names is gone",
    "signed by a key that is not known here",
)
MOST_WARNINGS, WARNINGS_SECONDS = 20, 600.0  #: warnings of such entries per interval
DIGESTED_LATER = 4 << 20  #: bytes from which a disk takes longer to write than the digests
_NO_DIGEST = bytes(32)
LINK = "link"  #: in place of a codec, where there are no bytes
READ_BACK_AT_MOST = 64 << 20  #: bytes; a larger value would be in memory twice


@dataclass(frozen=True, slots=True, kw_only=True)
class PutDetails:
    """Attributes of a result besides its value."""

    ttl: float | None = None
    tags: tuple[str, ...] = ()
    compute_seconds: float | None = None
    provenance: str = "{}"
    by_value: bool | None = None  #: digest the value however many members it has, or never; None: only if it has few


_CONTAINERS = frozenset({dict, list, tuple})  #: whose items are checked, too

#: A draft's entry, and the field that locates its bytes: the row itself, or the name of a blob.
_Placed: TypeAlias = tuple[Entry, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Draft:
    """An encoded value that is not committed yet. `entry` lacks its blob and signature."""

    entry: Entry
    buffers: Sequence[Buffer]
    code: FunctionCode | None  #: that the entry names
    #: Returns the digests of the bytes and of the value, if the entry lacks them.
    digests: Callable[[], tuple[bytes, bytes | None]] | None = None


class Cache:
    """One namespace over a metadata store and a blob store. Thread-safe; belongs to one process."""

    def __init__(
        self,
        metadata: MetadataStore,
        blobs: BlobStore,
        marker: Marker,
        *,
        codecs: Sequence[Codec],
        keyring: Keyring,
        namespace: str,
        inline_max_bytes: int,
        safe_codecs: bool,
        compressed_share: Share,
        writes: bool = True,
        since: int | None = None,
    ) -> None:
        self.namespace = namespace
        self.metadata = metadata
        self.blobs = blobs
        #: `DiskBlobStore.writing`, where the store has it
        self._writing: Callable[[str, Sequence[Buffer]], AbstractContextManager[None]] | None
        self._writing = getattr(blobs, "writing", None)
        self.marker = marker
        self.tombstones = Tombstones(metadata, blobs, marker)
        self.sessions = Sessions(metadata)
        self.uses = UseCounter(metadata, namespace, counts=writes)
        self.writes = writes
        self._since = since  #: older entries are not served; in microseconds since the epoch
        self.keyring = keyring
        self._store_id = ""
        self._codecs = {codec.name: codec for codec in codecs}  # in order of preference
        self._inline_max_bytes = inline_max_bytes
        self._safe_codecs = safe_codecs
        self._compressed_share = compressed_share
        self._kept = KeptRows()
        self._readable: set[tuple[int, ...]] = set()
        self._warned, self._warned_since = 0, time.monotonic()  #: warnings of entries that are not served
        self._noted: dict[bytes, int] = {}  #: rows of `functions` that are written: digest -> the day of the write

    # put

    def draft(self, key: Key, value: Any, about: PutDetails, *, is_alone: bool = False) -> Draft:
        """Encode a value; nothing is stored yet. Raises CodecError when no codec accepts it.

        A large value that is published at once, and alone, is digested while the disk writes it.
        """
        codec = self._codec_for(value)
        raw = codec.encode(value)
        raw_size = _size_of(raw)
        if not codec.safe:
            self._read_back(codec, value, raw, raw_size)
        stored, suffix = compress(raw, self._compressed_share)
        size = _size_of(stored) if suffix else raw_size
        if size <= self._inline_max_bytes:
            stored = [b"".join(stored)]
        later = None
        is_large = size >= DIGESTED_LATER and size > self._inline_max_bytes
        if is_alone and is_large and codec.safe and not suffix and self._writing is not None:
            # Not for pickles: a digest may call methods of the value, which may use this cache.
            later = partial(_digests_while_written, stored, value, about.by_value)
        digest, value_digest = (_NO_DIGEST, None) if later else _digests_of(stored, value, about.by_value)
        now, code = self.metadata.now(), key.code
        entry = OpenEntry(
            namespace=self.namespace,
            key=key.digest,
            blob=None,
            inline=None,
            size=size,
            raw_size=raw_size,
            digest=digest,
            codec=codec.name + suffix,
            created_at=now,
            expires_at=None if about.ttl is None else now + int(about.ttl * MICROSECONDS),
            compute_seconds=about.compute_seconds,
            function=key.function,
            prefix=key.prefix,
            args=key.args,
            components=key.components,
            value=value_digest,
            fn=key.own if code is None else code.digest,
            alias=key.alias,
            link=None,
            outputs=key.outputs or None,
            tags=about.tags,
            provenance=about.provenance,
            key_id="",
            mac=b"",
        )
        return Draft(plain(closed(entry)), stored, code, later)  # now, before a blob is written

    def draft_link(self, key: Key, entry: Entry, provenance: str) -> Draft:
        """Make a row without bytes that names an entry whose inputs had the same values."""
        link = replace(
            entry,
            key=key.digest,
            blob=None,
            inline=None,
            size=0,
            raw_size=0,
            digest=digest_buffers([]),
            codec=LINK,
            created_at=self.metadata.now(),
            function=key.function,
            prefix=key.prefix,
            args=key.args,
            components=key.components,
            value=None,
            link=entry.key,
            tags=(),
            provenance=provenance,
        )
        return Draft(plain(link), [b""], None)

    def _read_back(self, codec: Codec, value: Any, raw: Sequence[Buffer], size: int) -> None:
        """Raise CodecError if the first value of its type cannot be decoded in this process, or gets another type."""
        kind = _kind_of(value)
        if kind in self._readable or size > READ_BACK_AT_MOST:
            return
        try:
            decoded = codec.decode(bytearray(b"".join(raw)))
        except CodecError as error:
            name = _name_of_type(value)
            raise CodecError(f"a {name} is not stored, because it cannot be read back: {error}") from error
        for one, read in _side_by_side(value, decoded):
            before, after = _name_of_type(one), _name_of_type(read)
            if before != after:  # by name, because a class may be defined again
                raise CodecError(f"a {before} is not stored, because it would be read back as a {after}")
        self._readable.add(kind)

    def round_trip(self, value: Any) -> Any:
        """Return a value as a look-up would: encoded and decoded, and not stored."""
        codec = self._codec_for(value)
        return codec.decode(bytearray(b"".join(codec.encode(value))))

    def publish(self, drafts: Sequence[Draft], *, fresh: bool = True) -> list[Entry]:
        """Write the blobs, then commit the rows in one transaction. Durable when it returns.

        Of several drafts of one key the last one counts, but no link after a result. `fresh` entries
        are dated at the commit; others keep their times, and replace no newer entry. After an error
        none of them is published, and existing entries are unchanged.
        """
        drafts = _last_of_each(drafts)
        lasting = any(map(self._has_blob, drafts))
        self._prepare(drafts)
        placed: list[_Placed] = []
        written: list[str] = []  #: the names of blobs
        with self.metadata.exclusive():
            for _ in range(PUBLISH_ATTEMPTS):
                session = self.sessions.current(lasting=lasting)
                try:
                    placed = placed or self._write(drafts, session, written)
                    entries = [self._sign(entry, where, fresh=fresh) for entry, where in placed]
                    replaced = self.metadata.commit(entries, session, fresh=fresh)
                except ClockMoved:
                    self.metadata.measure_clock()
                except SessionLost:
                    self.sessions.lost(session)
                    placed = []
                except CommitUnanswered:
                    # Ending our session waits for the running commit; only then does the row show
                    # the result. Committing the same blob again after a check could leave a row
                    # without a blob: a repair may run between the check and the commit.
                    self.sessions.end(session)
                    if self._are_there(entries):
                        return entries
                    placed = []
                except StoreFull:
                    # Nothing was committed. Blobs that stayed would fill the disk.
                    self.sessions.abandon(session)
                    self.tombstones.delete(written)
                    raise
                except BaseException:
                    self.sessions.abandon(session)
                    raise
                else:
                    self.sessions.committed(session)
                    if replaced:
                        self.tombstones.drain(replaced)
                    self.uses.write_when_due()
                    return entries
        raise StoreUnavailable(
            f"the result was not stored: in {PUBLISH_ATTEMPTS} attempts the session was fenced, the database did not"
            " answer, or its clock was set"
        )

    def _prepare(self, drafts: Sequence[Draft]) -> None:
        """Check whose the blob store is, once; and record the code that made these results."""
        if not self.marker.is_settled:
            self.marker.settle()
        codes = [draft.code for draft in drafts if draft.code is not None]
        if codes:
            self._note_functions(codes)

    def _note_functions(self, codes: Sequence[FunctionCode]) -> None:
        """Record code once per process and day, so that rows in use are not deleted."""
        today = self.metadata.now() // DAY
        new = {code.digest: code for code in codes if self._noted.get(code.digest) != today}
        if new:
            self.metadata.note_functions(self.namespace, list(new.values()))
            if len(self._noted) > FUNCTIONS_NOTED:
                self._noted.clear()
            self._noted.update(dict.fromkeys(new, today))

    def _write(self, drafts: Sequence[Draft], session: str, written: list[str]) -> list[_Placed]:
        """Write the blobs, and add the name of each to `written`; return where each value is."""

        def write(draft: Draft) -> _Placed:
            return self._write_one(draft, session, written)

        if not any(map(self._has_blob, drafts)):
            return list(map(write, drafts))  # nothing to wait for
        try:
            return concurrently(write, drafts, lambda draft: draft.entry.size)
        except (StoreUnavailable, BlobMissing) as error:
            if self.metadata.renew_session(session):
                raise
            # A repair fenced our session and aborted the upload; the store did not fail.
            raise SessionLost(f"session {session} was fenced while it wrote") from error

    def _write_one(self, draft: Draft, session: str, written: list[str]) -> _Placed:
        if not self._has_blob(draft):
            return draft.entry, {"inline": b"".join(draft.buffers)}
        name = fresh_name(draft.entry, session)
        if draft.digests is None or self._writing is None:
            self.blobs.write(name, draft.buffers)  # durable, but not visible yet
            written.append(name)
            return draft.entry, {"blob": name}
        with self._writing(name, draft.buffers):
            digest, value = draft.digests()
        written.append(name)
        return replace(draft.entry, digest=digest, value=value), {"blob": name}

    def _has_blob(self, draft: Draft) -> bool:
        return draft.entry.size > self._inline_max_bytes

    def _sign(self, entry: Entry, where: dict[str, Any], *, fresh: bool) -> Entry:
        if not fresh:
            return self.keyring.sign(entry, **where)
        # Dated only now: the batch or the upload may have lasted longer than a clock reading is valid.
        now = self.metadata.now()
        ttl = None if entry.expires_at is None else entry.expires_at - entry.created_at
        return self.keyring.sign(entry, **where, created_at=now, expires_at=None if ttl is None else now + ttl)

    def _are_there(self, entries: Sequence[Entry]) -> bool:
        first = entries[0]  # they were committed together or not at all
        found = self.metadata.find(first.namespace, first.key)
        return found is not None and _version(found) == _version(first)

    def _codec_for(self, value: Any) -> Codec:
        for codec in self._codecs.values():
            if (codec.safe or not self._safe_codecs) and codec.accepts(value):
                return codec
        raise CodecError(
            f"a {type(value).__module__}.{type(value).__qualname__} cannot be stored with safe_codecs=True, which"
            " allows no pickle: return an array or a table, or open the cache without safe_codecs"
        )

    # lookup

    def lookup(self, key: bytes, why: list[str] | None = None) -> Hit | None:
        """Find, verify and decode one result. None means only "not here"; `why` gets the reason, if known.

        Raises CodecError when the verified bytes cannot be decoded in this process.
        """
        mark = self.metadata.last_change() if self._kept.is_known(key) else None
        if mark is not None:
            kept = self._open_kept(key, mark)
            if kept is not None:
                return kept
        entry = self.metadata.find(self.namespace, key)
        hit = self.follow(entry, why)
        if hit is not None and hit.entry is entry and entry.inline is not None:
            self._kept.note(entry, mark)
        return hit

    def _open_kept(self, key: bytes, mark: object | None) -> Hit | None:
        """Return the result of a row that was verified before and has not changed since."""
        row = None if mark is None else self._kept.find(key, mark)
        if row is None or self.why_not_served(row):
            return None
        try:
            return self._opened(row, self._decoder(row), row.inline or b"")
        except CodecError:  # no longer served: reading it again finds the reason
            return None

    def find(self, key: bytes, *, is_use: bool = False) -> Entry | None:
        """Return the verified row of a result that would be served, without its bytes; `is_use` counts it as used."""
        entry = self.metadata.find(self.namespace, key)
        if entry is None or not self.is_served(entry, is_use=is_use):
            return None
        if entry.link is None:
            return entry
        named = self.metadata.find(self.namespace, entry.link)
        if named is None or not _is_named_by(entry, named):
            return None
        return named if self.is_served(named, is_use=is_use) else None

    def is_served(self, entry: Entry, *, is_use: bool) -> bool:
        """Return True when a row would be served; `is_use` counts it as used."""
        if not self.is_genuine(entry) or self.why_not_served(entry):
            return False
        if is_use:
            self.uses.count(entry.key)
        return True

    def value_of(self, entry: Entry) -> Any:
        """Return the value of a row, or of the row that it names, and count no use. Raises a CachenessError."""
        self.keyring.verify(entry)
        if entry.link is not None:
            named = self.metadata.find(self.namespace, entry.link)
            if named is None or not _is_named_by(entry, named):
                raise BlobMissing(LINK_BROKEN)
            return self.value_of(named)
        decoder = self._decoder(entry)
        return decoder.decode(decompress(self._read(entry)[0], entry.codec, entry.raw_size))

    @property
    def store_id(self) -> str:
        """Return the random id of the database, set at its creation."""
        if not self._store_id:
            self._store_id = self.metadata.identity().store_id
        return self._store_id

    def lookup_alias(self, alias: bytes) -> Hit | None:
        """Return the result with this signed alias. A row under another alias is ignored."""
        for entry in self.metadata.find_by_alias(self.namespace, alias):
            hit = self.follow(entry) if entry.alias == alias and entry.link is None else None
            if hit is not None and hit.entry.alias == alias:
                return hit
        return None

    def own_result(self, key: bytes) -> Entry | None:
        """Return the row of a key if it is served and has bytes itself; these are read and verified.

        A row with bytes that is not served is deleted, because no link would replace it.
        """
        entry = self.metadata.find(self.namespace, key)
        if entry is None or entry.link is not None:
            return None
        try:
            hit = self.follow(entry)
        except CodecError:
            hit = None
        if hit is None:
            self.delete(this_very(entry))
        return None if hit is None else hit.entry

    def lookup_many(self, keys: Sequence[bytes]) -> dict[bytes, Hit]:
        """Return the hits among many keys: one statement per 10,000, blobs read in parallel."""
        mark = self.metadata.last_change() if any(map(self._kept.is_known, keys)) else None
        hits = {key: hit for key in keys if (hit := self._open_kept(key, mark)) is not None}
        asked = [key for key in keys if key not in hits] if hits else keys
        far: dict[bytes, Entry] = {}
        for key, entry in self.metadata.find_many(self.namespace, asked).items() if asked else ():
            if entry.inline is None:
                far[key] = entry
                continue
            # Values that came with their rows need no threads, which would only wait for each other.
            hit = self._follow_one_of_many(entry)
            if hit is not None:
                hits[key] = hit
                if hit.entry is entry:
                    self._kept.note(entry, mark)
        there = zip(far, concurrently(self._follow_one_of_many, far.values(), _size_said_by), strict=True)
        return hits | {key: hit for key, hit in there if hit is not None}

    def follow(self, entry: Entry | None, why: list[str] | None = None) -> Hit | None:
        """Return the result of a row, or of the row that overwrites it during the read."""
        why = [] if why is None else why
        for _ in range(MOVED_ROW_LOOKS):
            if entry is None:
                return None
            try:
                self.keyring.verify(entry)  # before any field of the row is used
                past = self.why_not_served(entry)
                if not past:
                    return self._open(entry) if entry.link is None else self._follow_link(entry, why)
                why.append(past)
                return None
            except BlobMissing:
                newer = self.metadata.find(entry.namespace, entry.key)
                if newer is not None and newer.blob == entry.blob:
                    self._warn_of("the blob of entry %s is gone (%s); treated as a miss", entry.cache_key, entry.blob)
                    why.append(DAMAGED)
                    return None
                entry = newer
            except CorruptEntry as error:
                self._warn_of("entry %s is not served: %s; the next put replaces it", entry.cache_key, error)
                why.append(DAMAGED)
                return None
        return None

    def _warn_of(self, text: str, *details: object) -> None:
        """Log an entry that is not served, with a limit.

        Otherwise a user who can write to the database could fill the log.
        """
        # No lock is used: threads may log a few more.
        if time.monotonic() - self._warned_since > WARNINGS_SECONDS:
            self._warned, self._warned_since = 0, time.monotonic()
        self._warned += 1
        count = self._warned
        _log.log(logging.WARNING if count <= MOST_WARNINGS else logging.DEBUG, text, *details)
        if count == MOST_WARNINGS:
            _log.warning(
                "more entries that are not served are logged at DEBUG for %.0f minutes; verify_integrity() lists all",
                WARNINGS_SECONDS / 60,
            )

    def _follow_link(self, link: Entry, why: list[str]) -> Hit | None:
        named = None if link.link is None else self.metadata.find(link.namespace, link.link)
        hit = None if named is None or not _is_named_by(link, named) else self.follow(named, why)
        if hit is None or not _is_named_by(link, hit.entry):
            why.append(LINK_BROKEN)
            return None
        self.uses.count(link.key)
        return hit

    def _follow_one_of_many(self, entry: Entry) -> Hit | None:
        try:
            return self.follow(entry)
        except CodecError as error:
            _log.warning("entry %s is left out: %s", entry.cache_key, error)
            return None

    def why_not_served(self, entry: Entry) -> str:
        """Return why a genuine row is not served, as far as the row shows; "" if it is served."""
        if self.is_expired(entry):
            return EXPIRED
        if not self.is_recent(entry.created_at):
            return REFRESHED
        return "" if not entry.outputs or still_left(entry.outputs) else FILE_CHANGED

    def is_recent(self, created_at: int) -> bool:
        """Return True if an entry of this time may be served.

        A run that refreshes serves only entries since its start.
        """
        return self._since is None or created_at >= self._since

    def read_bytes(self, entry: Entry) -> Buffer:
        """Return the entry's stored bytes from the blob store itself, verified.

        Raises BlobMissing, CorruptEntry or ForgedEntry.
        """
        self.keyring.verify(entry)
        return self._read_far(entry)

    def _read(self, entry: Entry) -> tuple[Buffer, bool]:
        """Return the verified bytes of a verified row, and whether they come from a local copy."""
        if entry.blob is None or not isinstance(self.blobs, NearBlobStore):
            return self._read_far(entry), False
        for _ in range(COPY_LOOKS):
            data, is_near = self.blobs.read_near(entry.blob, entry.size)
            try:
                verify_bytes(entry, data)
            except CorruptEntry:
                self.blobs.drop_copy(entry.blob)
                if not is_near:
                    raise
            else:
                return data, is_near
        return self._read_far(entry), False

    def _read_far(self, entry: Entry) -> Buffer:
        if entry.blob is None:
            data: Buffer = entry.inline if isinstance(entry.inline, bytes) else b""
        else:
            blobs = self.blobs.far if isinstance(self.blobs, NearBlobStore) else self.blobs
            data = blobs.read(entry.blob, entry.size)
        verify_bytes(entry, data)
        return data

    def is_expired(self, entry: Entry) -> bool:
        """Return True when the entry's lifetime has passed, by the database's clock."""
        return entry.expires_at is not None and entry.expires_at <= self.metadata.now()

    def _open(self, entry: Entry) -> Hit:
        codec = self._decoder(entry)  # bytes that cannot be decoded are not read
        stored, is_near = self._read(entry)
        return self._opened(entry, codec, stored, is_near)

    def _opened(self, entry: Entry, codec: Codec, stored: Buffer, is_near: bool = False) -> Hit:
        """Decode verified bytes, and count the use."""
        value = codec.decode(decompress(stored, entry.codec, entry.raw_size))
        self.uses.count(entry.key)
        return Hit(value, entry, is_near)

    def _decoder(self, entry: Entry) -> Codec:
        codec = self._codecs.get(entry.codec)
        if codec is None:
            name = entry.codec.partition("+")[0]
            codec = self._codecs.get(name)
        if codec is None:
            raise CodecError(
                f"entry {entry.cache_key} was written by the codec {name!r}, which this cache does not have:"
                " open it with codecs=[…] that include it, or upgrade cacheness"
            )
        if self._safe_codecs and not codec.safe:
            raise CodecError(f"entry {entry.cache_key} is a {codec.name}, which safe_codecs=True does not read")
        return codec

    # other operations

    def delete(self, where: Where, *, most: int | None = None, waits: bool = True, lasting: bool = True) -> int:
        """Delete matching rows, then their blobs; return the number of rows."""
        deleted = self.metadata.delete(where, most=most, waits=waits, lasting=lasting)
        self.tombstones.drain(deleted.blobs)
        return deleted.entries

    def resign(self, entry: Entry, **changes: Any) -> bool:
        """Change signed fields of a row, if it is still the same row."""
        self.keyring.verify(entry)
        return self.metadata.swap(entry, self.keyring.sign(entry, **changes))

    def code_of(self, entries: Iterable[Entry]) -> dict[bytes, FunctionCode]:
        """Return the code of these entries by `fn`, where a signed row names it and the digest matches."""
        named: set[bytes] = set()
        for entry in entries:
            if entry.fn is not None and entry.fn not in named and self.is_genuine(entry):
                named.add(entry.fn)
        found = self.metadata.function_codes(self.namespace, sorted(named)) if named else {}
        return {digest: code for digest, code in found.items() if code.digest == digest}

    def is_genuine(self, entry: Entry) -> bool:
        """Return True when the row's signature is valid."""
        try:
            self.keyring.verify(entry)
        except CorruptEntry:
            return False
        return True

    def close(self) -> None:
        """Write buffered data, end the session, and close the stores."""
        with ExitStack() as last:
            last.callback(self.blobs.close)
            last.callback(self.metadata.close)
            last.callback(self.sessions.close)
            self.uses.flush()


def _size_of(buffers: Sequence[Buffer]) -> int:
    return sum([memoryview(buffer).nbytes for buffer in buffers])


def _size_said_by(row: Entry) -> int:
    """Return the size in a row that is not verified yet, if it is a valid one."""
    return row.size if type(row.size) is int and row.size > 0 else 0


def fresh_name(entry: Entry, session: str) -> str:
    """Return a blob name that was never used before and never will be again."""
    key = entry.cache_key
    return f"{entry.namespace}/{key[:2]}/{key}.{session}.{os.urandom(8).hex()}"


def _name_of_type(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _side_by_side(value: Any, decoded: Any) -> Iterator[tuple[Any, Any]]:
    """Return a value and what was read back, and the same of the first items in containers, at any depth."""
    waiting, left = [(value, decoded)], ITEMS_AT_MOST
    while waiting and left:
        left -= 1
        one, read = waiting.pop()
        yield one, read
        kind = type(one)
        if kind is type(read) and kind in _CONTAINERS and len(one) == len(read):
            items = zip(one.values(), read.values(), strict=True) if kind is dict else zip(one, read, strict=True)
            waiting += islice(items, left)


def _kind_of(value: Any) -> tuple[int, ...]:
    """Return the ids of the types of a value and of the first items in containers, at any depth."""
    if type(value) not in _CONTAINERS:
        return (id(type(value)), id(type(value)))
    waiting, found = [value], set[int]()
    for at in range(1 + KINDS_AT_MOST):
        if at == len(waiting):
            break
        one = waiting[at]
        kind = type(one)
        # By id, because a class need not be hashable. A class that gets the id of a deleted class is not checked.
        found.add(id(kind))
        if kind is dict:
            waiting += islice(one.values(), KINDS_AT_MOST)
        elif kind is list or kind is tuple:
            waiting += one[:KINDS_AT_MOST]
    return (id(type(value)), *sorted(found))


def _is_named_by(link: Entry, entry: Entry) -> bool:
    """Return True when a link and an entry, both signed, belong to one function called with the same values."""
    return entry.link is None and entry.alias is not None and entry.alias == link.alias


def _digests_of(stored: Sequence[Buffer], value: Any, by_value: bool | None) -> tuple[bytes, bytes | None]:
    return digest_buffers(stored), _digest_of(value, by_value)


def _digests_while_written(stored: Sequence[Buffer], value: Any, by_value: bool | None) -> tuple[bytes, bytes | None]:
    # The bytes last: if another thread changed the value since they were written, the entry cannot be verified, and is
    # not served with the digest of another value.
    of_value = _digest_of(value, by_value)
    return digest_buffers(stored), of_value


def _digest_of(value: Any, by_value: bool | None) -> bytes | None:
    if by_value is False:
        return None
    return closed_digest(value, None if by_value else MOST_NODES)


def _last_of_each(drafts: Sequence[Draft]) -> list[Draft]:
    """Return the last draft of each key; a link is not the last one after a result."""
    last: dict[bytes, Draft] = {}
    for draft in drafts:
        before = last.get(draft.entry.key)
        if before is None or may_replace(draft.entry, is_link=before.entry.link is not None):
            last[draft.entry.key] = draft
    return list(last.values())


def this_very(entry: Entry) -> Where:
    """Return the condition that a row has not been replaced since it was read."""
    before = entry.created_at + 1 if type(entry.created_at) is int else None  # what is not verified may be anything
    return Where(entry.namespace, keys=(entry.key,), mac=entry.mac, blob=entry.blob, created_before=before)


def _version(entry: Entry) -> tuple[object, ...]:
    return (entry.blob, entry.digest, entry.created_at, entry.mac)
