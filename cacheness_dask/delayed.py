"""Delayed values that a function or another argument refers to: their keys are new in every process.

Importing this module tells the core's encoder what they stand for: a delayed function for what it
calls, any other delayed value for its graph.
"""

from __future__ import annotations

from typing import Any

from dask.delayed import Delayed, DelayedLeaf

from cacheness.errors import UnhashableArgument
from cacheness.keys import register
from cacheness_dask.fingerprint import fingerprints
from cacheness_dask.graphs import materialised


def _of_leaf(value: DelayedLeaf) -> list[Any]:
    return [value._obj, value._length]  # noqa: SLF001  Dask has no public name for them


def _of_graph(value: Delayed) -> list[Any]:
    graph, _ = materialised(value.dask)
    found = fingerprints(graph, [value.key])
    if value.key in found.refused:
        raise UnhashableArgument(f"a delayed value has no fingerprint: {found.refused[value.key]}")
    return [found.terms[value.key], value._length]  # noqa: SLF001


register(DelayedLeaf, _of_leaf)
register(Delayed, _of_graph)
