from __future__ import annotations

import pytest

from cacheness.blobs.memory import MemoryBlobStore
from cacheness.testing.contracts.blobs import BlobStoreContract


class TestMemoryBlobStore(BlobStoreContract):
    @pytest.fixture
    def store(self):
        return MemoryBlobStore()
