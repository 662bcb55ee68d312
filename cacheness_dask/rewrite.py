"""Decide which results are loaded and stored, and rewrite a graph accordingly."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache, partial
from types import FunctionType, MappingProxyType
from typing import Any, Final, TypeGuard

from dask._task_spec import Alias, DataNode, GraphNode, Task, TaskRef
from dask.utils import methodcaller

from cacheness.audit import LONGEST, Sampler
from cacheness.records import Presence
from cacheness_dask._task_spec import Fallback
from cacheness_dask.bound import called_in
from cacheness_dask.cut_off import TaskInputs, is_fused
from cacheness_dask.earlier_code import CodeOfTasks, StandIns, ToCompare
from cacheness_dask.files import Files, WritingTasks, files_of, is_writer
from cacheness_dask.fingerprint import Fingerprints
from cacheness_dask.graphs import last_step, topological
from cacheness_dask.marks import is_mark
from cacheness_dask.sources_and_sinks import FileState
from cacheness_dask.worker import Checked, CheckedLoad, Compared, Compute, Consume, EarlierLoad, Load, Store, ToStore

#: Tasks that a hit may contain, in case its entry is deleted before it is read.
FALLBACK_TASKS: Final = 50
#: The same, for all hits of a graph whose results are not waited for.
FALLBACK_TOTAL: Final = 100_000
#: Bytes in memory of a hit that its dependent task reads itself: less work than a task is for Dask.
SMALL: Final = 64 << 10
#: The same, of all hits that one task reads: Dask does not know them, and they are read in one thread.
SMALL_TOTAL: Final = 16 << 20

#: Annotations about where a task runs.
_PLACES: Final = ("workers", "resources")
_DIGEST: Final = 32  #: bytes


_NOTHING: Final = StandIns()


@dataclass(frozen=True, slots=True)
class Decisions:
    """Decisions about a graph, without the graph: small, and valid wherever the graph is."""

    keys: tuple[Any, ...]  #: wanted
    hits: dict[Any, str]  #: loaded: the entry's key
    stored: dict[Any, ToStore]  #: computed, and stored if worthwhile
    marked: frozenset[Any]  #: of these, stored because a user marked them
    store: Store
    waits: bool  #: a caller waits for the results, and runs the graph again if a hit was deleted
    files: dict[Any, Files] = field(default_factory=dict)  #: of results to be stored, if a task names any
    checks: dict[Any, dict[Any, str]] = field(default_factory=dict)  #: hits that are computed again: entries of inputs
    earlier: dict[Any, bytes] = field(default_factory=dict)  #: hits of earlier code: the fingerprints of these
    compared: dict[Any, ToCompare] = field(default_factory=dict)  #: computed, and compared with earlier code's
    small: dict[Any, int] = field(default_factory=dict)  #: hits that their only dependent task may read: bytes

    def __reduce__(self) -> tuple[Any, ...]:
        # One object per task, of thousands, would take twice the bytes.
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        return _unpacked, ({**given, "stored": _Columns.of(self.stored)},)

    def for_elsewhere(self) -> Decisions:
        """Return the same for a graph that is created elsewhere, where other tasks may be fused."""
        stored = {
            key: (digest, clue, None if inputs is not None and inputs.is_fused else inputs, code)
            for key, (digest, clue, inputs, code) in self.stored.items()
        }
        return replace(self, stored=stored)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Results to be stored, in a compact form for another process."""

    keys: tuple[Any, ...]
    digests: bytes  #: one after the other
    clues: tuple[bytes, ...]
    places: tuple[int, ...]  #: of each in the table
    table: tuple[tuple[TaskInputs | None, str], ...]  #: what many tasks have in common

    @classmethod
    def of(cls, stored: Mapping[Any, ToStore]) -> _Columns:
        table: dict[tuple[TaskInputs | None, str], int] = {}
        places = tuple(table.setdefault((inputs, code), len(table)) for _, _, inputs, code in stored.values())
        digests, clues = b"".join(one[0] for one in stored.values()), tuple(one[1] for one in stored.values())
        return cls(tuple(stored), digests, clues, places, tuple(table))

    def stored(self) -> dict[Any, ToStore]:
        """Return the original decisions."""
        digests = (self.digests[at : at + _DIGEST] for at in range(0, len(self.digests), _DIGEST))
        rows = zip(self.keys, digests, self.clues, self.places, strict=True)
        return {key: (digest, clue, *self.table[place]) for key, digest, clue, place in rows}


def _unpacked(given: dict[str, Any]) -> Decisions:
    return Decisions(**{**given, "stored": given["stored"].stored()})


@dataclass(slots=True)
class GraphPlan:
    """The decision for each node that the wanted keys need. Made before anything runs."""

    graph: Mapping[Any, GraphNode]  #: the graph
    decisions: Decisions
    runs: set[Any] = field(default_factory=set)  #: computed or loaded
    misses: dict[Any, str] = field(default_factory=dict)  #: computed, and may be stored: the entry's key
    refused: dict[Any, str] = field(default_factory=dict)  #: computed, and never stored: why
    cut: bool = False  #: fused tasks were split, so that the graph has additional keys
    skipped: int = 0  #: needed by hits only, so neither computed nor loaded
    seconds_saved: float = 0.0
    seconds_spared: float = 0.0  #: of these, those of tasks that are neither computed nor loaded
    files: dict[str, FileState] = field(default_factory=dict)  #: read by the misses, with their state
    earlier: Mapping[Any, str] = field(default_factory=dict)  #: descriptions of results by earlier code
    noted: Mapping[str, str] = field(default_factory=dict)  #: why results were not stored, by the entry's key
    keeping: Any = None  #: what must stay alive until the graph is submitted

    @property
    def hits(self) -> dict[Any, str]:
        """Return the entry's key of a loaded result."""
        return self.decisions.hits


def decide(
    graph: Mapping[Any, GraphNode],
    keys: Collection[Any],
    prints: Fingerprints,
    present: Mapping[str, Presence],
    store: Store,
    *,
    held: Collection[Any] = (),
    never: Mapping[bytes, str] = MappingProxyType({}),
    known_code: Callable[[Sequence[bytes]], Collection[bytes]] = lambda _: (),
    waits: bool = True,
    earlier: StandIns = _NOTHING,
) -> GraphPlan:
    """Decide which results are loaded, and which of the computed ones are to be stored.

    `held` are keys for which the client has futures: these and their inputs are not changed.
    `never` has, by fingerprint, why a result is not stored; `known_code`, of which tasks there are
    earlier results; `earlier`, which results of earlier code stand in for those of tasks, whose
    fingerprints contain them.
    """
    wanted = {*keys, *(task for _, task in _other_names(graph, keys))}
    untouched = set(topological(graph, [key for key in held if key in graph])) if held else frozenset()
    hits: dict[Any, str] = {}
    stored: dict[Any, ToStore] = {}
    marked: set[Any] = set()
    codes = CodeOfTasks()
    made = GraphPlan(graph, Decisions(tuple(keys), hits, stored, frozenset(), store, waits), files=prints.files)
    stack = [key for key in keys if key in graph]
    while stack:
        key = stack.pop()
        if key in made.runs:
            continue
        made.runs.add(key)
        node = graph[key]
        digest = prints.digests.get(key)
        if key in untouched or digest is None:
            _note_refusal(made, key, prints)
        elif digest in never:
            made.refused[key] = never[digest]
        elif (name := prints.entry_of(digest)) in present:
            hits[key] = name
            continue
        else:
            made.misses[key] = name
            always = store.policy.always(output=key in wanted, marked=digest in prints.marked)
            if (always or store.policy.measures) and not is_mark(node):
                # A marked result is stored where it is computed.
                stored[key] = digest, prints.clues[key], None, codes.of(node)
                if digest in prints.marked:
                    marked.add(key)
        stack.extend(dep for dep in node.dependencies if dep in graph)
    named = prints.inputs
    writes = WritingTasks()
    files = {k: files_of(prints, k, graph[k]) for k in stored if k in named or writes.holds(graph[k])}
    inputs = {key: found for key in stored if key not in files and (found := prints.inputs_of(key)) is not None}
    known = known_code(sorted({one.own for one in inputs.values()})) if inputs else ()
    # Blocks share one, so that it is sent once.
    shared = {one: replace(one, is_known=one.own in known) for one in inputs.values()}
    stored |= {key: (*stored[key][:2], shared[one], stored[key][3]) for key, one in inputs.items()}
    for key, task in _other_names(graph, keys):  # elsewhere, the task may have another name
        if task in stored:
            stored[key] = stored[task]
            files |= {key: files[task]} if task in files else {}
    made.earlier = earlier.descriptions
    standing = {key: digest for key, digest in earlier.standing.items() if key in hits}
    compared = {key: what for key, what in earlier.compared.items() if key in made.misses}
    made.decisions = replace(made.decisions, earlier=standing, compared=compared)
    checks = dict(_to_check(made, prints, present)) if store.policy.check else {}
    small = {
        key: size
        for key, name in hits.items()
        if (size := present[name].raw_size) <= SMALL and key not in wanted and key not in checks
    }
    made.decisions = replace(made.decisions, marked=frozenset(marked), files=files, checks=checks, small=small)
    _account(made, prints, present)
    return made


def _to_check(
    made: GraphPlan, prints: Fingerprints, present: Mapping[str, Presence]
) -> Iterator[tuple[Any, dict[Any, str]]]:
    """Return the hits that are computed again, each with the entries of its inputs: all of these must exist."""
    sampler = _sampler_of(made.decisions.store.policy.check)
    for key, name in made.hits.items():
        node, found = made.graph[key], present[name]
        if key in made.decisions.earlier:  # other code made it
            continue
        is_quick = found.compute_seconds is not None and found.compute_seconds <= LONGEST
        if not is_quick or found.outputs or type(node) is not Task or key in prints.inputs or is_writer(node):
            continue
        needed = [dep for dep in node.dependencies if not isinstance(made.graph.get(dep), DataNode)]
        entries = {dep: prints.entry_of(prints.digests[dep]) for dep in needed if dep in prints.digests}
        is_whole = len(entries) == len(needed) and present.keys() >= {*entries.values()}
        if is_whole and sampler.chooses(bytes.fromhex(name)):
            yield key, entries


_sampler_of: Final = lru_cache(maxsize=8)(Sampler)  # one for all graphs, so that the share applies to all together


def apply(
    decisions: Decisions,
    graph: Mapping[Any, GraphNode],
    annotations: Mapping[str, Collection[Any]] = MappingProxyType({}),
) -> dict[Any, GraphNode]:
    """Return the graph that runs: hits are loads, tasks needed only by them are removed, misses store their results.

    The graph may be created again elsewhere, and be fused differently: a key represents one value,
    and a task without a decision for its key is computed unchanged.
    """
    wanted = {*decisions.keys, *(task for _, task in _other_names(graph, decisions.keys))}
    made = _storing(decisions, graph, wanted)
    _compare(made, decisions, graph)
    _load_hits(made, decisions, graph)
    if decisions.small:
        placed = {key for kind in _PLACES for key in annotations.get(kind, ())}
        _read_by_takers(made, decisions, wanted | placed)
    return made


def _storing(decisions: Decisions, graph: Mapping[Any, GraphNode], wanted: Collection[Any]) -> dict[Any, GraphNode]:
    """Return what runs: misses store their results, and hits are unchanged."""
    made: dict[Any, GraphNode] = {}
    stored, files = dict(decisions.stored), dict(decisions.files)
    for key, task in _other_names(graph, decisions.keys):
        if key in stored:
            stored[task] = stored[key]
            if key in files:
                files[task] = files[key]
    policy = decisions.store.policy
    stack = [key for key in decisions.keys if key in graph]
    while stack:
        key = stack.pop()
        if key in made:
            continue
        node = made[key] = graph[key]
        if key in decisions.hits:
            continue
        if key in stored and isinstance(node, Task):
            always = policy.always(output=key in wanted, marked=key in decisions.marked)
            digest, clue, inputs, code = stored[key]
            if inputs is not None and inputs.is_fused != is_fused(node):
                inputs = None  # its arguments differ from those that were checked
            func = Compute(node.func, decisions.store, (digest, clue, inputs, code), name_of(node), always)
            func.files = files.get(key)
            made[key] = _calling(node, func)
        elif policy.check_inputs and type(node) is Task:
            made[key] = _calling(node, Checked(node.func, decisions.store, name_of(node)))
        stack.extend(dep for dep in node.dependencies if dep in graph)
    return made


def _compare(made: dict[Any, GraphNode], decisions: Decisions, graph: Mapping[Any, GraphNode]) -> None:
    """Make tasks compare their results with those of earlier code."""
    for key, what in decisions.compared.items():
        node = made.get(key)
        if isinstance(node, Task):
            made[key] = _calling(node, Compared(node.func, decisions.store, name_of(graph[key]), what))


def _other_names(graph: Mapping[Any, GraphNode], keys: Collection[Any]) -> Iterator[tuple[Any, Any]]:
    """Return the wanted keys that are only aliases, each with its target: a fused task has its own name."""
    for key in keys:
        node = graph.get(key)
        while isinstance(node, Alias):
            yield key, node.target
            node = graph.get(node.target)


def _note_refusal(made: GraphPlan, key: Any, prints: Fingerprints) -> None:
    if key in prints.refused:
        made.refused[key] = prints.refused[key]


def _calling(node: Task, func: Callable[..., Any]) -> GraphNode:
    """Return the same task with another function."""
    # The constructor would search the arguments for dependencies once more.
    wrapped = Task(node.key, func, _data_producer=node.data_producer)
    wrapped.args, wrapped.kwargs = node.args, node.kwargs
    wrapped._dependencies = node._dependencies  # noqa: SLF001
    return wrapped


def _load_hits(made: dict[Any, GraphNode], decisions: Decisions, graph: Mapping[Any, GraphNode]) -> None:
    budget = FALLBACK_TOTAL
    for key in decisions.hits:
        if key not in made:
            continue
        limit = FALLBACK_TASKS if decisions.waits else budget
        fallback = _fallback(graph, key, limit) if decisions.store.config.mode != "offline" else None
        if fallback is not None:
            budget -= len(fallback.tasks)
        made[key] = Task(key, _load(decisions, graph, key, fallback), _data_producer=True)


def _load(decisions: Decisions, graph: Mapping[Any, GraphNode], key: Any, fallback: Fallback | None) -> Load:
    given = decisions.store, decisions.hits[key], name_of(graph[key]), fallback
    if key in decisions.earlier:
        return EarlierLoad(*given, decisions.earlier[key])
    again = _again(graph, key, decisions) if key in decisions.checks else None
    return Load(*given) if again is None else CheckedLoad(*given, again)


def _read_by_takers(made: dict[Any, GraphNode], decisions: Decisions, stay: Collection[Any]) -> None:
    """Let a task read small hits that only it needs. Others share a result that is read once."""
    takers: dict[Any, list[Any]] = {}
    for key, node in made.items():
        for dep in node.dependencies & decisions.small.keys():
            takers.setdefault(dep, []).append(key)
    taken: dict[Any, dict[Any, Load]] = {}
    room: dict[Any, int] = {}
    for key, (taker, *others) in takers.items():
        left = room.get(taker, SMALL_TOTAL) - decisions.small[key]
        load = getattr(made[key], "func", None)
        if left >= 0 and not others and key not in stay and _is_only_read(load) and _may_read(made[taker], made):
            taken.setdefault(taker, {})[key] = load
            room[taker] = left
    for taker, loads in taken.items():
        node = made[taker]
        given = tuple(node.dependencies - loads.keys())
        read = Consume(node, given, decisions.store, loads)
        made[taker] = Task(taker, read, *map(TaskRef, given), _data_producer=node.data_producer)
        for key in loads:
            del made[key]


def _is_only_read(load: object) -> TypeGuard[Load]:
    return isinstance(load, Load) and not isinstance(load, CheckedLoad)


def _may_read(node: GraphNode, graph: Mapping[Any, GraphNode]) -> bool:
    """Return True when this task runs in a thread, and takes no future, which the scheduler must see."""
    is_coroutine = "distributed" in sys.modules and node.is_coro  # only this graph needs them
    return type(node) is Task and not is_coroutine and node.dependencies <= graph.keys()


def _again(graph: Mapping[Any, GraphNode], key: Any, decisions: Decisions) -> Fallback | None:
    """Return the task of a hit, with its inputs loaded; None if it needs others than were looked up."""
    entries = decisions.checks[key]
    tasks: dict[Any, GraphNode] = {key: graph[key]}
    for dep in graph[key].dependencies:
        if dep in entries:
            tasks[dep] = Task(dep, Load(decisions.store, entries[dep], str(dep), None), _data_producer=True)
        elif isinstance(graph.get(dep), DataNode):
            tasks[dep] = graph[dep]
        else:
            return None
    return Fallback(tasks, key)


def _fallback(graph: Mapping[Any, GraphNode], key: Any, limit: int) -> Fallback | None:
    """Return the tasks that make a result, None if they are too many or need the scheduler."""
    tasks: dict[Any, GraphNode] = {}
    stack = [key]
    while stack:
        name = stack.pop()
        if name in tasks:
            continue
        node = graph.get(name)
        if node is None or len(tasks) >= limit or type(node).__name__ == "P2PBarrierTask":
            return None
        tasks[name] = node
        stack.extend(node.dependencies)
    return Fallback(tasks, key)


def _account(made: GraphPlan, prints: Fingerprints, present: Mapping[str, Presence]) -> None:
    gone = [key for key in prints.terms if key not in made.runs]
    made.skipped = sum(isinstance(made.graph[key], Task) for key in gone)
    loaded = set(made.hits.values())
    digests, entry_of = prints.digests, prints.entry_of
    spared = {entry_of(digests[key]) for key in gone if key in digests} - loaded
    made.seconds_spared, seconds_loaded = (
        sum(found.compute_seconds or 0.0 for key in keys if (found := present.get(key))) for keys in (spared, loaded)
    )
    made.seconds_saved = made.seconds_spared + seconds_loaded


def name_of(node: GraphNode) -> str:
    """Return a name for messages: the function that a task calls, the user's if it is wrapped."""
    func = getattr(node, "func", None)
    if type(func) is FunctionType and not (func.__module__ or "").startswith("dask."):
        return func.__qualname__  # as below, without searching for what it calls
    node = last_step(node)
    return _function_name(node) if isinstance(node, Task) else type(node).__name__


def _function_name(node: Task) -> str:
    func = called_in(node)[0]
    while isinstance(func, partial):
        func = func.func
    if isinstance(func, methodcaller):
        return str(func.method)
    # Not the text of an object: it contains its address, and runs the user's code.
    return str(getattr(func, "__qualname__", None) or getattr(func, "__name__", None) or type(func).__qualname__)
