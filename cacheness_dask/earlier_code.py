"""Use results of earlier code for a graph's tasks, if the change was accepted.

The graph is fingerprinted once more with the digest of the earlier code in place of each accepted
function's. A result found under such a fingerprint *stands in* for the task's own result; later
tasks are fingerprinted again, from their real inputs. So each key shows which code made the result,
and none has to be deleted when a change is revoked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from types import FunctionType
from typing import Any, Final

from dask._task_spec import DataNode, Task, TaskRef, _execute_subgraph

from cacheness import UnifiedCache, bodies
from cacheness.keys import fingerprint
from cacheness.records import Equivalence, Presence
from cacheness_dask.bound import is_partial
from cacheness_dask.graphs import Graph, topological
from cacheness_dask.prints import Fingerprints
from cacheness_dask.result_keys import entry_key

#: Times that a graph is fingerprinted with earlier code.
MOST_WORLDS: Final = 8

_MADE_OF_IT: Final = "made of results of earlier code"

#: Members of a literal that are searched for functions.
_MOST_MEMBERS: Final = 100
#: Types without functions in them.
_PLAIN: Final = (TaskRef, int, float, str, bytes, type(None))

#: Digests of today's functions, each with that of its earlier code.
World = Mapping[bytes, bytes]
#: Of an accepted change: the digests of today's code, and of the earlier code.
Pair = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class ToCompare:
    """A result of earlier code with which a task, computed anyway, is compared."""

    entry: str  #: its key
    changes: tuple[Pair, ...]  #: that end if it differs


@dataclass(slots=True)
class StandIns:
    """Results of earlier code for the tasks of one graph."""

    standing: dict[Any, bytes] = field(default_factory=dict)  #: fingerprints, by key of the replaced task
    present: dict[str, Presence] = field(default_factory=dict)  #: their entries
    descriptions: dict[Any, str] = field(default_factory=dict)  #: descriptions of the changes
    compared: dict[Any, ToCompare] = field(default_factory=dict)  #: tasks that compute anyway

    def tell_of(self, own: Mapping[Any, bytes], given: Mapping[Any, bytes]) -> None:
        """Mark tasks that are made from replaced results.

        Args:
            own: the fingerprints of tasks, by today's code alone.
            given: … and by their real inputs.
        """
        changed = [key for key, digest in given.items() if own.get(key) != digest]
        self.descriptions = dict.fromkeys(changed, _MADE_OF_IT) | self.descriptions


class EarlierCode:
    """Finds results of earlier code for the tasks of a graph that miss.

    Args:
        cache: the cache.
        graph: the graph.
        wanted: the keys whose results are wanted.
        prints: the fingerprints of its tasks.
        present: the existing entries under these.
        held: keys for which a client has futures; these and their inputs are not changed.
    """

    def __init__(
        self,
        cache: UnifiedCache,
        graph: Graph,
        wanted: Iterable[Any],
        prints: Fingerprints,
        present: Mapping[str, Presence],
        *,
        held: Collection[Any],
    ) -> None:
        self._cache, self._graph, self._wanted, self._prints = cache, graph, wanted, prints
        stay = set(topological(graph, [key for key in held if key in graph])) if held else frozenset()
        self._missing = [
            key for key, digest in prints.digests.items() if prints.entries[digest] not in present and key not in stay
        ]
        self._misses = frozenset(self._missing)
        self._found = StandIns()
        self._used: dict[Any, list[Equivalence]] = {}

    def find(
        self, refingerprinted: Callable[[World], Fingerprints], never: Container[bytes], *, audits: bool
    ) -> StandIns:
        """Return the results: none if nothing misses, or no change was accepted.

        Args:
            refingerprinted: makes the fingerprints with the digests of earlier code.
            never: fingerprints of unreadable results.
            audits: whether some are computed anyway, and compared.
        """
        accepted = self._cache.acceptances.of_graphs() if self._missing else []
        rows = [one for one in accepted if one.new in self._prints.functions]
        for changes in _worlds(rows):
            self._look_up(changes, refingerprinted, never)
        found = self._found
        if found.standing:
            self._drop_revoked()
        if audits:
            self._choose_audited()
        found.descriptions = {key: self._describe(self._used[key]) for key in found.standing}
        return found

    def _look_up(
        self, changes: list[Equivalence], refingerprinted: Callable[[World], Fingerprints], never: Container[bytes]
    ) -> None:
        earlier, own = refingerprinted({one.new: one.old for one in changes}).digests, self._prints.digests
        asked = (key for key in self._missing if key in earlier and key not in self._found.standing)
        digests = {key: earlier[key] for key in asked if earlier[key] != own[key] and earlier[key] not in never}
        there = self._cache.present(sorted({entry_key(digest) for digest in digests.values()})) if digests else {}
        # Today's code may write a file differently from earlier code.
        served = {name: one for name, one in there.items() if not one.outputs}
        new = {key: digest for key, digest in digests.items() if entry_key(digest) in served}
        self._found.standing |= new
        self._found.present |= served
        self._used |= dict.fromkeys(new, changes)

    def _drop_revoked(self) -> None:
        """Keep only results whose changes count now: the rows are read after the entries."""
        now = {(one.new, one.old, one.mac) for one in self._cache.acceptances.of_graphs(fresh=True)}
        for key in list(self._found.standing):
            if any((one.new, one.old, one.mac) not in now for one in self._used[key]):
                del self._found.standing[key]

    def _choose_audited(self) -> None:
        """Let some results that would be loaded be computed by today's code, with all tasks that lead to them."""
        standing = self._found.standing
        for key in list(self._loaded()):
            name = entry_key(standing[key]) if key in standing else ""
            if not name or not self._cache.acceptances.chooses(bytes.fromhex(name)):
                continue
            within = topological(self._graph, [key])
            codes = {fingerprint(function).digest for node in within for function in functions_in(self._graph[node])}
            changes = tuple((one.new, one.old) for one in self._used[key] if one.new in codes)
            self._found.compared[key] = ToCompare(name, changes)
            for node in within:
                standing.pop(node, None)

    def _loaded(self) -> Iterator[Any]:
        """Return the wanted or needed tasks for which a result of earlier code would be loaded."""
        stack, seen = [key for key in self._wanted if key in self._graph], set[Any]()
        while stack:
            key = stack.pop()
            if key in seen:
                continue
            seen.add(key)
            if key in self._found.standing:
                yield key
            elif key in self._misses or key not in self._prints.digests:
                stack += [dep for dep in self._graph[key].dependencies if dep in self._graph]

    def _describe(self, changes: Collection[Equivalence]) -> str:
        widest = max(map(self._cache.acceptances.described, changes), key=lambda one: one.bound)
        return f"which earlier code made, accepted: {widest.sentence()}"


def is_within_a_body() -> bool:
    """Return True when a cached function or a Prefect task may compute the graph.

    Its result would depend on this one.
    """
    is_there = bool(bodies.under_way.get()) or bodies.are_running() or bodies.is_elsewhere(besides="dask")
    return is_there or bodies.is_child_process()


def _worlds(rows: list[Equivalence]) -> Iterator[list[Equivalence]]:
    """Return sets of accepted changes as they may have been made.

    All of them, then the latest, the latest two, and so on.

    Of several earlier codes of one function, the set contains the one that was accepted first, because it is older.
    """
    sets = [{one.new: one for one in rows[:count]} for count in (len(rows), *range(1, len(rows)))]
    seen: list[dict[bytes, Equivalence]] = []
    for changes in sets[:MOST_WORLDS]:
        if changes and changes not in seen:
            seen.append(changes)
            yield list(changes.values())


def functions_in(value: Any) -> Iterator[FunctionType]:
    """Yield the functions that a task calls, or passes to a function that it calls.

    Args:
        value: a node of a graph, or a part of one.
    """
    if isinstance(value, FunctionType):
        yield value
    elif isinstance(wrapped := _decorated(value), FunctionType):
        yield wrapped
    else:
        for part in _parts_of(value):
            yield from functions_in(part)


class CodeOfTasks:
    """Records which user code a task calls, for its entry: by that, results of earlier code are found."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, tuple[str, ...]]] = {}

    def of(self, node: Any) -> str:
        """Return the code's name and its digest, in the format that `codes_in` reads."""
        is_shared = isinstance(node, Task) and node.func is _execute_subgraph  # by the blocks of an array
        parts = (node.args[0],) if is_shared else _parts_of(node)
        calling = [self._codes(part) for part in parts if not isinstance(part, _PLAIN)]
        if len(calling) == 1:  # its function, in most tasks
            return ";".join(calling[0])
        return ";".join(dict.fromkeys(code for codes in calling for code in codes))

    def _codes(self, part: Any) -> tuple[str, ...]:
        known = self._known.get(id(part))
        if known is None:
            found = tuple(dict.fromkeys(filter(None, map(_code_of, functions_in(part)))))
            known = self._known[id(part)] = part, found
        return known[1]


def _code_of(function: FunctionType) -> str:
    found = fingerprint(function)
    is_users = bool(found.components.get("code")) and found.parameters and not found.incomplete
    return f"{found.name} {found.digest.hex()} {found.parameters}" if is_users else ""


def codes_in(text: str) -> Iterator[tuple[str, bytes, str]]:
    """Read the text of `CodeOfTasks`: for each function its name, its digest, and the digest of its parameters.

    Args:
        text: the recorded text.
    """
    for code in filter(None, text.split(";")):
        name, digest, parameters = code.rsplit(" ", 2)
        yield name, bytes.fromhex(digest), parameters


def _parts_of(value: Any) -> Iterable[Any]:
    if isinstance(value, Task):
        return (value.func, *value.args, *value.kwargs.values())
    if isinstance(value, DataNode):
        return (value.value,)
    if is_partial(value):
        return (value.func, *value.args, *value.keywords.values())
    members = value.values() if isinstance(value, dict) else value
    return islice(members, _MOST_MEMBERS) if isinstance(value, (dict, list, tuple, set, frozenset)) else ()


def _decorated(value: Any) -> Any:
    return getattr(value, "__wrapped__", None) if type(value).__module__.startswith("cacheness.") else None
