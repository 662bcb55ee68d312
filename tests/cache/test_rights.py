"""Rights that are missing: each is named, and what needs them not goes on."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from cacheness import StoreRefused, UnifiedCache
from cacheness.coordination.ownership import MARKER
from cacheness.testing.proxy import Proxy

pytestmark = pytest.mark.slow

#: What a user does, in a process of its own: root becomes that user of the group, others stay who they are.
AS_USER = """
import encodings.idna, encodings.unicode_escape, os, sys, tempfile
from cacheness import CachenessError, StoreRefused, UnifiedCache
uid, mask, kind, folder = int(sys.argv[1]), int(sys.argv[2], 8), sys.argv[3], sys.argv[4]
# Everything is imported first: another user may not read Python's own files where they are in root's home.
with tempfile.TemporaryDirectory() as warm, UnifiedCache(cache_dir=warm, metadata_backend=kind) as cache:
    cache.put(os.urandom(50_000), n=1)
    cache.get(n=1)
    cache.invalidate(n=1)
os.umask(mask)
if os.geteuid() == 0:
    os.setgroups([65534]); os.setgid(65534); os.setuid(uid)
cache = UnifiedCache(cache_dir=folder + "/cache", metadata_backend=kind, signing_key="0123456789abcdef0123")
"""


@pytest.fixture(params=["sqlite", "json"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Outside of pytest's own folder, which is closed to everybody but its owner."""
    with tempfile.TemporaryDirectory() as name:
        if os.geteuid() == 0:
            os.chown(name, 0, 65534)
        Path(name).chmod(0o2775)
        yield Path(name)


def as_user(uid: int, mask: str, kind: str, folder: Path, program: str) -> None:
    command = [sys.executable, "-W", "error", "-c", AS_USER + program, str(uid), mask, kind, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr


def test_users_of_a_group_write_by_turns(kind: str, folder: Path) -> None:
    for turn, uid in enumerate((1001, 1002, 1001, 1002)):
        program = f"""
assert all(cache.get(n=n) == bytes([n]) * 50_000 for n in range({turn}))
cache.put(bytes([{turn}]) * 50_000, n={turn})
cache.put({turn}, small={turn})
cache.close()
"""
        as_user(uid, "002", kind, folder, program)


def test_who_may_only_read_locks_nobody_out_and_is_refused_in_words(kind: str, folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be two users")
    as_user(1001, "022", kind, folder, "cache.put(b'x' * 50_000, n=1); cache.close()")
    look = """
assert cache.get(n=1) == b'x' * 50_000
for change in (lambda: cache.put(1, n=2), lambda: cache.invalidate(n=1)):
    try:
        change()
    except StoreRefused as error:
        assert folder in str(error) and ("may not be written" in str(error) or "may write" in str(error)), error
    else:
        raise AssertionError("it was not refused")
assert cache.get(n=1) == b'x' * 50_000
"""
    as_user(1002, "022", kind, folder, look)
    as_user(1001, "022", kind, folder, "cache.put(b'y' * 50_000, n=2); assert cache.get(n=1); cache.close()")
    as_user(1002, "022", kind, folder, "assert cache.get(n=2) == b'y' * 50_000")


def test_the_files_of_a_cache_have_the_modes_that_the_umask_leaves(kind: str, folder: Path) -> None:
    as_user(1001, "002", kind, folder, "cache.put(b'x' * 50_000, n=1); os._exit(0)")
    for path in (folder / "cache").rglob("*"):
        if path.name != "signing.key":
            assert path.stat().st_mode & stat.S_IWGRP, path


def test_a_reader_sees_what_a_writer_adds_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with UnifiedCache(cache_dir=tmp_path) as cache:
        cache.put(1, n=1)
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda path, mode: False)
        reader = UnifiedCache(cache_dir=tmp_path, max_bytes=1 << 40)
        assert reader.get(n=1) == 1
    with UnifiedCache(cache_dir=tmp_path) as cache:
        cache.put(2, n=2)
        assert reader.get(n=2) == 2
    assert reader.get(n=1) == 1
    with UnifiedCache(cache_dir=tmp_path) as cache:
        cache.put(3, n=3)
    assert reader.get(n=3) == 3
    reader.close()


# servers

LARGE = os.urandom(60_000)
SHARED_KEY = "0123456789abcdef0123"
DENIED = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'


def expect_results(cache: UnifiedCache) -> None:
    """What needs no more than reading and writing."""
    computed = []

    @cache.cached
    def double(x: int) -> int:
        computed.append(x)
        return 2 * x

    assert [double(1), double(1), computed] == [2, 2, [1]]
    for value in (LARGE, LARGE + b"x", 3):
        cache.put(value, n=1)
        assert cache.get(n=1) == value
    assert cache.get(n=0) == LARGE


def test_a_role_without_delete_is_told_so_and_its_results_are_stored(
    postgres_url: str, s3_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    role, parts = f"adds_{urlsplit(postgres_url).path.lstrip('/')}", urlsplit(postgres_url)
    with UnifiedCache(metadata_backend=postgres_url, blob_store=s3_url, signing_key=SHARED_KEY) as owner:
        owner.put(LARGE, n=0)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for statement in (
            f"CREATE ROLE {role} LOGIN PASSWORD 'secret'",
            f"GRANT USAGE ON SCHEMA cacheness TO {role}",
            f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA cacheness TO {role}",
        ):
            connection.execute(statement.encode())
        try:
            url = parts._replace(netloc=f"{role}:secret@{parts.netloc.rpartition('@')[2]}").geturl()
            with UnifiedCache(metadata_backend=url, blob_store=s3_url, signing_key=SHARED_KEY) as cache:
                expect_results(cache)
                for deletion in (
                    lambda: cache.invalidate(n=1),
                    cache.clear,
                    lambda: cache.delete_matching(older_than=-60),
                    lambda: cache.verify_integrity(repair=True),
                ):
                    with pytest.raises(StoreRefused, match="This call needs DELETE there"):
                        deletion()
                assert cache.get(n=0) == LARGE
                assert not [issue for issue in cache.verify_integrity() if issue.kind != "tombstone"]
        finally:
            connection.execute(f"DROP OWNED BY {role}".encode())
            connection.execute(f"DROP ROLE {role}".encode())
    # psycopg itself logs how a pipeline ended, now and then.
    ours = [record for record in caplog.records if record.name.startswith("cacheness")]
    refused = [record.getMessage() for record in ours if record.levelno >= logging.WARNING]
    assert len(refused) == 1
    assert "This call needs DELETE there" in refused[0]


def repair(cache: UnifiedCache) -> str:
    return " ".join(issue.detail for issue in cache.verify_integrity(repair=True))


@pytest.mark.parametrize("engine", ["obstore", "s3fs"])
def test_without_the_right_to_list_each_entrys_blob_is_asked_for_by_name(
    postgres_url: str, s3_url: str, engine: str
) -> None:
    with Proxy.before(s3_url) as proxy:
        where = {"metadata_backend": postgres_url, "signing_key": SHARED_KEY}
        with (
            UnifiedCache(blob_store=s3_url, **where) as owner,
            UnifiedCache(blob_store=f"{proxy.url}&engine={engine}", **where) as cache,
        ):
            owner.put_many([(LARGE, {"n": n}) for n in range(3)])
            gone, hidden, _ = entries = list(owner.iter_entries())
            owner._store.blobs.delete(gone.blob)
            # S3 refuses to say that a blob is not there, too.
            proxy.answer(b"list-type=2", 403, DENIED)
            proxy.answer(hidden.blob.rpartition("/")[2].encode(), 403, DENIED)
            found = {issue.subject: issue for issue in cache.verify_integrity(repair=True)}
            kinds = {subject: issue.kind for subject, issue in found.items()}
            assert kinds == {"the listing": "unseen", gone.cache_key: "dangling", hidden.cache_key: "unseen"}
            assert "s3:ListBucket" in found["the listing"].detail
            assert [issue.repaired for issue in found.values()].count(True) == 1
            assert {entry.key for entry in owner.iter_entries()} == {entry.key for entry in entries[1:]}
            proxy.answer(b"cacheness-store.json", 404, b"")
            with pytest.raises(StoreRefused, match="s3:ListBucket"):
                cache.verify_integrity()


def refusal(cache: UnifiedCache) -> str:
    with pytest.raises(StoreRefused) as caught:
        repair(cache)
    return str(caught.value)


@pytest.mark.parametrize(
    ("denied", "right", "look"),
    [
        (b"list-type=2", "s3:ListBucket", repair),
        (b"?uploads", "s3:ListBucketMultipartUploads", None),
        (b"DELETE /", "s3:DeleteObject", repair),
        (MARKER.encode(), "s3:GetObject", refusal),
    ],
    ids=["list", "list uploads", "delete", "get the marker"],
)
@pytest.mark.parametrize("engine", ["obstore", "s3fs"])
def test_a_right_that_the_bucket_does_not_give_is_named_and_the_rest_goes_on(
    *,
    postgres_url: str,
    s3_url: str,
    caplog: pytest.LogCaptureFixture,
    denied: bytes,
    right: str,
    look: Callable[[UnifiedCache], str] | None,
    engine: str,
) -> None:
    with Proxy.before(s3_url) as proxy:
        where = {"metadata_backend": postgres_url, "signing_key": SHARED_KEY}
        with UnifiedCache(blob_store=s3_url, **where) as owner:
            owner.put(LARGE, n=0)
        proxy.answer(denied, 403, DENIED)
        if denied == b"DELETE /":
            proxy.answer(b"?delete", 403, DENIED)  # in bulk
        with UnifiedCache(blob_store=f"{proxy.url}&engine={engine}", **where) as cache:
            expect_results(cache)
            if look is None:
                repair(cache)
            else:
                assert f"needs the right {right}" in look(cache)
            cache.put(LARGE, n=2)
            assert cache.invalidate(n=2)
            assert cache.get(n=0) == LARGE
        warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(warnings) == (denied != b"list-type=2")
        assert all(f"needs the right {right}" in text for text in warnings)
        proxy.heal()
        with UnifiedCache(blob_store=s3_url, **where) as owner:
            owner.verify_integrity(repair=True)
            assert not list(owner.verify_integrity())
