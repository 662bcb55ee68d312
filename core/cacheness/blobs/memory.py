"""Store blobs in a dict: the smallest store, and a template for new ones."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from cacheness.blobs.names import checked
from cacheness.errors import BlobMissing, CachenessError, CorruptEntry
from cacheness.protocols import BlobStore, Buffer
from cacheness.records import BlobInfo, Upload
from cacheness.transfers import failures_of


class MemoryBlobStore:
    """Lives as long as its process; for tests, and for caches that other processes must not see."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}

    def write(self, name: str, buffers: Sequence[Buffer]) -> None:
        """Keep a copy of the buffers as one blob."""
        self._blobs[checked(name)] = b"".join(buffers)

    def read(self, name: str, size: int) -> Buffer:
        """Return a copy of the blob, which the caller may change."""
        blob = self._blobs.get(checked(name))
        if blob is None:
            raise BlobMissing(f"there is no blob {name} in memory")
        if len(blob) != size:
            raise CorruptEntry(f"blob {name} has {len(blob)} bytes where its row has {size}")
        return bytearray(blob)

    def stat(self, name: str) -> BlobInfo | None:
        """Return one blob's name and size, or None."""
        blob = self._blobs.get(checked(name))
        return None if blob is None else BlobInfo(name, len(blob))

    def delete(self, name: str) -> None:
        """Delete a blob, if it is there."""
        self._blobs.pop(checked(name), None)

    def delete_many(self, names: Collection[str]) -> dict[str, CachenessError]:
        """Delete blobs; return the error of each that may still be there (none)."""
        return failures_of(self.delete, names, side_by_side=False)

    def scan(self, prefix: str = "", *, after: str = "") -> Iterator[BlobInfo]:
        """List the blobs as they are now, sorted by name."""
        # The copy is one atomic step, so no lock is needed, which a forked child could inherit locked.
        found = sorted(self._blobs.copy().items())
        yield from (BlobInfo(name, len(blob)) for name, blob in found if name.startswith(prefix) and name > after)

    def uploads(self, prefix: str = "") -> Iterator[Upload]:
        """Return nothing: a write to memory completes before another thread can see it."""
        yield from ()

    def abort(self, upload: Upload) -> None:
        """Do nothing: there are no unfinished uploads."""

    def close(self) -> None:
        """Do nothing. The blobs stay until the store object is collected."""


_conforms: type[BlobStore] = MemoryBlobStore
