from __future__ import annotations

import pytest

from cacheness.blobs.local import LocalBlobStore
from cacheness.deadlines import Limits
from cacheness.testing.contracts.blobs import BlobStoreContract


class TestLocalBlobStore(BlobStoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        return LocalBlobStore(tmp_path / "blobs", limits=Limits())
