from __future__ import annotations

import secrets

import pytest

from cacheness.blobs.filesystem import FilesystemStore
from cacheness.deadlines import Limits
from cacheness.testing.contracts.blobs import BlobStoreContract


class TestFsspecMemory(BlobStoreContract):
    @pytest.fixture
    def store(self):
        return FilesystemStore.from_url(f"memory://{secrets.token_hex(8)}", limits=Limits())


class TestFsspecLocal(BlobStoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        return FilesystemStore.from_url(f"local://{tmp_path}/blobs", limits=Limits())


class TestS3fs(BlobStoreContract):
    @pytest.fixture
    def store(self, s3_url):
        store = FilesystemStore.from_url(s3_url + "&engine=s3fs", limits=Limits())
        yield store
        store.close()

    def handle_of_nothing(self) -> str:
        return "00000000-0000-0000-0000-000000000000"
