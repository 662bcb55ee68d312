from __future__ import annotations

import time
from contextlib import closing

import psycopg
import pytest

from cacheness.testing.proxy import Proxy


@pytest.fixture
def proxy(emptied_url):
    with Proxy.before(emptied_url) as proxy:
        yield proxy


@pytest.fixture
def connection(proxy):
    with closing(connect(proxy)) as connection:
        yield connection


def connect(proxy: Proxy) -> psycopg.Connection:
    return psycopg.connect(proxy.url, connect_timeout=2, autocommit=True)


def test_a_healthy_proxy_is_not_noticed(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        assert connection.execute("SELECT repeat('x', 1000000)").fetchone()[0] == "x" * 1_000_000
    assert proxy.connections == 1


def test_refusing_cuts_the_connections_there_are_and_takes_no_new_ones(proxy: Proxy, connection) -> None:
    proxy.refuse()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="refused"):
        connect(proxy)
    proxy.heal()
    with connect(proxy) as again:
        assert again.execute("SELECT 1").fetchone() == (1,)


def test_a_stalled_server_says_nothing(proxy: Proxy) -> None:
    proxy.stall()
    with pytest.raises(psycopg.OperationalError, match="timeout"):
        connect(proxy)
    proxy.heal()
    connect(proxy).close()


@pytest.fixture
def direct(emptied_url):
    """A connection past the proxy, and a table."""
    with psycopg.connect(emptied_url, autocommit=True) as direct:
        direct.execute("CREATE TABLE deeds (x int)")
        yield direct
        direct.execute("DROP TABLE deeds")


def test_a_dropped_response_leaves_the_deed_done(proxy: Proxy, connection, direct) -> None:
    proxy.drop_response(b"INSERT")
    with pytest.raises(psycopg.OperationalError):
        connection.execute("INSERT INTO deeds VALUES (1)")
    assert direct.execute("SELECT x FROM deeds").fetchall() == [(1,)]


def test_a_reset_before_the_request_leaves_it_undone(proxy: Proxy, connection, direct) -> None:
    proxy.reset_before(b"INSERT")
    with pytest.raises(psycopg.OperationalError):
        connection.execute("INSERT INTO deeds VALUES (1)")
    assert direct.execute("SELECT x FROM deeds").fetchall() == []
    with connect(proxy) as again:
        again.execute("INSERT INTO deeds VALUES (2)")


def test_a_cut_response_ends_half_way(proxy: Proxy, connection) -> None:
    proxy.cut_response(after=1000)
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT repeat('x', 1000000)")


def test_a_throttled_answer_trickles(proxy: Proxy, connection) -> None:
    proxy.throttle(20_000)
    began = time.monotonic()
    connection.execute("SELECT repeat('x', 10000)")
    assert time.monotonic() - began > 0.3
