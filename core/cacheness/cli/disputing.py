"""The command about results that came out differently when they were computed again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cacheness.cli.endings import FOUND, Misuse
from cacheness.cli.options import AsJson, Place, Yes, about_a_cache
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
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """List results that came out differently when they were computed again, or decide about them.

    They are not served until then. Exit code 1 where there are any.
    """
    with place.opened() as cache:
        found = _chosen(cache.disputes(), keys or [])
        if keep is not None:
            _settle(cache, found, keep, yes=yes)
            return
    if as_json:
        print_json([one.as_dict() for one in found])
    else:
        _print(found)
    raise typer.Exit(FOUND if found else 0)


def _chosen(found: list[Dispute], keys: list[str]) -> list[Dispute]:
    unknown = [key for key in keys if not any(one.cache_key.startswith(key) for one in found)]
    if unknown:
        raise Misuse(f"there is no dispute about {', '.join(unknown)}: cacheness disputes lists those that there are")
    return [one for one in found if not keys or any(one.cache_key.startswith(key) for key in keys)]


def _settle(cache: UnifiedCache, found: list[Dispute], keep: Literal["old", "new"], *, yes: bool) -> None:
    if keep == "new" and found:
        confirm(f"Delete {number_of(len(found), 'stored result')}, so that the next call computes again?", yes=yes)
    settled = sum(cache.settle(one.key, keep=keep) for one in found)
    say(f"{settled:,} disputes settled: " + ("the stored results are served again" if keep == "old" else "deleted"))


def _print(found: list[Dispute]) -> None:
    for one in found:
        at = one.as_dict()["at"]
        say(f"{one.cache_key}  {printable(one.function)}  {at:%Y-%m-%d %H:%M}")
        say(f"    {printable(one.detail)}")
    hint("No disputes." if not found else "cacheness disputes KEY --keep old|new decides; a refresh does, too")
