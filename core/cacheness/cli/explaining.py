"""The command that explains why a call would miss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cacheness.cli.argument_texts import named_text, values_of
from cacheness.cli.children import NotImportable, imported, in_a_child, one_named
from cacheness.cli.endings import FOUND, CouldNot, Misuse
from cacheness.cli.options import FUNCTION_HELP, AsJson, Place, about_a_cache
from cacheness.cli.screen import print_json, say
from cacheness.errors import UnhashableArgument
from cacheness.printable import printable

if TYPE_CHECKING:
    from cacheness.cache import UnifiedCache


@about_a_cache
def explain(
    function: Annotated[str, typer.Argument(help=f"One {FUNCTION_HELP}; it is not called.")],
    *,
    place: Place,
    arg: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A Python literal, or text; converted to the type of the parameter."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show why a call would miss, or that it would hit. Exit code 1 when it would miss.

    It imports only the named module, in a separate process.
    """
    arguments = dict(map(named_text, arg or ()))
    answer = in_a_child(place, explained_in, (function, arguments), "the explanation", patience=None)
    if as_json:
        print_json(answer["data"])
    else:
        for line in answer["lines"]:
            say(printable(line))
    if not answer["data"]["hit"]:
        raise typer.Exit(FOUND)


def explained_in(cache: UnifiedCache, given: tuple[str, dict[str, str]]) -> dict[str, Any]:
    """Explain a call, in the process that imports the module."""
    import json

    from cacheness.memoize import Cached

    target, texts = given
    found = _imported(cache, target)
    arguments = values_of(texts, found)
    own = found if isinstance(found, Cached) else None
    try:
        # A function that is cached elsewhere is compared with this cache, with its own options.
        asked = found if own is None else type(own)(cache, own.__wrapped__, own.options)
        answer = cache.explain(asked, **arguments)
    except UnhashableArgument:
        raise
    except TypeError as error:
        raise Misuse(f"{target} cannot be called so: {error}") from None
    return {"data": json.loads(json.dumps(answer.as_dict(), default=str)), "lines": str(answer).splitlines()}


def _imported(cache: UnifiedCache, target: str) -> Any:
    name = one_named(target, cache.functions())
    try:
        found = imported(name)
    except NotImportable as error:
        module, _, path = name.partition(":")
        why = f"there is no {path} in {module}" if error.state == "gone" else f"{module} is not a module of a file"
        raise CouldNot(str(error) or f"{name} cannot be imported: {why}") from None
    if not callable(found):
        raise CouldNot(f"{name} is not a function")
    return found
