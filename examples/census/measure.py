"""Parse and measure one source file. Only the file's content decides the result."""

from __future__ import annotations

import ast
import gc
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.comprehension, ast.match_case)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DOCUMENTED = (ast.Module, ast.ClassDef, *FUNCTIONS)
IMPORTS = (ast.Import, ast.ImportFrom)
#: Up to Python 3.12, parsing while other threads run can fail with SystemError without a cause
#: (https://github.com/python/cpython/issues/106905).
ATTEMPTS = 20


class Facts(TypedDict):
    """The measurements of a file."""

    lines: int
    functions: int
    classes: int
    branches: int
    documentable: int  #: the module, its classes and functions
    documented: int  #: those with a docstring
    imports: list[str]  #: first parts of absolute imports, sorted


def measure(path: Path) -> Facts:
    """Parse a file and count. Of a file that cannot be parsed, such as Python 2, only lines count."""
    source = path.read_bytes()
    with collector_off():
        return count(source)


def count(source: bytes) -> Facts:
    """Return the measurements of a source text."""
    nodes: dict[type[ast.AST], list[Any]] = {}
    for node in ast.walk(parse(source)):
        nodes.setdefault(type(node), []).append(node)
    documentable, choices = of_kinds(nodes, DOCUMENTED), of_kinds(nodes, [ast.BoolOp])
    return Facts(
        lines=source.count(b"\n") + (not source.endswith(b"\n") and bool(source)),
        functions=len(of_kinds(nodes, FUNCTIONS)),
        classes=len(of_kinds(nodes, [ast.ClassDef])),
        branches=len(of_kinds(nodes, BRANCHES)) + sum(len(node.values) - 1 for node in choices),
        documentable=len(documentable),
        documented=sum(ast.get_docstring(node, clean=False) is not None for node in documentable),
        imports=sorted({name for node in of_kinds(nodes, IMPORTS) for name in imports_of(node)}),
    )


@contextmanager
def collector_off() -> Iterator[None]:
    """Disable the garbage collector in a block: to search a syntax tree for cycles takes longer than to parse it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def of_kinds(nodes: Mapping[type[ast.AST], Sequence[Any]], kinds: Iterable[type[ast.AST]]) -> list[Any]:
    """Return the nodes of these types."""
    return [node for kind in kinds for node in nodes.get(kind, ())]


def parse(source: bytes) -> ast.Module:
    """Return the syntax tree; an empty one if this interpreter cannot parse the source."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # escapes that older versions of Python accepted
        for _ in range(ATTEMPTS):
            try:
                return ast.parse(source)
            except SystemError:
                continue
            except (SyntaxError, ValueError, RecursionError):
                break
    return ast.Module([], [])


def imports_of(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Return the top-level packages that an import statement names; a relative one names none."""
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    return [node.module.partition(".")[0]] if node.module and not node.level else []
