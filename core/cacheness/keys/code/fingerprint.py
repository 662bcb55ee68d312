"""Compute fingerprints of functions: the code that will run, and all user code that it reaches.

A function or class of the user's is a node: its code, and the values it refers to by name. Values
that are functions or classes lead to further nodes; all others are encoded. `merkle.py` turns the
nodes into digests. The result is kept, and at the next call only checked: names must still refer to
the same objects, and mutable values must have the same encoding.
"""

from __future__ import annotations

import functools
import sys
import types
import weakref
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

from blake3 import blake3

from cacheness.keys.code.additions import look_for
from cacheness.keys.code.bytecode import body_of
from cacheness.keys.code.calls import UNKNOWN, CallInCode, Symbol, called_as
from cacheness.keys.code.contexts import changed_settings
from cacheness.keys.code.function_code import FunctionCode, canonical
from cacheness.keys.code.introspection import reads_of
from cacheness.keys.code.merkle import Vertex, digests_of
from cacheness.keys.code.parameters import parameters_of
from cacheness.keys.code.random_calls import LOOKED_AT, Draw, of_call, when_registered
from cacheness.keys.code.randomness import Chances, chance_among
from cacheness.keys.code.reader import Bag, Value, names_of, read
from cacheness.keys.code.references import (
    Parts,
    full_name,
    is_labelled_so,
    is_reached,
    name_of,
    parts_of,
    place_of_value,
    unseen_in,
)
from cacheness.keys.code.revalidation import Watch
from cacheness.keys.encode import FORMAT, Encoder
from cacheness.keys.encode import encode_code as encode
from cacheness.keys.error_paths import deciding
from cacheness.lazy_dataclass import dataclass

#: Names that an entry lists one by one; more are listed by module.
MOST_PARTS: Final = 80
#: Encodings of code, and of absent names.
_NOT_VALUES: Final = (b"R", b"@2:of", b"@7:missing", b"@7:written", b"@6:import", b"N")
#: Hexadecimal digits that distinguish a component from its earlier state.
_SHORT: Final = 12
_PYTHON: Final = f"{sys.version_info[0]}.{sys.version_info[1]}"


@dataclass(frozen=True)
class Fingerprint:
    """What decides the result of a function, apart from its arguments."""

    digest: bytes  #: 32 bytes
    name: str  #: module:qualified name
    components: Mapping[str, Mapping[str, str]]  #: short digests by kind and name: code, values, bound, loose, versions
    unfollowed: tuple[str, ...]  #: what is not visible
    body: str = ""  #: a short digest of the code without its name, for `explain`; it does not count
    chance: tuple[Draw, ...] = ()  #: random numbers that it draws
    parameters: str = ""  #: digest of its parameters in order; it does not count

    @property
    def incomplete(self) -> tuple[str, ...]:
        """Return what is not visible and can decide the result."""
        return deciding(self.unfollowed)

    @functools.cached_property
    def code(self) -> FunctionCode | None:
        """Return the code's description for entries; None if the code does not count."""
        if not self.components:
            return None
        parts = {
            **self.components,
            "fingerprint": self.digest.hex(),
            "body": self.body,
            "parameters": self.parameters,
            "unfollowed": self.unfollowed,
            "incomplete": self.incomplete,
        }
        return FunctionCode(self.name, self.name.partition(":")[0], canonical(parts))


#: By identity of the fingerprinted object, as long as it lives.
_plans: dict[int, tuple[weakref.ref[Any], _CodeFingerprint]] = {}


def fingerprint(fn: Any) -> Fingerprint:
    """Return what decides the result of a callable, apart from its arguments. Fast when nothing has changed.

    Args:
        fn: the callable.
    """
    key = id(fn)
    known = _plans.get(key)
    if known is not None and known[0]() is fn and known[1].holds(fn):
        return known[1].fingerprint
    plan = _CodeFingerprint(fn)
    with suppress(
        TypeError
    ):  # without weak references an object cannot be distinguished from a later one at the same address
        _plans[key] = (weakref.ref(fn, functools.partial(_plans.pop, key)), plan)
    return plan.fingerprint


class Chance:
    """Return what a callable, or another object, draws without a seed: always, or for some arguments.

    Args:
        thing: the callable or object.
    """

    def __init__(self, thing: Any) -> None:
        versions: dict[str, str] = {}
        function = thing.__func__ if isinstance(thing, types.MethodType) else thing
        root = read(function, _called(function), versions)
        nodes, _, _ = _explore(root.edges, versions)
        self._chances, self._callee = Chances(nodes), called_as(thing)
        self._always = [*root.drawn, *self._chances.when_used(function, root.edges)]
        self.always = of_call([draw for draw in self._always if not draw.unless], {})  #: as text
        self.depends = not self.always and bool(
            self.in_call([], {}) or self.in_call([UNKNOWN], {})
        )  #: depending on the arguments of a call

    @staticmethod
    def clear() -> None:
        """Drop all kept results, because a rule was registered."""
        _plans.clear()

    def in_call(self, args: Iterable[Symbol], keywords: Mapping[str, Symbol]) -> tuple[str, ...]:
        """Return what a call with these arguments draws, as texts.

        Args:
            args: what is known about the arguments.
            keywords: what is known about the keyword arguments.
        """
        call = CallInCode(self._callee, tuple(args), keywords)
        return self.always or of_call([draw for draw in self._chances.when_called(call) if not draw.unless], {})


class _CodeFingerprint:
    """A fingerprint, and all conditions under which it stays valid."""

    def __init__(self, fn: Any) -> None:
        versions = {"python": _PYTHON}
        # The values in a partial or an instance act as arguments, so they must be encodable too.
        self._root = read(fn, _called(fn), versions, tolerant=False)
        nodes, graph, asked = _explore(self._root.edges, versions)
        start = encode(("fingerprint", FORMAT, _PYTHON, self._root.content))
        graph["root"] = Vertex(start, names_of(self._root.edges))
        self.fingerprint = Fingerprint(
            digests_of(graph)["root"],
            name_of_function(fn),
            _components(nodes, versions) | _bound(fn, self._root.content),
            tuple(sorted({*_unfollowed(nodes), *changed_settings(asked)})),
            _body(_callee(fn)),
            (*self._root.drawn, *chance_among(fn, self._root.edges, nodes)),
            parameters_of(fn) if isinstance(fn, types.FunctionType) else "",
        )
        self._watch = Watch(((node.thing, node.parts, node.values) for node in nodes), asked)
        self._root.drop_objects()

    def holds(self, fn: Any) -> bool:
        """Return True when the fingerprint would be the same again."""
        return (self._root.content == b"R" or self._root.is_still(fn)) and self._watch.holds()


@dataclass(frozen=True, slots=True)
class _Node:
    """A function, class or module of the user's, as last read."""

    thing: Any
    name: str
    parts: Parts
    values: list[Value]

    def pairs(self) -> Iterable[tuple[str, Value]]:
        """Return the values by their labels."""
        return zip(self.parts.labels, self.values, strict=True)

    def vertex(self) -> Vertex:
        """Return its own content; the order in which a class lists its attributes does not matter."""
        named = sorted(self.pairs(), key=lambda pair: pair[0])
        content = b"".join([_labelled(label.encode(), value.content) for label, value in named])
        return Vertex(content, [name for _, value in named for name in names_of(value.edges)])


@dataclass(frozen=True, slots=True)
class Reached:
    """A function, class or module of the user's that a function reaches, by its names among the components."""

    name: str  #: under "code"
    values: tuple[str, ...]  #: under "values": what it refers to
    code: types.CodeType | None  #: of a function


def reached_by(fn: Any) -> list[Reached]:
    """Return the user code that a callable reaches, itself included.

    Args:
        fn: the callable.
    """
    versions: dict[str, str] = {}
    nodes, _, _ = _explore(read(fn, _called(fn), versions, tolerant=False).edges, versions)
    return [
        Reached(
            node.name,
            tuple(place_of_value(node.name, label) for label, _ in node.pairs() if is_reached(label)),
            getattr(node.thing, "__code__", None),
        )
        for node in nodes
    ]


def may_call(caller: Any, callee: Any) -> bool:
    """Return True when the code of a callable may lead to a function, which may be the callable itself.

    Args:
        caller: the callable.
        callee: the function.
    """
    code = getattr(callee, "__code__", None)
    nodes, _, _ = _explore(read(caller, _called(caller), {}, tolerant=False).edges, {})
    if code is None or deciding(_unfollowed(nodes)):
        return True
    waiting = [edge for node in nodes for value in node.values for edge in value.edges]
    while waiting:
        thing = waiting.pop()
        if type(thing) is Bag:
            waiting += [edge for _, edges in thing.members for edge in edges]
        elif getattr(thing, "__code__", None) is code:
            return True
    return False


def group_of(name: str) -> str:
    """Return a component's name in a long list: its module's.

    Args:
        name: the component's own name.
    """
    return name.partition(".")[0] + ".*"


def _labelled(label: bytes, content: bytes) -> bytes:
    return b"%x:%b%x:%b" % (len(label), label, len(content), content)


def _explore(
    edges: Iterable[Any], versions: dict[str, str]
) -> tuple[list[_Node], dict[Hashable, Vertex], frozenset[str]]:
    """Read everything reachable from here, and the names that the code reads."""
    asked: frozenset[str] = frozenset()
    while True:
        nodes, graph = _reach(edges, versions, asked)
        asked = asked.union(*(reads_of(node.thing) for node in nodes))
        look_for(asked)
        # Most code reads no names that were not encoded anyway.
        if all(is_labelled_so(node.thing, node.parts, asked) for node in nodes):
            return nodes, graph, asked


def _reach(
    edges: Iterable[Any], versions: dict[str, str], asked: Collection[str]
) -> tuple[list[_Node], dict[Hashable, Vertex]]:
    nodes: list[_Node] = []
    graph: dict[Hashable, Vertex] = {}
    waiting = list(edges)
    while waiting:
        thing = waiting.pop()
        if type(thing) is Bag:
            graph.update(thing.vertices())
            waiting += [edge for _, edges in thing.members for edge in edges]
        elif id(thing) not in graph:
            node = _read_node(thing, versions, asked)
            nodes.append(node)
            graph[id(thing)] = node.vertex()
            waiting += [edge for value in node.values for edge in value.edges]
    return nodes, graph


def _read_node(thing: Any, versions: dict[str, str], asked: Collection[str]) -> _Node:
    """Read one function, class or module of the user's."""
    name, parts = name_of(thing), parts_of(thing, asked)
    pairs = zip(parts.labels, parts.values, strict=True)
    return _Node(thing, name, parts, [_part(thing, value, f"{name}: {label}", versions) for label, value in pairs])


def _part(thing: Any, value: Any, place: str, versions: dict[str, str]) -> Value:
    part = read(value, place, versions)
    if type(value) in LOOKED_AT and isinstance(thing, types.FunctionType):
        part.drawn = ()  # the function's code shows whether it is called, and how it is seeded
    return part


def _unfollowed(nodes: Iterable[_Node]) -> set[str]:
    unseen = {line for node in nodes for line in unseen_in(node.thing)}
    return unseen | {line for node in nodes for value in node.values for line in value.unfollowed}


def _called(fn: Any) -> str:
    fn = _callee(fn)
    return str(getattr(fn, "__qualname__", None) or type(fn).__qualname__)


def _body(fn: Any) -> str:
    code = getattr(fn, "__code__", None)
    return body_of(code).hex()[:_SHORT] if isinstance(code, types.CodeType) else ""


def name_of_function(fn: Callable[..., Any]) -> str:
    """Return a function's name in entries: its module and its qualified name, joined by a colon.

    Args:
        fn: the function.
    """
    return full_name(_callee(fn))


def _callee(fn: Any) -> Any:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn


def _components(nodes: Iterable[_Node], versions: Mapping[str, str]) -> dict[str, Mapping[str, str]]:
    code: dict[str, str] = {}
    values: dict[str, str] = {}
    loose: dict[str, str] = {}
    for node in nodes:
        own: list[bytes] = []
        for label, value in node.pairs():
            if not is_reached(label):
                own.append(value.content)
                continue
            if not value.content.startswith(_NOT_VALUES):
                values[place_of_value(node.name, label)] = _short(value.content)
            if value.loose:
                loose[place_of_value(node.name, label)] = value.loose.hex()[:_SHORT]
        code[node.name] = _short(b"".join(own))
    found = {"code": _grouped(code), "values": _grouped(values), "versions": dict(versions)}
    return found if not loose or len(values) > MOST_PARTS else {**found, "loose": loose}


def _bound(fn: Any, content: bytes) -> dict[str, dict[str, str]]:
    """Return a callable's data besides code: arguments of a partial, the object of a method, values of an instance."""
    if content.startswith(_NOT_VALUES):
        return {}
    if isinstance(fn, functools.partial):
        what = "bound arguments"
    else:
        what = "object of the method" if isinstance(fn, types.MethodType) else "object that is called"
    return {"bound": {what: _short(content)}}


def _short(content: bytes) -> str:
    return blake3(content).hexdigest()[:_SHORT]


def _grouped(digests: Mapping[str, str]) -> Mapping[str, str]:
    """By module if there are many, so that a row stays small."""
    if len(digests) <= MOST_PARTS:
        return digests
    groups: dict[str, list[str]] = {}
    for name in sorted(digests):
        groups.setdefault(group_of(name), []).append(name + digests[name])
    return {group: _short("\n".join(lines).encode()) for group, lines in groups.items()}


def _digest_of_code(thing: Any) -> tuple[str, bytes, Iterable[str]]:
    found = fingerprint(thing)
    return _called(thing), found.digest, found.unfollowed


Encoder.digest_of_code = staticmethod(_digest_of_code)
when_registered(Chance.clear)
