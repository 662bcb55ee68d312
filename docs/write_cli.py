"""Writes docs/reference/cli.md from the commands: `make docs`. A test fails when the page is out of date."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from cacheness.cli.commands import app

PAGE = Path(__file__).parent / "reference/cli.md"
HEAD = """# The command line

Written from the commands by `make docs`; edit their docstrings instead.

Options name the cache; without them the `CACHENESS_…` variables do, otherwise it is `.cacheness`. `--json` prints data
instead of text. Into a pipe, each row is a line, with whole keys, and tabs between columns. Colours are not used there,
nor with `NO_COLOR`.

Commands that delete have `--dry-run`, and need a confirmation; `--yes` gives it, and is required if stdin is no
terminal. `verify` without `--repair` changes nothing. A filter without matches is no error: `list --function` shows
nothing, with exit code 0. With `CACHENESS_MODE=off` every command that reads or changes a cache ends with 3.

A function is named as `list` shows it, `module:name`, or as `module.name` or `name` alone, which may be several
functions; a module or a package names all functions in it. `delete` rejects a name that several functions have, unless
it is `module:`. `explain` and `import` need one function; for them and `accept`, one without results is `module:name`
or `module.name`. A key may be given by its first digits, at least four, in upper or lower case.

| exit code | |
|---|---|
| 0 | done |
| 1 | something was found: issues, a call that would miss, entries that were not copied; or you answered no |
| 2 | a wrong command: options, their combination, values, text that is not a key or that begins several |
| 3 | the command failed, or what it names does not exist or cannot be imported: a cache, key, module or file |
| 130 | after Ctrl-C; the message lists what was done until then, and there is none before a command began |
| 141 | the reader of the output has closed it, as `head` does; there is no message |

`cacheness --install-completion` completes commands and options in bash, zsh and fish.

| question | answer |
|---|---|
| does it work? | `cacheness doctor`, `cacheness verify` |
| what does it save? | `cacheness report`, `cacheness ui` |
| why did this miss? | `cacheness report --by reason`, `cacheness explain module:function --arg x=3` |
| what fills it? | `cacheness top` |
| what may I delete? | `cacheness top --by unused`, `cacheness evict --dry-run` |
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(f"\n{section}" for section in _sections(get_command(app)))


def _sections(group: Any) -> Iterator[str]:
    commands = dict(_commands(group))
    yield f"Commands: {', '.join(f'[{name}](#{_anchor(name)})' for name in commands)}.\n"
    for name, command in commands.items():
        arguments = "".join(f" {_argument(one)}" for one in command.params if one.param_type_name == "argument")
        yield f"## {name}\n\n`cacheness {name}{arguments} [OPTIONS]`\n\n{inspect.cleandoc(command.help)}\n"
        yield "| | |\n|---|---|\n" + "".join(map(_row, command.params))


def _anchor(name: str) -> str:
    return name.replace(" ", "-")


def _commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{before}{name} ")
        else:
            yield before + name, command


def _argument(parameter: Any) -> str:
    shown = (parameter.metavar or parameter.name.upper()).strip("{}")
    return shown if parameter.required else f"[{shown}]"


def _row(parameter: Any) -> str:
    is_argument = parameter.param_type_name == "argument"
    shown = _argument(parameter) if is_argument else ", ".join((*parameter.opts, *parameter.secondary_opts))
    if not is_argument and not parameter.is_flag:
        shown += " " + (parameter.metavar or parameter.name.upper())
    default = parameter.default
    said = f" Default: {default}." if default not in (None, False, ()) and not callable(default) else ""
    return f"| `{shown}` | {parameter.help or ''}{said} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
