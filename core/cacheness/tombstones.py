"""Delete blobs: the only module that does, and only in a blob store that this database owns.

A deletion, an overwrite and a repair all end here. Where the marker names another database, or
cannot be read, nothing is deleted: the tombstones stay, and a repair drains them once the store
has been adopted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Final, TypeVar

from cacheness.entry import Upload
from cacheness.errors import CachenessError, StoreRefused, StoreUnavailable
from cacheness.marker import Marker
from cacheness.protocols import BlobStore, MetadataStore

T = TypeVar("T")

_log = logging.getLogger(__name__)

BULK: Final = 1000  #: blobs that are deleted between two looks at the marker
FEW: Final = 100  #: blobs that are deleted by what the marker said up to a minute ago


@dataclass(slots=True)
class Removal:
    """What became of the blobs that were to be deleted, by name, or of uploads, by handle."""

    gone: set[str] = field(default_factory=set)
    kept: dict[str, str] = field(default_factory=dict)  #: name -> why it is still there


class Tombstones:
    """Deletes blobs of one store, and the tombstones of those that are gone."""

    def __init__(self, metadata: MetadataStore, blobs: BlobStore, marker: Marker) -> None:
        self._metadata = metadata
        self._blobs = blobs
        self._marker = marker
        self._is_refused = False

    def drain(self, names: Iterable[str]) -> Removal:
        """Delete blobs, then their tombstones: in this order a crash loses nothing.

        Called after every commit with the names that it replaced, so trouble is not an error of
        the caller: a blob that stays has its tombstone, and a repair drains it.
        """
        removal = Removal()
        for some in _in_bulk(names):
            self._remove([(name, partial(self._blobs.delete, name)) for name in some], removal)
            self._clear([name for name in some if name in removal.gone], removal)
        if removal.kept:
            why = next(iter(removal.kept.values()))
            _log.debug("%d replaced or deleted blobs wait for a repair: %s", len(removal.kept), why)
        return removal

    def delete(self, names: Iterable[str]) -> Removal:
        """Delete blobs that have no tombstones, because no entry ever named them."""
        removal = Removal()
        for some in _in_bulk(names):
            self._remove([(name, partial(self._blobs.delete, name)) for name in some], removal)
        return removal

    def abort(self, uploads: Iterable[Upload]) -> Removal:
        """Drop unfinished uploads."""
        removal = Removal()
        for some in _in_bulk(uploads):
            self._remove([(upload.handle, partial(self._blobs.abort, upload)) for upload in some], removal)
        return removal

    def _remove(self, deletions: Sequence[tuple[str, Callable[[], None]]], removal: Removal) -> None:
        why = self._marker.why_not_ours(afresh=len(deletions) > FEW)
        for name, deletion in deletions:
            if why is not None:
                removal.kept[name] = why
                continue
            try:
                deletion()
                removal.gone.add(name)
            except StoreUnavailable as error:
                why = removal.kept[name] = str(error)  # the others would only wait for it in turn
            except StoreRefused as error:
                removal.kept[name] = str(error)  # a locked object, perhaps: others may be deleted
                self._warn(error)
            except CachenessError as error:
                removal.kept[name] = str(error)

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
