"""The records that the layers exchange: plain, frozen, without behaviour."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Literal, TypeAlias

from blake3 import blake3

from cacheness import html
from cacheness.errors import CachenessError
from cacheness.keys import arguments_of
from cacheness.lazy_dataclass import dataclass
from cacheness.printable import represented
from cacheness.units import bytes_named, seconds_named

MICROSECONDS: Final = 1_000_000
HOUR: Final = 3600 * MICROSECONDS
DAY: Final = 24 * HOUR
EQUIVALENCE_LASTS: Final = 180 * DAY
REASONS_KEPT: Final = 30 * DAY  #: why a result was not stored
CODE_KEPT: Final = 90 * DAY  #: since an entry last named the code
_LAST_TIME: Final = 253_402_214_400 * MICROSECONDS  #: a day before the year 10000, in any time zone

#: The format of our blobs' names, as a pattern: <namespace>/<hh>/<key>.<session>.<random>
OBJECT_NAME: Final = (
    r"(?P<namespace>[A-Za-z0-9][A-Za-z0-9_-]{0,62})/(?P<shard>[0-9a-f]{2})/"
    r"(?P<key>(?P=shard)[0-9a-f]{62})\.(?P<session>[0-9a-f]{16})\.(?P<random>[0-9a-f]{16})"
)
NAMESPACE: Final = r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One committed result: its bytes, their codec, and its provenance.

    The signature covers every field; it covers `inline` by its digest.
    """

    namespace: str  #: the namespace to which it belongs
    key: bytes  #: 32 bytes
    blob: str | None  #: name of the blob, used by this entry alone; None when inline
    inline: bytes | None  #: the stored bytes themselves, when small
    size: int  #: stored bytes, after compression
    raw_size: int  #: bytes before compression; bounds the decompressor
    digest: bytes  #: BLAKE3 of the stored bytes
    codec: str  #: codec name, "+zstd" appended when compressed
    created_at: int  #: microseconds since the epoch, by the database's clock
    expires_at: int | None  #: microseconds since the epoch; None never expires
    compute_seconds: float | None  #: the cost of its computation, if known
    function: str  #: module:qualified name of the function, "" if there is none
    prefix: str  #: the `prefix=` option, "" if there is none
    args: bytes  #: canonical encoding of the arguments with which `put(**args)` makes the same key
    components: str  #: canonical JSON: the arguments from which the key was made, for `explain`
    value: bytes | None  #: 32 bytes: the digest of the value as an argument, if it has one
    # None if no code counts. For a task of Dask, its own code and literals.
    fn: bytes | None  #: 32 bytes: digest of the row of `functions` that describes the code
    alias: bytes | None  #: 32 bytes: with it a graph finds the result before its inputs are loaded
    link: bytes | None  #: key of the entry that this one names; it then has no bytes itself
    outputs: str | None  #: canonical JSON: the files that the function wrote
    tags: tuple[str, ...]  #: sorted, without line breaks
    provenance: str  #: canonical JSON object: who computed this, where and when
    key_id: str  #: id of the signing key; "" if unsigned
    mac: bytes  #: the signature; b"" if unsigned

    @property
    def cache_key(self) -> str:
        """Return the key as 64 hexadecimal digits, as every method accepts it."""
        return self.key.hex()

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as a readable dictionary.

        Times have a zone, and `args` are as `put(**args)` takes them.

        A part that cannot be read is replaced by a text with the reason.
        """
        return {
            "cache_key": self.cache_key,
            "args": _readable(arguments_of, self.args),
            "function": self.function,
            "prefix": self.prefix,
            "size": self.size,
            "codec": self.codec,
            "created_at": _time(self.created_at),
            "expires_at": None if self.expires_at is None else _time(self.expires_at),
            "compute_seconds": self.compute_seconds,
            "tags": list(self.tags),
            "provenance": _readable(json.loads, self.provenance),
            "blob": self.blob,
        }

    def __repr__(self) -> str:
        return f"Entry({_brief(self)})"

    def _repr_html_(self) -> str:
        return html.of_fields("Entry", _shown(self))

    def __getitem__(self, name: str) -> Any:
        """Return what `list_entries` shows under this name, so that both have the same names."""
        return self.as_dict()[name]


#: Makes an entry whose fields can still be set: a frozen class sets each by a call, which takes five times as long.
#: With a docstring, because `dataclasses` would make one, which takes a millisecond.
OpenEntry: type[Entry] = dataclass(slots=True, eq=False)(
    type("OpenEntry", (), {"__doc__": "An entry that is being made.", "__annotations__": Entry.__annotations__})
)


def closed(entry: Entry) -> Entry:
    """Return an `OpenEntry` as an entry."""
    entry.__class__ = Entry
    return entry


def made_of(values: Iterable[Any]) -> Entry:
    """Return an entry of these fields, in their order."""
    return closed(OpenEntry(*values))


def may_replace(entry: Entry, *, is_link: bool, created_at: int = 0, fresh: bool = True) -> bool:
    """Return True when an entry replaces the existing row under its key.

    A link replaces only a link, because others may name the row. A copy replaces nothing that is newer.

    Args:
        entry: the entry.
        is_link: the existing row is a link.
        created_at: the time of the existing row.
        fresh: the entry was made now.
    """
    return (entry.link is None or is_link) and (fresh or created_at <= entry.created_at)


@dataclass(frozen=True, slots=True)
class Hit:
    """A result that was found. Its value may be `None`.

    A miss has no Hit.
    """

    value: Any  #: the value, decoded
    entry: Entry  #: its entry
    near: bool = False  #: its bytes come from a copy on this machine

    def __repr__(self) -> str:
        return f"Hit({represented(self.value)}, {_brief(self.entry)})"

    def _repr_html_(self) -> str:
        return html.of_fields("Hit", {"value": represented(self.value), **_shown(self.entry)})


@dataclass(slots=True, unsafe_hash=True)  # not frozen: making one would take three times as long, and graphs need many
class Presence:
    """The sizes and the cost of an existing result, without its value."""

    size: int  #: stored bytes
    raw_size: int  #: bytes in memory, approximately
    compute_seconds: float | None  #: the cost of its computation, if known
    outputs: str | None = None  #: as in the entry, and not verified
    created_at: int = field(default=0, compare=False)  #: microseconds since the epoch, and not verified
    link: bytes | None = None  #: key of the entry with the bytes, if this one is a link


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """One object of a blob store, as listed."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload that was never finished. `handle` has a meaning only for its store."""

    name: str
    handle: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A writer: enough to prove later, on the same machine, that it is dead."""

    host: str
    boot_id: str  #: changes at every boot of the kernel
    pid_ns: str  #: inode of the pid namespace, in which a pid is unique
    pid: int
    pid_start: str  #: start time of the process, distinguishes a reused pid from the old one


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One session that is live according to the database."""

    id: str
    process: Process
    lease_expired: bool  #: by the database's clock, or by the session's lock file


@dataclass(frozen=True, slots=True)
class Where:
    """Selects entries of a namespace: every given condition must hold."""

    namespace: str
    keys: tuple[bytes, ...] | None = None
    mac: bytes | None = None  #: still exactly this row
    blob: str | None = None  #: still naming this blob
    tag: str | None = None
    functions: tuple[str, ...] | None = None  #: one of these
    prefix: str | None = None
    created_before: int | None = None  #: microseconds since the epoch
    older_than: int | None = None  #: microseconds, by the database's clock during the call
    expired: bool = False  #: whose lifetime is over, by the database's clock during the call
    shard: int | None = None  #: first byte of the key, 0 to 255


@dataclass(frozen=True, slots=True)
class Deleted:
    """The result of a deletion: deleted rows, and the blobs that now have tombstones."""

    entries: int
    blobs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Use:
    """When an entry was last used, and how often. Not signed: it decides only about eviction.

    A use is each time that a program gets the result, in any kind of call. Inspecting an entry is none.
    """

    accessed_at: int  #: microseconds since the epoch
    hits: int

    def as_dict(self) -> dict[str, Any]:
        """Return the use in readable form: the time with a zone."""
        return {"accessed_at": _time(self.accessed_at), "uses": self.hits}


@dataclass(frozen=True, slots=True)
class Candidate:
    """What decides whether an entry is evicted. Not verified: it decides nothing that is served."""

    key: bytes
    size: int
    created_at: int
    compute_seconds: float
    accessed_at: int
    hits: int


@dataclass(frozen=True, slots=True)
class Totals:
    """What a namespace holds."""

    entries: int
    bytes: int  #: stored bytes, inline ones included


#: Reasons of misses in figures; those about code and results that were not stored have further text.
CODE_CHANGED: Final = "code changed"
NEVER_SEEN: Final = "never seen"
NEW_ARGUMENTS: Final = "new arguments"
EXPIRED: Final = "expired"
DISPUTED: Final = "disputed: it came out differently"
NOT_STORED_BEFORE: Final = "not stored before"
REFRESHED: Final = "refresh was asked for"
#: Reasons of failed calls.
RAISED: Final = "the function raised"

#: The outcome of a call. hit: it returned a stored result at once; a near hit is one from a copy on
#: this machine. waited: it returned what another call was computing. miss: it computed, or found
#: nothing. failed: the function raised, or the cache did not answer. not cacheable: it did not use
#: the cache. docs/how-to/figures.md explains the terms.
Outcome: TypeAlias = Literal["hit", "near hit", "miss", "waited", "not cacheable", "failed"]
HITS: Final = ("hit", "near hit")
#: Numbers of calls as in every table: all, and then those that add up to it.
COLUMNS: Final = ("calls", "hits", "misses", "waited", "not cacheable", "failed")


@dataclass(frozen=True, slots=True)
class Call:
    """The record of one call."""

    function: str  #: module:qualified name, "" if none was given
    outcome: Outcome  #: hit, near hit, miss, waited, not cacheable, or failed
    reason: str  #: of a miss, "" if it is not known
    seconds_spent: float  #: computing, or waiting for another process
    seconds_saved: float  #: of a hit: the cost of the result's computation
    bytes: int  #: stored bytes that a hit read, or that a miss stored


@dataclass(frozen=True, slots=True)
class Activity:
    """Calls of one function in one span of time."""

    span: str  #: hour, day or month; all: of any length
    hour: int  #: the hour in which the span begins, counted from the epoch
    function: str  #: module:qualified name, "" if none was given
    outcome: Outcome
    reason: str  #: of a miss, "" if it is not known
    calls: int
    seconds_spent: float  #: computing, or waiting for another process
    seconds_saved: float  #: of hits: the cost of the results' computation
    bytes: int  #: of the results that were read or stored


@dataclass(frozen=True, slots=True)
class Quota:
    """How much a namespace may hold, and what is evicted first.

    It belongs to the namespace: every process applies it.
    """

    max_bytes: int | None = None
    max_entries: int | None = None
    policy: Literal["lru", "cost"] = "lru"


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a namespace holds, its quota, and when it was last maintained."""

    entries: int
    bytes: int
    quota: Quota
    maintained_at: int  #: microseconds since the epoch, 0 for never


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of a database. A clone or a restored copy differs in `system` or `epoch`.

    A standby that takes over differs only in `timeline`, and does not differ until it is promoted.
    """

    store_id: str  #: drawn at random when the schema was created
    system: str  #: the server's identity: cluster and database
    epoch: str  #: each repair draws a new one; the last ones, newest first, with commas between
    timeline: int | None = None  #: incremented at each promotion of a standby; None if unknown


@dataclass(frozen=True, slots=True)
class Dispute:
    """A result that differed when it was computed again. Not signed: it stops a result from being served."""

    key: bytes
    at: int  #: microseconds since the epoch; an entry that was made later is not disputed
    stored: bytes | None  #: digest of the value in the cache, if it has one
    computed: bytes | None  #: … and of the computed one
    function: str  #: module:qualified name
    detail: str  #: short texts of both values, and possible causes

    @property
    def cache_key(self) -> str:
        """The key as 64 hexadecimal digits."""
        return self.key.hex()

    def as_dict(self) -> dict[str, Any]:
        """Return the dispute in readable form."""
        return {"cache_key": self.cache_key, "function": self.function, "at": _time(self.at), "detail": self.detail}


@dataclass(frozen=True, slots=True)
class Equivalence:
    """Two fingerprints of a function, and how far their results were found equal. The signature covers all of it.

    Look-ups under the new fingerprint accept results of the old one while the row exists, is
    accepted, and has not expired.
    """

    namespace: str
    new: bytes  #: 32 bytes: the fingerprint of the calling code
    old: bytes  #: 32 bytes: … and of the code that made the results
    store: str  #: the id of the database: a copied row is invalid in another
    parameters: str  #: canonical JSON: parameters that had another name, or are new and have their default
    evidence: str  #: canonical JSON: the names, evidence by source, and results of the comparison
    created_at: int  #: microseconds since the epoch
    until: int  #: microseconds since the epoch; 0 when a difference ended it, -1 when it was revoked
    by: str  #: who accepted it
    key_id: str  #: which signing key; "" when unsigned
    mac: bytes  #: b"" when unsigned

    @property
    def id(self) -> str:
        """Return twelve hexadecimal digits, as users name it."""
        return blake3(self.new + self.old).hexdigest()[:12]


class IssueKind(StrEnum):
    """The kinds of issues. Each is also the text for it."""

    ORPHANED = "orphaned"
    DANGLING = "dangling"
    SIZE_MISMATCH = "size_mismatch"
    CORRUPT = "corrupt"
    FORGED = "forged"
    STALE_UPLOAD = "stale_upload"
    TOMBSTONE = "tombstone"
    UNKNOWN = "unknown"
    MISCOUNTED = "miscounted"
    DAMAGED = "damaged"
    UNSEEN = "unseen"
    FOREIGN = "foreign"

    def __repr__(self) -> str:
        return repr(self.value)


@dataclass(frozen=True, slots=True)
class Issue:
    """One difference that an integrity check found."""

    kind: IssueKind  #: `IntegrityReport.table()` has the meaning of each
    subject: str  #: the object's name, or the entry's key
    detail: str  #: what is wrong, as text
    size: int = 0  #: bytes concerned
    repaired: bool = False  #: True when a repair fixed it


def _brief(entry: Entry) -> str:
    """Return a short description of an entry: the start of its key, its function, its size."""
    made_by = f" of {entry.function[:200]}" if entry.function else ""
    return f"{entry.cache_key[:12]}…{made_by}, {bytes_named(entry.size)}"


def _shown(entry: Entry) -> dict[str, object]:
    said = entry.as_dict()
    args = said.pop("args")
    arguments = (
        ", ".join(f"{name}={represented(value)}" for name, value in args.items()) if isinstance(args, dict) else args
    )
    for name, named in (("size", bytes_named), ("raw_size", bytes_named), ("compute_seconds", seconds_named)):
        if said.get(name) is not None:
            said[name] = named(said[name])
    return {
        "key": said.pop("cache_key"),
        "arguments": arguments,
        **{name: v for name, v in said.items() if v not in (None, [], {})},
    }


def _readable(read: Callable[[Any], Any], stored: Any) -> Any:
    try:
        return read(stored)
    except (CachenessError, ValueError, RecursionError) as error:
        return f"not readable: {error}"


def _time(microseconds: int) -> datetime:
    # A time after the last date is shown as the last date.
    return datetime.fromtimestamp(min(microseconds, _LAST_TIME) / MICROSECONDS, UTC)


@dataclass(frozen=True, slots=True)
class EarlierHit:
    """A result of earlier code for a call, and the equivalence that was used."""

    hit: Hit
    equivalence: Equivalence
    is_accepted: bool
    watch: Any = None  #: records the lines that run, while the change is being tried
