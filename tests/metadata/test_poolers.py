"""PostgreSQL behind a pooler in transaction mode. Runs on PgBouncer too, where that is installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from cacheness.deadlines import Limits
from cacheness.metadata.postgresql import PostgresqlStore
from cacheness.testing.contracts.metadata import SOMEBODY, OpenStore, SessionStoreContract, inline
from tests.metadata import poolers


@pytest.fixture(params=poolers.POOLERS)
def pooled(request: pytest.FixtureRequest, emptied_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("pooler")
    for path in (folder, folder.parent, folder.parent.parent):
        path.chmod(0o755)
    with poolers.POOLERS[request.param](emptied_url, folder) as url:
        yield url


@pytest.mark.external
class TestBehindAPooler(SessionStoreContract):
    @pytest.fixture
    def open_store(self, pooled: str) -> OpenStore:
        return lambda: PostgresqlStore(pooled, limits=Limits())


def test_the_poolers_of_these_tests_do_mix_up_sessions(pooled: str) -> None:
    with closing(psycopg.connect(pooled, autocommit=True, prepare_threshold=None)) as one:
        one.execute("SET lock_timeout = '7s'")
        with closing(psycopg.connect(pooled, autocommit=True, prepare_threshold=None)) as other:
            other.execute("BEGIN")
            other.execute("SELECT 1")  # keeps the connection that was used last
            assert one.execute("SHOW lock_timeout").fetchone() != ("7s",)
            other.execute("COMMIT")


def test_statements_are_prepared_on_the_server_only_without_a_pooler(pooled: str, emptied_url: str) -> None:
    for url, expected in ((pooled, False), (emptied_url, True)):
        with closing(PostgresqlStore(url, limits=Limits())) as store:
            session = store.open_session(SOMEBODY)
            for number in range(20):
                store.commit([inline(number)], session)
            connection = store._pool._take()
            assert (connection.prepare_threshold is not None) == expected
            store._pool._give_back(connection)
