"""The command that shows the cost of an edit, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cacheness.cli.children import NotImportable, imported, in_a_child, named_by
from cacheness.cli.endings import FOUND
from cacheness.cli.options import TARGETS_HELP, AsJson, Place, about_a_cache
from cacheness.cli.screen import NAME, NOTE, NUMBER, WHOLE, hint, print_json, table
from cacheness.printable import printable
from cacheness.units import number_of

if TYPE_CHECKING:
    from cacheness.cache import UnifiedCache
    from cacheness.memoize.plan import FunctionPlan

#: Seconds in which the named modules must be imported.
PATIENCE: Final = 60.0
_COLUMNS: Final = ("function", "state", "served", "stale", "stale\nbytes", "hours\nat stake", "why")


@about_a_cache
def plan(
    targets: Annotated[list[str], typer.Argument(help=TARGETS_HELP)],
    *,
    place: Place,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table, for a pull request.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show which results today's code would serve, and which it would compute again, with their cost.

    Imports only the named modules, in a separate process. Exit code 1 if a result is stale.
    """
    found: list[dict[str, Any]] = in_a_child(place, plans_in, list(targets), "the plan", patience=PATIENCE)
    if as_json:
        print_json(found)
    elif markdown:
        print("\n".join(_markdown(found)))
    else:
        _print_table(found)
    raise typer.Exit(FOUND if any(one["stale"] for one in found) else 0)


def plans_in(cache: UnifiedCache, targets: Sequence[str]) -> list[dict[str, Any]]:
    """Make the plans, in the process that imports the modules."""
    names = dict.fromkeys(name for target in targets for name in named_by(target, cache.functions()))
    return [one.as_dict() for name in names for one in _plans(cache, name)]


def _plans(cache: UnifiedCache, name: str) -> Iterator[FunctionPlan]:
    try:
        function = imported(name)
    except NotImportable as error:
        yield cache.plan_without_code(name, error.state, str(error))
    else:
        yield from cache.plan(function)


def _cells(one: dict[str, Any]) -> tuple[str, ...]:
    hours = one["stale_seconds"] / 3600
    numbers = (f"{one['results']:,}", f"{one['stale']:,}", f"{one['stale_bytes']:,}", f"{hours:.2f}")
    return (printable(one["function"]), one["state"], *numbers, printable("; ".join(one["changes"])))


def _markdown(found: list[dict[str, Any]]) -> list[str]:
    head = ["| " + " | ".join(_COLUMNS).replace("\n", " ") + " |", "|" + "---|" * len(_COLUMNS)]
    return head + ["| " + " | ".join(cell.replace("|", "\\|") for cell in _cells(one)) + " |" for one in found]


def _print_table(found: list[dict[str, Any]]) -> None:
    kinds = (NAME, WHOLE, NUMBER, NUMBER, NUMBER, NUMBER, NOTE)
    table(dict(zip(_COLUMNS, kinds, strict=True)), list(map(_cells, found)), _COLUMNS[4:6])
    stale = sum(one["stale"] for one in found)
    hours = sum(one["stale_seconds"] for one in found) / 3600
    hint(
        f"{number_of(stale, 'result')} would be computed again, about {hours:.2f} hours"
        if stale
        else "Nothing is stale."
    )
