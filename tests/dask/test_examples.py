"""The examples and the page for readers do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def run(folder: Path, *program: str) -> str:
    found = subprocess.run(
        [sys.executable, *program, str(folder)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-4000:]
    return found.stdout


def test_delayed(tmp_path: Path) -> None:
    said = run(tmp_path, str(ROOT / "examples/dask_delayed.py"))
    assert said.count("parsing ") == 4
    assert "hit: 4, miss: 3" in said
    assert (tmp_path / "graph.svg").read_text().count("hit: loaded") == 4 + 1  # and once in the legend
    assert run(tmp_path, str(ROOT / "examples/dask_delayed.py")).count("parsing ") == 0


def test_frames_and_futures(tmp_path: Path) -> None:
    said = run(tmp_path, str(ROOT / "examples/dask_frames_and_futures.py"))
    assert "after one month was rewritten: 11 loaded, " in said
    assert "the second time: 12 loaded, 0 computed" in said


def test_the_page_runs_as_a_notebook_would(tmp_path: Path) -> None:
    page = (ROOT / "docs/reference/dask.md").read_text()
    cells = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(cells) == 8
    said = run(tmp_path, "-c", "\n".join(cells))  # functions live in __main__, as in a notebook
    assert "miss: 12" in said
    assert said.rstrip().endswith("14")
    assert (tmp_path / "graph.svg").exists()
