"""What one sees of a cache in Dask: figures with reasons, callbacks, and the scheduler's page and report."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import multiprocessing
import operator
import re
import threading
import time
import types
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import pytest
from dask import delayed
from distributed import Client
from workloads import inc

import cacheness_dask as cd
from cacheness import UnifiedCache
from cacheness_dask import live
from cacheness_dask.dashboard import DashboardPlugin, page_of
from cacheness_dask.policy import Meter


def reasons(cache: UnifiedCache) -> dict[str, int]:
    return {row.name: row.misses for row in cache.report(by="reason")}


@contextmanager
def hearing() -> Iterator[list[cd.Progress]]:
    heard: list[cd.Progress] = []
    with cd.Callback(heard.append):
        yield heard


def total(heard: list[cd.Progress]) -> cd.Progress:
    return functools.reduce(operator.add, heard, cd.Progress())


def slow(x: int) -> int:
    time.sleep(0.02)
    return x


def test_figures_have_what_the_history_has_with_reasons(cache: UnifiedCache) -> None:
    task = delayed(slow)
    for graph in ([task(1), task(2)], [task(1), task(3)], [task(task(1))]):
        with cd.caching(cache, which="all", scheduler="sync") as run:
            dask.compute(*graph)
            (record,) = run.history
    row = next(row for row in cache.report() if row.name == "slow")
    assert (row.misses, row.hits) == (4, 2)
    assert reasons(cache) == {"never seen": 2, "new arguments": 2}
    assert record.misses == 1
    assert row.seconds_spent >= 4 * 0.02
    assert row.seconds_saved >= 2 * 0.02
    assert row.bytes_stored > 0


def test_an_edit_is_a_reason(cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def computed(body: str) -> None:
        found: dict[str, Any] = {}
        exec(f"def edited(x):\n    return {body}", found)
        with cd.caching(cache, which="all", scheduler="sync"):
            delayed(found["edited"])(1).compute()

    for body in ("x + 1", "x + 2"):
        computed(body)
    assert reasons(cache) == {"never seen": 1, "code changed: edited": 1}


def test_what_is_refused_is_counted_and_what_is_not_needed_saves(cache: UnifiedCache) -> None:
    lock = threading.Lock()
    with cd.caching(cache, which="all", scheduler="sync") as run:
        delayed(type)(lock).compute()
        delayed(slow)(delayed(slow)(7)).compute()
        delayed(slow)(delayed(slow)(7)).compute()
    assert run.history[-1].skipped == 1
    report = cache.report()
    assert report.total.not_cacheable == 1
    assert report.total.seconds_saved == pytest.approx(run.history[-1].seconds_saved)


def test_a_task_that_was_once_not_worth_storing_says_so(cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Meter, "load_seconds", lambda meter, size: 60.0)  # however busy this machine is
    for _ in range(2):
        with cd.caching(cache, which="auto", scheduler="sync"):
            delayed(inc)(delayed(inc)(1)).compute(optimize_graph=False)
        cache.invalidate(next(cache.iter_entries()))
    assert reasons(cache).get("not stored before: cheaper to compute than to load") == 1


def odd(x: int) -> int:
    if x % 2:
        raise ValueError(x)
    return x


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_a_task_that_raises_has_failed_and_is_no_miss(cache: UnifiedCache, scheduler: str) -> None:
    task = delayed(odd)
    with cd.caching(cache, which="all", scheduler=scheduler):
        for x in (1, 2, 1):
            with contextlib.suppress(ValueError):
                task(x).compute()
    (row,) = cache.report()
    assert (row.name, *row.counts) == ("odd", 3, 0, 1, 0, 0, 2)
    assert {one.name: one.failed for one in cache.report(by="outcome")} == {"miss": 0, "failed": 2}
    with cd.caching(cache, which="all", scheduler=scheduler), contextlib.suppress(ValueError):
        dask.compute(task(2), task(4), task(7))
    total = cache.report().total
    assert (total.failed, total.calls) == (3, sum(total.counts[1:]))


@pytest.mark.slow
def test_tasks_of_a_pool_of_processes_that_raise_have_failed(cache: UnifiedCache) -> None:
    task = delayed(odd)
    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, mp_context=spawn) as pool,
        cache.listening() as heard,
        cd.caching(cache, which="all", scheduler="processes") as run,
    ):
        for wanted in ((task(2), task(3)), (task(3),), (task(4),), (task(5), task(3))):
            with contextlib.suppress(ValueError), dask.config.set(pool=pool, chunksize=1):
                dask.compute(*wanted)
        assert not run.unstored
    total = cache.report().total
    assert (total.failed, total.misses, total.calls) == (3, 3, 6)
    assert {one.name: one.failed for one in cache.report(by="outcome")} == {"miss": 0, "failed": 3}
    assert {call.reason for call in heard if call.outcome == "failed"} == {"the function raised"}
    (row,) = cd.explain(task(3), cache)
    assert row.why.startswith("argument 1 changed")


def test_tasks_of_workers_that_raise_have_failed(cluster: Any, cache: UnifiedCache) -> None:
    task = delayed(odd)
    with Client(cluster) as client:
        with cd.caching(cache, which="all"):
            with pytest.raises(ValueError, match="3"):
                dask.compute(task(2), task(3))
            client.compute(task(4)).result()
            with pytest.raises(ValueError, match="5"):
                client.compute(task(5)).result()
        total = cache.report().total
        assert (total.failed, total.misses) == (2, 2)


def test_functions_of_one_code_are_counted_under_their_own_names(cache: UnifiedCache) -> None:
    other = types.FunctionType(slow.__code__, globals(), "another")
    other.__qualname__ = "another"
    for function in (slow, slow, other, other):
        with cd.caching(cache, which="all", scheduler="sync"):
            delayed(function)(1).compute()
    counts = {row.name: row.counts[1:3] for row in cache.report()}
    assert counts["slow"] == (1, 1)
    assert sum(map(sum, counts.values())) == 4
    assert counts.get("another", (0, 0)) != (0, 0)


def test_callbacks_hear_what_happens_here(cache: UnifiedCache) -> None:
    with hearing() as heard:
        for _ in range(2):
            with cd.caching(cache, which="all", scheduler="threads"):
                delayed(slow)(1).compute()
                delayed(type)(threading.Lock()).compute()
    told = total(heard)
    assert (told.graphs, told.hits, told.misses, told.refused) == (4, 1, 1, 2)
    assert (told.loaded, told.to_compute, told.computed, told.stored) == (1, 1, 1, 1)
    assert told.loaded_bytes > 0
    assert told.compute_seconds >= 0.02
    assert [why.partition(":")[0] for why in told.reasons] == ["type"]
    with cd.caching(cache, which="all", scheduler="sync"):
        delayed(slow)(2).compute()
    assert total(heard) == told  # nobody listens any more


def test_an_error_in_a_callback_is_logged_and_stops_nothing(cache: UnifiedCache, caplog: Any) -> None:
    def broken(_: cd.Progress) -> None:
        raise ValueError("broken")

    caplog.set_level("DEBUG", "cacheness.dask")
    with cd.Callback(broken), hearing() as heard, cd.caching(cache, scheduler="sync"):
        assert delayed(inc)(1).compute() == 2
    assert total(heard).misses == 1
    assert "ValueError: broken" in caplog.text


def page(client: Client) -> str:
    with urllib.request.urlopen(client.dashboard_link.replace("/status", "/cacheness")) as answer:
        assert "script-src" not in (policy := answer.headers["Content-Security-Policy"])
        assert policy.startswith("default-src 'none'")
        return str(answer.read().decode())


def test_the_scheduler_has_a_page_and_callbacks_hear_the_workers(cluster: Any, cache: UnifiedCache) -> None:
    with Client(cluster) as client, hearing() as heard:
        for n in range(2):
            with cd.caching(cache, which="all") as run:
                dask.compute(*[delayed(slow)(x) for x in range(4 + n)])
            assert run.history[0].hits == 4 * n
        # What was sent when the workers had stored all arrives by another way than the answer, and with what was left
        # of the test before.
        client.sync(_until, lambda: total(heard).stored >= 5 and total(heard).loaded >= 4)
        told, text = total(heard), page(client)
    assert (told.graphs, told.hits, told.misses) == (2, 4, 5)
    assert told.computed >= 5
    assert re.search(r"<th>graphs</th><td>[1-9]", text)
    assert "<script" not in text


async def _until(holds: Any) -> None:
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never happened")


HOSTILE = "</pre><script>alert(1)</script>\N{RIGHT-TO-LEFT OVERRIDE}\x1b[31m"


def test_hostile_names_are_text_on_the_page() -> None:
    text = page_of(cd.Progress(), cd.Progress(reasons={f"{HOSTILE}{n}": 1 for n in range(30)}))
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "and 10 more reasons" in text


class FakeScheduler:
    """What the plugin uses of a scheduler, where a real one's report needs Bokeh."""

    def __init__(self) -> None:
        self.reports: list[str] = []
        self.handlers: dict[str, Any] = {"performance_report": self.performance_report}
        self.http_application = self

    def add_handlers(self, *_: Any) -> None:
        pass

    def get_events(self, topic: str) -> list[Any]:
        return [(10.0, {"graphs": 1, "hits": 3, "misses": "many"}), (11.0, "something else")]

    async def performance_report(self, start: float, last_count: int, code: str, mode: str | None) -> str:
        self.reports.append(code)
        return code


def test_a_performance_report_has_a_part_of_the_time_that_it_is_about() -> None:
    async def reported() -> list[str]:
        scheduler, plugin = FakeScheduler(), DashboardPlugin()
        await plugin.start(scheduler)  # type: ignore[arg-type]
        plugin.log_event("another", {"hits": 99})
        plugin.log_event(live.TOPIC, cd.Progress(graphs=1, hits=2, reasons={HOSTILE: 1}).as_dict())
        assert plugin.total.hits == 5
        return [
            await scheduler.handlers["performance_report"](start=start, last_count=0, code="x.compute()")
            for start in (0.0, time.time() - 60)
        ]

    whole, recent = asyncio.run(reported())
    assert "<h2>Cacheness</h2>" in whole
    assert whole.startswith("x.compute()</pre>")
    assert ("<td>5 " in whole, "<td>2 " in recent) == (True, True)
    assert "<script" not in recent


def test_what_waits_is_sent_twice_a_second_and_reasons_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    many = functools.reduce(operator.add, (cd.Progress(reasons={f"why {n}": 1}) for n in range(1000)))
    assert len(many.reasons) == live.MOST_REASONS + 1
    assert sum(many.reasons.values()) == 1000
    assert cd.Progress.of(many.as_dict()) == many
    assert cd.Progress().as_dict() == {}


def test_the_last_that_a_worker_has_to_tell_is_sent_though_nothing_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    sent: list[Any] = []

    class Loop:
        def call_later(self, seconds: float, call: Any) -> None:
            asked.append((seconds, call))

        def add_callback(self, call: Any, *given: Any) -> None:
            call(*given)

    class Worker:
        loop = Loop()

        def log_event(self, topic: str, event: Any) -> None:
            sent.append(event)

    monkeypatch.setattr(live, "_worker", Worker)
    live.send()
    for _ in range(3):
        live.tell(computed=1)
    assert (sent, asked) == ([], [(live.EVERY, live.send)])
    live.send()
    assert [event["computed"] for event in sent] == [3]
    live.tell(loaded=1)
    assert len(asked) == 2
    live.send()


def test_docs_show_the_page() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reference" / "dask.md").read_text()
    assert "/cacheness" in text
    assert "cd.Callback" in text
