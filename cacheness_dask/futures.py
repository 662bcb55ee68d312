"""Track what the futures of a distributed client represent, so that graphs with futures have fingerprints."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping
from typing import Any
from weakref import WeakKeyDictionary

_lock = threading.RLock()
#: By client and key: the state that all futures of that key share while one lives, and what was submitted.
_known: WeakKeyDictionary[Any, dict[Any, tuple[Any, bytes]]] = WeakKeyDictionary()
#: A new lock in a child, because a thread of the parent may hold the old one.
os.register_at_fork(after_in_child=_lock._at_fork_reinit)  # type: ignore[attr-defined]  # noqa: SLF001


class KeptFutures:
    """The futures of a client while a graph is examined and submitted.

    Those whose keys are in the graph are kept alive during this: if one were released in between,
    Dask would run the graph's own task under a key that we take for the earlier one.
    """

    def __init__(self, client: Any, graph: Collection[Any]) -> None:
        self.terms: dict[Any, bytes | None] = {}  #: None if the submitted task is unknown
        self.states: list[Any] = []  #: of the futures under which the graph is submitted
        self._client = client
        self._alive: list[Any] = []
        if client is not None:
            self._take(graph)

    def _take(self, graph: Collection[Any]) -> None:
        from distributed import Future

        client = self._client
        with client._refcount_lock:  # noqa: SLF001  as `submit` does, for the same question
            held = dict(client.futures)
            self._alive += [Future(key, client) for key in held if key in graph]
        with _lock:
            known = _known.get(client, {})
            self.terms = {key: _term(known.get(key), state) for key, state in held.items()}

    def submits(self, keys: Collection[Any], terms: Mapping[Any, bytes]) -> None:
        """Record what is about to be submitted under these keys; `states` has the states of their futures."""
        from distributed import Future

        client = self._client
        if client is None:
            return
        with client._refcount_lock, _lock:  # noqa: SLF001
            # Here already, so that we get the same state as their futures.
            self._alive += [Future(key, client) for key in keys]
            known = _known.setdefault(client, {})
            for key in [key for key, (state, _) in known.items() if client.futures.get(key) is not state]:
                del known[key]
            self.states = [client.futures[key] for key in keys]
            known.update({key: (client.futures[key], terms[key]) for key in keys if key in terms})


def _term(known: tuple[Any, bytes] | None, state: Any) -> bytes | None:
    # Scattered data and futures from elsewhere are unknown: a key does not identify their content.
    # The same is true if all our futures of that key are gone, and others were created later.
    return known[1] if known is not None and known[0] is state else None
