"""Metadata in PostgreSQL, shared by a fleet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.schema import CreateIndex, CreateTable

from cacheness.circuit import Guard
from cacheness.deadlines import Limits
from cacheness.errors import ClockMoved, CommitUnanswered, SessionLost, StoreRefused
from cacheness.forks import LazyAttribute
from cacheness.metadata.sql.postgresql_pool import Conflict, Lost, Pool, PostgresqlTransaction
from cacheness.metadata.sql.statements import (
    COLUMNS,
    HINT_LENGTH,
    LIVE,
    Flavour,
    Statement,
    Statements,
    adding,
    hints_of,
    plausible,
    replacing,
    row_of,
    unused,
)
from cacheness.metadata.sql.store import (
    Row,
    SqlStore,
    Transaction,
    Values,
    check_schema,
    new_session,
    new_store,
    version_name,
)
from cacheness.metadata.sql.tables import (
    PARTIAL_INDEXES,
    POSTGRESQL_SCHEMA,
    SCHEMA_VERSION,
    entries,
    leases,
    sessions,
    tables,
    tags,
    tombstones,
    totals,
    uses,
)
from cacheness.protocols import MetadataStore
from cacheness.records import MICROSECONDS, Entry, Identity, Process

T = TypeVar("T")

LEASE_SECONDS: Final = 300
CLOCK_TOLERANCE: Final = 60 * MICROSECONDS  #: between the time that a fresh entry carries and the server's
#: What a statement that may look at every row may take on top of the usual limit, in a cache of millions.
_LONG_SECONDS: Final = 55.0
#: What each row that a transaction writes may take on top, on a busy server.
ROW_SECONDS: Final = 0.005
#: How long fencing waits for a session that is committing; who writes that long is alive.
_FENCE_SECONDS: Final = 1
_FENCE_PATIENCE: Final = Statement(f"SET LOCAL lock_timeout = '{_FENCE_SECONDS}s'", {}, ())
#: Any number, as long as nobody else's application uses it: "cacheness" in ASCII, folded to 63 bits.
SCHEMA_LOCK: Final = 0x6361636865_6E65
# Numbered placeholders go to the server as they are; psycopg would otherwise translate each statement.
_dialect: Final = PGDialect_psycopg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]
for _index in PARTIAL_INDEXES:
    _index.dialect_options["postgresql"]["where"] = _index.dialect_options["sqlite"]["where"]
#: Room on each page, so that a later use is written beside the one before and no index has to follow.
ROOM_FOR_USES: Final = f"ALTER TABLE {POSTGRESQL_SCHEMA}.uses SET (fillfactor = 80)"
_translated: Final[Any] = {"schema_translate_map": {None: POSTGRESQL_SCHEMA}, "render_schema_translate": True}


# The moment of asking: now() would be the beginning of the transaction.
CLOCK: Final[sa.ColumnElement[int]] = sa.literal_column(
    "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint", sa.BigInteger
)


class _Postgresql:
    """What PostgreSQL says its own way."""

    clock = now = CLOCK
    # By the server process that serves this statement, behind a pooler too. One slot for each process of ours
    # would make its threads wait for each other's sync.
    slot: sa.ColumnElement[int] = sa.literal_column("(pg_backend_pid() & 63)", sa.Integer)

    def compile(self, statement: sa.ClauseElement) -> Statement:
        """Numbered placeholders, a sequence of values."""
        compiled: Any = statement.compile(dialect=_dialect, **_translated)
        constants = {name: value for name, value in compiled.params.items() if value is not None}
        return Statement(str(compiled), constants, tuple(compiled.positiontup or ()))

    def upsert(self, table: sa.Table) -> Any:
        """INSERT … ON CONFLICT."""
        return insert(table)

    def among(self, column: sa.ColumnElement[Any], width: int) -> sa.ColumnElement[bool]:
        """The keys travel as one array."""
        return column == sa.any_(sa.bindparam("keys", type_=postgresql.ARRAY(column.type)))

    def keys(self, keys: Sequence[bytes] | Sequence[str]) -> Any:
        """A list, which psycopg sends as an array."""
        return list(keys)

    def position(self, column: sa.ColumnElement[str], text: sa.ColumnElement[str]) -> sa.ColumnElement[int]:
        """LIKE would need its wildcards escaped."""
        return sa.func.strpos(column, text)


class _PostgresqlStatements(Statements):
    """The statements that only PostgreSQL runs."""

    def __init__(self) -> None:
        super().__init__(_Postgresql())

    def publish(self, *, tagged: bool, many: bool) -> Statement:
        """Put one entry or `many`, with tags or a prefix or without, if their writer's session is live."""
        shape = ("publish", tagged, many)
        if shape not in self._by_shape:
            rows = _given_rows() if many else _given_row()
            self._by_shape[shape] = self._compile(_publish(rows, self.flavour, with_tags=tagged))
        return self._by_shape[shape]

    @LazyAttribute
    def begin_session(self) -> Statement:
        """Begin a session and give it its first lease, in one round trip. `commit` says how it is synced, if given."""
        name = sa.literal_column("'synchronous_commit'", sa.Text)
        how = sa.func.coalesce(sa.cast(sa.bindparam("commit"), sa.Text), sa.func.current_setting(name))
        setting = sa.select(sa.func.set_config(name, how, sa.true()).label("how")).cte(
            "setting"
        )  # until it is committed
        given = [sa.cast(sa.bindparam(c.name, type_=c.type), c.type) for c in sessions.c]
        row = sa.select(*given).select_from(setting)
        begun = insert(sessions).from_select([c.name for c in sessions.c], row).returning(sessions.c.id).cte("begun")
        return self._compile(insert(leases).from_select(["session", "until"], sa.select(begun.c.id, self._until())))

    @LazyAttribute
    def renew(self) -> Statement:
        """Extend a live session's lease. Reads the session's row and locks nothing of it."""
        live = sa.exists().where(sessions.c.id == leases.c.session, sessions.c.state == LIVE)
        mine = leases.c.session == sa.bindparam("its", type_=sa.Text())
        return self._compile(sa.update(leases).where(mine, live).values(until=self._until()))

    @LazyAttribute
    def delete_session_leases(self) -> Statement:
        """Delete the leases of sessions whose rows are deleted."""
        known = sa.exists().where(sessions.c.id == leases.c.session)
        return self._compile(sa.delete(leases).where(~known))

    def _until(self) -> sa.ColumnElement[int]:
        return self.flavour.clock + sa.literal_column(str(LEASE_SECONDS * MICROSECONDS), sa.BigInteger)


def _given_row() -> sa.Select[Any]:
    """The entry in the parameters, as a row."""
    return sa.select(*(sa.cast(sa.bindparam(name, type_=kind), kind) for name, kind in _plain_types().items()))


def _given_rows() -> sa.Select[Any]:
    """The entries in the parameters, an array for each column, as rows in their order: that of the locks."""
    arrays = {name: postgresql.ARRAY(kind) for name, kind in _plain_types().items()}
    columns = [sa.column(name, kind) for name, kind in _plain_types().items()]
    given = sa.func.unnest(*(sa.cast(sa.bindparam(name, type_=kind), kind) for name, kind in arrays.items()))
    rows = given.table_valued(*columns, with_ordinality="place", name="given").render_derived()
    return sa.select(*(rows.c[name] for name in COLUMNS)).order_by(rows.c.place)


def _publish(rows: sa.Select[Any], flavour: Flavour, *, with_tags: bool) -> sa.ClauseElement:
    """Lock the writer's session, replace the rows, bury what they named: one statement, one round trip.

    Looking up the old blobs first would miss one that a rival inserts between the look and the
    upsert; the row itself says what it replaced. No row comes back when the session is not live,
    and one that says so when a fresh entry is dated too far from the server's clock. Uses and tags are
    made of the rows that the upsert returns: beside it, those of a rival's row could stay.
    """
    clock = flavour.clock
    mine = sessions.c.id == sa.bindparam("session", type_=sa.Text())
    # A weaker lock (KEY SHARE) or none would let a repairer fence the session while this commits.
    writer = sa.select(sessions.c.id).where(mine, sessions.c.state == LIVE).with_for_update(read=True).cte("writer")
    is_old = sa.not_(sa.cast(sa.bindparam("fresh", type_=sa.Boolean()), sa.Boolean))
    dated_well = [sa.func.abs(_time(name) - clock) <= _TOLERATED for name in ("earliest", "latest")]
    may = sa.exists().select_from(writer).where(sa.or_(is_old, sa.and_(*dated_well)))
    insertion = insert(entries).from_select(COLUMNS, rows.where(may))
    names = ("namespace", "key", "replaced", "blob", "created_at", "tags", "prefix", "size", "replaced_size")
    put = replacing(insertion).returning(*(entries.c[name] for name in names)).cte("put")
    is_another = sa.and_(put.c.replaced.is_not(None), put.c.replaced.is_distinct_from(put.c.blob))
    tombstone = insert(tombstones).from_select(["blob", "at"], sa.select(put.c.replaced, clock).where(is_another))
    added = sa.cast(put.c.replaced_size.is_(None), sa.Integer)
    more = plausible(put.c.size) - sa.func.coalesce(plausible(put.c.replaced_size), sa.literal_column("0"))
    result = sa.select(sa.case((is_another, put.c.replaced)), put.c.created_at.is_not(None))
    beside = [tombstone.on_conflict_do_nothing().cte("new_tombstones"), *_hints(put, with_tags=with_tags)]
    # Of all rows at once, and last: who holds the row of the totals waits for nothing else.
    sums = (sa.cast(sa.func.sum(change), sa.BigInteger) for change in (added, more))
    change = sa.select(put.c.namespace, flavour.slot, *sums).group_by(put.c.namespace).order_by(put.c.namespace)
    counted = insert(totals).from_select([c.name for c in totals.c], change)
    beside.append(adding(counted).cte("counted"))
    return result.select_from(writer.outerjoin(put, sa.true())).add_cte(*beside)


def _time(name: str) -> sa.ColumnElement[int]:
    return sa.cast(sa.bindparam(name, type_=sa.BigInteger()), sa.BigInteger)


_TOLERATED: Final[sa.ColumnElement[int]] = sa.literal_column(str(CLOCK_TOLERANCE), sa.BigInteger)


def _hints(put: sa.CTE, *, with_tags: bool) -> list[sa.CTE]:
    """Write what leads to a row that was put, and how it is used."""
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


_HELLO: Final = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, pg_backend_pid()"
# Of the catalog itself: to_regclass() answers from a memory that a wait for a lock leaves as it was.
_EXISTS: Final = Statement(
    "SELECT count(*) > 0 FROM pg_catalog.pg_tables WHERE schemaname = $1 AND tablename = 'store'",
    {"schema": POSTGRESQL_SCHEMA},
    ("schema",),
)
_LOCK: Final = Statement(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})", {}, ())
_DATABASE: Final = Statement("SELECT oid FROM pg_database WHERE datname = current_database()", {}, ())
_CLUSTER: Final = Statement("SELECT system_identifier FROM pg_control_system()", {}, ())
# From where the server writes now: its control data name the timeline of the last checkpoint, minutes ago. A standby
# that replays has none of its own.
_TIMELINE: Final = Statement(
    "SELECT CASE WHEN NOT pg_is_in_recovery() THEN"
    " ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint END",
    {},
    (),
)
_statements: Final = _PostgresqlStatements()


class PostgresqlStore(SqlStore):
    """A metadata store in the database that `url` names, in the schema `cacheness`.

    Takes what libpq takes, and `?pool_size=` for the number of connections a process may open. Works
    behind PgBouncer in transaction mode: it keeps no state on the server between statements.
    """

    needs_key = True

    def __init__(self, url: str, *, limits: Limits) -> None:
        super().__init__(_statements)
        self._mine = _statements
        self._limits = limits
        self._pool = Pool(url, limits, _HELLO)
        self._guard = Guard(self._pool.name, limits)
        # Of their own: that a count takes too long says nothing of a read by key.
        self._long_queries = Guard(f"a long query of {self._pool.name}", limits)
        try:
            self._open_schema()
        except BaseException:
            self.close()
            raise

    def now(self) -> int:
        """Microseconds since the epoch by the database's clock; costs no round trip."""
        return self._pool.now()

    def measure_clock(self) -> None:
        """Ask the server for its time, so that `now()` follows a clock that was set."""
        self._guard.call(self._pool.measure_clock)

    def identity(self) -> Identity:
        """Which database this is, asked of the server.

        A server that hides its control data from this role is told from others by its database only.
        """
        [row] = self._query(self._sql.identity, {})
        [(oid,)] = self._query(_DATABASE, {})
        cluster = self._if_allowed(_CLUSTER)
        system = f"database {oid}" if cluster is None else f"cluster {cluster}, database {oid}"
        return Identity(row[0], system, row[1], self._if_allowed(_TIMELINE))

    def _if_allowed(self, statement: Statement) -> int | None:
        try:
            [(value,)] = self._query(statement, {})
        except StoreRefused:
            return None
        return None if value is None else int(value)

    def commit(self, entries: Sequence[Entry], session: str, *, fresh: bool = False) -> list[str]:
        """Publish entries in one transaction, if the session still lives."""
        if not entries:
            return []
        # In key order, so that two batches never wait for each other. Of two entries under one key the later stays.
        by_key = {(entry.namespace, entry.key): entry for entry in entries}
        stay = [by_key[key] for key in sorted(by_key)]
        staying = {entry.blob for entry in stay}
        unseen = [entry.blob for entry in entries if entry.blob is not None and entry.blob not in staying]
        values = _row(stay[0]) if len(stay) == 1 else _rows(stay)
        values |= {"session": session, "fresh": fresh}
        publish = self._mine.publish(tagged=any(map(hints_of, stay)), many=len(stay) > 1)
        size = sum(len(entry.inline or b"") for entry in stay)
        seconds = size / self._limits.least_rate + (len(stay) - 1) * ROW_SECONDS

        def attempt() -> list[str]:
            return self._publish(publish, values, unseen, seconds)

        return self._guard.call(lambda: self._pool.settle(attempt))

    def open_session(self, process: Process, *, lasting: bool = True) -> str:
        """Begin to write: a new session's id, 16 hexadecimal digits."""

        def work() -> str:
            # A new one for each attempt, because an attempt without an answer may have left its row.
            row = new_session(process)
            self._pool.run(self._mine.begin_session, {**row, "commit": None if lasting else "off"})
            return str(row["id"])

        return self._guard.call(lambda: self._pool.settle(work))

    def renew_session(self, session: str) -> bool:
        """Extend the lease; False when the session is no longer live."""
        return self._change(self._mine.renew, {"its": session}) == 1

    def fence(self, session: str) -> bool:
        """Refuse all later commits of a session. False: it is committing right now, so it lives."""

        def work(transaction: PostgresqlTransaction) -> None:
            transaction.run(_FENCE_PATIENCE, {})
            transaction.run(self._sql.retire, {"session": session, "new_state": "fenced"})

        def attempt() -> bool:
            try:
                self._pool.transact(work, seconds=_FENCE_SECONDS)
            except Conflict:
                return False
            return True

        return self._guard.call(attempt)

    def delete_sessions(self, age: int) -> int:
        """Drop the rows of sessions fenced or ended longer ago than this, in microseconds; returns how many."""
        deleted = super().delete_sessions(age)
        self._change(self._mine.delete_session_leases, {})
        return deleted

    def close(self) -> None:
        """Close connections. May be called twice."""
        self._pool.close()

    def _publish(self, publish: Statement, values: Values, unseen: Sequence[str], seconds: float) -> list[str]:
        """Run the statement that publishes, and bury blobs that entries of the same batch replaced `unseen`."""
        try:
            if not unseen:  # a single statement commits by itself, in one round trip
                return _replaced(self._pool.run(publish, values, seconds)[0], values)

            def work(transaction: PostgresqlTransaction) -> list[str]:
                replaced = _replaced(transaction.run(publish, values), values)
                transaction.run_many(self._sql.bury, [{"blob": name} for name in unseen])
                return [*replaced, *unseen]

            return self._pool.transact(work, seconds)
        except Lost as error:
            raise CommitUnanswered(f"{error}. Whether the commit happened is not known") from error

    def _sync(self) -> None:
        """Nothing: the server syncs each deletion, and many at once."""

    def _note_deletion(self, rows: int, seconds: float) -> None:
        """Nothing: others wait for rows here, not for the transaction."""

    def _query(self, statement: Statement, values: Values) -> list[Row]:
        return self._guard.call(lambda: self._pool.run(statement, values))[0]

    def _change(self, statement: Statement, values: Values, *, lasting: bool = True, deletes: bool = False) -> int:
        return self._guard.call(lambda: self._pool.settle(lambda: self._pool.run(statement, values)))[1]

    def _long_query(self, statement: Statement, values: Values) -> list[Row]:
        return self._long_queries.call(lambda: self._pool.run(statement, values, seconds=_LONG_SECONDS))[0]

    def _transact(
        self,
        work: Callable[[Transaction], T],
        *,
        long: bool = False,
        lasting: bool = True,
        deletes: bool = False,
        rows: int = 1,
    ) -> T:
        seconds = _LONG_SECONDS * long + rows * ROW_SECONDS
        guard = self._long_queries if long else self._guard
        return guard.call(lambda: self._pool.settle(lambda: self._pool.transact(work, seconds=seconds)))

    def _open_schema(self) -> None:
        if not self._query(_EXISTS, {})[0][0]:
            self._guard.call(lambda: self._pool.transact(self._create_schema))
        _, _, min_reader, version = self._query(self._sql.identity, {})[0]
        check_schema(version, min_reader, self._pool.name)

    def _create_schema(self, transaction: PostgresqlTransaction) -> None:
        transaction.run(_LOCK, {})
        if transaction.run(_EXISTS, {})[0][0]:  # by another process, while this one waited for the lock
            return
        transaction.define(f"CREATE SCHEMA IF NOT EXISTS {POSTGRESQL_SCHEMA}")
        for table in tables.sorted_tables:
            transaction.define(_definition(CreateTable(table)))
            for index in table.indexes:
                transaction.define(_definition(CreateIndex(index)))
        transaction.define(ROOM_FOR_USES)
        transaction.run(self._sql.create_store, new_store())
        transaction.run(self._sql.create_version, {"version_num": version_name(SCHEMA_VERSION)})


def _definition(definition: CreateTable | CreateIndex) -> str:
    return str(definition.compile(dialect=_dialect, **_translated))


def _row(entry: Entry) -> dict[str, Any]:
    return {**row_of(entry), "earliest": entry.created_at, "latest": entry.created_at}


def _rows(entries: Sequence[Entry]) -> dict[str, Any]:
    """Many entries as parameters: a list for each column."""
    rows = [row_of(entry) for entry in entries]
    times = [entry.created_at for entry in entries]
    return {**{name: [row[name] for row in rows] for name in COLUMNS}, "earliest": min(times), "latest": max(times)}


def _replaced(found: Sequence[Row], values: Values) -> list[str]:
    if not found:
        raise SessionLost(f"session {values['session']} was ended or fenced; nothing was stored")
    if not found[0][1]:
        raise ClockMoved("the time of an entry is more than a minute from the server's clock; nothing was stored")
    return [row[0] for row in found if row[0] is not None]


_conforms: type[MetadataStore] = PostgresqlStore
