"""The command that says what an edit costs, before anything runs."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cacheness.cli.endings import FOUND, Misuse
from cacheness.cli.options import AsJson, Place, about_a_cache
from cacheness.cli.screen import hint, out, print_json, printable
from cacheness.errors import CachenessError

if TYPE_CHECKING:
    from cacheness.cache import UnifiedCache
    from cacheness.memoize.plan import FunctionPlan

#: Seconds in which the modules that are named must be imported.
PATIENCE: Final = 60.0
_COLUMNS: Final = ("function", "state", "served", "stale", "stale bytes", "hours at stake", "what changed")
_CHILD: Final = "from cacheness.cli.planning import child; child()"


@about_a_cache
def plan(
    targets: Annotated[list[str], typer.Argument(help="Modules, packages or functions: pipeline, pipeline.clean.")],
    *,
    place: Place,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table, for a pull request.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say which results the code of today would serve, and which it would compute again, with what they cost.

    Imports the modules that are named, in a process of its own, and no others. Exit code 1 where a result is stale.
    """
    found = _in_a_child(place, targets)
    if as_json:
        print_json(found)
    elif markdown:
        print("\n".join(_markdown(found)))
    else:
        _print_table(found)
    raise typer.Exit(FOUND if any(one["stale"] for one in found) else 0)


def _in_a_child(place: Place, targets: Sequence[str]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "plan.json"  # what modules print while they are imported is not shown
        told = pickle.dumps((place.config(), list(targets), str(answer)))
        try:
            command = [sys.executable, "-c", _CHILD]
            done = subprocess.run(command, input=told, capture_output=True, timeout=PATIENCE, check=False)
        except subprocess.TimeoutExpired:
            raise CachenessError(f"{', '.join(targets)} took more than {PATIENCE:.0f} s to import") from None
        if not answer.exists():
            last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise CachenessError(f"the plan of {', '.join(targets)} could not be made: {last}")
        found = json.loads(answer.read_text())
    if "misuse" in found:
        raise Misuse(found["misuse"])
    plans: list[dict[str, Any]] = found["plans"]
    return plans


def child() -> None:
    """Make the plan, in the process that imports the modules."""
    from cacheness.cache import UnifiedCache

    config, targets, answer = pickle.load(sys.stdin.buffer)
    sys.path.insert(0, os.getcwd())
    with UnifiedCache(config) as cache:
        try:
            names = dict.fromkeys(name for target in targets for name in _named_by(target, cache.functions()))
            found: dict[str, Any] = {"plans": [one.as_dict() for name in names for one in _plans(cache, name)]}
        except Misuse as error:
            found = {"misuse": str(error)}
    Path(answer).write_text(json.dumps(found))


def _named_by(target: str, known: Sequence[str]) -> list[str]:
    """The functions with results that a target names: all in a module or package, or one."""
    dotted = target.replace(":", ".")
    found = [n for n in known if (n.replace(":", ".") + ".").startswith(dotted + ".")]
    if not found:
        raise Misuse(f"no function of {target} has results: cacheness list shows what has")
    return found


def _plans(cache: UnifiedCache, name: str) -> Iterator[FunctionPlan]:
    module, _, qualname = name.partition(":")
    if module == "__main__" or "<locals>" in qualname or not qualname:
        yield cache.plan_without_code(name, "not importable")
        return
    try:
        imported = importlib.import_module(module)
    except Exception as error:  # noqa: BLE001  the user's own code
        why = f"{module} cannot be imported: {type(error).__name__}: {error}"
        yield cache.plan_without_code(name, "not importable", why)
        return
    try:
        function: Any = reduce(getattr, qualname.split("."), imported)
    except AttributeError:
        yield cache.plan_without_code(name, "gone")
        return
    yield from cache.plan(function)


def _cells(one: dict[str, Any]) -> tuple[str, ...]:
    hours = one["stale_seconds"] / 3600
    numbers = (f"{one['results']:,}", f"{one['stale']:,}", f"{one['stale_bytes']:,}", f"{hours:.2f}")
    return (printable(one["function"]), one["state"], *numbers, printable("; ".join(one["changes"])))


def _markdown(found: list[dict[str, Any]]) -> list[str]:
    head = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    return head + ["| " + " | ".join(cell.replace("|", "\\|") for cell in _cells(one)) + " |" for one in found]


def _print_table(found: list[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None)
    for column in _COLUMNS:
        table.add_column(column, overflow="fold")
    for one in found:
        table.add_row(*map(Text, _cells(one)))
    out.print(table)
    stale = sum(one["stale"] for one in found)
    hours = sum(one["stale_seconds"] for one in found) / 3600
    hint(f"{stale:,} results would be computed again, about {hours:.2f} hours" if stale else "Nothing is stale.")
