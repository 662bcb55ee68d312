"""Store metadata in PostgreSQL, for many machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from cacheness import forks
from cacheness.circuit import Guard
from cacheness.deadlines import Limits
from cacheness.errors import ClockMoved, CommitUnanswered, SessionLost, StoreRefused
from cacheness.metadata.sql.postgresql_pool import Conflict, Lost, Pool, PostgresqlTransaction
from cacheness.metadata.sql.postgresql_texts import DEFINITIONS, STATEMENTS
from cacheness.metadata.sql.schema import POSTGRESQL_SCHEMA, SCHEMA_VERSION
from cacheness.metadata.sql.statements import COLUMNS, Builder, Statement, Statements, row_of
from cacheness.metadata.sql.store import (
    Row,
    SqlStore,
    Transaction,
    Values,
    check_schema,
    new_session,
    new_store,
    staying,
    version_name,
)
from cacheness.protocols import MetadataStore
from cacheness.records import Entry, Identity, Process

T = TypeVar("T")

#: Additional time for a statement that may read every row, in a cache of millions.
_LONG_SECONDS: Final = 55.0
#: Additional time for each row that a transaction writes, on a busy server.
ROW_SECONDS: Final = 0.005
#: How long fencing waits for a session that is committing; a process that writes that long is alive.
_FENCE_SECONDS: Final = 1
#: The planner assumes that span and hour are independent, so it expects far more rows than there
#: are: it would read the whole table, and sort on disk what fits into a hash table in memory.
_TO_SUM_UP: Final = Statement(
    "SELECT set_config('work_mem', '64MB', true), set_config('enable_seqscan', 'off', true)", {}, ()
)
_FENCE_PATIENCE: Final = Statement(f"SET LOCAL lock_timeout = '{_FENCE_SECONDS}s'", {}, ())
#: Any number, if no other application uses it: "cacheness" in ASCII, folded to 63 bits.
SCHEMA_LOCK: Final = 0x6361636865_6E65
#: By whether there are many entries, and whether any has a tag or a prefix.
_PUBLISH: Final = {
    (False, False): STATEMENTS["publish"],
    (False, True): STATEMENTS["publish_tagged"],
    (True, False): STATEMENTS["publish_many"],
    (True, True): STATEMENTS["publish_many_tagged"],
}
#: Connections of clients to the server, and its maximum.
_CONNECTIONS: Final = Statement(
    "SELECT (SELECT count(*) FROM pg_stat_activity WHERE datname IS NOT NULL), current_setting('max_connections')::int"
    " - current_setting('superuser_reserved_connections')::int",
    {},
    (),
)
_HELLO: Final = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, pg_backend_pid()"
# A query on the catalog: to_regclass() answers from a cache that is still old after a wait for a lock.
_EXISTS: Final = Statement(
    "SELECT count(*) > 0 FROM pg_catalog.pg_tables WHERE schemaname = $1 AND tablename = 'store'",
    {"schema": POSTGRESQL_SCHEMA},
    ("schema",),
)
_LOCK: Final = Statement(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})", {}, ())
_DATABASE: Final = Statement("SELECT oid FROM pg_database WHERE datname = current_database()", {}, ())
_CLUSTER: Final = Statement("SELECT system_identifier FROM pg_control_system()", {}, ())
# The server's current timeline, from its write position: its control data show the one of the last
# checkpoint, minutes ago. A standby that replays has no write position.
_TIMELINE: Final = Statement(
    "SELECT CASE WHEN NOT pg_is_in_recovery() THEN"
    " ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint END",
    {},
    (),
)


def _builder() -> Builder:
    with forks.no_fork():
        from cacheness.metadata.sql.postgresql_building import builder

    return builder


_statements: Final = Statements(STATEMENTS, _builder, list)


class PostgresqlStore(SqlStore):
    """A metadata store in the database that `url` names, in the schema `cacheness`.

    Accepts libpq's URLs, and `?pool_size=` for the number of connections a process may open. Works
    behind PgBouncer in transaction mode: it keeps no state on the server between statements.
    """

    needs_key = True

    def __init__(self, url: str, *, limits: Limits) -> None:
        super().__init__(_statements)
        self._limits = limits
        self._pool = Pool(url, limits, _HELLO)
        self._guard = Guard(self._pool.name, limits)
        # Separate limits: a slow count does not mean that a read by key is slow.
        self._long_queries = Guard(f"a long query of {self._pool.name}", limits)
        try:
            self._open_schema()
        except BaseException:
            self.close()
            raise

    def now(self) -> int:
        """Return microseconds since the epoch by the database's clock; costs no round trip."""
        return self._pool.now()

    def measure_clock(self) -> None:
        """Read the server's clock, so that `now()` follows when it is set."""
        self._guard.call(self._pool.measure_clock)

    def identity(self) -> Identity:
        """Read the database's identity from the server.

        If the server hides its control data from this role, only the database's name identifies it.
        """
        [row] = self._query(self._sql.identity, {})
        [(oid,)] = self._query(_DATABASE, {})
        cluster = self._if_allowed(_CLUSTER)
        system = f"database {oid}" if cluster is None else f"cluster {cluster}, database {oid}"
        return Identity(row[0], system, row[1], self._if_allowed(_TIMELINE))

    def connections(self) -> tuple[int, int, bool]:
        """Return clients' connections to the server, its maximum, and whether a pooler is in between."""
        self._guard.call(self._pool.measure_clock)
        [(used, most)] = self._query(_CONNECTIONS, {})
        return used, most, self._pool.is_pooled

    def _if_allowed(self, statement: Statement) -> int | None:
        try:
            [(value,)] = self._query(statement, {})
        except StoreRefused:
            return None
        return None if value is None else int(value)

    def commit(self, entries: Sequence[Entry], session: str, *, fresh: bool = False) -> list[str]:
        """Publish entries in one transaction, if the session is still live."""
        if not entries:
            return []
        stay, unseen = staying(entries)
        values = _row(stay[0]) if len(stay) == 1 else _rows(stay)
        values |= {"session": session, "fresh": fresh}
        publish = _PUBLISH[len(stay) > 1, any(entry.tags or entry.prefix for entry in stay)]
        size = sum(len(entry.inline or b"") for entry in stay)
        seconds = size / self._limits.least_rate + (len(stay) - 1) * ROW_SECONDS

        def attempt() -> list[str]:
            return self._publish(publish, values, stay, unseen, seconds)

        return self._guard.call(self._pool.settle, attempt)

    def open_session(self, process: Process, *, lasting: bool = True) -> str:
        """Open a new session; return its id, 16 hexadecimal digits."""

        def work() -> str:
            # A new id for each attempt, because an attempt without an answer may have left its row.
            row = new_session(process)
            self._pool.run(self._sql.begin_session, {**row, "commit": None if lasting else "off"})
            return str(row["id"])

        return self._guard.call(self._pool.settle, work)

    def renew_session(self, session: str) -> bool:
        """Extend the lease; return False when the session is no longer live."""
        return self._change(self._sql.renew, {"its": session}) == 1

    def fence(self, session: str) -> bool:
        """Reject all later commits of a session. Return False if it is committing now, so it is alive."""

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
        """Drop the rows of sessions fenced or ended longer ago than this, in microseconds; return how many."""
        deleted = super().delete_sessions(age)
        self._change(self._sql.delete_session_leases, {})
        return deleted

    def close(self) -> None:
        """Close connections. May be called twice."""
        self._pool.close()

    def _publish(
        self, publish: Statement, values: Values, stay: Sequence[Entry], unseen: Sequence[str], seconds: float
    ) -> list[str]:
        """Run the publishing statement; write tombstones for blobs that entries of this batch replaced `unseen`."""
        try:
            if not unseen:  # a single statement commits by itself, in one round trip
                return _replaced(self._pool.run(publish, values, seconds)[0], values, stay)

            def work(transaction: PostgresqlTransaction) -> list[str]:
                replaced = _replaced(transaction.run(publish, values), values, stay)
                transaction.run_many(self._sql.bury, [{"blob": name} for name in unseen])
                return [*replaced, *unseen]

            return self._pool.transact(work, seconds)
        except Lost as error:
            raise CommitUnanswered(f"{error}. Whether the commit happened is not known") from error

    def _sync(self) -> None:
        """Do nothing: the server syncs each deletion, and many together."""

    def _note_deletion(self, rows: int, seconds: float) -> None:
        """Do nothing: other processes wait for rows here, not for the transaction."""

    def _query(self, statement: Statement, values: Values) -> list[Row]:
        return self._guard.call(self._pool.run, statement, values)[0]

    def _change(self, statement: Statement, values: Values, *, lasting: bool = True, deletes: bool = False) -> int:
        return self._guard.call(self._pool.settle, lambda: self._pool.run(statement, values))[1]

    def _long_query(self, statement: Statement, values: Values) -> list[Row]:
        return self._long_queries.call(self._pool.run, statement, values, seconds=_LONG_SECONDS)[0]

    def _sum_up(self, statement: Statement, values: Values) -> list[Row]:
        def work(transaction: PostgresqlTransaction) -> list[Row]:
            transaction.run(_TO_SUM_UP, {})
            return transaction.run(statement, values)

        return self._long_queries.call(self._pool.transact, work, seconds=_LONG_SECONDS)

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
        return guard.call(self._pool.settle, lambda: self._pool.transact(work, seconds=seconds))

    def _open_schema(self) -> None:
        if not self._query(_EXISTS, {})[0][0]:
            self._guard.call(self._pool.transact, self._create_schema)
        _, _, min_reader, version = self._query(self._sql.identity, {})[0]
        check_schema(version, min_reader, self._pool.name)

    def _create_schema(self, transaction: PostgresqlTransaction) -> None:
        transaction.run(_LOCK, {})
        if transaction.run(_EXISTS, {})[0][0]:  # by another process, while this one waited for the lock
            return
        for text in DEFINITIONS:
            transaction.define(text)
        transaction.run(self._sql.create_store, new_store())
        transaction.run(self._sql.create_version, {"version_num": version_name(SCHEMA_VERSION)})


def _row(entry: Entry) -> dict[str, Any]:
    row = dict(zip(COLUMNS, row_of(entry), strict=True))
    return {**row, "earliest": entry.created_at, "latest": entry.created_at}


def _rows(entries: Sequence[Entry]) -> dict[str, Any]:
    """Return many entries as parameters: a list per column."""
    columns = dict(zip(COLUMNS, map(list, zip(*map(row_of, entries), strict=True)), strict=True))
    return {**columns, "earliest": min(columns["created_at"]), "latest": max(columns["created_at"])}


def _replaced(found: Sequence[Row], values: Values, stay: Sequence[Entry]) -> list[str]:
    """Return the blobs of replaced rows, and those of entries whose existing rows stay."""
    if not found:
        raise SessionLost(f"session {values['session']} was ended or fenced; nothing was stored")
    stored = {(namespace, bytes(key)) for _, namespace, key in found if key is not None}
    # Existing rows stay only beside links and copies. A link that the clock prevented is not missed.
    if not stored and values["fresh"] and any(entry.link is None for entry in stay):
        raise ClockMoved("the time of an entry is more than a minute from the server's clock; nothing was stored")
    unused = [entry.blob for entry in stay if entry.blob is not None and (entry.namespace, entry.key) not in stored]
    return [row[0] for row in found if row[0] is not None] + unused


_conforms: type[MetadataStore] = PostgresqlStore
