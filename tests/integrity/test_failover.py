"""A standby takes over, having missed the last seconds: real servers, a real lost tail."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from cacheness import RepairRefused, UnifiedCache, factory
from cacheness.config import Config
from cacheness.testing import servers
from cacheness.testing.faults import At, stepwise
from tests.conftest import SIGNING_KEY

pytestmark = [pytest.mark.external, pytest.mark.timeout(300)]
TAIL = 7


class Pair:
    """A primary, its standby, and caches that find whichever of the two may be written."""

    def __init__(self, bucket: str) -> None:
        self.primary = servers.postgresql_server()
        self.standby = servers.postgresql_standby(self.primary.url)
        first, second = urlsplit(self.primary.url), urlsplit(self.standby.url)
        both = f"{first.netloc},{second.netloc.rpartition('@')[2]}"
        url = urlunsplit(first._replace(netloc=both, query="target_session_attrs=read-write"))
        self.config = Config(metadata_backend=url, blob_store=bucket, signing_key=SIGNING_KEY)

    def catch_up(self) -> None:
        """Wait until the standby has replayed all that the primary wrote."""
        with psycopg.connect(self.primary.url, autocommit=True) as here:
            [position] = here.execute("SELECT pg_current_wal_insert_lsn()").fetchone() or [None]
        with psycopg.connect(self.standby.url, autocommit=True) as there:
            while there.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [position]).fetchone() != (True,):
                time.sleep(0.05)

    def part(self) -> None:
        """From now on the standby misses what the primary writes."""
        self.catch_up()
        self.standby.stop("SIGQUIT")

    def fail_over(self) -> None:
        """Kill the primary; the standby takes over with what it has."""
        self.primary.stop("SIGKILL")
        self.standby.start()
        with psycopg.connect(self.standby.url, autocommit=True) as there:
            assert there.execute("SELECT pg_promote()").fetchone() == (True,)

    def close(self) -> None:
        self.standby.close()
        self.primary.close()


@pytest.fixture
def pair(s3_url: str) -> Iterator[Pair]:
    with closing(Pair(s3_url)) as found:
        yield found


def large() -> bytes:
    return os.urandom(40_000)


def test_a_promoted_standby_owns_its_blobs_and_the_lost_tail_can_be_removed(pair):
    kept, seen_nowhere = large(), []
    with UnifiedCache(pair.config) as cache:
        cache.put(kept, n=0)
        cache.verify_integrity(repair=True)
    pair.part()
    for i in range(TAIL):
        with UnifiedCache(pair.config) as cache:  # each a session that the standby never sees
            seen_nowhere.append(cache.put(large(), tail=i)["blob"])
    pair.fail_over()
    with UnifiedCache(pair.config) as cache:
        for force in (False, True):  # not refused, and nothing is deleted before a person has decided
            report = cache.verify_integrity(repair=True, force=force)
            assert report.counts() == {"unknown": TAIL}
            assert not any(issue.repaired for issue in report)
        assert cache.put(large(), n=1)
        assert cache.adopt() == TAIL
        report = cache.verify_integrity(repair=True)
        assert report.counts() == {"unknown": TAIL}
        assert not any(issue.repaired for issue in report)
        report = cache.verify_integrity(repair=True, force=True)
        assert sorted(issue.subject for issue in report) == sorted(seen_nowhere)
        assert all(issue.repaired for issue in report)
        with psycopg.connect(pair.standby.url, autocommit=True) as server:
            server.execute("CHECKPOINT")
        assert cache.verify_integrity(repair=True, deep=True).counts() == {}
        assert cache.get(n=0) == kept
        assert sum(1 for _ in cache._store.blobs.scan("default/")) == 2


def test_the_primary_that_was_left_behind_deletes_nothing_when_it_comes_back(pair):
    with UnifiedCache(pair.config) as cache:
        for n in range(5):
            cache.put(large(), n=n)
    pair.part()
    pair.fail_over()
    with UnifiedCache(pair.config) as cache:
        assert cache.verify_integrity(repair=True).counts() == {}
        pair.primary.start()  # and nobody told it
        with UnifiedCache(pair.config.but(metadata_backend=pair.primary.url)) as old:
            assert old.clear() == 5
            old.put(large(), n=1)
            with pytest.raises(RepairRefused, match="left behind by a failover"):
                old.verify_integrity(repair=True, force=True)
        assert sum(cache.get(n=n) is not None for n in range(5)) == 5


def test_a_writer_whose_session_is_in_the_lost_tail_writes_again(pair):
    """Even when a repair deletes its blob between the upload and the commit."""
    with UnifiedCache(pair.config) as cache:
        cache.put(large(), n=0)
    pair.part()
    value, moments = large(), []

    def fail_over_and_clean(moment: str) -> None:
        pair.fail_over()
        with UnifiedCache(pair.config) as other:
            moments.append(other.adopt())
            report = other.verify_integrity(repair=True, force=True)
            moments.append([issue.repaired for issue in report if issue.kind == "unknown"])

    writer = stepwise(pair.config, At("metadata.commit", "before", fail_over_and_clean))
    with closing(writer):
        writer.put(value, n=1)
    assert moments == [1, [True]]
    with UnifiedCache(pair.config) as cache:
        assert cache.get(n=1) == value
        assert cache.verify_integrity(repair=True, deep=True).counts() == {}


def test_what_the_lost_tail_deleted_is_a_miss_and_no_error(pair):
    with UnifiedCache(pair.config) as cache:
        for n in range(4):
            cache.put(large(), n=n)
    pair.part()
    with UnifiedCache(pair.config) as cache:
        cache.invalidate(n=0)
        cache.put(large(), n=1)
    pair.fail_over()
    with UnifiedCache(pair.config) as cache:
        assert [cache.get(n=n) is not None for n in range(4)] == [False, False, True, True]
        counts = cache.verify_integrity(repair=True).counts()
        assert counts == {"dangling": 2, "unknown": 1}
        cache.put(b"again", n=0)
        assert cache.get(n=0) == b"again"


def test_a_standby_serves_reads_and_is_no_owner(pair):
    with UnifiedCache(pair.config) as cache:
        kept = large()
        cache.put(kept, n=0)
        pair.catch_up()
        reader = pair.config.but(metadata_backend=pair.standby.url)
        metadata = factory.open_metadata(reader)
        with closing(metadata):
            assert metadata.identity().timeline is None
        with UnifiedCache(reader) as there:
            assert there.get(n=0) == kept
            assert there.verify_integrity().counts() == {}
        assert cache.verify_integrity(repair=True).counts() == {}
