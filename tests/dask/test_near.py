"""A near tier on the machines of the workers: a path travels, and each worker keeps copies under it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import dask
import pytest

import cacheness_dask as cd
from cacheness import UnifiedCache
from cacheness.testing.proxy import Proxy
from tests.conftest import SIGNING_KEY

pytestmark = [pytest.mark.slow, pytest.mark.external]


def table(number: int) -> bytes:
    return random.Random(number).randbytes(100_000)


def size_of(part: bytes) -> int:
    return len(part)


def test_workers_read_from_their_own_disk_what_they_have_written_or_read(
    client: Any, emptied_url: str, s3_url: str, tmp_path: Path
) -> None:
    def total(cache: UnifiedCache, edit: int) -> int:
        parts = [cd.mark(dask.delayed(table)(number)) for number in range(4)]
        with cd.caching(cache, which="all"):
            return int(dask.delayed(sum)([dask.delayed(size_of)(part) + edit for part in parts]).compute())

    with Proxy.before(s3_url) as bucket:
        where = {"metadata_backend": emptied_url, "blob_store": bucket.url, "signing_key": SIGNING_KEY}
        with UnifiedCache(**where, near=tmp_path / "near") as cache:
            assert total(cache, 0) == 400_000
            assert len(list(tmp_path.glob("near/1/*/*"))) >= 4
            bucket.requests.clear()
            assert total(cache, 1) == 400_004  # needs the four tables, and nothing of the bucket
        assert not [
            request for request in bucket.requests if request.startswith(b"GET") and b"list-type" not in request
        ]
