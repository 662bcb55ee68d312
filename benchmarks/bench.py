"""What every benchmark here shares: a place to run, and a race between contenders.

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
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyperf
from rich.console import Console

from benchmarks.rows import Row, Timing, compare
from benchmarks.show import WIDTH, show
from cacheness.testing import servers

__all__ = ["SIGNING_KEY", "Bench", "Row", "Timing", "compare", "machine", "main"]

#: A key for caches that are shared, as every benchmark of a server needs one.
SIGNING_KEY = "a key that only these benchmarks know"


class Bench:
    """A place to run races in: a folder, servers when asked for, and how long to take over it."""

    def __init__(self, stack: contextlib.ExitStack, *, quick: bool) -> None:
        self.quick = quick
        self._stack = stack
        self._races = itertools.count()
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cacheness-bench-")))
        self._runner = pyperf.Runner()
        self._runner.parse_args(["--worker", "--quiet", "--loops=1", f"--values={2 if quick else 3}", "--warmups=1"])
        self._runner.args.min_time = 0.02 if quick else 0.05

    def enter(self, context: contextlib.AbstractContextManager[Any]) -> Any:
        """Keep a context open until the benchmark is over."""
        return self._stack.enter_context(context)

    def on_one_core(self) -> None:
        """Share one core with servers that start from now on.

        Where the kernel places client and server decides more about a round trip than either of them: the
        same statement took 37 us on one connection and 57 us on another, for as long as both were open.
        """
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

    @cached_property
    def postgresql(self) -> str:
        """URL of an empty database on a server that syncs like one in production."""
        return str(self.enter(servers.fresh_database(self.enter(servers.postgresql(durable=True)))))

    @cached_property
    def s3(self) -> str:
        """URL of an empty prefix."""
        return str(self.enter(servers.fresh_prefix(self.enter(servers.s3()))))

    def race(
        self, contenders: Mapping[str, Callable[[], object]], *, rounds: int = 7, once: bool = False, memory: int = 0
    ) -> dict[str, Timing]:
        """Time the contenders in turns. `once` is for calls so long that one is enough for a value.

        Each round finds this many bytes of `memory` at hand. The host of a virtual machine takes free
        pages back within seconds, and giving one again takes ten times as long as filling it.
        """
        self._runner.args.warmups = 1
        loops = {name: 1 if once else self._calibrated(name, call) for name, call in contenders.items()}
        found: dict[str, pyperf.Benchmark] = {}
        for _ in range(2 if self.quick else rounds):
            np.ones(0 if self.quick else memory, np.uint8)  # in huge pages, which are handed out again before others
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
    parser.add_argument("--json", type=Path, help="write the rows into this file instead of showing them")
    options = parser.parse_args()
    rows: list[Row] = []
    try:
        with contextlib.ExitStack() as stack:
            rows.extend(measure(Bench(stack, quick=options.quick)))
    finally:  # what was measured before something broke is worth keeping
        if options.json:
            options.json.write_text(json.dumps([asdict(row) for row in rows]))
        else:
            show(rows, Console(width=WIDTH))
