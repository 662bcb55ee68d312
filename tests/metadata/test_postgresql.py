"""PostgreSQL when things go wrong: connections lost, servers hung, rivals, limits, rights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from cacheness import UnifiedCache
from cacheness.config import Config
from cacheness.deadlines import Limits, patience
from cacheness.errors import (
    CachenessError,
    CodecError,
    CommitUnanswered,
    ConfigError,
    StoreBusy,
    StoreRefused,
    StoreUnavailable,
)
from cacheness.metadata import postgresql
from cacheness.metadata.postgresql import SCHEMA_LOCK, PostgresqlStore, _statements
from cacheness.metadata.sql import postgresql_pool
from cacheness.metadata.sql.statements import Statement
from cacheness.metadata.sql.store import new_session
from cacheness.records import Where
from cacheness.testing import servers
from cacheness.testing.contracts.metadata import NAMESPACE, SOMEBODY, entry, inline, key
from cacheness.testing.proxy import Proxy

pytestmark = pytest.mark.external

#: Small enough to wait for in a test; the circuit closes again at once.
SHORT = Limits(connect=2.0, statement=1.0, total=4.0, cooldown=0.05)


@pytest.fixture
def open_store(database: str) -> Iterator[Callable[..., PostgresqlStore]]:
    stores: list[PostgresqlStore] = []

    def open_one(url: str = database, limits: Limits = SHORT) -> PostgresqlStore:
        stores.append(PostgresqlStore(url, limits=limits))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


@pytest.fixture
def store(open_store: Callable[..., PostgresqlStore]) -> PostgresqlStore:
    return open_store()


@pytest.fixture
def session(store: PostgresqlStore) -> str:
    return store.open_session(SOMEBODY)


@pytest.fixture
def rival(database: str) -> Iterator[psycopg.Connection[Any]]:
    """Somebody else, in a transaction of their own."""
    with closing(psycopg.connect(database)) as connection:
        connection.execute("SET search_path TO cacheness")
        yield connection


def other_user(url: str, user: str, password: str = "secret") -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.hostname}:{parts.port}"))


def run(url: str, *statements: str) -> list[Any]:
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


@contextmanager
def took_at_most(seconds: float) -> Iterator[None]:
    """A bound on a wait, generous for a busy machine; what is bounded would otherwise last for ever."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def backends_of(rival: psycopg.Connection[Any]) -> list[int]:
    rival.execute("SELECT pg_stat_clear_snapshot()")
    mine = "pid <> pg_backend_pid() AND datname = current_database() AND application_name = 'cacheness'"
    return [row[0] for row in rival.execute(f"SELECT pid FROM pg_stat_activity WHERE {mine}".encode())]


def wait_until_waiting(rival: psycopg.Connection[Any], count: int = 1) -> None:
    """Until so many of our connections wait for a lock."""
    waiting = b"SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    while rival.execute(waiting).fetchone() != (count,):
        time.sleep(0.01)
        rival.execute("SELECT pg_stat_clear_snapshot()")  # a transaction sees the same statistics again and again


# connections that end


def test_connections_ended_by_an_administrator_are_replaced_unseen(
    store: PostgresqlStore, session: str, rival: psycopg.Connection[Any]
) -> None:
    for number in range(3):
        [backend] = backends_of(rival)
        rival.execute("SELECT pg_terminate_backend(%s, 5000)", (backend,))
        assert store.commit([inline(number)], session) == []


BATCHES = {"one": [entry(1)], "several": [entry(1), inline(2)], "one key twice": [entry(1), inline(2), entry(1)]}


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_a_commit_whose_connection_is_terminated_is_unanswered_or_done_again_and_never_half(
    store: PostgresqlStore, session: str, rival: psycopg.Connection[Any], batch: list[Any]
) -> None:
    old = entry(1)
    store.commit([old], session)
    rival.execute("SELECT * FROM entries FOR UPDATE")
    with ThreadPoolExecutor(1) as pool:
        committing = pool.submit(store.commit, batch, session)
        wait_until_waiting(rival)
        for backend in backends_of(rival):
            rival.execute("SELECT pg_terminate_backend(%s, 5000)", (backend,))
        rival.rollback()
        if len(batch) < 3:  # one statement, which may have been committed when the connection ended
            with pytest.raises(CommitUnanswered):
                committing.result()
            store.end_session(session)
            assert store.find(NAMESPACE, key(1)) == old
        else:  # its COMMIT was never sent, so it is known to have failed, and is repeated
            assert committing.result() == [old.blob, batch[0].blob]
            assert store.find(NAMESPACE, key(1)) == batch[2]


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_a_commit_whose_answer_is_lost_is_unanswered_and_there(
    database: str, open_store: Callable[..., PostgresqlStore], batch: list[Any]
) -> None:
    with Proxy.before(database) as proxy:
        store = open_store(proxy.url)
        session = store.open_session(SOMEBODY)
        for number in range(10, 20):
            store.commit([inline(number), inline(number + 1), inline(number)][: len(batch)], session)
        store.scan(Where(NAMESPACE))  # so that the last COMMIT lies behind what the proxy looks at
        proxy.drop_response(b"COMMIT" if len(batch) == 3 else str(batch[0].blob).encode())
        with pytest.raises(CommitUnanswered, match="not known"):
            store.commit(batch, session)
        store.end_session(session)
        assert store.find(NAMESPACE, key(1)) in batch
        assert store.dead_sessions([session]) == {session}


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_a_commit_that_never_arrived_is_not_there_after_its_session_ended(
    database: str, open_store: Callable[..., PostgresqlStore], batch: list[Any]
) -> None:
    with Proxy.before(database) as proxy:
        store = open_store(proxy.url)
        session = store.open_session(SOMEBODY)
        proxy.reset_before(str(batch[0].blob).encode(), times=3)
        with pytest.raises(StoreUnavailable):
            store.commit(batch, session)
        time.sleep(SHORT.cooldown)
        store.end_session(session)
        assert store.scan(Where(NAMESPACE)) == []


def test_a_read_whose_connection_is_reset_is_asked_again(
    database: str, open_store: Callable[..., PostgresqlStore]
) -> None:
    with Proxy.before(database) as proxy:
        store = open_store(proxy.url)
        store.commit([inline(1)], store.open_session(SOMEBODY))
        proxy.cut_response(after=10)
        assert store.find(NAMESPACE, key(1)) == inline(1)


def test_a_server_that_restarts_is_waited_for_within_bounds_and_used_again() -> None:
    with closing(servers.postgresql_server()) as server, closing(PostgresqlStore(server.url, limits=SHORT)) as store:
        store.commit([inline(1)], store.open_session(SOMEBODY))
        server.stop("SIGQUIT")
        with took_at_most(10), pytest.raises(StoreUnavailable, match="cannot be reached"):
            store.find(NAMESPACE, key(1))
        with took_at_most(10), pytest.raises(StoreUnavailable):
            PostgresqlStore(server.url, limits=SHORT)
        server.start()
        time.sleep(SHORT.cooldown)
        assert store.find(NAMESPACE, key(1)) == inline(1)


# servers that hang


@contextmanager
def stopped(process: int) -> Iterator[None]:
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def test_a_read_from_a_hung_backend_gives_up_in_time_and_asks_another(
    store: PostgresqlStore, session: str, rival: psycopg.Connection[Any]
) -> None:
    store.commit([inline(1)], session)
    [backend] = backends_of(rival)
    with stopped(backend), took_at_most(10):
        assert store.find(NAMESPACE, key(1)) == inline(1)


def test_a_commit_to_a_hung_backend_is_unanswered_in_time(
    store: PostgresqlStore, session: str, rival: psycopg.Connection[Any]
) -> None:
    [backend] = backends_of(rival)
    with stopped(backend), took_at_most(10), pytest.raises(CommitUnanswered, match="no answer in time"):
        store.commit([inline(1)], session)


@pytest.mark.parametrize("how", ["stall", "throttle"])
def test_a_server_that_stalls_or_trickles_costs_a_bounded_time_and_then_nothing(
    database: str, open_store: Callable[..., PostgresqlStore], how: str
) -> None:
    with Proxy.before(database) as proxy:
        store = open_store(proxy.url, Limits(statement=0.5, total=2.0, cooldown=60))
        getattr(proxy, how)(*((40,) if how == "throttle" else ()))
        with took_at_most(20), pytest.raises(StoreUnavailable):
            while True:
                store.find(NAMESPACE, key(1))
        with took_at_most(1):
            for _ in range(50):
                with pytest.raises(StoreUnavailable, match="not called again"):
                    store.find(NAMESPACE, key(1))


def test_a_statement_that_looks_at_every_row_may_take_longer(
    database: str, open_store: Callable[..., PostgresqlStore], rival: psycopg.Connection[Any]
) -> None:
    store = open_store(limits=Limits(statement=0.3))
    store.commit([inline(1)], store.open_session(SOMEBODY))
    rival.execute("LOCK TABLE entries IN ACCESS EXCLUSIVE MODE")
    with ThreadPoolExecutor(1) as pool:
        counting = pool.submit(store.recount, NAMESPACE, correct=False)
        wait_until_waiting(rival)
        time.sleep(0.6)
        rival.rollback()
        assert counting.result() == (0, 0)


def test_a_long_query_that_takes_too_long_says_nothing_of_a_read_by_key(
    open_store: Callable[..., PostgresqlStore], rival: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(limits=Limits(statement=0.2, failures=1, cooldown=600.0))
    store.commit([inline(1)], store.open_session(SOMEBODY))
    monkeypatch.setattr(postgresql, "_LONG_SECONDS", 0.0)
    rival.execute("LOCK TABLE entries IN ACCESS EXCLUSIVE MODE")
    with pytest.raises(StoreUnavailable):
        store.recount(NAMESPACE, correct=False)
    with pytest.raises(StoreUnavailable, match="not called again"):
        store.functions(NAMESPACE)
    rival.rollback()
    assert store.find(NAMESPACE, key(1)) == inline(1)


# rivals


def test_a_deadlock_is_settled_and_both_get_their_way(
    store: PostgresqlStore, session: str, rival: psycopg.Connection[Any], database: str
) -> None:
    run(database, "ALTER SYSTEM SET deadlock_timeout = '100ms'", "SELECT pg_reload_conf()")
    store.commit([inline(1), inline(2)], session)
    rival.execute("UPDATE entries SET size = size WHERE key = %s", (key(2),))
    with ThreadPoolExecutor(1) as pool:
        committing = pool.submit(store.commit, [inline(1, b"new"), inline(2, b"new")], session)
        wait_until_waiting(rival)
        with suppress(psycopg.errors.DeadlockDetected):
            rival.execute("UPDATE entries SET size = size WHERE key = %s", (key(1),))
        rival.rollback()
        assert committing.result() == []
    assert {found.inline for found in store.scan(Where(NAMESPACE))} == {b"new"}


def test_serialization_failures_are_tried_again(database: str, open_store: Callable[..., PostgresqlStore]) -> None:
    name = urlsplit(database).path.lstrip("/")
    open_store()
    run(database, f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    stores = [open_store(limits=Limits()) for _ in range(3)]
    names: list[str] = []

    def write(store: PostgresqlStore) -> None:
        session = store.open_session(SOMEBODY)
        for number in range(20):
            mine = entry(number % 2)
            names.append(str(mine.blob))
            store.commit([mine], session)

    try:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(write, stores))
    finally:
        run(database, f"ALTER DATABASE {name} RESET default_transaction_isolation")
    kept = {found.blob for found in stores[0].scan(Where(NAMESPACE))}
    assert set(names) - kept == set(stores[0].tombstones())


def test_a_lock_timeout_set_by_the_administrator_is_settled(
    store: PostgresqlStore, session: str, rival: psycopg.Connection[Any], database: str,
    open_store: Callable[..., PostgresqlStore],
) -> None:  # fmt: skip
    name = urlsplit(database).path.lstrip("/")
    run(database, f"ALTER DATABASE {name} SET lock_timeout = '50ms'")
    try:
        impatient = open_store(limits=Limits())
        impatient.commit([inline(1)], session)
        rival.execute("SET lock_timeout = 0")
        rival.execute("SELECT * FROM entries FOR UPDATE")
        with ThreadPoolExecutor(1) as pool:
            committing = pool.submit(impatient.commit, [inline(1, b"new")], session)
            for _ in range(2):
                wait_until_waiting(rival)
                wait_until_waiting(rival, 0)
            rival.rollback()
            committing.result()
        assert impatient.find(NAMESPACE, key(1)) == inline(1, b"new")
    finally:
        run(database, f"ALTER DATABASE {name} RESET lock_timeout")


def test_a_session_that_is_committing_cannot_be_fenced_and_counts_as_live(
    store: PostgresqlStore, session: str, rival: psycopg.Connection[Any]
) -> None:
    rival.execute("SELECT * FROM sessions FOR SHARE")
    with took_at_most(10):
        assert not store.fence(session)
    assert store.dead_sessions([session]) == set()
    rival.rollback()
    assert store.fence(session)


def test_a_heartbeat_does_not_wait_for_a_commit(
    store: PostgresqlStore, session: str, rival: psycopg.Connection[Any]
) -> None:
    rival.execute("SELECT * FROM sessions FOR SHARE")
    assert store.renew_session(session)


def test_a_lease_runs_by_the_clock_of_the_database(store: PostgresqlStore, session: str, database: str) -> None:
    assert [found.lease_expired for found in store.live_sessions()] == [False]
    run(database, "UPDATE cacheness.leases SET until = until - 301 * 1000000::bigint")
    assert [found.lease_expired for found in store.live_sessions()] == [True]
    assert store.renew_session(session)
    assert [found.lease_expired for found in store.live_sessions()] == [False]


def test_ending_a_session_waits_for_its_running_commit(
    store: PostgresqlStore, session: str, rival: psycopg.Connection[Any], open_store: Callable[..., PostgresqlStore]
) -> None:
    patient = open_store(limits=Limits(statement=30.0))
    patient.commit([inline(1)], session)
    rival.execute("SELECT * FROM entries FOR UPDATE")
    with ThreadPoolExecutor(2) as pool:
        committing = pool.submit(patient.commit, [inline(1, b"new")], session)
        wait_until_waiting(rival)
        ending = pool.submit(patient.end_session, session)
        wait_until_waiting(rival, 2)
        rival.rollback()
        committing.result()
        ending.result()
    assert store.find(NAMESPACE, key(1)) == inline(1, b"new")
    assert store.dead_sessions([session]) == {session}


# limits


def test_a_full_pool_is_waited_for_within_bounds(
    database: str, open_store: Callable[..., PostgresqlStore], rival: psycopg.Connection[Any]
) -> None:
    store = open_store(f"{database}?pool_size=1", Limits(statement=2.0, cooldown=0.01))
    session = store.open_session(SOMEBODY)
    store.commit([inline(1)], session)
    rival.execute("SELECT * FROM entries FOR UPDATE")
    with ThreadPoolExecutor(1) as pool:
        committing = pool.submit(store.commit, [inline(1, b"new")], session)
        wait_until_waiting(rival)
        store._pool._limits = SHORT  # the others have less patience
        with took_at_most(10), pytest.raises(StoreUnavailable, match="pool_size"):
            store._pool.run(store._sql.find, {"namespace": NAMESPACE, "key": key(1)})
        rival.rollback()
        committing.result()
    assert store.find(NAMESPACE, key(1)) == inline(1, b"new")


def test_many_threads_share_few_connections(database: str, open_store: Callable[..., PostgresqlStore]) -> None:
    store = open_store(f"{database}?pool_size=2", Limits())
    session = store.open_session(SOMEBODY)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: store.commit([inline(number)], session), range(100)))
    assert store.totals(NAMESPACE).entries == 100
    ours = "application_name = 'cacheness' AND datname = current_database()"
    assert run(database, f"SELECT count(*) FROM pg_stat_activity WHERE {ours}") <= [(2,)]


def test_connections_that_nobody_needs_any_more_are_closed(
    database: str, open_store: Callable[..., PostgresqlStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(database, Limits())
    ours = "application_name = 'cacheness' AND datname = current_database()"
    count = f"SELECT count(*) FROM pg_stat_activity WHERE {ours}"
    connections = [store._pool._take() for _ in range(5)]
    for connection in connections:
        store._pool._give_back(connection)
    assert run(database, count) == [(5,)]
    monkeypatch.setattr(postgresql_pool, "IDLE_SECONDS", 0.0)
    assert store.find(NAMESPACE, key(1)) is None
    deadline = time.monotonic() + 20  # a server's process ends a moment after its client
    while run(database, count) != [(1,)] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert run(database, count) == [(1,)]


def test_too_many_connections_is_an_outage_and_not_a_misconfiguration(
    database: str, open_store: Callable[..., PostgresqlStore]
) -> None:
    user = f"limited_{urlsplit(database).path.lstrip('/')}"
    open_store()
    run(database, f"CREATE ROLE {user} LOGIN PASSWORD 'secret' CONNECTION LIMIT 1")
    try:
        run(database, f"GRANT pg_read_all_data, pg_write_all_data TO {user}")
        first = open_store(other_user(database, user))
        with took_at_most(10), pytest.raises(StoreUnavailable, match="too many connections") as caught:
            open_store(other_user(database, user))
        assert not isinstance(caught.value, ConfigError)
        assert first.find(NAMESPACE, key(1)) is None
        first.close()
    finally:
        drop_role(database, user)


def drop_role(database: str, user: str) -> None:
    run(
        database,
        f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{user}'",
        f"DROP OWNED BY {user}",
        f"DROP ROLE {user}",
    )


def test_a_session_that_need_not_last_is_synced_by_its_first_commit(store: PostgresqlStore) -> None:
    setting = Statement("SELECT current_setting('synchronous_commit')", {}, ())

    def settings(commit: str | None) -> list[Any]:
        row = {**new_session(SOMEBODY), "commit": commit}
        return store._pool.transact(
            lambda transaction: [transaction.run(statement, row) for statement in (_statements.begin_session, setting)]
        )[1]

    assert settings("off") == [("off",)]
    assert settings(None) == [("on",)]
    session = store.open_session(SOMEBODY, lasting=False)
    assert store._pool.run(setting, {})[0] == [("on",)]
    assert store.renew_session(session)
    store.commit([inline(1)], session)


# rights


def test_a_role_that_may_only_read_reads(database: str, open_store: Callable[..., PostgresqlStore]) -> None:
    user = f"reader_{urlsplit(database).path.lstrip('/')}"
    writer = open_store()
    writer.commit([inline(1)], writer.open_session(SOMEBODY))
    run(
        database,
        f"CREATE ROLE {user} LOGIN PASSWORD 'secret'",
        f"GRANT USAGE ON SCHEMA cacheness TO {user}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA cacheness TO {user}",
    )
    try:
        reader = open_store(other_user(database, user))
        assert reader.find(NAMESPACE, key(1)) == inline(1)
        assert reader.identity() == writer.identity()
        with pytest.raises(StoreRefused, match="INSERT"):
            reader.open_session(SOMEBODY)
        with pytest.raises(StoreRefused, match="INSERT"):
            reader.commit([inline(2)], writer.open_session(SOMEBODY))
        reader.close()
    finally:
        drop_role(database, user)


def test_a_role_that_may_not_make_tables_is_told_so(database: str, open_store: Callable[..., PostgresqlStore]) -> None:
    user = f"poor_{urlsplit(database).path.lstrip('/')}"
    run(database, f"CREATE ROLE {user} LOGIN PASSWORD 'secret'")
    try:
        with pytest.raises(StoreRefused, match="CREATE on the database"):
            open_store(other_user(database, user))
    finally:
        drop_role(database, user)


def test_a_read_only_database_serves_hits_and_refuses_puts(
    database: str, open_store: Callable[..., PostgresqlStore]
) -> None:
    name = urlsplit(database).path.lstrip("/")
    writer = open_store()
    session = writer.open_session(SOMEBODY)
    writer.commit([inline(1)], session)
    run(database, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    try:
        reader = open_store()
        assert reader.find(NAMESPACE, key(1)) == inline(1)
        with pytest.raises(StoreRefused, match="read-only"):
            reader.commit([inline(2)], session)
        with pytest.raises(StoreRefused, match="read-only"):
            reader.commit([inline(2), inline(3)], session)
    finally:
        with closing(psycopg.connect(database, autocommit=True)) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())


WRONG = {
    "password": ({"netloc": "postgres:hunter2@{host}"}, StoreRefused, "password"),
    "user": ({"netloc": "nobody:hunter2@{host}"}, StoreRefused, "password"),
    "database": ({"path": "/nowhere"}, StoreRefused, "does not exist"),
    "nobody listens": ({"netloc": "u:hunter2@127.0.0.1:1"}, StoreUnavailable, "refused"),
    "no such host": ({"netloc": "u:hunter2@no-such-host.invalid"}, StoreUnavailable, "reached"),
    "unknown option": ({"query": "sslmood=require"}, ConfigError, "sslmood"),
    "pool size": ({"query": "pool_size=many"}, ConfigError, "pool_size"),
}


@pytest.mark.parametrize(("change", "error", "words"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_with_an_address_is_said_without_its_password(
    database: str, change: dict[str, str], error: type[CachenessError], words: str
) -> None:
    parts = urlsplit(database)
    host = f"{parts.hostname}:{parts.port}"
    url = urlunsplit(parts._replace(**{name: value.format(host=host) for name, value in change.items()}))
    with took_at_most(20), pytest.raises(error, match=words) as caught:
        PostgresqlStore(url, limits=SHORT)
    told = str(caught.value)
    assert "hunter2" not in told
    assert str(urlsplit(database).password) not in told
    assert "\n" not in told


def test_the_tables_are_made_once_by_processes_that_come_together(
    database: str, open_store: Callable[..., PostgresqlStore]
) -> None:
    here = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    waiting = f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND {here}"
    patient = Limits(statement=60.0, total=60.0)
    with psycopg.connect(database, autocommit=True) as gate, ThreadPoolExecutor(4) as threads:
        gate.execute("SELECT pg_advisory_lock(%s)", [SCHEMA_LOCK])
        # Each has seen that there are no tables before it waits, and must see those of the first.
        opening = [threads.submit(open_store, limits=patient) for _ in range(4)]
        deadline = time.monotonic() + 60
        while gate.execute(waiting).fetchone() != (4,):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        gate.execute("SELECT pg_advisory_unlock(%s)", [SCHEMA_LOCK])
        assert len({future.result().identity().store_id for future in opening}) == 1


def test_tables_that_were_dropped_are_named(store: PostgresqlStore, database: str) -> None:
    run(database, "DROP SCHEMA cacheness CASCADE")
    with pytest.raises(StoreRefused, match="tables"):
        store.find(NAMESPACE, key(1))


@pytest.mark.parametrize("text", ["a\0b", "\ud800"], ids=["NUL", "surrogate"])
def test_text_that_a_database_cannot_hold_is_refused_before_anything_happens(
    store: PostgresqlStore, session: str, text: str
) -> None:
    for batch in ([inline(1, prefix=text)], [inline(1), inline(2, tags=(text,))]):
        with pytest.raises(CodecError, match="cannot store"):
            store.commit(batch, session)
    assert store.scan(Where(NAMESPACE)) == []
    store.commit([inline(1)], session)


# identity


def test_a_cloned_database_is_told_from_the_first(postgres_url: str) -> None:
    with closing(PostgresqlStore(postgres_url, limits=SHORT)) as store:
        mine = store.identity()
    name = urlsplit(postgres_url).path.lstrip("/")
    run(postgres_url.replace(f"/{name}", "/postgres"), f"CREATE DATABASE {name}_clone TEMPLATE {name}")
    try:
        with closing(PostgresqlStore(f"{postgres_url}_clone", limits=SHORT)) as clone:
            assert clone.identity().store_id == mine.store_id
            assert clone.identity().system != mine.system
    finally:
        run(postgres_url, f"DROP DATABASE {name}_clone WITH (FORCE)")


# processes


def test_a_forked_child_opens_its_own_connections(store: PostgresqlStore, session: str) -> None:
    store.commit([inline(1)], session)
    child = os.fork()
    if not child:
        try:
            assert store.find(NAMESPACE, key(1)) == inline(1)
            store.commit([inline(2)], session)
            store.close()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.find(NAMESPACE, key(2)) == inline(2)
    assert store.commit([inline(3)], session) == []


def test_the_clock_is_the_one_of_the_database(store: PostgresqlStore, database: str) -> None:
    before = store.now()
    [(there,)] = run(database, "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
    assert before - 1_000_000 < there < store.now() + 1_000_000


def test_a_store_that_was_closed_says_so(store: PostgresqlStore) -> None:
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.find(NAMESPACE, key(1))


def connections_of_programs(rival: psycopg.Connection[Any]) -> int:
    rival.rollback()  # or the answer is that of the first time
    text = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'of a program'"
    [(count,)] = rival.execute(text).fetchall()
    return int(count)


@pytest.mark.parametrize("when", ["idle", "within a transaction"])
def test_connections_end_with_their_process_although_a_forked_child_lives_on(
    database: str, rival: psycopg.Connection[Any], when: str
) -> None:
    program = """
        import os, signal, sys, threading, time
        from cacheness.deadlines import Limits
        from cacheness.metadata.postgresql import SCHEMA_LOCK, PostgresqlStore
        store = PostgresqlStore(sys.argv[1], limits=Limits())
        inside = threading.Event()
        def stay(transaction):
            inside.set()
            time.sleep(60)
        if sys.argv[2] != "idle":
            threading.Thread(target=store._transact, args=(stay,), daemon=True).start()
            inside.wait()
        child = os.fork()
        if child:
            print(child, flush=True)
        time.sleep(60)
    """
    url = f"{database}{'&' if '?' in database else '?'}application_name=of%20a%20program"
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), url, when]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        assert connections_of_programs(rival) > 0
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + 10
        while connections_of_programs(rival) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert connections_of_programs(rival) == 0
    finally:
        os.kill(child, signal.SIGKILL)
        parent.stdout.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_that_is_forked_within_a_transaction_cannot_end_it(store: PostgresqlStore, session: str) -> None:
    children: list[int] = []

    def work(transaction: Any) -> None:
        transaction.run(store._sql.retire, {"session": session, "new_state": "ended"})
        if not children:
            children.append(os.fork())
            if children[0]:
                os.waitpid(children[0], 0)  # what the child does to the connection is done
        transaction.run(store._sql.live_sessions, {})

    try:
        store._transact(work)
    finally:
        if children and not children[0]:
            os._exit(0)
    assert store.dead_sessions([session]) == {session}


def test_a_wait_for_a_connection_is_a_wait_for_a_lock(
    database: str, open_store: Callable[..., PostgresqlStore]
) -> None:
    store = open_store(f"{database}{'&' if '?' in database else '?'}pool_size=1")
    inside, leave = threading.Event(), threading.Event()

    def stay(transaction: Any) -> None:
        inside.set()
        leave.wait(30)

    thread = threading.Thread(target=store._transact, args=(stay,))
    thread.start()
    inside.wait()
    mine = patience(0.3)
    for _ in range(5):  # enough to open a circuit, if it counted
        with mine, pytest.raises(StoreBusy):
            store.find(NAMESPACE, key(1))
    assert mine.left < 0.01
    leave.set()
    thread.join()
    assert store.find(NAMESPACE, key(1)) is None


def test_an_eviction_that_a_person_asks_for_waits_for_victims_that_are_locked(
    database: str, rival: psycopg.Connection[Any]
) -> None:
    """Whoever is killed while evicting leaves them locked for a while, and the least valuable are the same again."""
    config = Config(metadata_backend=database, blob_store="memory://", signing_key="a key of this test")
    with UnifiedCache(config) as cache, UnifiedCache(config.but(max_entries=20)) as limited:
        for number in range(25):
            cache.put(number, number=number)
        rival.execute("SELECT * FROM entries FOR UPDATE")
        with ThreadPoolExecutor(1) as pool:
            evicting = pool.submit(limited.evict)
            wait_until_waiting(rival)
            rival.rollback()
            assert evicting.result() == 5
        assert cache.stats()["entries"] == 20


def test_a_use_is_written_beside_the_one_before_and_no_index_follows(
    store: PostgresqlStore, session: str, database: str
) -> None:
    numbers = range(1000)
    store.commit([inline(number) for number in numbers], session)
    # A tenth, for which every page has room, even where nothing may be cleaned up yet.
    store.record_use(NAMESPACE, {key(number): (1, store.now()) for number in numbers if number % 10 == 0})
    figures = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'uses'"
    with closing(psycopg.connect(database, autocommit=True)) as connection:
        deadline = time.monotonic() + 30
        updated = hot = 0
        while updated < 100 and time.monotonic() < deadline:  # a server process reports a second later
            time.sleep(0.1)
            connection.execute("SELECT pg_stat_clear_snapshot()")
            [(updated, hot)] = connection.execute(figures)
    assert updated == 100
    assert hot >= 0.9 * updated
