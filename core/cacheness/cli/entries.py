"""Commands that inspect entries, and change nothing."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from cacheness.cli.endings import CouldNot, Misuse
from cacheness.cli.options import FUNCTION_HELP, AsJson, KeyArgument, Place, about_a_cache
from cacheness.cli.screen import (
    NAME,
    NUMBER,
    TEXT,
    WHOLE,
    function_named,
    hint,
    out,
    print_json,
    progress,
    say,
    short,
    table,
)
from cacheness.errors import CachenessError
from cacheness.printable import represented
from cacheness.units import bytes_named, number_of, seconds_named

if TYPE_CHECKING:
    from cacheness.cache import UnifiedCache
    from cacheness.records import Entry

PAGE: Final = 1000
MOST: Final = 1_000_000_000  #: entries that can be requested
LONGEST: Final = 2000  #: characters of arguments that are shown
TopBy = Literal["size", "uses", "seconds", "unused"]
ShowValue = Annotated[bool, typer.Option("--value", help="Read the value, and show what it looks like.")]


@about_a_cache
def list_entries(
    *,
    place: Place,
    tag: Annotated[str | None, typer.Option(help="Only entries with this tag.")] = None,
    function: Annotated[str | None, typer.Option(help=f"Only of this {FUNCTION_HELP}, module or package.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=MOST, help="At most this many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List entries, in key order; with --function, each function's newest first.

    Into a pipe: a line each, whole keys, columns between tabs.
    """
    with place.opened() as cache:
        entries = cache.list_entries(tag=tag, function=function, limit=limit)
        if as_json:
            print_json(entries)
            return
        _print_entries(entries)
        if not entries:
            hint("No entries.")
        elif len(entries) == limit:
            of = "" if tag is None and function is None else " that match"
            total = _count(cache, tag, function)
            if total > limit:
                hint(f"{limit:,} of {number_of(total, 'entry')}{of} shown; --limit shows more")


@about_a_cache
def show(key: KeyArgument, *, place: Place, as_json: AsJson = False, value: ShowValue = False) -> None:
    """Show one entry: its arguments, its function and code, its size and uses."""
    from cacheness.page.preview import not_served, preview

    with place.opened() as cache:
        entry = entry_named(cache, key)
        (listed,) = cache.describe([entry])
        found = {**listed, "namespace": entry.namespace, "raw_size": entry.raw_size, "signed_by": entry.key_id}
        found |= {"digest": entry.digest.hex(), "components": _read_json(entry.components)}
        found["not_served"] = not_served(cache, entry)
        if value:
            found["value"] = preview(cache, entry)
    if as_json:
        print_json(found)
        return
    code = found["code"] or {"reached": (), "versions": {}, "not_followed": ()}
    lines = {
        "key": entry.cache_key,
        "function": function_named(entry.function),
        "arguments": arguments_in(found["args"]),
        "tags": ", ".join(entry.tags),
        "size": f"{entry.size:,} bytes stored, {entry.raw_size:,} in memory, as {entry.codec}",
        "kept": f"as the blob {entry.blob}" if entry.blob else "in its row",
        "made": f"{found['created_at']:%Y-%m-%d %H:%M:%S %Z}{_cost_of(entry)}",
        "expires": "never" if found["expires_at"] is None else f"{found['expires_at']:%Y-%m-%d %H:%M:%S %Z}",
        "not served": found["not_served"],
        "used": f"{number_of(found['uses'], 'time')}, last {found['accessed_at']:%Y-%m-%d %H:%M:%S %Z}",
        "by": arguments_in(found["provenance"]),
        "code reached": ", ".join(code["reached"]),
        "not followed": "; ".join(code["not_followed"]),
        "libraries": ", ".join(f"{name} {version}" for name, version in code["versions"].items()),
        "signed by": entry.key_id or "nobody",
        "value": found.get("value", ""),
    }
    for name, text in lines.items():
        if text:
            say(f"{name:<13}{short(text, LONGEST)}")


@about_a_cache
def top(
    *,
    place: Place,
    by: Annotated[
        TopBy, typer.Option(help="size, uses, seconds (that it took to compute), or unused (for longest).")
    ] = "size",
    limit: Annotated[int, typer.Option(min=1, max=MOST, help="So many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the largest entries, or those with the most uses, the most seconds, or the longest time without use."""
    from cacheness.maintenance.ranking import first_of

    with place.opened() as cache, progress() as bar:
        task = bar.add_task("looking", total=cache.stats()["entries"])
        best: list[dict[str, Any]] = []
        entries = cache.iter_entries()
        while page := cache.describe(islice(entries, PAGE)):
            best = first_of(best, page, limit, by)
            bar.update(task, advance=len(page))
    if as_json:
        print_json(best)
    else:
        _print_entries(best)


def entry_named(cache: UnifiedCache, key: str) -> Entry:
    """Return the entry with a key or its first digits."""
    from cacheness.arguments import first_digits

    try:
        entry = cache.entry(first_digits(key))
    except CachenessError:  # some are ValueErrors
        raise
    except ValueError as error:
        raise Misuse(str(error)) from None
    if entry is None:
        raise CouldNot(f"there is no entry {short(key, 70)}")
    return entry


def _read_json(text: str) -> Any:
    import json

    try:
        return json.loads(text)
    except ValueError:
        return text


def _cost_of(entry: Entry) -> str:
    return "" if entry.compute_seconds is None else f" in {seconds_named(entry.compute_seconds)}"


def _count(cache: UnifiedCache, tag: str | None, function: str | None) -> int:
    if tag is None and function is None:
        total: int = cache.stats()["entries"]
        return total
    return sum(1 for _ in cache.iter_entries(tag=tag, function=function))


def _print_entries(entries: list[dict[str, Any]]) -> None:
    if not out().is_terminal:
        for entry in entries:
            print("\t".join((entry["cache_key"], *_columns(entry))))
        return
    if not entries:
        return
    # The most informative column comes first, and stays in a narrow window.
    kinds = (WHOLE, NAME, TEXT, NUMBER, WHOLE, WHOLE, NUMBER)
    head = dict(zip(("key", "function", "arguments", "size", "created", "expires", "uses"), kinds, strict=True))
    rows = []
    for entry in entries:
        function, arguments, _, *others = _columns(entry)
        rows.append((entry["cache_key"][:12], function, arguments, bytes_named(entry["size"]), *others))
    table(head, rows, ("expires", "created", "uses", "arguments"))


def _columns(entry: dict[str, Any]) -> tuple[str, ...]:
    return (
        function_named(entry["function"] or entry["prefix"]),
        short(arguments_in(entry["args"]), LONGEST),
        f"{entry['size']:,}",
        f"{entry['created_at']:%Y-%m-%d %H:%M}",
        "-" if entry["expires_at"] is None else f"{entry['expires_at']:%Y-%m-%d %H:%M}",
        f"{entry['uses']:,}",
    )


def arguments_in(args: object) -> str:
    """Return arguments as given, or why they cannot be read."""
    if not isinstance(args, dict):
        return repr(args)
    # Return the key's options, which are shown elsewhere; arguments of the same name are in `args`.
    given = {name: value for name, value in args.items() if name not in ("function", "prefix")}
    try:
        return ", ".join(f"{name}={value!r}" for name, value in given.items())
    except ValueError:  # Python writes no number of more than 4,300 digits
        return ", ".join(f"{name}={represented(value)}" for name, value in given.items())
