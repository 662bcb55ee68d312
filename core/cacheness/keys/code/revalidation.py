"""Check quickly whether everything in a fingerprint is unchanged.

Most names are looked up and compared in bulk, once per module. Objects are compared by identity:
either they are kept here, or they are functions and classes of the user's, which are held weakly,
and everything is read again when one of them is collected.
"""

from __future__ import annotations

import builtins
import types
import weakref
from collections.abc import Callable, Collection, Iterable
from operator import itemgetter
from typing import Any, TypeAlias

from cacheness.keys.code.additions import version_of_additions
from cacheness.keys.code.bytecode import info_of
from cacheness.keys.code.introspection import attributes_asked_of
from cacheness.keys.code.reader import Value
from cacheness.keys.code.references import MISSING, Parts, first_name_in, labels_of, values_of

#: Attributes that a class gets at its creation, and keeps.
_MADE_ONCE = frozenset(
    {"__annotations__", "__attrs_attrs__", "__attrs_props__", "__dataclass_fields__", "__dataclass_params__"}
)

_Ref: TypeAlias = Callable[[], Any]


class Watch:
    """Remembers objects of the user's and the values they refer to."""

    def __init__(self, found: Iterable[tuple[Any, Parts, list[Value]]], asked: Collection[str]) -> None:
        self._additions = version_of_additions()
        self._scopes: dict[int, _ModuleNames] = {}
        self._functions: list[_Function] = []
        self._slow: list[_Slots] = []
        self._kept: list[Any] = []
        builtin_names = self._scope(vars(builtins), lambda: vars(builtins))
        for thing, parts, values in found:
            slots = _Slots(thing, parts, values, self._kept, asked)
            if type(thing) is types.FunctionType:
                self._functions.append(_Function(thing, slots, asked))
                self._share_names(thing, slots, builtin_names)
            if slots.checks:
                self._slow.append(slots)
            for value in values:
                value.drop_objects()
        self._quick = [scope for scope in self._scopes.values() if scope.close()]

    def holds(self) -> bool:
        """Return True when all of them are alive, and refer to the same values."""
        if self._additions != version_of_additions():
            return False
        for checks in (self._functions, self._quick, self._slow):  # a loop, because this is in each hit
            for check in checks:
                if not check.holds():
                    return False
        return True

    def _scope(self, names: dict[str, Any], of: Callable[[], dict[str, Any]]) -> _ModuleNames:
        return self._scopes.setdefault(id(names), _ModuleNames(of))

    def _share_names(self, fn: types.FunctionType, slots: _Slots, builtin_names: _ModuleNames) -> None:
        """Add names to be looked up together with those of the module's other functions."""
        names = fn.__globals__
        ref = slots.thing
        scope = self._scope(names, lambda: ref().__globals__)
        for at, name in enumerate(info_of(fn.__code__).names, first_name_in(fn)):
            known = slots.checks.get(at)
            if known is None or not known.settled:
                continue
            found = names.get(name.name, MISSING)
            if id(found) == slots.identities[at]:
                scope.present[name.name] = id(found)
                self._expect_library_s(found, name.attributes)
            elif found is MISSING and id(vars(builtins).get(name.name, MISSING)) == slots.identities[at]:
                scope.absent.add(name.name)
                builtin_names.expect(name.name, slots.identities[at])
            elif not self._share_attribute(scope, name.name, found, name.attributes, slots.identities[at]):
                continue
            del slots.checks[at]

    def _expect_library_s(self, found: Any, attributes: tuple[str, ...]) -> None:
        """Attributes of a library's module must be the same, because the user may have replaced functions there."""
        if attributes and type(found) is types.ModuleType:
            value = vars(found).get(attributes[0], MISSING)
            self._kept.append(value)
            self._scope(vars(found), lambda: vars(found)).expect(attributes[0], id(value))

    def _share_attribute(
        self, scope: _ModuleNames, name: str, module: Any, attributes: tuple[str, ...], identity: int
    ) -> bool:
        if type(module) is not types.ModuleType or id(vars(module).get(attributes[0], MISSING)) != identity:
            return False
        scope.present[name] = id(module)
        self._kept.append(module)
        self._scope(vars(module), lambda: vars(module)).expect(attributes[0], identity)
        return True


class _Function:
    """A function's parts: code, defaults, closure."""

    __slots__ = ("_asked", "_attributes", "_cells", "_code", "_defaults", "_keywords", "_ref")

    def __init__(self, fn: types.FunctionType, slots: _Slots, asked: Collection[str]) -> None:
        self._ref: _Ref = slots.thing
        self._code = fn.__code__
        self._asked, self._attributes = asked, attributes_asked_of(fn, asked)
        self._defaults, self._keywords = slots.take(1), slots.take(2)
        cells = [slots.take(at) for at in range(3, first_name_in(fn))]
        self._cells = cells if any(cells) else None

    def holds(self) -> bool:
        """Return True when it is alive, and those parts are the same objects."""
        fn = self._ref()
        return (
            fn is not None
            and fn.__code__ is self._code
            and self._defaults in (0, id(fn.__defaults__))
            and self._keywords in (0, id(fn.__kwdefaults__))
            and (self._cells is None or self._has_cells(fn.__closure__))
            and (not fn.__dict__ or attributes_asked_of(fn, self._asked) == self._attributes)
        )

    def _has_cells(self, closure: tuple[types.CellType, ...]) -> bool:
        try:
            return all(
                known in (0, id(cell.cell_contents)) for known, cell in zip(self._cells or (), closure, strict=True)
            )
        except ValueError:
            return False  # emptied since


class _ModuleNames:
    """Names of one module, and their values."""

    def __init__(self, names: Callable[[], dict[str, Any]]) -> None:
        self._names = names
        self.present: dict[str, int] = {}
        self.absent: set[str] = set()

    def expect(self, name: str, identity: int) -> None:
        """Expect this object under a name, or no object."""
        if identity == id(MISSING):
            self.absent.add(name)
        else:
            self.present[name] = identity

    def close(self) -> bool:
        """Prepare; return False when there is nothing to check."""
        # A single name is looked up twice, because an itemgetter of one returns no tuple.
        names = [*self.present, *self.present] if len(self.present) == 1 else [*self.present]
        self._look_up = itemgetter(*names) if names else None
        self._identities = [self.present[name] for name in names]
        return bool(self.present or self.absent)

    def holds(self) -> bool:
        """Return True when all names have the same values."""
        names = self._names()
        try:
            if self._look_up is not None and list(map(id, self._look_up(names))) != self._identities:
                return False
        except KeyError:
            return False
        return names.keys().isdisjoint(self.absent)


class _Slots:
    """The values that one object refers to and that must be checked one by one."""

    def __init__(self, thing: Any, parts: Parts, values: list[Value], kept: list[Any], asked: Collection[str]) -> None:
        self._asked = asked
        self.thing: _Ref = weakref.ref(thing)
        self._labels = None if type(thing) is types.FunctionType else parts.labels
        objects = parts.values
        for label, known in zip(self._labels or (), values, strict=False):
            known.settled |= label in _MADE_ONCE
        self.identities = list(map(id, objects))
        self.checks = dict(enumerate(values))
        # Functions and classes of the user's are not kept alive: they are checked themselves.
        kept += [value for value, known in zip(objects, values, strict=True) if known.settled and known.content != b"R"]
        if self._labels is None:
            del self.checks[0]  # the code, which `_Function` compares

    def take(self, at: int) -> int:
        """Return the identity of an object that another check covers; 0 if identity is not enough."""
        if not self.checks[at].settled or self.identities[at] == id(MISSING):
            return 0
        del self.checks[at]
        return self.identities[at]

    def holds(self) -> bool:
        """Return True when these are unchanged."""
        thing = self.thing()
        if thing is None or (self._labels is not None and labels_of(thing, self._asked) != self._labels):
            return False
        values = values_of(thing, self._asked)
        return len(values) == len(self.identities) and all(
            id(values[at]) == self.identities[at] if known.settled else known.is_still(values[at])
            for at, known in self.checks.items()
        )
