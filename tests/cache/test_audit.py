"""An audit finds results that their key does not decide, and finds nothing in an honest program."""

from __future__ import annotations

import asyncio
import csv
import dataclasses
import decimal
import importlib
import locale
import logging
import os
import sqlite3
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import dask
import dask.array
import numpy as np
import pandas as pd
import pytest

from cacheness import Config, ConfigError, UnhashableArgument, UnifiedCache, audit
from cacheness.audit import NotComparable, brief, digest_or_none, is_same
from cacheness.keys import digest_of, encode
from tests.conftest import World


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[UnifiedCache]:
    with UnifiedCache(tmp_path / "cache") as cache:
        yield cache


def hidden() -> str:
    return "NEDDIH"[::-1]  # so that the name of the variable does not stand in the code


def variable(x: int) -> str:
    return os.environ.get(hidden(), "")


def clock(x: int) -> int:
    return time.time_ns()


def directory(x: int) -> str:
    return os.getcwd()


def extension(x: int) -> int:
    return csv.field_size_limit()  # a state that C code keeps


def precision(x: int) -> decimal.Decimal:
    return decimal.Decimal(x) / 3


def locale_of_numbers(x: int) -> str:
    return locale.setlocale(locale.LC_CTYPE)


def chance(x: int) -> str:
    return uuid.UUID(bytes=os.urandom(16)).hex


def file_without_suffix(x: int) -> str:
    return Path("retnuoc"[::-1]).read_text()


def row(x: int) -> Any:
    with closing(sqlite3.connect("moor"[::-1])) as db:
        return db.execute("select n from t").fetchone()


def behind_a_wrapper(x: int) -> Any:
    return getattr(sys.modules[__name__], "segnahc_tahw"[::-1])


what_changes = 1


def order_of_a_set(x: int) -> list[str]:
    return list({"a", "b", "c"})


def order_of_threads(x: int) -> float:
    return 0.1 + 0.2 + 0.3  # sum() has been exact in its last digit since Python 3.12


def hash_seed(x: int) -> int:
    return hash("text")


def _row(_: Any) -> None:
    with closing(sqlite3.connect("room")) as db, db:
        db.execute("update t set n = 2")


def _another_global(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "what_changes", 2)


#: What changes between the calls, and a word of what is to blame. None: another process stored another value.
FAULTS: dict[Callable[[int], Any], tuple[Callable[[pytest.MonkeyPatch], Any] | None, Any, str]] = {
    variable: (lambda m: m.setenv("HIDDEN", "other"), None, "environ"),
    clock: (lambda m: None, None, "the clock"),
    directory: (lambda m: m.chdir("elsewhere"), None, "getcwd"),
    extension: (lambda m: csv.field_size_limit(99), None, ""),
    precision: (lambda m: m.setattr(decimal.getcontext(), "prec", 5), None, ""),
    locale_of_numbers: (lambda m: locale.setlocale(locale.LC_CTYPE, "C"), None, "the environment"),
    chance: (lambda m: None, None, "chance"),
    file_without_suffix: (lambda m: Path("counter").write_text("2"), None, "a file"),
    row: (_row, None, "a database"),
    behind_a_wrapper: (_another_global, None, ""),
    order_of_a_set: (None, list(reversed(order_of_a_set(1))), ""),
    order_of_threads: (None, 0.3 + 0.2 + 0.1, ""),
    hash_seed: (None, hash("text") + 1, "hash"),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_found_within_300_calls(
    cache: UnifiedCache, fault: Callable[[int], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    Path("counter").write_text("1")
    with sqlite3.connect("room") as db:
        db.execute("create table t (n)")
        db.execute("insert into t values (1)")
    db.close()
    limit, before = csv.field_size_limit(), locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    cached = cache.cached(check=0.05, incomplete="serve")(fault)
    change, other, blame = FAULTS[fault]
    try:
        stored = cached(1)
        if change is None:
            stored = other
            cache.put(other, cached.key(1), compute_seconds=0.1)
        else:
            change(monkeypatch)
        came = [cached(1) for _ in range(300)]
    finally:
        csv.field_size_limit(limit)
        locale.setlocale(locale.LC_CTYPE, before)
    found = next(number for number, value in enumerate(came) if value != stored)
    assert all(value == stored for value in came[:found])
    assert all(value != stored for value in came[found:])  # computed each time, until somebody decides
    (dispute,) = cache.disputes()
    assert dispute.cache_key == cached.key(1).hex
    assert blame in dispute.detail
    assert cache.get(cached.key(1)) is None


@dataclasses.dataclass
class Model:
    weights: list[float]

    def __getstate__(self) -> dict[str, Any]:
        return {"weights": self.weights}  # what is kept for speed is left out


def model(n: int) -> Model:
    made = Model([0.5] * n)
    vars(made)["memo"] = object()
    return made


class State:
    """Decides results, and no key."""

    def __init__(self, now: Any) -> None:
        self.now = now

    def __cacheness_key__(self) -> None:
        return None


HONEST: dict[str, Callable[[int], Any]] = {
    "numbers": lambda n: [n, n / 3, float("nan")],
    "a frame": lambda n: pd.DataFrame({"s": ["x", None], "n": [n, 2]}),
    "an array": lambda n: np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "a set": lambda n: {"a", "b", str(n)},
    "an object with a memo": model,
    "many": lambda n: list(range(1000)),
}


@pytest.mark.parametrize("name", HONEST)
def test_nothing_is_found_in_an_honest_function(cache: UnifiedCache, name: str) -> None:
    def run(n: int) -> Any:
        return HONEST[name](n)

    cached = cache.cached(check=1.0)(run)
    for number in (1, 2, 1, 2, 1):
        cached(number)
    assert cache.disputes() == []


def test_nothing_is_found_where_an_honest_program_expires_refreshes_and_overwrites(tmp_path: Path) -> None:
    today = State(1)
    with UnifiedCache(tmp_path, check=1.0) as cache:

        @cache.cached(key=lambda n: n, ttl="1h")
        def rate(n: int) -> int:  # changes from day to day, and says so
            return today.now

        @cache.cached(key=lambda n: n)
        def double(n: int) -> int:
            return 2 * n

        for number in range(200):
            today.now = number
            rate(number % 5)
            double(number % 5)
            if number % 20 == 0:
                rate.refresh(number % 5)
                cache.put(-1, double.key(7))  # by hand: it is what its user says
            assert double(7) == -1
        assert cache.disputes() == []


def test_a_function_that_fails_changes_its_input_or_writes_is_let_alone(
    cache: UnifiedCache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = State(False)

    @cache.cached(check=1.0, key=lambda n: n)
    def fails(n: int) -> int:
        if broken.now:
            raise OSError("no network")
        return n

    @cache.cached(check=1.0)
    def appends(items: list[int]) -> int:
        items.append(1)
        return len(items)

    @cache.cached(check=1.0)
    def writes(path: str) -> str:
        Path(path).write_text("x")
        return path

    fails(1), appends([0]), writes(str(tmp_path / "out.txt"))
    broken.now = True
    assert fails(1) == 1
    assert appends([0]) == 2
    assert writes(str(tmp_path / "out.txt"))
    assert cache.disputes() == []
    assert "could not be computed again to be checked: OSError: no network" in caplog.text


def test_values_that_cannot_be_compared_are_said_so_once(cache: UnifiedCache, caplog: pytest.LogCaptureFixture) -> None:
    def bad(one: Any, other: Any) -> bool:
        raise ValueError("cannot")

    @cache.cached(check=1.0, same=bad)
    def f(n: int) -> int:
        return n

    assert [f(1) for _ in range(4)] == [1] * 4
    assert caplog.text.count("same= failed (ValueError: cannot)") == 1
    assert cache.disputes() == []


def nameless(what: str, size: int = 2) -> Any:
    if what == "delayed":
        return dask.delayed(len)([1] * size)
    if what == "within":
        return {"a": [(dask.delayed(len)([1] * size),)]}
    return pd.DataFrame({"a": [1.0] * size}).style


@pytest.mark.parametrize("what", ["delayed", "within", "styler"])
def test_what_gets_another_name_whenever_it_is_made_is_no_dispute(cache: UnifiedCache, what: str) -> None:
    make = cache.cached(check=1.0)(nameless)
    for _ in range(3):
        make(what)
    assert cache.disputes() == []
    with pytest.raises(NotComparable, match=r"each .* gets another name when it is made. Say what is equal: same="):
        is_same(nameless(what), nameless(what, 3), None, cache.round_trip)
    assert is_same(nameless(what), nameless(what), lambda one, other: type(one) is type(other), cache.round_trip)
    one = dask.array.ones(3)
    assert is_same(one, dask.array.ones(3), None, cache.round_trip)  # its name says what it is made of


class Peer:
    """Leads to all others, as the parts of a figure do."""

    def __init__(self) -> None:
        self.links: list[Peer] = []


def peers(count: int) -> list[Peer]:
    found = [Peer() for _ in range(count)]
    for one in found:
        one.links = list(found)
    return found


class Branching:
    """Makes others whenever it is read, each with less below it."""

    def __init__(self, left: int = 25) -> None:
        self.left = left

    def __reduce__(self) -> Any:
        below = [Branching(self.left - 1), Branching(self.left - 1)] if self.left else []
        return (Branching, (self.left,), {"below": below})


def test_objects_that_lead_to_each_other_end_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("cacheness.keys.encode"), "MOST_REPEATED", 200)
    for value in (peers(12)[0], {"deep": [peers(12)]}):
        with pytest.raises(UnhashableArgument, match="its objects lead to each other in too many ways"):
            digest_of(value)
        assert digest_or_none(value) is None
    top = Peer()
    top.links = [Peer() for _ in range(1000)]  # a tree whose parts know what they are in, is listed once
    for one in top.links:
        one.links = [top]
    shared = (1, 2)
    assert digest_of(top) == digest_of(top)
    assert encode([shared] * 1000)


def test_a_comparison_ends_and_is_not_begun_again(
    cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(importlib.import_module("cacheness.keys.encode"), "MOST_REPEATED", 200)
    ran = []

    def made(n: int) -> Any:
        ran.append(n)
        return peers(12)

    for limit, times in ((audit.LONGEST_COMPARISON, 5), (-1.0, 2)):  # … and one that was slow
        monkeypatch.setattr(audit, "SLOW_COMPARISON", limit)
        ran.clear()
        checked = cache.cached(check=1.0, key=lambda n: (n, times))(made)
        for _ in range(5):
            assert len(checked(1)) == 12
        assert len(ran) == times
    assert cache.disputes() == []
    assert caplog.text.count("cannot be checked") == 1
    assert "Say what is equal: same=" in caplog.text


def test_a_comparison_of_what_has_no_end_stops_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "LONGEST_COMPARISON", 0.01)
    for value in (Branching(), [1, {"a": Branching()}]):
        with pytest.raises(NotComparable, match=r"its comparison takes longer than 0 seconds. Say what is equal"):
            is_same(value, value, None, lambda given: given)
        assert digest_or_none(value) is None
    assert is_same(Branching(), Branching(), lambda one, other: True, lambda given: given)


def test_a_value_is_described_without_going_over_all_of_it() -> None:
    endless: Any = []
    for _ in range(60):
        endless = [endless, endless]
    assert brief(endless).startswith("[[[[")
    for value in ({"b": 1, "a": {2}}, [1.5, "x" * 300], ("a",), 10**99, np.float64(2), {}, [()], 1j):
        assert brief(value)[:60] == " ".join(repr(value).split())[:60]


def test_same_says_what_is_equal(cache: UnifiedCache) -> None:
    noise = State(0.0)

    @cache.cached(check=1.0, same=lambda one, other: abs(one - other) < 1e-6, key=lambda n: n)
    def f(n: int) -> float:
        return n + noise.now

    f(1)
    noise.now = 1e-9
    assert f(1) == 1.0
    noise.now = 1.0
    assert f(1) == 2.0
    assert len(cache.disputes()) == 1


def test_a_dispute_ends_by_a_decision_or_a_refresh(world: World) -> None:
    state, cache = State(1), world.cache

    @cache.cached(check=1.0, key=lambda n: n)
    def f(n: int) -> int:
        return state.now

    key = f.key(1)

    def dispute(value: int) -> None:
        f(1)
        state.now = value
        assert f(1) == value
        assert len(cache.disputes()) == 1
        assert cache.present([key]) == cache.get_many([key]) == {}
        assert cache.get(key) is cache.find(key) is None
        assert f(1) == value
        assert f.explain(1).changes == ()

    dispute(2)
    assert cache.settle(key)
    assert not cache.settle(key)
    assert cache.get(key) == 1
    state.now = 1
    dispute(3)
    assert cache.settle(key, keep="new")
    assert cache.lookup(key) is None
    assert (f(1), cache.get(key)) == (3, 3)
    dispute(4)
    assert f.refresh(1) == 4
    assert cache.disputes() == []
    assert (f(1), cache.get(key)) == (4, 4)
    dispute(5)
    cache.put(9, key)
    assert cache.disputes() == []
    assert cache.get(key) == 9
    with pytest.raises(ValueError, match="neither 'old' nor 'new'"):
        cache.settle(key, keep="both")  # type: ignore[arg-type]


def test_what_was_overwritten_meanwhile_is_no_dispute(cache: UnifiedCache) -> None:
    state = State(1)

    @cache.cached(check=1.0, key=lambda n: n)
    def f(n: int) -> int:
        if state.now == 2:
            cache.put(7, f.key(1))
        return state.now

    f(1)
    state.now = 2
    assert f(1) == 1
    assert cache.disputes() == []
    assert cache.get(f.key(1)) == 7


def test_coroutines_are_checked_too(cache: UnifiedCache) -> None:
    state = State(1)

    @cache.cached(check=1.0, key=lambda n: n)
    async def f(n: int) -> int:
        return state.now

    async def run() -> list[int]:
        came = [await f(1)]
        state.now = 2
        return [*came, await f(1), await f(1)]

    assert asyncio.run(run()) == [1, 2, 2]
    assert len(cache.disputes()) == 1


def test_the_share_comes_from_the_function_the_cache_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config.from_env({"CACHENESS_CHECK": "0.5", "CACHENESS_CACHE_DIR": str(tmp_path)})
    ran: list[int] = []
    with UnifiedCache(config) as cache:

        @cache.cached(key=lambda n: n)
        def f(n: int) -> int:
            ran.append(n)
            return n

        @cache.cached(key=lambda n: -n, check=0)
        def never(n: int) -> int:
            ran.append(n)
            return n

        for _ in range(101):
            f(1), never(2)
    assert 49 <= ran.count(1) - 1 <= 51
    assert ran.count(2) == 1
    for share in (-1, 2, "many", True):
        with pytest.raises(ConfigError, match="check cannot be used"):
            Config(check=share)
        with pytest.raises((TypeError, ValueError)):
            cache.cached(check=share)
    monkeypatch.setenv("CACHENESS_CHECK", "0.25")
    for given, expected in ((None, 0.25), (0, 0), (0.5, 0.5)):
        with UnifiedCache(tmp_path / "other", check=given) as other:
            assert other.config.check == expected
    monkeypatch.setenv("CACHENESS_CHECK", "many")
    with pytest.raises(ConfigError, match="check cannot be used: 'many' is not a share"):
        UnifiedCache(tmp_path / "other")


def test_what_is_put_while_the_old_entry_is_disputed_is_served(
    cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, find = cache.put("old", x=1), cache._store.metadata.find

    def find_and_put(*given: Any) -> Any:
        monkeypatch.undo()
        found = find(*given)
        cache.put("new", x=1)  # as another process does after the look
        return found

    monkeypatch.setattr(cache._store.metadata, "find", find_and_put)
    assert cache.dispute(old, None, None, "it came out differently")
    assert cache.get(x=1) == "new"


def test_one_function_has_a_hundred_disputes_a_day_at_most(
    cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cacheness.cache.MOST_A_DAY", 2)
    state = State(1)

    @cache.cached(check=1.0, key=lambda n: n)
    def f(n: int) -> int:
        return state.now

    for number in range(4):
        f(number)
    state.now = 2
    with caplog.at_level(logging.WARNING):
        assert [f(number) for number in range(4)] == [2] * 4
    assert len(cache.disputes()) == 2


def test_the_example_finds_the_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = os.getcwd()
    try:
        importlib.import_module("examples.audit").main(str(tmp_path))
    finally:
        os.chdir(here)
    told = capsys.readouterr().out
    assert "served, stale: 110.00000000000001" in told
    assert "why: 110.00000000000001 is stored, 125.0 was computed" in told
    assert "after the decision: 125.0" in told
