"""Build statements and table definitions for SQLite, with SQLAlchemy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert, pysqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from cacheness.metadata.sql.building import StatementBuilder, one_line
from cacheness.metadata.sql.statements import Statement
from cacheness.metadata.sql.tables import tables

_dialect: Final = pysqlite.dialect(paramstyle="named")

CLOCK: Final[sa.ColumnElement[int]] = sa.literal_column(
    "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)", sa.BigInteger
)


#: Split one value into keys, which all have one width.
_EACH_KEY: Final = (
    "WITH RECURSIVE at(i) AS (SELECT 0 WHERE length(:keys) > 0 UNION ALL"
    " SELECT i + 1 FROM at WHERE (i + 2) * :width <= length(:keys))"
    " SELECT substr(:keys, 1 + i * :width, :width) AS key FROM at"
)


class _Sqlite:
    """SQL specific to SQLite."""

    clock = CLOCK
    # The same clock, to the microsecond.
    now: sa.ColumnElement[int] = sa.bindparam("now", type_=sa.BigInteger())
    slot: sa.ColumnElement[int] = sa.literal_column("0", sa.Integer)  # there is one writer at a time

    def compile(self, statement: sa.ClauseElement) -> Statement:
        """Named placeholders, a dictionary of values."""
        compiled = statement.compile(dialect=_dialect)
        constants = {name: value for name, value in compiled.params.items() if value is not None}
        return Statement(one_line(compiled), constants, ())

    def upsert(self, table: sa.Table) -> Any:
        """INSERT … ON CONFLICT."""
        return insert(table)

    def among(self, column: sa.ColumnElement[Any], width: int) -> sa.ColumnElement[bool]:
        """The keys are passed as one value: SQLite has no arrays, and limits the number of parameters."""
        return column.in_(sa.text(_EACH_KEY).bindparams(sa.bindparam("keys"), sa.bindparam("width", width)))

    def each(self, width: int) -> sa.FromClause:
        """The same value, as rows."""
        every = sa.text(_EACH_KEY).bindparams(sa.bindparam("keys"), sa.bindparam("width", width))
        return every.columns(sa.column("key", sa.LargeBinary)).subquery("given")

    def position(self, column: sa.ColumnElement[str], text: sa.ColumnElement[str]) -> sa.ColumnElement[int]:
        """LIKE would ignore case."""
        return sa.func.instr(column, text)


def definitions() -> Iterator[str]:
    """Return the statements that create a new database."""
    for table in tables.sorted_tables:
        yield one_line(CreateTable(table).compile(dialect=_dialect))
        for index in sorted(table.indexes, key=lambda index: index.name or ""):
            yield one_line(CreateIndex(index).compile(dialect=_dialect))


builder: Final = StatementBuilder(_Sqlite())
