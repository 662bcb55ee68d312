"""The command line: look at a cache, delete from it, repair it, copy it, migrate its database.

Exit codes: 0, 1 when something was found (issues, entries that were not copied), 2 for a command that
cannot be meant so, 3 when it could not be done, 130 after Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Final

import typer

from cacheness.cli import (
    accepting,
    auditing,
    deleting,
    descent,
    disputing,
    entries,
    figures,
    importing,
    keys,
    page,
    planning,
    stores,
)
from cacheness.cli.endings import COULD_NOT, INTERRUPTED, MISUSE, CouldNot, Misuse, StoppedByUser
from cacheness.cli.screen import err, hint, say
from cacheness.errors import CachenessError

app: Final = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help, which needs no second to appear
    help=__doc__.partition("\n")[0],
    context_settings={"help_option_names": ["-h", "--help"]},
)
# In the order of the help. A module imports what its commands need within them.
app.command("list")(entries.list_entries)
app.command()(entries.show)
app.command()(entries.explain)
app.command()(figures.report)
app.command()(entries.top)
app.command()(figures.stats)
app.command()(deleting.delete)
app.command()(deleting.evict)
app.command()(deleting.clear)
app.command()(stores.verify)
app.command()(auditing.audit)
app.command()(disputing.disputes)
app.command()(planning.plan)
app.command()(accepting.accept)
app.command()(descent.lineage)
app.command()(stores.copy)
app.command("import")(importing.take_over)
app.command()(stores.migrate)
app.command()(stores.adopt)
app.add_typer(keys.app, name="keys")
app.command()(figures.doctor)
app.command()(page.ui)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        say(f"cacheness {version('cacheness')}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options before a command."""


def main() -> None:
    """Run a command; expected trouble is one sentence and an exit code, never a traceback."""
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # or the interpreter finds out at its end, and says so with a code of its own
    except Misuse as error:
        _fail(str(error), MISUSE)
    except (CachenessError, CouldNot) as error:
        _fail(str(error), COULD_NOT)
    except StoppedByUser as error:
        hint(f"interrupted: {error}")
        sys.exit(INTERRUPTED)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            hint("interrupted; nothing is half done, so it can be run again")
        if isinstance(end.__context__, BrokenPipeError):
            sys.exit(COULD_NOT)  # who read the output has closed it, and typer's 1 means that something was found
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left of the output cannot be written at the end either
        _fail(f"the output could not be written: {error.strerror}", COULD_NOT)


def _fail(message: str, code: int) -> None:
    from rich.text import Text

    err().print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)
    sys.exit(code)
