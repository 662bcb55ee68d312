"""What a command shows: text that cannot steer the terminal, JSON, questions, and how far it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache as once
from typing import TYPE_CHECKING, Any

import typer

from cacheness.cli.endings import Misuse, StoppedByUser
from cacheness.printable import cut, printable
from cacheness.units import number_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from cacheness.cache import UnifiedCache


@once
def out() -> Console:
    """Where results go. Imported late, as all of rich: the help needs none of it."""
    from rich.console import Console

    return Console(highlight=False)


@once
def err() -> Console:
    """Where hints, errors and progress go."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def short(text: str, most: int | None) -> str:
    """Printable text, cut at so many characters."""
    return printable(text) if most is None else cut(printable(text[: most + 1]), most)


def function_named(name: str, most: int | None = None) -> str:
    """A function's name, or its end where that is too long: modules begin alike."""
    name = printable(name[-1000:]) or "-"
    return name if most is None or len(name) <= most else "…" + name[1 - most :]


def table(head: dict[str, bool], rows: list[tuple[str, ...]]) -> None:
    """Rows under a head, whose columns are numbers where it says so; whole and between tabs where nobody looks."""
    if not out().is_terminal:
        for row in rows:
            print("\t".join(row))
        return
    from rich.table import Table
    from rich.text import Text

    widths = [max(len(row[at]) for row in [tuple(head), *rows]) for at in range(len(head))]
    texts = [widths[at] for at, name in enumerate(head) if not head[name]]
    most = max(8, _share(texts, out().width - sum(widths) + sum(texts) - 2 * len(head)))
    shown = Table(box=None)
    for name, is_number in head.items():
        shown.add_column(name, no_wrap=True, overflow="ellipsis", justify="right" if is_number else "left")
    for row in rows:
        shown.add_row(*(Text(cell if len(cell) <= most else "…" + cell[1 - most :]) for cell in row))
    out().print(shown)


def _share(widths: list[int], room: int) -> int:
    """The width at which texts are cut so that all fit, where those that are shorter leave room to the others."""
    left = sorted(widths)
    while left and left[0] * len(left) <= room:
        room -= left.pop(0)
    return room // len(left) if left else max(widths, default=0)


def say(text: str) -> None:
    """Print a sentence, whole."""
    from rich.text import Text

    out().print(Text(text), soft_wrap=True)


def hint(text: str) -> None:
    """Print a sentence to stderr, whole."""
    from rich.text import Text

    err().print(Text(text), soft_wrap=True)


def print_json(data: object) -> None:
    """Print data as JSON, not through rich's width: what reads it wants it whole."""
    import json

    print(json.dumps(data, indent=2, default=str))


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is deleted, and end the command where the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Misuse("nobody can be asked here, because stdin is no terminal: add --yes if you mean it")
    typer.confirm(question, abort=True, err=True)


@contextmanager
def telling(what_was_done: Callable[[], str]) -> Iterator[None]:
    """After Ctrl-C, say what was done until then."""
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedByUser(what_was_done()) from None


@contextmanager
def telling_what_is_left(cache: UnifiedCache) -> Iterator[None]:
    """After Ctrl-C, say how many entries were deleted and how many are left."""
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
    """A bar on stderr, where that is a terminal."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns: list[Any] = [SpinnerColumn(), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn()]
    bar = Progress(*columns, console=err(), transient=True, disable=not err().is_terminal)
    if bar.disable:  # before version 14, rich ends it with an empty line
        yield bar
        return
    with bar:
        yield bar
