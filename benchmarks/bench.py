"""What every benchmark here shares: a race between contenders, and rows that say whether a budget holds.

pyperf times, calibrates and keeps the values. Contenders take turns, round by round, so that a
machine that slows down slows all of them; a ratio compares medians of one race.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyperf
from rich.console import Console
from rich.table import Table

from cacheness.testing import servers

#: A key for caches that are shared, as every benchmark of a server needs one.
SIGNING_KEY = "a key that only these benchmarks know"


@dataclass(frozen=True)
class Row:
    """One line of the table: ours, a peer, and the budget."""

    what: str
    ours: float
    peer: str = ""
    theirs: float = 0.0
    at_most: float | None = None  #: of ours / theirs; of ours itself where there is no peer
    at_least: float | None = None  #: of theirs / ours
    unit: str = "s"
    spread: float = 0.0  #: median absolute deviation of ours, as a part of ours
    note: str = ""
    curve: str = ""  #: the name of the curve that this is a point of
    at: float = 0.0  #: and where on it

    @property
    def measured(self) -> float:
        """What the budget is about: a ratio, or the figure itself."""
        if not self.peer:
            return self.ours
        return self.theirs / self.ours if self.at_least is not None else self.ours / self.theirs

    @property
    def budget(self) -> str:
        """The budget as the table shows it."""
        suffix = " x" if self.peer else f" {self.unit}"
        if self.at_least is not None:
            return f">= {self.at_least:g}{suffix}"
        return "" if self.at_most is None else f"<= {self.at_most:g}{suffix}"

    @property
    def holds(self) -> bool | None:
        """None for a line that is shown for comparison only."""
        if self.at_least is not None:
            return self.measured >= self.at_least
        return None if self.at_most is None else self.measured <= self.at_most


@dataclass(frozen=True)
class Timing:
    """How long one call took, in seconds."""

    median: float
    spread: float


class Bench:
    """A place to run races in: a folder, servers when asked for, and how long to take over it."""

    def __init__(self, stack: contextlib.ExitStack, *, quick: bool) -> None:
        self.quick = quick
        self._stack = stack
        self._races = itertools.count()
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cacheness-bench-")))
        self._runner = pyperf.Runner()
        self._runner.parse_args(["--worker", "--quiet", "--loops=1", "--values=3", "--warmups=1"])
        self._runner.args.min_time = 0.02 if quick else 0.1

    def enter(self, context: contextlib.AbstractContextManager[Any]) -> Any:
        """Keep a context open until the benchmark is over."""
        return self._stack.enter_context(context)

    @cached_property
    def postgresql(self) -> str:
        """URL of an empty database on a server that syncs like one in production."""
        return str(self.enter(servers.fresh_database(self.enter(servers.postgresql(durable=True)))))

    @cached_property
    def s3(self) -> str:
        """URL of an empty prefix."""
        return str(self.enter(servers.fresh_prefix(self.enter(servers.s3()))))

    def race(
        self, contenders: Mapping[str, Callable[[], object]], *, rounds: int = 5, once: bool = False
    ) -> dict[str, Timing]:
        """Time the contenders in turns. `once` is for calls so long that one is enough for a value."""
        self._runner.args.warmups = 1
        loops = {name: 1 if once else self._calibrated(name, call) for name, call in contenders.items()}
        found: dict[str, pyperf.Benchmark] = {}
        for _ in range(2 if self.quick else rounds):
            for name, call in contenders.items():
                runs = self._time(name, call, loops[name])
                if name in found:
                    found[name].add_runs(runs)
                else:
                    found[name] = runs
        return {name: _timing(runs) for name, runs in found.items()}

    def _calibrated(self, name: str, call: Callable[[], object]) -> int:
        self._runner.args.calibrate_loops = True
        try:
            return int(self._time(name, call, 0).get_runs()[0].warmups[-1][0])
        finally:
            self._runner.args.calibrate_loops = False

    def _time(self, name: str, call: Callable[[], object], loops: int) -> pyperf.Benchmark:
        self._runner.args.loops = loops
        with contextlib.redirect_stdout(io.StringIO()):  # a worker of pyperf prints what it found
            runs = self._runner.bench_func(f"{name} {next(self._races)}", call)
        runs.update_metadata({"name": name})
        return runs


def _timing(runs: pyperf.Benchmark) -> Timing:
    return Timing(runs.median(), runs.median_abs_dev())


def compare(what: str, ours: Timing, peer: str, theirs: Timing, **budget: Any) -> Row:
    """A row about two timings of one race."""
    return Row(what, ours.median, peer, theirs.median, spread=ours.spread / ours.median, **budget)


def seconds(value: float) -> str:
    """A duration with three digits and a fitting unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} s"


def figure(value: float, unit: str) -> str:
    """A figure as the table shows it."""
    return seconds(value) if unit == "s" else f"{value:.4g} {unit}"


def show(rows: list[Row], title: str, console: Console) -> None:
    """The table on the terminal."""
    table = Table("what", "ours", "±", "peer", "theirs", "ratio", "budget", "", title=title, title_justify="left")
    for row in rows:
        verdict = {True: "[green]holds[/]", False: "[bold red]FALLS SHORT[/]", None: ""}[row.holds]
        theirs = figure(row.theirs, row.unit) if row.peer else ""
        ratio = f"{row.measured:.2f} x" if row.peer else ""
        what = row.what + (f"\n[dim]{row.note}[/]" if row.note else "")
        spread = f"{row.spread:.0%}" if row.spread else ""
        table.add_row(what, figure(row.ours, row.unit), spread, row.peer, theirs, ratio, row.budget, verdict)
    console.print(table)


def machine() -> str:
    """What the figures were measured on."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ": ?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores of {model.split(':', 1)[1].strip()}, {memory:.0f} GiB,"
        f" Linux {platform.release()}, Python {platform.python_version()}, load {load:.1f}"
    )


def main(measure: Callable[[Bench], Iterator[Row]], title: str | None) -> None:
    """Run one benchmark by itself: python -m benchmarks.<name> [--quick] [--json FILE]"""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", type=Path, help="write the rows into this file")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        rows = list(measure(Bench(stack, quick=options.quick)))
    show(rows, (title or "").splitlines()[0], Console(width=150))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows]))
