"""Decide whether a function's result may differ each time: what it and the code that it reaches draw.

The user's functions are read, with the same rule as in keys for whose code it is. A parameter that
is passed on as the seed is judged at the call: `simulate(3)` draws and `simulate(3, seed=1)` does
not.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterable, Iterator
from dataclasses import field, replace
from itertools import chain
from typing import Any, Final, Protocol

from cacheness.keys.code.calls import (
    CallInCode,
    Constant,
    Given,
    Known,
    Of,
    Symbol,
    applied,
    defaults_of,
    trace_of,
)
from cacheness.keys.code.random_calls import (
    LOOKED_AT,
    Draw,
    drawn_by,
    drawn_when_called,
    is_declared_innocent,
    seeded_by,
)
from cacheness.keys.code.reader import Bag, Value
from cacheness.keys.owners import HEAP_TYPE
from cacheness.keys.values.attributes import ABSENT, wrapped_by
from cacheness.lazy_dataclass import dataclass

_CONSTRUCTORS: Final = ("__init__", "__new__", "__post_init__")
#: Draws of a new instance only.
_OF_NEW_INSTANCES: Final = (*_CONSTRUCTORS, "__dataclass_fields__", "model")


class ReadCode(Protocol):
    """A function or class of the user's, as read for a key."""

    @property
    def thing(self) -> Any:
        """Itself."""
        ...

    def pairs(self) -> Iterable[tuple[str, Value]]:
        """Return the values of its components, by their labels."""
        ...


@dataclass(slots=True)
class _Found:
    """What a function draws and seeds, each perhaps only with or without one of its parameters."""

    draws: list[Draw] = field(default_factory=list)
    seeds: dict[str, str] = field(default_factory=dict)  #: process-wide generator: the parameter it needs

    def seed(self, sources: Iterable[str], needs: str) -> None:
        for source in sources:
            if self.seeds.get(source) != "":
                self.seeds[source] = needs


def chance_among(root: Any, edges: Iterable[Any], nodes: Iterable[ReadCode]) -> tuple[Draw, ...]:
    """Return what a callable draws, given the user code that it reaches, by `edges`."""
    return tuple(dict.fromkeys(Chances(nodes).when_used(root, edges)))


class Chances:
    """Among the nodes of one function."""

    def __init__(self, nodes: Iterable[ReadCode]) -> None:
        self._nodes = {id(node.thing): node for node in nodes}
        self._known: dict[int, _Found] = {}

    def when_used(self, root: Any, edges: Iterable[Any]) -> list[Draw]:
        """Return what an object that leads to these nodes draws. A function may be called with or without a seed."""
        if isinstance(root, types.FunctionType):
            return self.of(root).draws
        return list(self._unconditional(edges))

    def when_called(self, call: CallInCode) -> list[Draw]:
        """Return what one call draws."""
        found = _Found()
        for each in applied(call):
            if draw := drawn_by(each):
                found.draws.append(draw)
            else:
                self._called(each, found, set())
        return found.draws

    def of(self, thing: Any) -> _Found:
        """Return what a node draws when it is called; for a class, what its instances draw when used."""
        known = self._known.get(id(thing))
        if known is None:
            known = self._known[id(thing)] = _Found()  # also the answer during a recursion
            node = self._nodes.get(id(thing))
            if node is not None and not is_declared_innocent(thing):
                if isinstance(thing, types.FunctionType):
                    self._function(thing, node, known)
                elif isinstance(thing, type):
                    known.draws += self._class(node)
        return known

    def _class(self, node: ReadCode) -> Iterator[Draw]:
        for label, value in node.pairs():
            yield from (draw for draw in value.drawn if draw.kept or label not in _OF_NEW_INSTANCES)
            if label not in _OF_NEW_INSTANCES:
                yield from self._unconditional(value.edges)

    def _unconditional(self, edges: Iterable[Any], but: Iterable[int] = ()) -> Iterator[Draw]:
        left_out = set(but)
        for edge in _flat(edges):
            if id(edge) not in left_out:
                yield from (draw for draw in self.of(edge).draws if not draw.unless)

    def _function(self, fn: types.FunctionType, node: ReadCode, found: _Found) -> None:
        trace, called = trace_of(fn), set[int]()
        for call in chain.from_iterable(map(applied, trace.calls)):
            if seeded := seeded_by(call):
                found.seed(*seeded)
            elif draw := drawn_by(call):
                found.draws.append(_named(draw, fn, "calls"))
            else:
                self._called(call, found, called)
        for symbol, without in trace.handed:
            value = symbol.value if isinstance(symbol, Known) else ABSENT
            if type(value) in LOOKED_AT and (draw := drawn_when_called(value)):
                found.draws.append(_named(replace(draw, unless=without), fn, "uses"))
            elif value is not ABSENT:
                self._called(CallInCode(symbol, spread=True, without=without), found, called)
        values = [value for _, value in node.pairs()]
        for value in values:
            found.draws += [_named(draw, fn, "uses") for draw in value.drawn]
            found.draws += self._unconditional(value.edges, called)
        found.draws[:] = list(_not_seeded(found))

    def _called(self, call: CallInCode, found: _Found, called: set[int]) -> None:
        """Add the draws of the user's functions that a call reaches."""
        for fn, offset in self._targets(call.callee, called):
            inner = self.of(fn)
            found.draws += [d for draw in inner.draws for d in _at(draw, fn, offset, call)]
            for source, needs in inner.seeds.items():
                for draw in _seeded_at(needs, fn, offset, call):
                    found.seed([source], draw)

    def _targets(self, callee: Symbol, called: set[int]) -> Iterator[tuple[types.FunctionType, int]]:
        method = isinstance(callee, Of)
        symbol = callee.found if isinstance(callee, Of) else callee
        value = symbol.value if isinstance(symbol, Known) else ABSENT
        if isinstance(value, type):
            called.add(id(value))
            yield from ((fn, 1) for fn in self._constructors(value))
            return
        while value is not ABSENT and id(value) not in self._nodes:
            value = wrapped_by(value)
        if isinstance(value, types.FunctionType):
            called.add(id(value))
            first = value.__code__.co_varnames[:1]
            yield value, int(method or first in (("cls",), ("mcs",)))

    def _constructors(self, cls: type) -> Iterator[types.FunctionType]:
        if not cls.__flags__ & HEAP_TYPE:
            return  # one of the interpreter's, such as `str`
        for name in _CONSTRUCTORS:
            member = inspect.getattr_static(cls, name, None)
            member = member.__func__ if isinstance(member, staticmethod) else member
            if isinstance(member, types.FunctionType) and id(member) in self._nodes:
                yield member


def _flat(edges: Iterable[Any]) -> Iterator[Any]:
    for edge in edges:
        if type(edge) is Bag:
            yield from _flat(inner for _, members in edge.members for inner in members)
        else:
            yield edge


def _named(draw: Draw, fn: types.FunctionType, verb: str) -> Draw:
    return replace(draw, what=f"{fn.__qualname__} {verb} {draw.what}")


def _at(draw: Draw, fn: types.FunctionType, offset: int, call: CallInCode) -> Iterator[Draw]:
    """Return the remaining draws at a call of the function."""
    if not draw.unless:
        yield replace(draw, unless=call.without)
        return
    given = _argument(draw.unless, fn, offset, call)
    if given is None:
        yield replace(draw, unless=call.without)
    elif isinstance(given, Given):
        yield replace(draw, unless=given.name)


def _seeded_at(needs: str, fn: types.FunctionType, offset: int, call: CallInCode) -> Iterator[str]:
    if not needs:
        yield call.having
    elif isinstance(given := _argument(needs, fn, offset, call), Given):
        yield given.name
    elif given is not None:
        yield call.having


def _argument(name: str, fn: types.FunctionType, offset: int, call: CallInCode) -> Symbol | None:
    """Return the value for a parameter, its default if not given; None for None."""
    position = fn.__code__.co_varnames.index(name) - offset
    given = call.argument(name, position if position < fn.__code__.co_argcount else None)
    if given is None:
        given = Constant(defaults_of(fn).get(name))
    return None if isinstance(given, Constant) and given.value is None else given


def _not_seeded(found: _Found) -> Iterator[Draw]:
    for draw in found.draws:
        needs = [found.seeds[source] for source in draw.sources if source in found.seeds]
        if not needs:
            yield draw
        elif "" not in needs:
            yield draw if draw.unless else replace(draw, unless=needs[0])
