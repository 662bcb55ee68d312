"""Parameters of a library's functions and classes by its source text, where the library is not loaded.

A key must not import a library that the user's code has not imported, and must be the same before and after
the code imports it.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import os
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any, Final

from cacheness.keys.error_paths import FAILURES
from cacheness.keys.values.attributes import ABSENT

#: Modules that a name is followed through, from where it is imported to where it is defined.
_FURTHEST: Final = 6
#: Source files of more characters are not read.
_LONGEST: Final = 2_000_000
#: Up to Python 3.12 a parser beside those of other threads can fail with SystemError for no reason
#: (https://github.com/python/cpython/issues/106905).
_ATTEMPTS: Final = 20


class FunctionParameters(dict[str, Any]):
    """Parameters in order, those that are given by keyword only at the end, each with its default or ABSENT."""

    def __init__(self, defaults: dict[str, Any], positional: int) -> None:
        super().__init__(defaults)
        self.positional = positional  #: how many can be given by their place

    def bound(self) -> FunctionParameters:
        """The same without the first."""
        return FunctionParameters(dict(list(self.items())[1:]), max(self.positional - 1, 0))


_NONE: Final = FunctionParameters({}, 0)


@functools.cache
def parameters_in_source(path: str) -> FunctionParameters:
    """The parameters of what a dotted name leads to, with their constant defaults. None when it is not found."""
    try:
        module, rest = _module_of(path)
        return _parameters(module, rest[0], _FURTHEST) if len(rest) == 1 else _NONE
    except FAILURES:
        return _NONE


def _module_of(path: str) -> tuple[str, list[str]]:
    """The longest beginning of a dotted name that is a module, and what follows."""
    parts = path.split(".")
    for count in range(len(parts) - 1, 0, -1):
        if _file_of(".".join(parts[:count])):
            return ".".join(parts[:count]), parts[count:]
    return "", parts


def source_file_of(module: str) -> str:
    """The source file of a module; "" when it has none. Imports nothing."""
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
    """Modules that a name may come from, and what it is called there."""
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
