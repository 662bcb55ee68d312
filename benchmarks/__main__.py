"""Every budget, one after the other: python -m benchmarks [--quick] [benchmark …]

Growth takes minutes by itself, and runs when it is named, as `make bench-growth` does.

What was measured stands in benchmarks/results/ in place of what the same benchmarks found before;
those that are not named keep what they have.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from benchmarks.bench import machine
from benchmarks.draw import AXES, draw_budgets, draw_curves
from benchmarks.outcomes import RESULTS, Outcome, load, merged, save
from benchmarks.rows import Row
from benchmarks.show import WIDTH, show_outcome, sum_up

HERE = Path(__file__).parent
FIRST = ("get_small", "get_file", "put_small", "fresh_process", "key_speed")
LAST = ("peak_memory", "scale", "many_writers", "growth")  #: they leave the machine's own caches full of theirs
ON_REQUEST = ("growth",)
OTHERS = sorted(path.stem for path in HERE.glob("*.py") if "\ndef measure(" in path.read_text())
ALL = (*FIRST, *(name for name in OTHERS if name not in FIRST + LAST), *LAST)
#: Seconds after which a benchmark hangs rather than works; a scale run on request may take hours.
LONGEST = None if {"CACHENESS_BENCH_ENTRIES", "GROWTH", "PREFECT_RUNS"} & os.environ.keys() else 600
LAST_WORDS = 20  #: seconds


def main() -> int:
    """Run, show and save. The table has budgets that do not hold; the exit status shows what did not finish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller sizes")
    parser.add_argument("names", nargs="*", metavar="benchmark", help=", ".join(ALL))
    options = parser.parse_args()
    if unknown := set(options.names) - set(ALL):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; known: {', '.join(ALL)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # as Ctrl-C does: with the benchmark that runs
    console = Console(width=WIDTH)
    console.print(about := machine(), style="dim")
    if os.getloadavg()[0] > (os.cpu_count() or 1) / 2:
        console.print("Something else runs on this machine: ratios will be noisy, and times are not to be trusted.")
    name = "quick" if options.quick else "full"
    found = []
    chosen = options.names or [each for each in ALL if each not in ON_REQUEST]
    for each in [each for each in ALL if each in chosen]:
        found.append(run(each, about, quick=options.quick))
        show_outcome(found[-1], console)
        outcomes = merged(load(RESULTS / f"{name}.json"), found, ALL)
        save(outcomes, RESULTS / f"{name}.json")  # now, because the next one may never end
    draw(outcomes, name)
    sum_up(found, console)
    return 1 if any(outcome.error for outcome in found) else 0


def run(name: str, about: str, *, quick: bool) -> Outcome:
    """Run one benchmark in a new process. If it fails, its measurements until then are kept."""
    began, at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(path), *(["--quick"] if quick else [])]
        error = run_to_the_end(command)
        rows = [Row(**row) for row in json.loads(path.read_text())] if path.exists() else []
    return Outcome(name, title_of(name), at, about, round(time.monotonic() - began, 1), rows, error)


def run_to_the_end(command: list[str]) -> str:
    """Run a command, and everything that it starts, and say what went wrong."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        _, said = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        interrupt(process)
        return f"it was stopped after {LONGEST} s"
    except BaseException:
        interrupt(process)
        raise
    if not process.returncode:
        return ""
    sys.stderr.write(said)
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit status {process.returncode}"


def interrupt(process: subprocess.Popen[str]) -> None:
    """As Ctrl-C would, so that its servers stop and its files go; by force when it does not listen."""
    for how in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
            process.communicate(timeout=LAST_WORDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def title_of(name: str) -> str:
    """The first sentence of a benchmark's module, which need not be imported for that."""
    source = (HERE / f"{name}.py").read_text()
    return " ".join(source.split('"""')[1].split("\n\n")[0].split()).rstrip(".")


def draw(outcomes: list[Outcome], name: str) -> None:
    """Bars for the budgets, curves for what grows."""
    rows = [row for outcome in outcomes for row in outcome.rows]
    about = outcomes[0].machine
    draw_budgets(rows, about, RESULTS / f"{name}.svg")
    for axis in AXES:
        draw_curves([row for row in rows if row.curve and row.axis == axis], about, RESULTS / f"{name}-{axis}.svg")


if __name__ == "__main__":
    sys.exit(main())
