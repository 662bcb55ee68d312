"""What OpenTelemetry gets: spans of look-ups, computations and stores, and measures that add up to the figures."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace

from cacheness import UnifiedCache, telemetry
from cacheness.errors import StoreUnavailable
from tests.cache.telemetry_in_memory import Measures, Spans, providers

DOCS = Path(__file__).parents[2] / "docs" / "how-to" / "figures.md"


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[UnifiedCache]:
    with UnifiedCache(cache_dir=tmp_path / "cache") as opened:
        yield opened


@pytest.fixture
def telemetered(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Spans, Measures]]:
    with providers(monkeypatch) as both:
        yield both


MISS = [("cacheness.lookup", "miss"), ("cacheness.compute", "computed"), ("cacheness.store", "stored")]


def test_a_miss_is_three_spans_and_a_hit_is_one(cache, telemetered):
    spans, _ = telemetered

    @cache.cached
    def double(x: int) -> int:
        return x * 2

    double(1)
    assert spans.told() == MISS
    double(1)
    assert spans.told() == [*MISS, ("cacheness.lookup", "hit")]
    functions = {span.attributes["cacheness.function"] for span in spans.ended}
    assert len(functions) == 1
    assert functions.pop().endswith("double")
    assert spans.ended[0].attributes["cacheness.reason"] == "never seen"
    assert spans.ended[2].attributes["cacheness.size"] > 0


def test_what_a_function_calls_is_within_its_span_also_in_a_coroutine(cache, telemetered):
    spans, _ = telemetered

    @cache.cached
    def inner(x: int) -> int:
        return x

    @cache.cached
    async def outer(x: int) -> int:
        await asyncio.sleep(0)
        return inner(x)

    async def both() -> list[int]:
        return list(await asyncio.gather(outer(1), outer(2)))

    assert asyncio.run(both()) == [1, 2]
    parents = {(span.attributes["cacheness.function"].rpartition(".")[2], span.parent) for span in spans.ended}
    assert parents == {("inner", "cacheness.compute"), ("outer", "")}
    assert trace.get_current_span() is trace.INVALID_SPAN


class Begun(asyncio.Event):
    def __cacheness_key__(self) -> None:
        """Decides no result."""


def test_a_coroutine_that_is_dropped_ends_its_span_and_leaves_the_context_alone(cache, telemetered, caplog):
    spans, _ = telemetered

    begun = Begun()

    @cache.cached
    async def waits(x: int) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def cancelled() -> None:
        task = asyncio.ensure_future(waits(1))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert spans.told() == [("cacheness.lookup", "miss"), ("cacheness.compute", "failed")]
    assert "detach" not in caplog.text


def test_every_way_that_a_call_can_end_is_told(cache, telemetered, monkeypatch):
    spans, _ = telemetered

    @cache.cached
    def fails(x: int) -> None:
        raise ValueError(x)

    @cache.cached(condition=lambda _: False)
    def unwanted(x: int) -> int:
        return x

    @cache.cached(incomplete="refuse")
    def chance(x: int) -> float:
        import random

        return random.random()

    with pytest.raises(ValueError, match="1"):
        fails(1)
    assert spans.told()[-1] == ("cacheness.compute", "failed")
    assert [type(error) for error in spans.ended[-1].errors] == [ValueError]
    unwanted(1)
    assert spans.told()[-1] == ("cacheness.store", "not stored")
    assert spans.ended[-1].attributes["cacheness.reason"] == "condition= refused it"
    chance(1)
    assert spans.told()[-2:] == [("cacheness.lookup", "not cacheable"), ("cacheness.compute", "computed")]

    def down(*_: Any) -> Any:
        raise StoreUnavailable("down")

    with monkeypatch.context() as patch:
        patch.setattr(cache._store.metadata, "find", down)
        unwanted(2)
    assert spans.told()[-2:] == [("cacheness.lookup", "failed"), ("cacheness.compute", "computed")]


def test_calls_by_hand_are_told_too(cache, telemetered):
    spans, _ = telemetered
    cache.put(b"1", x=1)
    assert cache.get(x=1) == b"1"
    assert cache.get(x=2) is None
    cache.put_many([(2, {"x": 2}), (3, {"x": 3})])
    assert len(cache.get_many([cache.key(x=n) for n in (1, 2, 9)])) == 2
    put, lookup = "cacheness.store", "cacheness.lookup"
    waits = (put, "waits for its batch")
    hits = [(put, "stored"), (lookup, "hit"), (lookup, "miss")]
    assert spans.told() == [*hits, waits, waits, (put, "stored"), (lookup, "miss")]
    assert spans.ended[-2].attributes["cacheness.entries"] == 2
    assert (spans.ended[-1].attributes["cacheness.asked"], spans.ended[-1].attributes["cacheness.found"]) == (3, 2)


def test_measures_add_up_to_the_figures(cache, telemetered):
    _, measures = telemetered

    @cache.cached
    def f(x: int) -> str:
        return "text" * x

    for x in (1, 2, 1, 1):
        f(x)
    cache.get_many([f.key(1), f.key(5)])
    report = cache.report().total
    calls = measures.sums("cacheness.calls", "outcome")
    assert calls == {("miss",): report.misses, ("hit",): report.hits}
    assert measures.sums("cacheness.read")[()] == report.bytes_saved
    assert measures.sums("cacheness.saved")[()] == pytest.approx(report.seconds_saved)
    assert measures.sums("cacheness.spent")[()] == pytest.approx(report.seconds_spent)
    stored = [amount for name, amount, _ in measures.added if name == "cacheness.store.size"]
    assert sum(stored) == report.bytes_stored
    durations = [name for name, _, _ in measures.added if name.endswith(".duration")]
    assert (durations.count("cacheness.lookup.duration"), durations.count("cacheness.compute.duration")) == (5, 2)
    assert {label for _, _, labels in measures.added for label in labels} == {
        f"cacheness.{label}" for label in ("namespace", "function", "outcome", "reason")
    }


def test_reasons_tell_measures_apart_by_their_kind_alone(telemetered):
    _, measures = telemetered
    for name in ("one", "other"):
        telemetry.count("n", "f", "miss", f"code changed: helpers.{name}")
    assert measures.sums("cacheness.calls", "reason") == {("code changed",): 2}


def test_providers_that_fail_cost_one_warning_and_no_result(cache, telemetered, monkeypatch, caplog):
    spans, measures = telemetered

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no collector")

    monkeypatch.setattr(spans, "get_tracer", broken)
    monkeypatch.setattr(measures, "get_meter", broken)
    monkeypatch.setattr(telemetry, "_logged", set())
    assert cache.cached(len)("four") == 4
    assert cache.cached(len)("four") == 4
    assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == [
        "OpenTelemetry failed, and results stay right: RuntimeError: no collector; this is logged once"
    ]


def test_without_the_api_or_a_provider_nobody_is_told_and_nothing_is_imported(tmp_path):
    program = """
import sys
from cacheness import UnifiedCache, telemetry
with UnifiedCache(sys.argv[1]) as cache:
    cache.put(1, x=1)
    assert cache.get(x=1) == 1
    assert not [name for name in sys.modules if name.startswith("opentelemetry")]
    import opentelemetry.trace, opentelemetry.metrics
    assert telemetry.operation(telemetry.LOOKUP) is telemetry.NOBODY
    assert cache.get(x=1) == 1
"""
    environment = {"OTEL_PYTHON_METER_PROVIDER": "no_such_provider"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr


def test_docs_name_every_span_and_measure():
    page = DOCS.read_text()
    names = [telemetry.LOOKUP, telemetry.COMPUTE, telemetry.STORE, *telemetry.COUNTERS, *telemetry.HISTOGRAMS]
    assert [name for name in names if f"`{name}`" not in page] == []
