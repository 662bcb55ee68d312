"""The scheduler that compute() gets in a block: it looks results up, runs the rest on Dask's own, and stores."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final

from dask.core import flatten

from cacheness_dask.beside import shipped
from cacheness_dask.blocks import nocache
from cacheness_dask.graphs import materialised
from cacheness_dask.run import Run
from cacheness_dask.worker import EntryVanished

logger = logging.getLogger("cacheness.dask")

#: How often a computation starts again because entries vanished under it, before it runs without hits.
_ATTEMPTS: Final = 3
#: Seconds that letting go of a failed future may take.
_PATIENCE: Final = 5.0


class CachingScheduler:
    """A scheduler function with a cache before the one that Dask would call."""

    def __init__(self, run: Run, beneath: Callable[..., Any]) -> None:
        self.run, self.beneath = run, beneath
        self._client = _client_of(beneath)
        if self._client is not None:
            # Where `dask.persist` looks for a client: it calls the client's own `persist`, which has its own door.
            self.__self__ = self._client

    def __call__(self, dsk: Any, keys: Any, **kwargs: Any) -> Any:
        """Compute the keys of a graph or expression; the values, nested as the keys are."""
        wanted = list(flatten([keys]))
        for _ in range(_ATTEMPTS):
            graph, annotations = materialised(dsk)
            made = self.run.prepare(graph, wanted, self._client, waits=True)
            del graph
            if made is None:
                break
            try:
                with nocache():
                    values = self.beneath(shipped(made, dsk, annotations, self._client), keys, **kwargs)
            except EntryVanished as error:
                logger.warning("%s It is run again now.", error)
                del made
                _forgotten(self._client, wanted)
                continue
            self.run.done()
            return values
        with nocache():
            return self.beneath(dsk, keys, **kwargs)


def _client_of(scheduler: Callable[..., Any]) -> Any:
    """The distributed client that a scheduler function belongs to, None for a local one."""
    owner = getattr(scheduler, "__self__", None)
    return owner if hasattr(owner, "scheduler_info") else None


def _forgotten(client: Any, keys: list[Any]) -> None:
    """Wait until a client has let go of failed futures: a key that is taken up again before keeps its error."""
    patience = time.monotonic() + _PATIENCE
    wanted = set(keys)
    while client is not None and not wanted.isdisjoint(list(client.futures)) and time.monotonic() < patience:
        time.sleep(0.005)
