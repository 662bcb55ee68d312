"""One name for one thing, as docs/glossary.md has it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = [
    path
    for package in ("core/cacheness", "cacheness_dask", "cacheness_prefect")
    for path in sorted((ROOT / package).rglob("*.py"))
]


def test_no_two_classes_share_a_name() -> None:
    where = defaultdict(list)
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                where[node.name.strip("_")].append(str(path.relative_to(ROOT)))
    assert {name: places for name, places in where.items() if len(places) > 1} == {}


def test_words_are_spelt_right() -> None:
    places = ["core", "cacheness_dask", "cacheness_prefect", "tests", "examples", "benchmarks", "docs", "README.md"]
    done = subprocess.run(
        [sys.executable, "-m", "codespell_lib", *places, "CHANGELOG.md", "CONTRIBUTING.md"],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
