"""What the futures of a distributed client stand for, so that graphs built on them have fingerprints."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from typing import Any
from weakref import WeakKeyDictionary

_lock = threading.Lock()
_terms: WeakKeyDictionary[Any, dict[Any, bytes]] = WeakKeyDictionary()


class Held:
    """The futures that a client has while a graph is looked at and submitted.

    Those whose keys are in the graph are kept alive meanwhile: were one released in between, Dask would
    run the graph's own task under a key that we take for the earlier one.
    """

    def __init__(self, client: Any, graph: Collection[Any]) -> None:
        self.terms: dict[Any, bytes | None] = {}  #: None where nobody knows what was submitted
        self._alive: list[Any] = []
        if client is not None:
            self._take(client, graph)

    def _take(self, client: Any, graph: Collection[Any]) -> None:
        from distributed import Future

        with client._refcount_lock:  # noqa: SLF001  as `submit` does, for the same question
            held = list(client.futures)
            self._alive += [Future(key, client) for key in held if key in graph]
        with _lock:
            # Scattered data and futures from elsewhere are unknown: a key says nothing of their content.
            known = _terms.get(client, {})
            self.terms = {key: known.get(key) for key in held}


def remember(client: Any, keys: Collection[Any], terms: Mapping[Any, bytes]) -> None:
    """Note what was submitted under these keys."""
    if client is None:
        return
    with _lock:
        known = _terms.setdefault(client, {})
        for key in [key for key in known if key not in client.futures]:
            del known[key]
        known.update({key: terms[key] for key in keys if key in terms})
