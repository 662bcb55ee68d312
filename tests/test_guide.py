"""The troubleshooting guide's snippets run as written there, and what the guide promises has its test.

Where a promise is kept by a test elsewhere, the line here names it:

- SQLite "database is locked": tests/metadata/test_contracts.py, tests/crash/test_storm.py
- PostgreSQL for high concurrency: tests/metadata/test_postgresql.py, tests/crash/test_storm.py
- Orphaned blobs beside live writers: tests/integrity, tests/crash
- JSON that does not degrade: tests/metadata/test_contracts.py
- Import errors: tests/test_errors.py::test_a_missing_extra_names_what_to_install
- Key collisions: tests/keys
- Thread safety: tests/metadata/test_contracts.py, tests/crash/test_storm.py
- A dirty cache directory or a stale database does not matter to the tests: every test takes fresh ones, see conftest.py
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cacheness import UnifiedCache

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "tests/guide.md").read_text()
SNIPPETS = dict(re.findall(r"^## (.+?)\n```python\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE))
LARGE = 1 << 20  #: bytes; kept as a blob, not in the row


def run(snippet: str, **names: Any) -> dict[str, Any]:
    exec(compile(SNIPPETS[snippet], snippet, "exec"), names)
    return names


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def cache_with_an_orphan() -> UnifiedCache:
    """A writer is killed between the blob and the row."""
    killed = """
import os, signal
from cacheness import UnifiedCache
from cacheness.metadata.sqlite import SqliteStore

SqliteStore.commit = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
UnifiedCache(cache_dir="./cache").put(os.urandom(1 << 20), x=1)
"""
    writer = subprocess.run([sys.executable, "-c", killed], check=False)
    assert writer.returncode == -9
    return UnifiedCache(cache_dir="./cache")


def test_every_promise_kept_elsewhere_names_a_test_that_exists() -> None:
    named = re.findall(r"tests/[a-z_/]+(?:\.py)?", __doc__ or "")
    assert len(named) > 5
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_snippet_has_a_test() -> None:
    assert len(SNIPPETS) == GUIDE.count("```python") == 7


@pytest.mark.slow
def test_an_orphan_is_found_and_cleaned_up(
    cache_with_an_orphan: UnifiedCache, capsys: pytest.CaptureFixture[str]
) -> None:
    run("Orphaned blobs: detect", cache=cache_with_an_orphan)
    run("Orphaned blobs: detect", cache=cache_with_an_orphan)
    run("Orphaned blobs: clean up", cache=cache_with_an_orphan)
    run("Orphaned blobs: detect", cache=cache_with_an_orphan)
    found, again, cleaned, left = capsys.readouterr().out.splitlines()
    assert found == again == "Found 1 orphaned blobs"
    assert cleaned == "Cleaned up 1 orphaned blobs"
    assert left == "Found 0 orphaned blobs"


@pytest.mark.slow
def test_entries_against_the_files_show_the_orphan(cache_with_an_orphan: UnifiedCache) -> None:
    cache_with_an_orphan.put(os.urandom(LARGE), x=2)
    blobs = [path for path in Path("cache/blobs/default").rglob("*") if path.is_file()]
    assert len(cache_with_an_orphan.list_entries()) == 1
    assert len(blobs) == 2


def test_sqlite_opens_by_name() -> None:
    cache = run("JSON backend: switch to SQLite", UnifiedCache=UnifiedCache)["cache"]
    cache.put("value", x=1)
    assert cache.get(x=1) == "value"


@pytest.mark.slow
def test_the_migration_loop_gives_hits_under_the_same_arguments() -> None:
    puts: list[tuple[Any, dict[str, Any]]] = [
        ("small", {"x": 1, "y": "a"}),
        (list(range(LARGE)), {"x": (1, 2.5, None), "prefix": "clean"}),
        ("clash", {"args": {"ttl": 3, "prefix": 4}}),
        ("versioned", {"x": 1, "version": "2", "prefix": "p"}),
        ("bytes and text", {"x": b"", "y": ""}),
    ]
    with UnifiedCache(cache_dir="./cache", metadata_backend="json") as old:
        for value, arguments in puts:
            old.put(value, **arguments)
        old.put(np.arange(10), big=np.arange(LARGE))
    new = run("JSON backend: migrate", UnifiedCache=UnifiedCache)["new_cache"]
    for value, arguments in puts:
        assert new.lookup(**arguments).value == value
    assert new.lookup(big=np.arange(LARGE)).value.tolist() == list(range(10))
    assert len(new.list_entries()) == len(puts) + 1


def test_a_mutable_default_that_changes_is_not_mistaken_for_the_old_one() -> None:
    run("Key collisions: mutable defaults")
    cache = UnifiedCache(cache_dir="./cache")
    seen = []

    @cache.cached
    def process(data={}):  # noqa: B006
        seen.append(1)
        return sorted(data)

    assert process() == process() == []
    process.__wrapped__.__defaults__[0]["x"] = 1
    assert process() == ["x"]
    assert len(seen) == 2


def test_objects_count_by_what_they_hold_not_by_their_repr() -> None:
    my_type = run("Key collisions: repr")["MyType"]
    cache = UnifiedCache(cache_dir="./cache")
    one, two, other = my_type(), my_type(), my_type()
    one.field = two.field = 1
    other.field = 2
    cache.put("result", x=one)
    assert cache.get(x=two) == "result"
    assert cache.lookup(x=other) is None


def test_a_prefix_keeps_operations_apart() -> None:
    cache = UnifiedCache(cache_dir="./cache")
    run("Key collisions: prefix", cache=cache, result="result", x=1, y=2)
    assert cache.get(x=1, y=2, prefix="unique_operation") == "result"
    assert cache.lookup(x=1, y=2) is None
    assert cache.lookup(x=1, y=2, prefix="another_operation") is None


def test_named_parameters_and_kwargs_do_not_collide() -> None:
    cache = UnifiedCache(cache_dir="./cache")

    @cache.cached
    def affect(a, **kwargs):
        return a, kwargs

    assert affect(1, kwargs=2) == (1, {"kwargs": 2})
    assert affect(1, b=2) == (1, {"b": 2})
    assert affect(a=1) == affect(1) == (1, {})
