"""Every budget, one after the other: python -m benchmarks [--quick] [benchmark …]"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from benchmarks.bench import Row, machine, show
from benchmarks.draw import draw_budgets, draw_curves

ALL = (
    "get_small",
    "get_file",
    "put_small",
    "large_files",
    "large_s3",
    "fresh_process",
    "key_speed",
    "prefect_hit",
    "dask_graphs",
    "peak_memory",
    "scale",
    "many_writers",
)
RESULTS = Path(__file__).with_name("results")


def run(name: str, *, quick: bool) -> list[Row]:
    """One benchmark, in a process of its own; what it prints besides its table is shown when it fails."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(path), *(["--quick"] if quick else [])]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            sys.exit(f"{name} failed:\n{ran.stdout}{ran.stderr}")
        return [Row(**row) for row in json.loads(path.read_text())]


def main() -> None:
    """Run, show, keep. A budget that is not kept is in the table, not in the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller sizes")
    parser.add_argument("names", nargs="*", metavar="benchmark", help=", ".join(ALL))
    options = parser.parse_args()
    if unknown := set(options.names) - set(ALL):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; known: {', '.join(ALL)}")
    console = Console(width=150)
    console.print(machine(), "\n", style="dim")
    began, rows = time.monotonic(), []
    for name in options.names or ALL:
        found = run(name, quick=options.quick)
        show(found, name.replace("_", " "), console)
        rows += found
    keep(rows, "quick" if options.quick else "full")
    short = [row for row in rows if row.holds is False]
    judged = sum(row.holds is not None for row in rows)
    console.print(f"{judged - len(short)} of {judged} budgets hold; {time.monotonic() - began:.0f} s. {machine()}")
    for row in short:
        console.print(f"FALLS SHORT: {row.what}: {row.measured:.3g}, budget {row.budget}", style="red")


def keep(rows: list[Row], name: str) -> None:
    """The results as JSON and as pictures."""
    RESULTS.mkdir(exist_ok=True)
    about = {"machine": machine(), "at": datetime.now(UTC).isoformat(timespec="seconds")}
    lines = [vars(row) | {"measured": row.measured, "budget": row.budget, "holds": row.holds} for row in rows]
    (RESULTS / f"{name}.json").write_text(json.dumps(about | {"rows": lines}, indent=1) + "\n")
    draw_budgets(rows, about["machine"], RESULTS / f"{name}.svg")
    draw_curves(rows, about["machine"], RESULTS / f"{name}-curves.svg")


if __name__ == "__main__":
    main()
