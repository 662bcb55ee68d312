"""Environment variables that code reads: by a name in the code, by one that it was handed, or by one that it makes."""
# ruff: noqa: E501 - tables of sources; wide lines read better here

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.config
import pytest

from cacheness.keys.code.fingerprint import fingerprint
from tests.keys.edits import load

COUNTS = {
    "in the code": "import os\ndef f(x): return os.environ['CACHENESS_DEPTH']\n",
    "asked for": "import os\ndef f(x): return 'CACHENESS_DEPTH' in os.environ\n",
    "with a default that is computed": "import os\ndef f(x): return os.getenv('CACHENESS_DEPTH', str(x) + 'a')\n",
    "in a global": "import os\nNAME = 'CACHENESS_DEPTH'\ndef f(x): return os.environ.get(NAME)\n",
    "in a default": "import os\ndef f(x, name='CACHENESS_DEPTH'): return os.environ.get(name)\n",
    "handed to a helper": "import os\ndef setting(name, otherwise=None): return os.environ.get(name, otherwise)\ndef f(x): return setting('CACHENESS_DEPTH')\n",
    "in a template": "import os\ndef f(x): return os.path.expandvars('/data/${CACHENESS_DEPTH}/a')\n",
    "by a name of its own": "from os import environ as settings\ndef f(x): return settings.get('CACHENESS_DEPTH')\n",
    "by two names of its own": "import os\nSETTINGS, NAME = os.environ, 'CACHENESS_DEPTH'\ndef f(x): return SETTINGS[NAME]\n",
    "in an inner function": "import os\nSETTINGS = os.environ\ndef f(x):\n    def g(): return 'CACHENESS_DEPTH' in SETTINGS\n    return g()\n",
    "by a function of its own name": "from os import getenv as setting\ndef f(x): return setting('CACHENESS_DEPTH', x)\n",
    "in a template of its own": "from os.path import expandvars as filled\ndef f(x): return filled('$CACHENESS_DEPTH/a')\n",
}
LISTED = {
    "in a class": "import os\nclass C: NAME = 'CACHENESS_DEPTH'\ndef f(x): return os.environ[C.NAME]\n",
    "formatted": "import os\ndef f(x): return os.environ.get(f'CACHENESS_{x}')\n",
    "put together": "import os\ndef f(x): return os.getenv('CACHENESS_' + x.upper())\n",
    "by a function of its own name": "from os import getenv as setting\ndef f(x): return setting(x)\n",
    "an argument of a name of its own": "import os\nSETTINGS = os.environ\ndef f(x): return SETTINGS[x]\n",
    "an argument": "import os\ndef f(x): return x in os.environ\n",
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_variable_that_is_named_counts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CACHENESS_DEPTH", raising=False)
    fn = load(COUNTS[name], "settings_of").f
    found = [fingerprint(fn).digest]
    for value in ("1", "2"):
        monkeypatch.setenv("CACHENESS_DEPTH", value)
        found.append(fingerprint(fn).digest)
    assert len(set(found)) == 3
    monkeypatch.setenv("CACHENESS_OTHER", "1")
    assert fingerprint(fn).digest == found[-1]


def test_the_whole_environment_in_a_global_is_no_reason_for_a_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    fn = load("from os import environ\ndef f(x): return environ.get('CACHENESS_DEPTH')\n", "settings_of").f
    before = fingerprint(fn)
    monkeypatch.setenv("CACHENESS_OTHER", "1")
    assert (fingerprint(fn).digest, before.unfollowed) == (before.digest, ())


@pytest.mark.parametrize("name", LISTED)
def test_a_name_that_is_computed_is_listed(name: str) -> None:
    lines = fingerprint(load(LISTED[name], "settings_of").f).incomplete
    assert lines == ("settings_of.f: reads environment variables by a computed name",)


@pytest.mark.parametrize(
    "name", sorted(COUNTS.keys() - {"in a global", "in a default", "handed to a helper", "by two names of its own"})
)
def test_a_name_in_the_code_hides_nothing(name: str) -> None:
    assert fingerprint(load(COUNTS[name], "settings_of").f).unfollowed == ()


def test_all_variables_handed_on_decide_nothing_that_is_known() -> None:
    found: Any = fingerprint(load("import os\ndef f(x): return x(env=dict(os.environ))\n", "settings_of").f)
    assert found.unfollowed == ("settings_of.f: passes all environment variables on",)
    assert found.incomplete == ()


@pytest.mark.parametrize("way", ["sys._getframe().f_globals", "f.__globals__"])
def test_globals_that_are_taken_from_a_frame_or_a_function_are_listed(way: str) -> None:
    found = fingerprint(load(f"import sys\nLIMIT = 1\ndef f(x): return {way}['LIMIT']\n", "settings_of").f)
    assert any("takes globals by" in line for line in found.incomplete)


OPTIONS = {
    "of the package": "import dask\ndef f(x): return dask.config.get('cacheness.depth')\n",
    "of the module": "from dask import config\ndef f(x): return config.get('cacheness.depth', 3)\n",
    "under another name": "import dask.config as settings\ndef f(x): return settings.get('cacheness.depth', None)\n",
    "by its function": "from dask.config import get\ndef f(x): return get('cacheness.depth', 1)\n",
    "imported inside": "def f(x):\n    from dask import config\n    return config.get('cacheness.depth')\n",
    "in a helper": "import dask\ndef g(): return dask.config.get('cacheness.depth')\ndef f(x): return g() + x\n",
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_of_dask_that_is_named_counts(name: str) -> None:
    fn = load(OPTIONS[name], "settings_of").f
    found = [fingerprint(fn)]
    for value in (1, [1, {"a": 2}]):
        with dask.config.set({"cacheness.depth": value, "cacheness.other": value}):
            found.append(fingerprint(fn))
    assert len({one.digest for one in found}) == 3
    assert fingerprint(fn).digest == found[0].digest
    assert found[0].incomplete == ()


def test_an_option_of_dask_with_a_computed_name_is_listed() -> None:
    fn = load("import dask\ndef f(x): return dask.config.get(x)\n", "settings_of").f
    assert fingerprint(fn).incomplete == ("settings_of.f: reads options of Dask by a computed name",)


@pytest.mark.parametrize(
    "source",
    [
        "def f(x): return x.config.get('cacheness.depth')\n",
        "import dask\ndef f(x): return dask.delayed(x), 'cacheness.depth'\n",
    ],
)
def test_what_reads_no_option_of_dask_depends_on_none(source: str) -> None:
    fn = load(source, "settings_of").f
    before = fingerprint(fn)
    with dask.config.set({"cacheness.depth": 1}):
        assert fingerprint(fn).digest == before.digest


SETTINGS = {
    "by its field": ("class S(BaseSettings): depth: str = '0'\n", "DEPTH"),
    "with a prefix": ("class S(BaseSettings):\n    model_config = {'env_prefix': 'cacheness_'}\n    depth: str = '0'\n", "CACHENESS_DEPTH"),
    "by an alias": ("class S(BaseSettings): depth: str = Field('0', validation_alias=AliasChoices('LEVELS', AliasPath('DEEP', 0)))\n", "DEEP"),
    "nested": ("class D(BaseModel): n: str = '0'\nclass S(BaseSettings):\n    model_config = {'env_nested_delimiter': '__'}\n    depth: D = D()\n", "depth__n"),
    "in a subclass": ("class B(BaseSettings): depth: str = '0'\nclass S(B): pass\n", "DEPTH"),
}  # fmt: skip
_IMPORTS = (
    "from pydantic import AliasChoices, AliasPath, BaseModel, Field\nfrom pydantic_settings import BaseSettings\n"
)


@pytest.mark.parametrize("name", SETTINGS)
def test_variables_that_settings_of_pydantic_read_count(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, variable = SETTINGS[name]
    fn = load(f"{_IMPORTS}{source}def f(x): return S().depth\n", "settings_of").f
    found = [fingerprint(fn).digest]
    for value in ("1", "2"):
        monkeypatch.setenv(variable, value if "__" in variable or "DEEP" not in variable else f'["{value}"]')
        found.append(fingerprint(fn).digest)
        assert fn(1) != "0"
    assert len(set(found)) == 3
    monkeypatch.setenv("CACHENESS_OTHER", "1")
    assert fingerprint(fn).digest == found[-1]


def test_files_that_settings_of_pydantic_read_count(tmp_path: Path) -> None:
    source = f"class S(BaseSettings):\n    model_config = {{'env_file': {str(tmp_path / 'local.env')!r}}}\n    depth: str = '0'\n"
    fn = load(f"{_IMPORTS}{source}def f(x): return S().depth\n", "settings_of").f
    found = [(fingerprint(fn).digest, fn(1))]
    for value in ("1", "2"):
        (tmp_path / "local.env").write_text(f"DEPTH={value}")
        found.append((fingerprint(fn).digest, fn(1)))
    assert [value for _, value in found] == ["0", "1", "2"]
    assert len({digest for digest, _ in found}) == 3
