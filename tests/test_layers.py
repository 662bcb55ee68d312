"""Imports point downwards. This is the picture of the house; a short cut fails here."""

from __future__ import annotations

import ast
import graphlib
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

#: Each part of the core, and what it may import of ours.
BASE = {"errors", "entry"}
STORE = BASE | {"protocols", "deadlines", "config", "jitter", "forks", "transfers"}
PROTOCOL = BASE | {"protocols", "deadlines", "jitter", "forks"}
MAY_IMPORT = {
    "errors": set(),
    "entry": {"errors", "keys"},
    "incomplete": set(),
    "jitter": set(),
    "forks": set(),
    "hashing": set(),
    "deadlines": {"errors", "forks", "jitter"},
    "config": BASE | {"deadlines", "incomplete"},
    "protocols": BASE,
    "report": {"entry", "errors"},
    "fields": BASE,
    "keys": {"errors", "forks", "hashing"},
    "signing": BASE | {"hashing", "protocols"},
    "codecs": BASE | {"forks", "protocols"},
    "blobs": STORE,
    "metadata": STORE,
    "marker": PROTOCOL,
    "usage": PROTOCOL,
    "sessions": PROTOCOL,
    "flights": PROTOCOL,
    "explain": BASE | {"keys"},
    "transfers": {"errors"},
    "tombstones": PROTOCOL | {"marker", "transfers"},
    "cache": PROTOCOL
    | {"fields", "keys", "signing", "sessions", "marker", "tombstones", "transfers", "usage", "codecs"},
    "plan": BASE | {"cache", "marker", "report", "transfers"},
    "integrity": BASE | {"cache", "plan", "report", "sessions", "tombstones"},
    "batch": {"cache"},
    "eviction": PROTOCOL | {"cache"},
    "binding": set(),
    "steps": {"deadlines", "flights", "forks", "keys"},
    "memoize": BASE
    | {
        "binding",
        "cache",
        "config",
        "deadlines",
        "explain",
        "flights",
        "forks",
        "incomplete",
        "jitter",
        "keys",
        "steps",
    },
    "options": BASE | {"fields", "config", "keys"},
    "copying": PROTOCOL | {"cache", "signing"},
}
MAY_IMPORT["wiring"] = set(MAY_IMPORT)
MAY_IMPORT["unified"] = set(MAY_IMPORT)
MAY_IMPORT["migrating"] = PROTOCOL | {"config", "marker", "metadata", "tombstones", "wiring"}
PUBLIC = {"__init__", "keys", "errors", "entry", "incomplete", "jitter"}
MAY_IMPORT["__init__"] = {"unified", "config", "entry", "errors", "keys", "report", "explain", "memoize"}
MAY_IMPORT["cli"] = PUBLIC | {"config", "report", "copying", "migrating", "unified", "wiring"}
MAY_IMPORT["__main__"] = {"cli"}
MAY_IMPORT["testing"] = set(MAY_IMPORT) - {"cli", "__main__"}

STORES = [{"memory", "local", "object_store", "filesystem"}, {"sqlite", "postgresql", "journal"}]
FILES = sorted((ROOT / "core/cacheness").rglob("*.py"))


def modules_imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: say the whole name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(module: str) -> str | None:
    """The part of the core that a dotted name belongs to; None for what is not ours."""
    first, _, rest = module.partition(".")
    name = rest.partition(".")[0]
    if first != "cacheness":
        return None
    return name if name in MAY_IMPORT else "__init__"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "core")))
def test_core_imports_only_what_stands_below(path: Path) -> None:
    own = path.relative_to(ROOT / "core/cacheness").parts[0].removesuffix(".py")
    used = {part_of(module) for module in modules_imported(path)} - {None, own}
    assert used <= MAY_IMPORT[own]


def test_the_core_knows_no_orchestrator() -> None:
    roots = {module.partition(".")[0] for path in FILES for module in modules_imported(path)}
    assert roots.isdisjoint({"dask", "distributed", "prefect", "cacheness_dask", "cacheness_prefect"})


@pytest.mark.parametrize("package", ["cacheness_dask", "cacheness_prefect", "examples"])
def test_plugins_and_examples_use_public_names(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    used = {part_of(module) for path in files for module in modules_imported(path)} - {None}
    assert files
    assert used <= PUBLIC | ({"testing"} if package == "examples" else set())


@pytest.mark.parametrize("package", ["cacheness_dask", "cacheness_prefect"])
def test_plugins_do_not_know_one_another(package: str) -> None:
    roots = {module.partition(".")[0] for path in (ROOT / package).rglob("*.py") for module in modules_imported(path)}
    assert roots.isdisjoint({"cacheness_dask", "cacheness_prefect"} - {package})


@pytest.mark.parametrize("package", ["core/cacheness", "cacheness_dask", "cacheness_prefect"])
def test_no_module_imports_itself_by_a_detour_not_even_inside_of_functions(package: str) -> None:
    root = (ROOT / package).parent
    paths = {".".join(path.relative_to(root).with_suffix("").parts): path for path in (ROOT / package).rglob("*.py")}
    modules = {name.removesuffix(".__init__"): path for name, path in paths.items()}

    def ours(name: str) -> str:
        while name and name not in modules:
            name = name.rpartition(".")[0]
        return name

    imports = {name: {ours(used) for used in modules_imported(path)} - {"", name} for name, path in modules.items()}
    assert len(list(graphlib.TopologicalSorter(imports).static_order())) > 5


@pytest.mark.parametrize("stores", STORES, ids=["blobs", "metadata"])
def test_a_store_never_imports_another_store(stores: set[str]) -> None:
    for path in FILES:
        if path.stem in stores:
            ours = [module for module in modules_imported(path) if part_of(module) is not None]
            named = {part for module in ours for part in module.split(".")}
            assert named.isdisjoint(stores - {path.stem}), path


def test_every_package_is_in_the_distribution() -> None:
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    markers = [
        *(ROOT / "core").rglob("__init__.py"),
        *(path for plugin in ("cacheness_dask", "cacheness_prefect") for path in (ROOT / plugin).rglob("__init__.py")),
    ]
    found = {".".join(path.relative_to(ROOT).parent.parts).removeprefix("core.") for path in markers}
    assert declared == found
