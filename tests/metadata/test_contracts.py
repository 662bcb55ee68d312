"""Every metadata store keeps the same promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cacheness.deadlines import Limits
from cacheness.metadata.journal import JournalStore
from cacheness.metadata.postgresql import PostgresqlStore
from cacheness.metadata.sqlite import SqliteStore
from cacheness.testing import servers
from cacheness.testing.contracts.metadata import MetadataStoreContract, OpenStore, SessionStoreContract


class TestSqlite(SessionStoreContract):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        return lambda: SqliteStore(tmp_path / "metadata.sqlite", limits=Limits())


class TestPostgresql(SessionStoreContract):
    @pytest.fixture
    def open_store(self, postgres_url: str) -> OpenStore:
        return lambda: PostgresqlStore(postgres_url, limits=Limits())


@pytest.mark.external
class TestPostgresql16(SessionStoreContract):
    @pytest.fixture
    def open_store(self, shared_servers: servers.SharedServers) -> Iterator[OpenStore]:
        with servers.fresh_database(shared_servers.postgresql(16)) as url:
            yield lambda: PostgresqlStore(url, limits=Limits())


class TestJournal(MetadataStoreContract):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        return lambda: JournalStore(tmp_path / "metadata.jsonl", limits=Limits())
