"""Check which database owns a blob store: a marker object in it names the database.

A staging database cloned from production still names production's bucket: it would delete the blobs
of production's entries, and take newer blobs for orphans. So the blob store holds a marker that
names its database and that database's last repair. If the two differ, nothing is deleted until a
person decides which is right (`cacheness adopt`).
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from dataclasses import replace
from typing import Any, Final

from cacheness import forks
from cacheness.errors import BlobMissing, CachenessError, CorruptEntry, RepairRefused, StoreUnavailable
from cacheness.lazy_dataclass import dataclass
from cacheness.logs import logger_of
from cacheness.protocols import BlobStore, MetadataStore
from cacheness.records import Identity

_log = logger_of(__name__)

MARKER: Final = "cacheness-store.json"
KEPT_SECONDS: Final = 60.0  #: how long a process relies on the marker that it has read
_LARGEST: Final = 1 << 16  #: bytes; a marker has about 200
_READS: Final = 3  #: attempts, when the marker is rewritten between reading its size and its bytes
#: The format before the timeline became a separate field.
_OLD_SYSTEM: Final = r"(?P<cluster>cluster \d+), timeline (?P<timeline>\d+), (?P<database>database \d+)"


@dataclass(frozen=True, slots=True)
class _Mark:
    """The contents of a marker."""

    store_id: str
    system: str
    timeline: int | None
    epoch: str
    adopted: bool = False  #: by a person, who decided that no other database uses the blob store

    @classmethod
    def of(cls, here: Identity, *, adopted: bool) -> _Mark:
        return cls(here.store_id, here.system, here.timeline, _newest(here), adopted)

    @classmethod
    def parse(cls, text: bytes) -> _Mark:
        """Read a marker; text in another format names no database."""
        try:
            found = json.loads(text)
            mark = cls(found["store_id"], found["system"], found.get("timeline"), found["epoch"])
            old = re.fullmatch(_OLD_SYSTEM, mark.system)
            if old is not None:
                mark = replace(mark, system=f"{old['cluster']}, {old['database']}", timeline=int(old["timeline"]))
            return replace(mark, adopted=found.get("adopted") is True)
        except (ValueError, TypeError, LookupError, AttributeError):
            return cls("", "", None, "")

    def text(self) -> bytes:
        """Write a marker."""
        fields: dict[str, Any] = {"store_id": self.store_id, "system": self.system, "epoch": self.epoch}
        return json.dumps({**fields, "timeline": self.timeline, "adopted": self.adopted}, indent=1).encode()


class Marker:
    """The relation between one metadata store and one blob store.

    If the two `travel_together`, in one directory, a copy of one is a copy of both, and the disk does not matter.
    """

    def __init__(self, metadata: MetadataStore, blobs: BlobStore, *, travel_together: bool = False) -> None:
        self._metadata = metadata
        self._blobs = blobs
        self._travel_together = travel_together
        self._lock = threading.RLock()
        self.is_settled = False  #: whether the marker was seen or written
        self._why_not: str | None = None
        self._read_at = float("-inf")
        self._logged = ""  #: the last kind of message that was logged
        forks.watch_forks(self)

    def reset_after_fork(self) -> None:
        """Make a new lock: a thread of the parent may hold the old one."""
        self._lock = threading.RLock()

    def settle(self) -> None:
        """Before the first put, write a missing marker, or log that it names another database.

        A failure is not an error here: the put will fail in the same way, and reading needs no marker.
        """
        try:
            difference = self.difference()
        except CachenessError as error:
            _log.debug("the marker of the blob store could not be checked: %s", error)
            return
        self.is_settled = True
        self._keep(difference)

    def why_not_ours(self, *, afresh: bool = False) -> str | None:
        """Return why nothing may be deleted in the blob store; None if this database owns it.

        The answer is kept for a minute; `afresh` reads the marker now.
        """
        if not afresh and time.monotonic() - self._read_at < KEPT_SECONDS:
            return self._why_not
        try:
            self._keep(self.difference())
        except CachenessError as error:
            # An unreadable marker proves nothing: it may name another database.
            self._keep(f"its marker {MARKER} could not be read or written: {error}", unreadable=True)
        return self._why_not

    def require(self) -> None:
        """Raise RepairRefused when the blob store belongs to another database."""
        difference = self.difference()
        self._keep(difference)
        if difference is not None:
            raise RepairRefused(
                f"{difference}. Nothing was deleted. If this database is the one whose entries are to be kept, run:"
                " cacheness adopt"
            )

    def is_adopted(self) -> bool:
        """Return True when a person has declared this very database the owner of the blob store."""
        mark, here = self._read(), self._metadata.identity()
        return mark is not None and mark.adopted and self._compare(mark, here) is None and _is_now(mark, here)

    def difference(self) -> str | None:
        """Describe how the marker differs from this database; None if this database owns the blob store.

        A missing marker is written if nothing can be lost by it, and a marker of an earlier primary
        of this database is updated.
        """
        mark = self._read()
        if mark is None:
            return self._take_unmarked()
        here = self._metadata.identity()
        difference = self._compare(mark, here)
        if difference is None and not _is_now(mark, here):
            # A standby took over. A person's decision for its primary is no longer valid: the last commits may be lost.
            self._write(adopted=False)
        return difference

    def adopt(self) -> None:
        """Make this database the owner of the blob store, as a person decided."""
        self._write(adopted=True)
        self.is_settled = True
        self._keep(None)

    def begin_epoch(self) -> None:
        """Record a new repair in the database, then in the marker.

        The database keeps earlier epochs too, so after a crash between the two writes it still recognises the marker.
        """
        adopted = self.is_adopted()
        self._metadata.begin_epoch(os.urandom(8).hex())
        self.require()  # checked again: another database may have adopted the blobs since the repair began
        self._write(adopted=adopted)

    def _take_unmarked(self) -> str | None:
        if self._metadata.is_unused() or self._is_empty():
            self._write(adopted=False)
            return None
        mark = self._read()  # another process of this database may have written it just now
        if mark is not None:
            return self._compare(mark, self._metadata.identity())
        return (
            f"the marker of the blob store, {MARKER}, is gone, so whose blobs these are is not known: this database"
            " has been used, and the blob store is not empty"
        )

    def _is_empty(self) -> bool:
        return next(iter(self._blobs.scan()), None) is None

    def _compare(self, mark: _Mark, here: Identity) -> str | None:
        if mark.store_id != here.store_id:
            return "the blob store belongs to another database: its marker names another store"
        if mark.system != here.system and not self._travel_together:
            return "the database was cloned or restored: the blob store's marker names another server or database"
        if mark.timeline is not None and here.timeline is not None and mark.timeline > here.timeline:
            return "the database was left behind by a failover: the blob store's marker names its successor"
        if mark.epoch not in here.epoch.split(","):
            return "the database was restored from a backup: it lacks the last repair of its blob store"
        return None

    def _write(self, *, adopted: bool) -> None:
        while True:
            mark = _Mark.of(self._metadata.identity(), adopted=adopted)
            self._blobs.write(MARKER, [mark.text()])
            # Another repair may have started its epoch at the same time: the last one to write must
            # write the newest epoch.
            if _newest(self._metadata.identity()) == mark.epoch:
                return

    def _read(self) -> _Mark | None:
        for _ in range(_READS):
            info = self._blobs.stat(MARKER)
            if info is None:
                return None
            if info.size > _LARGEST:
                return _Mark.parse(b"")
            try:
                return _Mark.parse(bytes(self._blobs.read(MARKER, info.size)))
            except (BlobMissing, CorruptEntry):
                continue  # written again between the two
        raise StoreUnavailable(f"the marker {MARKER} was rewritten each time it was read")

    def _keep(self, why_not: str | None, *, unreadable: bool = False) -> None:
        kind = "unreadable" if unreadable else why_not or ""
        with self._lock:
            self._why_not, self._read_at = why_not, time.monotonic()
            is_news = bool(kind) and kind != self._logged
            self._logged = kind or self._logged
        if is_news and unreadable:
            _log.warning("nothing is deleted in the blob store for now, and tombstones wait for a repair: %s", why_not)
        elif is_news:
            _log.warning(
                "%s. Reading and writing continue; nothing is deleted in the blob store, and a repair stops, until"
                " you run: cacheness adopt",
                why_not,
            )


def _newest(identity: Identity) -> str:
    return identity.epoch.partition(",")[0]


def _is_now(mark: _Mark, here: Identity) -> bool:
    """Return True when the marker was written on this timeline; unknown on a standby that replays."""
    return here.timeline is None or mark.timeline == here.timeline
