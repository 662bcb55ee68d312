"""Why a result was not stored stays beside its key: planning, `explain` and `run.unstored` know it, in any process."""

from __future__ import annotations

import pathlib
import pickle
from collections.abc import Callable
from typing import Any

import dask
import dask.bag as db
import numpy as np
import pytest
from dask.utils import SerializableLock
from distributed import Client
from workloads import inc

import cacheness_dask as cd
from cacheness import UnifiedCache
from cacheness_dask import reasons
from cacheness_dask.policy import Meter


class Unreadable:
    """Can be pickled, and cannot be read again."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pickle.loads, (b"",))


class Closed:
    """Cannot be pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("this is nobody's business")


def kind_of(x: Any) -> str:
    return type(x[0] if isinstance(x, list) else x).__name__


def test_a_reference_in_a_graph_is_one_and_no_result_holds_one(cache: UnifiedCache) -> None:
    source = cache.cached(zeros)
    ref, value = source.lazy(5), np.zeros(5)

    def task_that_returns(ref: Any) -> Any:
        return {"r": ref}

    with cd.caching(cache, which="all", scheduler="sync") as run:
        for given, kind in ((ref.arg, "Ref"), (value, "ndarray"), (ref.arg, "Ref")):
            assert dask.delayed(kind_of)(given).compute() == kind
            assert dask.delayed(kind_of)([given]).compute() == kind
        for _ in range(2):
            found = dask.delayed(task_that_returns)(source.lazy(5)).compute()
            assert kind_of(found["r"]) == "Ref"
            run.flush()
        assert "a Ref to another result: return its .value" in str(run.unstored)
        with pytest.raises(AttributeError, match=r"take its \.value"):
            dask.delayed(lambda x: x[0].sum())([ref.arg]).compute()


def nothing(x: int) -> None:
    """Works by side effect."""


def locked(x: int) -> Any:
    return {"lock": SerializableLock()}


def unreadable(x: int) -> Unreadable:
    return Unreadable()


def closed(x: int) -> Closed:
    return Closed()


def zeros(size: int) -> Any:
    return np.zeros(size)


def lines(x: int) -> Any:
    return iter(range(x))


def written_aside(x: int) -> int:
    with open(f"aside-{x}.txt", "w") as file:
        file.write("x")
    return x


def after(x: Any) -> int:
    return 1


def clock(x: int) -> int:
    return x


LASTING: dict[str, tuple[Callable[[], Any], str]] = {
    "nothing": (lambda: dask.delayed(nothing)(1), "None: "),
    "locked": (lambda: dask.delayed(locked)(1), "handle: a lock"),
    "unreadable": (lambda: dask.delayed(unreadable)(1), "cannot be pickled: what was pickled cannot be read again"),
    "closed": (lambda: dask.delayed(closed)(1), "cannot be pickled: "),
    "zeros": (lambda: dask.delayed(zeros)(1000), "too large: "),
    "lines": (lambda: dask.delayed(lines)(3), "handle: it can be read only once"),
}


@pytest.fixture(autouse=True)
def here(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def told(run: cd.Run, name: str) -> str:
    (counted,) = run.unstored[name].items()
    assert counted[1] == 1
    return str(counted[0])


@pytest.mark.parametrize("name", LASTING)
def test_what_can_never_be_stored_is_known_in_the_next_run(cache: UnifiedCache, name: str) -> None:
    make, why = LASTING[name]
    for refused in (0, 1):
        with cd.caching(cache, scheduler="sync", max_value_bytes=1000) as run:
            dask.compute(make(), optimize_graph=False)
            run.flush()
            assert run.history[0].refused == refused
            assert told(run, name).startswith(why)
            (row,) = cd.explain(make())
            assert row.status == "refused"
            assert row.why.startswith(f"not stored: {why}")


def test_another_bound_for_sizes_asks_again(cache: UnifiedCache) -> None:
    for bound, stored in ((1000, 0), (1000, 0), ("2kB", 0), ("1MB", 1)):
        with cd.caching(cache, scheduler="sync", max_value_bytes=bound) as run:
            dask.delayed(zeros)(1000).compute()
            assert run.history[0].stored == stored
            assert run.history[0].refused + run.history[0].misses == 1


def test_what_is_cheap_is_said_to_be_and_may_be_stored_later(
    cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Meter, "load_seconds", lambda meter, size: 60.0)  # however busy this machine is

    def chain() -> Any:
        return dask.delayed(after)([dask.delayed(inc)(x) for x in range(3)])

    with cd.caching(cache, scheduler="sync") as run:
        chain().compute(optimize_graph=False)
    assert run.unstored == {"inc": {"cheaper to compute than to load": 3}}
    cache.invalidate(next(entry["cache_key"] for entry in cache.list_entries(function="after")))
    rows = {row.name: (row.status, row.why) for row in cd.explain(chain(), cache)}
    assert rows["inc"] == ("miss", "not stored when it was computed: cheaper to compute than to load")
    assert rows["after"][0] == "miss"
    with cd.caching(cache, scheduler="sync", which="all") as run:
        chain().compute(optimize_graph=False)
        assert run.history[0].stored == 4
    assert {row.status for row in cd.explain(chain(), cache)} == {"hit", "skipped"}


def test_a_sink_that_was_seen_is_one_in_the_next_run(cache: UnifiedCache, caplog: pytest.LogCaptureFixture) -> None:
    def chain() -> Any:
        return dask.delayed(after)(dask.delayed(written_aside)(7))

    for refused in (0, 2, 2):
        with cd.caching(cache, scheduler="sync", which="all") as run:
            chain().compute(optimize_graph=False)
            assert run.history[0].refused in (refused, 2)  # the code may have told it before it ran
        pathlib.Path("aside-7.txt").unlink()  # it ran
    assert "written_aside runs every time" in caplog.text


def test_chance_and_writers_are_counted_by_function(cache: UnifiedCache) -> None:
    bag = db.from_sequence(range(4), npartitions=2)
    with cd.caching(cache, scheduler="sync") as run:
        bag.map(str).to_textfiles("out-*.txt")
        dask.compute([dask.delayed(np.random.rand)(3) for _ in range(3)])
    whys = {name: list(counted.items()) for name, counted in run.unstored.items()}
    ((why, count),) = whys["RandomState.rand"] if "RandomState.rand" in whys else whys["rand"]
    assert why.startswith("unseeded randomness")
    assert count == 3
    assert any("sink" in why for counted in run.unstored.values() for why in counted)


@pytest.mark.slow
def test_a_pool_of_processes_tells_through_the_store(cache: UnifiedCache) -> None:
    tasks = [dask.delayed(nothing)(1), dask.delayed(zeros)(1000), dask.delayed(inc)(1)]
    with cd.caching(cache, scheduler="processes", which="all", max_value_bytes=1000, check_inputs=0) as run:
        assert dask.compute(*tasks)[2] == 2
        run.flush()
        assert told(run, "nothing").startswith("None:")
        assert told(run, "zeros").startswith("too large:")
        assert "inc" not in run.unstored
        dask.compute(*tasks)
    assert run.history[1].refused == 2


def test_workers_tell_beside_the_keys(cache: UnifiedCache, client: Client) -> None:
    with cd.caching(cache, scheduler=client, which="all"):
        dask.delayed(nothing)(5).compute()
    (row,) = cd.explain(dask.delayed(nothing)(5), cache)
    assert (row.status, row.why.partition(": ")[2][:5]) == ("refused", "None:")


def test_clearing_a_cache_forgets_the_reasons(cache: UnifiedCache) -> None:
    with cd.caching(cache, scheduler="sync"):
        dask.delayed(nothing)(5).compute()
    cache.clear()
    (row,) = cd.explain(dask.delayed(nothing)(5), cache)
    assert row.status == "miss"


def test_very_many_reasons_of_one_function_are_summed_up(cache: UnifiedCache) -> None:
    with cd.caching(cache, scheduler="sync") as run:
        for number in range(150):
            run._learned._count("f", f"files: {number}.csv changed")
    assert sum(run.unstored["f"].values()) == 150
    assert run.unstored["f"]["other reasons"] == 50


def test_the_page_has_the_table_of_reasons() -> None:
    page = (pathlib.Path(__file__).parents[2] / "docs" / "reference" / "dask.md").read_text(encoding="utf-8")
    assert "\n".join(reasons.rows()) in page


def test_every_reason_begins_as_the_table_says(cache: UnifiedCache) -> None:
    tasks = [
        *(make() for make, _ in LASTING.values()),
        dask.delayed(np.save)("kept.npy", np.arange(3)),
        dask.delayed(np.random.rand)(3),
        dask.delayed(after)(dask.delayed(np.random.rand)(4)),
        dask.delayed(after)(SerializableLock()),
        dask.delayed(after)([np.frompyfunc(abs, 1, 1)]),
        dask.delayed(cd.register_stateful(clock))(1),
        dask.delayed(zeros)(10),
    ]
    begins = [reason.begins.removeprefix("… ") for reason in reasons.REASONS]
    with cd.caching(cache, scheduler="sync", which="all", max_value_bytes=1000) as run:
        dask.compute(*tasks, optimize_graph=False)
        run.flush()
    told = {why for counted in run.unstored.values() for why in counted} | set(run.history[0].reasons.values())
    assert len(told) >= 11
    assert not [why for why in told if not any(begin in why for begin in begins)]
