"""Python in the README and in docs/ runs as it stands there; commands exist; links lead somewhere."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cacheness
import cacheness_dask
from cacheness import CachenessError
from cacheness.config import FROM_FILES, OTHER_VARIABLES, Config
from cacheness.memoize import Options
from cacheness.metadata.sql.tables import tables

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Pages that their own suites run, on the servers that they need.
ELSEWHERE = {
    "reference/dask.md": "tests/dask",
    "reference/prefect.md": "tests/prefect",
    "tutorials/prefect.md": "tests/prefect",
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CODE = [path for folder in ("core", "cacheness_dask", "cacheness_prefect") for path in (ROOT / folder).rglob("*.py")]
SERVERS = {"postgresql://user@host/db": "emptied_url", "s3://bucket/prefix": "s3_url"}
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


#: What a page says that a line prints: a value, or the word that it begins with.
STATED = re.compile(r"^ *print\(.+\) +# (\[.*\]|\(.*\)|\{.*\}|-?[\d,]*\.?\d+|True|False|None|hit|miss)(?![\w…])")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix().removeprefix("docs/")


by_name = pytest.mark.parametrize("page", PAGES, ids=name_of)


def program_and_files(page: Path) -> tuple[str, dict[str, str]]:
    """All of a page's Python, in order, as one program, whose lines keep their numbers; and the files that it shows.

    A block whose first line is a comment with the name of a file is that file.
    """
    text = page.read_text()
    program, files = [""] * (text.count("\n") + 1), {}
    for match in BLOCK.finditer(text):
        if named := re.match(r"# (\w+\.py)\n", match[1]):
            files[named[1]] = match[1]
        else:
            start = text.count("\n", 0, match.start(1))
            lines = match[1].splitlines()
            program[start : start + len(lines)] = lines
    return "\n".join(program), files


def programs() -> Iterator[Any]:
    """The pages with Python, marked where it needs servers or starts processes."""
    for page in PAGES:
        text = "".join(BLOCK.findall(page.read_text()))
        if text and name_of(page) not in ELSEWHERE:
            needs = [pytest.mark.external] if any(shown in text for shown in SERVERS) else []
            starts = [pytest.mark.slow] if "__main__" in text else []
            yield pytest.param(page, marks=needs + starts, id=name_of(page))


class Printed(io.StringIO):
    """What each line of a page's program prints."""

    def __init__(self) -> None:
        super().__init__()
        self.by_line: dict[int, str] = {}

    def write(self, text: str) -> int:
        frame = sys._getframe(1)
        if frame.f_code.co_filename == "page.py":
            self.by_line[frame.f_lineno] = self.by_line.get(frame.f_lineno, "") + text
        return super().write(text)


@pytest.mark.xdist_group("docs")
@pytest.mark.parametrize("page", list(programs()))
def test_python_in_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any) -> None:
    program, files = program_and_files(page)
    for shown, fixture in SERVERS.items():
        if shown in program:
            program = program.replace(shown, request.getfixturevalue(fixture))
    for name, text in {**files, "page.py": program}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "stdout", printed := Printed())
    runpy.run_path("page.py", run_name="__main__")
    for line, text in enumerate(program.splitlines(), 1):
        said = printed.by_line.get(line)
        if said is not None and (stated := STATED.match(text)):
            assert said.startswith(stated[1]), f"{page.name}:{line} says {stated[1]}, and prints {said}"
    for name, text in files.items():
        sys.modules.pop(name.removesuffix(".py"), None)
        if "__main__" in text:  # what starts processes is a script, as its reader would run it
            ran = subprocess.run([sys.executable, name], check=False, capture_output=True, text=True)
            assert ran.returncode == 0, ran.stderr


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


@pytest.mark.slow
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

    from cacheness.cli.commands import app

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


def rows_of(page: str) -> list[str]:
    """The first cells of a page's tables."""
    return re.findall(r"^\| (.+?) \|", (ROOT / "docs" / page).read_text(), re.MULTILINE)


def test_every_parameter_has_its_variable_on_the_page() -> None:
    named = {name for row in rows_of("reference/environment.md") for name in re.findall(r"`CACHENESS_(\w+)`", row)}
    parameters = {field.name.upper() for field in dataclasses.fields(Config)}
    assert named == parameters | {f"{name.upper()}_FILE" for name in FROM_FILES} | OTHER_VARIABLES


def test_every_name_is_at_work() -> None:
    used = set(re.findall(r"\w+", "".join(BLOCK.findall((ROOT / "docs/reference/at-work.md").read_text()))))
    assert {*cacheness.__all__, *cacheness_dask.__all__} - used == set()


def test_every_option_of_cached_is_on_its_page() -> None:
    options = {field.name for field in dataclasses.fields(Options)}
    assert options <= {row.strip("`") for row in rows_of("reference/cached.md")}


def test_every_table_is_on_its_page() -> None:
    named = [name for row in rows_of("reference/tables.md") for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(tables.tables)


def test_every_public_error_is_on_the_page_of_messages() -> None:
    named = {name for row in rows_of("reference/messages.md") for name in re.findall(r"`(\w+)`", row)}
    public = {
        name
        for name in cacheness.__all__
        if isinstance(value := getattr(cacheness, name), type) and issubclass(value, CachenessError)
    }
    assert public - named == {"CachenessError"}


def test_messages_on_the_page_are_what_is_logged() -> None:
    _, warnings, _ = (ROOT / "docs/reference/messages.md").read_text().split("\n## ")
    shown = re.findall(r"^\| (`.+?) \|", warnings, re.MULTILINE)
    code = "".join(re.sub(r'"\s*f?"', "", path.read_text()) for path in CODE)
    parts = [part.strip() for row in shown for text in re.findall(r"`([^`]+)`", row) for part in text.split("…")]
    assert len(shown) > 10
    assert [part for part in parts if part not in code] == []


def test_the_twenty_questions_have_a_link_each() -> None:
    text = (ROOT / "docs/how-to/questions.md").read_text().split("## ")[0]
    questions = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(questions) == 20
    assert [line for line in questions if "](" not in line] == []


def library(requirement: str) -> str:
    return re.split(r"[^\w-]", requirement)[0]


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_an_example_says_what_it_needs_and_never_takes_cacheness_from_an_index(example: Path) -> None:
    header = re.match(r"# /// script\n((?:#.*\n)*?)# ///\n", example.read_text())
    assert header is not None
    asks = tomllib.loads(re.sub(r"^# ?", "", header[1], flags=re.MULTILINE))
    assert asks["requires-python"] == PROJECT["requires-python"]
    extras = {library(asked) for extra in PROJECT["optional-dependencies"].values() for asked in extra}
    assert {library(asked) for asked in asks["dependencies"]} <= extras - {"cacheness"}


def test_the_readme_is_short() -> None:
    assert 80 <= len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_tests_that_pages_name_exist() -> None:
    defined = set()
    for folder in (ROOT / "tests", ROOT / "core/cacheness/testing"):
        for path in folder.rglob("*.py"):
            defined |= set(re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"`(?:[^`]*::)?(test_\w+)", page.read_text())}
    assert named - defined == set()
