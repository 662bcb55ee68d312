"""The command that shows where a result comes from."""

from __future__ import annotations

from typing import Annotated

import typer

from cacheness.cli.entries import entry_named
from cacheness.cli.options import AsJson, KeyArgument, Place, about_a_cache
from cacheness.cli.screen import hint, print_json, say
from cacheness.printable import printable


@about_a_cache
def lineage(
    key: KeyArgument,
    *,
    place: Place,
    up: Annotated[int, typer.Option(min=1, max=20, help="Steps that are followed.")] = 3,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a diagram in Mermaid's language.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the earlier results with the values from which a result was made."""
    with place.opened() as cache:
        found = cache.lineage(entry_named(cache, key).cache_key, up=up)
    if as_json:
        print_json(found.as_dict())
    elif mermaid:
        print(found.mermaid())
    else:
        for line in str(found).splitlines():
            say(printable(line))
        if not found.edges:
            hint("No argument is the value of a stored result, as far as is known.")
