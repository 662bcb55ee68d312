from __future__ import annotations

import pytest

from cacheness.blobs.object_store import ObjectStore
from cacheness.deadlines import Limits
from cacheness.testing.contracts.blobs import BlobStoreContract


class TestObjectStore(BlobStoreContract):
    breaks_off = True

    @pytest.fixture
    def store(self, s3_url):
        store = ObjectStore.from_url(s3_url, limits=Limits())
        yield store
        store.close()

    def handle_of_nothing(self) -> str:
        return "00000000-0000-0000-0000-000000000000"
