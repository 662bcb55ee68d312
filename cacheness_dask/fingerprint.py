"""Compute Merkle fingerprints of a materialised graph: what each task computes, independent of its key.

Dask's own keys and tokens cannot be used: they differ between interpreters, and they collide. A
fingerprint is BLAKE3 over the function's fingerprint, the literal arguments in the core's canonical
encoding, and the fingerprints of the dependencies. Each value becomes a *term* (`encoding.py`).

A literal and a data node with the same value have the same term, and so have a task and the same
task inside of a fused one, because fusion depends on the hash seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from dask._task_spec import (
    GraphNode,
)

from cacheness_dask.prints import Fingerprints, Names
from cacheness_dask.sources_and_sinks import (
    guard_nested,
    noting_files,
)
from cacheness_dask.walk import Walk


def fingerprints(
    graph: Mapping[Any, GraphNode],
    keys: Iterable[Any],
    futures: Mapping[Any, bytes | None] | None = None,
    as_text: Mapping[Any, Names] = MappingProxyType({}),
    *,
    refuse_incomplete: bool = False,
    instead: Mapping[bytes, bytes] = MappingProxyType({}),
    standing: Mapping[Any, bytes] = MappingProxyType({}),
) -> Fingerprints:
    """Fingerprint every node that `keys` need.

    `futures` are the keys that a client already holds, with the term of the submitted task, or None
    if it is unknown. Dask uses their results, whatever this graph contains for them. `as_text` has
    for some tasks the files that count by their names, because these tasks wrote them. `instead`
    has for some functions' digests those of earlier code, which count in their place; `standing`
    has for some tasks the fingerprints of results that stand in for theirs, so that later tasks are
    made from these.
    """
    guard_nested()
    with noting_files() as files:
        walk = Walk(graph, futures or {}, as_text, refuse_incomplete, instead)
        found = walk.run(list(keys), standing)
    found.files = files
    return found
