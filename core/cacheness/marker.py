"""Which database owns a blob store: an object in it says so.

A staging database cloned from production still names production's bucket, and to its repair
every blob written since looks like an orphan. So the blob store holds a marker naming its
database and that database's last repair; where they differ, a repair refuses until somebody
says which is right (`cacheness adopt`).
"""

from __future__ import annotations

import json
import logging
import secrets
from typing import Final

from cacheness.entry import Identity
from cacheness.errors import CachenessError, RepairRefused
from cacheness.protocols import BlobStore, MetadataStore

_log = logging.getLogger(__name__)

MARKER: Final = "cacheness-store.json"


class Marker:
    """The tie between one metadata store and one blob store.

    Where the two `travel_together`, in one directory, a copy of one is a copy of both, and which
    disk they stand on does not matter.
    """

    def __init__(self, metadata: MetadataStore, blobs: BlobStore, *, travel_together: bool = False) -> None:
        self._metadata = metadata
        self._blobs = blobs
        self._travel_together = travel_together

    def introduce(self) -> None:
        """At opening: leave a marker where there is none, warn where it names another database."""
        try:
            difference = self.difference()
            if difference is None and self._read() is None:
                self.adopt()
        except CachenessError as error:
            _log.debug("the marker of the blob store was not checked: %s", error)
            return
        if difference is not None:
            _log.warning("%s. Reading and writing go on; a repair refuses until you run: cacheness adopt", difference)

    def require(self) -> None:
        """Raise RepairRefused when the blob store belongs to another database."""
        difference = self.difference()
        if difference is not None:
            raise RepairRefused(
                f"{difference}. Nothing was deleted. If this database is the one whose entries are to be kept, run:"
                " cacheness adopt"
            )

    def difference(self) -> str | None:
        """In words, how the marker differs from this database; None when it does not, or is missing."""
        marked = self._read()
        if marked is None:
            return None
        here = self._metadata.identity()
        if marked.get("store_id") != here.store_id:
            return "the blob store belongs to another database: its marker names another store"
        if marked.get("system") != here.system and not self._travel_together:
            return "the database was cloned or restored: the blob store's marker names another server or timeline"
        if marked.get("epoch") not in here.epoch.split(","):
            return "the database was restored from a backup: it does not know the last repair of its blob store"
        return None

    def adopt(self) -> None:
        """Make this database the owner of the blob store."""
        while True:
            here = self._metadata.identity()
            epoch = _newest(here)
            text = json.dumps({"store_id": here.store_id, "system": here.system, "epoch": epoch}, indent=1)
            self._blobs.write(MARKER, [text.encode()])
            # Another repair may have begun its epoch meanwhile: the last to write must write the newest.
            if _newest(self._metadata.identity()) == epoch:
                return

    def begin_epoch(self) -> None:
        """Note a new repair in the database, then in the marker.

        The database remembers the epochs before too: a crash between the two leaves a marker that
        it still knows.
        """
        self._metadata.begin_epoch(secrets.token_hex(8))
        self.adopt()

    def _read(self) -> dict[str, str] | None:
        info = self._blobs.stat(MARKER)
        if info is None:
            return None
        try:
            marked = json.loads(bytes(self._blobs.read(MARKER, info.size)))
        except ValueError:
            return {}  # not a marker of ours; it matches no database
        return marked if isinstance(marked, dict) else {}


def _newest(identity: Identity) -> str:
    return identity.epoch.partition(",")[0]
