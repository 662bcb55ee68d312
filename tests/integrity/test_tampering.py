"""Somebody who can write to the database and the blob store, and does not have the key."""

from __future__ import annotations

import os
import pickle
import random
import sqlite3
from contextlib import closing

import pytest

from cacheness import CodecError, ConfigError, UnifiedCache, factory
from cacheness.results.signing_keys import new_private_key

LARGE = random.Random(1).randbytes(100_000)

#: Every signed column, and something else that it might be made to say.
CHANGES = {
    "blob": "default/00/" + "00" * 32 + "." + "0" * 16 + "." + "0" * 16,
    "inline": b"other bytes",
    "size": 5,
    "raw_size": 1 << 40,
    "digest": b"\x00" * 32,
    "codec": "pickle+zstd",
    "created_at": 1,
    "expires_at": 1 << 60,
    "compute_seconds": 0.5,
    "function": "somebody.else",
    "prefix": "other",
    "args": b"",
    "components": "[]",
    "value": b"\x00" * 32,
    "fn": b"\x00" * 32,
    "alias": b"\x00" * 32,
    "link": b"\x00" * 32,
    "outputs": "[]",
    "tags": "\nother\n",
    "provenance": '{"run":"other"}',
    "key_id": "other",
    "mac": b"\x00" * 32,
}


class Canary:
    """Unpickling it makes a directory."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


@pytest.fixture
def cache(tmp_path):
    with UnifiedCache(cache_dir=tmp_path) as cache:
        yield cache


@pytest.fixture(params=["HMAC", "Ed25519"])
def signed(request, tmp_path):
    """Caches that sign, with one secret for all and with a private key."""
    key = None if request.param == "HMAC" else new_private_key("ci")
    with UnifiedCache(cache_dir=tmp_path, signing_key=key) as cache:
        yield cache


def execute(cache: UnifiedCache, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(f"{cache.config.cache_dir}/{factory.SQLITE_FILE}")) as database, database:
        assert database.execute(statement, values).rowcount > 0


def test_every_signed_column_is_in_the_list(cache):
    cache.put(1, k=1)
    with closing(sqlite3.connect(f"{cache.config.cache_dir}/{factory.SQLITE_FILE}")) as database:
        columns = {row[1] for row in database.execute("PRAGMA table_info(entries)")}
    assert columns - set(CHANGES) == {"namespace", "key", "replaced", "replaced_size"}


@pytest.mark.parametrize("value", [b"small", LARGE], ids=["inline", "blob"])
@pytest.mark.parametrize("column", CHANGES)
def test_a_row_with_one_changed_column_is_a_miss(signed, column, value):
    signed.put(value, k=1, ttl=3600, tags=["t"])
    execute(signed, f"UPDATE entries SET {column} = ?", CHANGES[column])
    hit = signed.lookup(k=1)
    if (column, value) == ("inline", LARGE):
        assert hit.value == value  # who names a blob carries no bytes; what stands there is not looked at
    else:
        assert hit is None
    signed.put(value, k=1)
    assert signed.get(k=1) == value


@pytest.mark.parametrize("column", ["mac", "key_id"])
def test_a_row_whose_signature_is_stripped_is_a_miss_and_is_not_listed(signed, column):
    signed.put("v", k=1)
    execute(signed, f"UPDATE entries SET {column} = ?", b"" if column == "mac" else "")
    assert signed.lookup(k=1) is None
    assert signed.list_entries() == []
    assert signed.verify_integrity().counts() == {"forged": 1}


def test_the_blob_of_another_entry_is_not_accepted(signed):
    one, other = (signed.put(random.Random(n).randbytes(100_000), n=n) for n in (1, 2))
    blobs = factory.open_blobs(signed.config)
    blobs.write(one.blob, [blobs.read(other.blob, other.size)])
    assert signed.lookup(n=1) is None
    assert signed.lookup(n=2) is not None


def test_a_row_moved_to_another_key_or_namespace_is_not_accepted(signed):
    signed.put("v", k=1)
    execute(signed, "UPDATE entries SET key = ?", signed.key(k=2).digest)
    assert signed.lookup(k=2) is None
    signed.put("v", k=1)
    execute(signed, "UPDATE entries SET namespace = 'other'")
    other = UnifiedCache(signed.config.but(namespace="other"))
    assert other.lookup(k=1) is None
    other.close()


def test_i4_unverified_bytes_never_reach_the_unpickler(signed, tmp_path):
    sang = tmp_path / "the canary sang"
    bomb = pickle.dumps(Canary(str(sang)), protocol=5)
    entry = signed.put(LARGE, k=1)
    factory.open_blobs(signed.config).write(entry.blob, [bomb])
    execute(signed, "UPDATE entries SET size = ?, raw_size = ?", len(bomb), len(bomb))
    assert signed.lookup(k=1) is None
    signed.put("small", k=2)
    execute(signed, "UPDATE entries SET inline = ? WHERE inline IS NOT NULL", bomb)
    assert signed.lookup(k=2) is None
    assert not sang.exists()
    pickle.loads(bomb)
    assert sang.exists()


def test_an_old_valid_pair_that_has_expired_is_not_accepted(signed):
    signed.put("old", k=1, ttl=0.000001)
    assert signed.lookup(k=1) is None
    execute(signed, "UPDATE entries SET expires_at = NULL")
    assert signed.lookup(k=1) is None


def test_old_keys_verify_and_the_first_signs(tmp_path):
    first, second = "a:the first of two keys", "b:the second of the keys"
    with UnifiedCache(cache_dir=tmp_path, signing_key=first) as cache:
        cache.put("old", k=1)
    with UnifiedCache(cache_dir=tmp_path, signing_key=f"{second},{first}") as cache:
        assert cache.get(k=1) == "old"
        cache.put("new", k=2)
    with UnifiedCache(cache_dir=tmp_path, signing_key=second) as cache:
        assert cache.lookup(k=1) is None
        assert cache.get(k=2) == "new"


def test_a_missing_key_file_is_an_error_and_never_made_anew_over_data(cache, tmp_path):
    cache.put("v", k=1)
    cache.close()
    (tmp_path / factory.KEY_FILE).unlink()
    with pytest.raises(ConfigError, match=r"signing\.key"):
        UnifiedCache(cache_dir=tmp_path)
    assert not (tmp_path / factory.KEY_FILE).exists()


def test_safe_codecs_neither_write_nor_read_pickles(tmp_path):
    import numpy as np

    with UnifiedCache(cache_dir=tmp_path) as cache:
        cache.put({"a": 1}, k=1)
        cache.put(np.arange(3), k=2)
    with UnifiedCache(cache_dir=tmp_path, safe_codecs=True) as cache:
        with pytest.raises(CodecError, match="safe_codecs"):
            cache.get(k=1)
        with pytest.raises(CodecError, match="safe_codecs"):
            cache.put({"a": 1}, k=3)
        assert list(cache.get(k=2)) == [0, 1, 2]


def test_secrets_do_not_show(tmp_path, caplog):
    secret = "hunter2hunter2hunter2"
    with UnifiedCache(cache_dir=tmp_path, signing_key=secret) as cache:
        cache.put("v", k=1)
        shown = [repr(cache), repr(cache.config), str(cache.stats()), repr(cache.lookup(k=1)), caplog.text]
    assert all(secret not in text for text in shown)
