"""All commands, and how they end."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Annotated, Final, NoReturn

import typer

from cacheness.cli import (
    accepting,
    auditing,
    deleting,
    descent,
    disputing,
    entries,
    explaining,
    figures,
    importing,
    keys,
    page,
    planning,
    stores,
)
from cacheness.cli.endings import (
    COULD_NOT,
    FOUND,
    INTERRUPTED,
    MISUSE,
    UNREAD,
    CouldNot,
    Declined,
    Misuse,
    StoppedByUser,
)
from cacheness.cli.screen import err, hint, say
from cacheness.errors import CachenessError
from cacheness.printable import printable

app: Final = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help, which appears without delay
    help="Inspect a cache, delete from it, repair it, copy it, migrate its database.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
# In the order of the help. A module imports what its commands need inside them.
app.command("list")(entries.list_entries)
app.command()(entries.show)
app.command()(explaining.explain)
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


def run() -> None:
    """Run a command; an expected error is one message and an exit code, never a traceback."""
    _make_writable()
    try:
        try:
            code = app(standalone_mode=False)
        finally:
            sys.stdout.flush()  # otherwise the interpreter finds the error at its end, and exits with another code
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):
            _end_unread()
        raise
    except Exception as error:
        code = _code_of(error)
        if code is None:
            raise
    if code == INTERRUPTED:
        hint("interrupted; nothing is half done, so it can be run again")
    sys.exit(code)


def _code_of(error: Exception) -> int | None:
    """Print an error, and return the exit code; None for an unexpected one."""
    if isinstance(error, BrokenPipeError):
        _end_unread()
    if isinstance(error, StoppedByUser):
        hint(f"interrupted: {error}")
        sys.exit(INTERRUPTED)
    if isinstance(error, typer.Abort):  # Ctrl-C, or the end of input, at a question
        hint("nothing was done")
        sys.exit(FOUND if isinstance(error.__context__, EOFError) else INTERRUPTED)
    if isinstance(error, Declined):
        hint("nothing was done")
        return FOUND
    if isinstance(error, OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # buffered output cannot be written at the end either
        _say_error(f"the output could not be written: {error.strerror}")
        return COULD_NOT
    if (show := getattr(error, "show", None)) is not None:  # of the command line's library
        text = io.StringIO()
        show(file=text)
        with suppress(OSError):  # nothing can be said there
            sys.stderr.write(printable(text.getvalue(), also="\n"))  # typed text may control a terminal
        return MISUSE
    if isinstance(error, Misuse | CachenessError | CouldNot):
        _say_error(str(error))
        return MISUSE if isinstance(error, Misuse) else COULD_NOT
    return None


def _make_writable() -> None:
    """Make outputs accept every character, and exist: the number of a closed one would be given to a database."""
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115  for good
        stream = getattr(sys, name)
        if number and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _end_unread() -> NoReturn:
    """End like other tools whose reader has closed the pipe: as by SIGPIPE, without a message."""
    for number in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    sys.exit(UNREAD)


def _say_error(message: str) -> None:
    from rich.text import Text

    with suppress(OSError):  # nothing can be said there
        err().print(Text.assemble(("error: ", "bold red"), printable(message)), soft_wrap=True)
