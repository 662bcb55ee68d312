"""What is installed, from where, and what is said of a library that is not there or does not work."""

from __future__ import annotations

import pickle
import re
import tomllib
from pathlib import Path

import pytest

import cacheness
from cacheness import MissingExtra
from cacheness.codecs.libraries import library

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMPORTS = {
    "not there": (None, r"needs LIBRARY, which is not installed\. Install it with: pip install LIBRARY$"),
    "needs another": ("import other_library_of_nobody", "needs other_library_of_nobody, which is not installed"),
    "broken": (
        "raise ImportError('libpq.so.5: cannot open shared object file')",
        "needs LIBRARY, which cannot be imported: libpq.so.5: cannot open",
    ),
    "too old": ("from json import nothing_of_this_name", "which cannot be imported: cannot import name 'nothing_of_"),
    "half of it": ("import json.nothing_of_this_name", "which cannot be imported: No module named 'json.nothing_of_"),
    "its own part": ("import _other_library_of_nobody", "LIBRARY, which cannot be imported: No module named '_other_"),
}


@pytest.mark.parametrize("name", IMPORTS)
def test_an_import_that_fails_is_told_as_what_it_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, words = IMPORTS[name]
    module = f"library_{abs(hash(name))}"
    if code is not None:
        (tmp_path / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtra, match=words.replace("LIBRARY", module)) as caught:
        library(module)
    assert isinstance(caught.value.__cause__, ImportError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.library, again.extra) == (str(caught.value), caught.value.library, "dataframes")


def test_the_version_is_that_of_the_project() -> None:
    assert cacheness.__version__ == PROJECT["version"]


def test_no_page_and_no_message_installs_cacheness_from_an_index() -> None:
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    files += [
        path for package in ("core", "cacheness_dask", "cacheness_prefect") for path in (ROOT / package).rglob("*.py")
    ]
    assert len(files) > 200
    found = {
        str(path): line
        for path in files
        for line in re.findall(r"(?:pip|uv|uvx|pipx)[^\n`]* '?cacheness(?![-_/.])[^\n]*", path.read_text())
        if "install" in line and "@ git+" not in line
    }
    assert found == {}


def test_every_name_of_a_page_in_the_metadata_leads_to_a_page_of_ours() -> None:
    assert "urls" not in PROJECT
    proven = [line for line in PROJECT["classifiers"] if line.startswith("Programming Language :: Python :: 3.")]
    assert proven == ["Programming Language :: Python :: 3.11"]  # what CI runs


def test_a_source_distribution_has_what_its_tests_need() -> None:
    listed = {word for line in (ROOT / "MANIFEST.in").read_text().splitlines() for word in line.split()[1:]}
    #: setuptools takes these by itself; the rest is what commands leave behind.
    of_itself = {"LICENSE", "MANIFEST.in", "README.md", "cacheness_dask", "cacheness_prefect", "core", "pyproject.toml"}
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert {name for name in found - listed - of_itself - ignored if not name.endswith(".egg-info")} == set()


def test_the_tests_that_continuous_integration_names_exist() -> None:
    named = re.findall(r"\btests/[\w/]+(?:\.py)?", (ROOT / ".ci/run").read_text())
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).exists()] == []
