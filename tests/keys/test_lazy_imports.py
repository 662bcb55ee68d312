"""Modules and names that are imported when they are first used: keys resolve them as the interpreter would."""
# ruff: noqa: E501 - tables of sources; wide lines read better here

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cacheness.keys import fingerprint, owners
from cacheness.keys.code.sources import is_module

#: What `lazy_loader.attach` gives, for a package with a submodule `shapes` and a name of it.
_ATTACHED = """
import importlib
def attach(package, names):
    def __getattr__(name):
        module = importlib.import_module(f"{package}.shapes")
        return module if name == "shapes" else getattr(module, name)
    return __getattr__, names
__getattr__, __all__ = attach(__name__, ["area", "shapes"])
"""
_USES = {
    "a name of the package": "import lazy_pkg\ndef f(x): return lazy_pkg.area(x)\n",
    "a name of the submodule": "import lazy_pkg\ndef f(x): return lazy_pkg.shapes.area(x)\n",
    "imported in the body": "def f(x):\n    from lazy_pkg import area\n    return area(x)\n",
    "the package in a local name": "import lazy_pkg\ndef f(x):\n    package = lazy_pkg\n    return package.area(x)\n",
    "the package handed about": "import lazy_pkg\ndef g(p, x): return p.shapes.area(x)\ndef f(x): return g(lazy_pkg, x)\n",
    "by getattr": "import lazy_pkg\ndef f(x): return getattr(lazy_pkg, 'area')(x)\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    _forget()


def _forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("lazy_pkg", "lazy_main", "lazy_helpers")]:
        del sys.modules[name]
    importlib.invalidate_caches()


def _load(folder: Path, name: str, source: str) -> Any:
    (folder / f"{name}.py").write_text(source)
    importlib.invalidate_caches()
    return importlib.import_module(name)


@pytest.mark.slow
@pytest.mark.parametrize("use", _USES)
def test_names_that_a_package_imports_when_asked_count(use: str, folder: Path) -> None:
    (folder / "lazy_pkg").mkdir()
    (folder / "lazy_pkg" / "__init__.py").write_text(_ATTACHED)
    found = []
    for factor in (2, 3):
        _forget()
        (folder / "lazy_pkg" / "shapes.py").write_text(f"def area(x): return x * {factor}\n")
        f = _load(folder, "lazy_main", _USES[use]).f
        found.append(fingerprint(f).digest)
        assert f(3) == 3 * factor
        assert fingerprint(f).digest == found[-1]
    assert found[0] != found[1]


def test_a_library_s_module_that_is_lazy_is_not_loaded_for_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "sqlalchemy.ext.mutable"
    monkeypatch.delitem(sys.modules, name, raising=False)
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    loader.exec_module(module)
    names: dict[str, Any] = {"__name__": "lazy_main", "mutable": module}
    exec("def f(x): return mutable.MutableDict if x else None\n", names)
    before = fingerprint(names["f"])
    assert type(module) is not types.ModuleType
    assert "sqlalchemy" in {key.lower() for key in before.components["versions"]}
    assert names["f"](1).__name__ == "MutableDict"
    assert type(module) is types.ModuleType
    assert fingerprint(names["f"]).digest == before.digest


class _Lazy:
    """As Python 3.15 leaves it in a module's names: it knows what to import, and has no value."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def resolve(self) -> Any:
        return getattr(importlib.import_module(self.module), self.name)

    def __reduce_ex__(self, _: Any) -> Any:
        raise TypeError("cannot pickle")


@pytest.mark.parametrize("lazily", [False, True])
def test_a_lazy_import_of_python_counts_as_what_it_imports(
    lazily: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owners, "LAZY_IMPORT", _Lazy)
    found = []
    for factor in (2, 3):
        _forget()
        (folder / "lazy_helpers.py").write_text(f"def area(x): return x * {factor}\n")
        module = _load(folder, "lazy_main", "from lazy_helpers import area\ndef f(x): return area(x)\n")
        eager = fingerprint(module.f).digest
        if lazily:
            _forget()
            module = _load(folder, "lazy_main", "def f(x): return area(x)\n")
            module.area = _Lazy("lazy_helpers", "area")
        found.append(fingerprint(module.f))
        assert found[-1].digest == eager
        assert found[-1].unfollowed == ()
    assert found[0].digest != found[1].digest


def test_a_lazy_import_that_fails_is_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "LAZY_IMPORT", _Lazy)
    module = _load(folder, "lazy_main", "def f(x): return area(x) if x else 0\n")
    module.area = _Lazy("lazy_pkg_that_is_not_there", "area")
    assert any("import of area failed" in line for line in fingerprint(module.f).unfollowed)


def test_chance_behind_a_lazy_import_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "LAZY_IMPORT", _Lazy)
    module = _load(folder, "lazy_main", "def f(x): return uniform(0, x)\n")
    module.uniform = _Lazy("random", "uniform")
    assert fingerprint(module.f).chance


def test_a_text_that_is_no_modules_name_imports_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`importlib.util.find_spec` imports the package in front of each dot: a script beside the user's would run."""
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("cleanup", "tidy_up", "packed/__init__", "packed/inner", "packed/inner_too"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text("print(__name__)")

    def scripts() -> list[object]:
        path = __import__("pathlib").Path
        return [path("cleanup.py"), path("tidy_up.py.bak"), "packed.missing", "nowhere.inner"]

    def plugin() -> object:
        return __import__("packed.inner")

    fingerprint(scripts)
    assert capsys.readouterr().out == ""
    fingerprint(plugin)
    assert capsys.readouterr().out.split() == ["packed", "packed.inner"]
    assert is_module("packed.inner_too")
    assert not is_module("packed.missing")
