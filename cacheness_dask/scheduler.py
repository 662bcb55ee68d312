"""The scheduler for compute() in a block: it looks results up, runs the rest on Dask's own, and stores."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from dask.core import flatten

from cacheness.logs import logger_of
from cacheness_dask._task_spec import EntryVanished, Scheduling
from cacheness_dask.blocks import nocache
from cacheness_dask.decisions import GraphPlan
from cacheness_dask.graphs import Annotations, materialised
from cacheness_dask.run import Run
from cacheness_dask.ship import shipped

logger = logger_of("cacheness.dask")

#: Seconds that releasing a failed future may take.
_PATIENCE: Final = 5.0


class CachingScheduler(Scheduling):
    """Return a scheduler function that uses a cache and then calls Dask's scheduler."""

    def __init__(self, run: Run, beneath: Callable[..., Any]) -> None:
        self.run, self.beneath = run, beneath
        self._client = _client_of(beneath)
        self._is_pool = getattr(beneath, "__module__", "") == "dask.multiprocessing"
        if self._client is not None:
            # `dask.persist` looks for a client here: it calls the client's own `persist`, which is
            # intercepted separately.
            self.__self__ = self._client

    def _aside(self) -> AbstractContextManager[None]:
        return nocache()

    def _decided(self, dsk: Any, keys: Any) -> tuple[GraphPlan, Annotations] | None:
        graph, annotations = materialised(dsk)
        made = self.run.prepare(graph, _wanted(keys), self._client, waits=True, pool=self._is_pool)
        return None if made is None else (made, annotations)

    def _shipped(self, plan: tuple[GraphPlan, Annotations], dsk: Any) -> Any:
        made, annotations = plan
        return shipped(made, dsk, annotations, self._client)

    def _done(self, plan: tuple[GraphPlan, Annotations]) -> None:
        self.run.done(plan[0])

    def _failed(self, plan: tuple[GraphPlan, Annotations]) -> None:
        self.run.failed(plan[0])

    def _let_go(self, error: EntryVanished, keys: Any) -> None:
        logger.warning("%s. It is run again now", error)
        _forgotten(self._client, _wanted(keys))


def _wanted(keys: Any) -> list[Any]:
    return list(flatten([keys]))


def _client_of(scheduler: Callable[..., Any]) -> Any:
    """Return the distributed client of a scheduler function, None for a local one."""
    owner = getattr(scheduler, "__self__", None)
    return owner if hasattr(owner, "scheduler_info") else None


def _forgotten(client: Any, keys: list[Any]) -> None:
    """Wait until a client has released failed futures; otherwise a key that is used again keeps its error."""
    patience = time.monotonic() + _PATIENCE
    wanted = set(keys)
    while client is not None and not wanted.isdisjoint(list(client.futures)) and time.monotonic() < patience:
        time.sleep(0.005)
