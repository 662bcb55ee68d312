"""What a run found, kept as JSON: a run of some benchmarks replaces those and leaves the others as they were."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.rows import Row

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Outcome:
    """What one benchmark found, when, and on what machine."""

    name: str
    title: str
    at: str
    machine: str
    seconds: float
    rows: list[Row] = field(default_factory=list)
    error: str = ""  #: why it did not come to its end

    @property
    def judged(self) -> list[Row]:
        """The rows that have a budget."""
        return [row for row in self.rows if row.holds is not None]

    @property
    def short(self) -> list[Row]:
        """The rows that do not keep it."""
        return [row for row in self.rows if row.holds is False]


def load(path: Path) -> list[Outcome]:
    """The outcomes in a file; none when there is no file."""
    found = json.loads(path.read_text()) if path.exists() else []
    return [Outcome(**{**each, "rows": [Row(**row) for row in each["rows"]]}) for each in found]


def save(outcomes: list[Outcome], path: Path) -> None:
    """Write outcomes into a file whole, so that an interrupted run leaves a file that can be read."""
    path.parent.mkdir(exist_ok=True)
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps([_plain(outcome) for outcome in outcomes], indent=1) + "\n")
    aside.replace(path)


def merged(old: list[Outcome], new: list[Outcome], order: tuple[str, ...]) -> list[Outcome]:
    """The newest outcome of each benchmark that there still is, in the usual order."""
    newest = {outcome.name: outcome for outcome in (*old, *new)}
    return [newest[name] for name in order if name in newest]


def _plain(outcome: Outcome) -> dict[str, Any]:
    """Rows as they were measured, without the fields that say nothing."""
    plain = asdict(outcome)
    empty = asdict(Row("", 0.0))
    plain["rows"] = [{k: v for k, v in row.items() if k == "ours" or v != empty[k]} for row in plain["rows"]]
    return plain
