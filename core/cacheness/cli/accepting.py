"""The command that keeps results over a change of code: accept by evidence, list, revoke."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, TypedDict

import typer

from cacheness.cli.children import NotImportable, imported, in_a_child, named_or_new
from cacheness.cli.endings import FOUND, CouldNot, Misuse
from cacheness.cli.options import TARGETS_HELP, AsJson, Place, about_a_cache
from cacheness.cli.screen import hint, print_json, say
from cacheness.errors import CachenessError, NotAccepted
from cacheness.printable import printable

if TYPE_CHECKING:
    from cacheness.cache import UnifiedCache

_SECOND: Final = 1_000_000  #: microseconds


class _AcceptOptions(TypedDict):
    targets: list[str]
    sample: int
    former: str | None
    renamed: dict[str, str]
    upgrade: str
    python: bool
    force: bool


@about_a_cache
def accept(
    targets: Annotated[list[str] | None, typer.Argument(help=TARGETS_HELP)] = None,
    *,
    place: Place,
    sample: Annotated[
        int, typer.Option(help="Calls of each earlier code that are made again, chosen at random.")
    ] = 200,
    former: Annotated[
        str | None,
        typer.Option(help="What the function was called before, module:name, where its code changed, too."),
    ] = None,
    renamed: Annotated[
        list[str] | None, typer.Option(help="A parameter that has another name now: NEW=OLD. May be repeated.")
    ] = None,
    upgrade: Annotated[
        str, typer.Option(help="Accept only where nothing but the version of this distribution changed.")
    ] = "",
    python: Annotated[bool, typer.Option("--python", help="… nothing but the version of Python.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Accept also where lines never ran, or few calls can be made again.")
    ] = False,
    show: Annotated[bool, typer.Option("--list", help="List what was accepted, is being tried, or was ended.")] = False,
    revoke: Annotated[str | None, typer.Option(help="The id of a change, whose results stop counting at once.")] = None,
    as_json: AsJson = False,
) -> None:
    """Let results of earlier code count, if repeated stored calls are equal with today's code.

    Calls are repeated in a separate process that imports only the named modules; with --upgrade or
    --python, and no name, the modules in this folder. Exit code 1 if something was rejected.
    """
    if show or revoke is not None:
        if targets or (show and revoke is not None):
            raise Misuse("--list and --revoke take nothing else: cacheness accept --list")
        _look_after(place, revoke, as_json=as_json)
        return
    if not targets and not upgrade and not python:
        raise Misuse("name a function, a module or a package, or what was upgraded: cacheness accept pipeline.clean")
    if sample < 1:
        raise Misuse(f"--sample {sample} is not a number of calls to compare: give at least 1")
    given = _AcceptOptions(
        targets=targets or [],
        sample=sample,
        former=former,
        renamed=dict(map(_pair, renamed or [])),
        upgrade=upgrade,
        python=python,
        force=force,
    )
    found: list[dict[str, Any]] = in_a_child(place, accepted_in, given, "the comparison", patience=None)
    if as_json:
        print_json(found)
    else:
        _print(found)
    raise typer.Exit(FOUND if any(one["state"] == "refused" for one in found) else 0)


def accepted_in(cache: UnifiedCache, given: _AcceptOptions) -> list[dict[str, Any]]:
    """Compare and accept, in the process that imports the modules."""
    names = list(dict.fromkeys(_names(cache, given)))
    found: list[dict[str, Any]] = []
    for name in names:
        try:
            changes = cache.accept(
                imported(name),
                sample=given["sample"],
                former=given["former"],
                renamed=given["renamed"],
                upgrade=given["upgrade"],
                python=given["python"],
                force=given["force"],
            )
        except NotImportable as error:
            found.append(_refused(name, str(error) or f"it is {error.state}"))
        except NotAccepted as error:
            if len(names) == 1:
                raise
            if "was made by earlier code" not in str(error):  # most functions of a whole module have not changed
                found.append(_refused(name, str(error)))
        else:
            found += [_shown(change.as_dict(), change.sentence()) for change in changes]
    return found


def _names(cache: UnifiedCache, given: _AcceptOptions) -> Iterator[str]:
    known = cache.functions()
    if not given["targets"]:
        yield from (name for name in known if _is_here(name))
    for target in given["targets"]:
        yield from named_or_new(target, known)  # under its current name it may have no results yet


def _is_here(name: str) -> bool:
    """Return True when a module is in this folder, so that it belongs to the project."""
    top = name.partition(":")[0].partition(".")[0]
    return top != "__main__" and any(
        os.path.exists(os.path.join(folder, top + end)) for folder in (".", "src") for end in ("", ".py")
    )


def _pair(text: str) -> tuple[str, str]:
    new, equals, old = text.partition("=")
    if not (new and equals and old):
        raise Misuse(f"--renamed {text} is not a pair: NEW=OLD")
    return new, old


def _refused(name: str, why: str) -> dict[str, Any]:
    return {"function": name, "was": name, "state": "refused", "why": why, "sentence": f"refused: {why}"}


def _shown(change: Mapping[str, Any], sentence: str) -> dict[str, Any]:
    return {**change, "sentence": sentence}


def _look_after(place: Place, revoke: str | None, *, as_json: bool) -> None:
    with place.opened() as cache:
        if revoke is not None:
            if not _is_revoked(cache, revoke):
                raise CouldNot(f"no accepted change begins with {revoke}, or it is revoked: cacheness accept --list")
            say(
                f"{revoke} is revoked: results of that code no longer count, until a person accepts it again. None was"
                " deleted"
            )
            return
        found = [_shown(one.as_dict(), one.sentence()) for one in cache.accepted_changes()]
    if as_json:
        print_json(found)
    else:
        _print(found)


def _is_revoked(cache: UnifiedCache, change: str) -> bool:
    if not change.strip():
        raise Misuse("--revoke is empty: give the id of a change, as cacheness accept --list shows it")
    try:
        return cache.revoke(change)
    except CachenessError:  # some are ValueErrors
        raise
    except ValueError as error:
        raise Misuse(str(error)) from None


def _print(found: Sequence[Mapping[str, Any]]) -> None:
    for one in found:
        name = one["function"] if one["was"] == one["function"] else f"{one['function']}, which was {one['was']}"
        say(f"{printable(name)}  {printable(one['sentence'])}")
        for line in _details(one):
            say(f"    {printable(line)}")
    hint("" if found else "Nothing was made by earlier code, or accepted.")


def _details(one: Mapping[str, Any]) -> Iterator[str]:
    if one["state"] == "accepted":
        yield f"id {one['id']}, {_day(one['created_at'])} to {_day(one['until'])}, by {one['by']}"
    elif one.get("id") and one["state"] != "refused":
        yield f"id {one['id']}"
    if one["state"] == "accepted" and one.get("not_in_graphs"):
        yield f"tasks of Dask's graphs compute: {one['not_in_graphs']}"
    if one.get("changes"):
        yield f"changed: {'; '.join(one['changes'])}"
    if one.get("parameters"):
        yield "parameters: " + "; ".join(f"`{name}` {words}" for name, words in one["parameters"].items())
    if one.get("unrun"):
        yield "never ran: " + "; ".join(f"{name} {', '.join(map(str, some))}" for name, some in one["unrun"].items())
    if one.get("skipped"):
        yield "not compared: " + "; ".join(f"{count:,} {why}" for why, count in one["skipped"].items())
    if one.get("not_watched"):
        yield f"not watched: {'; '.join(one['not_watched'])}"


def _day(microseconds: int) -> str:
    return f"{datetime.fromtimestamp(microseconds / _SECOND, UTC):%Y-%m-%d}"
