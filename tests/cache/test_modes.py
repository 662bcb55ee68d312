"""Modes: what each call does, which mode counts, what a run that refreshes computes, what a reader needs."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from cacheness import Config, ConfigError, ModeRefused, NotCached, StoreUnavailable, UnifiedCache
from cacheness.modes import MODES
from cacheness.testing.proxy import Proxy
from tests.cache.table_of_modes import cells
from tests.conftest import SIGNING_KEY
from tests.keys.edits import load

LARGE = os.urandom(60_000)


class _Waiting:
    """A cached coroutine function, each call of which is awaited."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, x: int) -> Any:
        return asyncio.run(self.function(x))

    def refresh(self, x: int) -> Any:
        return asyncio.run(self.function.refresh(x))


INCOMPLETE = "running = (n for n in range(9))\ndef f(x): return next(running)\n"


class Calls:
    """One call in one mode, and what it did."""

    def __init__(self, directory: Path, mode: Any, *, in_loop: bool = False) -> None:
        self.in_loop = in_loop
        self.writer = UnifiedCache(directory)
        self.writer.put("old", a=1)
        self.computed: list[int] = []
        self.function(self.writer)(1)
        self.computed.clear()
        self.before = self.rows()
        self.cache = UnifiedCache(directory, mode=mode)

    def function(self, cache: UnifiedCache, **options: Any) -> Any:
        computed = self.computed

        @cache.cached(**options)
        def double(x: int) -> int:
            computed.append(x)
            return 2 * x

        @cache.cached(**options)
        async def double_in_loop(x: int) -> int:
            computed.append(x)
            return 2 * x

        return _Waiting(double_in_loop) if self.in_loop else double

    def rows(self) -> set[tuple[str, int]]:
        return {(entry.cache_key, entry.created_at) for entry in self.writer.iter_entries()}

    def get(self, **args: int) -> str:
        found = self.cache.get(default="default", **args)
        lookup, many = self.cache.lookup(**args), self.cache.get_many([self.cache.key(**args)])
        present = self.cache.present([self.cache.key(**args)])
        assert (lookup is not None, len(many), len(present)) == (found == "old",) * 3
        return "value" if found == "old" else str(found)

    def put(self) -> str:
        self.cache.put("new", a=1)
        return "stored" if self.writer.get(a=1) == "new" else "not stored"

    def call(self, x: int, **options: Any) -> str:
        return self._outcome(self.function(self.cache, **options), x)

    def incomplete(self) -> str:
        function = self.cache.cached(incomplete="refuse")(load(INCOMPLETE, "incomplete").f)
        assert (function(1), function(2)) == (0, 1)
        return "computed" + ", stored" * (self.rows() != self.before)

    def refresh(self) -> str:
        return self._outcome(self.function(self.cache).refresh, 1)

    def _outcome(self, function: Callable[[int], int], x: int) -> str:
        assert function(x) == 2 * x
        stored = ", stored" * (self.rows() != self.before)
        return ("computed" if self.computed else "loaded") + stored

    def all_of(self, *calls: Callable[[UnifiedCache], object]) -> str:
        def done(call: Callable[[UnifiedCache], object]) -> str:
            call(self.cache)
            return "done"

        outcomes = {_outcome_of(partial(done, call)) for call in calls}
        assert len(outcomes) == 1
        return outcomes.pop()


def _outcome_of(call: Callable[[], str]) -> str:
    try:
        return call()
    except (ModeRefused, NotCached) as error:
        return type(error).__name__


ROWS: dict[str, Callable[[Calls], str]] = {
    "`get`, there": lambda calls: calls.get(a=1),
    "`get`, not there": lambda calls: calls.get(a=2),
    "`put`": Calls.put,
    "`touch`, `invalidate`, `delete_matching`, `clear`": lambda calls: calls.all_of(
        lambda cache: cache.touch(a=1),
        lambda cache: cache.invalidate(a=1),
        lambda cache: cache.delete_matching(older_than=0),
        UnifiedCache.clear,
    ),
    "`evict`, `verify_integrity(repair=True)`, `adopt`": lambda calls: calls.all_of(
        UnifiedCache.evict, lambda cache: cache.verify_integrity(repair=True), UnifiedCache.adopt
    ),
    "`@cached` function, there": lambda calls: calls.call(1),
    "`@cached` function, not there": lambda calls: calls.call(2),
    "`@cached` function that cannot be cached": Calls.incomplete,
    "`f.refresh()`": Calls.refresh,
}


@pytest.mark.parametrize(("call", "mode", "does"), cells(*ROWS))
def test_each_call_does_what_the_table_says(call: str, mode: str, does: str, tmp_path: Path) -> None:
    calls = Calls(tmp_path, mode)
    assert _outcome_of(lambda: ROWS[call](calls)) == does
    if "stored" not in does and does != "done":
        assert calls.rows() == calls.before


@pytest.mark.parametrize("call", ["`@cached` function, there", "`@cached` function, not there", "`f.refresh()`"])
@pytest.mark.parametrize("mode", MODES)
def test_coroutine_functions_do_the_same(call: str, mode: str, tmp_path: Path) -> None:
    calls = Calls(tmp_path, mode, in_loop=True)
    (does,) = [done for _, in_mode, done in cells(call) if in_mode == mode]
    assert _outcome_of(lambda: ROWS[call](calls)) == does


@pytest.mark.parametrize("told", MODES)
@pytest.mark.parametrize("given", MODES)
def test_the_narrower_mode_counts(given: Any, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHENESS_MODE", told)
    with UnifiedCache(tmp_path, mode=given) as cache:
        assert cache.config.mode == MODES[min(MODES.index(given), MODES.index(told))]
        with pickle.loads(pickle.dumps(cache)) as again:
            assert again.config == cache.config


@pytest.mark.parametrize("wrong", ["on", "readonly", "read,write"])
def test_a_mode_that_is_not_known_is_an_error(wrong: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="off, offline, read, refresh, readwrite"):
        UnifiedCache(tmp_path, mode=wrong)
    monkeypatch.setenv("CACHENESS_MODE", wrong)
    with pytest.raises(ConfigError, match="off, offline, read, refresh, readwrite"):
        UnifiedCache(tmp_path)


def test_offline_names_the_function_and_what_is_different(tmp_path: Path) -> None:
    def double(x: int) -> int:
        return 2 * x

    with UnifiedCache(tmp_path) as cache, UnifiedCache(tmp_path, mode="offline") as offline:
        cache.cached(double)(1)
        with pytest.raises(NotCached, match=r"double has no cached result.*arg `x` 1 -> 2"):
            offline.cached(double)(2)


def test_offline_does_not_compute_when_the_cache_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise StoreUnavailable("it is down")

    with UnifiedCache(tmp_path) as cache, UnifiedCache(tmp_path, mode="offline") as offline:
        cache.cached(abs)(1)
        monkeypatch.setattr(offline, "peek", fail)
        with pytest.raises(NotCached, match="could not be read"):
            offline.cached(abs)(1)


def test_off_opens_nothing(tmp_path: Path) -> None:
    with UnifiedCache(tmp_path / "a", mode="off") as cache:
        assert cache.get(a=1, default=3) == 3
        assert (cache.list_entries(), list(cache.iter_entries()), cache.functions()) == ([], [], [])
        assert cache.cached(abs)(-1) == 1
        for question in (cache.stats, cache.verify_integrity, lambda: cache.compute_leases):
            with pytest.raises(ModeRefused, match="off"):
                question()
    assert not (tmp_path / "a").exists()


# refresh

PART_OF_A_RUN = """
import sys
from cacheness import UnifiedCache
cache = UnifiedCache.from_env()
@cache.cached
def shared(x):
    open(sys.argv[1], "a").write("x")
    return x
@cache.cached
def result(x):
    return shared(0) + x
assert result(int(sys.argv[2])) == int(sys.argv[2])
"""


def test_a_shared_helper_is_computed_once_in_all_processes_of_a_run(tmp_path: Path) -> None:
    count = tmp_path / "count"
    (tmp_path / "part.py").write_text(PART_OF_A_RUN)
    with UnifiedCache(tmp_path / "cache") as cache:
        start = cache.now()

    def run(part: int, **environment: str) -> str:
        own = {"CACHENESS_CACHE_DIR": str(tmp_path / "cache"), **environment}
        command = [sys.executable, str(tmp_path / "part.py"), str(count), str(part)]
        subprocess.run(command, env=os.environ | own, check=True)
        return count.read_text()

    assert run(1) == "x"
    assert run(1, CACHENESS_MODE="refresh") == "xx"
    with UnifiedCache(tmp_path / "cache") as cache:
        start = cache.now()
    for part in (1, 2):
        assert run(part, CACHENESS_MODE="refresh", CACHENESS_REFRESH_SINCE=repr(start)) == "xxx"


def test_every_handle_of_a_process_is_in_the_same_run(tmp_path: Path) -> None:
    with UnifiedCache(tmp_path, mode="refresh") as one:
        one.put(1, a=1)
        with UnifiedCache(tmp_path, mode="refresh") as other, pickle.loads(pickle.dumps(one)) as sent:
            assert (other.get(a=1), sent.get(a=1)) == (1, 1)
            assert other.config == sent.config == one.config


@pytest.mark.parametrize("text", ["1700000000", "1700000000.0", "2023-11-14T22:13:20+00:00", "2023-11-14T22:13:20Z"])
def test_the_start_of_a_run_is_read_in_every_spelling(text: str) -> None:
    assert Config.from_env({"CACHENESS_REFRESH_SINCE": text}).refresh_since == 1_700_000_000
    assert Config(refresh_since=datetime.fromtimestamp(1_700_000_000, UTC)).refresh_since == 1_700_000_000


@pytest.mark.parametrize("wrong", ["soon", "2023-11-14T22:13:20", -1, True, [], float("nan"), "1e400"])
def test_what_is_no_time_is_an_error(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="refresh_since cannot be used"):
        Config(refresh_since=wrong)


# read


@pytest.mark.parametrize("kind", ["sqlite", "json"])
def test_a_run_that_reads_a_cache_that_is_not_there_yet_computes(tmp_path: Path, kind: str) -> None:
    with UnifiedCache(tmp_path / "not/there", metadata_backend=kind, mode="read") as reader:
        assert (reader.get(a=1), reader.cached(abs)(-2)) == (None, 2)
        assert list(reader.list_entries()) == []
        with UnifiedCache(tmp_path / "not/there", metadata_backend=kind) as writer:
            writer.put("kept", a=1)
        assert reader.get(a=1) == "kept"


DENIED = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'


@pytest.mark.parametrize("engine", ["obstore", "s3fs"])
def test_reading_needs_a_role_that_may_select_and_keys_that_may_get(
    postgres_url: str, s3_url: str, engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    role, parts = f"reads_{urlsplit(postgres_url).path.lstrip('/')}", urlsplit(postgres_url)
    computed: list[int] = []

    def double(x: int) -> int:
        computed.append(x)
        return 2 * x

    with UnifiedCache(metadata_backend=postgres_url, blob_store=s3_url, signing_key=SIGNING_KEY) as owner:
        owner.put(LARGE, n=0)
        owner.put(1, n=1)
        owner.cached(double)(1)
    with psycopg.connect(postgres_url, autocommit=True) as connection, Proxy.before(s3_url) as proxy:
        for right in (b"PUT /", b"DELETE /", b"POST /", b"list-type=2", b"?uploads"):
            proxy.answer(right, 403, DENIED)
        for statement in (
            f"CREATE ROLE {role} LOGIN PASSWORD 'secret'",
            f"GRANT USAGE ON SCHEMA cacheness TO {role}",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA cacheness TO {role}",
        ):
            connection.execute(statement.encode())
        try:
            url = parts._replace(netloc=f"{role}:secret@{parts.netloc.rpartition('@')[2]}").geturl()
            bucket = f"{proxy.url}&engine={engine}"
            where = {"metadata_backend": url, "blob_store": bucket, "signing_key": SIGNING_KEY}
            for mode in ("read", "offline"):
                computed.clear()
                with UnifiedCache(mode=mode, **where) as cache:
                    assert (cache.get(n=0), cache.get(n=1), cache.get(n=2)) == (LARGE, 1, None)
                    assert len(cache.get_many([cache.key(n=0), cache.key(n=1)])) == 2
                    assert cache.cached(double)(1) == 2
                    assert len(cache.list_entries()) == 3
                    assert cache.stats()["entries"] == 3
                    assert {finding.part: finding.ok for finding in cache.diagnose()} == {
                        "clock": True,
                        "connections": True,
                        "libraries": True,
                        "reading": True,
                    }
                    if mode == "read":
                        assert (cache.cached(double)(2), computed) == (4, [2])
            asked = {request.split()[0] for request in proxy.requests if request[:1].isalpha()}
            assert asked <= {b"GET", b"HEAD"}
            assert not any(b"list-type=2" in request for request in proxy.requests)
        finally:
            connection.execute(f"DROP OWNED BY {role}".encode())
            connection.execute(f"DROP ROLE {role}".encode())
        uses = connection.execute("SELECT coalesce(sum(hits), 0) FROM cacheness.uses").fetchone()
        assert uses == (0,)
        for table in (b"compute_leases", b"sessions"):
            rows = connection.execute(b"SELECT count(*) FROM cacheness." + table).fetchone()
            assert rows is not None
            assert rows[0] <= (table == b"sessions")  # the owner's
    ours = [record for record in caplog.records if record.name.startswith("cacheness")]
    assert not [record.getMessage() for record in ours if record.levelno >= logging.WARNING]
