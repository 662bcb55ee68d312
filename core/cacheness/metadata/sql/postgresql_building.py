"""Build statements and table definitions for PostgreSQL, with SQLAlchemy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.schema import CreateIndex, CreateTable

from cacheness.metadata.sql.building import (
    LIVE,
    Flavour,
    StatementBuilder,
    adding,
    one_line,
    plausible,
    replacing,
    unused,
)
from cacheness.metadata.sql.schema import POSTGRESQL_SCHEMA
from cacheness.metadata.sql.statements import COLUMNS, HINT_LENGTH, Statement
from cacheness.metadata.sql.tables import (
    ACTIVITY_APART,
    PARTIAL_INDEXES,
    entries,
    leases,
    sessions,
    tables,
    tags,
    tombstones,
    totals,
    uses,
)
from cacheness.records import MICROSECONDS

LEASE_SECONDS: Final = 300
CLOCK_TOLERANCE: Final = 60 * MICROSECONDS  #: between a fresh entry's time and the server's
# Numbered placeholders are sent to the server unchanged; psycopg would otherwise translate each statement.
_dialect: Final = PGDialect_psycopg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]
for _index in (*PARTIAL_INDEXES, ACTIVITY_APART):
    _index.dialect_options["postgresql"]["where"] = _index.dialect_options["sqlite"]["where"]
#: Free space on each page, so that an updated row fits on the same page and no index has to change.
ROOM_FOR_USES: Final = f"ALTER TABLE {POSTGRESQL_SCHEMA}.uses SET (fillfactor = 80)"
_translated: Final[Any] = {"schema_translate_map": {None: POSTGRESQL_SCHEMA}, "render_schema_translate": True}


# The time of the call: now() would be the start of the transaction.
CLOCK: Final[sa.ColumnElement[int]] = sa.literal_column(
    "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint", sa.BigInteger
)


class _Postgresql:
    """SQL specific to PostgreSQL."""

    clock = now = CLOCK
    # By the server process that runs this statement, behind a pooler too. With one slot per client
    # process, its threads would wait for each other's sync.
    slot: sa.ColumnElement[int] = sa.literal_column("(pg_backend_pid() & 63)", sa.Integer)

    def compile(self, statement: sa.ClauseElement) -> Statement:
        """Numbered placeholders, a sequence of values."""
        compiled: Any = statement.compile(dialect=_dialect, **_translated)
        constants = {name: value for name, value in compiled.params.items() if value is not None}
        return Statement(one_line(compiled), constants, tuple(compiled.positiontup or ()))

    def upsert(self, table: sa.Table) -> Any:
        """INSERT … ON CONFLICT."""
        return insert(table)

    def among(self, column: sa.ColumnElement[Any], width: int) -> sa.ColumnElement[bool]:
        """The keys are passed as one array."""
        return column == sa.any_(sa.bindparam("keys", type_=postgresql.ARRAY(column.type)))

    def each(self, width: int) -> sa.FromClause:
        """The same array, as rows."""
        keys = sa.bindparam("keys", type_=postgresql.ARRAY(sa.LargeBinary))
        return sa.func.unnest(keys).table_valued(sa.column("key", sa.LargeBinary), name="given").render_derived()

    def position(self, column: sa.ColumnElement[str], text: sa.ColumnElement[str]) -> sa.ColumnElement[int]:
        """LIKE would need its wildcards escaped."""
        return sa.func.strpos(column, text)


class _PostgresqlBuilder(StatementBuilder):
    """The statements that only PostgreSQL runs."""

    def __init__(self) -> None:
        super().__init__(_Postgresql())

    @property
    def publish(self) -> Statement:
        """Put one entry, if its writer's session is live."""
        return self._compile(_publish(_given_row(), self.flavour, with_tags=False))

    @property
    def publish_tagged(self) -> Statement:
        """Put one entry with tags or a prefix."""
        return self._compile(_publish(_given_row(), self.flavour, with_tags=True))

    @property
    def publish_many(self) -> Statement:
        """Put many entries."""
        return self._compile(_publish(_given_rows(), self.flavour, with_tags=False))

    @property
    def publish_many_tagged(self) -> Statement:
        """Put many entries, some of them with tags or a prefix."""
        return self._compile(_publish(_given_rows(), self.flavour, with_tags=True))

    @property
    def begin_session(self) -> Statement:
        """Open a session with its first lease, in one round trip. `commit` sets how it is synced, if given."""
        name = sa.literal_column("'synchronous_commit'", sa.Text)
        how = sa.func.coalesce(sa.cast(sa.bindparam("commit"), sa.Text), sa.func.current_setting(name))
        setting = sa.select(sa.func.set_config(name, how, sa.true()).label("how")).cte(
            "setting"
        )  # until it is committed
        given = [sa.cast(sa.bindparam(c.name, type_=c.type), c.type) for c in sessions.c]
        row = sa.select(*given).select_from(setting)
        begun = insert(sessions).from_select([c.name for c in sessions.c], row).returning(sessions.c.id).cte("begun")
        return self._compile(insert(leases).from_select(["session", "until"], sa.select(begun.c.id, self._until())))

    @property
    def renew(self) -> Statement:
        """Extend a live session's lease. Reads the session's row and locks nothing of it."""
        live = sa.exists().where(sessions.c.id == leases.c.session, sessions.c.state == LIVE)
        mine = leases.c.session == sa.bindparam("its", type_=sa.Text())
        return self._compile(sa.update(leases).where(mine, live).values(until=self._until()))

    @property
    def delete_session_leases(self) -> Statement:
        """Delete the leases of sessions whose rows are deleted."""
        known = sa.exists().where(sessions.c.id == leases.c.session)
        return self._compile(sa.delete(leases).where(~known))

    def _until(self) -> sa.ColumnElement[int]:
        return self.flavour.clock + sa.literal_column(str(LEASE_SECONDS * MICROSECONDS), sa.BigInteger)


def _given_row() -> sa.Select[Any]:
    """Return the entry in the parameters, as a row."""
    return sa.select(*(sa.cast(sa.bindparam(name, type_=kind), kind) for name, kind in _plain_types().items()))


def _given_rows() -> sa.Select[Any]:
    """Return the entries in the parameters, an array per column, as rows in the order of locks."""
    arrays = {name: postgresql.ARRAY(kind) for name, kind in _plain_types().items()}
    columns = [sa.column(name, kind) for name, kind in _plain_types().items()]
    given = sa.func.unnest(*(sa.cast(sa.bindparam(name, type_=kind), kind) for name, kind in arrays.items()))
    rows = given.table_valued(*columns, with_ordinality="place", name="given").render_derived()
    return sa.select(*(rows.c[name] for name in COLUMNS)).order_by(rows.c.place)


def _publish(rows: sa.Select[Any], flavour: Flavour, *, with_tags: bool) -> sa.ClauseElement:
    """Lock the session, replace the rows, write tombstones: one statement, one round trip.

    A look-up of the old blobs before the upsert would miss one that another process inserts in
    between; so the replaced row itself is used. No row is returned when the session is not live,
    and one with a marker when a fresh entry's time differs too much from the server's clock. Uses
    and tags are made from the rows that the upsert returns; in a separate statement, those of
    another process's row could stay. The row that a link or an older entry must not replace is
    compared after the wait for its lock; no row is returned for such an entry.
    """
    clock = flavour.clock
    mine = sessions.c.id == sa.bindparam("session", type_=sa.Text())
    # With a weaker lock (KEY SHARE) or none, a repair could fence the session during this commit.
    writer = sa.select(sessions.c.id).where(mine, sessions.c.state == LIVE).with_for_update(read=True).cte("writer")
    is_old = sa.not_(sa.cast(sa.bindparam("fresh", type_=sa.Boolean()), sa.Boolean))
    dated_well = [sa.func.abs(_time(name) - clock) <= _TOLERATED for name in ("earliest", "latest")]
    may = sa.exists().select_from(writer).where(sa.or_(is_old, sa.and_(*dated_well)))
    insertion = insert(entries).from_select(COLUMNS, rows.where(may))
    names = ("namespace", "key", "replaced", "blob", "created_at", "tags", "prefix", "size", "replaced_size")
    may_go = sa.and_(
        sa.or_(insertion.excluded.link.is_(None), entries.c.link.is_not(None)),
        sa.or_(sa.not_(is_old), entries.c.created_at <= insertion.excluded.created_at),
    )
    put = replacing(insertion, may_go).returning(*(entries.c[name] for name in names)).cte("put")
    is_another = sa.and_(put.c.replaced.is_not(None), put.c.replaced.is_distinct_from(put.c.blob))
    tombstone = insert(tombstones).from_select(["blob", "at"], sa.select(put.c.replaced, clock).where(is_another))
    added = sa.cast(put.c.replaced_size.is_(None), sa.Integer)
    more = plausible(put.c.size) - sa.func.coalesce(plausible(put.c.replaced_size), sa.literal_column("0"))
    result = sa.select(sa.case((is_another, put.c.replaced)), put.c.namespace, put.c.key)
    beside = [tombstone.on_conflict_do_nothing().cte("new_tombstones"), *_hints(put, with_tags=with_tags)]
    # Of all rows together, and last: a transaction that holds the row of the totals waits for nothing else.
    sums = (sa.cast(sa.func.sum(change), sa.BigInteger) for change in (added, more))
    change = sa.select(put.c.namespace, flavour.slot, *sums).group_by(put.c.namespace).order_by(put.c.namespace)
    counted = insert(totals).from_select([c.name for c in totals.c], change)
    beside.append(adding(counted).cte("counted"))
    return result.select_from(writer.outerjoin(put, sa.true())).add_cte(*beside)


def _time(name: str) -> sa.ColumnElement[int]:
    return sa.cast(sa.bindparam(name, type_=sa.BigInteger()), sa.BigInteger)


_TOLERATED: Final[sa.ColumnElement[int]] = sa.literal_column(str(CLOCK_TOLERANCE), sa.BigInteger)


def _hints(put: sa.CTE, *, with_tags: bool) -> list[sa.CTE]:
    """Write the hints for a row that was put, and its uses."""
    key = (put.c.namespace, put.c.key)
    use = insert(uses).from_select([c.name for c in uses.c], sa.select(*key, put.c.created_at, sa.literal_column("0")))
    if not with_tags:
        return [unused(use).cte("used")]
    line_break, kind = sa.literal_column("E'\\n'", sa.Text), sa.literal_column("'tag'", sa.Text).label("kind")
    listed = sa.func.string_to_array(sa.func.btrim(put.c.tags, line_break), line_break)
    each = sa.func.unnest(listed).column_valued("each")
    prefix = sa.select(*key, sa.literal_column("'prefix'", sa.Text), _hint(put.c.prefix))
    named = sa.union_all(
        sa.select(*key, kind, _hint(each).label("tag")), prefix.where(put.c.prefix != sa.literal_column("''"))
    ).cte("named")
    tagged = insert(tags).from_select([c.name for c in tags.c], sa.select(named)).on_conflict_do_nothing()
    of_this = sa.and_(tags.c.namespace == put.c.namespace, tags.c.key == put.c.key)
    still = sa.exists().where(*(named.c[column.name] == column for column in tags.c))
    stale = sa.delete(tags).where(of_this, ~still)
    return [unused(use).cte("used"), tagged.cte("tagged"), stale.cte("stale")]


def _hint(name: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    return sa.func.left(name, sa.literal_column(str(HINT_LENGTH)))


def _plain_types() -> dict[str, sa.types.TypeEngine[Any]]:
    return {name: sa.Text() if name == "blob" else entries.c[name].type for name in COLUMNS}


def definitions() -> Iterator[str]:
    """Return the statements that create a new database."""
    yield f"CREATE SCHEMA IF NOT EXISTS {POSTGRESQL_SCHEMA}"
    for table in tables.sorted_tables:
        yield one_line(CreateTable(table).compile(dialect=_dialect, **_translated))
        for index in sorted(table.indexes, key=lambda index: index.name or ""):
            yield one_line(CreateIndex(index).compile(dialect=_dialect, **_translated))
    yield ROOM_FOR_USES


builder: Final = _PostgresqlBuilder()
