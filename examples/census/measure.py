"""One source file, parsed and counted. The result depends on the file's content and on nothing else."""

from __future__ import annotations

import ast
import warnings
from pathlib import Path
from typing import TypedDict

BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.comprehension, ast.match_case)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DOCUMENTED = (ast.Module, ast.ClassDef, *FUNCTIONS)
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
    tree = parsed(source)
    nodes = list(ast.walk(tree))
    documentable = [node for node in nodes if isinstance(node, DOCUMENTED)]
    return Facts(
        lines=source.count(b"\n") + (not source.endswith(b"\n") and bool(source)),
        functions=sum(isinstance(node, FUNCTIONS) for node in nodes),
        classes=sum(isinstance(node, ast.ClassDef) for node in nodes),
        branches=sum(map(branches_of, nodes)),
        documentable=len(documentable),
        documented=sum(ast.get_docstring(node, clean=False) is not None for node in documentable),
        imports=sorted({name for node in nodes for name in imports_of(node)}),
    )


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


def branches_of(node: ast.AST) -> int:
    """How many ways a node adds to those through its function."""
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    return int(isinstance(node, BRANCHES))


def imports_of(node: ast.AST) -> list[str]:
    """The top-level packages that an import statement names; a relative one names none."""
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and not node.level and node.module:
        return [node.module.partition(".")[0]]
    return []
