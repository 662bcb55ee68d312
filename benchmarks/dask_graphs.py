"""Dask: what a graph costs before it runs: fingerprinting it, looking it up, sending it to a scheduler."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import dask.array as da
import dask.dataframe as dd
import pandas as pd
import psycopg
from dask._expr import FinalizeCompute
from dask._task_spec import List, Task, TaskRef, convert_legacy_graph
from dask.base import collections_to_expr
from dask.core import flatten
from dask.delayed import Delayed
from dask.order import order
from distributed.protocol.serialize import Serialized, deserialize, serialize, to_serialize
from distributed.utils import nbytes

from benchmarks.bench import SIGNING_KEY, Bench, main
from benchmarks.rows import Row, compare
from cacheness import UnifiedCache
from cacheness_dask import graphs
from cacheness_dask.apply import apply
from cacheness_dask.fingerprint import fingerprints
from cacheness_dask.result_keys import entry_key
from cacheness_dask.run import Run
from cacheness_dask.ship import shipped


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    size = 10_000 if bench.quick else 100_000
    frame = pd.DataFrame({"a": range(5 * size // 50)})
    chunks = round((size / 10) ** 0.5)
    for what, make, most in (
        (f"Dask, a task of a delayed graph of {size:,}", lambda: delayed(size), 10),
        (f"Dask, an inner task of fused arrays of {size:,}", lambda: arrays(chunks), 10),
        (
            f"Dask, a task of from_pandas in {size // 50:,} parts",
            lambda: dd.from_pandas(frame, npartitions=size // 50),
            40,
        ),
    ):
        yield per_task(bench, what, make, most)
    yield from looking_up(bench)
    yield from sending(bench)


def increment(x: int) -> int:
    return x + 1


def delayed(size: int) -> Any:
    """The graph that `delayed(sum)([lazy(lazy(n)) for n in …])` makes, without the minutes that making it takes."""
    graph: dict[str, Any] = {}
    for n in range(size // 2):
        graph[f"first-{n}"] = Task(f"first-{n}", increment, n)
        graph[f"second-{n}"] = Task(f"second-{n}", increment, TaskRef(f"first-{n}"))
    graph["sum"] = Task("sum", sum, List(*(TaskRef(f"second-{n}") for n in range(size // 2))))
    return Delayed("sum", graph)


def arrays(chunks: int) -> Any:
    value = da.ones((chunks * 10, chunks * 10), chunks=(10, 10))
    for step in range(9):
        value = value * step + 1 if step % 2 else value + step
    return value


def materialised(collection: Any) -> tuple[dict[Any, Any], list[Any]]:
    """The graph as Dask hands it to a scheduler."""
    expression = collections_to_expr([collection], optimize_graph=True).optimize()
    return dict(convert_legacy_graph(dict(expression.__dask_graph__()))), list(flatten(expression.__dask_keys__()))


def inner_tasks(graph: dict[Any, Any]) -> int:
    """Tasks, with those inside of fused ones."""
    count = 0
    for node in graph.values():
        inner = next((arg for arg in node.args if isinstance(arg, dict)), {}) if isinstance(node, Task) else {}
        count += max(1, sum(1 for value in inner.values() if isinstance(value, Task)))
    return count


def per_task(bench: Bench, what: str, make: Callable[[], Any], most: float) -> Row:
    graph, keys = materialised(make())
    count = inner_tasks(graph)
    times = bench.race({"ours": lambda: fingerprints(graph, keys, {})}, rounds=3, once=True)
    spread = times["ours"].spread / times["ours"].median
    return Row(
        what, times["ours"].median / count * 1e6, at_most=most, unit="us", spread=spread, note=f"{count:,} tasks"
    )


def looking_up(bench: Bench) -> Iterator[Row]:
    """A warm graph on PostgreSQL, against what Dask itself does with it; and the statement behind it."""
    cache = bench.enter(
        UnifiedCache(metadata_backend=bench.postgresql, blob_store="memory://", signing_key=SIGNING_KEY)
    )
    size = 1000 if bench.quick else 10_000
    collection = delayed(size)
    graph, keys = materialised(collection)
    digests = [entry_key(digest) for digest in fingerprints(graph, keys, {}).digests.values()]
    with cache.write_batch():
        for key in digests:
            cache.put(0, key)
    run = Run(cache)

    def ours() -> None:
        found = run.prepare(graph, keys, None, waits=True)
        assert found is not None
        assert not found.misses
        assert len(shipped(found, graph, {}, None)) == 1

    def dask_itself() -> None:
        order(materialised(collection)[0])

    times = bench.race({"ours": ours, "dask": dask_itself}, rounds=3, once=True)
    what = f"Dask, a warm graph of {size:,}: look up and rewrite"
    yield compare(what, times["ours"], "Dask's own optimise and order", times["dask"], at_most=2)
    connection = bench.enter(psycopg.connect(bench.postgresql, autocommit=True))
    select = "SELECT key, size, raw_size, compute_seconds FROM cacheness.entries WHERE namespace = %s AND key = ANY(%s)"
    raw = [bytes.fromhex(digest) for digest in digests]
    times = bench.race(
        {
            "ours": lambda: cache.present(digests),
            "bare": lambda: connection.execute(select, ("default", raw), binary=True).fetchall(),
        }
    )
    yield compare(f"presence of {len(digests):,} keys, PostgreSQL", times["ours"], "one SELECT", times["bare"])
    many = [entry_key(bytes([n >> 8, n & 255] * 16)) for n in range(20_001)]
    with counting(psycopg.Cursor, "execute") as statements:
        cache.present(many)
    yield Row(f"statements that ask for {len(many):,} keys", next(statements), at_most=3, unit="statements")


@contextlib.contextmanager
def counting(kind: type, method: str) -> Iterator[Iterator[int]]:
    """Count the calls of a method, of all instances."""
    calls, original = itertools.count(), getattr(kind, method)

    def counted(*args: Any, **kwargs: Any) -> Any:
        next(calls)
        return original(*args, **kwargs)

    setattr(kind, method, counted)
    try:
        yield calls
    finally:
        setattr(kind, method, original)


def sending(bench: Bench) -> Iterator[Row]:
    """A graph that misses, from the client's decisions to an ordered graph in the scheduler: both ways to send it."""
    size = 12_000 if bench.quick else 20_000
    cache = bench.enter(UnifiedCache(cache_dir=str(bench.folder / "sending"), blob_store="memory://"))
    chunks = round(size**0.5)
    for what, collection in (
        ("an array", da.ones((chunks * 2, chunks * 2), chunks=(2, 2)).map_blocks(increment)),
        ("a data frame", dd.from_map(one, range(size // 2), meta={"a": "int64"}).map_partitions(abs)),
    ):
        expression = FinalizeCompute(collections_to_expr([collection], optimize_graph=True)).optimize()
        keys = list(flatten(expression.__dask_keys__()))
        graph, annotations = graphs.materialised(expression)
        plan = Run(cache).prepare(graph, keys, None, waits=True)
        assert plan is not None
        decisions, tasks = plan.decisions, len(plan.runs)
        frames: dict[str, int] = {}

        def send(way: str, make: Callable[[], Any]) -> None:
            sent = Serialized(*serialize(to_serialize(make())))
            frames[way] = sum(map(nbytes, [sent.header, *sent.frames]))  # noqa: B023
            order(deserialize(sent.header, sent.frames).__dask_graph__())

        def beside(plan: Any = plan, graph: Any = graph, expression: Any = expression) -> Any:
            plan.graph = graph
            return shipped(plan, expression, annotations, bench)  # noqa: B023

        def rewritten(decisions: Any = decisions, graph: Any = graph) -> Any:
            return graphs.as_expression(apply(decisions, graph), annotations)  # noqa: B023

        ways = {"beside": lambda: send("beside", beside), "rewritten": lambda: send("rewritten", rewritten)}
        about, peer = f"Dask, {what} of {tasks:,} misses", "rewritten by the client"
        if bench.quick:
            for way in ways.values():
                way()
        else:
            times = bench.race(ways, rounds=1, once=True)
            yield compare(f"{about}: sent and ordered", times["beside"], peer, times["rewritten"])
        yield Row(f"{about}: bytes sent", frames["beside"] / 1e6, peer, frames["rewritten"] / 1e6, unit="MB")


def one(number: int) -> pd.DataFrame:
    return pd.DataFrame({"a": [number]})


if __name__ == "__main__":
    main(measure, __doc__)
