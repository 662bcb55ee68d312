"""Delete blobs: the only module that does, and only in a blob store that this database owns.

A deletion, an overwrite and a repair all end here. If the marker names another database, or cannot
be read, nothing is deleted: the tombstones stay, and a repair drains them once the store has been
adopted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import field
from itertools import islice
from typing import Final, TypeVar

from cacheness.coordination.ownership import Marker
from cacheness.errors import CachenessError, StoreRefused
from cacheness.lazy_dataclass import dataclass
from cacheness.logs import logger_of
from cacheness.protocols import BlobStore, MetadataStore
from cacheness.records import Upload
from cacheness.transfers import failures_of

T = TypeVar("T")

_log = logger_of(__name__)

BULK: Final = 1000  #: blobs that are deleted between two reads of the marker
FEW: Final = 100  #: blobs that are deleted on the basis of a marker read up to a minute ago


@dataclass(slots=True)
class Removal:
    """Results of deleting blobs, by name, or uploads, by handle."""

    gone: set[str] = field(default_factory=set)
    kept: dict[str, str] = field(default_factory=dict)  #: name -> why it is still there


class Tombstones:
    """Deletes blobs of one store, and the tombstones of deleted blobs."""

    def __init__(self, metadata: MetadataStore, blobs: BlobStore, marker: Marker) -> None:
        self._metadata = metadata
        self._blobs = blobs
        self._marker = marker
        self._is_refused = False

    def drain(self, names: Iterable[str]) -> Removal:
        """Delete blobs, then their tombstones: in this order a crash loses nothing.

        Called after every commit with the names that it replaced, so a failure is not an error of
        the caller: a blob that stays has its tombstone, and a repair drains it.
        """
        removal = Removal()
        for some in _in_bulk(names):
            self._delete(some, removal)
            self._clear([name for name in some if name in removal.gone], removal)
        if removal.kept:
            why = next(iter(removal.kept.values()))
            _log.debug("%d replaced or deleted blobs wait for a repair: %s", len(removal.kept), why)
        return removal

    def delete(self, names: Iterable[str]) -> Removal:
        """Delete blobs that have no tombstones, because no entry ever named them."""
        removal = Removal()
        for some in _in_bulk(names):
            self._delete(some, removal)
        return removal

    def abort(self, uploads: Iterable[Upload]) -> Removal:
        """Delete unfinished uploads."""
        removal = Removal()
        for some in _in_bulk(uploads):
            by_handle = {upload.handle: upload for upload in some}
            self._remove(
                list(by_handle),
                lambda handles, known=by_handle: failures_of(  # type: ignore[misc]
                    lambda handle: self._blobs.abort(known[handle]), handles
                ),
                removal,
            )
        return removal

    def _delete(self, names: Sequence[str], removal: Removal) -> None:
        def delete(names: Sequence[str]) -> dict[str, CachenessError]:
            if len(names) > 1:
                return self._blobs.delete_many(names)
            return failures_of(self._blobs.delete, names)

        self._remove(names, delete, removal)

    def _remove(
        self, names: Sequence[str], delete: Callable[[Sequence[str]], dict[str, CachenessError]], removal: Removal
    ) -> None:
        why = self._marker.why_not_ours(afresh=len(names) > FEW)
        if why is not None:
            removal.kept.update(dict.fromkeys(names, why))
            return
        failures = delete(names)
        removal.gone.update(name for name in names if name not in failures)
        for name, error in failures.items():
            removal.kept[name] = str(error)
            if isinstance(error, StoreRefused):
                self._warn(error)  # perhaps a locked object; others may be deletable

    def _warn(self, error: StoreRefused) -> None:
        if not self._is_refused:
            _log.warning("what is replaced or deleted stays in the blob store until a repair may delete it: %s", error)
        self._is_refused = True

    def _clear(self, names: Sequence[str], removal: Removal) -> None:
        try:
            self._metadata.clear_tombstones(names)
        except CachenessError as error:
            removal.gone.difference_update(names)
            removal.kept.update(dict.fromkeys(names, f"its tombstone could not be cleared: {error}"))


def _in_bulk(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, BULK)):
        yield some
