from __future__ import annotations

import io
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import __main__ as benchmarks
from benchmarks.draw import draw_budgets, draw_curves
from benchmarks.outcomes import Outcome, load, merged, save
from benchmarks.rows import Row
from benchmarks.show import show_outcome, sum_up

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
POINTS = [Row(f"put at {n}", ours=0.001 * n, curve="SQLite: put", at=n) for n in (10, 100)]


def outcome(name: str, rows: list[Row], error: str = "") -> Outcome:
    return Outcome(name, f"About {name}", "2026-01-01T00:00:00+00:00", "a machine", 1.0, rows, error)


def printed(*outcomes: Outcome) -> str:
    console = Console(width=150, file=io.StringIO())
    for each in outcomes:
        show_outcome(each, console)
    sum_up(list(outcomes), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("row", ROWS)
def test_a_budget_that_is_just_met_holds(row: Row) -> None:
    assert row.holds is True


@pytest.mark.parametrize("row", SHORT)
def test_a_budget_that_is_just_missed_falls_short(row: Row) -> None:
    assert row.holds is False


def test_a_row_for_comparison_only_is_not_judged() -> None:
    assert Row("shown", ours=1.0, peer="peer", theirs=2.0).holds is None


def test_the_results_are_drawn(tmp_path: Path) -> None:
    draw_budgets(ROWS + SHORT, "a machine", tmp_path / "budgets.svg")
    draw_curves(POINTS, "a machine", tmp_path / "curves.svg")
    assert "at most, with a peer" in (tmp_path / "budgets.svg").read_text()
    assert "SQLite" in (tmp_path / "curves.svg").read_text()


def test_the_table_names_what_falls_short_and_what_did_not_finish() -> None:
    text = printed(outcome("one", ROWS + POINTS), outcome("two", [SHORT[0]], error="it broke"))
    assert "4 of 5 budgets hold" in text
    assert "FALLS SHORT at most, with a peer, against peer: 1.55 x" in text
    assert "DID NOT FINISH two: it broke" in text


def test_a_run_of_one_benchmark_leaves_what_the_others_found(tmp_path: Path) -> None:
    path = tmp_path / "full.json"
    save([outcome("one", ROWS), outcome("two", ROWS)], path)
    save(merged(load(path), [outcome("two", SHORT, "it broke")], ("two", "one", "three")), path)
    assert load(path) == [outcome("two", SHORT, "it broke"), outcome("one", ROWS)]


def test_a_benchmark_that_is_no_more_leaves_the_results(tmp_path: Path) -> None:
    assert merged([outcome("gone", ROWS)], [outcome("one", ROWS)], ("one",)) == [outcome("one", ROWS)]


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A benchmark that finds one row and then breaks."""
    path = tmp_path / "broken.py"
    path.write_text(
        textwrap.dedent("""
            from benchmarks.bench import Row, main

            def measure(bench):
                yield Row("before", 1.0)
                raise RuntimeError("it broke")

            main(measure, "A title")
        """)
    )
    return path


@pytest.mark.slow
def test_a_benchmark_that_breaks_keeps_what_it_had_measured(
    broken: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(benchmarks.HERE.parent))
    rows = tmp_path / "rows.json"
    error = benchmarks.run_to_the_end([sys.executable, str(broken), "--json", str(rows)])
    assert error == "RuntimeError: it broke"
    assert [row["what"] for row in json.loads(rows.read_text())] == ["before"]
    assert "Traceback" in capfd.readouterr().err


def test_a_benchmark_that_hangs_is_stopped_with_all_that_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks, "LONGEST", 1)
    child = "import time; time.sleep(600)"
    hangs = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r} + ' #' + sys.argv[1]])"
    mark = f"hangs-{id(monkeypatch)}"
    assert benchmarks.run_to_the_end([sys.executable, "-c", hangs, mark]) == "it was stopped after 1 s"
    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if mark.encode() in bytes_of(path)]
    assert left == []


def bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_every_benchmark_is_run_and_has_a_title() -> None:
    assert {"get_small", "dask_graphs", "prefect_hit", "scale"} < set(benchmarks.ALL)
    assert len(set(benchmarks.ALL)) == len(benchmarks.ALL)
    assert all(benchmarks.title_of(name) for name in benchmarks.ALL)


@pytest.mark.slow
def test_an_unknown_benchmark_is_an_error_that_names_the_known_ones() -> None:
    ran = subprocess.run([sys.executable, "-m", "benchmarks", "no_such"], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "get_small" in ran.stderr
