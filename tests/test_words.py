"""One name for one thing, as docs/reference/glossary.md has it."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import io
import re
import subprocess
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

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


#: What the glossary and STYLE's table replaced: in a public name, in what a log says, in an error's text.
RETIRED = re.compile(
    r"flights?|claim(s|ed)?|survey(s|ed)?|findings?|mend(s|ed)?|buried|forget(s|ting)?|forgotten|withdraw|clues?|parts|told",
    re.IGNORECASE,
)
KEPT = {"single_flight", "single flight"}  #: the feature's name


def words_of(name: str) -> list[str]:
    """The words of a name in snake_case or CamelCase."""
    return re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)


def retired_in(text: str) -> list[str]:
    for kept in KEPT:
        text = text.replace(kept, "")
    return [word for word in words_of(text) if RETIRED.fullmatch(word)]


def public_names(package: str) -> Iterator[str]:
    """What users see: names, methods, fields and parameters."""
    module = importlib.import_module(package)
    for name in module.__all__:
        value = getattr(module, name)
        yield name
        members = [(name, value)]
        for base in value.__mro__ if inspect.isclass(value) else ():
            if base.__module__.startswith("cacheness"):
                members += [(f"{name}.{k}", getattr(v, "__func__", v)) for k, v in vars(base).items() if k[0] != "_"]
        if dataclasses.is_dataclass(value):
            yield from (f"{name}.{field.name}" for field in dataclasses.fields(value))
        for place, member in members:
            yield place
            if inspect.isfunction(member):
                yield from (f"{place} {parameter}" for parameter in inspect.signature(member).parameters)


@pytest.mark.parametrize("package", ["cacheness", "cacheness.keys", "cacheness_dask", "cacheness_prefect"])
def test_public_names_have_the_words_of_the_glossary(package: str) -> None:
    assert [name for name in public_names(package) if retired_in(name)] == []


def messages(path: Path) -> Iterator[str]:
    """Texts in what is raised and in what is logged."""
    for node in ast.walk(ast.parse(path.read_text())):
        is_logged = isinstance(node, ast.Call) and getattr(node.func, "attr", "") in {
            "debug", "info", "warning", "error", "exception",
        }  # fmt: skip
        if is_logged or isinstance(node, ast.Raise):
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield f"{path.relative_to(ROOT)}:{part.lineno}: {part.value}"


def test_messages_have_the_words_of_the_glossary() -> None:
    found = [text for path in FILES for text in messages(path) if retired_in(text.partition(": ")[2])]
    assert found == []


#: Words that comments, docstrings and pages do without: archaic ones, and verbs of speech said of programs.
LEFT_OUT = re.compile(
    r"\b((?i:lest|anew|beforehand|meanwhile|whoever|whence|nobody's|of its own|let go of|under way|all the same)"
    r"|(?i:come to nothing|told|tells|asks|knows|says|mend(s|ed)?|promises))\b|^(Who|Nobody) "
)
GENERATED = re.compile(r"_texts\.py$|/migrations/versions/")
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
OTHERS = [path for folder in ("examples", "benchmarks", "docs") for path in sorted((ROOT / folder).rglob("*.py"))]
DECISIONS = sorted((ROOT / "docs/explanation/decisions").glob("0*.md"))


def left_out_of_code(path: Path) -> Iterator[str]:
    """Places in comments and docstrings."""
    source = path.read_text()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and LEFT_OUT.search(token.string.lstrip("#: ")):
            yield f"{path.relative_to(ROOT)}:{token.start[0]}: {token.string}"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for number, line in enumerate(node.value.value.splitlines(), node.lineno):
                if LEFT_OUT.search(re.sub(r"`[^`]*`", "", line).strip()):
                    yield f"{path.relative_to(ROOT)}:{number}: {line.strip()}"


def left_out_of_page(path: Path) -> Iterator[str]:
    """Places in prose: not in programs, code, or the addresses of links."""
    is_program = False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.lstrip().startswith("```"):
            is_program = not is_program
        elif not is_program and LEFT_OUT.search(re.sub(r"`[^`]*`|\]\([^)]*\)", "", line)):
            yield f"{path.relative_to(ROOT)}:{number}: {line.strip()}"


def test_comments_and_docstrings_are_in_plain_words() -> None:
    files = [path for path in (*FILES, *OTHERS) if not GENERATED.search(str(path))]
    assert [place for path in files for place in left_out_of_code(path)] == []


def test_pages_are_in_plain_words() -> None:
    assert [place for path in PAGES for place in left_out_of_page(path)] == []


#: Areas of the changelog, in their order.
AREAS = ["Cache and results", "Keys", "Command line", "Dask", "Prefect", "Stores", "Docs and project"]


def test_the_changelog_has_sections_and_one_line_for_each_entry() -> None:
    first, *versions = (ROOT / "CHANGELOG.md").read_text().split("\n## ")
    assert first.startswith("# Changelog\n")
    for version in versions:
        lines = version.splitlines()[1:]
        headings = [line for line in lines if line.startswith("### ")]
        assert headings == [one for one in ("### Added", "### Changed", "### Fixed") if one in headings]
        for section in "\n".join(lines).split("\n### ")[1:]:
            areas = re.findall(r"^#### (.*)", section, re.MULTILINE)
            assert areas == [one for one in AREAS if one in areas]
        other = [line for line in lines if line and not line.startswith(("### ", "#### ", "- "))]
        assert other == [], "an entry is one line, below a section and an area"
        assert [line for line in lines[: lines.index(headings[0])] if line] == [], "an entry belongs to a section"
        entries = [line for line in lines if line.startswith("- ")]
        assert [entry for entry in entries if len(entry) > 160 or not entry.endswith(".")] == []
        assert [entry for entry in set(entries) if entries.count(entry) > 1] == []


def test_decisions_have_one_form() -> None:
    form = ["## Problem", "## Considered", "## Decision", "## Consequences"]
    headings = {path.name: re.findall(r"^## .*", path.read_text(), re.MULTILINE) for path in DECISIONS}
    assert {name: there for name, there in headings.items() if there not in (form, [form[0], *form[2:]])} == {}


def test_the_index_lists_each_decision_by_its_title() -> None:
    listed = re.findall(r"^- \[(.*)\]\((.*)\)$", (DECISIONS[0].parent / "index.md").read_text(), re.MULTILINE)
    assert listed == [(path.read_text().partition("\n")[0].removeprefix("# "), path.name) for path in DECISIONS]


@pytest.mark.parametrize(
    ("text", "is_left_out"),
    [
        ("# what a caller is told", True),
        ('"""Who writes goes on."""', True),
        ("x = 'told'", False),
        ("# a told_at", False),
    ],
)
def test_words_that_are_left_out_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, *, is_left_out: bool
) -> None:
    monkeypatch.setattr("tests.test_words.ROOT" if __name__.startswith("tests.") else f"{__name__}.ROOT", tmp_path)
    (tmp_path / "one.py").write_text(f"{text}\n")
    assert bool(list(left_out_of_code(tmp_path / "one.py"))) is is_left_out
