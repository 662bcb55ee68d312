"""Encode delayed values and other collections in functions or arguments: their keys are new in every process.

Importing this module registers encodings for keys: a delayed function counts as the function that
it calls, any other collection by its graph and its metadata.
"""

from __future__ import annotations

from typing import Any, Final

from dask.base import DaskMethodsMixin
from dask.core import flatten
from dask.delayed import Delayed, DelayedLeaf

from cacheness.errors import UnhashableArgument
from cacheness.keys import register
from cacheness_dask.fingerprint import fingerprints
from cacheness_dask.graphs import materialised


def _of_leaf(value: DelayedLeaf) -> list[Any]:
    return [value._obj, value._length]  # noqa: SLF001  Dask has no public name for them


def _of_delayed(value: Delayed) -> list[Any]:
    return [*_terms_of(value, [value.key]), value._length]  # noqa: SLF001


def _of_collection(value: Any) -> list[Any]:
    seen = [getattr(value, name, None) for name in ("chunks", "divisions", "npartitions", "_meta")]
    return [_terms_of(value, list(flatten(value.__dask_keys__()))), *seen]


def _terms_of(value: Any, keys: list[Any]) -> list[bytes]:
    graph, _ = materialised(value.__dask_graph__())
    found = fingerprints(graph, keys)
    for key in keys:
        if key in found.refused:
            raise UnhashableArgument(f"{_WHAT[isinstance(value, Delayed)]} has no fingerprint: {found.refused[key]}")
    return [found.terms[key] for key in keys]


_WHAT: Final = ("a collection", "a delayed value")

register(DelayedLeaf, _of_leaf)
register(Delayed, _of_delayed)
register(DaskMethodsMixin, _of_collection)
