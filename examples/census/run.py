"""Run the census once, print progress, and write figures."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import dask
from distributed import Client
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import cacheness_dask as cd
from cacheness import UnifiedCache
from examples.census.figures import Figures
from examples.census.flow import census, storage
from examples.census.report import console, report
from examples.census.sources import Sources, installed, modules_provided
from examples.census.tables import import_graph, summarise


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, report, and write the figures."""
    options = _options().parse_args(arguments)
    copies = {name: Path(folder) for name, folder in (pair.split("=", 1) for pair in options.copy)}
    sources = installed(options.only, copies=copies)
    with _workers(restart=options.restart_workers), UnifiedCache.from_env() as cache, _progress(sources) as seen:
        before, start = cache.stats(), time.perf_counter()
        states: Counter[str] = Counter()

        def finished(source: Sources, state: str) -> None:
            states[state] += 1
            seen(source)

        with cd.caching(cache, which="all") as run:
            tables = census(sources, storage(cache.config), finished)
        seconds, after = time.perf_counter() - start, cache.stats()
    figures = Figures(
        seconds=seconds,
        distributions=len(sources),
        files=sum(len(source.files) for source in sources),
        # Each graph has one more task, which makes the table.
        parsed=sum(part.misses for part in run.history) - states["Completed"],
        loaded=sum(part.hits for part in run.history),
        made=states["Completed"],
        cached=states["Cached"],
        entries=after["entries"] - before["entries"],
        bytes=after["bytes"] - before["bytes"],
    )
    options.figures.write_text(json.dumps(asdict(figures)))
    if options.picture:
        from examples.census.picture import draw

        summaries = [summarise(name, table) for name, table in sorted(tables.items())]
        edges = import_graph(tables, modules_provided(sources))
        console().print(report(summaries, edges))
        draw(summaries, edges, options.picture)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m examples.census.job", description=__doc__)
    parser.add_argument("--figures", type=Path, required=True, metavar="FILE", help="write the run's figures as JSON")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="report, and draw into a .png or .svg")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="only these distributions")
    parser.add_argument("--copy", nargs="*", default=[], metavar="NAME=DIR", help="take a distribution's files there")
    parser.add_argument("--restart-workers", action="store_true", help="after an edit of the code that they run")
    return parser


@contextmanager
def _workers(*, restart: bool) -> Iterator[None]:
    """Connect to the cluster that DASK_SCHEDULER_ADDRESS names, or start two worker processes."""
    if dask.config.get("scheduler-address", None):
        with Client() as client:
            if restart:
                client.restart()
            client.wait_for_workers(2)
            yield
    else:
        with Client(n_workers=2, threads_per_worker=1, dashboard_address=":0"):
            yield


@contextmanager
def _progress(sources: Sequence[Sources]) -> Iterator[Callable[[Sources], None]]:
    columns = (TextColumn("   {task.description}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("files", total=sum(len(source.files) for source in sources))
        yield lambda source: progress.advance(bar, len(source.files))
