"""A database for each class of tests, emptied before each test: making one takes a second."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from cacheness.testing import servers


@pytest.fixture(scope="class")
def class_database(postgres_server: str) -> Iterator[str]:
    with servers.fresh_database(postgres_server) as url:
        yield url


@pytest.fixture(scope="class")
def class_database_16(shared_servers: servers.SharedServers) -> Iterator[str]:
    with servers.fresh_database(shared_servers.postgresql(16)) as url:
        yield url


@pytest.fixture
def database(class_database: str) -> str:
    """URL of an empty database."""
    return _emptied(class_database)


def _emptied(url: str) -> str:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute("DROP SCHEMA IF EXISTS cacheness CASCADE")
    return url
