"""The command line, as a person meets it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from cacheness import UnifiedCache

LARGE = random.Random(1).randbytes(100_000)


def cacheness(*arguments: object, code: int = 0, typed: str = "") -> str:
    command = [sys.executable, "-W", "error", "-m", "cacheness", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, input=typed, timeout=60, check=False)
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def directory(tmp_path) -> Path:
    with UnifiedCache(cache_dir=tmp_path / "cache") as cache:
        cache.put(LARGE, x=1, tags=["prices"])
        cache.put("[bold]small[/]", x="[red]")
    return tmp_path / "cache"


def test_help_names_every_command():
    text = cacheness("-h")
    for command in ("list", "stats", "verify", "evict", "clear", "copy", "migrate", "adopt"):
        assert command in text


def test_list_shows_entries_as_a_table_or_as_json(directory):
    text = cacheness("list", "-d", directory)
    assert "x=1" in text
    assert "x='[red]'" in text
    (entry,) = json.loads(cacheness("list", "-d", directory, "--tag", "prices", "--json"))
    assert entry["args"] == {"x": 1}
    assert "1 of 2 entries shown" in cacheness("list", "-d", directory, "--limit", 1)


def test_stats(directory):
    assert "2 entries" in cacheness("stats", "-d", directory)
    assert json.loads(cacheness("stats", "-d", directory, "--json"))["entries"] == 2


def test_verify_reports_and_repairs(directory):
    assert "No issues found" in cacheness("verify", "-d", directory, "--deep")
    (blob,) = (path for path in (directory / "blobs").rglob("*") if path.is_file() and path.name.count(".") == 2)
    blob.unlink()
    assert "1 dangling" in cacheness("verify", "-d", directory, code=2)
    assert "1 repaired" in cacheness("verify", "-d", directory, "--repair")
    assert json.loads(cacheness("verify", "-d", directory, "--json"))["issues"] == []


def test_clear_asks_first(directory):
    cacheness("clear", "-d", directory, typed="n\n", code=1)
    assert "2 entries" in cacheness("stats", "-d", directory)
    assert "2 entries deleted" in cacheness("clear", "-d", directory, "--yes")
    assert "No entries" in cacheness("list", "-d", directory)


def test_copy_converts_and_goes_on(directory, tmp_path):
    target = tmp_path / "converted"
    assert "2 entries copied" in cacheness("copy", directory, target, "--to", "json")
    assert "2 were there already" in cacheness("copy", directory, target)
    with UnifiedCache(cache_dir=target, metadata_backend="json") as cache:
        assert cache.get(x=1) == LARGE


def test_evict_adopt_and_migrate(directory):
    assert "0 entries deleted" in cacheness("evict", "-d", directory)
    assert "owns the blob store" in cacheness("adopt", "-d", directory, "--yes")
    assert "already" in cacheness("migrate", "-d", directory)


@pytest.mark.parametrize("command", ["list", "stats", "verify", "evict"])
def test_a_directory_without_a_cache_is_an_error_and_stays_empty(command, tmp_path):
    assert "there is no cache in" in cacheness(command, "-d", tmp_path / "nowhere", code=1)
    assert not (tmp_path / "nowhere").exists()


def test_an_unknown_backend_is_named_and_a_password_is_not(tmp_path):
    text = cacheness("stats", "-m", "redis://me:hunter2@host/0", code=1)
    assert "redis" in text
    assert "hunter2" not in text
