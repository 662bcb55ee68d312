"""The command about disputes: results that differed when they were computed again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cacheness.cli.endings import FOUND, CouldNot, Misuse
from cacheness.cli.options import AsJson, DryRun, Place, Yes, about_a_cache
from cacheness.cli.screen import confirm, hint, print_json, say
from cacheness.printable import printable
from cacheness.units import number_of

if TYPE_CHECKING:
    from cacheness.cache import UnifiedCache
    from cacheness.records import Dispute


@about_a_cache
def disputes(
    keys: Annotated[list[str] | None, typer.Argument(help="Keys, or their beginnings; all when none is given.")] = None,
    *,
    place: Place,
    keep: Annotated[
        Literal["old", "new"] | None,
        typer.Option(help="Serve what is stored again (old), or delete it, so that it is computed again (new)."),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """List results that differed when they were computed again, or settle their disputes.

    They are not served until then. Exit code 1 if there are any.
    """
    if dry_run and keep is None:
        raise Misuse("--dry-run is for --keep: without it, disputes are only listed")
    from cacheness.arguments import first_digits

    try:
        beginnings = [first_digits(key) for key in keys or ()]
    except ValueError as error:
        raise Misuse(str(error)) from None
    with place.opened() as cache:
        found = _chosen(cache.disputes(), beginnings)
        if keep is not None:
            settled = len(found) if dry_run else _settle(cache, found, keep, yes=yes)
            _tell(settled, keep, dry_run=dry_run, as_json=as_json)
            return
    if as_json:
        print_json([one.as_dict() for one in found])
    else:
        _print(found)
    raise typer.Exit(FOUND if found else 0)


def _chosen(found: list[Dispute], keys: list[str]) -> list[Dispute]:
    unknown = [key for key in keys if not any(one.cache_key.startswith(key) for one in found)]
    if unknown:
        raise CouldNot(f"there is no dispute about {', '.join(unknown)}: cacheness disputes lists all")
    return [one for one in found if not keys or any(one.cache_key.startswith(key) for key in keys)]


def _settle(cache: UnifiedCache, found: list[Dispute], keep: Literal["old", "new"], *, yes: bool) -> int:
    if keep == "new" and found:
        confirm(f"Delete {number_of(len(found), 'stored result')}, so that the next call computes again?", yes=yes)
    return sum(cache.settle(one.key, keep=keep) for one in found)


def _tell(disputes: int, keep: Literal["old", "new"], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json({"disputes": disputes, "keep": keep, "settled": not dry_run})
        return
    would = "would be " if dry_run else ""
    became = f"{would or 'is '}served again" if keep == "old" else f"{would or 'is '}deleted"
    say(f"{number_of(disputes, 'dispute')} {would}settled: what is stored {became}")


def _print(found: list[Dispute]) -> None:
    for one in found:
        at = one.as_dict()["at"]
        say(f"{one.cache_key}  {printable(one.function)}  {at:%Y-%m-%d %H:%M}")
        say(f"    {printable(one.detail)}")
    hint("No disputes." if not found else "cacheness disputes KEY --keep old|new decides; a refresh does, too")
