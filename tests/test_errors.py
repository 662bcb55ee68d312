"""Bad input is answered in one paragraph that says what was wrong, where, and what to do."""

from __future__ import annotations

import ast
import logging
import os
import pickle
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from cacheness import (
    CachenessError,
    CodecError,
    ConfigError,
    MissingExtra,
    StoreRefused,
    StoreUnavailable,
    UnhashableArgument,
    UnifiedCache,
)
from cacheness.errors import SchemaMismatch

KEY = "a signing key of these tests"
LARGE = os.urandom(1 << 17)


def paragraph(error: BaseException) -> str:
    """The message, which must be one paragraph of whole sentences without a driver's ramblings."""
    text = str(error)
    assert "\n" not in text.strip()
    assert 30 < len(text) < 700
    assert "Traceback" not in text
    return text


@pytest.fixture
def nobody_listens() -> Iterator[int]:
    """A port on which nobody listens."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


def unreachable_database(port: int, s3_url: str) -> UnifiedCache:
    return UnifiedCache(
        metadata_backend=f"postgresql://nobody:secret-word@127.0.0.1:{port}/none", blob_store=s3_url, signing_key=KEY
    )


def test_an_unreachable_database_is_a_store_unavailable(nobody_listens: int, s3_url: str) -> None:
    with unreachable_database(nobody_listens, s3_url) as cache, pytest.raises(StoreUnavailable) as caught:
        cache.put("value", x=1)
    assert f"127.0.0.1:{nobody_listens}" in paragraph(caught.value)
    assert "secret-word" not in str(caught.value)


def test_an_unreachable_bucket_is_a_store_unavailable(nobody_listens: int, emptied_url: str) -> None:
    bucket = (
        f"s3://bucket/p?endpoint_url=http://127.0.0.1:{nobody_listens}&access_key_id=a&secret_access_key=secret-word"
    )
    with (
        UnifiedCache(metadata_backend=emptied_url, blob_store=bucket, signing_key=KEY) as cache,
        pytest.raises(StoreUnavailable) as caught,
    ):
        cache.put(LARGE, x=1)
    assert "bucket" in paragraph(caught.value)
    assert "secret-word" not in str(caught.value)


def test_a_wrong_database_password_is_a_store_refused(emptied_url: str, s3_url: str) -> None:
    wrong = emptied_url.replace(urlsplit(emptied_url).password or "", "wrong-word")
    with (
        pytest.raises(StoreRefused) as caught,
        UnifiedCache(metadata_backend=wrong, blob_store=s3_url, signing_key=KEY) as cache,
    ):
        cache.put("value", x=1)
    assert "password" in paragraph(caught.value)
    assert "wrong-word" not in str(caught.value)


def test_a_database_that_does_not_exist_is_a_store_refused(emptied_url: str, s3_url: str) -> None:
    wrong = emptied_url.rpartition("/")[0] + "/no_such_database"
    with (
        pytest.raises(StoreRefused) as caught,
        UnifiedCache(metadata_backend=wrong, blob_store=s3_url, signing_key=KEY) as cache,
    ):
        cache.put("value", x=1)
    assert "no_such_database" in paragraph(caught.value)


def test_wrong_s3_credentials_are_a_store_refused(emptied_url: str, s3_url: str) -> None:
    wrong = "&".join(
        option.partition("=")[0] + "=wrong-word" if "secret_access_key" in option else option
        for option in s3_url.split("&")
    )
    with (
        pytest.raises(StoreRefused) as caught,
        UnifiedCache(metadata_backend=emptied_url, blob_store=wrong, signing_key=KEY) as cache,
    ):
        cache.put(LARGE, x=1)
    assert "credentials" in paragraph(caught.value)
    assert "wrong-word" not in str(caught.value)


def test_a_bucket_that_does_not_exist_is_a_store_refused(emptied_url: str, s3_url: str) -> None:
    wrong = "s3://no-such-bucket/p?" + s3_url.partition("?")[2]
    with (
        pytest.raises(StoreRefused) as caught,
        UnifiedCache(metadata_backend=emptied_url, blob_store=wrong, signing_key=KEY) as cache,
    ):
        cache.put(LARGE, x=1)
    assert "no-such-bucket" in paragraph(caught.value)


def test_a_schema_newer_than_the_library_is_refused(tmp_path: Path) -> None:
    import sqlite3

    UnifiedCache(cache_dir=str(tmp_path)).close()
    with closing(sqlite3.connect(tmp_path / "metadata.sqlite")) as database, database:
        # What a later release leaves: the version it is, and the oldest reader that still understands it.
        database.execute("UPDATE schema_version SET version_num = '0099'")
        database.execute("UPDATE store SET min_reader = 99")
    with pytest.raises(SchemaMismatch) as caught:
        UnifiedCache(cache_dir=str(tmp_path)).put("value", x=1)
    assert "Upgrade cacheness" in paragraph(caught.value)


def test_an_unwritable_directory_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as caught:
        UnifiedCache(cache_dir=str(tmp_path / "file/cache"))
    assert "cache_dir" in paragraph(caught.value)


@pytest.mark.slow
def test_a_missing_extra_names_what_to_install(tmp_path: Path) -> None:
    """In a process in which psycopg cannot be imported."""
    code = """
import sys
sys.modules["psycopg"] = None
from cacheness import MissingExtra, UnifiedCache
try:
    cache = UnifiedCache(metadata_backend="postgresql://u@127.0.0.1/d", blob_store="memory://", signing_key="k" * 32)
    cache.put(1, x=1)
except MissingExtra as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    assert said.strip().endswith("pip install 'psycopg[binary]'")


def test_a_missing_extra_survives_a_pickle() -> None:
    error = pickle.loads(pickle.dumps(MissingExtra("s3fs", "s3", "reading s3:// through s3fs")))
    assert str(error) == str(MissingExtra("s3fs", "s3", "reading s3:// through s3fs"))
    assert error.extra == "s3"


def test_a_value_that_cannot_be_stored_is_a_codec_error(tmp_path: Path) -> None:
    with UnifiedCache(cache_dir=str(tmp_path)) as cache:
        with pytest.raises(CodecError) as caught:
            cache.put(threading.Lock(), x=1)
        assert "lock" in paragraph(caught.value)
        assert cache.list_entries() == []


def test_an_argument_that_cannot_be_hashed_names_the_path_to_it(tmp_path: Path) -> None:
    class Model:
        def __init__(self) -> None:
            self.lock = threading.Lock()

    with UnifiedCache(cache_dir=str(tmp_path)) as cache, pytest.raises(UnhashableArgument) as caught:
        cache.put("value", model={"a": Model()})
    text = paragraph(caught.value)
    assert "model" in text
    assert "lock" in text
    assert "ignore" in text
    assert "register" in text


def test_a_shared_cache_without_a_signing_key_does_not_open(emptied_url: str, s3_url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        UnifiedCache(metadata_backend=emptied_url, blob_store=s3_url)
    assert "CACHENESS_SIGNING_KEY" in paragraph(caught.value)


def test_shared_metadata_with_local_blobs_is_a_config_error(emptied_url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        UnifiedCache(metadata_backend=emptied_url, signing_key=KEY)
    assert "shared_path" in paragraph(caught.value)


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({"metadata_backend": "redis://host"}, "metadata_backend"),
        ({"metadata_backend": "sqllite"}, "metadata_backend"),
        ({"blob_store": "some/folder"}, "blob_store"),
        ({"blob_store": "s3://bucket?endpont_url=http://x"}, "endpont_url"),
        ({"namespace": "../up"}, "namespace"),
        ({"eviction": "random"}, "eviction"),
        ({"on_error": "ignore"}, "on_error"),
        ({"ttl": -1}, "ttl"),
    ],
)
def test_a_wrong_parameter_is_named(tmp_path: Path, parameters: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        UnifiedCache(cache_dir=str(tmp_path), **parameters)
    assert word in paragraph(caught.value)


def test_a_misspelt_parameter_is_named(tmp_path: Path) -> None:
    with pytest.raises((TypeError, ConfigError), match="cach_dir"):
        UnifiedCache(cach_dir=str(tmp_path))


def test_a_misspelt_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHENESS_CACHEDIR", "x")
    with pytest.raises(ConfigError, match="CACHENESS_CACHEDIR"):
        UnifiedCache.from_env()


def test_a_directory_of_another_kind_names_the_command_to_convert_it(tmp_path: Path) -> None:
    UnifiedCache(cache_dir=str(tmp_path)).close()
    with pytest.raises(ConfigError) as caught:
        UnifiedCache(cache_dir=str(tmp_path), metadata_backend="json")
    assert "cacheness copy" in paragraph(caught.value)


@pytest.mark.parametrize("key", ["abc", "g" * 64, "A" * 63])
def test_a_key_that_is_no_key_is_an_error(tmp_path: Path, key: str) -> None:
    with UnifiedCache(cache_dir=str(tmp_path)) as cache, pytest.raises(ValueError, match="64"):
        cache.get(key)


@pytest.mark.parametrize("option", ["ttl", "tags"])
def test_an_option_that_does_not_apply_is_never_an_argument(tmp_path: Path, option: str) -> None:
    with UnifiedCache(cache_dir=str(tmp_path)) as cache, pytest.raises(TypeError, match=option):
        cache.get(**{option: 1})


def test_every_error_of_ours_has_one_root(tmp_path: Path) -> None:
    from cacheness import errors

    for error in vars(errors).values():
        if isinstance(error, type):
            assert issubclass(error, CachenessError)


# The decorated function returns its result whatever the cache does.


def broken_database(nobody_listens: int, request: pytest.FixtureRequest, tmp_path: Path) -> UnifiedCache:
    return unreachable_database(nobody_listens, request.getfixturevalue("s3_url"))


def broken_disk(nobody_listens: int, request: pytest.FixtureRequest, tmp_path: Path) -> UnifiedCache:
    cache = UnifiedCache(cache_dir=str(tmp_path / "cache"))
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    return cache


@pytest.mark.parametrize("broken", [broken_database, broken_disk])
def test_a_decorated_function_returns_its_result_when_the_cache_fails(
    broken: Callable[..., UnifiedCache],
    nobody_listens: int,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with broken(nobody_listens, request, tmp_path) as cache:

        @cache.cached
        def double(x: int) -> bytes:
            return LARGE * x

        with caplog.at_level(logging.WARNING, "cacheness"):
            assert double(1) == LARGE
            assert double(2) == LARGE * 2
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_a_decorated_function_returns_what_cannot_be_stored(tmp_path: Path) -> None:
    with UnifiedCache(cache_dir=str(tmp_path)) as cache:

        @cache.cached
        def lock() -> Any:
            return threading.Lock()

        assert lock().acquire(blocking=False)


FOLDERS = ("core/cacheness", "cacheness_dask", "cacheness_prefect")
LOGGED = ("debug", "info", "warning", "error", "exception")


def _messages(path: Path) -> Iterator[tuple[int, str, str]]:
    """Where a file raises or logs a text: the line, how the text begins, and how it ends."""
    for node in ast.walk(ast.parse(path.read_text())):
        call = node.exc if isinstance(node, ast.Raise) else node
        if not isinstance(call, ast.Call) or not call.args:
            continue
        logs = isinstance(call.func, ast.Attribute) and call.func.attr in LOGGED
        if not isinstance(node, ast.Raise) and not logs:
            continue
        first = call.args[0]
        parts = first.values if isinstance(first, ast.JoinedStr) else [first]
        ends = [part.value if isinstance(part, ast.Constant) else "x" for part in (parts[0], parts[-1])]
        if isinstance(first, ast.JoinedStr | ast.Constant) and all(isinstance(end, str) for end in ends):
            yield node.lineno, ends[0], ends[1]


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS)
def test_messages_begin_small_and_end_without_a_full_stop(folder: str) -> None:
    root = Path(__file__).parent.parent
    wrong = [
        f"{path.relative_to(root)}:{line}: {begin[:30]!r} … {end[-30:]!r}"
        for path in sorted((root / folder).rglob("*.py"))
        for line, begin, end in _messages(path)
        if re.match(r"[A-Z][a-z]*[ ,;:]", begin) or end.endswith(".")
    ]
    assert wrong == []


#: Names from elsewhere, and what has to be in the answer.
ELSEWHERE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "cacheness.Memory": (lambda cache: __import__("cacheness").Memory, "UnifiedCache("),
    "cache.memoize": (lambda cache: cache.memoize, "@cache.cached"),
    "cache.set": (lambda cache: cache.set, "cache.put(value"),
    "f.cache_clear": (lambda cache: cache.cached(max).cache_clear, "delete_matching"),
    "maxsize=": (lambda cache: UnifiedCache(maxsize=3), "Did you mean 'max_bytes'"),
    "directory=": (lambda cache: UnifiedCache(directory="d"), "Did you mean 'cache_dir'"),
    "timeout=": (lambda cache: cache.cached(timeout=3), "Did you mean 'ttl'"),
    "maxsize= of cached": (lambda cache: cache.cached(maxsize=3), "no option 'maxsize'. Known"),
    "cache['k']": (lambda cache: cache["k"], "not a dictionary: write cache.get(name="),
    "cache['k'] = v": (lambda cache: cache.__setitem__("k", 1), "write cache.put(value, name="),
    "del cache['k']": (lambda cache: cache.__delitem__("k"), "write cache.invalidate(name="),
    "'k' in cache": (lambda cache: "k" in cache, "write cache.lookup(name=…) is not None"),
    "len(cache)": (len, 'write cache.stats()["entries"]'),
    "for k in cache": (list, "write cache.list_entries()"),
    "cache.get('k')": (lambda cache: cache.get("k"), "Arguments are given by name: name='k'"),
    "cache.transact": (lambda cache: cache.transact(), "write cache.write_batch()"),
    "above a property": (lambda cache: cache.cached(property(str)), "put @cached below @property"),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_names_from_elsewhere_are_answered_with_what_to_write(name: str, tmp_path: Path) -> None:
    use, answer = ELSEWHERE[name]
    with UnifiedCache(tmp_path) as cache, pytest.raises((AttributeError, TypeError, ValueError)) as caught:
        use(cache)
    assert answer in str(caught.value)


def test_what_is_answered_in_place_of_names_from_elsewhere_exists(tmp_path: Path) -> None:
    from cacheness import Config, elsewhere
    from cacheness.memoize import Cached, CachedOptions

    tables = (elsewhere.OF_MODULE, elsewhere.OF_CACHE, elsewhere.OF_DICTIONARY, elsewhere.OF_FUNCTION)
    shown = " ".join(answer for table in tables for answer in table.values())
    with UnifiedCache(tmp_path) as cache:
        assert all(hasattr(cache, name) for name in re.findall(r"\bcache\.(\w+)", shown))
        assert all(hasattr(cache.cached(str), name) for name in re.findall(r"\bf\.(\w+)", shown))
        assert not any(hasattr(cache, name) for name in elsewhere.OF_CACHE)
        assert not any(hasattr(Cached, name) for name in elsewhere.OF_FUNCTION)
    parameters = {*Config.__dataclass_fields__, *CachedOptions.__annotations__}
    assert set(elsewhere.OF_CALLS.values()) <= parameters
    assert parameters.isdisjoint(elsewhere.OF_CALLS)


def test_a_cache_is_true_and_one_thing_for_libraries(tmp_path: Path) -> None:
    with UnifiedCache(tmp_path) as cache:
        assert cache
        assert np.array([cache, None], dtype=object).shape == (2,)
        assert np.array([cache]).tolist() == [cache]
        assert repr(pickle.loads(pickle.dumps(cache))) == repr(cache)


def test_a_directory_whose_name_has_a_nul_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"cannot be made: .*null"):
        UnifiedCache("a\0b")
