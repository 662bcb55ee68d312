"""Find why a task misses: the part that differs from the nearest entry of the same function."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, TypeAlias

from dask._task_spec import Alias, DataNode, GraphNode, Task, TaskRef, _execute_subgraph
from dask.utils import format_time

from cacheness import Entry, UnifiedCache
from cacheness.keys.inputs import paths_in
from cacheness.records import CODE_CHANGED, MICROSECONDS, NEVER_SEEN, NEW_ARGUMENTS
from cacheness_dask.bound import arguments_that_decide, bound_in, called_in, is_partial
from cacheness_dask.computing import NAMED
from cacheness_dask.decisions import GraphPlan
from cacheness_dask.graphs import last_step, name_of, topological
from cacheness_dask.task_checksums import differences, parts_of_call

#: Comparisons of a task with an entry, for all the tasks of a graph.
_MOST: Final = 100_000
#: Entries that are read for each function, depending on the caller.
_READ_AT_MOST: Final = 1_000
#: Kinds of reasons in a cache's figures, by the beginning of the change.
_KINDS: Final = {
    "code of": CODE_CHANGED,
    "what comes from": "something upstream changed",
    "input": "an input file changed",
    "one of the inputs": "an input file changed",
    "another input": "another input file",
    "an input file": "an input file changed",
}

#: Files of one argument that are named, and parts of it that are checked.
_MOST_PATHS: Final = NAMED
_MOST_MEMBERS: Final = 1_000


#: The name of a part of a task, and its value.
_Part: TypeAlias = tuple[str, Any]


@dataclass(frozen=True, slots=True)
class _EarlierEntry:
    """An entry of the same function."""

    clue: bytes
    created_at: datetime
    files: frozenset[str] | None  #: names of files that counted; None if the entry does not contain them


@dataclass(frozen=True, slots=True)
class _FilesOfArgument:
    """Return the files that the argument names."""

    names: tuple[str, ...]
    argument: str

    def __str__(self) -> str:
        return f"input {self.names[0]}" if len(self.names) == 1 else f"one of the inputs {', '.join(self.names)}"

    def not_of(self, entry: _EarlierEntry | None) -> list[str]:
        """Return those that an earlier entry was not made from, as far as known: it lists only a few."""
        known = entry.files if entry is not None and entry.files else frozenset[str]()
        return [name for name in self.names if name not in known] if 0 < len(known) < NAMED else []


class Reasons:
    """Finds for each miss of a plan what changed, from the checksums of earlier entries."""

    def __init__(
        self, plan: GraphPlan, clues: Mapping[Any, bytes], cache: UnifiedCache, most: int = _READ_AT_MOST
    ) -> None:
        self._plan, self._clues, self._cache = plan, clues, cache
        self._earlier: dict[str, list[_EarlierEntry]] = {}
        self._most = most  #: entries that are read for each function
        self._each = max(1, _MOST // max(1, len(plan.misses)))

    def of(self, key: Any) -> str:
        """Return why the task with this key misses."""
        node = self._plan.graph[key]
        name = name_of(node)
        earlier = self._entries(name)
        if not earlier:
            return f"no earlier entry of `{name}`"
        places, entry = self._nearest(key, earlier)
        what = self._difference(node, places, entry)
        if entry is None or not what:
            return f"no entry {self._plan.misses[key][:12]}…"
        between = " since the entry of " if what.endswith(" changed") else ", "
        return f"{what}{between}{_ago(entry.created_at)}"

    def kind(self, key: Any) -> str:
        """Return why the task with this key misses, in the terms of a cache's figures; "" if unknown."""
        node = self._plan.graph[key]
        earlier = self._entries(name_of(node))
        if not earlier:
            return NEVER_SEEN
        what = self._difference(node, *self._nearest(key, earlier))
        for begins, kind in _KINDS.items():
            if what.startswith(begins):
                return f"{kind}: {name_of(node)}" if kind == CODE_CHANGED else kind
        return NEW_ARGUMENTS if what else ""

    def _entries(self, name: str) -> list[_EarlierEntry]:
        """Return entries of a function, newest first."""
        known = self._earlier.get(name)
        if known is None:
            clued = [
                _EarlierEntry(bytes.fromhex(about["clue"]), _time_of(entry), _names(about.get("files")))
                for entry in self._cache.iter_entries(function=name, limit=self._most)
                if "clue" in (about := json.loads(entry.provenance))
            ]
            known = sorted(clued, key=lambda entry: entry.created_at, reverse=True)[: self._each]
            self._earlier[name] = known
        return known

    def _nearest(self, key: Any, earlier: list[_EarlierEntry]) -> tuple[list[int], _EarlierEntry | None]:
        """Return the difference from the entry that differs least."""
        mine = self._clues.get(key, b"")
        files = self._plan.decisions.files.get(key)
        names = frozenset() if files is None else frozenset(counted.name for _, counted in files.found)
        nearest: tuple[list[int], _EarlierEntry | None] = ([], None)
        least = (0, 0)
        for entry in earlier:
            found = differences(mine, entry.clue)
            distance = (len(found or ()), len(names - entry.files) if entry.files else 0)
            if found and (nearest[1] is None or distance < least):
                nearest, least = (found, entry), distance
        return nearest

    def _difference(self, node: GraphNode, places: list[int], entry: _EarlierEntry | None) -> str:
        upstream: list[Any] = []
        changed: list[Any] = []
        for place in places:
            source, what = self._part(node, place) if isinstance(node, Task) else (None, "")
            (changed if source is None else upstream).append(what)
        # An upstream task has its own row with its reason.
        differences = list(dict.fromkeys(filter(None, changed)))
        if not differences:
            return f"what comes from {upstream[0]} changed" if upstream else ""
        others = [name for what in differences if isinstance(what, _FilesOfArgument) for name in what.not_of(entry)]
        same = [str(what) for what in differences if not (isinstance(what, _FilesOfArgument) and what.not_of(entry))]
        sentences = [f"{', '.join(same)} changed"] if same else []
        if others and entry is not None:
            known = ", ".join(sorted(entry.files or ()))
            sentences.append(f"another input: {', '.join(others)}, where the nearest entry had {known}")
        return ", and ".join(sentences)

    def _part(self, node: Task, place: int) -> tuple[Any, str | _FilesOfArgument]:
        """Return the upstream task that causes a change, None if it is here; and its name."""
        if node.func is not _execute_subgraph:
            return self._argument(node, place)
        steps = list(_steps(node))
        if place == 2 * len(steps):
            return self._given(node, "what it is given")
        step = steps[place // 2]
        return None, _inputs_of(step) if place % 2 else _code_of(step)

    def _argument(self, node: Task, place: int) -> tuple[Any, str | _FilesOfArgument]:
        last = last_step(node)
        node = last if isinstance(last, Task) else node
        called, at = called_in(node)
        name, (args, kwargs) = name_of(node), arguments_that_decide(node)
        # If another function is called, this one is Dask's.
        whole: list[_Part] = [(f"code of `{getattr(node.func, '__name__', 'Dask')}`", None)]
        whole += [(f"argument {at}", value) for at, value in enumerate(args, 1)]
        whole += [(f"argument `{keyword}`", value) for keyword, value in kwargs.items()]
        whole[at] = code = _code_of(node), None
        bound: list[_Part] = [(f"{what} `{name}`", value) for what, value in bound_in(called)]
        parts = parts_of_call(whole, at, [code, *bound] if bound else None)
        return self._given(*reversed(parts[place])) if place < len(parts) else (None, "an input file")

    def _given(self, value: Any, name: str) -> tuple[Any, str | _FilesOfArgument]:
        if value is None:
            return None, name
        needs = _needs(value)
        for key in map(self._task_of, needs):
            if key in self._plan.misses or key in self._plan.refused:
                return key, f"`{name_of(self._plan.graph[key])}` {key!r}"
        if paths := tuple(islice(_paths(value), _MOST_PATHS)):
            return None, _FilesOfArgument(paths, name)
        return None, f"code of `{value.__qualname__}`" if hasattr(value, "__qualname__") and not needs else name

    def _task_of(self, key: Any) -> Any:
        """Return the key of the task that others know by this key, too."""
        while isinstance(node := self._plan.graph.get(key), Alias):
            key = node.target
        return key


def _code_of(node: GraphNode) -> str:
    """Return a name for the function of a task when it has changed."""
    last = last_step(node)
    called: Any = called_in(last)[0] if isinstance(last, Task) else last
    while is_partial(called):
        called = called.func
    name = name_of(node)
    return f"code of `{name}`" if hasattr(called, "__qualname__") else f"`{name}` (its code, or what it holds)"


def _time_of(entry: Entry) -> datetime:
    return datetime.fromtimestamp(entry.created_at / MICROSECONDS, UTC)


def _names(listed: Any) -> frozenset[str] | None:
    return None if listed is None else frozenset(map(str, listed))


def _steps(node: GraphNode) -> Iterator[GraphNode]:
    """Return the parts of a fused task, in the order of its checksums."""
    if not isinstance(node, Task) or node.func is not _execute_subgraph:
        yield node
        return
    inner, out = node.args[:2]
    for key in topological(inner, [out]):
        yield from _steps(inner[key])


def _needs(value: Any) -> list[Any]:
    if isinstance(value, TaskRef):
        return [value.key]
    return sorted(value.dependencies, key=str) if isinstance(value, GraphNode) else []


def _inputs_of(step: GraphNode) -> str | _FilesOfArgument:
    """Return the files among the arguments of a step, or otherwise its arguments."""
    name = f"arguments of `{name_of(step)}`"
    paths = tuple(islice(_paths(step), _MOST_PATHS))
    return _FilesOfArgument(paths, name) if paths else name


def _paths(value: Any) -> Iterator[str]:
    """Return the files that a value names, or that a task reads."""
    if isinstance(value, DataNode):
        value = value.value
    if isinstance(value, Task):
        members: Iterable[Any] = (*value.args, *value.kwargs.values())
    elif isinstance(value, (list, tuple, set, frozenset)):
        members = value
    elif isinstance(value, dict):
        members = value.values()
    else:
        members = ()
        if path := _path(value):
            yield path
    for member in islice(members, _MOST_MEMBERS):
        yield from _paths(member)


def _path(value: Any) -> str:
    """Return the file that a value represents; "" if there is none."""
    value = getattr(value, "fragment", value)  # Dask's, of a Parquet file
    path = value if isinstance(value, (str, os.PathLike)) else getattr(value, "path", None)
    if not isinstance(path, (str, os.PathLike)) or (isinstance(path, str) and not paths_in(path)):
        return ""
    return os.fspath(path) if os.path.isfile(path) else ""


def _ago(when: datetime) -> str:
    return f"{format_time(max((datetime.now(UTC) - when).total_seconds(), 0.0)).strip()} ago"
