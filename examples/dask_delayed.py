# /// script
# requires-python = ">=3.11"
# dependencies = ["dask[array,dataframe]>=2026.8", "distributed>=2026.8"]
# ///
"""Cache delayed functions: run it twice, and the second run reads and counts nothing.

    python examples/dask_delayed.py [folder]

The input is modules of Python's standard library. The folder holds the cache and the picture.
"""

from __future__ import annotations

import argparse as _argparse
import ast as _ast
import dataclasses as _dataclasses
import inspect as _inspect
import keyword
import sys
import tokenize
import typing as _typing
from collections import Counter
from pathlib import Path
from types import ModuleType

import dask
from rich import print as show

import cacheness_dask as cd
from cacheness import UnifiedCache

MODULES: list[ModuleType] = [_argparse, _dataclasses, _inspect, _typing]


@dask.delayed
def names_in(path: str) -> Counter[str]:
    """Count each name that a module uses. The path counts by the file's content."""
    print(f"  parsing {Path(path).name}\n", end="")  # one write, because several threads print
    with tokenize.open(path) as source:
        words = (token.string for token in tokenize.generate_tokens(source.readline) if token.type == tokenize.NAME)
        return Counter(word for word in words if not keyword.iskeyword(word))


@dask.delayed
def merged(counts: list[Counter[str]]) -> Counter[str]:
    """Return the sum of all counts."""
    return sum(counts, Counter())


@dask.delayed
def most_common(counts: Counter[str], most: int) -> list[tuple[str, int]]:
    """Return the most common names."""
    return counts.most_common(most)


def main(folder: Path) -> None:
    """Count, count again, then compute another result from the same counts."""
    cache = UnifiedCache(cache_dir=folder / "cache")
    everything = merged([names_in(str(module.__file__)) for module in MODULES])
    with cd.caching(cache, which="all", scheduler="threads") as run:
        for most in (3, 3, 5):
            print(f"the {most} most common names:")
            print(" ", most_common(everything, most).compute())
        show(run)
        # With one more module, its parsing and the merging would run; the rest would be loaded.
        more = merged([names_in(str(module.__file__)) for module in [*MODULES, _ast]])
        cd.visualize(most_common(more, 5), folder / "graph.svg")
        print(cd.explain(most_common(more, 5)))
    print("the picture is", folder / "graph.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "dask-example"))
