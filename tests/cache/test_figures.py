"""What calls came to: every call counts once, with a reason where it missed."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cacheness import UnifiedCache
from cacheness.errors import StoreUnavailable, UnhashableArgument
from cacheness.maintenance.activity import Report, Sum
from cacheness.memoize import explain_call, miss_reasons
from cacheness.page.preview import preview
from cacheness.page.views import overview
from cacheness.records import HOUR, Activity, Hit
from cacheness.results import call_counts
from cacheness.results.call_counts import OTHERS, Figures
from cacheness_prefect.figures_report import text_of
from tests.forked import ended, fork


def doubled(x: int) -> int:
    return 2 * x


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[UnifiedCache]:
    with UnifiedCache(tmp_path / "cache") as cache:
        yield cache


def outcomes(cache: UnifiedCache) -> dict[str, int]:
    total = cache.report().total
    named = {name: getattr(total, name) for name in ("hits", "misses", "waited", "not_cacheable", "failed")}
    return {name: count for name, count in named.items() if count}


def reasons(cache: UnifiedCache) -> dict[str, int]:
    return {row.name: row.misses for row in cache.report(by="reason")}


def test_the_figures_of_a_storm_add_up_to_its_calls(world):
    @world.cache.cached
    def slow(x: int) -> int:
        time.sleep(0.05)
        return x

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(slow, [n % 4 for n in range(64)]))
    (row,) = world.cache.report()
    assert row.name.endswith("slow")
    assert row.calls == 64
    assert row.misses == 4
    assert row.hits + row.waited == 60
    assert row.seconds_spent >= 4 * 0.05
    assert row.seconds_saved >= row.hits * 0.05  # who waited saved nothing
    stats = world.cache.stats()
    assert (stats["hits"], stats["misses"], stats["hit_rate"]) == (row.hits, 4, row.hits / 64)


def test_rows_add_up_to_their_total_and_calls_to_what_they_came_to():
    outcomes = ("hit", "near hit", "miss", "waited", "not cacheable", "failed")
    rows = [
        Activity("hour", hour, function, outcome, reason, calls, 0.5 * calls, 0.25 * calls, 10 * calls)
        for calls, (hour, function, outcome, reason) in enumerate(
            itertools.product((500, 501), ("a", "b", ""), outcomes, ("", "expired", "new arguments"))
        )
    ]
    for by in ("function", "hour", "outcome", "reason"):
        report = Report.of(rows, by)
        for field in dataclasses.fields(Sum)[1:]:
            total = sum(getattr(row, field.name) for row in report)
            assert total == pytest.approx(getattr(report.total, field.name)), (by, field.name)
        for row in (*report, report.total):
            assert row.calls == sum(row.counts[1:])
            assert row.looked_up == row.hits + row.misses + row.waited
            assert row.hit_rate == (row.hits / row.looked_up if row.looked_up else None)
    assert Report.of(rows, "reason").total.calls == Report.of(rows, "function").total.misses


def test_calls_without_a_function_or_a_reason_have_the_same_words_everywhere(cache):
    assert cache.lookup(x=1) is None
    for by, words in (("function", "no function"), ("reason", "not known")):
        report = cache.report(by=by)
        assert str(report).startswith(f"{words}: 1 call, 0 hits, 1 miss")
        assert words in report._repr_html_()
        assert [row["name"] for row in report.as_dict()["rows"]] == [""]
        assert report.name_of(report.total) == "total"
    shown = " ".join(overview(cache).html().split())
    assert "<td>no function</td>" in shown
    assert "<td>not known</td>" in shown
    shown = text_of(cache.report(), cache.report(by="reason"))
    assert "| no function | 1 | 0 | 1 |" in shown
    assert "| not known | 1 |" in shown


@pytest.mark.parametrize("mode", ["read", "offline"])
def test_who_listens_hears_a_cache_that_writes_no_figures(tmp_path, mode):
    def f(x):
        if x > 2:
            raise ZeroDivisionError
        return x

    with UnifiedCache(tmp_path) as writer:
        writer.cached(f)(1)
        writer.put(1, a=1)
    with UnifiedCache(tmp_path, mode=mode) as cache, cache.listening() as heard:
        cached = cache.cached(f)
        cached(1)
        assert (cache.get(a=1), cache.get(a=2)) == (1, None)
        cache.get_many([cache.key(a=2), cache.key(a=3)])
        if mode == "read":
            cached(2)
            with pytest.raises(ZeroDivisionError):
                cached(3)
        cache.count("f", "not cacheable", calls=2)
    done = ["hit", "hit", "miss", "miss", "miss", *(["miss", "failed"] if mode == "read" else [])]
    assert [call.outcome for call in heard] == [*done, "not cacheable", "not cacheable"]
    with UnifiedCache(tmp_path) as writer:
        assert writer.stats()["calls"] == 1


def test_a_call_whose_argument_has_no_key_counts_as_failed(cache):
    @cache.cached
    def f(x):
        return 1

    with cache.listening() as heard:
        for _ in range(2):
            with pytest.raises(UnhashableArgument):
                f(threading.Lock())
    assert [(call.outcome, call.reason) for call in heard] == [("failed", "an argument has no key")] * 2
    assert cache.report().total.failed == 2


def test_only_hits_save_something(cache):
    entry = cache.put(b"x" * 1000, x=1, compute_seconds=7.0)
    with cache.listening() as calls:
        cache.count_hit(Hit(None, entry), "waited", function="f", spent=2.0)
        cache.count("f", "waited", saved=7.0, size=9)
        cache.count("f", "not cacheable", saved=7.0, size=9)
        cache.count("f", "failed", saved=7.0, size=9)
        cache.count_hit(Hit(None, entry), function="f")
    assert [(call.seconds_saved, call.bytes) for call in calls] == [*[(0.0, 0)] * 4, (7.0, entry.size)]
    total = cache.report().total
    assert (total.waited, total.hits, total.seconds_saved, total.bytes_saved) == (2, 1, 7.0, entry.size)
    assert total.seconds_spent == 2.0
    assert total.hit_rate == 1 / 3


def test_functions_of_one_code_are_counted_under_the_name_that_was_called(cache):
    def named(name):
        found: dict[str, Any] = {}
        exec("def load(x): return x", found)
        found["load"].__module__ = name
        return cache.cached(found["load"])

    first, second = named("first"), named("second")
    assert [first(1), second(1), second(1), second.lazy(1).value] == [1] * 4
    key = second.key(1)
    assert cache.lookup(key) is not None
    assert list(cache.get_many([key, second.key(2)])) == [key.hex]
    (entry,) = cache.iter_entries()
    assert entry.function == "first:load"
    counted = {row.name: (row.hits, row.misses) for row in cache.report()}
    assert counted == {"first:load": (0, 1), "second:load": (5, 1)}


def test_to_look_at_an_entry_is_no_use_of_it(cache):
    double = cache.cached(doubled)
    double(1), double(1), double.lazy(1)
    (entry,) = cache.iter_entries()

    def uses() -> int:
        cache.report()  # writes what is counted
        return int(cache.describe([entry])[0]["uses"])

    assert uses() == 2
    assert preview(cache, entry) == "2"
    assert double.explain(1).hit
    assert cache.find(double.key(1)) is not None
    assert cache.value_of(entry) == 2
    cache.plan(double)
    assert uses() == 2
    cache.get(double.key(1))
    assert uses() == 3


def test_each_way_that_a_call_ends_is_counted_once(world):
    cache = world.cache

    @cache.cached(incomplete="refuse")
    def refused(x):
        return x + time.time_ns() * 0

    @cache.cached
    def failing(x):
        raise ValueError(x)

    @cache.cached
    async def later(x):
        return x

    for _ in range(2):
        with pytest.raises(ValueError, match="7"):
            failing(7)
        asyncio.run(later(1))
    later.refresh(1).close()
    assert cache.get(k=1) is None
    cache.put(1, k=1)
    assert cache.lookup(k=1) is not None
    cache.get_many([cache.key(k=1), cache.key(k=2), cache.key(k=3)])
    # later: a miss and a hit; get: a miss, a hit; get_many: a hit and two misses
    assert outcomes(cache) == {"hits": 3, "misses": 4, "failed": 2}
    assert {row.name: row.calls for row in cache.report(by="outcome")} == {"hit": 3, "miss": 4, "failed": 2}


def test_what_may_not_be_cached_and_what_no_store_answers_is_told_apart(world, monkeypatch, caplog):
    cache = world.cache

    @cache.cached(incomplete="refuse")
    def chance(x):
        import random

        return random.random()

    @cache.cached
    def plain(x):
        return x

    chance(1)
    with monkeypatch.context() as patch:

        def down(*_: Any, **__: Any) -> Any:
            raise StoreUnavailable("down")

        patch.setattr(cache._store.metadata, "find", down)
        assert plain(1) == 1
    assert outcomes(cache) == {"not_cacheable": 1, "failed": 1}


def test_a_miss_says_why_where_that_is_known(world, monkeypatch):
    cache = world.cache

    def version(number: str) -> Any:
        @cache.cached(version=number)
        def f(x):
            return x

        return f

    first = version("1")
    first(1)
    first(2)
    assert reasons(cache) == {"never seen": 1, "new arguments": 1}
    version("2")(1)
    assert reasons(cache) == {"never seen": 1, "new arguments": 1, "version changed": 1}
    first.invalidate(1)
    first(1)
    assert reasons(cache)["evicted or deleted"] == 1
    first.refresh(1)
    assert reasons(cache)["refresh was asked for"] == 1

    @cache.cached(condition=lambda value: False)
    def unwanted(x):
        return x

    @cache.cached(ttl=0.001)
    def short(x):
        return x

    unwanted(1)
    unwanted(1)
    short(1)
    time.sleep(0.01)
    short(1)
    assert reasons(cache)["not stored before: condition= refused it"] == 1
    assert reasons(cache)["expired"] == 1
    # Another process knows only what the database does.
    cache._opened.reasons.reset_after_fork()
    first.invalidate(1)
    first(1)
    assert reasons(cache)["version changed"] == 2


def test_what_has_expired_or_is_disputed_is_the_reason_that_figures_and_explanations_give(world):
    cache = world.cache

    @cache.cached(ttl=0.001)
    def short(x):
        return x

    @cache.cached
    def unsteady(x):
        return x

    short(1)
    unsteady(1)
    time.sleep(0.01)
    assert cache.dispute(cache.entry(unsteady.key(1)), None, None, "it came out differently")
    for function, reason in ((short, "expired"), (unsteady, "disputed: it came out differently")):
        explained = function.explain(1)
        assert (explained.hit, explained.past) == (False, reason)
        assert explained.sentence().startswith(f"miss: {reason}; entry {function.key(1).hex[:4]}")
        function(1)
        assert reasons(cache)[reason] == 1
    unsteady(1)  # what is disputed is not stored either
    assert reasons(cache)["disputed: it came out differently"] == 2
    # Another process asks once an hour which functions have disputes.
    cache._opened.reasons.reset_after_fork()
    unsteady(1)
    assert reasons(cache)["disputed: it came out differently"] == 3
    cache.settle(unsteady.key(1), keep="old")
    assert unsteady.explain(1).hit


def test_an_entry_older_than_all_that_are_compared_is_explained_as_the_hit_that_it_is(world, monkeypatch):
    monkeypatch.setattr(explain_call, "CANDIDATES", 2)

    @world.cache.cached
    def f(x):
        return x

    for n in range(4):
        f(n)
    assert all(f.explain(n).hit for n in range(4))


def test_code_and_values_that_changed_are_a_reason(world):
    source = "RATE = {}\ndef helper(x):\n    return x + {}\ndef f(x):\n    return helper(x) * RATE\n"
    for numbers in ((1, 1), (1, 2), (2, 2)):
        scope: dict[str, Any] = {"__name__": "pipeline"}
        exec(source.format(*numbers), scope)
        world.cache.cached(scope["f"])(1)
    assert reasons(world.cache) == {
        "never seen": 1, "code changed: pipeline.helper": 1, "code changed: pipeline.RATE": 1,
    }  # fmt: skip


def test_reasons_cost_a_statement_an_hour_and_none_at_a_hit(world, monkeypatch):
    asked = []
    newest = world.cache._store.metadata.newest

    def seen(*given: Any, **more: Any) -> Any:
        asked.append(given)
        return newest(*given, **more)

    monkeypatch.setattr(world.cache._store.metadata, "newest", seen)
    monkeypatch.setattr(logging.getLogger("cacheness"), "level", logging.WARNING)

    @world.cache.cached
    def f(x):
        return x

    for n in range(5):
        f(n)
        f(n)
    assert len(asked) == 1
    monkeypatch.setattr(miss_reasons, "ASK_AGAIN", 0.0)
    f(9)
    assert len(asked) == 2


def test_what_was_counted_is_there_for_another_process_and_after_close(world):
    with UnifiedCache(world.config.but(ttl=1000)) as other:
        other.put("v", k=1, compute_seconds=2.0)
        other.get(k=1)
    assert world.cache.stats()["hits"] == 1
    assert world.cache.stats()["seconds_saved"] == 2.0
    assert world.cache.report(since="1h").total.hits == 1
    assert [row.hits for row in world.cache.report(by="hour")] == [1]
    with pytest.raises(ValueError, match="by='day'"):
        world.cache.report(by="day")  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_counts_its_own_calls_and_not_those_of_its_parent(world):
    world.cache.put("v", k=1)
    world.cache.get(k=1)

    def child() -> None:
        world.cache.get(k=1)
        world.cache.stats()

    assert ended(fork(child)) == 0
    assert world.cache.stats()["hits"] == 2


CHILDREN = """
    import multiprocessing, sys
    from concurrent.futures import ProcessPoolExecutor
    from cacheness import UnifiedCache

    cache = UnifiedCache(sys.argv[-1])

    @cache.cached
    def double(x):
        return 2 * x

    def work():
        return [double(number % 5) for number in range(20)]

    if __name__ == "__main__":
        for how in ("fork", "forkserver"):
            process = multiprocessing.get_context(how).Process(target=work)
            process.start()
            process.join()
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as executor:
            executor.submit(work).result()
        pool = multiprocessing.get_context("fork").Pool(1)
        pool.apply(work)
        pool.close()
        pool.join()
        calls = cache.stats()
        print(calls["hits"], calls["misses"], sum(entry["uses"] for entry in cache.list_entries()))
"""


@pytest.mark.slow
def test_children_of_multiprocessing_write_their_counts_as_they_end(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(CHILDREN))
    command = [sys.executable, "-W", "ignore::DeprecationWarning", program, tmp_path / "cache"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (["75", "5", "75"], "")


def test_figures_that_could_not_be_written_are_written_later_and_once(world, monkeypatch):
    world.cache.put("v", k=1)
    metadata = world.cache._store.metadata
    record = metadata.record_activity

    def answer_is_lost(*given: Any) -> None:
        record(*given)
        raise StoreUnavailable("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(metadata, "record_activity", answer_is_lost)
        world.cache.get(k=1)
        world.cache._store.uses.flush()
    world.cache.get(k=1)
    assert world.cache.stats()["hits"] == 2


def test_what_is_left_of_an_old_hour_counts_in_the_hour_that_writes_it():
    figures, now = Figures(), 1000 * HOUR
    figures.count("f", "hit")
    figures.written(figures.to_write(now))
    figures.count("f", "hit")
    (row,) = figures.to_write(now + 1)
    assert (row.hour, row.calls) == (1000, 2)  # and is not written
    (row,) = figures.to_write(now + 3 * HOUR)
    assert (row.hour, row.calls) == (1003, 1)
    figures.written([row])
    assert figures.to_write(now + 3 * HOUR) == []
    assert not figures.is_waiting()


def test_many_functions_long_names_and_hostile_ones_make_few_short_rows(monkeypatch):
    monkeypatch.setattr(call_counts, "FUNCTIONS_AT_MOST", 3)
    figures = Figures()
    for n in range(10):
        figures.count(f"m:f{n}" + "x" * 500, "hit")
    rows = figures.to_write(0)
    assert {row.function for row in rows} - {OTHERS} == {f"m:f{n}".ljust(200, "x") for n in range(3)}
    assert sum(row.calls for row in rows) == 10
    monkeypatch.setattr(call_counts, "ROWS_AT_MOST", 5)
    for n in range(20):
        figures.count("m:f0", "miss", f"reason {n} \0 \udcff")
    rows = figures.to_write(0)
    assert sum(row.calls for row in rows if row.outcome == "miss") == 20
    assert len(rows) <= 7
    assert all("\0" not in row.reason for row in rows)


def test_a_value_that_no_codec_takes_is_a_reason_for_the_next_miss(world, caplog):
    @world.cache.cached
    def handle(x):
        return (n for n in [x])

    for _ in range(2):
        assert list(handle(1)) == [1]
    assert reasons(world.cache) == {"never seen": 1, "not stored before: CodecError": 1}


def test_who_listens_hears_each_call_and_nothing_afterwards(world):
    @world.cache.cached
    def f(x):
        return x

    with world.cache.listening() as heard:
        f(1)
        with world.cache.listening() as inner:
            f(1)
        world.cache.get_many([world.cache.key(k=1), world.cache.key(k=2)])
    f(1)
    assert [(call.outcome, call.reason) for call in heard] == [
        ("miss", "never seen"), ("hit", ""), ("miss", ""), ("miss", ""),
    ]  # fmt: skip
    assert [call.outcome for call in inner] == ["hit"]
    assert heard[0].function == inner[0].function
    assert inner[0].seconds_saved > 0


def test_a_hit_that_is_checked_saves_nothing_and_a_difference_is_a_miss(cache, monkeypatch):
    monkeypatch.setenv("RATE", "1")

    @cache.cached(check=1.0, version="1")
    def read(x):
        return int(os.environ["RATE"])

    with cache.listening() as calls:
        assert [read(0), read(0)] == [1, 1]
        monkeypatch.setenv("RATE", "2")
        assert read(0) == 2
    assert [(call.outcome, call.reason) for call in calls] == [
        *(("miss", "never seen"), ("hit", ""), ("miss", "disputed: it came out differently"))
    ]
    assert cache.stats()["seconds_saved"] == 0
    assert all(call.seconds_spent > 0 for call in calls)


def test_a_function_whose_results_are_never_stored_is_never_seen(cache):
    unwanted = cache.cached(doubled, condition=lambda _: False)
    wanted = cache.cached(doubled, version="1")
    for number in range(3):
        unwanted(number), wanted(number)
    assert reasons(cache) == {"never seen": 4, "new arguments": 2}
