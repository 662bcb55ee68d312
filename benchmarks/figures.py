"""The page, the report and the help, on PostgreSQL with 100,000 entries and a million rows of figures.

GROWTH=1000000 makes a million entries and ten million rows, which takes five minutes and 4 GB: hours, days and
months of 3,000 functions with five outcomes each, and the last three hours of a hundred processes that count a hundred
functions each, which were not added up yet.
"""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import uvicorn

from benchmarks.bench import SIGNING_KEY, Bench, Row, compare, main
from benchmarks.growth import Growing
from cacheness import UnifiedCache
from cacheness.page.server import ServedPage

ENTRIES = 100_000
ROWS_AN_ENTRY = 10
PROCESSES = 100
THINGS_A_PROCESS = 500
#: Rows of one kind of span: of each thing that is counted, and of each process that counts it.
FILL = """
INSERT INTO cacheness.activity
SELECT 'default', %(span)s::text, %(hour)s::bigint - at * %(every)s::bigint, 'pipeline.steps:step_' || what / 5,
       ('{{hit,miss,miss,miss,waited}}'::text[])[1 + what %% 5],
       ('{{"",new arguments,code changed,expired,""}}'::text[])[1 + what %% 5],
       who, 10, 1.5, 0.5, 4096
FROM generate_series(%(first)s::bigint, %(last)s::bigint) at,
     generate_series(0, %(things)s::bigint - 1) what,
     {processes}
"""
TOGETHER = "(SELECT '' AS who) everybody"
APART = """LATERAL (
         SELECT md5(n::text) AS who FROM generate_series(1, %(processes)s::int) n
         WHERE n %% %(every_nth)s::int = what %% %(every_nth)s::int
     ) each_one"""
#: What all functions came to, beside that.
SUMS = """
INSERT INTO cacheness.activity
SELECT namespace, span || 's', hour, '', outcome, '', '', sum(calls), sum(seconds_spent), sum(seconds_saved), sum(bytes)
FROM cacheness.activity WHERE span IN ('hour', 'day', 'month') AND who = '' GROUP BY 1, 2, 3, 5
"""
HELP = "cacheness --help"


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    yield from of_help(bench)
    size = int(os.environ.get("GROWTH", str(ENTRIES // 10 if bench.quick else ENTRIES)))
    where = bench.postgresql
    cache = bench.enter(UnifiedCache(metadata_backend=where, signing_key=SIGNING_KEY, blob_store="memory://"))
    Growing(bench, "PostgreSQL", cache).fill(size)
    rows = fill(where, ROWS_AN_ENTRY * size, int(cache._store.metadata.now() // 3_600_000_000))
    filled = f"{size:,} entries, {rows:,} rows of figures"
    reports: dict[str, Callable[[], object]] = {
        "report(by='function')": lambda: cache.report(by="function"),
        "report(by='reason')": lambda: cache.report(by="reason"),
        "report(by='hour')": lambda: cache.report(by="hour"),
        "report(since='2 days', by='hour')": lambda: cache.report(since="2 days", by="hour"),
        "report(since='8 days')": lambda: cache.report(since="8 days"),
        "report(since='365 days')": lambda: cache.report(since="365 days"),
        "stats()": cache.stats,
    }
    for what, timing in bench.race(reports, rounds=3, once=True).items():
        yield Row(f"{what}: {filled}", timing.median, at_most=1.0, spread=timing.spread / timing.median)
    with served(cache) as ask:
        pages = {path: lambda path=path: ask(path) for path in ("/", "/entries", "/entries?order=size", "/metrics")}
        for path, timing in bench.race(pages, rounds=3, once=True).items():
            most = 0.5 if path == "/" else None
            yield Row(f"page {path}: {filled}", timing.median, at_most=most, spread=timing.spread / timing.median)


def fill(url: str, rows: int, hour: int) -> int:
    """Write about so many rows of figures; how many there are then."""
    things = rows // 638
    spans = (
        ("all", 0, 0, 0, 0, TOGETHER),
        ("hour", hour, 1, 0, 2, APART),
        ("hour", hour, 1, 3, 191, TOGETHER),
        ("day", hour // 24 * 24, 24, 0, 399, TOGETHER),
        ("month", hour // 24 * 24, 30 * 24, 0, 37, TOGETHER),
    )
    with psycopg.connect(url, autocommit=True) as connection:
        for span, at, every, first, last, processes in spans:
            given = {"span": span, "hour": at, "every": every, "first": first, "last": last}
            given |= {"things": things, "processes": PROCESSES, "every_nth": max(things // THINGS_A_PROCESS, 1)}
            connection.execute(FILL.format(processes=processes), given)
        connection.execute(SUMS)
        connection.execute("VACUUM ANALYZE")
        ((count,),) = connection.execute("SELECT count(*) FROM cacheness.activity").fetchall()
    return int(count)


@contextmanager
def served(cache: UnifiedCache) -> Iterator[Callable[[str], None]]:
    """Serve the page on a free port; yield a call that requests a path of it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        page = ServedPage(cache, listener.getsockname()[1])
        server = uvicorn.Server(uvicorn.Config(page.app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()

        def ask(path: str) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1], timeout=60)
            connection.request("GET", path, headers={"Authorization": f"Bearer {page.token}"})
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            answer.read()
            connection.close()

        try:
            yield ask
        finally:
            server.should_exit = True
            thread.join()


def of_help(bench: Bench) -> Iterator[Row]:
    """What a process takes until it has shown the help."""
    # As after an installation: bytecode is there for both, even where this environment forbids to write it.
    environment = os.environ | {"PYTHONPYCACHEPREFIX": str(bench.folder / "bytecode"), "PYTHONDONTWRITEBYTECODE": ""}

    def python(*command: str) -> None:
        subprocess.run([sys.executable, *command], check=True, capture_output=True, env=environment)

    times = bench.race(
        {"help": lambda: python("-m", "cacheness", "--help"), "libraries": lambda: python("-c", "import typer, rich")},
        rounds=10,
        once=True,
    )
    yield compare(HELP, times["help"], "import typer, rich", times["libraries"], at_most=2)


if __name__ == "__main__":
    main(measure, __doc__)
