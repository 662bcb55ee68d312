"""The cells of the matrix: what changes, in which carrier, in which place, and what the keys said."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from tests.keys.matrix.carriers import CARRIERS, Carrier
from tests.keys.matrix.places import PLACES, Place

#: The verdicts that are right.
SEEN, LISTED, STEADY = "seen", "listed as a limit", "steady"


@dataclass(frozen=True, slots=True)
class Cell:
    """One carrier in one place, and what changes in it; None when nothing does."""

    carrier: Carrier
    place: Place
    change: str | None

    def __str__(self) -> str:
        return f"{self.carrier.name}, {self.change or 'unchanged'}, {self.place.name}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the keys of a cell said. `right` when that is what they must say."""

    cell: Cell
    word: str
    detail: str = ""

    @property
    def right(self) -> bool:
        """Whether the cell is as it must be."""
        return self.word in {SEEN, LISTED, STEADY}


def cells(carriers: Iterable[Carrier] = CARRIERS, places: Iterable[Place] = PLACES) -> Iterator[Cell]:
    """Every cell that can run here; what needs a package that is not installed cannot."""
    for carrier, place in itertools.product(carriers, list(places)):
        if runs_here(carrier, place):
            for change in (None, *carrier.changes):
                yield Cell(carrier, place, change)


def runs_here(carrier: Carrier, place: Place) -> bool:
    """Whether a carrier can stand in a place, with the packages that are installed."""
    if place.name == "by-value pickle" and (carrier.by_value or carrier.data):
        return False
    if place.name == "notebook cell" and carrier.in_a_cell:
        return False
    return not carrier.needs or importlib.util.find_spec(carrier.needs) is not None


class Matrix:
    """Two processes with different hash seeds that make keys, and a folder for what they read."""

    def __init__(self, folder: pathlib.Path, runners: tuple[subprocess.Popen[str], subprocess.Popen[str]]) -> None:
        self.folder = folder
        self._runners = runners
        self._before: dict[tuple[str, str], dict[str, Any]] = {}
        self._folders = itertools.count()

    def verdict(self, cell: Cell) -> Verdict:
        """Run one cell, before and after."""
        at = (cell.carrier.name, cell.place.name)
        if at not in self._before:
            self._before[at] = self._run(cell.carrier, cell.place, None, 0)
        before = self._before[at]
        after = self._run(cell.carrier, cell.place, cell.change, 1)
        for found in (before, after):
            if "error" in found:
                return Verdict(cell, "failed", found["error"])
            if found["key"] != found["again"] and not cell.carrier.moves:
                return Verdict(cell, "moved by its own run", found["value"])
        if cell.change is None:
            return _unchanged(cell, before, after)
        return _changed(cell, before, after)

    def _run(self, carrier: Carrier, place: Place, change: str | None, runner: int) -> dict[str, Any]:
        folder = self.folder / str(next(self._folders))
        folder.mkdir()
        place.write(folder, carrier.files(change))
        process = self._runners[runner]
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"place": place.name, "folder": str(folder)}) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        return dict(json.loads(answer)) if answer else {"error": "the process that makes keys died"}


def _unchanged(cell: Cell, before: dict[str, Any], after: dict[str, Any]) -> Verdict:
    if before["value"] != after["value"]:
        return Verdict(cell, "proves nothing", f"{before['value']} and {after['value']} without a change")
    return Verdict(cell, STEADY if before["key"] == after["key"] else "needless miss")


def _changed(cell: Cell, before: dict[str, Any], after: dict[str, Any]) -> Verdict:
    values = f"{before['value']} -> {after['value']}"
    if before["value"] == after["value"]:
        return Verdict(cell, "proves nothing", values)
    if before["key"] != after["key"]:
        return Verdict(cell, SEEN)
    if cell.change in cell.carrier.limits and after["listed"]:
        return Verdict(cell, LISTED, after["listed"][0])
    return Verdict(cell, "STALE", f"{values}; listed: {after['listed']}")


@contextmanager
def open_matrix(folder: pathlib.Path) -> Iterator[Matrix]:
    """Start the two processes; they end with the block."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(_runner(seed)) for seed in ("1", "2"))
        yield Matrix(folder, (first, second))


@contextmanager
def _runner(seed: str) -> Iterator[subprocess.Popen[str]]:
    root = str(pathlib.Path(__file__).parents[3])
    path: Final = os.pathsep.join((root, os.environ.get("PYTHONPATH", "")))
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.keys.matrix.runner"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        yield process
