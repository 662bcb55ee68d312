"""What calls take: any name of a result for a key, and nothing that is misspelt."""

from __future__ import annotations

import os
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cacheness import CacheClosed, Codec, Config, Entry, UnifiedCache
from cacheness.config import CacheParameters
from cacheness.memoize import CachedOptions, Options
from cacheness.units import Duration, Size, Time


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[UnifiedCache]:
    with UnifiedCache(cache_dir=tmp_path) as cache:
        yield cache


NAMES: dict[str, Callable[[Entry, UnifiedCache], Any]] = {
    "an entry": lambda entry, _: entry,
    "its digest": lambda entry, _: entry.key,
    "its digits": lambda entry, _: entry.cache_key,
    "its key": lambda _, cache: cache.key(x=1),
}


@pytest.mark.parametrize("name", NAMES)
def test_every_call_takes_every_name_of_a_result(cache: UnifiedCache, name: str) -> None:
    entry = cache.put("value", x=1)
    key = NAMES[name](entry, cache)
    assert cache.get(key) == "value"
    assert cache.lookup(key) is not None
    assert list(cache.get_many([key])) == list(cache.present([key])) == [entry.cache_key]
    assert cache.touch(key, ttl=60)
    assert cache.invalidate(key)
    cache.put("again", key)
    cache.put_many([("at last", key), ("other", {"x": 2})])
    assert (cache.get(x=1), cache.get(x=2)) == ("at last", "other")


WRONG: dict[str, tuple[Callable[[UnifiedCache], Any], type[Exception], str]] = {
    "a text that is no key": (lambda c: c.get("prices"), ValueError, "'prices' is not a key"),
    "bytes that are no key": (lambda c: c.touch(b"prices"), ValueError, "is not a key"),
    "a number for a key": (lambda c: c.present([3]), TypeError, "3 is not a key"),
    "arguments as a dict": (lambda c: c.get({"x": 1}), TypeError, "Arguments are given by name"),
    "the key before the value": (lambda c: c.put("prices", 1), TypeError, "the value first"),
    "a digest before the value": (lambda c: c.put("0" * 64, [1]), TypeError, "the value first"),
    "an option of another call": (lambda c: c.get(x=1, ttl=3), TypeError, "get.. has no option 'ttl'"),
    "a misspelt option": (lambda c: c.cached(tll=3), TypeError, "Did you mean 'ttl'"),
    "an unknown option": (lambda c: c.cached(colour=3), TypeError, "Known: ttl, version"),
    "a misspelt parameter": (lambda c: UnifiedCache(blobstore="x"), TypeError, "Did you mean 'blob_store'"),
    "no function": (lambda c: c.explain("f"), TypeError, "'f' is not a function"),
    "deleting by tags": (lambda c: c.delete_matching(), TypeError, "needs a tag"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_call_says_what_is_wrong(cache: UnifiedCache, name: str) -> None:
    call, error, words = WRONG[name]
    with pytest.raises(error, match=words):
        call(cache)
    assert cache.list_entries() == []


def test_a_closed_cache_says_so(cache: UnifiedCache) -> None:
    cache.close()
    for call in (lambda: cache.get(x=1), lambda: cache.put(1, x=1), cache.stats, cache.clear):
        with pytest.raises(CacheClosed, match="closed"):
            call()


#: Parameters that may be given in another form than the one in which they are kept.
READ_AS: dict[str, Any] = {
    "cache_dir": str | os.PathLike[str],
    "inline_max_bytes": Size,
    "max_bytes": Size | None,
    "near": str | os.PathLike[str] | None,
    "near_bytes": Size,
    "ttl": Duration | None,
    "refresh_since": Time | None,
    **dict.fromkeys(("lease", "connect_timeout", "statement_timeout", "blob_timeout"), Duration),
    "codecs": Iterable[Codec | str] | str,
    **dict.fromkeys(("busy_timeout", "circuit_seconds"), Duration),
}


def test_type_checkers_know_every_parameter_and_option() -> None:
    assert list(CacheParameters.__annotations__) == list(Config.__dataclass_fields__)
    assert list(CachedOptions.__annotations__) == list(Options.__dataclass_fields__)
    config, parameters = typing.get_type_hints(Config), typing.get_type_hints(CacheParameters)
    kept_otherwise = {name for name in config if config[name] != parameters[name]}
    assert {name: parameters[name] for name in kept_otherwise} == READ_AS


def test_a_report_is_ok_when_nothing_is_wrong_any_more(cache: UnifiedCache, tmp_path: Path) -> None:
    cache.put(os.urandom(100_000), x=1)
    assert cache.verify_integrity().ok
    (blob,) = (path for path in (tmp_path / "blobs").rglob("*") if path.is_file() and path.stat().st_size > 1000)
    blob.unlink()
    assert not cache.verify_integrity().ok
    assert cache.verify_integrity(repair=True, force=True).ok
    assert cache.verify_integrity().ok
