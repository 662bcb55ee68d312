"""Python in the README and in docs/ runs as it stands there; commands exist; links lead somewhere."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Pages that their own suites run, on the servers that they need.
ELSEWHERE = {"reference/dask.md": "tests/dask", "reference/prefect.md": "tests/prefect"}
SERVERS = {"postgresql://user@host/db": "postgres_url", "s3://bucket/prefix": "s3_url"}
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix().removeprefix("docs/")


by_name = pytest.mark.parametrize("page", PAGES, ids=name_of)


def blocks(page: Path) -> str:
    """All of a page's Python, in order, as one program; lines keep their numbers."""
    text = page.read_text()
    program = [""] * (text.count("\n") + 1)
    for match in BLOCK.finditer(text):
        start = text.count("\n", 0, match.start(1))
        lines = match[1].splitlines()
        program[start : start + len(lines)] = lines
    return "\n".join(program)


@pytest.mark.xdist_group("docs")
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if "```python" in page.read_text() and name_of(page) not in ELSEWHERE],
    ids=name_of,
)
def test_python_in_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any) -> None:
    program = blocks(page)
    for shown, fixture in SERVERS.items():
        if shown in program:
            program = program.replace(shown, request.getfixturevalue(fixture))
    (tmp_path / "page.py").write_text(program)
    monkeypatch.chdir(tmp_path)
    runpy.run_path("page.py", run_name="__main__")


@by_name
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert missing == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-d",
        folder / "doctrees",
        ROOT / "docs",
        folder,
    ]
    built = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr  # links and anchors that lead nowhere, pages in no menu
    return folder


@pytest.mark.xdist_group("docs")
def test_the_site_has_every_page_finds_it_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = {name_of(page).removesuffix(".md") for page in PAGES} - {"README"}
    index = json.loads((site / "searchindex.js").read_text().removeprefix("Search.setIndex(").removesuffix(")"))
    assert set(index["docnames"]) == pages
    assert {index["docnames"][at] for at in as_list(index["titleterms"]["glossari"])} == {"reference/glossary"}
    for page in pages:
        html = (site / f"{page}.html").read_text()
        assert re.findall(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"(?:https?:)?//[^>]*>", html) == []


def as_list(found: int | list[int]) -> list[int]:
    """Sphinx writes a single page as a number."""
    return [found] if isinstance(found, int) else found


@by_name
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"\bmake ([a-z][a-z-]+)", page.read_text()))
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {target for target in targets if f"`make {target}" in page.read_text()} <= known


@by_name
def test_commands_exist(page: Path) -> None:
    from typer.main import get_command

    from cacheness.cli import app

    known = set(getattr(get_command(app), "commands"))  # noqa: B009 - a group has them, a command does not
    named = set(re.findall(r"`(?:[^`]*/)?cacheness ([a-z]+)", page.read_text()))
    assert named <= known


@pytest.mark.parametrize("name", ["api", "cli"])
def test_pages_that_are_written_from_the_code_are_up_to_date(name: str) -> None:
    spec = importlib.util.spec_from_file_location(f"write_{name}", ROOT / f"docs/write_{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / f"docs/reference/{name}.md").read_text() == module.page(), "run: make docs"


def test_the_readme_is_short() -> None:
    assert 80 <= len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_tests_that_pages_name_exist() -> None:
    defined = set()
    for folder in (ROOT / "tests", ROOT / "core/cacheness/testing"):
        for path in folder.rglob("*.py"):
            defined |= set(re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"`(?:[^`]*::)?(test_\w+)", page.read_text())}
    assert named - defined == set()
