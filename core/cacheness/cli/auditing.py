"""The command that finds results which their keys do not decide: it repeats stored calls, and compares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import typer

from cacheness.cli.children import NotImportable, imported, in_a_child, named_by, tell
from cacheness.cli.endings import FOUND, Misuse
from cacheness.cli.options import TARGETS_HELP, AsJson, Place, about_a_cache
from cacheness.cli.screen import hint, print_json, say
from cacheness.errors import NotAudited
from cacheness.printable import printable

if TYPE_CHECKING:
    from cacheness.cache import UnifiedCache


class _AuditOptions(TypedDict):
    targets: list[str]
    sample: int


@about_a_cache
def audit(
    targets: Annotated[list[str], typer.Argument(help=TARGETS_HELP)],
    *,
    place: Place,
    sample: Annotated[
        int, typer.Option(help="Stored calls of each function that are made again, chosen at random.")
    ] = 200,
    as_json: AsJson = False,
) -> None:
    """Repeat stored calls with today's code, and compare, however long they take.

    It imports only the named modules, in a separate process. A result that differs is disputed: it
    is not served until `cacheness disputes` settles it. Exit code 1 if any differed.
    """
    if sample < 1:
        raise Misuse(f"--sample {sample} is not a number of calls to compare: give at least 1")
    given = _AuditOptions(targets=targets, sample=sample)
    found: list[dict[str, Any]] = in_a_child(place, audited_in, given, "the audit", patience=None)
    if as_json:
        print_json(found)
    else:
        _print(found)
    raise typer.Exit(FOUND if any(one["disputed"] for one in found) else 0)


def audited_in(cache: UnifiedCache, given: _AuditOptions) -> list[dict[str, Any]]:
    """Repeat the calls, in the process that imports the modules."""
    names = list(dict.fromkeys(name for target in given["targets"] for name in named_by(target, cache.functions())))
    found = []
    for number, name in enumerate(names):
        tell(name, number, len(names))
        found.append(_audited(cache, name, given["sample"], alone=len(names) == 1))
    return found


def _audited(cache: UnifiedCache, name: str, sample: int, *, alone: bool) -> dict[str, Any]:
    try:
        audited = cache.audit(imported(name), sample=sample)
    except (NotAudited, NotImportable) as error:
        why = str(error) or f"{name.replace(':', '.')} is {getattr(error, 'state', '')}"
        if alone:
            raise NotAudited(why) from error
        return {"function": name, "disputed": {}, "why": why, "sentence": why}
    return audited.as_dict() | {"sentence": audited.sentence()}


def _print(found: Sequence[Mapping[str, Any]]) -> None:
    for one in found:
        say(f"{printable(one['function'])}  {printable(one['sentence'])}")
        for line in _details(one):
            say(f"    {printable(line)}")
    if any(one["disputed"] for one in found):
        hint("cacheness disputes KEY --keep old|new decides about each")


def _details(one: Mapping[str, Any]) -> Iterator[str]:
    for key, detail in one["disputed"].items():
        yield f"{key}  {detail}"
    if one.get("skipped"):
        yield "not compared: " + "; ".join(f"{count:,} {why}" for why, count in one["skipped"].items())
