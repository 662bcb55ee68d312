"""What one sees of the cache in Prefect: lines in a run's log, figures that add up, a daily report and its events."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from prefect import flow, task
from prefect.client.orchestration import SyncPrefectClient, get_client

from cacheness import Report
from cacheness.records import HOUR, Activity, Outcome
from cacheness_prefect import CachenessStorage, figures_report
from cacheness_prefect.key_storage import CachenessKeys
from tests.prefect.test_repair_flow import events


@pytest.fixture
def client(prefect_api: str) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Cache ")]
    caplog.clear()
    return found


def double(x: int) -> int:
    time.sleep(0.02)
    return x * 2


def slowly(x: int) -> int:
    time.sleep(0.5)
    return x * 2


def never(x: int) -> int:
    raise ValueError(x)


async def adouble(x: int) -> int:
    return x * 2


def figures(store: CachenessStorage) -> dict[str, int]:
    total = store.open().report().total
    return {name: n for name in ("hits", "misses", "waited", "failed") if (n := getattr(total, name))}


def test_a_run_says_why_it_runs_or_what_it_saves(store, caplog) -> None:
    caplog.set_level(logging.INFO, "prefect.task_runs")
    doubles = task(double, cache_policy=store.policy())
    adoubles = task(adouble, cache_policy=store.policy())

    @flow(name="first flow")
    def once() -> None:
        doubles(1)

    @flow
    async def aonce() -> None:
        await adoubles(1)

    once()
    assert lines(caplog) == ["Cache miss: never seen"]
    once()
    (hit,) = lines(caplog)
    assert re.match(r"Cache hit, [0-9.]+ s saved; computed [-0-9]+ [:0-9]+ UTC by double-", hit)
    doubles(2)
    assert lines(caplog) == ["Cache miss: new arguments"]
    asyncio.run(aonce())
    asyncio.run(aonce())
    miss, hit = lines(caplog)
    assert (miss, hit.partition(",")[0]) == ("Cache miss: never seen", "Cache hit")
    doubles.with_options(refresh_cache=True)(1)
    assert lines(caplog) == []
    assert figures(store) == {"misses": 4, "hits": 2}
    reasons = {row.name: row.misses for row in store.open().report(by="reason")}
    assert reasons == {"never seen": 2, "new arguments": 1, "refresh was asked for": 1}
    rows = {row.name.rpartition(":")[2]: row for row in store.open().report()}
    assert rows["double"].seconds_saved >= 0.02
    assert rows["double"].bytes_stored > 0


def test_of_runs_that_share_a_key_each_is_counted_once(store) -> None:
    doubles = task(slowly, cache_policy=store.policy(single_flight=True))

    @flow
    def together() -> None:
        for future in doubles.map([5, 5, 5, 5, 5, 5]):
            future.result()

    together()
    found = figures(store)
    assert found["misses"] == 1
    assert found["waited"] >= 1
    assert found["waited"] + found.get("hits", 0) == 5
    [row] = store.open().report()
    assert row.seconds_saved < 0.5 * (found.get("hits", 0) + 1)  # only hits save something


def test_a_task_that_raises_counts_as_failed(store) -> None:
    fails = task(never, cache_policy=store.policy())
    for number in range(2):
        fails(number, return_state=True)
    assert figures(store) == {"failed": 2}
    assert [row.name for row in store.open().report(by="reason")] == []


def test_an_edit_and_what_expired_are_reasons(store, caplog) -> None:
    caplog.set_level(logging.INFO, "prefect.task_runs")

    def of(body: str) -> Any:
        found: dict[str, Any] = {}
        exec(f"def edited(x):\n    return {body}", found)
        return task(found["edited"], cache_policy=store.policy())

    of("x + 1")(1)
    of("x + 2")(1)
    miss, other = lines(caplog)
    assert miss == "Cache miss: never seen"
    assert other.startswith("Cache miss: code changed")


def test_a_policy_of_prefects_own_counts_with_our_storage(store) -> None:
    from prefect.cache_policies import INPUTS

    kept = INPUTS.configure(key_storage=store.key_storage())
    plain = task(double, cache_policy=kept, result_storage=store)
    plain(3)
    plain(3)
    assert figures(store)["hits"] >= 1


def test_the_daily_report_is_an_artifact_and_an_event(store, client) -> None:
    doubles = task(double, cache_policy=store.policy())
    doubles(1)
    doubles(1)

    @flow
    def daily() -> None:
        figures_report.publish_figures(store.open(), str(store.saved_as))

    daily()
    (told,) = events(client, figures_report.REPORT, str(store.saved_as))
    assert (told["payload"]["hits"], told["payload"]["misses"], told["payload"]["entries"]) == (1, 1, 1)
    assert told["payload"]["reasons"] == {"never seen": 1}
    assert events(client, figures_report.NO_HITS, str(store.saved_as), patience=0) == []
    found = client.request("POST", "/artifacts/filter", json={"artifacts": {"key": {"any_": ["cacheness-figures"]}}})
    (artifact,) = [one for one in found.json() if str(store.saved_as) in one["description"]]
    assert "**2 calls**, **hit rate 50%**" in artifact["data"]
    assert "never seen" in artifact["data"]


def report(**calls: int) -> Report:
    outcomes: dict[str, Outcome] = {"hits": "hit", "misses": "miss", "waited": "waited"}
    rows = [Activity("hour", 1, "f", outcomes[name], "", n, 0.0, 0.0, 0) for name, n in calls.items()]
    return Report.of(rows, "function")


@pytest.mark.parametrize(
    ("day", "week", "says"),
    [
        ({"misses": 20}, {"misses": 90, "hits": 1}, True),
        ({"misses": 19}, {"misses": 90, "hits": 1}, False),  # too few to mean something
        ({"misses": 20}, {"misses": 90}, False),  # it never hit
        ({"misses": 20, "hits": 1}, {"misses": 20, "hits": 1}, False),
        ({"misses": 20, "waited": 1}, {"misses": 20, "hits": 1}, False),
    ],
)
def test_a_hit_rate_that_falls_to_nothing_is_an_event(day: Any, week: Any, says: bool) -> None:
    assert figures_report.has_stopped_hitting(report(**day), report(**week)) is says


def test_hostile_names_do_not_break_the_report() -> None:
    hostile = "a|b\n<script>alert(1)</script>\N{RIGHT-TO-LEFT OVERRIDE}\x1b[31m"
    rows = [Activity("hour", HOUR, hostile, "miss", hostile, 1, 0.0, 0.0, 0)]
    text = figures_report.text_of(Report.of(rows, "function"), Report.of(rows, "reason"))
    assert len({line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("| a")}) == 2
    assert "<script" not in text.replace("\\<", "")
    assert "\x1b" not in text
    assert figures_report.text_of(report(), report()) == "No calls were counted in the last day."


def test_the_blocks_say_what_they_are() -> None:
    assert all(block._description for block in (CachenessStorage, CachenessKeys))
