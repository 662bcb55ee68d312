"""Keys that could not see everything that can decide a result: which they are, and what becomes of the results."""

# ruff: noqa: E501 - a table of sources reads better wide

from __future__ import annotations

import locale
import logging
import pathlib
from collections.abc import Iterator

import numpy as np
import pytest

from cacheness import ConfigError, UnifiedCache, incomplete
from cacheness.keys import fingerprint, make_key
from tests.keys.edits import load
from tests.keys.ordinary import INCOMPLETE, ORDINARY

ENGINE = (
    "import sqlite3\ndb = sqlite3.connect(':memory:')\ndef f(x): return db.execute('select ?', (x,)).fetchone()[0]\n"
)


@pytest.fixture
def cache(tmp_path: pathlib.Path) -> Iterator[UnifiedCache]:
    incomplete._warned.clear()
    with UnifiedCache(cache_dir=tmp_path / "cache") as cache:
        yield cache


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # libraries of many ages are imported
@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_functions_have_complete_keys(name: str, tmp_path: pathlib.Path) -> None:
    module = load(ORDINARY[name], "ordinary", tmp_path)
    (tmp_path / "settings.toml").write_text("rate = 2\n")
    try:
        found = fingerprint(module.f).incomplete
    finally:
        for value in vars(module).values():
            if type(value).__name__ in ("Connection", "socket", "ThreadPoolExecutor"):
                getattr(value, "close", getattr(value, "shutdown", None))()
    if name in INCOMPLETE:
        assert any(INCOMPLETE[name] in line for line in found)
    else:
        assert found == ()


def test_there_are_fifty_and_five_may_warn() -> None:
    assert len(ORDINARY) >= 50
    assert len(INCOMPLETE) <= 5


@pytest.mark.parametrize(
    "source",
    {
        "getattr of what a call returns": "def pick(): ...\ndef f(x, name): return getattr(pick(), name)(x)\n",
        "exec": "def f(x):\n    names = {}\n    exec(x, names)\n    return names\n",
        "a module by any name": "import sys\ndef f(x): return sys.modules[x]\n",
        "a generator that runs": "running = (n for n in range(9))\ndef f(x): return next(running)\n",
        "a folder in a global": "import pathlib\nAT = pathlib.Path('/usr')\ndef f(x): return (AT / x).read_text()\n",
    }.values(),
)
def test_what_can_decide_and_is_not_seen(source: str) -> None:
    assert fingerprint(load(source, "unseen").f).incomplete


@pytest.mark.parametrize(
    "source",
    {
        "getattr of an argument": "def f(x, name): return getattr(x, name)\n",
        "getattr of an attribute": "class K:\n    def go(self, name): return getattr(self.inner, name)\ndef f(x): return K().go(x)\n",
        "a text that is followed": "LIMIT = 3\ndef f(x): return eval('LIMIT + x')\n",
        "a lock in an object": "import threading\nclass K:\n    def __init__(self): self.lock = threading.Lock()\nk = K()\ndef f(x):\n    with k.lock: return x\n",
        "an event and a semaphore": "import threading\na, b = threading.Event(), threading.BoundedSemaphore(2)\ndef f(x): return a.is_set(), b\n",
        "a pool of processes": "import concurrent.futures as c\npool = c.ProcessPoolExecutor(1)\ndef f(x): return pool.submit(x)\n",
        "a handler of logs": "import logging\nlog = logging.LoggerAdapter(logging.getLogger('a'), {})\ndef f(x): log.info(x)\n",
    }.values(),
)
def test_what_decides_nothing_is_listed_at_most(source: str) -> None:
    found = fingerprint(load(source, "harmless").f)
    assert found.incomplete == ()


def test_it_is_said_once_a_function(cache: UnifiedCache, caplog: pytest.LogCaptureFixture) -> None:
    module = load(ENGINE, "once")
    f = cache.cached(module.f)
    with caplog.at_level(logging.WARNING):
        assert [f(1), f(2), f(1), cache.get_or_compute(module.f, 3)] == [1, 2, 1, 3]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "once.f: global db.execute: sqlite3.Connection" in caplog.text
    assert len(cache.list_entries()) == 3
    module.db.close()


def test_serve_is_silent(cache: UnifiedCache, caplog: pytest.LogCaptureFixture) -> None:
    module = load(ENGINE, "silent")
    f = cache.cached(module.f, incomplete="serve")
    assert f(1) == f(1) == 1
    assert not caplog.records
    assert len(cache.list_entries()) == 1
    module.db.close()


def test_refuse_computes_and_stores_nothing(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    module = load(ENGINE, "refused")
    with UnifiedCache(cache_dir=tmp_path, incomplete="refuse") as cache:
        f = cache.cached(module.f)
        assert f(1) == f(1) == f.refresh(1) == 1
        assert cache.list_entries() == []
        assert not caplog.records
        kept = cache.cached(module.f, incomplete="serve")  # the nearer choice wins
        assert kept(1) == 1
        assert len(cache.list_entries()) == 1
        pinned = cache.cached(module.f, version="1")  # its author answers for it
        assert pinned(1) == 1
        assert len(cache.list_entries()) == 2
    module.db.close()


def test_explain_lists_it_and_says_which_can_decide(cache: UnifiedCache) -> None:
    lock = "import threading\nlock = threading.Lock()\n"
    module = load(lock + ENGINE.replace("return", "\n    with lock: return"), "told")
    answer = cache.explain(module.f, 1)
    connection = "told.f: global db.execute: sqlite3.Connection"
    assert answer.incomplete == (connection,)
    assert set(answer.unfollowed) == {connection, "told.f: global lock: _thread.lock"}
    assert f"not followed: {connection}, which can decide the result" in str(answer)
    assert "not followed: told.f: global lock: _thread.lock\n" in str(answer) + "\n"
    module.db.close()


def test_a_function_in_an_argument_counts_with_what_it_hides() -> None:
    module = load(ENGINE, "given")
    assert any("sqlite3.Connection" in line for line in make_key(args={"fn": [module.f]}).incomplete)
    module.db.close()


def test_a_choice_that_is_not_known(cache: UnifiedCache) -> None:
    with pytest.raises(ConfigError, match="incomplete cannot be used: 'no'"):
        UnifiedCache(incomplete="no")
    with pytest.raises(ValueError, match="warn, serve, refuse"):
        cache.cached(len, incomplete="no")


def test_a_locale_that_was_set_is_listed_where_it_can_decide() -> None:
    before = locale.setlocale(locale.LC_NUMERIC)
    locale.setlocale(locale.LC_NUMERIC, "C.UTF-8")
    try:
        lines = fingerprint(load("import locale\ndef f(x): return locale.currency(x)\n", "in_a_country").f).incomplete
        other = fingerprint(load("def f(x): return x\n", "nowhere").f).unfollowed
    finally:
        locale.setlocale(locale.LC_NUMERIC, before)
    assert lines == ("the locale: LC_NUMERIC is C.UTF-8",)
    assert other == ()


def test_print_options_of_numpy_are_listed() -> None:
    with np.printoptions(precision=3):
        found = fingerprint(load("import numpy as np\ndef f(x): return str(np.array(x))\n", "printing").f)
    assert found.unfollowed == ("print options of NumPy that were set: precision",)
    assert found.incomplete == ()
