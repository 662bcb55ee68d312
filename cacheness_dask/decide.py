"""Decide which results of a graph are loaded, and which of the computed ones are stored."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from dask._task_spec import DataNode, Task

from cacheness.audit import LONGEST, Sampler
from cacheness.records import Presence
from cacheness_dask.decisions import CachedResults, Decisions, GraphPlan, GraphRequest, ToStore, other_names
from cacheness_dask.earlier_code import CodeOfTasks, StandIns
from cacheness_dask.files import Files, WritingTasks, files_of, is_writer
from cacheness_dask.graphs import topological
from cacheness_dask.marks import is_mark
from cacheness_dask.prints import Fingerprints
from cacheness_dask.worker import Store

#: Bytes in memory of a hit that its dependent task reads itself: less work than a task is for Dask.
SMALL: Final = 64 << 10

_NOTHING: Final = StandIns()


def decide(
    asked: GraphRequest,
    prints: Fingerprints,
    known: CachedResults,
    store: Store,
    *,
    never: Mapping[bytes, str] = MappingProxyType({}),
    known_code: Callable[[Sequence[bytes]], Collection[bytes]] = lambda _: (),
    earlier: StandIns = _NOTHING,
) -> GraphPlan:
    """Decide which results are loaded, and which of the computed ones are to be stored.

    Args:
        asked: the graph. Keys for which the client has futures, and their inputs, are not changed.
        prints: its fingerprints, which contain those of the results of earlier code.
        known: what the cache has for these.
        store: what tasks need to know about the cache.
        never: by fingerprint, why a result is not stored.
        known_code: returns of which tasks there are earlier results.
        earlier: which results of earlier code stand in for those of tasks.
    """
    made = _chosen(asked, prints, known, store, never)
    files = _files(made, prints)
    stored = _with_inputs(made, prints, files, known_code)
    for key, task in other_names(made.graph, asked.keys):  # elsewhere, the task may have another name
        if task in stored:
            stored[key] = stored[task]
            files |= {key: files[task]} if task in files else {}
    made.earlier, made.noted = earlier.descriptions, known.noted
    made.decisions = replace(
        made.decisions,
        stored=stored,
        files=files,
        earlier={key: digest for key, digest in earlier.standing.items() if key in made.hits},
        compared={key: what for key, what in earlier.compared.items() if key in made.misses},
    )
    checks = dict(_to_check(made, prints, known.present)) if store.policy.check else {}
    made.decisions = replace(made.decisions, checks=checks, small=_small(made, known, checks))
    _account(made, prints, known.present)
    return made


def _chosen(
    asked: GraphRequest, prints: Fingerprints, known: CachedResults, store: Store, never: Mapping[bytes, str]
) -> GraphPlan:
    """Walk from the wanted keys to their inputs, as far as results are missing, and decide about each task."""
    graph, held, present = asked.graph, asked.held, known.present
    wanted = {*asked.keys, *(task for _, task in other_names(graph, asked.keys))}
    untouched = set(topological(graph, [key for key in held if key in graph])) if held else frozenset()
    hits: dict[Any, str] = {}
    stored: dict[Any, ToStore] = {}
    marked: set[Any] = set()
    codes = CodeOfTasks()
    made = GraphPlan(graph, Decisions(tuple(asked.keys), hits, stored, marked, store, asked.waits), files=prints.files)
    stack = [key for key in asked.keys if key in graph]
    while stack:
        key = stack.pop()
        if key in made.runs:
            continue
        made.runs.add(key)
        node = graph[key]
        digest = prints.digests.get(key)
        if key in untouched or digest is None:
            if key in prints.refused:
                made.refused[key] = prints.refused[key]
        elif digest in never:
            made.refused[key] = never[digest]
        elif (name := prints.entries[digest]) in present:
            hits[key] = name
            continue
        else:
            made.misses[key] = name
            is_marked = digest in prints.marked
            always = store.policy.always(output=key in wanted, marked=is_marked)
            if (always or store.policy.measures) and not is_mark(node):
                # A marked result is stored where it is computed.
                stored[key] = ToStore(digest, prints.clues[key], None, codes.of(node))
                if is_marked:
                    marked.add(key)
        stack.extend(dep for dep in node.dependencies if dep in graph)
    return made


def _files(made: GraphPlan, prints: Fingerprints) -> dict[Any, Files]:
    """Return the files of the tasks to be stored that name or write any."""
    graph, writes = made.graph, WritingTasks()
    stored = made.decisions.stored
    return {k: files_of(prints, k, graph[k]) for k in stored if k in prints.inputs or writes.holds(graph[k])}


def _with_inputs(
    made: GraphPlan,
    prints: Fingerprints,
    files: Collection[Any],
    known_code: Callable[[Sequence[bytes]], Collection[bytes]],
) -> dict[Any, ToStore]:
    """Return the results to be stored, with the content and inputs of tasks for which an alias can be made."""
    stored = dict(made.decisions.stored)
    inputs = {key: found for key in stored if key not in files and (found := prints.inputs_of(key)) is not None}
    known = known_code(sorted({one.own for one in inputs.values()})) if inputs else ()
    # Blocks share one, so that it is sent once.
    shared = {one: replace(one, is_known=one.own in known) for one in inputs.values()}
    return stored | {key: stored[key]._replace(inputs=shared[one]) for key, one in inputs.items()}


def _small(made: GraphPlan, known: CachedResults, checks: Collection[Any]) -> dict[Any, int]:
    """Return the hits that the task which needs them may read itself, with their sizes."""
    keys = made.decisions.keys
    wanted = {*keys, *(task for _, task in other_names(made.graph, keys))}
    present = known.present
    return {
        key: size
        for key, name in made.hits.items()
        if (size := present[name].raw_size) <= SMALL and key not in wanted and key not in checks
    }


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
        entries = {dep: prints.entries[prints.digests[dep]] for dep in needed if dep in prints.digests}
        is_whole = len(entries) == len(needed) and present.keys() >= {*entries.values()}
        if is_whole and sampler.chooses(bytes.fromhex(name)):
            yield key, entries


_sampler_of: Final = lru_cache(maxsize=8)(Sampler)  # one for all graphs, so that the share applies to all together


def _account(made: GraphPlan, prints: Fingerprints, present: Mapping[str, Presence]) -> None:
    gone = [key for key in prints.terms if key not in made.runs]
    made.skipped = sum(isinstance(made.graph[key], Task) for key in gone)
    entries, runs = prints.entries, made.runs
    loaded = {name: present[name] for name in made.hits.values()}
    spared = {
        name: found
        for key, digest in prints.digests.items()
        if key not in runs and (found := present.get(name := entries[digest])) is not None and name not in loaded
    }
    made.seconds_spared, seconds_loaded = (
        sum(found.compute_seconds or 0.0 for found in results.values()) for results in (spared, loaded)
    )
    made.seconds_saved = made.seconds_spared + seconds_loaded
