"""Check the files that a task names where the task runs, before and after it.

A worker may have another working directory, or be on another machine, where a name means another file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

from dask._task_spec import Task, _execute_subgraph

from cacheness.keys import Inputs
from cacheness.keys.code.writers import Effects, effects_of, unwrapped, writes_to
from cacheness.keys.inputs import Counted
from cacheness.keys.outcome import Observed, place_of
from cacheness.keys.values.files import known_of, take_over
from cacheness_dask.prints import Fingerprints, Names


@dataclass(frozen=True, slots=True)
class Files:
    """The data about a task's files from planning: small, and valid wherever the task runs."""

    found: tuple[tuple[str, Counted], ...]  #: with the place, which is as relative as the name
    groups: tuple[Names, ...]  #: of these, those that count together
    absent: tuple[tuple[str, str], ...]
    folders: tuple[str, ...]
    written: frozenset[str]  #: names that the task's code passes to code that writes
    texts: dict[Names, bytes]  #: the task's fingerprints with some of its files by their names
    writes: bool  #: the task's code writes files
    unseen: str  #: how the task's code writes a file that only the code names, invisibly to hooks
    known: dict[str, Any]  #: so that the same file is not read again

    def observed(self) -> tuple[Observed, dict[str, str]]:
        """Return the observer for a task that is about to run, and what is wrong with its files.

        A task may always append to files.
        """
        take_over(self.known)
        groups = {str(number): Inputs() for number, _ in enumerate(self.groups)}
        group_of = {name: str(number) for number, names in enumerate(self.groups) for name in names}
        others = Inputs(folders=list(self.folders))
        trouble: dict[str, str] = {}
        for at, counted in self.found:
            here = replace(counted, path=os.path.abspath(at))
            groups.get(group_of.get(counted.name, ""), others).found[counted.name] = here
            if not here.is_same():
                trouble[here.path] = f"{counted.name} is not, where the task runs, what it was when it was planned"
        for name, at in self.absent:
            others.absent[name] = os.path.abspath(at)
            if os.path.lexists(at):
                trouble[os.path.abspath(at)] = f"{name} was made after the graph was planned"
        return Observed({**groups, "": others}, written=self.written), trouble

    def text_of(self, as_text: Collection[str]) -> bytes | None:
        """Return the fingerprint of a result for which these groups were written; None if there is none."""
        names = frozenset[str]().union(*(self.groups[int(group)] for group in as_text if group))
        return self.texts.get(names)


def files_of(prints: Fingerprints, key: Any, node: Any) -> Files:
    """Return the files that a task names, for its place. The client checks remote files again."""
    inputs = prints.inputs.get(key) or Inputs()
    local = [counted for counted in inputs.found.values() if counted.path]
    effects = list(_effects(node))
    return Files(
        tuple((place_of(counted.name, counted.path), counted) for counted in local),
        tuple(prints.groups.get(key, ())),
        tuple((name, place_of(name, path)) for name, path in inputs.absent.items()),
        tuple(inputs.folders),
        frozenset(_written(node.func, node.args, node.kwargs) if isinstance(node, Task) else ()),
        prints.texts.get(key, {}),
        any(one.writes for one in effects),
        next((one.unseen for one in effects if one.unseen), ""),
        known_of(counted.path for counted in local),
    )


def is_writer(node: Any) -> bool:
    """Return True when the code of a task, or of a step of a fused one, writes files."""
    return any(effects.writes for effects in _effects(node))


def _effects(node: Any) -> Iterator[Effects]:
    if not isinstance(node, Task):
        return
    if node.func is _execute_subgraph:
        for step in node.args[0].values():
            yield from _effects(step)
    else:
        yield effects_of(node.func, (*node.args, *node.kwargs.values()))


class WritingTasks:
    """Like `is_writer`, but for the many tasks of a graph: once per function and types of arguments."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], bool] = {}  # the graph keeps the functions alive

    def holds(self, node: Any) -> bool:
        """Return True when the code of a task, or of a step of a fused one, writes files."""
        if type(node) is not Task or node.func is _execute_subgraph:
            return is_writer(node)
        given = (id(node.func), *map(type, node.args), *map(type, node.kwargs.values()))
        found = self._known.get(given)
        if found is None:
            found = self._known[given] = is_writer(node)
        return found


def _written(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    """Return the names among a task's arguments that its code passes to code that writes."""
    code = getattr(unwrapped(func), "__code__", None)
    if code is None:
        return []
    given = {**dict(zip(code.co_varnames, args, strict=False)), **kwargs}
    handed = writes_to(func)
    return [
        os.fspath(value) for name, value in given.items() if name in handed and isinstance(value, str | os.PathLike)
    ]
