"""What the futures of a distributed client stand for, so that graphs built on them have fingerprints."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping
from typing import Any
from weakref import WeakKeyDictionary

_lock = threading.RLock()
#: By client and key: the state that all futures of that key share while one lives, and what was submitted.
_known: WeakKeyDictionary[Any, dict[Any, tuple[Any, bytes]]] = WeakKeyDictionary()
#: No thread of the parent holds it in a child.
os.register_at_fork(after_in_child=_lock._at_fork_reinit)  # type: ignore[attr-defined]  # noqa: SLF001


class KeptFutures:
    """The futures that a client has while a graph is looked at and submitted.

    Those whose keys are in the graph are kept alive meanwhile: were one released in between, Dask would
    run the graph's own task under a key that we take for the earlier one.
    """

    def __init__(self, client: Any, graph: Collection[Any]) -> None:
        self.terms: dict[Any, bytes | None] = {}  #: None where nobody knows what was submitted
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
        """Note what is about to be submitted under these keys."""
        from distributed import Future

        client = self._client
        if client is None:
            return
        with client._refcount_lock, _lock:  # noqa: SLF001
            # Here already, so that we see the state that is theirs: their futures will find it.
            self._alive += [Future(key, client) for key in keys]
            known = _known.setdefault(client, {})
            for key in [key for key, (state, _) in known.items() if client.futures.get(key) is not state]:
                del known[key]
            known.update({key: (client.futures[key], terms[key]) for key in keys if key in terms})


def _term(known: tuple[Any, bytes] | None, state: Any) -> bytes | None:
    # Scattered data and futures from elsewhere are unknown: a key says nothing of their content. Neither does
    # it when all our futures of that key are gone, and somebody else's came after them.
    return known[1] if known is not None and known[0] is state else None
