"""Commands that delete entries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final

import typer

from cacheness.cli.endings import Misuse
from cacheness.cli.entries import entry_named
from cacheness.cli.options import FUNCTION_HELP, AsJson, DryRun, Place, Yes, about_a_cache
from cacheness.cli.screen import confirm, print_json, progress, say, telling_what_is_left
from cacheness.errors import CachenessError
from cacheness.units import number_of

MANY: Final = 20_000  #: entries, whose deletion takes long enough for a bar
SHARDS: Final = 256  #: entries per step


@about_a_cache
def delete(
    key: Annotated[str | None, typer.Argument(help="A key as `list` shows it: its first digits are enough.")] = None,
    *,
    place: Place,
    tag: Annotated[str | None, typer.Option(help="Entries with this tag.")] = None,
    function: Annotated[str | None, typer.Option(help=f"Of this {FUNCTION_HELP}, or a whole module (module:).")] = None,
    prefix: Annotated[str | None, typer.Option(help="Entries with this prefix.")] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Entries made longer ago: 7d, '3 hours'.")
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete one entry, or those that meet every given condition."""
    conditions = {"tag": tag, "function": function, "prefix": prefix, "older_than": older_than}
    given: dict[str, Any] = {name: value for name, value in conditions.items() if value is not None}
    if (key is None) == (not given):
        raise Misuse("name what to delete: a key, or conditions such as --function; everything is deleted by clear")
    if empty := [name.replace("_", "-") for name, value in given.items() if not value.strip()]:
        why = "as a shell's variable is that was not set; everything is deleted by clear"
        raise Misuse(f"--{empty[0]} is empty, {why}")
    with place.opened() as cache:
        if key is not None:
            entry = entry_named(cache, key)
            found, what = 1, f"entry {entry.cache_key}"
        else:
            try:
                found = cache.delete_matching(**given, dry_run=True)
            except CachenessError:  # some are ValueErrors
                raise
            except ValueError as error:
                raise Misuse(str(error)) from None
            what = number_of(found, "entry")
        if not dry_run and found:
            confirm(f"Delete {what} of namespace {cache.config.namespace!r}?", yes=yes)
            with telling_what_is_left(cache), _bar(found) as show:
                if key is not None:
                    found = int(cache.invalidate(entry.cache_key))
                else:
                    found = cache.delete_matching(**given, progress=show)
    _tell(found, dry_run=dry_run, as_json=as_json)


@about_a_cache
def evict(*, place: Place, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Delete expired entries, and those over the quota: what puts do in slices. It needs no confirmation."""
    with place.opened() as cache, telling_what_is_left(cache):
        if dry_run:
            gone = cache.evictable()
        else:
            with progress() as bar:
                task = bar.add_task("evicting", total=None)

                def show(gone: int, to_go: int | None) -> None:
                    total = None if to_go is None else gone + to_go
                    bar.update(
                        task,
                        completed=gone,
                        total=total,
                        description=f"evicting: {number_of(gone, 'entry')} deleted",
                    )

                gone = cache.evict(progress=show)
    _tell(gone, dry_run=dry_run, as_json=as_json)


@about_a_cache
def clear(*, place: Place, dry_run: DryRun = False, yes: Yes = False, as_json: AsJson = False) -> None:
    """Delete every entry of the namespace."""
    with place.opened() as cache:
        gone = cache.stats()["entries"]
        if not dry_run:
            confirm(f"Delete all of namespace {cache.config.namespace!r}, {number_of(gone, 'entry')}?", yes=yes)
            with telling_what_is_left(cache), _bar(gone) as show:
                gone = cache.clear(progress=show)
    _tell(gone, dry_run=dry_run, as_json=as_json)


@contextmanager
def _bar(entries: int) -> Iterator[Callable[[int, int], None] | None]:
    """Return a function that moves a bar during deletion; None for few entries, because steps take longer."""
    if entries < MANY:
        yield None
        return
    with progress() as bar:
        task = bar.add_task("deleting", total=SHARDS)

        def show(gone: int, shards: int) -> None:
            bar.update(task, completed=shards, description=f"deleting: {number_of(gone, 'entry')} deleted")

        yield show


def _tell(entries: int, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json({"entries": entries, "deleted": not dry_run})
    else:
        say(f"{number_of(entries, 'entry')} {'would be deleted' if dry_run else 'deleted'}")
