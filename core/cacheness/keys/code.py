"""Functions to fingerprints: the code that will run, and all the code of the user's that it reaches.

A function or class of the user's is a node: its own code, and the values it refers to by name.
Values that are functions or classes again lead to further nodes; all others are encoded.
`graph.py` turns the nodes into digests. What was found is kept, and at the next call only
looked at again: names must still lead to the same objects, and mutable values must still
have the same encoding.
"""

from __future__ import annotations

import functools
import pathlib
import sys
import types
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from blake3 import blake3

import cacheness.keys.callables  # how functions and classes are encoded
from cacheness.keys.encode import FORMAT, Encoder, encode, known_types
from cacheness.keys.files import File
from cacheness.keys.graph import Vertex, digests_of
from cacheness.keys.owners import owner_of, owner_of_class
from cacheness.keys.reach import is_reached, labels_of, name_of, place_of_value, unseen_in, values_of
from cacheness.keys.trace import Unencodable, place_of

#: Names that an entry tells one by one; more are told by module.
MOST_PARTS: Final = 80
#: Encodings of what is code itself, or is not there.
_NOT_VALUES: Final = (b"R", b"@2:of", b"@7:missing", b"@7:written", b"@6:import", b"N")
#: Values that cannot change: to see the same object again is enough.
_SETTLED: Final = frozenset({type(None), bool, int, float, complex, types.EllipsisType, types.ModuleType})
_PYTHON: Final = f"{sys.version_info[0]}.{sys.version_info[1]}"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What decides the result of a function, apart from its arguments."""

    digest: bytes  #: 32 bytes
    name: str  #: the qualified name
    parts: Mapping[str, Mapping[str, str]]  #: short digests of "code" and "values" by name; "versions"
    unfollowed: tuple[str, ...]  #: what counts by its type only


class _Reader(Encoder):
    """Encodes values that code refers to. The user's functions and classes are left to be read on their own."""

    __slots__ = ("edges", "place", "tolerant", "unfollowed", "versions")
    #: A global like `Path(__file__).parent` says where the code is, not what it reads.
    reads_directories = False

    def __init__(self, place: str, versions: dict[str, str], tolerant: bool) -> None:
        super().__init__()
        self.place = place
        self.versions = versions
        self.tolerant = tolerant
        self.edges: list[Any] = []
        self.unfollowed: list[str] = []

    def reference(self, thing: Any) -> None:
        self.out += b"R"
        self.edges.append(thing)

    def library(self, name: str, version: str) -> None:
        super().library(name, version)
        self.versions[name] = version

    def add(self, value: Any) -> None:
        kind = type(value)
        if kind in _TRANSPARENT or not self.tolerant:
            super().add(value)
            return
        edges, marks = self.edges, (len(self.out), len(self.edges), len(self._stack))
        # A part of the user's object may count by its type; a library's object counts as a whole.
        self.tolerant = owner_of_class(kind).kind == "user"
        try:
            super().add(value)
        except Unencodable:
            self._roll_back(edges, *marks)
            self.tolerant = True
            self._by_type(value)
        finally:
            self.tolerant = True

    def _roll_back(self, edges: list[Any], out: int, count: int, depth: int) -> None:
        del self.out[out:]
        self.edges = edges
        del self.edges[count:]
        del self._stack[depth:]
        self._levels = {key: level for key, level in self._levels.items() if level < depth}

    def _by_type(self, value: Any) -> None:
        kind = type(value)
        wrapped = getattr(value, "__wrapped__", None) if callable(value) else None
        self.tagged("by type", kind, wrapped)
        if wrapped is None:
            place = place_of(self.place, [*self._stack, value])
            self.unfollowed.append(f"{place}: {kind.__module__}.{kind.__qualname__}")

    def pairs(self, mapping: Mapping[Any, Any]) -> None:
        outer, self.edges = self.edges, []
        for key in mapping:
            self.apart(key)
        named, self.edges = bool(self.edges), outer
        if named:
            self.unordered(mapping.items())
        else:
            super().pairs(mapping)

    def unordered(self, members: Iterable[tuple[Any, ...]]) -> None:
        outer, found = self.edges, []
        for member in members:
            self.edges = []
            found.append((b"".join([self.apart(value) for value in member]), self.edges))
        self.edges = outer
        if any(edges for _, edges in found):
            # How they sort is known only when what they refer to has its digest.
            self.out += b"U"
            self.edges.append(_Bag(found))
        else:
            self.out += b"".join(sorted(content for content, _ in found))


class _Bag:
    """Members of a set that refer to code, each an encoding and what it refers to."""

    __slots__ = ("members",)

    def __init__(self, members: list[tuple[bytes, list[Any]]]) -> None:
        self.members = members

    def vertices(self) -> dict[Hashable, Vertex]:
        """This bag and its members, for the graph."""
        members = {(id(self), at): Vertex(b"member" + c, _names(edges)) for at, (c, edges) in enumerate(self.members)}
        return {id(self): Vertex(b"bag", list(members), ordered=False), **members}

    def outline(self) -> tuple[Any, ...]:
        """Tells whether two bags are the same, while what they refer to is alive."""
        return tuple((content, _outline(edges)) for content, edges in self.members)


def _names(edges: Iterable[Any]) -> list[Hashable]:
    return [id(edge) for edge in edges]


def _outline(edges: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(edge.outline() if type(edge) is _Bag else id(edge) for edge in edges)


@dataclass(slots=True)
class _Value:
    """A value that code refers to, as it was found: how it was encoded, and whether it can change."""

    content: bytes
    edges: list[Any]
    unfollowed: list[str]
    settled: bool
    outline: tuple[Any, ...] = ()

    def forget_objects(self) -> None:
        """Keep only what tells the same objects again, so that nothing lives on for our sake."""
        self.outline = _outline(self.edges)
        self.edges = []

    def is_still(self, value: Any) -> bool:
        """Whether the value is encoded as it was."""
        again = _read(value, "", {})
        return again.content == self.content and _outline(again.edges) == self.outline


def _read(value: Any, place: str, versions: dict[str, str], tolerant: bool = True) -> _Value:
    reader = _Reader(place, versions, tolerant)
    reader.run(value, place)
    content = bytes(reader.out)
    settled = content == b"R" or content.startswith(b"@7:by type") or _is_settled(value)
    return _Value(content, reader.edges, reader.unfollowed, settled)


def _is_settled(value: Any) -> bool:
    kind = type(value)
    if kind in _SETTLED:
        return True
    if kind is str or kind is bytes:
        return len(value) < 1024
    if kind is tuple or kind is frozenset:
        return len(value) < 100 and all(map(_is_settled, value))
    if kind is types.BuiltinFunctionType:
        return isinstance(value.__self__, types.ModuleType)
    if kind is types.FunctionType:
        return value.__closure__ is None and owner_of(value.__globals__.get("__name__")).kind in ("python", "library")
    return isinstance(value, type) and owner_of_class(value).kind != "user"


@dataclass(slots=True)
class _Node:
    """A function, class or module of the user's, as it was found."""

    thing: Callable[[], Any]  #: a weak reference
    name: str
    labels: list[str]
    values: list[_Value]
    identities: list[int]  #: of the values; 0 for one that must be encoded again
    kept: list[Any]  #: lest an identity be used again

    def holds(self) -> bool:
        """Whether it is alive, and everything it refers to by name is as it was."""
        thing = self.thing()
        if thing is None or (type(thing) is not types.FunctionType and labels_of(thing) != self.labels):
            return False
        values = values_of(thing)
        identities = list(map(id, values))
        if identities == self.identities:
            return True
        if len(identities) != len(self.identities):
            return False
        return all(
            self.values[at].is_still(values[at]) if known == 0 else known == identities[at]
            for at, known in enumerate(self.identities)
        )

    def pairs(self) -> Iterable[tuple[str, _Value]]:
        """The values by their labels."""
        return zip(self.labels, self.values, strict=True)

    def vertex(self) -> Vertex:
        """What it is by itself; the order in which a class lists its attributes does not matter."""
        named = sorted(self.pairs(), key=lambda pair: pair[0])
        content = b"".join([encode((label, value.content)) for label, value in named])
        return Vertex(content, [name for _, value in named for name in _names(value.edges)])


def _survey(thing: Any, versions: dict[str, str]) -> _Node:
    """Read one function, class or module of the user's."""
    name, labels, values = name_of(thing), labels_of(thing), values_of(thing)
    found = [_read(value, f"{name}: {label}", versions) for label, value in zip(labels, values, strict=True)]
    pairs = list(zip(values, found, strict=True))
    identities = [id(value) if known.settled else 0 for value, known in pairs]
    # Functions and classes of the user's are not kept alive: their own nodes see when they are gone.
    kept = [value for value, known in pairs if known.settled and not known.edges]
    return _Node(weakref.ref(thing), name, labels, found, identities, kept)


class _Plan:
    """A fingerprint, and all that must still be as it was for the fingerprint to hold."""

    def __init__(self, fn: Any) -> None:
        versions = {"python": _PYTHON}
        # What a partial or an instance carries is given like an argument, and like one it must be encodable.
        self._root = _read(fn, _called(fn), versions, tolerant=False)
        self._nodes: dict[int, _Node] = {}
        self._alive: list[Any] = []  # while identities stand for objects
        graph = self._explore(versions)
        start = encode(("fingerprint", FORMAT, _PYTHON, self._root.content))
        graph["root"] = Vertex(start, _names(self._root.edges))
        digest = digests_of(graph)["root"]
        unseen = [line for thing in self._alive for line in unseen_in(thing)]
        unfollowed = [line for node in self._nodes.values() for value in node.values for line in value.unfollowed]
        self.fingerprint = Fingerprint(
            digest, _called(fn), _parts(self._nodes.values(), versions), tuple(sorted({*unseen, *unfollowed}))
        )
        self._alive.clear()
        for value in [self._root, *(value for node in self._nodes.values() for value in node.values)]:
            value.forget_objects()

    def _explore(self, versions: dict[str, str]) -> dict[Hashable, Vertex]:
        graph: dict[Hashable, Vertex] = {}
        waiting = list(self._root.edges)
        while waiting:
            thing = waiting.pop()
            if type(thing) is _Bag:
                graph.update(thing.vertices())
                waiting += [edge for _, edges in thing.members for edge in edges]
            elif id(thing) not in graph:
                node = self._nodes[id(thing)] = _survey(thing, versions)
                graph[id(thing)] = node.vertex()
                self._alive.append(thing)
                waiting += [edge for value in node.values for edge in value.edges]
        return graph

    def holds(self, fn: Any) -> bool:
        """Whether the fingerprint would come out the same again."""
        if self._root.content != b"R" and not self._root.is_still(fn):
            return False
        return all(node.holds() for node in self._nodes.values())


#: By identity of what was fingerprinted, for as long as that lives.
_plans: dict[int, tuple[weakref.ref[Any], _Plan]] = {}


def fingerprint(fn: Any) -> Fingerprint:
    """Find out what decides the result of a callable. Quick when nothing has changed since the last time."""
    key = id(fn)
    known = _plans.get(key)
    if known is not None and known[0]() is fn and known[1].holds(fn):
        return known[1].fingerprint
    plan = _Plan(fn)
    try:
        _plans[key] = (weakref.ref(fn, lambda _: _plans.pop(key, None)), plan)
    except TypeError:
        pass  # cannot be told from its successor at the same address
    return plan.fingerprint


def _called(fn: Any) -> str:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return str(getattr(fn, "__qualname__", None) or type(fn).__qualname__)


def _parts(nodes: Iterable[_Node], versions: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
    code: dict[str, str] = {}
    values: dict[str, str] = {}
    for node in nodes:
        own = [value.content for label, value in node.pairs() if not is_reached(label)]
        code[node.name] = _short(b"".join(own))
        values |= {
            place_of_value(node.name, label): _short(value.content)
            for label, value in node.pairs()
            if is_reached(label) and not value.content.startswith(_NOT_VALUES)
        }
    return {"code": _grouped(code), "values": _grouped(values), "versions": dict(versions)}


def _short(content: bytes) -> str:
    return blake3(content).hexdigest(6)


def _grouped(digests: Mapping[str, str]) -> Mapping[str, str]:
    """By module where there are many, so that a row stays small."""
    if len(digests) <= MOST_PARTS:
        return digests
    groups: dict[str, list[str]] = {}
    for name in sorted(digests):
        groups.setdefault(name.partition(".")[0] + ".*", []).append(name + digests[name])
    return {group: _short("\n".join(lines).encode()) for group, lines in groups.items()}


Encoder.digest_of_code = staticmethod(lambda thing: (_called(thing), fingerprint(thing).digest))
#: They fail only when something within them does. A path may be missing.
_TRANSPARENT: Final = frozenset(known_types()) - {pathlib.PosixPath, pathlib.WindowsPath, File}
