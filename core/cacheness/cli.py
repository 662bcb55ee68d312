"""The command line: look at a cache, repair it, copy it, migrate its database.

Exit codes: 0, 1 when something was found (issues, entries that were not copied), 2 for a command that
cannot be meant so, 3 when it could not be done, 130 after Ctrl-C.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from cacheness.cache import UnifiedCache
from cacheness.config import Config
from cacheness.errors import CachenessError, ConfigError, ForgedEntry
from cacheness.factory import BLOB_DIRECTORY, KEY_FILE, check_backend, embedded_kind
from cacheness.maintenance.copying import Copied, every_row
from cacheness.maintenance.copying import copy as copy_entries
from cacheness.migrating import entries_to_drop
from cacheness.migrating import migrate as migrate_store
from cacheness.records import Entry

HELP = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=__doc__.partition("\n")[0],
    context_settings=HELP,
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

EMBEDDED = ("sqlite", "json")
FOUND: Final = 1
MISUSE: Final = 2
COULD_NOT: Final = 3
INTERRUPTED: Final = 130

CacheDir = Annotated[str | None, typer.Option("--cache-dir", "-d", help="Directory of an embedded cache.")]
Backend = Annotated[str | None, typer.Option("--metadata-backend", "-m", help="sqlite, json, or a database URL.")]
Blobs = Annotated[str | None, typer.Option("--blob-store", "-b", help="URL of the blob store.")]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Namespace within the store.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
KEY_HELP: Final = "@FILE reads it from a file; an embedded cache has its own."
Force = Annotated[bool, typer.Option("--force", help="Repair even when the damage looks implausible.")]


class _Misuse(Exception):
    """What was typed cannot be meant so."""


class _StoppedByUser(Exception):
    """Ctrl-C, with what had been done until then."""


def main() -> None:
    """Run a command; expected trouble is one sentence and an exit code, never a traceback."""
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # or the interpreter finds out at its end, and says so with a code of its own
    except _Misuse as error:
        _fail(str(error), MISUSE)
    except CachenessError as error:
        _fail(str(error), COULD_NOT)
    except _StoppedByUser as error:
        err.print(Text(f"interrupted: {error}"), soft_wrap=True)
        sys.exit(INTERRUPTED)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            err.print("interrupted; nothing is half done, so it can be run again")
        if isinstance(end.__context__, BrokenPipeError):
            sys.exit(COULD_NOT)  # who read the output has closed it, and typer's 1 means that something was found
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left of the output cannot be written at the end either
        _fail(f"the output could not be written: {error.strerror}", COULD_NOT)


def _fail(message: str, code: int) -> None:
    err.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)
    sys.exit(code)


@app.command("list")
def list_entries(
    *,
    cache_dir: CacheDir = None,
    metadata_backend: Backend = None,
    blob_store: Blobs = None,
    namespace: Namespace = None,
    tag: Annotated[str | None, typer.Option(help="Only entries with this tag.")] = None,
    function: Annotated[str | None, typer.Option(help="Only entries of this function.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List entries, in key order. Into a pipe: a line each, whole keys, columns between tabs."""
    with _opened(cache_dir, metadata_backend, blob_store, namespace) as cache:
        entries = cache.list_entries(tag=tag, function=function, limit=limit)
        if as_json:
            _print_json(entries)
            return
        if out.is_terminal:
            _print_table(entries)
        else:
            for entry in entries:
                print("\t".join((entry["cache_key"], *_columns(entry))))
        if not entries:
            err.print("No entries.")
        elif len(entries) == limit:
            of = "" if tag is None and function is None else " that match"
            total = _count(cache, tag, function)
            if total > limit:
                err.print(f"{limit:,} of {total:,} entries{of} shown; --limit shows more", soft_wrap=True)


@app.command()
def stats(
    *,
    cache_dir: CacheDir = None,
    metadata_backend: Backend = None,
    blob_store: Blobs = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Show how many entries, bytes and hits there are."""
    with _opened(cache_dir, metadata_backend, blob_store, namespace) as cache:
        found = cache.stats()
        if as_json:
            _print_json(found)
        else:
            out.print(", ".join(f"{value:,} {name}" for name, value in found.items()))


@app.command()
def verify(
    *,
    cache_dir: CacheDir = None,
    metadata_backend: Backend = None,
    blob_store: Blobs = None,
    namespace: Namespace = None,
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
        raise _Misuse(f"--sample {sample:g} is not a share of the entries: more than 0 and at most 1, 0.1 for a tenth")
    if sample is not None and not deep:
        raise _Misuse("--sample says how much of the bytes to read, and without --deep none are read: add --deep")
    if force and not repair:
        raise _Misuse("--force is for a repair: add --repair")
    seen = "nothing yet"

    def show(objects: int, entries: int) -> None:
        nonlocal seen
        seen = f"{entries:,} entries, {objects:,} blobs"
        bar.update(task, description=seen)

    with _opened(cache_dir, metadata_backend, blob_store, namespace) as cache, _progress() as bar:
        task = bar.add_task("looking", total=None)
        changed = "what it repaired stays so" if repair else "nothing was changed"
        with _telling(lambda: f"looked at {seen}; {changed}, and it can be run again"):
            report = cache.verify_integrity(
                repair, deep, sample=1 if sample is None else sample, force=force, progress=show
            )
    if as_json:
        _print_json(report.as_dict())
    else:
        out.print(Text(str(report)), soft_wrap=True)
    if not report.ok:
        raise typer.Exit(FOUND)


@app.command()
def evict(
    *,
    cache_dir: CacheDir = None,
    metadata_backend: Backend = None,
    blob_store: Blobs = None,
    namespace: Namespace = None,
) -> None:
    """Delete expired entries, and what exceeds the quota."""
    opened = _opened(cache_dir, metadata_backend, blob_store, namespace)
    with opened as cache, _telling_what_is_left(cache):
        with _progress() as bar:
            task = bar.add_task("evicting", total=None)

            def show(gone: int, to_go: int | None) -> None:
                total = None if to_go is None else gone + to_go
                bar.update(task, completed=gone, total=total, description=f"evicting: {gone:,} entries deleted")

            gone = cache.evict(progress=show)
        out.print(f"{gone:,} entries deleted")


@app.command()
def clear(
    *,
    cache_dir: CacheDir = None,
    metadata_backend: Backend = None,
    blob_store: Blobs = None,
    namespace: Namespace = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete every entry of the namespace."""
    with _opened(cache_dir, metadata_backend, blob_store, namespace) as cache:
        entries = cache.stats()["entries"]
        if not yes:
            typer.confirm(f"Delete all {entries:,} entries of namespace {cache.config.namespace!r}?", abort=True)
        with _telling_what_is_left(cache):
            out.print(f"{cache.clear():,} entries deleted")


@app.command()
def copy(
    source: Annotated[str, typer.Argument(help="Directory of an embedded cache, or a database URL.")],
    target: Annotated[str, typer.Argument(help="Directory of an embedded cache, or a database URL.")],
    *,
    source_blobs: Annotated[str | None, typer.Option(help="Blob store of a shared source.")] = None,
    target_blobs: Annotated[str | None, typer.Option(help="Blob store of a shared target.")] = None,
    source_key: Annotated[str | None, typer.Option(help=f"Signing key of the source. {KEY_HELP}")] = None,
    target_key: Annotated[str | None, typer.Option(help=f"Signing key of the target. {KEY_HELP}")] = None,
    to: Annotated[
        Literal["sqlite", "json"] | None, typer.Option(help="Metadata of a new embedded target; sqlite if not given.")
    ] = None,
    namespace: Namespace = None,
) -> None:
    """Copy every entry; keys, times and tags stay. Interrupted, run it again: it goes on.

    What cannot be copied is named on stderr, and the exit code is 1 then.
    """
    origin = _existing(_endpoint(source, source_blobs, namespace, source_key))
    destination = _target(target, target_blobs, namespace, target_key, to)
    if _place(source) == _place(target):
        raise _Misuse(f"source and target are the same: {source}")
    done, forged = Copied(), 0

    def name(entry: Entry, error: CachenessError) -> None:
        nonlocal forged
        forged += isinstance(error, ForgedEntry)
        err.print(Text(f"not copied: {entry.cache_key}: {error}"), soft_wrap=True)

    def show(so_far: Copied) -> None:
        nonlocal done
        done = so_far
        bar.update(task, completed=so_far.seen)

    with UnifiedCache(origin) as old, UnifiedCache(destination) as new, _progress() as bar:
        task = bar.add_task("copying", total=old.stats()["entries"])
        with _telling(lambda: f"{_tally(done)}. Run it again, and it goes on"):
            done = copy_entries(old.parts, new.parts, every_row(old.parts), show, skipped=name)
    out.print(_tally(done), soft_wrap=True)
    if forged:
        hint = f"{forged:,} entries were signed by a key that is not known for the source: give it with --source-key"
        err.print(hint, soft_wrap=True)
    if done.skipped:
        raise typer.Exit(FOUND)


@app.command()
def migrate(
    *,
    cache_dir: CacheDir = None,
    metadata_backend: Backend = None,
    blob_store: Blobs = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Upgrade the database's schema to this version of the library. Interrupted, run it again: it goes on.

    Entries that this version does not read are dropped, with their blobs; it says how many and asks first.
    """
    config = _existing(_config(cache_dir, metadata_backend, blob_store, None))
    if old := entries_to_drop(config):
        out.print(
            f"{old:,} entries of an older version are not read by this one. They are dropped, their blobs are deleted,"
            " and their results will be computed again. Stop processes that use the older version.",
            soft_wrap=True,
        )
        if not yes and not sys.stdin.isatty():
            raise _Misuse("nobody can be asked here, because stdin is no terminal: add --yes to drop them")
        if not yes:
            typer.confirm("Go on?", abort=True)
    seen = "nothing was dropped"

    def show(entries: int, blobs: int) -> None:
        nonlocal seen
        seen = f"{entries:,} entries dropped, {blobs:,} blobs deleted"
        bar.update(task, description=seen)

    with _progress() as bar:
        task = bar.add_task("migrating", total=None)
        with _telling(lambda: f"{seen}. Run it again, and it goes on"):
            done = migrate_store(config, show)
    same = done.before == done.after
    out.print(
        f"the schema is at version {done.after} already"
        if same
        else f"upgraded from version {done.before} to {done.after}"
    )
    if done.entries or done.deleted or done.left:
        out.print(f"{done.entries:,} entries dropped, {done.deleted:,} blobs deleted, {done.left:,} left")
    if done.left:
        err.print(
            Text(f"blobs are left: {done.why}. A repair deletes them once this database owns them: cacheness adopt"),
            soft_wrap=True,
        )
        raise typer.Exit(FOUND)


@app.command()
def adopt(
    *,
    cache_dir: CacheDir = None,
    metadata_backend: Backend = None,
    blob_store: Blobs = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Declare this database the owner of the blob store, so that repairs may delete there again."""
    with _opened(cache_dir, metadata_backend, blob_store, None) as cache:
        if not yes:
            typer.confirm("A later repair will delete blobs that this database does not name. Go on?", abort=True)
        unknown = cache.adopt()
        out.print("this database owns the blob store now")
        if unknown:
            out.print(
                f"{unknown:,} blobs there are of sessions that this database does not know. If no other database uses"
                " them, delete them with: cacheness verify --repair --force",
                soft_wrap=True,
            )


@contextmanager
def _opened(*options: str | None) -> Iterator[UnifiedCache]:
    with UnifiedCache(_existing(_config(*options))) as cache:
        yield cache


def _config(
    cache_dir: str | None,
    metadata_backend: str | None,
    blob_store: str | None,
    namespace: str | None,
    signing_key: str | None = None,
) -> Config:
    given = {
        "cache_dir": cache_dir,
        "metadata_backend": metadata_backend or (cache_dir and _kind_of(cache_dir)),
        "blob_store": blob_store,
        "namespace": namespace,
        "signing_key": signing_key,
    }
    try:
        config = Config.from_env().but(**{name: value for name, value in given.items() if value is not None})
        check_backend(config)
    except ConfigError as error:
        raise _Misuse(str(error)) from None
    if cache_dir is not None and blob_store is None and os.path.isdir(os.path.join(cache_dir, BLOB_DIRECTORY)):
        # The environment's blob store is that of another cache: this directory has blobs of its own.
        return config.but(blob_store=None)
    return config


def _existing(config: Config) -> Config:
    """The configuration itself, unless a mistyped directory would make an empty cache."""
    if config.metadata_backend in EMBEDDED and _kind_of(config.cache_dir) is None:
        raise ConfigError(f"there is no cache in {config.cache_dir}{_why_not(config.cache_dir)}")
    return config


def _why_not(directory: str) -> str:
    try:
        os.scandir(directory).close()
    except OSError as error:
        return f": {error.strerror}"
    except ValueError as error:
        return f": {error}"
    return ""


def _kind_of(place: str) -> str | None:
    return None if "://" in place else embedded_kind(place)


def _endpoint(place: str, blobs: str | None, namespace: str | None, key: str | None, kind: str = "sqlite") -> Config:
    secret = None if key is None else _secret(key)
    if "://" in place:
        return _config(None, place, blobs, namespace, secret)
    config = _config(place, _kind_of(place) or kind, blobs, namespace, secret)
    return config if blobs is not None else config.but(blob_store=None)


def _target(place: str, blobs: str | None, namespace: str | None, key: str | None, to: str | None) -> Config:
    held = _kind_of(place)
    if to is not None and "://" in place:
        raise _Misuse(f"--to {to} is for a target that is a directory, and {place.partition('://')[0]}:// is a server")
    if to is not None and held is not None and held != to:
        raise _Misuse(f"{place} holds a cache of kind {held} already: leave out --to {to}, or name a new directory")
    config = _endpoint(place, blobs, namespace, key, to or "sqlite")
    has_own = held is None or os.path.exists(os.path.join(place, KEY_FILE))
    if key is None and "://" not in place and has_own:
        # The environment's key is that of a shared cache; whoever opens the directory later may not have it.
        return config.but(signing_key=None)
    return config


def _secret(key: str) -> str:
    if not key.startswith("@"):
        return key
    try:
        return Path(key[1:]).read_text("ascii").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise _Misuse(f"the signing key cannot be read from {key[1:]}: {reason}") from None


def _place(text: str) -> str:
    return text if "://" in text else os.path.realpath(text)


def _tally(done: Copied) -> str:
    text = f"{done.copied:,} entries copied, {done.already_there:,} were there already, {done.unreadable:,} unreadable"
    if done.refused:
        text += f", {done.refused:,} refused by the target"
    return text + (f", {done.expired:,} had expired" if done.expired else "")


@contextmanager
def _telling(what_was_done: Callable[[], str]) -> Iterator[None]:
    """After Ctrl-C, say what was done until then."""
    try:
        yield
    except KeyboardInterrupt:
        raise _StoppedByUser(what_was_done()) from None


@contextmanager
def _telling_what_is_left(cache: UnifiedCache) -> Iterator[None]:
    before = cache.stats()["entries"]

    def what_was_done() -> str:
        left = cache.stats()["entries"]
        return (
            f"{max(before - left, 0):,} entries deleted, {left:,} left. Blobs of deleted entries that are still there"
            " are removed by: cacheness verify --repair"
        )

    with _telling(what_was_done):
        yield


@contextmanager
def _progress() -> Iterator[Progress]:
    columns: list[Any] = [SpinnerColumn(), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn()]
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        yield bar


def _count(cache: UnifiedCache, tag: str | None, function: str | None) -> int:
    if tag is None and function is None:
        total: int = cache.stats()["entries"]
        return total
    return sum(1 for _ in cache.iter_entries(tag=tag, function=function))


def _print_json(data: object) -> None:
    # Not through rich's width: what reads it wants it whole.
    print(json.dumps(data, indent=2, default=str))


def _print_table(entries: list[dict[str, Any]]) -> None:
    if not entries:
        return
    table = Table(box=None)
    for column in ("key", "function", "arguments", "size", "created", "expires", "hits"):
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    for entry in entries:
        table.add_row(entry["cache_key"][:12], *map(Text, _columns(entry, most=50)))
    out.print(table)


def _columns(entry: dict[str, Any], most: int | None = None) -> tuple[str, ...]:
    return (
        _printable(entry["function"] or entry["prefix"] or "-"),
        _short(entry["args"], most),
        f"{entry['size']:,}",
        f"{entry['created_at']:%Y-%m-%d %H:%M}",
        "-" if entry["expires_at"] is None else f"{entry['expires_at']:%Y-%m-%d %H:%M}",
        str(entry["hits"]),
    )


def _printable(text: str) -> str:
    """Text without characters that would steer the terminal, or end a line or a column."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _short(value: object, most: int | None) -> str:
    text = ", ".join(f"{k}={v!r}" for k, v in value.items()) if isinstance(value, dict) else repr(value)
    text = _printable(text)
    return text if most is None or len(text) <= most else text[: most - 1] + "…"
