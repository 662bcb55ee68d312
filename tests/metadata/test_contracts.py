"""Every metadata store keeps the same promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from cacheness.deadlines import Limits
from cacheness.metadata.journal.store import JournalStore
from cacheness.metadata.postgresql import PostgresqlStore
from cacheness.metadata.sqlite import SqliteStore
from cacheness.testing import servers
from cacheness.testing.contracts.metadata import MetadataStoreContract, OpenStore, SessionStoreContract


class TestSqlite(SessionStoreContract):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        return lambda: SqliteStore(tmp_path / "metadata.sqlite", limits=Limits())


@pytest.mark.external
class TestPostgresql(SessionStoreContract):
    @pytest.fixture
    def open_store(self, emptied_url: str) -> OpenStore:
        return lambda: PostgresqlStore(emptied_url, limits=Limits())


@pytest.mark.external
class TestPostgresql16(SessionStoreContract):
    @pytest.fixture
    def open_store(self, kept_database_16: str) -> OpenStore:
        servers.empty_database(kept_database_16)
        return lambda: PostgresqlStore(kept_database_16, limits=Limits())


class TestJournal(MetadataStoreContract):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        return lambda: JournalStore(tmp_path / "metadata.jsonl", limits=Limits())
