"""Templates count by the content of the files that a loader reads them from."""

from __future__ import annotations

import pathlib
import sys
import zipfile
from typing import Any

import jinja2
import pytest
from mako.lookup import TemplateLookup

from cacheness import UnhashableArgument, UnifiedCache
from cacheness.keys import digest_of, fingerprint
from cacheness.keys.values import lazy_files
from tests.keys.edits import load


def package(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> jinja2.PackageLoader:
    monkeypatch.syspath_prepend(folder.parent)
    (folder / "__init__.py").write_text("")
    try:
        return jinja2.PackageLoader(folder.name, ".")
    finally:
        sys.modules.pop(folder.name, None)


@pytest.mark.parametrize("kind", ["folder", "two folders", "package", "among others", "mako"])
def test_an_edited_template_is_another_value(
    kind: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "pages_of_mine"
    (folder / "parts").mkdir(parents=True)
    template = folder / "parts" / "head.html"
    template.write_text("old")
    made: Any
    if kind == "mako":
        made = TemplateLookup(directories=[str(folder)])
        made.get_template("parts/head.html")
    elif kind == "package":
        made = jinja2.Environment(autoescape=True, loader=package(folder, monkeypatch))
    else:
        loader: jinja2.BaseLoader = jinja2.FileSystemLoader([tmp_path / "none", folder][kind == "folder" :])
        made = jinja2.Environment(
            autoescape=True, loader=jinja2.ChoiceLoader([loader]) if kind == "among others" else loader
        )
    before = digest_of(made)
    made.get_template("parts/head.html").render()
    assert digest_of(made) == before
    template.write_text("new")
    edited = digest_of(made)
    assert edited != before
    (folder / ".git").mkdir()
    (folder / ".git" / "index").write_text("no template")
    assert digest_of(made) == edited
    (folder / "more.html").write_text("")
    assert digest_of(made) != edited


def test_templates_in_an_archive_count(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for text in ("old", "new"):
        archive = tmp_path / f"{text}.zip"
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("pages_in_zip/__init__.py", "")
            file.writestr("pages_in_zip/templates/a.html", text)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(archive)
            found.append(digest_of(jinja2.PackageLoader("pages_in_zip")))
            del sys.modules["pages_in_zip"]
    assert found[0] != found[1]


def test_a_template_behind_a_global_is_seen(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.txt").write_text("Hello {{ x }}")
    source = f"import jinja2\nENV = jinja2.Environment(loader=jinja2.FileSystemLoader({str(tmp_path)!r}))\n"
    f = load(source + "def f(x): return ENV.get_template('a.txt').render(x=x)\n", "pages").f
    with UnifiedCache(cache_dir=tmp_path.with_suffix(".cache")) as cache:
        cached = cache.cached(f)
        assert cached(1) == cached(1) == "Hello 1"
        assert cached.explain(1).hit
        (tmp_path / "a.txt").write_text("Bye {{ x }}")
        assert cached(1) == "Bye 1"


def test_too_many_files_are_not_read_but_listed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy_files, "_MOST_TEMPLATES", 1)
    (tmp_path / "a").write_text("")
    (tmp_path / "b").write_text("")
    with pytest.raises(UnhashableArgument, match="more than 1 files"):
        digest_of(jinja2.FileSystemLoader(tmp_path))
    source = f"import jinja2\nLOADER = jinja2.FileSystemLoader({str(tmp_path)!r})\ndef f(x): return LOADER\n"
    assert "FileSystemLoader" in fingerprint(load(source, "pages").f).incomplete[0]


def test_links_that_lead_back_are_not_followed_and_others_are(tmp_path: pathlib.Path) -> None:
    folder, elsewhere = tmp_path / "pages", tmp_path / "shared"
    for place in (folder / "parts", elsewhere):
        place.mkdir(parents=True)
        (place / "head.html").write_text("old")
    for number in range(3):
        (folder / "parts" / f"up{number}").symlink_to(folder)
        (folder / f"here{number}").symlink_to(folder)
    (folder / "shared").symlink_to(elsewhere)
    loader = jinja2.FileSystemLoader(folder)
    before = digest_of(loader)
    (elsewhere / "head.html").write_text("new")
    assert digest_of(loader) != before
