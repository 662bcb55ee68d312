"""Walk through a graph, inputs first, and make the term of each node."""

from __future__ import annotations

import types
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any, Final, cast

from blake3 import blake3
from dask._task_spec import (
    Alias,
    DataNode,
    Dict,
    GraphNode,
    NestedContainer,
    Task,
    TaskRef,
    _execute_subgraph,
    _identity_cast,
)

from cacheness.keys import Inputs
from cacheness.keys.inputs import MOST_STRINGS, paths_in
from cacheness.keys.key import sets_of
from cacheness_dask.bound import arguments_that_decide, called_in
from cacheness_dask.chance import refuse_chance
from cacheness_dask.cut_off import FIRST_INPUT, TaskInputs, is_fused, places_in
from cacheness_dask.encoding import DOMAIN, RESULT, SCALARS, NotCacheable, container, text
from cacheness_dask.graphs import IDENTITY, last_step, topological
from cacheness_dask.marks import is_mark, is_marked_inside
from cacheness_dask.prints import Clues, Fingerprints, Names
from cacheness_dask.sources_and_sinks import (
    is_storing,
    remote_file,
    target_of,
)
from cacheness_dask.task_checksums import clue, of_step, parts_of_call
from cacheness_dask.terms import Terms, digest

#: Steps of a shuffle whose results are not their return values.
_PLUMBING: Final = frozenset(
    {
        "distributed.shuffle._core:p2p_barrier",
        "distributed.shuffle._shuffle:shuffle_transfer",
        "distributed.shuffle._rechunk:rechunk_transfer",
        "distributed.shuffle._merge:merge_transfer",
        "dask.dataframe.dask_expr._shuffle:_shuffle_transfer",
        "dask.dataframe.dask_expr._merge:create_assign_index_merge_transfer.<locals>.assign_index_merge_transfer",
        "dask.dataframe.dask_expr._shuffle:DiskShuffle._shuffle_group",
        "dask.dataframe.shuffle:shuffle_group_3",
        "dask.dataframe.shuffle:barrier",
        "dask.dataframe.shuffle:maybe_buffered_partd",
        "dask.bag.core:partition",
    }
)
#: Represents the result of another task, whichever it is.
_SLOT: Final = b"r" + bytes(32)


class Walk(Terms):
    """One pass over one graph. Literals and functions are hashed once, by identity."""

    def __init__(
        self,
        graph: Mapping[Any, GraphNode],
        futures: Mapping[Any, bytes | None],
        as_text: Mapping[Any, Names],
        refuse_incomplete: bool,
        instead: Mapping[bytes, bytes],
    ) -> None:
        # Shuffles are named by tokens.
        barriers = {kind for kind in set(map(type, graph.values())) if kind.__name__ == "P2PBarrierTask"}
        named = (cast("Any", node).spec.id for node in graph.values() if type(node) in barriers) if barriers else ()
        super().__init__(set(named), refuse_incomplete, instead)
        self._graph = graph
        self._futures = futures
        self._as_text = as_text
        self._found = Fingerprints(functions=self._code_of)
        self._targets: set[Any] = set()  # and of what these are made
        self._orders: dict[int, tuple[Any, list[Any]]] = {}
        #: Functions whose calls have only scalars and results as arguments: the start of a call's digest.
        self._plain: dict[int, tuple[Any, bytes]] = {}
        self._marks = 0
        self._parts: tuple[int, list[bytes]] = (0, [])  # of the previous task: steps, and terms

    def run(self, keys: list[Any], standing: Mapping[Any, bytes]) -> Fingerprints:
        """Return the fingerprints of the nodes that `keys` need."""
        found, graph, futures = self._found, self._graph, self._futures
        terms, digests, clues = found.terms, found.digests, dict[bytes, bytes]()
        known: dict[Any, bytes] = {}
        order = topological(graph, keys)
        self._targets = targets = set(topological(graph, self._targets_in(order)))
        for key in order:
            node = graph[key]
            if (parts := self._plain_call(node)) is not None and key not in futures and key not in targets:
                digests[key] = digest = standing.get(key) or blake3(b"".join(parts)).digest()
                terms[key] = b"r" + digest
                continue
            marks = self._marks
            self._begin_node()
            try:
                terms[key] = term = self._future(key) if key in futures else self._checked(key, node)
            except _MissingFingerprint as missing:
                found.refused[key] = self._downstream(missing.args[0])
            except NotCacheable as refusal:
                found.refused[key] = str(refusal)
            else:
                self._tell(key)
                if term[0] == RESULT and isinstance(node, Task):
                    if self._is_plumbing(node):
                        found.plumbing.add(key)
                    else:
                        if self._inputs.found and not _is_reader(node):
                            terms[key] = term = self._with_names(key, node, term)
                        digests[key] = digest = standing.get(key, term[1:])
                        terms[key] = b"r" + digest
                        # Blocks of an array may share one.
                        known[key] = clues.setdefault(made := clue(*self._parts), made)
                        self._note_plain(node)
            if marks != self._marks and is_marked_inside(node):
                found.cuttable.append(key)
        found.inputs_of, found.clues = self._inputs_of, Clues(known, self._clue_of)
        return found

    def _plain_call(self, node: GraphNode) -> list[bytes] | None:
        """Return the terms of a call that is known to be plain; None if it must be encoded as a whole."""
        if type(node) is not Task or node.kwargs:
            return None
        known = self._plain.get(id(node.func))
        if known is None:
            return None
        parts, terms = [known[1]], self._found.terms
        for value in node.args:
            kind = type(value)
            if kind is TaskRef:
                term = terms.get(value.key)
                if term is None or term[0] != RESULT:
                    return None
            elif kind is int:
                term = b"i%d;" % value
            elif (scalar := SCALARS.get(kind)) is not None:
                term = scalar(value)
            elif kind is str and not paths_in(value) and value not in self._shuffles:
                term = b"s" + text(value)
            else:
                return None
            parts.append(term)
        return parts

    def _note_plain(self, node: Task) -> None:
        """Record that calls of this function need no further check: it was checked, and nothing was found."""
        func = node.func
        if type(func) is not types.FunctionType or (func.__module__ or "").startswith("dask.") or is_mark(node):
            return
        known = self._functions.get(id(func))
        if known is None or isinstance(known[1], NotCacheable) or known[2]:
            return
        if id(func) not in self._chances and id(func) not in self._gaps:
            self._plain[id(func)] = func, DOMAIN + known[1]

    def _clue_of(self, key: Any) -> bytes | None:
        parts = self._plain_call(self._graph[key]) if key in self._found.digests else None
        return None if parts is None else clue(0, [parts[0].removeprefix(DOMAIN), *parts[1:]])

    def _inputs_of(self, key: Any) -> TaskInputs | None:
        """Return the fingerprint of a task with a number in place of each input result."""
        node, terms = self._graph[key], self._found.terms
        if not node.dependencies:
            return None
        if type(node) is not Task or key in self._found.inputs or any(dep not in terms for dep in node.dependencies):
            return None
        places = places_in(node, lambda dep: terms[dep][0] == RESULT)
        if not places:
            return None
        self._begin_node()
        slots = {dep: _SLOT if terms[dep][0] == RESULT else terms[dep] for dep in node.dependencies}
        try:
            term = self._own_of_fused(node, slots, places) if is_fused(node) else self._node(node, slots)
        except NotCacheable:
            return None
        return TaskInputs(blake3(DOMAIN + b"own" + term).digest(), places, is_fused(node))

    def _own_of_fused(self, node: Task, slots: Mapping[Any, bytes], places: Container[Any]) -> bytes:
        # The position of each input must be distinguished: f(a) - f(b) is not f(b) - f(a). The
        # order of the inputs may change from process to process, and then the task is computed.
        inner, out, names, *values = node.args
        within = {
            name: b"r" + blake3(b"input %d" % place).digest() if place in places else self._term(value, slots)
            for place, (name, value) in enumerate(zip(names, values, strict=True), FIRST_INPUT)
        }
        for step in self._order(inner, out):
            within[step] = self._node(inner[step], within)
        return within[out]

    def _tell(self, key: Any) -> None:
        """Record the files that a node names, and what of it is not visible."""
        if self._unseen:
            self._found.incomplete[key] = tuple(dict.fromkeys(self._unseen))
        if self._inputs:
            self._found.inputs[key] = self._inputs

    def _with_names(self, key: Any, node: GraphNode, term: bytes) -> bytes:
        """Return the term of a task that names files; record those with some of these by their names."""
        inputs, parts, groups = self._inputs, self._parts, list(dict.fromkeys(self._groups))
        texts: dict[Names, bytes] = {}
        try:
            for chosen in sets_of(groups):
                self._text, self._inputs, self._groups = frozenset().union(*chosen), Inputs(), []
                texts[self._text] = self._node(node, self._found.terms)
        finally:
            self._text, self._inputs, self._parts = frozenset(), inputs, parts
        self._found.groups[key] = groups
        self._found.texts[key] = {names: text[1:] for names, text in texts.items()}
        return texts.get(self._as_text.get(key, frozenset()), term)

    def _checked(self, key: Any, node: GraphNode) -> bytes:
        if key in self._targets:
            raise NotCacheable("a task that follows writes to what it returns, so it runs every time")
        return self._node(node, self._found.terms)

    def _targets_in(self, order: Iterable[Any]) -> Iterator[Any]:
        """Return the keys of the targets of writing tasks."""
        inside: dict[int, set[Any]] = {}  # of the steps that many blocks share
        functions = {id(node.func): node.func for node in self._graph.values() if isinstance(node, Task)}
        writing = {name for name, func in functions.items() if func is _execute_subgraph or is_storing(func)}
        for key in order if writing else ():
            node = self._graph[key]
            if not isinstance(node, Task) or id(node.func) not in writing:
                continue
            if node.func is not _execute_subgraph:
                targets, given = _targets_of([node]), dict[Any, Any]()
            else:
                inner, _, names, *values = node.args
                if id(inner) not in inside:
                    inside[id(inner)] = _targets_of(inner.values())
                targets, given = inside[id(inner)], dict(zip(names, values, strict=True))
            for target in targets:
                outside = given.get(target)
                found = outside.key if isinstance(outside, TaskRef) else target
                if found in self._graph:
                    yield found

    def _downstream(self, key: Any) -> str:
        reason = self._found.refused.get(key)
        if reason is None:
            return f"needs the future {key!r}, and this cache has not seen how that was made"
        return reason if reason.startswith("downstream of ") else f"downstream of {key!r}: {reason}"

    # nodes

    def _node(self, node: GraphNode, scope: Mapping[Any, bytes]) -> bytes:
        kind = type(node)
        if kind is Task:
            return self._task(node, scope)  # type: ignore[arg-type]
        if kind is DataNode:
            return self._term(node.value, scope)  # type: ignore[attr-defined]
        if kind is Alias:
            return self._reference(node.target, scope)  # type: ignore[attr-defined]
        if isinstance(node, Dict):
            pairs = [self._term(value, scope) for value in node.args]
            return container(b"dict", pairs)
        if isinstance(node, NestedContainer):
            return self._members(node.klass, node.args, scope)
        if kind.__name__ == "P2PBarrierTask":
            return self._barrier(node, scope)
        if isinstance(node, Task):
            raise NotCacheable(f"a task of the unknown kind {kind.__name__}")
        raise NotCacheable(f"a graph node of the unknown kind {kind.__name__}")

    def _reference(self, key: Any, scope: Mapping[Any, bytes]) -> bytes:
        term = scope.get(key)
        if term is not None:
            if term[0] != RESULT and key in self._found.inputs:
                self._take(self._found.inputs[key])
            return term
        if key in self._graph:
            raise _MissingFingerprint(key)
        return self._future(key)

    def _future(self, key: Any) -> bytes:
        term = self._futures.get(key)
        if term is None:
            raise _MissingFingerprint(key)
        return term

    def _task(self, node: Task, scope: Mapping[Any, bytes]) -> bytes:
        func = node.func
        if func is _execute_subgraph:
            return self._fused(node, scope)
        if func is IDENTITY:  # it depends on the keys' names which task is inside it, and which is separate
            return self._term(node.args[0], scope)
        if func is _identity_cast:
            return self._members(node.kwargs["typ"], node.args, scope)
        if (func is set or func is frozenset) and len(node.args) == 1 and isinstance(node.args[0], NestedContainer):
            return self._members(func, node.args[0].args, scope)
        if is_mark(node):
            return self._marked(self._term(node.args[0], scope))
        return self._call(node, scope)

    def _call(self, node: Task, scope: Mapping[Any, bytes]) -> bytes:
        func = node.func
        parts = [self._function(func)]
        args, kwargs = arguments_that_decide(node)
        for value in args:
            kind = type(value)
            self._left = MOST_STRINGS
            if kind is TaskRef:
                parts.append(self._reference(value.key, scope))
            elif kind is int:
                parts.append(b"i%d;" % value)
            else:
                parts.append(self._term(value, scope))
        for name, value in kwargs.items():
            self._left = MOST_STRINGS
            parts.append(b"k" + text(name) + self._term(value, scope))
        if type(func).__name__ == "ParquetFunctionWrapper":
            parts.append(self._pieces(func, node.args))
        refuse_chance(node, self._chances)
        called, place = called_in(node, (args, kwargs))
        if place >= 0:  # otherwise it has the parts of the inner task
            bound = self._bound.get(id(called))
            self._parts = (0, parts_of_call(parts, place, bound) if place or bound else parts)
        return b"r" + blake3(DOMAIN + b"".join(parts)).digest()

    def _marked(self, term: bytes) -> bytes:
        self._marks += 1
        self._parts = (0, [])
        if term[0] == RESULT:
            self._found.marked.add(term[1:])
        return term

    def _fused(self, node: Task, scope: Mapping[Any, bytes]) -> bytes:
        inner, out, names, *values = node.args
        within = {name: self._term(value, scope) for name, value in zip(names, values, strict=True)}
        said, seen = list[bytes](), set(within.values())
        for key in self._order(inner, out):
            self._parts = (0, [])
            within[key] = term = self._node(inner[key], within)
            said += of_step(*self._parts, term, seen)
            seen.add(term)
        self._parts = (len(said) // 2, said)
        return within[out]

    def _order(self, inner: dict[Any, GraphNode], out: Any) -> list[Any]:
        # Blockwise shares one inner graph between all its blocks.
        known = self._orders.get(id(inner))
        if known is None:
            known = self._orders[id(inner)] = (inner, topological(inner, [out]))
        return known[1]

    def _barrier(self, node: Any, scope: Mapping[Any, bytes]) -> bytes:
        spec = {name: value for name, value in vars(node.spec).items() if name != "id"}
        parts = [DOMAIN, b"barrier", self._term(spec, scope), *(self._term(value, scope) for value in node.args)]
        return b"r" + blake3(b"".join(parts)).digest()

    def _pieces(self, reader: Any, args: tuple[Any, ...]) -> bytes:
        """Return row groups that Dask's reader takes from a file system that is not local."""
        if "Local" in type(reader.fs).__name__:
            return b""  # their paths are literals that name regular files
        parts: list[Any] = args[0] if isinstance(args[0], list) else [args[0]]
        pieces: list[Any] = [getattr(part, "data", part) for part in parts]
        paths = [piece["piece"][0] for piece in pieces]
        return container(b"pieces", [b"v" + digest(remote_file(reader.fs, path)) for path in paths])

    def _is_plumbing(self, node: Task) -> bool:
        step = last_step(node)
        if not isinstance(step, Task):
            return False
        node = step
        func = node.func if hasattr(node.func, "__qualname__") else type(node.func)
        return f"{getattr(func, '__module__', '')}:{func.__qualname__}" in _PLUMBING


class _MissingFingerprint(NotCacheable):
    """A reference to a key without a term."""


def _is_reader(node: Task) -> bool:
    """Return True when this is one of Dask's readers, which write nothing."""
    func = node.func if hasattr(node.func, "__qualname__") else type(node.func)
    return node.func is not _execute_subgraph and str(getattr(func, "__module__", "")).startswith("dask.")


def _targets_of(steps: Iterable[GraphNode]) -> set[Any]:
    """Return the targets of these tasks, by their keys."""
    found = (target_of(step) for step in steps if isinstance(step, Task))
    return {target.key for target in found if isinstance(target, TaskRef)}
