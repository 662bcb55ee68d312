"""Writes sqlite_texts.py and postgresql_texts.py: `make docs`. A test fails when one is out of date."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

from cacheness.metadata.sql import postgresql_building, sqlite_building
from cacheness.metadata.sql.building import StatementBuilder
from cacheness.metadata.sql.statements import Purpose, Statement, name_of_page
from cacheness.records import Where

BUILDING: Final[dict[str, ModuleType]] = {"sqlite": sqlite_building, "postgresql": postgresql_building}
_HEAD: Final = '''"""The statements for {} that run every day. Written by `make docs`: change building.py and {}_building.py instead."""

from __future__ import annotations

from typing import Final

from cacheness.metadata.sql.statements import Statement

'''
_WIDTH: Final = 100
#: Which pages come with calls for one result, or are deleted beside a put. Surveys, and deleting by a condition
#: of a user, are built when they are wanted.
_PAGES: Final[tuple[tuple[Purpose, Where], ...]] = (
    ("scan", Where("")),
    ("newest", Where("")),
    ("newest", Where("", functions=("",))),
    ("lead", Where("", expired=True)),
    ("doom", Where("")),
    ("doom", Where("", keys=())),
    ("doom", Where("", keys=(), expired=True)),
    ("doom what is free", Where("", keys=(), expired=True)),
    ("doom what is free", Where("", keys=(), created_before=0)),
)


def path_of(database: str) -> Path:
    """Where the texts of a database stand."""
    return Path(__file__).parent / f"{database}_texts.py"


def module_of(database: str) -> str:
    """The text of the module with the texts of a database."""
    building = BUILDING[database]
    statements = "".join(f"    {line}\n" for line in _each(building.builder))
    definitions = "".join(f"    {line}\n" for text in building.definitions() for line in _quoted(text, ","))
    head = _HEAD.format({"sqlite": "SQLite", "postgresql": "PostgreSQL"}[database], database)
    defined = f"#: What makes a fresh database.\nDEFINITIONS: Final = (\n{definitions})\n"
    return f"{head}STATEMENTS: Final = {{\n{statements}}}\n\n{defined}"


def statements_of(builder: StatementBuilder) -> Iterator[tuple[str, Statement]]:
    """The statements of every day, by name."""
    kinds = reversed(type(builder).__mro__)
    for name in (name for kind in kinds for name, value in vars(kind).items() if isinstance(value, property)):
        yield name, getattr(builder, name)
    for purpose, where in _PAGES:
        yield name_of_page(purpose, where), builder.page(purpose, where)


def _each(builder: StatementBuilder) -> Iterator[str]:
    for name, statement in statements_of(builder):
        yield f"{name!r}: Statement("
        yield from (f"    {line}" for line in _quoted(statement.text, ","))
        yield f"    {dict(statement.constants)!r},"
        yield from (f"    {line}" for line in _wrapped(repr(statement.order)))
        yield "),"


def _quoted(text: str, end: str) -> Iterable[str]:
    *lines, last = _wrapped(text)
    return (*(repr(f"{line} ") for line in lines), repr(last) + end)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    for database in BUILDING:
        path_of(database).write_text(module_of(database))
