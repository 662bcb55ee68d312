"""The command line, as a person meets it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cacheness import UnifiedCache

pytestmark = pytest.mark.slow

LARGE = random.Random(1).randbytes(100_000)


KEY = "0123456789abcdef0123"


def cacheness(*arguments: object, code: int = 0, typed: str = "", **environment: str) -> str:
    command = [sys.executable, "-W", "error", "-m", "cacheness", *map(str, arguments)]
    env = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, input=typed, timeout=60, check=False, env=env)
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
    for command in (
        "list",
        "stats",
        "verify",
        "disputes",
        "plan",
        "lineage",
        "evict",
        "clear",
        "copy",
        "migrate",
        "adopt",
    ):
        assert command in text


def test_list_shows_entries_as_a_table_or_as_json(directory):
    text = cacheness("list", "-d", directory)
    assert "x=1" in text
    assert "x='[red]'" in text
    (entry,) = json.loads(cacheness("list", "-d", directory, "--tag", "prices", "--json"))
    assert entry["args"] == {"x": 1}
    assert "1 of 2 entries shown" in cacheness("list", "-d", directory, "--limit", 1)


def test_disputes_are_listed_and_decided(directory: Path) -> None:
    with UnifiedCache(directory) as cache:
        kept, gone = cache.put("one", x="kept"), cache.put("one", x="gone")
        for entry in (kept, gone):
            assert cache.dispute(entry, None, None, "'one' is stored, 'two' was computed")
    assert "'two' was computed" in cacheness("disputes", "-d", directory, code=1)
    told = json.loads(cacheness("disputes", kept.cache_key[:20], "-d", directory, "--json", code=1))
    assert [one["cache_key"] for one in told] == [kept.cache_key]
    assert "no dispute about 0123" in cacheness("disputes", KEY, "-d", directory, code=2)
    assert "1 disputes settled" in cacheness("disputes", kept.cache_key, "-d", directory, "--keep", "old")
    assert "add --yes" in cacheness("disputes", "-d", directory, "--keep", "new", code=2)
    assert "deleted" in cacheness("disputes", "-d", directory, "--keep", "new", "--yes")
    assert "No disputes" in cacheness("disputes", "-d", directory)
    with UnifiedCache(directory) as cache:
        assert cache.get(kept) == "one"
        assert cache.lookup(gone) is None


def test_stats(directory):
    assert "2 entries" in cacheness("stats", "-d", directory)
    assert json.loads(cacheness("stats", "-d", directory, "--json"))["entries"] == 2


def test_verify_reports_and_repairs(directory):
    assert "No issues found" in cacheness("verify", "-d", directory, "--deep")
    (blob,) = (path for path in (directory / "blobs").rglob("*") if path.is_file() and path.name.count(".") == 2)
    blob.unlink()
    assert "1 dangling" in cacheness("verify", "-d", directory, code=1)
    assert "1 repaired" in cacheness("verify", "-d", directory, "--repair")
    assert json.loads(cacheness("verify", "-d", directory, "--json"))["issues"] == []


def test_clear_asks_first(directory):
    assert "add --yes" in cacheness("clear", "-d", directory, typed="y\n", code=2)  # nobody was asked
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
    assert "there is no cache in" in cacheness(command, "-d", tmp_path / "nowhere", code=3)
    assert not (tmp_path / "nowhere").exists()


def test_an_unknown_backend_is_named_and_a_password_is_not(tmp_path):
    text = cacheness("stats", "-m", "redis://me:hunter2@host/0", code=2)
    assert "redis" in text
    assert "hunter2" not in text


def test_into_a_pipe_each_entry_is_a_line_that_begins_with_its_whole_key(directory):
    with UnifiedCache(cache_dir=directory) as cache:
        cache.put(1, x="tab\tand\x1b[31mred", prefix="two\nlines")
        keys = sorted(entry.cache_key for entry in cache.iter_entries())
    lines = cacheness("list", "-d", directory).splitlines()
    assert [line.split("\t")[0] for line in lines] == keys
    assert len({line.count("\t") for line in lines}) == 1
    assert not any("\x1b" in line for line in lines)


def test_on_a_terminal_keys_are_short_and_a_heading_names_the_columns(directory):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "cacheness", "list", "-d", str(directory)]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env={**os.environ, "COLUMNS": "150"}):
        os.close(theirs)
        text = b""
        try:
            while data := os.read(ours, 4096):
                text += data
        except OSError:  # the other end was closed
            pass
    os.close(ours)
    with UnifiedCache(cache_dir=directory) as cache:
        key = next(cache.iter_entries()).cache_key.encode()
    assert b"arguments" in text
    assert key[:12] in text
    assert key[:13] not in text


def test_list_counts_what_matches_and_not_the_whole_cache(directory):
    with UnifiedCache(cache_dir=directory) as cache:
        for number in range(3):
            cache.put(number, number=number, tags=["prices"])
    assert "2 of 4 entries that match shown" in cacheness("list", "-d", directory, "--tag", "prices", "--limit", 2)
    assert "shown" not in cacheness("list", "-d", directory, "--tag", "prices", "--limit", 4)
    assert "2 of 5 entries shown" in cacheness("list", "-d", directory, "--limit", 2)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("list", "--limit", "-1"), "--limit"),
        (("list", "--limit", "0"), "--limit"),
        (("list", "--limit", "many"), "--limit"),
        (("verify", "--deep", "--sample", "0"), "--sample 0"),
        (("verify", "--deep", "--sample", "nan"), "--sample nan"),
        (("verify", "--deep", "--sample", "1.5"), "--sample 1.5"),
        (("verify", "--deep", "--sample", "-0.1"), "--sample -0.1"),
        (("verify", "--sample", "0.5"), "--deep"),
        (("verify", "--force"), "--repair"),
        (("list", "--namespace", "a b"), "namespace 'a b'"),
        (("lsit",), "lsit"),
        (("copy", "only-one"), "target"),
        (("copy", "{d}", "{d}"), "the same"),
        (("copy", "{d}", "{d}-new", "--to", "xml"), "xml"),
        (("copy", "{d}", "postgresql://nobody@127.0.0.1/x", "--to", "json"), "--to json"),
        (("copy", "{d}", "{d}-new", "--target-key", "@{d}/no-such-file"), "no-such-file"),
    ],
)
def test_what_cannot_be_meant_is_an_error_in_words_with_exit_code_2(directory, arguments, named):
    given = [argument.replace("{d}", str(directory)) for argument in arguments]
    where = [] if given[0] in ("copy", "lsit") else ["-d", directory]
    text = cacheness(*given, *where, code=2)
    assert named in " ".join(text.replace("│", " ").split())
    assert not Path(f"{directory}-new").exists()


def test_a_misspelt_variable_is_an_error_in_words(directory):
    assert "CACHENESS_NAMESPCE" in cacheness("stats", "-d", directory, code=2, CACHENESS_NAMESPCE="x")


def test_what_could_not_be_done_has_exit_code_3(directory, tmp_path):
    for place in (tmp_path / "nowhere", Path("x" * 300), directory / "signing.key"):
        assert f"no cache in {place.absolute()}: " in cacheness("stats", "-d", place, code=3)
        assert f"no cache in {place.absolute()}: " in cacheness("copy", place, tmp_path / "new", code=3)
    (directory / "metadata.sqlite").write_bytes(b"not a database" * 100)
    assert "not a SQLite database" in cacheness("list", "-d", directory, code=3)


def test_a_key_in_the_environment_leaves_a_directory_its_own(directory, tmp_path):
    shared = {"CACHENESS_SIGNING_KEY": KEY, "CACHENESS_BLOB_STORE": "s3://elsewhere"}
    assert "x=1" in cacheness("list", "-d", directory, **shared)
    assert "No issues found" in cacheness("verify", "-d", directory, "--deep", **shared)
    assert "2 entries copied" in cacheness("copy", directory, tmp_path / "new", **shared)
    with UnifiedCache(cache_dir=tmp_path / "new") as cache:
        assert cache.get(x=1) == LARGE


def test_a_copy_takes_a_key_for_each_end(tmp_path):
    other, old, new = "another key of 24 bytes.", tmp_path / "old", tmp_path / "new"
    with UnifiedCache(cache_dir=old, signing_key=other) as cache:
        cache.put("value", x=1)
        key = cache.key(x=1).hex
    text = cacheness("copy", old, new, code=1, CACHENESS_SIGNING_KEY=KEY)
    assert f"not copied: {key}" in text
    assert "1 entries were signed by a key that is not known for the source" in text
    (tmp_path / "key").write_text(other + "\n")
    given = ("--source-key", f"@{tmp_path}/key", "--target-key", KEY)
    assert "1 entries copied" in cacheness("copy", old, new, *given)
    with UnifiedCache(cache_dir=new, signing_key=KEY) as cache:
        assert cache.get(x=1) == "value"


def test_a_copy_names_what_it_leaves_out_and_copies_the_rest(directory, tmp_path):
    with UnifiedCache(cache_dir=directory) as cache:
        (blob,) = (path for path in (directory / "blobs").rglob("*") if path.is_file() and path.name.count(".") == 2)
        blob.write_bytes(b"short")
        key = cache.key(x=1).hex
    text = cacheness("copy", directory, tmp_path / "new", code=1)
    assert f"not copied: {key}: blob" in text
    assert "1 entries copied, 0 were there already, 1 unreadable" in text


def test_evict_shows_how_far_it_is_on_a_terminal_and_nowhere_else(directory):
    for is_terminal in (True, False):
        with UnifiedCache(cache_dir=directory) as cache, cache.write_batch():
            for n in range(5):
                cache.put(LARGE, ttl=0.001, expired=n)
        screen, theirs = os.openpty() if is_terminal else os.pipe()
        with subprocess.Popen(
            [sys.executable, "-m", "cacheness", "evict", "-d", str(directory)],
            stdout=subprocess.PIPE,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm"},
        ) as process:
            os.close(theirs)
            said, _ = process.communicate(timeout=60)
        shown = b""
        with contextlib.suppress(OSError):  # a terminal whose other side is closed ends like this
            while some := os.read(screen, 4096):
                shown += some
        os.close(screen)
        assert said == b"5 entries deleted\n"
        assert (b"evicting: 5 entries deleted" in shown) is is_terminal
        assert is_terminal or shown == b""


@pytest.mark.parametrize("command", ["verify", "copy", "clear", "evict"])
def test_ctrl_c_says_what_was_done(command, directory, tmp_path):
    """At a step that never ends, so that the signal always comes in the middle."""
    steps = {
        "verify": "UnifiedCache.verify_integrity",
        "copy": "Cache.publish",
        "clear": "UnifiedCache.clear",
        "evict": "UnifiedCache.evict",
    }
    arguments = {"copy": [str(directory), str(tmp_path / "new")], "clear": ["-y", "-d", str(directory)]}
    program = f"""
import sys, time
from cacheness.results.store import Cache
from cacheness.cache import UnifiedCache
def wait(*_, **__):
    print("there", flush=True)
    time.sleep(60)
{steps[command]} = wait
sys.argv = ["cacheness", {command!r}, *{arguments.get(command, ["-d", str(directory)])!r}]
from cacheness.cli import main
main()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"there\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    words = {"verify": "nothing was changed", "copy": "0 entries copied", "clear": "2 left", "evict": "2 left"}
    assert f"interrupted: {'looked at ' if command == 'verify' else ''}" in said.decode()
    assert words[command] in said.decode()
    assert b"Traceback" not in said


@pytest.mark.parametrize("arguments", [("list",), ("list", "--json"), ("stats",), ("stats", "--json"), ("verify",)])
def test_an_output_that_cannot_be_written_is_an_error_in_words(directory, arguments):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-W", "error", "-m", "cacheness", *arguments, "-d", str(directory)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.strip()) == (
        3,
        "error: the output could not be written: No space left on device",
    )


def test_an_output_that_nobody_reads_to_its_end_is_no_issue_that_was_found(directory):
    with UnifiedCache(cache_dir=directory) as cache:
        cache.put_many([(number, {"number": number}) for number in range(2000)])
    command = [sys.executable, "-m", "cacheness", "list", "--limit", "2000", "-d", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 3
