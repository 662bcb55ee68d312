"""Counts what Dask's own schedulers execute, whatever the cache says of it."""

from __future__ import annotations

from typing import Any

from dask._task_spec import Alias
from dask.callbacks import Callback
from distributed.diagnostics import SchedulerPlugin


class Executed(Callback, SchedulerPlugin):
    """Counts the tasks that a scheduler executes, loads included; a mere other name of a task is none."""

    def __init__(self) -> None:
        super().__init__(pretask=lambda key, graph, state: self.count(graph[key]))
        self.number = 0

    def count(self, node: Any) -> None:
        self.number += not isinstance(node, Alias)

    def watch(self, cluster: Any) -> None:
        """Count on a cluster whose scheduler runs in this process."""
        self.scheduler = cluster.scheduler
        cluster.scheduler.add_plugin(self, name="executed")

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """What the distributed scheduler calls."""
        if (start, finish) == ("processing", "memory"):
            self.count(self.scheduler.tasks[key].run_spec)
