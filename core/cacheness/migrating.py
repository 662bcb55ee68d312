"""Migrate a store from an older version of cacheness: the tables, then entries that are no longer read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from cacheness import factory
from cacheness.config import Config
from cacheness.coordination.ownership import MARKER
from cacheness.lazy_dataclass import dataclass
from cacheness.protocols import BlobStore, MetadataStore
from cacheness.results.tombstones import BULK, Tombstones


@dataclass(frozen=True, slots=True)
class Migrated:
    """The result of a migration."""

    before: int  #: version of the schema; 0 for an empty database
    after: int
    entries: int  #: dropped, because this version does not read them
    deleted: int  #: blobs of dropped and replaced entries
    left: int  #: blobs that still wait to be deleted
    why: str | None  #: they wait


def planned_for(config: Config) -> Migrated:
    """What a migration would do: the versions, and the entries that it would drop. It changes nothing."""
    if config.metadata_backend == "json":
        from cacheness.metadata.journal import migration

        before, after = migration.versions(_journal(config))
    else:
        from cacheness.metadata import migrations

        before, after = migrations.versions(_database(config))
    return Migrated(before, after, entries_to_drop(config), 0, 0, None)


def entries_to_drop(config: Config) -> int:
    """Return how many entries a migration would drop."""
    if config.metadata_backend == "json":
        from cacheness.metadata.journal import migration

        return migration.old_entries(_journal(config))
    from cacheness.metadata import migrations

    return migrations.old_entries(_database(config))


def migrate(config: Config, progress: Callable[[int, int], None] | None = None) -> Migrated:
    """Bring a store to this version's schema; after an interruption, run it again to continue.

    `progress` is called with the entries dropped and the blobs deleted so far. Blobs are deleted
    only where the marker in the blob store names this database; elsewhere they wait for `adopt`.
    """
    with ExitStack() as last:
        if entries_to_drop(config):
            # Checked before any change: whether the blobs are reachable.
            factory.check_sharing(config)
            last.callback(factory.open_blobs(config).close)
        before, after, entries = _migrate_metadata(config, progress)
        metadata = factory.open_metadata(config)
        last.callback(metadata.close)
        deleted, left, why = 0, 0, None
        if metadata.tombstones(limit=1):
            factory.check_sharing(config)
            blobs = factory.open_blobs(config)
            last.callback(blobs.close)
            deleted, left, why = _drain(config, metadata, blobs, lambda done: progress and progress(entries, done))
    return Migrated(before, after, entries, deleted, left, why)


def _migrate_metadata(config: Config, progress: Callable[[int, int], None] | None) -> tuple[int, int, int]:
    if config.metadata_backend == "json":
        from cacheness.metadata.journal import migration

        return migration.upgrade(_journal(config), limits=config.limits())
    from cacheness.metadata import migrations

    where = _database(config)
    before, after = migrations.upgrade(where)
    return before, after, migrations.drop_old_entries(where, lambda dropped: progress and progress(dropped, 0))


def _drain(
    config: Config, metadata: MetadataStore, blobs: BlobStore, progress: Callable[[int], object]
) -> tuple[int, int, str | None]:
    """Delete the blobs that have tombstones; return how many were deleted, how many are left, and why."""
    why, goes_on = None, blobs.stat(MARKER) is not None
    if not goes_on:
        # A marker could be written into an empty store, and the tombstones of another store would be lost then.
        why = f"the blob store holds no {MARKER}, which names the owner of the blobs, so it may be the wrong one"
    tombstones = Tombstones(metadata, blobs, factory.marker_of(config, metadata, blobs))
    deleted, left, after = 0, 0, ""
    while names := metadata.tombstones(after=after, limit=BULK):
        after = names[-1]
        removal = tombstones.drain(names if goes_on else ())
        deleted += len(removal.gone)
        left += len(names) - len(removal.gone)
        why = why or next(iter(removal.kept.values()), None)
        goes_on = bool(removal.gone)  # if none could be deleted, the others would only time out in turn
        progress(deleted)
    return deleted, left, why


def _journal(config: Config) -> Path:
    return Path(config.cache_dir) / factory.JOURNAL_FILE


def _database(config: Config) -> str | Path:
    backend = config.metadata_backend
    return Path(config.cache_dir) / factory.SQLITE_FILE if backend == "sqlite" else str(backend)
