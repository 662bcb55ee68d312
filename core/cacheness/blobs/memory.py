"""Blobs in a dict: the smallest store, and the one to copy when writing another."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from cacheness.blobs.names import checked
from cacheness.errors import BlobMissing, CachenessError, CorruptEntry
from cacheness.protocols import BlobStore, Buffer
from cacheness.records import BlobInfo, Upload
from cacheness.transfers import failures_of


class MemoryBlobStore:
    """Lives and dies with its process; for tests, and for caches nobody else should see."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}

    def write(self, name: str, buffers: Sequence[Buffer]) -> None:
        """Keep a copy of the buffers as one blob."""
        self._blobs[checked(name)] = b"".join(buffers)

    def read(self, name: str, size: int) -> Buffer:
        """A copy of the blob that the caller may write into."""
        blob = self._blobs.get(checked(name))
        if blob is None:
            raise BlobMissing(f"there is no blob {name} in memory")
        if len(blob) != size:
            raise CorruptEntry(f"blob {name} has {len(blob)} bytes where its row says {size}")
        return bytearray(blob)

    def stat(self, name: str) -> BlobInfo | None:
        """Ask for one blob by name."""
        blob = self._blobs.get(checked(name))
        return None if blob is None else BlobInfo(name, len(blob))

    def delete(self, name: str) -> None:
        """Drop a blob, if it is there."""
        self._blobs.pop(checked(name), None)

    def delete_many(self, names: Collection[str]) -> dict[str, CachenessError]:
        """Delete each; why those that may still be there are."""
        return failures_of(self.delete, names, side_by_side=False)

    def scan(self, prefix: str = "", *, after: str = "") -> Iterator[BlobInfo]:
        """The blobs as they are now, sorted by name."""
        # A copy, made in one step: no lock, which a forked child could inherit held.
        found = sorted(self._blobs.copy().items())
        yield from (BlobInfo(name, len(blob)) for name, blob in found if name.startswith(prefix) and name > after)

    def uploads(self, prefix: str = "") -> Iterator[Upload]:
        """None: a write to memory is over before anybody can look."""
        yield from ()

    def abort(self, upload: Upload) -> None:
        """Nothing is there to drop."""

    def close(self) -> None:
        """Nothing is open. The blobs stay until the store itself goes."""


_conforms: type[BlobStore] = MemoryBlobStore
