"""The command line, as a person meets it."""

from __future__ import annotations

import collections
import contextlib
import importlib.abc
import io
import json
import os
import pty
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import types
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from cacheness import UnifiedCache, __version__
from cacheness.blobs.local import LocalBlobStore
from cacheness.cli import children, main, screen
from cacheness.cli.commands import app
from cacheness.cli.endings import CouldNot, Misuse
from cacheness.errors import RepairRefused, StoreRefused
from cacheness.maintenance.doctor import diagnose
from cacheness.maintenance.prometheus import text_of
from cacheness.memoize import acceptances
from cacheness.page.views import overview
from cacheness_prefect.figures_report import text_of as markdown_of
from tests.commands import one_after_the_other, parts_of, program
from tests.conftest import SIGNING_KEY
from tests.demo_calls import Colour, double, typed

pytestmark = pytest.mark.slow

LARGE = random.Random(1).randbytes(100_000)


KEY = "0123456789abcdef0123"


def cacheness(*arguments: object, code: int = 0, typed: str = "", **environment: str) -> str:
    """What a command says, from its `main` on. Processes of their own are in test_commands.py."""
    said = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        patch.setattr(sys, "argv", ["cacheness", *map(str, arguments)])
        patch.setattr(sys, "stdin", io.StringIO(typed))
        for name, value in environment.items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as end:
            main()
    assert (end.value.code or 0) == code, said.getvalue()
    return said.getvalue()


@pytest.fixture
def directory(tmp_path) -> Path:
    with UnifiedCache(cache_dir=tmp_path / "cache") as cache:
        cache.put(LARGE, x=1, tags=["prices"])
        cache.put("[bold]small[/]", x="[red]")
    return tmp_path / "cache"


def test_help_names_every_command():
    text = cacheness("-h")
    looking = "list show explain report top stats delete verify audit disputes plan accept lineage keys doctor"
    for command in f"{looking} evict clear copy import migrate adopt".split():
        assert command in text


def test_the_version_needs_no_command():
    assert CliRunner().invoke(app, ["--version"]).output == f"cacheness {__version__}\n"


def test_list_shows_entries_as_a_table_or_as_json(directory):
    text = cacheness("list", "-d", directory)
    assert "x=1" in text
    assert "x='[red]'" in text
    (entry,) = json.loads(cacheness("list", "-d", directory, "--tag", "prices", "--json"))
    assert entry["args"] == {"x": 1}
    assert "1 of 2 entries shown" in cacheness("list", "-d", directory, "--limit", 1)


def test_keys_are_made_listed_trusted_and_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def keys(*arguments: object, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["keys", *map(str, arguments)])
        assert done.exit_code == code, done.output
        return str(done.stdout).strip()

    public = cacheness("keys", "new", "ci", "--to", tmp_path / "ci.key").strip()
    assert (tmp_path / "ci.key").stat().st_mode & 0o077 == 0
    with pytest.raises(CouldNot, match="exists already"):
        app(["keys", "new", "ci", "--to", str(tmp_path / "ci.key")], standalone_mode=False)
    with pytest.raises(Misuse, match="1 to 32 letters"):
        app(["keys", "new", "bad name"], standalone_mode=False)
    new = json.loads(keys("new", "ci-2", "--json"))
    old = (tmp_path / "ci.key").read_text().strip()
    where = ("-d", tmp_path / "cache")

    monkeypatch.setenv("CACHENESS_SIGNING_KEY", old)
    with UnifiedCache(tmp_path / "cache", signing_key=old) as cache:
        cache.put(LARGE, x=1)
        cache.put("small", x=2)
    assert keys("trust") == public
    assert json.loads(keys("trust", "--json")) == {"trust": public}
    assert keys("trust", new["trust"]) == f"{public},{new['trust']}"
    monkeypatch.setenv("CACHENESS_TRUST", f"{public},{new['trust']}")
    assert keys("trust", "--without", "ci") == new["trust"]
    for wrong, words, kind in (
        (["--without", "nobody"], "no trusted key", CouldNot),
        (["ed25519-pub:x:y"], "43 characters", Misuse),
    ):
        with pytest.raises(kind, match=words):
            app(["keys", "trust", *wrong], standalone_mode=False)

    monkeypatch.setenv("CACHENESS_SIGNING_KEY", f"{new['signing_key']},{old}")
    assert keys("sign", *where, "--dry-run") == "2 entries would be signed again"
    assert json.loads(keys("sign", *where, "--json")) == {"entries": 2, "signed": True}
    assert keys("list", *where).splitlines() == ["ci-2\tsigns\t2\t0", "ci\ttrusted\t0\t0"]
    monkeypatch.delenv("CACHENESS_SIGNING_KEY")
    monkeypatch.setenv("CACHENESS_MODE", "read")
    monkeypatch.setenv("CACHENESS_TRUST", new["trust"])
    with UnifiedCache.from_env() as _, UnifiedCache(tmp_path / "cache", mode="read", trust=new["trust"]) as reader:
        assert (reader.get(x=1), reader.get(x=2)) == (LARGE, "small")
    monkeypatch.setenv("CACHENESS_TRUST", public)
    shown = json.loads(keys("list", *where, "--json"))
    assert {"id": "ci-2", "trusted": False, "signs": False, "entries": 2, "forged": 0} in shown


def test_disputes_are_listed_and_decided(directory: Path) -> None:
    with UnifiedCache(directory) as cache:
        kept, gone = cache.put("one", x="kept"), cache.put("one", x="gone")
        for entry in (kept, gone):
            assert cache.dispute(entry, None, None, "'one' is stored, 'two' was computed")
    assert "'two' was computed" in cacheness("disputes", "-d", directory, code=1)
    told = json.loads(cacheness("disputes", kept.cache_key[:20], "-d", directory, "--json", code=1))
    assert [one["cache_key"] for one in told] == [kept.cache_key]
    assert "no dispute about 0123" in cacheness("disputes", KEY, "-d", directory, code=3)
    for keep, became in (("old", "served again"), ("new", "deleted")):
        told = cacheness("disputes", "-d", directory, "--keep", keep, "--dry-run")
        assert f"2 disputes would be settled: what is stored would be {became}" in told
    would = cacheness("disputes", "-d", directory, "--keep", "new", "--dry-run", "--json")
    assert json.loads(would) == {"disputes": 2, "keep": "new", "settled": False}
    assert len(json.loads(cacheness("disputes", "-d", directory, "--json", code=1))) == 2
    assert "--dry-run is for --keep" in cacheness("disputes", "-d", directory, "--dry-run", code=2)
    assert "1 dispute settled" in cacheness("disputes", kept.cache_key, "-d", directory, "--keep", "old")
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


def test_where_no_cache_is_named_the_error_says_how_to_name_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert f"there is no cache in {tmp_path / '.cacheness'}" in cacheness("list", code=3)
    assert "Name its folder with -d" in cacheness("list", code=3)
    assert "with -d" not in cacheness("list", "-d", "nowhere", code=3)


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


def test_texts_are_cut_only_where_they_do_not_fit():
    assert screen._share([4, 10, 16], 30) == 16
    assert screen._share([4, 30, 16], 40) == 20  # the short ones leave room to the long one
    assert screen._share([4, 30, 30], 40) == 18
    assert screen._share([30, 30], 0) == 0


def test_a_bar_moves_as_a_child_tells(monkeypatch):
    moved: list[tuple[int, int, str]] = []

    class Bar:
        def add_task(self, what: str, total: None) -> int:
            return 0

        def update(self, task: int, *, completed: int, total: int, description: str) -> None:
            moved.append((completed, total, description))

    monkeypatch.setattr(screen, "progress", lambda: contextlib.nullcontext(Bar()))
    with children._progress_of("the import") as pipe:
        monkeypatch.setattr(children, "_pipes", [pipe])
        children.tell("pipeline:\x1b[31mclean\n", 20, 100)
    assert moved == [(20, 100, "the import: pipeline:\\x1b[31mclean\\n")]
    children.tell("nobody listens any more", 1, 2)


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
        (("list", "--limit", "99999999999999999999"), "--limit"),
        (("lineage", "abc"), "'abc' is not a key"),
        (("show", "f" * 65), "is not a key or its first digits"),
        (("delete", "f" * 65, "--yes"), "is not a key or its first digits"),
        (("lineage", "F" * 1000), "is not a key or its first digits"),
        (("disputes", "f" * 65), "is not a key or its first digits"),
        (("plan", ":f"), "names no module"),
        (("accept", ":f"), "names no module"),
        (("audit", ""), "names no module"),
        (("explain", ":"), "write module:function"),
        (("accept", "--revoke", ""), "--revoke is empty"),
        (("show", "z" * 64), "is not a key or its first digits"),
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
        (("stats", "-m", "postgresql://nobody@127.0.0.1/x"), "blobs are in a local path"),
        (("stats", "-m", "json"), "contains a cache of kind sqlite"),
        (("stats", "-b", "nonsense://x"), "nonsense"),
    ],
)
def test_what_cannot_be_meant_is_an_error_in_words_with_exit_code_2(directory, arguments, named):
    given = [argument.replace("{d}", str(directory)) for argument in arguments]
    where = [] if given[0] in ("copy", "lsit") else ["-d", directory]
    text = cacheness(*given, *where, code=2)
    assert named in " ".join(text.replace("│", " ").split())
    assert not Path(f"{directory}-new").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", KEY),
        ("delete", KEY, "--yes"),
        ("lineage", KEY),
        ("disputes", KEY),
        ("disputes", KEY, "--keep", "old"),
        ("accept", "--revoke", KEY),
        ("plan", "nowhere"),
        ("audit", "nowhere:nothing"),
        ("accept", "nowhere"),
        ("explain", "nowhere:nothing"),
        ("import", "joblib", "{d}/nowhere", "nowhere:nothing"),
        ("copy", "{d}/nowhere", "{d}-new"),
        ("copy", "{d}", "{d}-new", "--target-key", "@{d}/nowhere"),
        ("report", "--html", "{d}/nowhere/page.html"),
    ],
)
def test_what_is_named_and_not_there_has_exit_code_3(directory, arguments):
    given = [argument.replace("{d}", str(directory)) for argument in arguments]
    said = cacheness(*given, *([] if given[0] == "copy" else ["-d", directory]), code=3)
    assert "error: " in said
    assert "Traceback" not in said


def test_arguments_that_are_too_long_to_show_are_called_so(tmp_path):
    with UnifiedCache(cache_dir=tmp_path / "cache") as cache:
        entry = cache.put(1, **{"a" * 100_000: 1})
        other = cache.put(1, **{f"{'a' * 99}{number}": number for number in range(1000)})
    for one in (entry, other):
        assert "too long to show" in cacheness("show", one.cache_key, "-d", tmp_path / "cache")


def test_a_database_that_is_down_is_said_in_one_sentence_and_the_page_is_served(monkeypatch, tmp_path):
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: print("served"))
    monkeypatch.chdir(tmp_path)
    named = {
        "CACHENESS_METADATA_BACKEND": "postgresql://nobody@127.0.0.1:1/nothing",
        "CACHENESS_BLOB_STORE": "memory://",
        "CACHENESS_SIGNING_KEY": SIGNING_KEY,
    }
    said = cacheness("stats", code=3, **named)
    assert re.search(r"cannot be reached: [^?]*\w\. Check that the server runs", said), said
    address, *others = cacheness("ui", **named).splitlines()
    assert address.startswith("http://127.0.0.1:")
    assert others[1].startswith("The cache does not answer now")
    assert others[2] == "served"


IMPORTS = {
    "syntax": "def (",
    "indented": " x = 1\n  y = 2",
    "raises": "raise RuntimeError('not today')",
    "exits": "import sys; sys.exit(0)",
    "has no text": "class Odd(Exception):\n    def __str__(self):\n        raise ValueError\nraise Odd",
    "is lazy": "def __getattr__(name):\n    raise RuntimeError(name)",
    "skips": "import pytest; pytest.skip('no', allow_module_level=True)",
}


@pytest.mark.parametrize("kind", [*IMPORTS, "../relative"])
def test_a_module_that_cannot_be_imported_is_an_error_with_exit_code_3(directory, tmp_path, monkeypatch, kind):
    if kind in IMPORTS:
        text, kind = IMPORTS[kind], f"unimportable_{kind.replace(' ', '_')}"
        (tmp_path / f"{kind}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    said = cacheness("explain", f"{kind}:f", "-d", directory, code=3)
    assert re.match(rf"error: {re.escape(kind)}(:f)? cannot be imported: ", said), said
    with pytest.raises(children.NotImportable, match="cannot be imported"):
        children.imported(f"{kind}:f")


def test_a_module_that_exits_is_reported_by_commands_that_import_in_a_child(directory, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("exits_later.py").write_text("def f(x):\n    return x\n")
    fill = f"import exits_later, cacheness; cacheness.UnifiedCache({str(directory)!r}).cached(exits_later.f)(1)"
    subprocess.run([sys.executable, "-c", fill], check=True, timeout=60)
    Path("exits_later.py").write_text(IMPORTS["exits"])
    for command, code in (("plan", 1), ("accept", 1), ("audit", 3)):
        assert "SystemExit: 0" in cacheness(command, "exits_later:f", "-d", directory, code=code)
    Path("exits_later.py").write_text("import os; os._exit(0)")
    for command in ("plan", "explain"):
        assert "ended with exit code 0" in cacheness(command, "exits_later:f", "-d", directory, code=3)
    Path("exits_later.py").write_text("import sys\ndef f(x):\n    return sys.exit(7)\n")
    assert "called sys.exit(7)" in cacheness("accept", "exits_later:f", "-d", directory, code=3)
    Path("exits_later.py").write_text("print('loading')\ndef f(x):\n    return x\n")
    said = cacheness("explain", "exits_later:f", "--arg", "x=1", "-d", directory, "--json")
    assert json.loads(said)["hit"] is True


@pytest.mark.parametrize(
    "command",
    [
        *(
            "list",
            "list --json",
            f"show {KEY}",
            "explain a:b",
            "report",
            "top",
            "stats",
            f"delete {KEY} --yes",
            "evict",
        ),
        *("clear --yes", "verify", "audit a", "disputes", "plan a", "accept --list", f"lineage {KEY}", "migrate", "ui"),
        *("adopt --yes", "keys list", "keys sign", "import joblib . a:b"),
    ],
)
def test_every_command_about_a_cache_refuses_mode_off(directory, command):
    said = cacheness(*command.split(), "-d", directory, code=3, CACHENESS_MODE="off")
    assert "mode='off'" in said
    assert "No entries" not in said


@pytest.mark.parametrize(
    "command", [("show", KEY), ("delete", KEY, "--yes"), ("delete", "--tag", "a"), ("lineage", KEY)]
)
def test_a_damaged_database_is_a_failure_and_no_wrong_command(directory, command):
    for path in directory.glob("*.sqlite*"):
        path.write_bytes(b"damaged" * 10_000)
    assert "error: " in cacheness(*command, "-d", directory, code=3)


@pytest.mark.parametrize(
    ("answer", "code"),
    [("n", 1), ("", 1), (EOFError, 1), (KeyboardInterrupt, 130)],
)
def test_nothing_is_done_without_a_yes(directory, monkeypatch, answer, code):
    def typed(_: str) -> str:
        if isinstance(answer, str):
            return answer
        raise answer

    termui = sys.modules[typer.confirm.__module__]
    monkeypatch.setattr(termui, "visible_prompt_func", typed)
    terminal = types.SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr(screen, "sys", types.SimpleNamespace(stdin=terminal))
    assert "nothing was done" in cacheness("clear", "-d", directory, code=code)
    assert "2 entries" in cacheness("stats", "-d", directory)


def test_ctrl_c_during_imports_ends_a_command_quietly(monkeypatch):
    class Interrupt(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, path: object, target: object = None) -> None:
            if name == "cacheness.cli.commands":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "cacheness.cli.commands")
    monkeypatch.setattr(sys, "meta_path", [Interrupt(), *sys.meta_path])
    assert cacheness("list", code=130) == ""


def test_the_entry_point_imports_little_before_it_catches_ctrl_c():
    heavy = ["typer", "rich", "asyncio", "cacheness.cli.commands"]
    code = f"import sys, cacheness.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_a_change_that_several_ids_begin_with_is_a_wrong_command(directory, monkeypatch):
    several = [types.SimpleNamespace(id="abc1"), types.SimpleNamespace(id="abc2")]
    monkeypatch.setattr(acceptances.Acceptances, "every", lambda _: several)
    assert "several accepted changes begin with abc: abc1, abc2" in cacheness(
        "accept", "--revoke", "abc", "-d", directory, code=2
    )


def test_a_key_may_be_in_upper_case(directory):
    with UnifiedCache(cache_dir=directory) as cache:
        key = cache.key(x=1).hex
        assert cache.get(key.upper()) == LARGE
        assert cache.dispute(cache.entry(key.upper()), None, None, "another") is True
    for text in (key.upper(), key[:9].upper()):
        assert key in cacheness("show", text, "-d", directory)
        assert key in cacheness("disputes", text, "-d", directory, code=1)


def test_a_function_is_named_in_one_way_by_every_command(tmp_path):
    known = ["pipe.line:clean", "pipe.line:load", "pipe.line:Table.load", "pipe.other:load", "pipeline:f"]
    with UnifiedCache(tmp_path / "cache") as cache:
        for number, name in enumerate(known):
            function = types.FunctionType((lambda x: x).__code__, {}, name)
            function.__module__, function.__qualname__ = name.split(":")
            cache.put(number, cache.key(function=function, args={"x": number}))
        assert cache.functions() == sorted(known)
    for named, wanted in (
        ("pipe.line:clean", known[:1]),
        ("pipe.line.clean", known[:1]),
        ("clean", known[:1]),
        ("load", [known[1], known[3]]),
        ("pipe.line.Table", [known[2]]),
        ("pipe.line", known[:3]),
        ("pipe.line:", known[:3]),
        ("pipe", known[:4]),
        ("pip", []),
        ("line", []),
    ):
        listed = run("list", "-d", tmp_path / "cache", "--function", named, "--json")
        assert sorted(entry["function"] for entry in listed) == sorted(wanted), named
        planned = run("plan", named, "-d", tmp_path / "cache", "--json", code=1 if wanted else 3)
        assert not wanted or sorted(one["function"] for one in planned) == sorted(wanted), named
        may = len(wanted) <= 1 or named.endswith(":")
        would = run("delete", "--function", named, "-d", tmp_path / "cache", "--dry-run", code=0 if may else 2)
        assert ("could be" in would) is not may, named


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
    assert "1 entry of a key that is not known for the source" in text
    (tmp_path / "key").write_text(other + "\n")
    given = ("--source-key", f"@{tmp_path}/key", "--target-key", KEY)
    assert "1 entry copied" in cacheness("copy", old, new, *given)
    with UnifiedCache(cache_dir=new, signing_key=KEY) as cache:
        assert cache.get(x=1) == "value"


def test_a_copy_names_what_it_leaves_out_and_copies_the_rest(directory, tmp_path):
    with UnifiedCache(cache_dir=directory) as cache:
        (blob,) = (path for path in (directory / "blobs").rglob("*") if path.is_file() and path.name.count(".") == 2)
        blob.write_bytes(b"short")
        key = cache.key(x=1).hex
    text = cacheness("copy", directory, tmp_path / "new", code=1)
    assert f"not copied: {key}: blob" in text
    assert "1 entry copied, 0 were there already, 1 unreadable" in text


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
    words = {"verify": "nothing was changed", "copy": "verify --repair", "clear": "2 left", "evict": "2 left"}
    assert f"interrupted: {'looked at ' if command == 'verify' else ''}" in said.decode()
    assert words[command] in said.decode()
    assert b"Traceback" not in said


@pytest.mark.parametrize("arguments", [("list",), ("stats",)])
def test_an_output_that_cannot_be_written_is_an_error_in_words(directory, arguments):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-W", "error", "-m", "cacheness", *arguments, "-d", str(directory)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.strip()) == (
        3,
        "error: the output could not be written: No space left on device",
    )


@pytest.mark.parametrize(("arguments", "code"), [(["no-such-command"], 2), (["stats", "-d", "nowhere"], 3)])
def test_the_exit_code_stays_where_an_error_cannot_be_written(arguments, code):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-W", "error", "-m", "cacheness", *arguments]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=full, timeout=60, check=False)
    assert done.returncode == code


def test_an_output_that_nobody_reads_to_its_end_is_no_issue_that_was_found(directory):
    with UnifiedCache(cache_dir=directory) as cache:
        cache.put_many([(number, {"number": number}) for number in range(2000)])
    command = [sys.executable, "-m", "cacheness", "list", "--limit", "2000", "-d", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_command_works_where_an_output_is_closed(directory, closed):
    command = f"{sys.executable} -W error -m cacheness %s -d {directory} {closed}"
    for arguments, code in (("list", 0), ("stats --json", 0), ("delete --tag prices --yes", 0), ("delete --yes", 2)):
        done = subprocess.run(command % arguments, shell=True, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), (arguments, done.stderr)
    assert "No issues found" in cacheness("verify", "-d", directory, "--deep")
    assert "1 entry" in cacheness("stats", "-d", directory)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_an_output_of_any_encoding_takes_every_text(directory, encoding):
    with UnifiedCache(directory) as cache:
        cache.put("größer … \udc80", x="größer … 漢字 \udc80", tags=["naïve"])
        cache.count("größe:…", "miss", "…")
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "LC_ALL": "C", "PYTHONUTF8": "0"}
    commands = (
        ["list", "-d", directory],
        ["report", "-d", directory],
        ["stats", "-d", directory],
        ["plan", "größe", "-d", directory],
        ["-h"],
        ["top", "--json", "-d", directory],
        ["list", "--tag", "old", "-d", directory],
    )
    for arguments, done in zip(
        commands, one_after_the_other(commands, encoding=encoding, env=environment), strict=True
    ):
        assert done.code == (3 if "plan" in arguments else 0), done.err
        assert "Traceback" not in done.err
        assert "\x1b" not in done.out + done.err


def test_errors_name_hostile_paths_and_names_in_one_line_that_steers_nothing(directory, tmp_path):
    hostile = "a\x1b[31mb\nc\u202ed"
    for arguments, code in (
        (("stats", "-d", tmp_path / hostile), 3),
        (("copy", tmp_path / hostile, tmp_path / "new"), 3),
        (("report", "-d", directory, "--html", tmp_path / hostile / "x" / "y"), 3),
        (("plan", hostile, "-d", directory), 3),
        (("show", hostile, "-d", directory), 2),
        (("disputes", hostile, "-d", directory), 2),
        (("explain", hostile, "-d", directory), 3),
        (("explain", f"{hostile}:f", "-d", directory), 3),
        (("accept", "--revoke", hostile, "-d", directory), 3),
        (("accept", "a.b", "--renamed", hostile, "-d", directory), 2),
        (("keys", "new", hostile), 2),
        (("keys", "trust", hostile), 2),
        (("list", "-n", hostile, "-d", directory), 2),
        (("stats", "-m", f"redis://{hostile}", "-d", directory), 2),
    ):
        said = cacheness(*arguments, code=code)
        assert not {"\x1b", "\u202e"} & set(said), arguments
        assert len(said.strip().splitlines()) == 1, arguments
    for arguments in ((hostile,), ("list", "--limit", hostile), ("list", f"--{hostile}")):
        said = cacheness(*arguments, code=2)
        assert not {"\x1b", "\u202e"} & set(said), arguments


def on_a_terminal(*commands: Sequence[object], columns: str) -> list[str]:
    """What commands show in a window of so many columns."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": columns, "NO_COLOR": "1", "TERM": "xterm"}
    with subprocess.Popen(program(commands), stdout=theirs, stderr=subprocess.DEVNULL, env=environment):
        os.close(theirs)
        text = b""
        with contextlib.suppress(OSError):  # the other end was closed
            while data := os.read(ours, 65536):
                text += data
    os.close(ours)
    return parts_of(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text.decode()).replace("\r", ""))


NUMBERS = {"1,234,567", "1,000,004", "234,560", "1", "28.8", "36.0"}


@pytest.fixture
def counted(tmp_path: Path) -> Path:
    with UnifiedCache(tmp_path / "cache") as cache:
        name = "a_package.of_some_length.module:a_function_of_some_length"
        cache.count(name, "hit", calls=1_000_004, saved=103_680.0)
        cache.count(name, "miss", "new arguments", calls=234_560, spent=129_600.0)
        cache.count(name, "waited", calls=1)
        cache.count(name, "not cacheable", calls=1)
        cache.count(name, "failed", calls=1)
        cache.put(LARGE * 12, x="an argument", ttl="1 day")
    return tmp_path / "cache"


@pytest.mark.parametrize("columns", ["0", "10", "24", "40", "59", "80", "100", "200"])
def test_numbers_are_never_cut_however_narrow_the_window_is(counted, columns):
    shown, listed = on_a_terminal(["report", "-d", counted], ["list", "-d", counted], columns=columns)
    assert shown.strip()
    words = shown.replace("\n", " ").split()
    assert "1,234,567" in words
    assert "1,000,004" in words
    assert not [word for word in words if re.fullmatch(r"[\d,.]*…[\d,.]*", word)]
    wide = int(columns) or 80
    if wide >= 80:
        assert set(words) >= NUMBERS - {"28.8", "36.0"}
        for name in ("waited", "cacheable", "failed"):
            assert name in words, name
    if wide >= 100:
        assert set(words) >= {*NUMBERS, "saved", "spent"}
    if wide >= 59:
        assert max(map(len, shown.splitlines())) <= wide
    assert "1.2 MB" in listed


@pytest.mark.parametrize("columns", ["30", "80", "200"])
def test_a_plan_into_a_pipe_is_a_line_a_function_and_wraps_on_a_terminal(tmp_path, columns, monkeypatch):
    (tmp_path / "a_pipeline.py").write_text("def f(x):\n    return x\n" + "def g(x):\n    return x + 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    import a_pipeline  # type: ignore[import-not-found]

    with UnifiedCache("cache") as cache:
        cache.cached(a_pipeline.f)(1), cache.cached(a_pipeline.g)(1)
    (tmp_path / "a_pipeline.py").write_text("def f(x):\n    return x + 2\n")
    sys.modules.pop("a_pipeline")
    lines = cacheness("plan", "a_pipeline", "-d", "cache", code=1, COLUMNS=columns).splitlines()
    table = [line.split("\t") for line in lines if "\t" in line]
    assert [(row[0], row[1], row[2], row[3], len(row)) for row in table] == [
        ("a_pipeline:f", "changed", "0", "1", 7),
        ("a_pipeline:g", "gone", "0", "1", 7),
    ]
    (shown,) = on_a_terminal(["plan", "a_pipeline", "-d", "cache"], columns=columns)
    assert "changed" in " ".join(shown.split())
    assert "codeof`a_pipeline.f`changed" in "".join(shown.split()) or columns == "30"


def test_a_width_of_nothing_is_none(monkeypatch):
    for said, is_known in (("0", False), ("", False), ("00", False), ("120", True)):
        monkeypatch.setenv("COLUMNS", said)
        assert ("COLUMNS" in screen._environment()) is is_known


HOSTILE = "red\x1b[31m\u202e\n\t" + "<script>" + "x" * 5000


@pytest.fixture
def busy(tmp_path) -> Path:
    with UnifiedCache(tmp_path / "cache") as cache:
        for number in (1, 2, 1):
            cache.cached(dump)(number)
        cache.put("value", hostile=HOSTILE, tags=["old"])
        cache.put(LARGE, prefix=HOSTILE[:100], y=1)
    return tmp_path / "cache"


def run(*arguments: object, code: int = 0) -> Any:
    """A command in this process; what it prints as data."""
    done = CliRunner().invoke(app, [*map(str, arguments)])
    raised = {Misuse: 2, CouldNot: 3}.get(type(done.exception))
    assert (raised or done.exit_code) == code, done.output
    if raised:
        return str(done.exception)
    return json.loads(done.stdout) if "--json" in arguments else done.stdout


def dump(x):
    return {"x": x}


def test_show_finds_an_entry_by_its_first_digits(busy):
    (listed, *_) = run("list", "-d", busy, "--function", f"{__name__}:dump", "--json")
    key = listed["cache_key"]
    found = run("show", key[:10], "-d", busy, "--value", "--json")
    assert (found["cache_key"], found["args"], found["value"]) == (
        key,
        listed["args"],
        f"{{'x': {listed['args']['x']}}}",
    )
    text = run("show", key, "-d", busy)
    for words in (key, f"{__name__}:dump", "bytes stored", "code reached", "signed by"):
        assert words in text
    assert "no entry" in run("show", "0" * 64, "-d", busy, code=3)
    assert "at least four" in run("show", "abc", "-d", busy, code=2)
    assert "at least four" in run("show", HOSTILE, "-d", busy, code=2)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ("dispute", "disputed: it came out differently; decide with: cacheness disputes {key} --keep old|new"),
        ("expire", "expired; the next call computes it again"),
        ("damage", "damaged; cacheness verify --deep"),
        ("other key", "signed by a key that is not known here; give the signing_key="),
        ("", ""),
    ],
)
def test_show_says_why_an_entry_is_not_served_and_what_to_do(busy, spoil, says):
    with UnifiedCache(busy, signing_key=KEY if spoil == "other key" else None) as cache:
        entry = cache.put(LARGE, spoilt=1, ttl=0.2 if spoil == "expire" else None)
        if spoil == "dispute":
            assert cache.dispute(entry, None, None, "1 is stored, 2 was computed")
    if spoil == "damage":
        (path,) = busy.rglob(Path(entry.blob).name)
        path.write_bytes(b"short")
    if spoil == "expire":
        time.sleep(0.25)
    told = says.format(key=entry.cache_key[:12])
    shown, data = (
        run("show", entry.cache_key, "-d", busy, "--value"),
        run("show", entry.cache_key, "-d", busy, "--json"),
    )
    (value,) = [line for line in shown.splitlines() if line.startswith("value ")]
    assert f"(not served: {told}" in value or not told
    known = "" if spoil == "damage" else told  # which only the bytes show
    assert data["not_served"].startswith(known)
    assert (f"not served   {told}" in shown) is bool(known)


def test_explain_says_why_a_call_would_miss(busy):
    where = ("-d", busy)
    assert run("explain", "tests.demo_calls:double", "--arg", "x=1", *where, code=1).startswith(
        "miss: no earlier entry"
    )
    with UnifiedCache(busy) as cache:
        cache.cached(double)(1)
    for name in ("tests.demo_calls:double", "tests.demo_calls.double", "double"):
        assert run("explain", name, "--arg", "x=1", *where).startswith("hit: ")
    answer = run("explain", "tests.demo_calls:double", "--arg", "x=2", *where, "--json", code=1)
    assert answer["changes"][0]["name"] == "x"
    for wrong, named, code in (
        ((":double",), "write module:function", 2),
        (("tests.demo_calls:",), "write module:function", 2),
        (("tests.demo_calls:__file__",), "is not a function", 3),
        (("tests.demo_calls:no",), "cannot be imported", 3),
        (("no_such_module_anywhere:f",), "cannot be imported", 3),
        (("tests.demo_calls:double", "--arg", "y=2"), "cannot be called so", 2),
        (("tests.demo_calls:double", "--arg", "2"), "NAME=VALUE", 2),
    ):
        assert named in run("explain", *wrong, *where, code=code)


def test_explain_gives_arguments_the_types_of_the_parameters(busy):
    with UnifiedCache(busy) as cache:
        cache.cached(typed)(Path("notes.txt"), date(2026, 1, 31), Colour.RED, "7", 7)
        cache.cached(typed)(None, date(2026, 1, 31), Colour.BLUE, "None", 7)
    names = ("path", "day", "colour", "name", "number")

    def ask(*texts, code=0):
        given = (part for name, text in zip(names, texts, strict=True) for part in ("--arg", f"{name}={text}"))
        return run("explain", "tests.demo_calls:typed", *given, "-d", busy, code=code)

    assert ask("notes.txt", "2026-01-31", "RED", "7", "7").startswith("hit: ")
    assert ask("None", "2026-01-31", "#00f", "None", "7").startswith("hit: ")
    assert "--arg day=monday is no date" in ask("notes.txt", "monday", "RED", "7", "7", code=2)
    assert "--arg colour=green is no Colour" in ask("notes.txt", "2026-01-31", "green", "7", "7", code=2)


def test_report_and_stats_tell_what_calls_came_to(busy):
    report = run("report", "-d", busy, "--json")
    assert (report["total"]["hits"], report["total"]["misses"]) == (1, 2)
    assert run("report", "-d", busy).split("\t")[:4] == [f"{__name__}:dump", "3", "1", "2"]
    reasons = run("report", "-d", busy, "--by", "reason", "--since", "1 day", "--json")["rows"]
    assert sorted(row["name"] for row in reasons) == ["never seen", "new arguments"]
    assert "--since" in run("report", "-d", busy, "--since", "soon", code=2)
    assert "3 calls: 1 hit, 2 misses, 0 waited, 0 not cacheable, 0 failed, hit rate 33%" in run("stats", "-d", busy)


def test_every_door_tells_the_same_figures(tmp_path):
    with UnifiedCache(tmp_path / "cache") as cache:
        for name, much in (("m:f", 3), ("n:g", 5), ("", 2)):
            for calls, outcome in enumerate(
                ("hit", "near hit", "miss", "waited", "not cacheable", "failed"), start=much
            ):
                cache.count(
                    name, outcome, "expired" if outcome == "miss" else "", calls=calls, spent=1.0, saved=2.0, size=9
                )
        report, stats, page = cache.report(), cache.stats(), overview(cache)
        prometheus = text_of("default", stats, cache.overview().report("function"))
        artifact = markdown_of(report, cache.report(by="reason"))
        html, text = report._repr_html_(), str(report)
        shown = page.html()
    total = report.total
    assert total.calls == sum(total.counts[1:]) == stats["calls"]
    names = ("hits", "misses", "waited", "not_cacheable", "failed")
    assert [stats[name] for name in names] == list(total.counts[1:])
    assert stats["hit_rate"] == total.hits / (total.hits + total.misses + total.waited)
    samples = re.findall(r'^cacheness_calls_total\{.*outcome="([^"]+)"\} (\d+)$', prometheus, re.MULTILINE)
    by_outcome = collections.Counter()
    for outcome, calls in samples:
        by_outcome[outcome] += int(calls)
    assert list(by_outcome.values()) == list(total.counts[1:])
    (row,) = [line for line in artifact.splitlines() if line.startswith("| n:g")]
    (expected,) = [one for one in report if one.name == "n:g"]
    counts = [f"{count:,}" for count in expected.counts]
    assert [cell.strip() for cell in row.split("|")][2:8] == counts
    assert [re.sub("<.*?>", "", cell) for cell in re.findall(r'<td class="n">.*?</td>', shown.split("n:g")[1])][
        :6
    ] == counts
    assert all(f"<td>{count}</td>" in html.split("n:g")[1] for count in counts)
    (line,) = [line for line in text.splitlines() if line.startswith("n:g")]
    for count, name in zip(expected.counts[3:], ("waited", "not cacheable", "failed"), strict=True):
        assert f"{count} {name}" in line
    piped = [line.split("\t") for line in run("report", "-d", tmp_path / "cache").splitlines()]
    assert [row[1:7] for row in piped if row[0] == "n:g"] == [counts]
    for column in range(1, 7):
        assert sum(int(row[column]) for row in piped[:-1]) == int(piped[-1][column])
    reasons = run("report", "-d", tmp_path / "cache", "--by", "reason", "--json")
    assert reasons["total"]["calls"] == sum(row["calls"] for row in reasons["rows"]) == total.misses


def test_top_orders_entries_by_what_counts(busy):
    sizes = [entry["size"] for entry in run("top", "-d", busy, "--json")]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] >= len(LARGE)
    (most,) = run("top", "-d", busy, "--by", "uses", "--limit", "1", "--json")
    assert most["uses"] == 1
    assert (
        len(run("top", "-d", busy, "--by", "unused", "--json"))
        == len(run("top", "-d", busy, "--by", "seconds", "--json"))
        == 4
    )


def test_what_deletes_says_what_it_would_delete_and_asks(busy):
    where = ("-d", busy)
    key = run("list", *where, "--tag", "old", "--json")[0]["cache_key"]
    for command in (("delete", key), ("delete", "--tag", "old"), ("delete", "--older-than", "0s"), ("clear",)):
        assert "add --yes" in run(*command, *where, code=2)
        would = run(*command, *where, "--dry-run", "--json")
        assert would == {"entries": 4 if len(command) == 1 or "0s" in command else 1, "deleted": False}
    assert "4 entries" in run("stats", *where)
    assert run("delete", key, *where, "--yes") == "1 entry deleted\n"
    assert run("delete", "--function", f"{__name__}:dump", *where, "--yes", "--json") == {"entries": 2, "deleted": True}
    assert "no entry" in run("delete", key, *where, "--yes", code=3)
    assert "name what to delete" in run("delete", *where, code=2)
    for option in ("--prefix", "--tag", "--function", "--older-than"):
        assert f"{option} is empty" in run("delete", option, "", *where, "--yes", code=2)
    assert "name what to delete" in run("delete", key, "--tag", "old", *where, code=2)
    with UnifiedCache(busy) as cache:
        cache.put(1, k=1, ttl=0.001)
    assert run("evict", *where, "--dry-run", "--json") == {"entries": 1, "deleted": False}
    assert run("evict", *where, "--json") == {"entries": 1, "deleted": True}


def test_a_damaged_database_is_not_laid_to_an_option(busy):
    database = Path(busy) / "metadata.sqlite"
    data = bytearray(database.read_bytes())
    data[4096:] = b"garbage." * (len(data[4096:]) // 8)
    database.write_bytes(data)
    for path in (f"{database}-wal", f"{database}-shm"):
        Path(path).unlink(missing_ok=True)
    assert isinstance(CliRunner().invoke(app, ["report", "-d", str(busy)]).exception, StoreRefused)
    assert "--since" in run("report", "-d", busy, "--since", "soon", code=2)


def test_a_report_leaves_what_is_no_file_as_it_is(busy, tmp_path):
    pipe, link, page = tmp_path / "pipe", tmp_path / "link", tmp_path / "page.html"
    os.mkfifo(pipe)
    link.symlink_to(page)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        run("report", "-d", busy, "--html", pipe)
        assert "</html>" in read.result(timeout=60)
    assert pipe.is_fifo()
    run("report", "-d", busy, "--html", link)
    assert link.is_symlink()
    assert "</html>" in page.read_text()


def test_hostile_text_neither_steers_a_terminal_nor_breaks_a_line(busy):
    with UnifiedCache(busy) as cache:
        keys = [entry.cache_key for entry in cache.iter_entries()]
        cache.count(HOSTILE, "miss", HOSTILE)
    for command in (("list",), ("top",), ("report",), ("report", "--by", "reason"), *(("show", key) for key in keys)):
        text = run(*command, "-d", busy)
        assert not {"\x1b", "\u202e"} & set(text)
        assert command[0] == "show" or max(map(len, text.splitlines())) < 9000
    assert len(run("list", "-d", busy).splitlines()) == 4


def test_doctor_tries_each_part_and_leaves_nothing_behind(busy, monkeypatch):
    found = run("doctor", "-d", busy, "--json")
    parts = ("clock", "database", "reading", "writing", "writing", "owner", "disk", "libraries")
    assert [finding["part"] for finding in found] == [*parts]
    assert all(finding["ok"] for finding in found)
    assert "4 entries" in run("stats", "-d", busy)
    assert "No issues found" in run("verify", "-d", busy)

    def refuse(*_: Any) -> None:
        raise StoreRefused("no right to write")

    monkeypatch.setattr(LocalBlobStore, "write", refuse)
    text = run("doctor", "-d", busy, code=1)
    assert "BAD  writing: StoreRefused: no right to write" in text
    assert "put, read, list and delete" in text
    with UnifiedCache(busy, signing_key=KEY) as cache:
        cache.put(1, k=5)
    monkeypatch.undo()
    (finding,) = [one for one in run("doctor", "-d", busy, "--json", code=1) if not one["ok"]]
    assert finding["part"] == "reading"


def pages_of(database: Path, table: str) -> tuple[int, list[int]]:
    """The size of a page, and the pages that a table or an index fills, from 1."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        try:
            pages = [page for (page,) in connection.execute("SELECT pageno FROM dbstat WHERE name = ?", (table,))]
        except sqlite3.OperationalError:  # built without it: at least the root
            pages = [
                row[0] for row in connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,))
            ]
    return size, pages


@pytest.mark.parametrize("table", ["entries", "entries_by_age", "activity"])
def test_doctor_and_verify_find_damaged_pages_and_a_repair_refuses(tmp_path, table):
    directory = tmp_path / "cache"
    with UnifiedCache(directory) as cache:
        cache.put_many([(LARGE[:50], {"number": number}) for number in range(300)])
        cache.count("f", "miss")
    database = directory / "metadata.sqlite"
    size, pages = pages_of(database, table)
    with database.open("r+b") as file:
        file.seek((pages[-1] - 1) * size)
        file.write(b"\xff" * size)
    (bad, *_) = [one for one in run("doctor", "-d", directory, "--json", code=1) if not one["ok"]]
    assert (bad["part"], "damaged" in bad["detail"]) == ("database", True)
    for how in ((), ("--deep",)):
        report = run("verify", "-d", directory, *how, "--json", code=1)
        assert report["counts"]["damaged"] >= 1
    blobs = sorted(path for path in directory.rglob("blobs/**/*") if path.is_file())
    refused = CliRunner().invoke(app, ["verify", "-d", str(directory), "--repair", "--force"]).exception
    assert isinstance(refused, RepairRefused), refused
    assert "the database is damaged" in str(refused)
    assert sorted(path for path in directory.rglob("blobs/**/*") if path.is_file()) == blobs


def test_only_a_deep_look_compares_indexes_with_their_tables(tmp_path):
    with UnifiedCache(tmp_path / "cache") as cache:
        cache.put_many([(1, {"number": number}) for number in range(3)])
    with contextlib.closing(sqlite3.connect(tmp_path / "cache" / "metadata.sqlite")) as connection:
        (index, table) = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE name = 'entries_by_age'"
        ).fetchone()
        connection.execute("PRAGMA writable_schema = 1")
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (f"{table} WHERE 0", index))
        connection.commit()
    with contextlib.closing(sqlite3.connect(tmp_path / "cache" / "metadata.sqlite")) as connection:
        connection.execute("PRAGMA writable_schema = 1")
        connection.execute(f"REINDEX {index}")
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (table, index))
        connection.commit()
    assert "No issues found" in run("verify", "-d", tmp_path / "cache")
    report = run("verify", "-d", tmp_path / "cache", "--deep", "--json", code=1)
    assert report["counts"]["damaged"] >= 3
    assert index in report["issues"][0]["detail"]


def test_doctor_says_when_the_blobs_belong_to_another_database(directory, tmp_path):
    shutil.copytree(directory, tmp_path / "clone")
    blobs = f"file://{directory / 'blobs'}"
    assert all(one["ok"] for one in run("doctor", "-d", directory, "--json"))
    with UnifiedCache(tmp_path / "other") as cache:
        cache.put(LARGE, x=1)
    (bad,) = [one for one in run("doctor", "-d", tmp_path / "other", "-b", blobs, "--json", code=1) if not one["ok"]]
    assert (bad["part"], "cacheness adopt" in bad["advice"]) == ("owner", True)
    assert "belongs to another database" in bad["detail"]


def test_doctor_says_why_a_store_cannot_be_opened(directory):
    opening, libraries = run("doctor", "-d", directory / "nowhere", "--json", code=1)
    assert (opening["part"], opening["ok"], libraries["part"]) == ("opening", False, "libraries")
    assert "there is no cache in" in opening["detail"]
    (directory / "metadata.sqlite").write_bytes(b"no database" * 100)
    opening, _ = run("doctor", "-d", directory, "--json", code=1)
    assert "not a SQLite database" in opening["detail"]


def test_doctor_finds_old_libraries_and_a_server_without_room(busy, monkeypatch):
    needs = ["psycopg[binary]>=3.2.4; extra == 'postgres'", "sqlalchemy>=2.0.40,<2.1", "rich>=13.9", "no-such-thing>=1"]
    has = {"psycopg": "3.1.20rc1", "sqlalchemy": "2.0.40", "rich": "14.0.post1"}

    def version(name: str) -> str:
        if name not in has:
            raise metadata.PackageNotFoundError(name)
        return has[name]

    monkeypatch.setattr(metadata, "requires", lambda _: needs)
    monkeypatch.setattr(metadata, "version", version)
    (bad,) = [one for one in run("doctor", "-d", busy, "--json", code=1) if not one["ok"]]
    assert (bad["part"], bad["detail"]) == ("libraries", "psycopg 3.1.20rc1 is older than 3.2.4")
    assert "pip install -U 'psycopg>=3.2.4'" in bad["advice"]


@pytest.mark.parametrize(
    ("used", "is_pooled", "says"), [(81, False, "PgBouncer in front"), (81, True, "max_connections"), (80, True, "")]
)
def test_doctor_says_when_a_server_is_short_of_connections(busy, used, is_pooled, says):
    with UnifiedCache(busy) as cache:
        cache._store.metadata.connections = lambda: (used, 100, is_pooled)
        (finding,) = [one for one in diagnose(cache._store, cache.config) if one.part == "connections"]
    assert (finding.ok, says in finding.advice) == (not says, True)
    assert f"{used} of 100" in finding.detail


def test_every_command_that_ends_has_json():
    group = typer.main.get_command(app)
    keys = group.commands.pop("keys")
    commands = {**group.commands, **keys.commands}
    without = [name for name, one in commands.items() if not any("--json" in p.opts for p in one.params)]
    assert without == ["ui"]


def test_completion_knows_the_commands(monkeypatch):
    monkeypatch.setenv("_CACHENESS_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "cacheness sta")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert CliRunner().invoke(app, prog_name="cacheness").stdout.split() == ["stats"]


def test_the_help_imports_neither_the_cache_nor_what_it_needs():
    heavy = ["sqlalchemy", "numpy", "cacheness.cache", "rich.console", "socket", "pickle", "json"]
    code = (
        f"import sys; from cacheness.cli.commands import app; print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_prometheus_reads_each_line_also_of_hostile_names(busy):
    with UnifiedCache(busy) as cache:
        cache.count('a"b\\c' + HOSTILE, "miss", spent=1.5)
    lines = run("report", "-d", busy, "--prometheus").splitlines()
    label = r'[a-z]+="(?:[^"\\\n]|\\[\\"n])*"'
    sample = re.compile(rf"(cacheness_[a-z_]+)\{{{label}(?:,{label})*\}} [0-9.e+-]+")
    comments = {line.split()[2] for line in lines if line.startswith("# TYPE cacheness_")}
    samples = [line for line in lines if not line.startswith("#")]
    assert all(sample.fullmatch(line) for line in samples), samples
    assert {sample.fullmatch(line)[1] for line in samples} == comments
    assert f'cacheness_calls_total{{namespace="default",function="{__name__}:dump",outcome="miss"}} 2' in samples
    assert 'cacheness_entries{namespace="default"} 4' in samples
    assert "cannot be combined with" in run("report", "-d", busy, "--prometheus", "--json", code=2)
