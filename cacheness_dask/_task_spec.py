"""Run the user's functions: errors pass through these frames only.

Dask hides frames of files that are called `dask/_task_spec.py`, in the client's process and in the
log of a worker. It has no other way to hide a frame, except a configuration that belongs to the
user.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from dask._task_spec import GraphNode, execute_graph

from cacheness.errors import CachenessError

#: How often a computation restarts because entries were deleted during it, before it runs without hits.
_ATTEMPTS: Final = 3


class EntryVanished(CachenessError):
    """An entry was deleted after the look-up, and too many tasks would be needed to recompute it."""


class Calling:
    """A task's function, with hooks before and after it."""

    __slots__ = ("_name", "_store", "func")

    def __init__(self, func: Callable[..., Any], store: Any, name: str) -> None:
        self.func, self._store, self._name = func, store, name

    @property
    def __name__(self) -> str:
        return self._name

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return self.func

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the result of the task's own function."""
        around = self._before(args, kwargs)
        found = self._instead(around)
        if found is not None:
            return found[0]
        with around:
            value = self.func(*args, **kwargs)
        self._after(around, value)
        return value

    @abstractmethod
    def _before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AbstractContextManager[Any]:
        """Return a context manager that is open while the function runs."""

    def _instead(self, around: Any) -> tuple[Any] | None:
        """Return a value instead of the function's; None to run it."""
        return None

    @abstractmethod
    def _after(self, around: Any, value: Any) -> None:
        """Process the function's result."""


@dataclass(frozen=True, slots=True)
class Fallback:
    """The tasks that make a result, in case its entry was deleted."""

    tasks: dict[Any, GraphNode]
    key: Any

    def compute(self) -> Any:
        """Run them here, one after the other."""
        return execute_graph(dict(self.tasks), keys={self.key})[self.key]


#: Return a tuple of a value that was read, or how to compute it.
Found: TypeAlias = tuple[Any] | Fallback


class Loading:
    """A result that is read, or otherwise computed."""

    __slots__ = ()

    def __call__(self) -> Any:
        """Return the value."""
        found = self.found()
        return found.compute() if isinstance(found, Fallback) else found[0]

    @abstractmethod
    def found(self) -> Found:
        """Return the value that was read, or how to compute it."""


class Consuming:
    """A task with its small input results, which are read together where it runs, and passed to it.

    Args:
        node: the task.
        given: the keys of its inputs, in order.
    """

    __slots__ = ("_given", "_node")

    def __init__(self, node: GraphNode, given: tuple[Any, ...]) -> None:
        self._node, self._given = node, given

    def __call__(self, *values: Any) -> Any:
        """Return the task's result."""
        scope = dict(zip(self._given, values, strict=True))
        for key, found in self._read().items():
            scope[key] = found.compute() if isinstance(found, Fallback) else found[0]
        return self._node(scope)

    @abstractmethod
    def _read(self) -> Mapping[Any, Found]:
        """Return what was read, by key."""


class Scheduling:
    """A scheduler that decides what another scheduler runs."""

    beneath: Callable[..., Any]

    def __call__(self, dsk: Any, keys: Any, **kwargs: Any) -> Any:
        """Compute the keys of a graph or expression; return the values, nested like the keys."""
        for _ in range(_ATTEMPTS):
            plan = self._decided(dsk, keys)
            if plan is None:
                break
            try:
                with self._aside():
                    values = self.beneath(self._shipped(plan, dsk), keys, **kwargs)
            except EntryVanished as error:
                self._failed(plan)
                del plan
                self._let_go(error, keys)
                continue
            except BaseException:
                self._failed(plan)
                raise
            self._done(plan)
            return values
        with self._aside():
            return self.beneath(dsk, keys, **kwargs)

    @abstractmethod
    def _aside(self) -> AbstractContextManager[None]:
        """Return a block in which graphs of the other scheduler are not decided about again."""

    @abstractmethod
    def _decided(self, dsk: Any, keys: Any) -> Any:
        """Return what is to run; None if no decision was possible."""

    @abstractmethod
    def _shipped(self, plan: Any, dsk: Any) -> Any:
        """Return the same, in the form for the scheduler."""

    @abstractmethod
    def _done(self, plan: Any) -> None:
        """Handle the computed results."""

    @abstractmethod
    def _failed(self, plan: Any) -> None:
        """Record that the graph has ended without results."""

    @abstractmethod
    def _let_go(self, error: EntryVanished, keys: Any) -> None:
        """Prepare to start again."""
