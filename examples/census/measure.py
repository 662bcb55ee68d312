"""One source file, parsed and counted. The result depends on the file's content and on nothing else."""

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
#: Up to Python 3.12, to parse beside other threads can fail with SystemError for no reason
#: (https://github.com/python/cpython/issues/106905).
ATTEMPTS = 20


class Facts(TypedDict):
    """What the census knows about a file."""

    lines: int
    functions: int
    classes: int
    branches: int
    documentable: int  #: the module, its classes and functions
    documented: int  #: those with a docstring
    imports: list[str]  #: first parts of absolute imports, sorted


def measure(path: Path) -> Facts:
    """Parse a file and count. What no longer parses, such as Python 2 test data, counts its lines only."""
    source = path.read_bytes()
    with collector_off():
        return counted(source)


def counted(source: bytes) -> Facts:
    """What the text of a file says."""
    nodes: dict[type[ast.AST], list[Any]] = {}
    for node in ast.walk(parsed(source)):
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
    """A block whose objects have no cycles. To look for these in a syntax tree takes longer than to parse it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def of_kinds(nodes: Mapping[type[ast.AST], Sequence[Any]], kinds: Iterable[type[ast.AST]]) -> list[Any]:
    """Those nodes of a tree that are of these kinds."""
    return [node for kind in kinds for node in nodes.get(kind, ())]


def parsed(source: bytes) -> ast.Module:
    """The syntax tree; an empty one for what is not Python as this interpreter knows it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # escapes that were fine when the file was written
        for _ in range(ATTEMPTS):
            try:
                return ast.parse(source)
            except SystemError:
                continue
            except (SyntaxError, ValueError, RecursionError):
                break
    return ast.Module([], [])


def imports_of(node: ast.Import | ast.ImportFrom) -> list[str]:
    """The top-level packages that an import statement names; a relative one names none."""
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    return [node.module.partition(".")[0]] if node.module and not node.level else []
