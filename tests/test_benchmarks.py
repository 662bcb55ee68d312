from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.bench import Row
from benchmarks.draw import draw_budgets, draw_curves

ROWS = [
    Row("at most, with a peer", ours=3.0, peer="peer", theirs=2.0, at_most=1.5),
    Row("at least, with a peer", ours=1.0, peer="peer", theirs=20.0, at_least=20),
    Row("a figure", ours=59.0, at_most=60, unit="us"),
    Row("none allowed", ours=0.0, at_most=0, unit=""),
]
SHORT = [
    Row("at most, with a peer", ours=3.1, peer="peer", theirs=2.0, at_most=1.5),
    Row("at least, with a peer", ours=1.1, peer="peer", theirs=20.0, at_least=20),
    Row("a figure", ours=61.0, at_most=60, unit="us"),
    Row("none allowed", ours=1.0, at_most=0, unit=""),
]


@pytest.mark.parametrize("row", ROWS)
def test_a_budget_that_is_just_met_holds(row: Row) -> None:
    assert row.holds is True


@pytest.mark.parametrize("row", SHORT)
def test_a_budget_that_is_just_missed_falls_short(row: Row) -> None:
    assert row.holds is False


def test_a_row_for_comparison_only_is_not_judged() -> None:
    assert Row("shown", ours=1.0, peer="peer", theirs=2.0).holds is None


def test_the_results_are_drawn(tmp_path: Path) -> None:
    points = [Row("put", ours=0.001 * n, curve="SQLite: put", at=n) for n in (10, 100)]
    draw_budgets(ROWS + SHORT, "a machine", tmp_path / "budgets.svg")
    draw_curves(points, "a machine", tmp_path / "curves.svg")
    assert "at most, with a peer" in (tmp_path / "budgets.svg").read_text()
    assert "SQLite" in (tmp_path / "curves.svg").read_text()
