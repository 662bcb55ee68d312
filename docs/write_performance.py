"""Writes the figures of the newest `make bench` into docs/performance.md: `make docs`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/performance.md"
RESULTS = ROOT / "benchmarks/results"
PLACE = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end of figures -->)", re.DOTALL)


def figures() -> str:
    """The tables, from the full run where there is one."""
    name = "full" if (RESULTS / "full.json").exists() else "quick"
    found = json.loads((RESULTS / f"{name}.json").read_text())
    judged = [row for row in found["rows"] if row["holds"] is not None]
    others = [row for row in found["rows"] if row["holds"] is None]
    command = "make bench" if name == "full" else "make bench-quick"
    holding = sum(row["holds"] for row in judged)
    return f"""
`{command}` on {found["at"][:10]}, {found["machine"]}: {holding} of {len(judged)} budgets hold.

![Every budget, and how far below or above it we are](../benchmarks/results/{name}.svg)

| what | ours | beside | theirs | measured | budget | |
|---|---:|---|---:|---:|---:|---|
{"".join(map(_judged, judged))}
How the cost of one operation grows with the number of entries:

![Cost of an operation against the number of entries](../benchmarks/results/{name}-curves.svg)

| what | ours | |
|---|---:|---|
{"".join(f"| {row['what']} | {_amount(row['ours'], row['unit'])} | {row['note']} |" + chr(10) for row in others)}
"""


def _judged(row: dict[str, Any]) -> str:
    verdict = "holds" if row["holds"] else "**falls short**"
    theirs = _amount(row["theirs"], row["unit"]) if row["peer"] else ""
    ratio = f"{row['measured']:.3g}"
    ours = _amount(row["ours"], row["unit"])
    return f"| {row['what']} | {ours} | {row['peer']} | {theirs} | {ratio} | {row['budget']} | {verdict} |\n"


def _amount(value: float, unit: str) -> str:
    if unit != "s":
        return f"{value:,.3g} {unit}".strip()
    for least, factor, name in ((1, 1, "s"), (1e-3, 1e3, "ms"), (0, 1e6, "µs")):
        if value >= least:
            return f"{value * factor:.3g} {name}"
    return ""


if __name__ == "__main__":
    PAGE.write_text(PLACE.sub(lambda _: figures(), PAGE.read_text()))
