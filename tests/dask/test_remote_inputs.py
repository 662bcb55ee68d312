"""What lies in S3 counts by its ETag: a second process hits, an object that somebody rewrote is a miss."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask
import dask.bag as db
import fsspec
import pytest
from remote import FILES, READERS, Bucket

import cacheness_dask as cd
from cacheness import UnifiedCache
from cacheness_dask.sources_and_sinks import noting_files, remote_file

HERE = Path(__file__).parent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def bucket(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    # The test server answers a request for a part of an object with the checksum of the whole.
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    bucket = Bucket(s3_url)
    for number in range(FILES):
        bucket.write(number, 10 * number)
    return bucket


def session(seed: int, cache_dir: Path, url: str) -> list[dict[str, Any]]:
    """What a fresh process reads, before and after it rewrote the third object."""
    found = subprocess.run(
        [sys.executable, "remote.py", str(cache_dir), url],
        env={**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": str(HERE)},
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-4000:]
    line = next(line for line in found.stdout.splitlines() if line.startswith("REPORT"))
    return json.loads(line.removeprefix("REPORT"))  # type: ignore[no-any-return]


def test_a_rewritten_object_runs_its_own_descendants_only_and_a_second_process_nothing(
    tmp_path: Path, s3_url: str, bucket: Bucket
) -> None:
    first, changed = session(1, tmp_path / "cache", s3_url)
    again, same = session(2, tmp_path / "cache", s3_url)  # it writes what is there already
    assert not any(done["refused"] for report in (first, changed) for done in report.values())
    assert {name: done["runs"] for name, done in first.items()} == {**dict.fromkeys(READERS, FILES), "parquet-arrow": 2}
    # Dask's Arrow reader takes small files together, two in each of two tasks.
    assert {name: (done["runs"], done["hits"]) for name, done in changed.items()} == {
        **dict.fromkeys(READERS, (1, FILES - 1)),
        "parquet-arrow": (1, 1),
    }
    assert all(changed[name]["value"] != first[name]["value"] for name in READERS)
    for report in (again, same):
        assert {name: (done["runs"], done["misses"], done["hits"]) for name, done in report.items()} == dict.fromkeys(
            READERS, (0, 0, 1)
        )
        assert {name: done["value"] for name, done in report.items()} == {n: d["value"] for n, d in changed.items()}


def test_a_collection_made_before_an_object_was_rewritten_sees_the_new_one(cache: UnifiedCache, bucket: Bucket) -> None:
    lines = db.read_text(f"s3://{bucket.place}/csv/*.csv", storage_options=bucket.options).map(str.strip)
    with cd.caching(cache, scheduler="sync") as run:
        before = lines.compute()
        lines.compute()
        bucket.write(1, 7000)
        after = lines.compute()
    assert [record.misses > 0 for record in run.history] == [True, False, True]
    assert next(line for line in after if line not in before) == "7000,x0"
    with dask.config.set(scheduler="sync"):
        assert after == lines.compute()


def test_an_object_is_the_same_when_it_is_asked_for_alone_and_when_it_is_listed(bucket: Bucket) -> None:
    system, _ = fsspec.core.url_to_fs(f"s3://{bucket.place}", **bucket.options)
    path = f"{bucket.place}/csv/0.csv"
    alone = remote_file(system, path)
    with noting_files():
        system.pipe({f"{bucket.place}/csv/more-{n}": b"x" for n in range(10)})
        many = {str(remote_file(system, f"{bucket.place}/csv/more-{n}")) for n in range(10)}
        assert system.dircache  # so that the next answer comes from a listing
        assert remote_file(system, path) == alone
    assert len(many) == 1
