"""Read parameters of a library's functions and classes from its source, if it is not loaded.

A key must not import a library that the user's code has not imported, and must be the same before
and after the code imports it.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import os
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from typing import Any, Final

from cacheness.keys.error_paths import FAILURES
from cacheness.keys.values.attributes import ABSENT

#: Modules through which a name is followed, from its import to its definition.
_FURTHEST: Final = 6
#: Source files with more characters are not read.
_LONGEST: Final = 2_000_000
#: Up to Python 3.12, parsing in several threads at once can fail with SystemError
#: (https://github.com/python/cpython/issues/106905).
_ATTEMPTS: Final = 20


class FunctionParameters(dict[str, Any]):
    """Parameters in order, keyword-only ones at the end, each with its default or ABSENT."""

    def __init__(self, defaults: dict[str, Any], positional: int) -> None:
        super().__init__(defaults)
        self.positional = positional  #: how many may be positional

    def bound(self) -> FunctionParameters:
        """Return the same without the first."""
        return FunctionParameters(dict(list(self.items())[1:]), max(self.positional - 1, 0))


_NONE: Final = FunctionParameters({}, 0)


@functools.cache
def parameters_in_source(path: str) -> FunctionParameters:
    """Return the parameters of the object with a dotted name, with constant defaults. None if not found."""
    try:
        module, rest = _module_of(path)
        return _parameters(module, rest[0], _FURTHEST) if len(rest) == 1 else _NONE
    except FAILURES:
        return _NONE


def _module_of(path: str) -> tuple[str, list[str]]:
    """Return the longest prefix of a dotted name that is a module, and the rest."""
    parts = path.split(".")
    for count in range(len(parts) - 1, 0, -1):
        if _file_of(".".join(parts[:count])):
            return ".".join(parts[:count]), parts[count:]
    return "", parts


def source_file_of(module: str) -> str:
    """Return the source file of a module; "" if it has none. Imports nothing."""
    search: list[str] | None = None
    found: ModuleSpec | None = None
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        found = PathFinder.find_spec(name, search)
        if found is None:
            return ""
        search = list(found.submodule_search_locations or ())
    origin = found.origin if found is not None else None
    return origin if origin and origin.endswith(".py") and os.path.isfile(origin) else ""


_file_of: Final = functools.cache(source_file_of)


def is_module(name: str) -> bool:
    """Return True when a dotted name is that of a module. Imports nothing, not even the packages around it."""
    name, *rest = name.split(".")
    found = find_spec(name)
    for part in rest:
        if found is None:
            return False
        name = f"{name}.{part}"
        found = PathFinder.find_spec(name, list(found.submodule_search_locations or ()))
    return found is not None


def _parameters(module: str, name: str, steps: int) -> FunctionParameters:
    tree = _tree_of(module)
    if tree is None or steps == 0:
        return _NONE
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name:
            return _of_arguments(node.args)
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _of_class(node, module, steps)
    for source, original in _imports_of(tree, module, name):
        if found := _parameters(source, original, steps - 1):
            return found
    return _NONE


def _of_class(node: ast.ClassDef, module: str, steps: int) -> FunctionParameters:
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and member.name == "__init__":
            return _of_arguments(member.args).bound()
    for base in node.bases:
        if isinstance(base, ast.Name) and (found := _parameters(module, base.id, steps - 1)):
            return found
    return _NONE


def _imports_of(tree: ast.Module, module: str, name: str) -> Iterator[tuple[str, str]]:
    """Return modules from which a name may come, and its name there."""
    package = module if _file_of(module).endswith("__init__.py") else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        parts = package.split(".")
        source = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])
        source = source if node.level else node.module or ""
        for alias in node.names:
            if alias.name == "*":
                yield source, name
            elif (alias.asname or alias.name) == name:
                yield source, alias.name


@functools.cache
def _tree_of(module: str) -> ast.Module | None:
    file = _file_of(module)
    if not file or os.path.getsize(file) > _LONGEST:
        return None
    with open(file, encoding="utf-8") as stream:
        text = stream.read()
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(SystemError):
            return ast.parse(text)
    return None


def _of_arguments(arguments: ast.arguments) -> FunctionParameters:
    named = [*arguments.posonlyargs, *arguments.args]
    values: list[ast.expr | None] = [None] * (len(named) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(named, values, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    defaults = {a.arg: value.value if isinstance(value, ast.Constant) else ABSENT for a, value in pairs}
    return FunctionParameters(defaults, len(named))
