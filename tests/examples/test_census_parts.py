"""The census' plain functions, one file of examples/census at a time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from examples.census.__main__ import TAKEN
from examples.census.demo import EDITED
from examples.census.measure import measure
from examples.census.picture import draw, picture_of
from examples.census.report import report
from examples.census.sources import copy_files, installed, modules_provided, needed_by
from examples.census.tables import SCHEMA, Summary, import_graph, summarise, tabulate

SOURCE = '''"""Documented."""
import os.path
import numpy as np
from json import loads
from . import sibling


class Documented:
    """So is this."""

    def method(self, x):
        if x and os or np:
            return [y for y in x if y]
        for _ in x:
            pass


async def bare():
    try:
        return 1 if loads else sibling
    except ValueError:
        pass
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "module.py"
    path.write_text(SOURCE)
    return path


def test_a_distribution_needs_what_it_requires_and_what_that_requires() -> None:
    found = needed_by("distributed")
    assert {"distributed", "dask", "click", "toolz"} <= found  # toolz through dask
    assert not {"pytest", "prefect", "colorama"} & found  # colorama on Windows only
    assert EDITED in needed_by(*TAKEN)


def test_a_file_is_measured(file: Path) -> None:
    assert measure(file) == {
        "lines": SOURCE.count("\n"),
        "functions": 2,
        "classes": 1,
        # if, and, or, the comprehension, for; conditional expression, except
        "branches": 7,
        "documentable": 4,
        "documented": 2,
        "imports": ["json", "numpy", "os"],
    }


def test_a_result_depends_on_content_alone(file: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    other = tmp_path / "elsewhere/another_name.py"
    other.write_bytes(file.read_bytes())
    assert measure(other) == measure(file)


@pytest.mark.parametrize("source", [b"print 'python 2'\n", b"\0", b"\xff\xfe\n", b"(" * 5000, b"x = '\\d'\n", b""])
def test_what_does_not_parse_counts_its_lines(tmp_path: Path, source: bytes) -> None:
    path = tmp_path / "odd.py"
    path.write_bytes(source)
    facts = measure(path)
    assert facts["lines"] == len(source.splitlines())
    assert facts["functions"] == facts["branches"] == 0


def test_a_table_has_a_row_for_each_file(file: Path) -> None:
    table = tabulate(["a.py", "b.py"], [measure(file), measure(file)])
    assert table.schema == SCHEMA
    assert table["file"].to_pylist() == ["a.py", "b.py"]
    summary = summarise("both", table)
    assert (summary.files, summary.functions, summary.branches) == (2, 4, 14)
    assert summary.complexity == pytest.approx(4.5)
    assert summary.documented == pytest.approx(0.5)


def test_a_distribution_without_files_has_an_empty_table() -> None:
    assert summarise("empty", tabulate([], [])) == Summary("empty", 0, 0, 0, 0, 0.0, 0.0)


def test_imports_lead_from_distribution_to_distribution(file: Path) -> None:
    tables = {"mine": tabulate(["a.py"], [measure(file)]), "numpy": tabulate(["b.py"], [measure(file)])}
    assert import_graph(tables, {"numpy": "numpy", "mine": "mine"}) == Counter({("mine", "numpy"): 1})


def test_installed_distributions_are_found_with_their_files() -> None:
    sources = {source.name: source for source in installed(["pytest", "Click"])}
    assert set(sources) == {"pytest", "click"}
    assert sources["click"].files["click/core.py"].read_text().startswith("from __future__")
    assert all(path.exists() for source in sources.values() for path in source.files.values())
    assert modules_provided(sources.values())["_pytest"] == "pytest"


def test_a_copy_is_taken_instead_of_the_original(tmp_path: Path) -> None:
    [original] = installed(["click"])
    copy_files(original, tmp_path)
    [copy] = installed(["click"], copies={"click": tmp_path})
    assert copy.files.keys() == original.files.keys()
    assert all(path.is_relative_to(tmp_path) for path in copy.files.values())
    assert copy.files["click/core.py"].read_bytes() == original.files["click/core.py"].read_bytes()


def many(number: int) -> tuple[list[Summary], Counter[tuple[str, str]]]:
    names = [f"distribution-number-{n}" for n in range(number)]
    summaries = [Summary(name, 3, 10**n, 60 + n, n, n / 2, 0.5) for n, name in enumerate(names)]
    return summaries, Counter({(a, b): 1 + i for i, a in enumerate(names) for b in names[:i:3]})


@pytest.mark.parametrize("number", [0, 1, 2, 3, 12])
@pytest.mark.parametrize("ending", ["png", "svg"])
def test_any_number_of_distributions_can_be_drawn(tmp_path: Path, number: int, ending: str) -> None:
    draw(*many(number), tmp_path / f"census.{ending}")
    assert (tmp_path / f"census.{ending}").stat().st_size > 1000


def test_no_label_of_the_picture_touches_another() -> None:
    summaries, edges = many(12)
    names = [f"opentelemetry-ap{n}" for n in range(80)]
    edges = Counter({(a, b): 1 for a in names for b in names if a < b})
    figure = picture_of(summaries, edges)
    figure.draw_without_rendering()
    circle = figure.axes[-1]
    labels = [text for text in circle.texts if text.get_text() in names]
    centre = circle.transData.transform((0, 0))
    step = abs(circle.transData.transform((1.05, 0))[0] - centre[0]) * 2 * 3.14159 / len(labels)
    height = labels[0].get_fontsize() * figure.dpi / 72
    assert len(labels) > 40
    assert step > height
    frame = figure.bbox
    for text in labels:
        assert frame.contains(*text.get_window_extent().min)
        assert frame.contains(*text.get_window_extent().max)


@pytest.mark.parametrize("number", [0, 3, 12])
def test_the_report_fits_a_terminal(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    Console(width=100).print(report(*many(number)))
    lines = capsys.readouterr().out.splitlines()
    assert f"{number} distributions" in lines[0]
    assert max(map(len, lines)) <= 100
