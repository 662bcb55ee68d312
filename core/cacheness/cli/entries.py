"""Commands that look at entries, and change nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from cacheness.cli.options import AsJson, Place, about_a_cache
from cacheness.cli.screen import hint, out, print_json, printable, short

if TYPE_CHECKING:
    from cacheness.cache import UnifiedCache


@about_a_cache
def list_entries(
    *,
    place: Place,
    tag: Annotated[str | None, typer.Option(help="Only entries with this tag.")] = None,
    function: Annotated[str | None, typer.Option(help="Only entries of this function.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List entries, in key order. Into a pipe: a line each, whole keys, columns between tabs."""
    with place.opened() as cache:
        entries = cache.list_entries(tag=tag, function=function, limit=limit)
        if as_json:
            print_json(entries)
            return
        if out.is_terminal:
            _print_table(entries)
        else:
            for entry in entries:
                print("\t".join((entry["cache_key"], *_columns(entry))))
        if not entries:
            hint("No entries.")
        elif len(entries) == limit:
            of = "" if tag is None and function is None else " that match"
            total = _count(cache, tag, function)
            if total > limit:
                hint(f"{limit:,} of {total:,} entries{of} shown; --limit shows more")


@about_a_cache
def stats(*, place: Place, as_json: AsJson = False) -> None:
    """Show how many entries, bytes and hits there are."""
    with place.opened() as cache:
        found = cache.stats()
    if as_json:
        print_json(found)
    else:
        out.print(", ".join(f"{value:,} {name}" for name, value in found.items() if value is not None))


def _count(cache: UnifiedCache, tag: str | None, function: str | None) -> int:
    if tag is None and function is None:
        total: int = cache.stats()["entries"]
        return total
    return sum(1 for _ in cache.iter_entries(tag=tag, function=function))


def _print_table(entries: list[dict[str, Any]]) -> None:
    from rich.table import Table

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
        printable(entry["function"] or entry["prefix"] or "-"),
        short(arguments_in(entry["args"]), most),
        f"{entry['size']:,}",
        f"{entry['created_at']:%Y-%m-%d %H:%M}",
        "-" if entry["expires_at"] is None else f"{entry['expires_at']:%Y-%m-%d %H:%M}",
        str(entry["hits"]),
    )


def arguments_in(args: object) -> str:
    """Arguments as they were given, or why they cannot be read."""
    return ", ".join(f"{k}={v!r}" for k, v in args.items()) if isinstance(args, dict) else repr(args)
