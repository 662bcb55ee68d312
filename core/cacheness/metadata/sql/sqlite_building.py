"""Build statements and table definitions for SQLite, with SQLAlchemy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert, pysqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from cacheness.metadata.sql.building import (
    LIVE,
    StatementBuilder,
    named_key,
    one_line,
    plausible,
    replacing,
    this_key,
    this_session,
    unused,
)
from cacheness.metadata.sql.statements import COLUMNS, Statement
from cacheness.metadata.sql.tables import entries, sessions, tables, tags, uses

_dialect: Final = pysqlite.dialect(paramstyle="named")
#: For what a put runs for each entry: SQLite looks each name up, which takes as long as storing it.
_in_order: Final = pysqlite.dialect(paramstyle="qmark")

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


class _SqliteBuilder(StatementBuilder):
    """The statements that only SQLite runs."""

    def __init__(self) -> None:
        super().__init__(_Sqlite())

    @property
    def session_lives(self) -> Statement:
        """Return one row when a session is live."""
        return self._compile(sa.select(sessions.c.id).where(this_session(), sessions.c.state == LIVE))

    @property
    def replaced_by(self) -> Statement:
        """Read what a put of this key replaces; no row when the session is not live, and NULL where nothing is."""
        return self._compile(_replaced(this_key()))

    @property
    def replaced_by_many(self) -> Statement:
        """Read what a put of many keys replaces; no row when the session is not live."""
        here = entries.c.namespace == sa.bindparam("namespace", type_=sa.Text())
        return self._compile(_replaced(sa.and_(here, self.among_keys())))

    @property
    def put(self) -> Statement:
        """Insert or replace one entry; the transaction holds the writer's session."""
        values = {name: sa.bindparam(name, type_=entries.c[name].type) for name in COLUMNS}
        return _compiled_in_order(replacing(insert(entries).values(values)))

    @property
    def begin_use(self) -> Statement:
        """Record that an entry is new."""
        values = {"accessed_at": sa.bindparam("created_at", type_=sa.BigInteger()), "hits": sa.literal_column("0")}
        return _compiled_in_order(unused(insert(uses).values(**named_key(), **values)))

    @property
    def tag(self) -> Statement:
        """Record that an entry has a tag."""
        values = {name: sa.bindparam(name, type_=sa.Text()) for name in ("kind", "tag")}
        return self._compile(insert(tags).values(**named_key(), **values).on_conflict_do_nothing())


def _compiled_in_order(statement: sa.ClauseElement) -> Statement:
    compiled: Any = statement.compile(dialect=_in_order)
    return Statement(one_line(compiled), {}, tuple(compiled.positiontup))


def _replaced(these: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Return the size and blob of entries, where else their keys are named, and what decides whether they stay."""
    replaced = (entries.c.key, plausible(entries.c.size), entries.c.blob, entries.c.tags, entries.c.prefix)
    decides = (entries.c.link.is_(None), entries.c.created_at)
    found = sa.select(*replaced, *decides).select_from(sessions.outerjoin(entries, these))
    return found.where(this_session(), sessions.c.state == LIVE)


def definitions() -> Iterator[str]:
    """Return the statements that create a new database."""
    for table in tables.sorted_tables:
        yield one_line(CreateTable(table).compile(dialect=_dialect))
        for index in sorted(table.indexes, key=lambda index: index.name or ""):
            yield one_line(CreateIndex(index).compile(dialect=_dialect))


builder: Final = _SqliteBuilder()
