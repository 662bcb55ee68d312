"""Output of commands: text that cannot control the terminal, JSON, questions, and progress."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache as once
from typing import TYPE_CHECKING, Any, Final

import typer

from cacheness.cli.endings import Declined, Misuse, StoppedByUser
from cacheness.printable import cut, printable
from cacheness.units import number_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from cacheness.cache import UnifiedCache


@once
def out() -> Console:
    """Standard output. Imported late, like all of rich: the help needs none of it."""
    from rich.console import Console

    return Console(highlight=False, _environ=_environment())


@once
def err() -> Console:
    """Standard error, for hints, errors and progress."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, _environ=_environment())


def _environment() -> Mapping[str, str]:
    """Return the environment, without a width of zero: a program that does not know the width sets 0."""
    is_known = os.environ.get("COLUMNS", "").strip("0 ") != ""
    return os.environ if is_known else {name: text for name, text in os.environ.items() if name != "COLUMNS"}


def short(text: str, most: int | None) -> str:
    """Return printable text of at most so many characters."""
    return printable(text) if most is None else cut(printable(text[: most + 1]), most)


def function_named(name: str, most: int | None = None) -> str:
    """Return a function's name, or its end if it is too long: modules have the same beginnings."""
    name = printable(name[-1000:]) or "-"
    return name if most is None or len(name) <= most else "…" + name[1 - most :]


#: Kinds of columns: numbers and others that are never cut, names, which differ at the end, texts,
#: and notes, which wrap.
NUMBER: Final = "number"
WHOLE: Final = "whole"
NAME: Final = "name"
TEXT: Final = "text"
NOTE: Final = "note"
_LEAST: Final = 10  #: characters to which a name or a text can be cut
_GAP: Final = 2  #: between columns


def table(head: Mapping[str, str], rows: Sequence[tuple[str, ...]], leave_out: Sequence[str] = ()) -> None:
    """Print rows under a head of columns with their kinds; whole and separated by tabs if not for a terminal.

    If they do not fit, columns that are zero in all rows are left out, then those of `leave_out` in
    their order, until they fit; then texts are cut. Numbers never are: if nothing else helps, each
    row is written line by line.
    """
    if not out().is_terminal:
        for row in rows:
            print("\t".join(row))
        return
    wide = out().width
    widths = {name: max(*map(len, name.split("\n")), *(len(row[at]) for row in rows)) for at, name in enumerate(head)}
    least = {
        name: widths[name] if kind in (NUMBER, WHOLE) else min(widths[name], _LEAST) for name, kind in head.items()
    }
    shown, gone = list(head), list[str]()
    empty = [
        name for at, name in enumerate(head) if name in leave_out and all(row[at] in ("", "-", "0") for row in rows)
    ]
    for name in (*(name for name in leave_out if name in empty), *leave_out):
        needed = widths if name in empty and name not in gone else least
        if sum(needed[one] + _GAP for one in shown) > wide and name in shown:
            shown.remove(name)
            gone += [] if name in empty else [name]
    if sum(least[one] + _GAP for one in shown) > wide:
        _print_lines(head, rows)
        return
    at_all = {name: at for at, name in enumerate(head)}
    _print_columns({name: head[name] for name in shown}, [tuple(row[at_all[name]] for name in shown) for row in rows])
    if gone:
        named = ", ".join(name.replace("\n", " ") for name in gone)
        hint(f"Not shown, because the window is narrow: {named}")


def _print_columns(head: Mapping[str, str], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.table import Table
    from rich.text import Text

    widths = [max(*map(len, name.split("\n")), *(len(row[at]) for row in rows)) for at, name in enumerate(head)]
    flexible = [width for width, kind in zip(widths, head.values(), strict=True) if kind not in (NUMBER, WHOLE)]
    most = max(_LEAST, _share(flexible, out().width - sum(widths) + sum(flexible) - _GAP * len(head)))
    shown = Table(box=None)
    for name, kind in head.items():
        is_note = kind == NOTE
        shown.add_column(
            Text(name),
            no_wrap=not is_note,
            overflow="fold" if is_note else "ellipsis",
            max_width=most if is_note else None,
            justify="right" if kind == NUMBER else "left",
            vertical="top",
        )
    for row in rows:
        shown.add_row(*(Text(_fitted(cell, kind, most)) for cell, kind in zip(row, head.values(), strict=True)))
    out().print(shown)


def _fitted(cell: str, kind: str, most: int) -> str:
    if kind == NAME and len(cell) > most:
        return "…" + cell[1 - most :]
    return cut(cell, most) if kind == TEXT else cell


def _print_lines(head: Mapping[str, str], rows: Sequence[tuple[str, ...]]) -> None:
    """Return rows for a window in which they do not fit as columns: a line for each cell."""
    names = [name.replace("\n", " ") for name in head]
    wide = max(map(len, names))
    for row in rows:
        for name, cell in zip(names, row, strict=True):
            say(f"{name:<{wide}}  {cell}")
        say("")


def _share(widths: list[int], room: int) -> int:
    """Return the width at which texts are cut so that all fit; shorter ones leave space to the others."""
    left = sorted(widths)
    while left and left[0] * len(left) <= room:
        room -= left.pop(0)
    return room // len(left) if left else max(widths, default=0)


def say(text: str) -> None:
    """Print whole lines; control characters are escaped."""
    from rich.text import Text

    out().print(Text(printable(text, also="\n")), soft_wrap=True)


def hint(text: str) -> None:
    """Print a whole sentence to stderr, in one line."""
    from rich.text import Text

    err().print(Text(printable(text)), soft_wrap=True)


def print_json(data: object) -> None:
    """Print data as JSON, not limited to rich's width, because programs need all of it."""
    import json

    print(json.dumps(data, indent=2, default=str))


def confirm(question: str, *, yes: bool) -> None:
    """Ask for confirmation before a deletion, and end the command if the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Misuse("a confirmation is not possible here, because stdin is no terminal: add --yes to confirm")
    if not typer.confirm(question, err=True):
        raise Declined


@contextmanager
def telling(what_was_done: Callable[[], str]) -> Iterator[None]:
    """After Ctrl-C, print what was done until then."""
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedByUser(what_was_done()) from None


@contextmanager
def telling_what_is_left(cache: UnifiedCache) -> Iterator[None]:
    """After Ctrl-C, print how many entries were deleted and how many are left."""
    before = cache.stats()["entries"]

    def what_was_done() -> str:
        left = cache.stats()["entries"]
        return (
            f"{number_of(max(before - left, 0), 'entry')} deleted, {left:,} left. Blobs of deleted entries that are"
            " still there are removed by: cacheness verify --repair"
        )

    with telling(what_was_done):
        yield


@contextmanager
def progress() -> Iterator[Progress]:
    """Return a bar on stderr, if that is a terminal."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    spins = [SpinnerColumn()] if err().encoding.startswith("utf") else []  # its dots occur nowhere else
    columns: list[Any] = [*spins, BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn()]
    bar = Progress(*columns, console=err(), transient=True, disable=not err().is_terminal)
    if bar.disable:  # before version 14, rich ends it with an empty line
        yield bar
        return
    with bar:
        yield bar
