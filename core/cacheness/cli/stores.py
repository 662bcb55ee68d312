"""Commands about a whole store: check and repair it, copy it, migrate its database, adopt its blobs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from cacheness.cli.endings import FOUND, Misuse
from cacheness.cli.options import KEY_HELP, AsJson, DryRun, Namespace, Place, Yes, about_a_cache, about_a_store
from cacheness.cli.screen import confirm, hint, print_json, progress, say, telling
from cacheness.units import number_of

if TYPE_CHECKING:
    from cacheness.errors import CachenessError
    from cacheness.maintenance.copying import Copied
    from cacheness.migrating import Migrated
    from cacheness.records import Entry

_AFTER_COPY: Final = (
    "Run it again to continue. Blobs that the target does not name are removed there by: cacheness verify --repair"
)
Force = Annotated[bool, typer.Option("--force", help="Repair even when the damage looks implausible.")]


@about_a_cache
def verify(
    *,
    place: Place,
    repair: Annotated[bool, typer.Option(help="Repair what may be repaired.")] = False,
    deep: Annotated[bool, typer.Option(help="Read and verify every byte.")] = False,
    sample: Annotated[
        float | None, typer.Option(help="With --deep: the share of the entries to read, the next each time.")
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Check the store, and repair it with --repair. Exit code 1 when issues remain."""
    if sample is not None and not 0 < sample <= 1:
        raise Misuse(f"--sample {sample:g} is not a share of the entries: more than 0 and at most 1, 0.1 for a tenth")
    if sample is not None and not deep:
        raise Misuse("--sample sets how much of the bytes to read, and without --deep none are read: add --deep")
    if force and not repair:
        raise Misuse("--force is for a repair: add --repair")
    seen = "nothing yet"

    def show(blobs: int, entries: int) -> None:
        nonlocal seen
        seen = f"{number_of(entries, 'entry')}, {number_of(blobs, 'blob')}"
        bar.update(task, description=seen)

    with place.opened() as cache, progress() as bar:
        task = bar.add_task("looking", total=None)
        changed = "what it repaired stays so" if repair else "nothing was changed"
        with telling(lambda: f"looked at {seen}; {changed}, and it can be run again"):
            report = cache.verify_integrity(
                repair, deep, sample=1 if sample is None else sample, force=force, progress=show
            )
    if as_json:
        print_json(report.as_dict())
    else:
        say(str(report))
    if not report.ok:
        raise typer.Exit(FOUND)


def copy(
    source: Annotated[str, typer.Argument(help="Directory of an embedded cache, or a database URL.")],
    target: Annotated[str, typer.Argument(help="Directory of an embedded cache, or a database URL.")],
    *,
    source_blobs: Annotated[str | None, typer.Option(help="Blob store of a shared source.")] = None,
    target_blobs: Annotated[str | None, typer.Option(help="Blob store of a shared target.")] = None,
    source_key: Annotated[str | None, typer.Option(help=f"Signing key of the source. {KEY_HELP}")] = None,
    target_key: Annotated[str | None, typer.Option(help=f"Signing key of the target. {KEY_HELP}")] = None,
    to: Annotated[
        Literal["sqlite", "json"] | None,
        typer.Option(help="Metadata of a new embedded target: sqlite, which is taken if not given, or json."),
    ] = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Copy every entry; keys, times and tags stay. After an interruption, run it again to continue.

    Entries that cannot be copied are listed on stderr, and the exit code is then 1.
    """
    from cacheness.cache import UnifiedCache
    from cacheness.cli.opening import endpoint, existing, place_of, possible, target_of
    from cacheness.errors import ForgedEntry
    from cacheness.maintenance.copying import Copied, every_row
    from cacheness.maintenance.copying import copy as copy_entries

    origin = existing(endpoint(source, source_blobs, namespace, source_key))
    destination = possible(target_of(target, target_blobs, namespace, target_key, to))
    if place_of(source) == place_of(target):
        raise Misuse(f"source and target are the same: {source}")
    done, forged = Copied(), 0

    def name(entry: Entry, error: CachenessError) -> None:
        nonlocal forged
        forged += isinstance(error, ForgedEntry)
        hint(f"not copied: {entry.cache_key}: {error}")

    def show(so_far: Copied) -> None:
        nonlocal done
        done = so_far
        bar.update(task, completed=so_far.seen)

    with UnifiedCache(origin) as old, UnifiedCache(destination) as new, progress() as bar:
        task = bar.add_task("copying", total=old.stats()["entries"])
        with telling(lambda: f"{_tally(done)}. {_AFTER_COPY}"):
            before, after = old._store, new._store  # noqa: SLF001  stored bytes move, not values
            done = copy_entries(before, after, every_row(before), show, skipped=name)
    if as_json:
        print_json(asdict(done))
    else:
        say(_tally(done))
    if forged:
        hint(f"{number_of(forged, 'entry')} of a key that is not known for the source: give it with --source-key")
    if done.skipped:
        raise typer.Exit(FOUND)


@about_a_store
def migrate(*, place: Place, dry_run: DryRun = False, yes: Yes = False, as_json: AsJson = False) -> None:
    """Upgrade the database's schema to this version of the library. After an interruption, run it again.

    Entries that this version does not read are dropped, with their blobs, after a confirmation with their number.
    """
    from cacheness.migrating import migrate as migrate_store
    from cacheness.migrating import planned_for

    config = place.config(reads_entries=False)
    planned = planned_for(config)
    if planned.entries:
        (hint if as_json else say)(
            f"{number_of(planned.entries, 'entry')} of an older version cannot be read by this one. What cannot be read"
            " is dropped, its blobs are deleted, and the results will be computed again. Stop processes that use the"
            " older version."
        )
    if dry_run:
        if as_json:
            print_json({**asdict(planned), "migrated": False})
        else:
            _say_planned(planned)
        return
    if planned.entries:
        confirm("Go on?", yes=yes)
    seen = "nothing was dropped"

    def show(entries: int, blobs: int) -> None:
        nonlocal seen
        seen = f"{number_of(entries, 'entry')} dropped, {number_of(blobs, 'blob')} deleted"
        bar.update(task, description=seen)

    with progress() as bar:
        task = bar.add_task("migrating", total=None)
        with telling(lambda: f"{seen}. Run it again to continue"):
            done = migrate_store(config, show)
    if as_json:
        print_json(asdict(done))
    else:
        _say_migrated(done)
    if done.left:
        hint(f"blobs are left: {done.why}. A repair deletes them once this database owns them: cacheness adopt")
        raise typer.Exit(FOUND)


def _say_planned(planned: Migrated) -> None:
    if planned.before == planned.after:
        say(f"the schema is at version {planned.after} already")
    else:
        say(f"the schema would be upgraded from version {planned.before} to {planned.after}")
    if planned.entries:
        say(f"{number_of(planned.entries, 'entry')} would be dropped")


def _say_migrated(done: Migrated) -> None:
    same = done.before == done.after
    say(
        f"the schema is at version {done.after} already"
        if same
        else f"upgraded from version {done.before} to {done.after}"
    )
    if done.entries or done.deleted or done.left:
        say(
            f"{number_of(done.entries, 'entry')} dropped, {number_of(done.deleted, 'blob')} deleted, {done.left:,} left"
        )


@about_a_store
def adopt(*, place: Place, yes: Yes = False, as_json: AsJson = False) -> None:
    """Declare this database the owner of the blob store, so that repairs may delete there again."""
    with place.opened() as cache:
        confirm("A later repair will delete blobs that this database does not name. Go on?", yes=yes)
        unknown = cache.adopt()
    if as_json:
        print_json({"adopted": True, "unknown_blobs": unknown})
        return
    say("this database owns the blob store now")
    if unknown:
        say(
            f"{number_of(unknown, 'blob')} there: written by sessions that this database does not know. If no other"
            " database uses what they wrote, delete it with: cacheness verify --repair --force"
        )


def _tally(done: Copied) -> str:
    copied = number_of(done.copied, "entry")
    text = f"{copied} copied, {done.already_there:,} were there already, {done.unreadable:,} unreadable"
    if done.refused:
        text += f", {done.refused:,} refused by the target"
    return text + (f", {done.expired:,} had expired" if done.expired else "")
