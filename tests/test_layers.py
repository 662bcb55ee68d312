"""Imports point downwards. This is the picture of the house; a short cut fails here."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

#: What the plug-ins may use of the core; what is meant for users is in `cacheness` and `cacheness.keys`.
PUBLIC = {
    "__init__",
    "audit",
    "bodies",
    "keys",
    "errors",
    "records",
    "references",
    "incomplete",
    "isolation",
    "jitter",
    "logs",
    "modes",
    "off_loop",
    "options",
    "telemetry",
    "units",
}
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
    folder = ROOT / "core/cacheness" / name
    return name if name and (folder.is_dir() or folder.with_suffix(".py").is_file()) else "__init__"


@pytest.mark.slow
def test_imports_point_downwards() -> None:
    # The contracts are in pyproject.toml.
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.parametrize("package", ["cacheness_dask", "cacheness_prefect", "examples"])
def test_plugins_and_examples_use_public_names(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    used = {part_of(module) for path in files for module in modules_imported(path)} - {None}
    assert files
    assert used <= PUBLIC | ({"testing"} if package == "examples" else set())


@pytest.mark.slow
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


def test_every_package_is_in_the_distribution() -> None:
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    markers = [
        *(ROOT / "core").rglob("__init__.py"),
        *(path for plugin in ("cacheness_dask", "cacheness_prefect") for path in (ROOT / plugin).rglob("__init__.py")),
    ]
    found = {".".join(path.relative_to(ROOT).parent.parts).removeprefix("core.") for path in markers}
    assert declared == found
