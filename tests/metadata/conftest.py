"""A database without tables for each test, and one of PostgreSQL 16 for each process of the tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cacheness.testing import servers


@pytest.fixture
def database(bare_url: str) -> str:
    """URL of an empty database."""
    return bare_url


@pytest.fixture(scope="session")
def kept_database_16(shared_servers: servers.SharedServers) -> Iterator[str]:
    with servers.fresh_database(shared_servers.postgresql(16)) as url:
        yield url
