"""The command line: look at a cache, repair it, copy it, migrate its database."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from cacheness.config import Config
from cacheness.copying import copy as copy_entries
from cacheness.errors import CachenessError, ConfigError
from cacheness.unified import UnifiedCache
from cacheness.wiring import embedded_kind, upgrade

HELP = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__, context_settings=HELP
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

EMBEDDED = ("sqlite", "json")

CacheDir = Annotated[str | None, typer.Option("--cache-dir", "-d", help="Directory of an embedded cache.")]
Backend = Annotated[str | None, typer.Option("--metadata-backend", "-m", help="sqlite, json, or a database URL.")]
Blobs = Annotated[str | None, typer.Option("--blob-store", "-b", help="URL of the blob store.")]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Namespace within the store.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Force = Annotated[bool, typer.Option("--force", help="Repair even when the damage looks implausible.")]


def main() -> None:
    """Run a command; expected trouble is one sentence and exit code 1, never a traceback."""
    try:
        app()
    except CachenessError as error:
        err.print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        err.print("interrupted; nothing is half done, so it can be run again")
        sys.exit(130)


@app.command("list")
def list_entries(
    *,
    cache_dir: CacheDir = None,
    metadata_backend: Backend = None,
    blob_store: Blobs = None,
    namespace: Namespace = None,
    tag: Annotated[str | None, typer.Option(help="Only entries with this tag.")] = None,
    function: Annotated[str | None, typer.Option(help="Only entries of this function.")] = None,
    limit: Annotated[int, typer.Option(help="At most this many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List entries, in key order."""
    with _opened(cache_dir, metadata_backend, blob_store, namespace) as cache:
        entries = cache.list_entries(tag=tag, function=function, limit=limit)
        if as_json:
            out.print_json(json.dumps(entries, default=str))
            return
        if not entries:
            out.print("No entries.")
            return
        table = Table(box=None)
        for column in ("key", "function", "arguments", "size", "created", "expires", "hits"):
            table.add_column(column, no_wrap=True, overflow="ellipsis")
        for entry in entries:
            table.add_row(
                entry["cache_key"][:12],
                Text(entry["function"] or entry["prefix"] or "-"),
                Text(_short(entry["args"])),
                f"{entry['size']:,}",
                f"{entry['created_at']:%Y-%m-%d %H:%M}",
                "-" if entry["expires_at"] is None else f"{entry['expires_at']:%Y-%m-%d %H:%M}",
                str(entry["hits"]),
            )
        out.print(table)
        total = cache.stats()["entries"]
        if total > len(entries):
            out.print(f"{len(entries):,} of {total:,} entries shown")


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
            out.print_json(json.dumps(found))
        else:
            out.print(", ".join(f"{value:,} {name}" for name, value in found.items()))


@app.command()
def verify(
    *,
    cache_dir: CacheDir = None,
    metadata_backend: Backend = None,
    blob_store: Blobs = None,
    namespace: Namespace = None,
    repair: Annotated[bool, typer.Option(help="Mend what may be mended.")] = False,
    deep: Annotated[bool, typer.Option(help="Read and verify every byte.")] = False,
    sample: Annotated[
        float, typer.Option(help="With --deep: the share of the entries to read, the next each time.")
    ] = 1,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Check the store, and repair it with --repair. Exit code 2 when issues remain."""
    with _opened(cache_dir, metadata_backend, blob_store, namespace) as cache, _progress() as bar:
        task = bar.add_task("looking", total=None)

        def show(objects: int, entries: int) -> None:
            bar.update(task, description=f"{entries:,} entries, {objects:,} blobs")

        report = cache.verify_integrity(repair, deep, sample=sample, force=force, progress=show)
    if as_json:
        out.print_json(json.dumps(report.as_dict()))
    else:
        out.print(Text(str(report)), soft_wrap=True)
    if any(not issue.repaired for issue in report):
        raise typer.Exit(2)


@app.command()
def evict(
    *,
    cache_dir: CacheDir = None,
    metadata_backend: Backend = None,
    blob_store: Blobs = None,
    namespace: Namespace = None,
) -> None:
    """Delete expired entries, and what exceeds the quota."""
    with _opened(cache_dir, metadata_backend, blob_store, namespace) as cache:
        out.print(f"{cache.evict():,} entries deleted")


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
        out.print(f"{cache.clear():,} entries deleted")


@app.command()
def copy(
    source: Annotated[str, typer.Argument(help="Directory of an embedded cache, or a database URL.")],
    target: Annotated[str, typer.Argument(help="Directory of an embedded cache, or a database URL.")],
    *,
    source_blobs: Annotated[str | None, typer.Option(help="Blob store of a shared source.")] = None,
    target_blobs: Annotated[str | None, typer.Option(help="Blob store of a shared target.")] = None,
    to: Annotated[str, typer.Option(help="Metadata of a new embedded target: sqlite or json.")] = "sqlite",
    namespace: Namespace = None,
) -> None:
    """Copy every entry; keys, times and tags stay. Interrupted, run it again: it goes on."""
    origin = _existing(_endpoint(source, source_blobs, namespace, _kind_of(source)))
    destination = _endpoint(target, target_blobs, namespace, _kind_of(target) or to)
    with UnifiedCache(origin) as old, UnifiedCache(destination) as new, _progress() as bar:
        task = bar.add_task("copying", total=old.stats()["entries"])
        done = copy_entries(
            old.parts,
            new.parts,
            old.iter_entries(),
            lambda so_far: bar.update(task, completed=so_far.copied + so_far.already_there + so_far.unreadable),
        )
    out.print(
        f"{done.copied:,} entries copied, {done.already_there:,} were there already, {done.unreadable:,} unreadable"
    )
    if done.unreadable:
        raise typer.Exit(2)


@app.command()
def migrate(cache_dir: CacheDir = None, metadata_backend: Backend = None) -> None:
    """Upgrade the database's schema to this version of the library."""
    old, new = upgrade(_existing(_config(cache_dir, metadata_backend, None, None)))
    out.print(f"the schema is at version {new} already" if old == new else f"upgraded from version {old} to {new}")


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
    cache_dir: str | None, metadata_backend: str | None, blob_store: str | None, namespace: str | None
) -> Config:
    given = {
        "cache_dir": cache_dir,
        "metadata_backend": metadata_backend or (cache_dir and _kind_of(cache_dir)),
        "blob_store": blob_store,
        "namespace": namespace,
    }
    return Config.from_env().but(**{name: value for name, value in given.items() if value is not None})


def _existing(config: Config) -> Config:
    """The configuration itself, unless a mistyped directory would make an empty cache."""
    if config.metadata_backend in EMBEDDED and _kind_of(config.cache_dir) is None:
        raise ConfigError(f"there is no cache in {config.cache_dir}")
    return config


def _kind_of(place: str) -> str | None:
    return None if "://" in place else embedded_kind(place)


def _endpoint(place: str, blobs: str | None, namespace: str | None, kind: str | None) -> Config:
    if "://" in place:
        return _config(None, place, blobs, namespace)
    return _config(place, kind or "sqlite", blobs, namespace)


@contextmanager
def _progress() -> Iterator[Progress]:
    columns: list[Any] = [SpinnerColumn(), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn()]
    with Progress(*columns, console=err, transient=True) as bar:
        yield bar


def _short(value: object, most: int = 50) -> str:
    text = ", ".join(f"{k}={v!r}" for k, v in value.items()) if isinstance(value, dict) else repr(value)
    return text if len(text) <= most else text[: most - 1] + "…"
