"""Compute Merkle fingerprints of a materialised graph: what each task computes, independent of its key.

Dask's own keys and tokens cannot be used: they differ between interpreters, and they collide. A
fingerprint is BLAKE3 over the function's fingerprint, the literal arguments in the core's canonical
encoding, and the fingerprints of the dependencies. Each value becomes a *term* (`encoding.py`).

A literal and a data node with the same value have the same term, and so have a task and the same
task inside of a fused one, because fusion depends on the hash seed.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, TypeAlias, cast

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

from cacheness import CachenessError
from cacheness.incomplete import quote
from cacheness.isolation import isolated
from cacheness.keys import FORMAT, Chance, Inputs, digest_of, encode, fingerprint
from cacheness.keys.encode import Encoder
from cacheness.keys.error_paths import WAYS_OUT, deciding
from cacheness.keys.inputs import MOST_STRINGS, paths_in
from cacheness.keys.key import sets_of
from cacheness.keys.owners import owner_of_class
from cacheness_dask.bound import arguments_that_decide, called_in, is_partial, keywords_that_decide
from cacheness_dask.chance import draws_by_itself, refuse_chance
from cacheness_dask.columns import names_in
from cacheness_dask.cut_off import FIRST_INPUT, TaskInputs, is_fused, places_in
from cacheness_dask.encoding import DOMAIN, NAMED_FILE, RESULT, SCALARS, NotCacheable, container, text
from cacheness_dask.graphs import IDENTITY, last_step, topological
from cacheness_dask.marks import is_mark, is_marked_inside
from cacheness_dask.sources_and_sinks import (
    FileState,
    guard_nested,
    identity_of_source,
    is_storing,
    note_file,
    noted,
    noting_files,
    refuse_function,
    remote_file,
    target_of,
)
from cacheness_dask.task_checksums import clue, of_step, parts_of_call

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

#: What a user can do about an argument without an encoding: no function is decorated here, and no key is given.
_WAYS_OUT: Final = (
    "Define what counts of its type (cacheness_dask.register_source(type, identity) or a __cacheness_key__ method), or"
    " make it inside of the task"
)

Names: TypeAlias = frozenset[str]
#: Represents the result of another task, whichever it is.
_SLOT: Final = b"r" + bytes(32)


class Clues(Mapping[Any, bytes]):
    """What `explain` compares, by key of a task. Most are never needed: those of plain calls are made on demand.

    Args:
        known: those that exist already.
        made: makes another one.
    """

    def __init__(
        self, known: dict[Any, bytes] | None = None, made: Callable[[Any], bytes | None] = lambda _: None
    ) -> None:
        self.known: dict[Any, bytes] = {} if known is None else known
        self._made = made

    def __getitem__(self, key: Any) -> bytes:
        found = self.known.get(key)
        if found is None:
            found = self._made(key)
        if found is None:
            raise KeyError(key)
        return found

    def __iter__(self) -> Iterator[Any]:
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)


@dataclass(slots=True)
class Fingerprints:
    """The facts about each task that the wanted keys need."""

    digests: dict[Any, bytes] = field(default_factory=dict)  #: of tasks that may be looked up and stored
    terms: dict[Any, bytes] = field(default_factory=dict)  #: of every node that has one
    refused: dict[Any, str] = field(default_factory=dict)  #: why a task has no fingerprint
    plumbing: set[Any] = field(default_factory=set)  #: fingerprinted, and never looked up or stored
    marked: set[bytes] = field(default_factory=set)  #: digests of results that a user marked
    cuttable: list[Any] = field(default_factory=list)  #: fused tasks with a mark inside
    clues: Mapping[Any, bytes] = field(default_factory=dict)  #: with these, `explain` finds what changed in a task
    incomplete: dict[Any, tuple[str, ...]] = field(default_factory=dict)  #: what can decide a result and is not visible
    files: dict[str, FileState] = field(default_factory=dict)  #: whose content counts, with their state
    inputs: dict[Any, Inputs] = field(default_factory=dict)  #: the files of each node that names any
    functions: dict[bytes, types.FunctionType] = field(default_factory=dict)  #: those that occurred, by their digests
    _names: dict[bytes, str] = field(default_factory=dict, repr=False)
    groups: dict[Any, list[Names]] = field(default_factory=dict)  #: of these, those that count together
    texts: dict[Any, dict[Names, bytes]] = field(default_factory=dict)  #: digests with some files by their names
    #: Return a task's own content, and the places of other tasks' results in it; None if unknown.
    inputs_of: Callable[[Any], TaskInputs | None] = field(default=lambda _: None, repr=False)

    def entry_of(self, digest: bytes) -> str:
        """Return the key of the entry with this fingerprint, like `entry_key`, but cached."""
        name = self._names.get(digest)
        if name is None:
            name = self._names[digest] = entry_key(digest)
        return name


def fingerprints(
    graph: Mapping[Any, GraphNode],
    keys: Iterable[Any],
    futures: Mapping[Any, bytes | None] | None = None,
    as_text: Mapping[Any, Names] = MappingProxyType({}),
    *,
    refuse_incomplete: bool = False,
    instead: Mapping[bytes, bytes] = MappingProxyType({}),
    standing: Mapping[Any, bytes] = MappingProxyType({}),
) -> Fingerprints:
    """Fingerprint every node that `keys` need.

    `futures` are the keys that a client already holds, with the term of the submitted task, or None
    if it is unknown. Dask uses their results, whatever this graph contains for them. `as_text` has
    for some tasks the files that count by their names, because these tasks wrote them. `instead`
    has for some functions' digests those of earlier code, which count in their place; `standing`
    has for some tasks the fingerprints of results that stand in for theirs, so that later tasks are
    made from these.
    """
    guard_nested()
    with noting_files() as files:
        walk = _Walk(graph, futures or {}, as_text, refuse_incomplete, instead)
        found = walk.run(list(keys), standing)
    found.files = files
    return found


def entry_key(digest: bytes) -> str:
    """Return the key of the entry with this fingerprint, as 64 hexadecimal digits.

    It equals `make_key(args={}, function=Digest(digest))`, without encoding the rest each time.
    """
    return blake3(_BEFORE + digest + _AFTER).hexdigest()


def _around(digest: bytes) -> tuple[bytes, bytes]:
    before, after = encode((FORMAT, digest, None, "", {})).split(digest)
    return before, after


_BEFORE, _AFTER = _around(bytes(range(32)))


class _Walk:
    """One pass over one graph. Literals and functions are hashed once, by identity."""

    def __init__(
        self,
        graph: Mapping[Any, GraphNode],
        futures: Mapping[Any, bytes | None],
        as_text: Mapping[Any, Names],
        refuse_incomplete: bool,
        instead: Mapping[bytes, bytes],
    ) -> None:
        self._graph = graph
        self._instead = instead
        self._as_text = as_text
        self._text: Names = frozenset()  # files of the current node that count by their names
        self._groups: list[Names] = []  # files of the current node that count together
        self._found = Fingerprints()
        self._futures = futures
        self._functions: dict[int, tuple[Any, bytes | NotCacheable, Inputs]] = {}
        self._literals: dict[int, tuple[Any, bytes, Inputs]] = {}
        self._strings: dict[str, tuple[bytes, Inputs]] = {}  # those that may name files
        self._inputs = Inputs()  # of the current node
        self._left = MOST_STRINGS  # strings of the current argument that may still be checked
        self._targets: set[Any] = set()  # and of what these are made
        self._bound: dict[int, list[bytes]] = {}  # terms of the code and of bound arguments, of partials and methods
        self._chances: dict[int, Chance] = {}  # of functions that draw unless they are seeded
        self._kinds: dict[type, str] = {}  # why a task with such an argument is refused: it may call any method
        self._orders: dict[int, tuple[Any, list[Any]]] = {}
        self._refuse_incomplete = refuse_incomplete
        self._gaps: dict[int, tuple[str, ...]] = {}  # what is not visible of a function or literal
        self._unseen: list[str] = []  # the same, of the current task
        #: Functions whose calls have only scalars and results as arguments: the start of a call's digest.
        self._plain: dict[int, tuple[Any, bytes]] = {}
        self._marks = 0
        self._parts: tuple[int, list[bytes]] = (0, [])  # of the previous task: steps, and terms
        self._shuffles = {
            cast("Any", node).spec.id for node in graph.values() if type(node).__name__ == "P2PBarrierTask"
        }  # made of tokens, so they must not be part of a fingerprint

    def run(self, keys: list[Any], standing: Mapping[Any, bytes]) -> Fingerprints:
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
            marks, self._inputs, self._left, self._groups = self._marks, Inputs(), MOST_STRINGS, []
            self._unseen = []
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
        self._inputs, self._left, self._groups, self._unseen = Inputs(), MOST_STRINGS, [], []
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
        others = set[int]()  # functions that write to none
        for key in order:
            node = self._graph[key]
            if not isinstance(node, Task) or id(node.func) in others:
                continue
            if node.func is not _execute_subgraph:
                targets, given = _targets_of([node]), dict[Any, Any]()
                if not is_storing(node.func):
                    others.add(id(node.func))
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
        return container(b"pieces", [b"v" + _digest(remote_file(reader.fs, path)) for path in paths])

    def _is_plumbing(self, node: Task) -> bool:
        step = last_step(node)
        if not isinstance(step, Task):
            return False
        node = step
        func = node.func if hasattr(node.func, "__qualname__") else type(node.func)
        return f"{getattr(func, '__module__', '')}:{func.__qualname__}" in _PLUMBING

    # values

    def _term(self, value: Any, scope: Mapping[Any, bytes]) -> bytes:
        kind = type(value)
        scalar = SCALARS.get(kind)
        if scalar is not None:
            return scalar(value)
        if kind is str:
            return self._string(value)
        if kind is list or kind is tuple or kind is set or kind is frozenset:
            return self._members(kind, value, scope)
        if kind is dict:
            # In order: a function may depend on it, as pandas.DataFrame does.
            parts = [
                part for name, kept in value.items() for part in (self._word(name, scope), self._term(kept, scope))
            ]
            return container(b"dict", parts)
        return self._other(value, scope)

    def _other(self, value: Any, scope: Mapping[Any, bytes]) -> bytes:
        if isinstance(value, TaskRef):  # a distributed Future is one
            return self._reference(value.key, scope)
        if isinstance(value, GraphNode):
            return self._node(value, scope)
        known = self._literals.get(id(value))
        if known is not None and not self._text.isdisjoint(known[2].found):
            return self._literal(value)
        if known is None:
            with self._apart() as inputs:
                known = self._literals[id(value)] = (value, self._literal(value), inputs)
        self._take(known[2])
        if self._gaps:
            self._note_gaps(value)
        return known[1]

    def _take(self, inputs: Inputs) -> None:
        """Record the files of a part."""
        if inputs:
            self._inputs.merge(inputs)
            if inputs.found:
                self._groups.append(frozenset(inputs.found))

    @contextmanager
    def _apart(self) -> Iterator[Inputs]:
        """Record files separately, if the object with them occurs again."""
        outer, self._inputs, left, self._left = self._inputs, Inputs(), self._left, MOST_STRINGS
        token = noted.set(self._inputs)
        try:
            yield self._inputs
            for counted in self._inputs.found.values():
                if counted.path and not counted.is_folder:
                    note_file(counted.path)
        finally:
            noted.reset(token)
            self._inputs, self._left = outer, left

    def _literal(self, value: Any) -> bytes:
        if callable(value) and not isinstance(value, type):
            return self._function(value)
        source = identity_of_source(value)
        if source is not None:
            return container(b"source", [b"v" + _digest(source)])
        if type(value) not in self._kinds:
            users = owner_of_class(type(value)).kind == "user"
            self._kinds[type(value)] = next(iter(Chance(type(value)).always), "") if users else ""
        if reason := self._kinds[type(value)] or draws_by_itself(value):
            raise NotCacheable(reason)
        term = b"v" + self._digest(value)
        named = [term for term in map(self._string, names_in(value)) if term[0] == NAMED_FILE]
        return container(b"names", [term, *named]) if named else term

    def _word(self, value: Any, scope: Mapping[Any, bytes]) -> bytes:
        """Return the term of a dictionary's key, which names no file."""
        return b"s" + text(value) if type(value) is str else self._term(value, scope)

    def _string(self, value: str) -> bytes:
        if value in self._shuffles:
            return b"S"
        self._left -= 1
        if value in self._text or self._left < 0 or not paths_in(value):
            return b"s" + text(value)
        known = self._strings.get(value)
        if known is None:
            with self._apart() as inputs:
                encoder = Encoder(inputs)
                is_named = inputs.add_name(encoder, value)
            counted = inputs.found.get(value)
            term = b"s" + text(value)
            if counted is not None:
                term = b"p" + text(value) + counted.encoding
            elif is_named:  # a pattern, and its matches
                term = b"p" + text(value) + blake3(encoder.out).digest()
            known = self._strings[value] = (term, inputs)
        if known[1].found and self._text.issuperset(known[1].found):
            return b"s" + text(value)
        self._take(known[1])
        return known[0]

    def _members(self, kind: Callable[..., Any], values: Iterable[Any], scope: Mapping[Any, bytes]) -> bytes:
        terms = [self._term(value, scope) for value in values]
        if kind is set or kind is frozenset:
            terms.sort()
        elif kind is not list and kind is not tuple:
            terms.append(self._function(kind))
        return container(getattr(kind, "__name__", "members").encode(), terms)

    # functions

    def _function(self, func: Any) -> bytes:
        known = self._functions.get(id(func))
        if known is not None and not self._text.isdisjoint(known[2].found):
            return self._callable(func)
        if known is None:
            with self._apart() as inputs:
                try:
                    known = (func, self._callable(func), inputs)
                except NotCacheable as refusal:
                    known = (func, refusal, inputs)
            self._functions[id(func)] = known
        self._take(known[2])
        if self._gaps:
            self._note_gaps(func)
        if isinstance(known[1], NotCacheable):
            raise NotCacheable(*known[1].args)
        return known[1]

    def _callable(self, func: Any) -> bytes:
        reason = refuse_function(func)
        if reason:
            raise NotCacheable(reason)
        if is_partial(func):
            return self._partial(func)
        self._look_for_chance(func)
        if isinstance(func, types.FunctionType):
            _refuse_coroutine(func)
            return b"v" + self._code(func)
        if isinstance(func, types.MethodType) and not isinstance(func.__self__, type):
            held, code = self._term(func.__self__, {}), self._function(func.__func__)
            self._note_bound(func, [code, held])
            return container(b"method", [held, code])
        if type(func).__name__ == "Compose":  # toolz
            return container(b"compose", [self._term(part, {}) for part in (func.first, *func.funcs)])
        source = identity_of_source(func)
        if source is not None:
            return container(b"source", [b"v" + _digest(source)])
        return self._decorated(func) or b"v" + self._digest(func)

    def _decorated(self, func: Any) -> bytes:
        """Return the term of a cached function, if earlier code counts instead of its code; otherwise b""."""
        inner = getattr(func, "__wrapped__", None)
        if not isinstance(inner, types.FunctionType) or not type(func).__module__.startswith("cacheness."):
            return b""
        found = fingerprint(func).digest
        self._found.functions[found] = inner
        earlier = self._instead.get(found)
        return b"" if earlier is None else b"v" + blake3(encode(func).replace(found, earlier)).digest()

    def _partial(self, func: Any) -> bytes:
        code, keywords = self._term(func.func, {}), keywords_that_decide(func)
        args = [self._term(value, {}) for value in func.args]
        pairs = [term for name, value in keywords.items() for term in (self._word(name, {}), self._term(value, {}))]
        self._note_bound(func, [code, *args, *pairs[1::2]])
        return container(b"partial", [code, container(b"tuple", args), container(b"dict", pairs)])

    def _note_bound(self, func: Any, terms: list[bytes]) -> None:
        if not self._text:
            self._bound[id(func)] = terms

    def _digest(self, value: Any) -> bytes:
        unfollowed: list[str] = []
        digest = _digest(value, Inputs(as_text=True) if self._text else self._inputs, unfollowed)
        self._keep_gaps(value, deciding(unfollowed))
        return digest

    def _code(self, func: types.FunctionType) -> bytes:
        with isolated(_refuse):
            found = fingerprint(func)
            self._keep_gaps(func, found.incomplete)
            self._found.functions[found.digest] = func
            return self._instead.get(found.digest, found.digest)
        raise AssertionError("refusing raises")  # pragma: no cover

    def _keep_gaps(self, thing: Any, unseen: tuple[str, ...]) -> None:
        if unseen and self._refuse_incomplete:
            raise NotCacheable(f"its key is incomplete: {quote(unseen)}")
        if unseen:
            self._gaps[id(thing)] = unseen

    def _note_gaps(self, thing: Any) -> None:
        self._unseen += self._gaps.get(id(thing), ())

    def _look_for_chance(self, func: Any) -> None:
        chance = Chance(func)
        if chance.always:
            raise NotCacheable(chance.always[0])
        if chance.depends:
            self._chances[id(func)] = chance


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


def _digest(value: Any, inputs: Inputs | None = None, unfollowed: list[str] | None = None) -> bytes:
    with isolated(_refuse):
        return digest_of(value, inputs=inputs, unfollowed=unfollowed)
    raise AssertionError("refusing raises")  # pragma: no cover


def _refuse(error: Exception) -> None:
    what = str(error) if isinstance(error, CachenessError) else f"{type(error).__name__}: {error}"
    if what.endswith(WAYS_OUT):
        what = what.removesuffix(WAYS_OUT) + _WAYS_OUT
    raise NotCacheable(f"argument cannot be hashed: {what}") from error


def _refuse_coroutine(func: types.FunctionType) -> None:
    if func.__code__.co_flags & (0x80 | 0x200):  # CO_COROUTINE, CO_ASYNC_GENERATOR
        raise NotCacheable(f"{func.__qualname__} is a coroutine function")
