"""Servers that refuse, stall, trickle or forget to answer: the work goes on, and nothing is lost."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from cacheness import StoreUnavailable, UnifiedCache
from cacheness.config import Config
from cacheness.testing.proxy import Proxy

pytestmark = [pytest.mark.external, pytest.mark.timeout(180)]

LARGE = random.Random(1).randbytes(100_000)
OTHER = random.Random(2).randbytes(100_000)


@dataclass
class Behind:
    """A cache on PostgreSQL and S3, each behind a proxy, with short deadlines."""

    config: Config
    database: Proxy
    bucket: Proxy


@pytest.fixture
def behind(emptied_url: str, s3_url: str) -> Iterator[Behind]:
    with Proxy.before(emptied_url) as database, Proxy.before(s3_url) as bucket:
        config = Config(
            metadata_backend=database.url,
            blob_store=bucket.url,
            signing_key="a key that only this test knows",
            connect_timeout=0.5,
            statement_timeout=0.5,
            blob_timeout=0.5,
        )
        yield Behind(config, database, bucket)


def trickle(proxy: Proxy) -> None:
    proxy.throttle(20)


@pytest.mark.parametrize("server", ["database", "bucket"])
@pytest.mark.parametrize("fault", [Proxy.refuse, Proxy.stall, trickle])
def test_i7_i8_a_function_returns_its_result_with_one_warning(
    behind: Behind, server: str, fault: Callable[[Proxy], None], caplog: pytest.LogCaptureFixture
) -> None:
    with UnifiedCache(behind.config) as cache:

        @cache.cached
        def repeat(n: int) -> bytes:
            return LARGE * n

        assert repeat(1) == LARGE
        fault(getattr(behind, server))
        with caplog.at_level(logging.WARNING):
            assert [repeat(n) for n in (1, 2, 3, 4)] == [LARGE, LARGE * 2, LARGE * 3, LARGE * 4]
        warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(warnings) == 1
        assert "without the cache" in warnings[0].getMessage()
        getattr(behind, server).heal()


@pytest.mark.parametrize("server", ["database", "bucket"])
def test_an_explicit_call_says_that_a_server_is_down(behind: Behind, server: str) -> None:
    with UnifiedCache(behind.config) as cache:
        cache.put(LARGE, k=1)
        getattr(behind, server).refuse()
        with pytest.raises(StoreUnavailable):
            cache.get(k=1)
        with pytest.raises(StoreUnavailable):
            cache.put(OTHER, k=1)
    behind.database.heal()
    behind.bucket.heal()
    with UnifiedCache(behind.config) as cache:
        assert cache.get(k=1) == LARGE


def test_a_cache_opened_while_the_database_is_down_works_once_it_is_up(behind: Behind) -> None:
    behind.database.refuse()
    with UnifiedCache(behind.config.but(circuit_seconds=0.01)) as cache:
        with pytest.raises(StoreUnavailable):
            cache.put(LARGE, k=1)
        behind.database.heal()
        time.sleep(0.1)  # past the circuit's patience
        cache.put(LARGE, k=1)
        assert cache.get(k=1) == LARGE


@pytest.mark.parametrize("value", [OTHER, b"small"], ids=["blob", "inline"])
def test_i2_a_commit_whose_answer_is_lost_is_there(behind: Behind, value: bytes) -> None:
    with UnifiedCache(behind.config) as cache:
        cache.put(LARGE, k=1)
        behind.database.drop_response(b"INSERT INTO cacheness.entries")
        cache.put(value, k=1)
        assert behind.database.has_struck()
        assert cache.get(k=1) == value
        cache.verify_integrity(repair=True)
        assert list(cache.verify_integrity(deep=True)) == []
        assert cache.get(k=1) == value


def test_i2_a_commit_that_never_arrived_is_made_again(behind: Behind) -> None:
    with UnifiedCache(behind.config) as cache:
        cache.put(LARGE, k=1)
        behind.database.reset_before(b"INSERT INTO cacheness.entries")
        cache.put(OTHER, k=1)
        assert behind.database.has_struck()
        assert cache.get(k=1) == OTHER
        cache.verify_integrity(repair=True)
        assert list(cache.verify_integrity(deep=True)) == []


def test_i2_a_commit_whose_answer_is_lost_with_the_database_leaves_old_or_new(behind: Behind) -> None:
    with UnifiedCache(behind.config) as cache:
        cache.put(LARGE, k=1)
        behind.database.drop_response(b"INSERT INTO cacheness.entries")
        behind.database.reset_before(b"UPDATE cacheness.sessions", times=1000)
        with pytest.raises(StoreUnavailable):
            cache.put(OTHER, k=1)
    behind.database.heal()
    with UnifiedCache(behind.config) as cache:
        assert cache.get(k=1) in {LARGE, OTHER}
        cache.verify_integrity(repair=True)
        assert cache.get(k=1) in {LARGE, OTHER}


def test_a_blob_whose_answer_is_lost_is_written_once_more(behind: Behind) -> None:
    with UnifiedCache(behind.config) as cache:
        behind.bucket.drop_response(b"PUT ")
        cache.put(LARGE, k=1)
        assert behind.bucket.has_struck()
        assert cache.get(k=1) == LARGE
        assert list(cache.verify_integrity(deep=True)) == []


def test_a_listing_that_lies_empty_deletes_nothing(behind: Behind) -> None:
    with UnifiedCache(behind.config) as cache:
        cache.put(LARGE, k=1)
        empty = b'<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>'
        behind.bucket.answer(b"list-type=2", 200, empty)
        assert list(cache.verify_integrity(repair=True)) == []
        behind.bucket.heal()
        assert cache.get(k=1) == LARGE
