"""What a class, function or module is decides whose it is, and not what it says of itself."""
# ruff: noqa: E501 - a table of edits reads better wide

from __future__ import annotations

import importlib
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from cacheness.keys import encode, fingerprint, owners
from tests.keys.edits import load

EDITS = {
    "a class whose module is said to be another": (
        "K = type('K', (), {'__module__': 'json', 'go': lambda self: 1})\ndef f(x): return K().go()\n",
        ("self: 1", "self: 2"),
    ),
    "an enum made by a call, in the name of a library": (
        "import enum\nE = enum.Enum('E', {'A': 1}, module='numpy')\ndef f(x): return E.A.value\n",
        ("'A': 1", "'A': 2"),
    ),
    "a dataclass made by a call": (
        "import dataclasses\nM = dataclasses.make_dataclass('M', ['a'], namespace={'go': lambda self: self.a + 1})\ndef f(x): return M(x).go()\n",
        ("a + 1", "a + 2"),
    ),
    "a class that bears the name of a library's": (
        "import decimal\nclass Decimal(decimal.Decimal):\n    def twice(self): return 2 * self\nDecimal.__module__ = 'decimal'\ndef f(x): return Decimal(x).twice()\n",
        ("2 * self", "3 * self"),
    ),
    "a function that runs among a library's names": (
        "import json, types\ndef own(x): return x + 1\nown = types.FunctionType(own.__code__, vars(json), 'dumps')\ndef f(x): return own(x)\n",
        ("x + 1", "x + 2"),
    ),
    "an object that pickles as a name": (
        "class P:\n    def __init__(self, n): self.n = n\n    def __reduce__(self): return 'DEFAULT'\nDEFAULT = P(1)\ndef f(x): return DEFAULT.n\n",
        ("P(1)", "P(2)"),
    ),
    "a class registered with an abstract one": (
        "import abc\nclass Shape(abc.ABC): pass\nclass Round: pass\nclass Square: pass\nShape.register(Round)\ndef f(x): return issubclass(Square, Shape)\n",
        ("register(Round)", "register(Square)"),
    ),
    "own code put into a library's module": (
        "import textwrap\ntextwrap.own = lambda x: x + 1\ndef f(x): return textwrap.own(x)\n",
        ("x + 1", "x + 2"),
    ),
    "own code, wrapped, put into a library's module": (
        "import textwrap, functools\ndef own(a, x): return x + 1\ntextwrap.own = functools.partial(own, 1)\ndef f(x): return textwrap.own(x)\n",
        ("x + 1", "x + 2"),
    ),
    "a name within a text that is evaluated": (
        "RATE = 1\ndef f(x):\n    found = {}\n    exec('y = RATE * 2', globals(), found)\n    return found['y']\n",
        ("RATE = 1", "RATE = 2"),
    ),
    "a name that a frame asks for": (
        "import pandas as pd\nMOST = 1\ndef f(x): return pd.DataFrame({'a': [1, 2]}).query('a <= @MOST').a.sum()\n",
        ("MOST = 1", "MOST = 2"),
    ),
}


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    vars(importlib.import_module("textwrap")).pop("own", None)


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_of_the_user_s_code_is_a_miss_whatever_it_is_said_to_be(name: str) -> None:
    source, edit = EDITS[name]
    assert edit[0] in source
    before = fingerprint(load(source, "whose").f).digest
    assert fingerprint(load(source, "whose").f).digest == before
    assert fingerprint(load(source.replace(*edit), "whose").f).digest != before


def test_own_code_put_into_a_library_later_is_a_miss() -> None:
    module = load("import textwrap\ndef f(x): return textwrap.dedent(x)\n", "whose")
    before = fingerprint(module.f).digest
    dedent = module.textwrap.dedent
    try:
        module.textwrap.dedent = lambda x: x
        assert fingerprint(module.f).digest != before
    finally:
        module.textwrap.dedent = dedent
    assert fingerprint(module.f).digest == before


MODULES = {
    "in a local name": "import bundle\ndef f(x):\n    b = bundle\n    return b.part.run(x)\n",
    "in a dict": "import bundle\nALL = {'b': bundle}\ndef f(x): return ALL['b'].part.run(x)\n",
    "a default": "import bundle\ndef f(x, b=bundle): return b.part.run(x)\n",
    "bound by partial": "import bundle, functools\ndef g(b, x): return b.part.run(x)\nf = functools.partial(g, bundle)\n",
    "imported by a text": "import importlib\ndef f(x): return importlib.import_module('bundle.part').run(x)\n",
    "imported by the built-in": "def f(x): return __import__('bundle').part.run(x)\n",
    "found by pkgutil": "import pkgutil\ndef f(x): return pkgutil.resolve_name('bundle.part:run')(x)\n",
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_that_is_handed_about_counts_with_its_parts(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/__init__.py").write_text("from bundle import part\n")
    found = []
    for number in (1, 1, 2):
        (tmp_path / "bundle/part.py").write_text(f"def run(x): return x + {number}\n")
        importlib.invalidate_caches()
        found.append(fingerprint(load(MODULES[name], "whose").f).digest)
        for module in ("bundle", "bundle.part", "whose"):
            sys.modules.pop(module, None)
    assert found[0] == found[1] != found[2]


LOADERS = {
    "from importlib import import_module": ("def f(x): return import_module(x)", "import_module"),
    "import pkgutil": ("def f(x): return pkgutil.resolve_name(x)", "pkgutil.resolve_name"),
    "import builtins": ("def f(x): return builtins.eval(x)", "builtins.eval"),
    "from runpy import run_path as go": ("def f(x): return go(x)", "go"),
    "run = eval": ("def f(x): return run(x)", "run"),
    "": ("def f(x):\n    from pickle import loads\n    return loads(x)", "pickle.loads"),
}


@pytest.mark.parametrize("head", LOADERS)
def test_code_that_cannot_be_seen_is_listed_under_any_name(head: str) -> None:
    source, name = LOADERS[head]
    assert f"whose.f: calls {name}" in fingerprint(load(f"{head}\n{source}\n", "whose").f).unfollowed


PROBE = """
import _bisect, _random
from cacheness.keys import digest_of, fingerprint
kind, search, made = _random.Random, _bisect.bisect_right, _random.Random(1)
class Own(_random.Random): pass
found = [lambda x: search([], x), lambda x: _bisect.bisect_right([], x), lambda x: kind(x), lambda x: _random.Random(x)]
found += [lambda x: made.random(), lambda x: Own(x), lambda x: kind.random(x)]
print(*(fingerprint(fn).digest.hex() for fn in found), digest_of(search).hex(), digest_of(kind).hex())
"""


@pytest.mark.slow
def test_compiled_code_of_the_user_s_counts_by_its_file(tmp_path: pathlib.Path) -> None:
    files = [pathlib.Path(str(importlib.import_module(name).__file__)) for name in ("_bisect", "_random")]

    def probe() -> list[str]:
        run = subprocess.run(
            [sys.executable, "-c", PROBE], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=100
        )
        return run.stdout.split()

    for file in files:
        shutil.copy(file, tmp_path / file.name)
    before = probe()
    assert probe() == before
    for file in files:
        with (tmp_path / file.name).open("ab") as stream:
            stream.write(b"\0")  # another build, which does the same
    assert all(a != b for a, b in zip(before, probe(), strict=True))


def test_a_librarys_class_is_its_own_before_the_module_that_it_names_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    named = np.recarray.__module__
    loaded = importlib.import_module(named)
    before = encode(np.recarray)
    monkeypatch.setattr(owners, "_class_owners", {})
    monkeypatch.delitem(sys.modules, named)
    assert owners.owner_of_class(np.recarray) == owners.owner_of("numpy")
    assert encode(np.recarray) == before
    assert loaded.recarray is np.recarray
