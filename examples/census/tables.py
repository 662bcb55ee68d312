"""Make an Arrow table per distribution, with a row per file, and a summary of all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from examples.census.measure import Facts

COUNTS = ("lines", "functions", "classes", "branches", "documentable", "documented")
SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        *((name, pa.int64()) for name in COUNTS),
        ("complexity", pa.float64()),
        ("imports", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True, slots=True)
class Summary:
    """One line of the report."""

    name: str
    files: int
    lines: int
    functions: int
    branches: int
    complexity: float
    documented: float  #: share of modules, classes and functions with a docstring, 0 to 1


def tabulate(names: Sequence[str], facts: Sequence[Facts]) -> pa.Table:
    """Return the facts of a distribution's files as a table."""
    rows = [
        {"file": name, "complexity": complexity(fact["functions"], fact["branches"]), **fact}
        for name, fact in zip(names, facts, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def complexity(functions: int, branches: int) -> float:
    """Return the number of paths through an average function: one, and one more for each branch."""
    return (functions + branches) / max(functions, 1)


def summarise(name: str, table: pa.Table) -> Summary:
    """Return a distribution as one line of the report."""
    total = {column: pc.sum(table[column]).as_py() or 0 for column in COUNTS}
    weighted = pc.sum(pc.multiply(table["complexity"], table["functions"])).as_py() or 0.0
    return Summary(
        name=name,
        files=table.num_rows,
        lines=total["lines"],
        functions=total["functions"],
        branches=total["branches"],
        complexity=weighted / max(total["functions"], 1),
        documented=total["documented"] / max(total["documentable"], 1),
    )


def import_graph(tables: Mapping[str, pa.Table], owners: Mapping[str, str]) -> Counter[tuple[str, str]]:
    """Count for each pair how many files of the first distribution import the second."""
    edges: Counter[tuple[str, str]] = Counter()
    for name, table in tables.items():
        for imports in table["imports"].to_pylist():
            used = {owners[module] for module in imports if module in owners}
            edges.update((name, other) for other in used if other != name)
    return edges
