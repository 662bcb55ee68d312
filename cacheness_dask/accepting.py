"""Accept changes by the tasks of a graph: they run with today's code, and are compared with stored results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from dask._task_spec import Alias, DataNode, GraphNode, Task

from cacheness import AcceptedChange, NotAccepted, UnifiedCache
from cacheness.audit import NotComparable, brief, differing, is_same
from cacheness.jitter import chosen
from cacheness.keys import fingerprint
from cacheness_dask._task_spec import Fallback
from cacheness_dask.activation import Place
from cacheness_dask.earlier_code import codes_in, functions_in
from cacheness_dask.explain import looking, planned
from cacheness_dask.fingerprint import fingerprints
from cacheness_dask.graphs import name_of
from cacheness_dask.result_keys import entry_key

#: Earlier fingerprints of one function that are tried, newest first.
_MOST_EARLIER: Final = 8
#: Entries of a function that are read to find earlier code.
_NEWEST: Final = 1000


def accept(
    collection: Any, cache: Place | None = None, *, sample: int = 200, force: bool = False
) -> list[AcceptedChange]:
    """Make results of earlier code count for the tasks of a collection, if comparisons are equal.

    Tasks with a result of earlier code run here, one after the other, with today's code and their
    earlier inputs. Only the accepted changes are stored; they count for all graphs, and for calls
    of the functions outside of graphs.

    Args:
        collection: a Dask collection, or several in a list, tuple or dictionary.
        cache: as for `caching`; None for the cache of the `caching()` block around.
        sample: how many tasks of each function are compared, chosen at random.
        force: accept also if lines of changed functions did not run, or few tasks can be compared.

    Returns:
        The result for each earlier code of each function: its `state` is "accepted" or "refused".

    Raises:
        NotAccepted: no result of a function of the collection was made by earlier code.
    """
    if isinstance(sample, bool) or not isinstance(sample, int) or sample < 1:
        raise ValueError(
            f"sample={sample!r:.40} is not a number of tasks to compare: give a whole number of at least 1"
        )
    with looking(cache) as run:
        _, plan, _ = planned(collection, run)
        tried = _ChangedFunctions(run.cache, plan.graph, plan.decisions.keys)
        if not tried.codes:
            raise NotAccepted(
                "no result of a function of this collection was made by earlier code of it: a function that was renamed"
                " is another one, and entries of earlier versions of cacheness do not record whose code made them"
            )
        rounds = range(min(_MOST_EARLIER, max(map(len, tried.codes.values()))))
        return [change for number in rounds for change in tried.accept(number, sample, force=force)]


@dataclass(slots=True)
class _CodeOfResults:
    """What entries record about one earlier code of a function."""

    parameters: str  #: digest of its parameters
    results: int = 0  #: entries of tasks that called it


class _ChangedFunctions:
    """Return the earlier codes of the functions of a graph, as far as entries record them."""

    def __init__(self, cache: UnifiedCache, graph: Mapping[Any, GraphNode], keys: Iterable[Any]) -> None:
        self._cache, self._graph, self._keys = cache, graph, list(keys)
        self._own = fingerprints(graph, self._keys).digests
        self._calls = {key: list(functions_in(graph[key])) for key in self._own}
        self._functions = {fingerprint(one).digest: one for calls in self._calls.values() for one in calls}
        #: Return, for the digest of each function today, those of its earlier codes, newest first.
        self.codes: dict[bytes, dict[bytes, _CodeOfResults]] = {}
        today = {fingerprint(one).name: digest for digest, one in self._functions.items()}
        for name in {name_of(graph[key]) for key in self._own}:
            for entry in cache.iter_entries(function=name, limit=_NEWEST):
                for function, digest, parameters in codes_in(json.loads(entry.provenance).get("code", "")):
                    if function in today and digest not in self._functions:
                        codes = self.codes.setdefault(today[function], {})
                        codes.setdefault(digest, _CodeOfResults(parameters)).results += 1

    def accept(self, number: int, sample: int, *, force: bool) -> list[AcceptedChange]:
        """Try one earlier code of each function together, or the last one of functions with fewer."""
        evidence: dict[bytes, Any] = {}
        for new, codes in self.codes.items():
            old, known = list(codes.items())[min(number, len(codes) - 1)]
            evidence[new] = self._cache.collect_evidence(self._functions[new], old, known.parameters)
            evidence[new].results = known.results
        while self._differs({new: one for new, one in evidence.items() if not one.refused}, sample):
            pass
        fresh = [one for new, one in evidence.items() if number < len(self.codes[new])]
        return [one.finish(sample, force=force) for one in fresh]

    def _differs(self, evidence: Mapping[bytes, Any], sample: int) -> bool:
        """Compare tasks.

        Returns True when some functions are rejected, so that the others must be tried without them.
        """
        found = _TasksOfToday(self._cache, self._graph, self._earlier(evidence))
        called = {key: [evidence[new] for new in self._new_in([key]) if new in evidence] for key in found.entries}
        # Tasks that themselves call a changed function are the best evidence; later ones are
        # compared with all tasks in between.
        for is_direct in (True, False):
            keys = [key for key in found.entries if bool(called[key]) is is_direct]
            for key in chosen(keys, len(keys)):
                tasks = found.tasks_of(key)
                if tasks is None:
                    _note_skipped(called[key], "need what is never kept")
                    continue
                involved = [evidence[new] for new in self._new_in(found.computed_in(tasks)) if new in evidence]
                if all(one.equal >= sample for one in involved):
                    continue
                why = found.compare(key, tasks, involved)
                for one in involved if why else ():
                    one.refused = why
                if why:
                    return True
        return False

    def _earlier(self, evidence: Mapping[bytes, Any]) -> dict[Any, str]:
        """Return the entries of the tasks under the earlier codes, if these differ from today's."""
        instead = {new: one.old for new, one in evidence.items()}
        earlier = fingerprints(self._graph, self._keys, instead=instead).digests if instead else {}
        return {key: entry_key(digest) for key, digest in earlier.items()}

    def _new_in(self, keys: Iterable[Any]) -> set[bytes]:
        return {fingerprint(one).digest for key in keys for one in self._calls.get(key, ())}


class _TasksOfToday:
    """Tasks that run with today's code, with inputs made by earlier code."""

    def __init__(self, cache: UnifiedCache, graph: Mapping[Any, GraphNode], names: Mapping[Any, str]) -> None:
        self._cache, self._graph, self._names = cache, graph, names
        there = cache.present(sorted(set(names.values())))
        self._there = {key: name for key, name in names.items() if name in there and not there[name].outputs}
        own = fingerprints(graph, list(names)).digests if names else {}
        #: Return the entries of tasks whose results earlier code made.
        self.entries = {key: name for key, name in self._there.items() if entry_key(own[key]) != name}

    def tasks_of(self, key: Any) -> dict[Any, GraphNode] | None:
        """Return a task, and those before it back to stored results; None if one of them is never stored."""
        tasks: dict[Any, GraphNode] = {}
        stack = [key]
        while stack:
            name = stack.pop()
            node = self._graph.get(name)
            if name in tasks:
                continue
            if node is None or (isinstance(node, Task) and name not in self._names):
                return None
            if name != key and name in self._there:
                tasks[name] = Task(name, partial(self._read, self._there[name]))
                continue
            tasks[name] = node
            stack += node.dependencies
        return tasks

    def computed_in(self, tasks: Mapping[Any, GraphNode]) -> Iterator[Any]:
        """The keys of those that are computed and not read."""
        for key, node in tasks.items():
            if node is self._graph.get(key) and not isinstance(node, (Alias, DataNode)):
                yield key

    def compare(self, key: Any, tasks: dict[Any, GraphNode], involved: list[Any]) -> str:
        """Return how a task's result differs; "" if it is equal, or could not be compared."""
        try:
            hit = self._hit(self.entries[key])
            with ExitStack() as stack:
                for one in involved:
                    stack.enter_context(one.making_a_call())
                try:
                    value = Fallback(tasks, key).compute()
                except _Skipped:
                    raise
                except Exception as error:  # noqa: BLE001 - the user's code is tried
                    stored = f"{brief(hit.value)} is stored: {hit.entry.cache_key}"
                    return f"the code of today fails ({type(error).__name__}: {error}) where {stored}"
            if not is_same(hit.value, value, None, self._cache.round_trip):
                return differing(hit, value)
        except NotComparable as error:
            return f"its results cannot be compared: {error}"
        except _Skipped as skipped:
            _note_skipped(involved, str(skipped))
            return ""
        for one in involved:
            one.equal += 1
        return ""

    def _read(self, entry: str) -> Any:
        return self._hit(entry).value

    def _hit(self, entry: str) -> Any:
        hit = self._cache.lookup(entry)
        if hit is None:
            raise _Skipped("are gone, expired or disputed")
        return hit


def _note_skipped(evidence: Iterable[Any], why: str) -> None:
    for one in evidence:
        one.skipped[why] += 1


class _Skipped(Exception):
    """A task cannot be compared; the message has the reason, as a part of a sentence about results."""
