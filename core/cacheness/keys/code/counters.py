"""Find counters in objects: attributes that code only increments, and that nothing reads.

Counters decide nothing, and would change the key of each next call. They are left out of a key only
if all uses of the object are visible: it is an instance of plain classes of the user's, and neither
the function that names it nor one of its methods passes it on. In doubt they count.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from cacheness.keys.code.bytecode import info_of
from cacheness.keys.code.texts import texts_of
from cacheness.keys.encode import Encoder, handles, is_registered
from cacheness.keys.owners import owner_of_class
from cacheness.keys.values.attributes import add_attributes

#: Prefix of incremented attributes among the names that are read.
ADDED_TO: Final = "+="
#: A class with one of these controls access to its attributes, or exposes all of them.
_SPECIAL: Final = frozenset(
    {
        *("__getattr__", "__getattribute__", "__setattr__", "__delattr__", "__slots__", "__cacheness_key__"),
        *("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__"),
        *("__copy__", "__deepcopy__", "__del__", "__init_subclass__"),
    }
)
_OF_ALL_CLASSES: Final = frozenset({"__dict__", "__weakref__", "__annotate__", "__annotate_func__"})
_NUMBERS: Final = frozenset({int, float})


class Counting:
    """Replaces an object of which some attributes do not count."""

    def __init__(self, owner: Any, names: list[str]) -> None:
        self.owner, self.names = owner, names


@handles(Counting)
def _counting(encoder: Encoder, value: Counting) -> None:
    # The object is not marked as entered: if one of its parts refers back to it, its counters are visible, and count.
    attributes = {name: part for name, part in vars(value.owner).items() if name not in value.names}
    encoder.tagged("counting", type(value.owner))
    add_attributes(encoder, value.owner, attributes)


def counting(fn: types.FunctionType, closure: Mapping[str, Any], asked: Collection[str]) -> dict[str, Counting]:
    """Return the objects with counters that a function refers to, by name; `asked` is what all the code reads."""
    counted = _counted_among(frozenset(asked))
    if not counted:
        return {}
    texts, names = texts_of(fn.__code__), {name.name for name in info_of(fn.__code__).names}
    known = {**closure, **{name: fn.__globals__[name] for name in names if name in fn.__globals__}}
    found = {}
    for name in known.keys() - texts.handed:
        if counters := _counters_of(known[name], counted, texts.taken):
            found[name] = Counting(known[name], counters)
    return found


@functools.lru_cache(256)
def _counted_among(asked: frozenset[str]) -> frozenset[str]:
    return frozenset(name[len(ADDED_TO) :] for name in asked if name.startswith(ADDED_TO)) - asked


def _counters_of(thing: Any, counted: frozenset[str], taken: frozenset[str]) -> list[str]:
    cls = type(thing)
    if type(cls) is not type or cls.__module__ == "builtins" or not _is_plain(cls, taken):
        return []
    classes, held = cls.__mro__[:-1], vars(thing)
    return sorted(
        name
        for name in counted
        if type(held.get(name, 0)) in _NUMBERS and all(type(vars(c).get(name, 0)) in _NUMBERS for c in classes)
    )


def _is_plain(cls: type, taken: frozenset[str]) -> bool:
    """Return True when an instance stays within known code, unless one of these attributes is read."""
    if cls.__mro__[-1] is not object or not cls.__dictoffset__ or is_registered((cls,)):
        return False
    classes = cls.__mro__[:-1]
    if any(owner_of_class(base).kind != "user" or not _SPECIAL.isdisjoint(vars(base)) for base in classes):
        return False
    members = [(name, part) for base in classes for name, part in vars(base).items() if name not in _OF_ALL_CLASSES]
    taken_by_methods = set[str]()
    for fn in (fn for _, member in members for fn in _functions_in(member)):
        if fn is None or not _keeps_itself(fn):
            return False
        taken_by_methods |= texts_of(fn.__code__).taken
    methods = {name for name, member in members if type(member) is types.FunctionType}
    return methods.isdisjoint(taken) and methods.isdisjoint(taken_by_methods)


def _functions_in(member: Any) -> Iterator[types.FunctionType | None]:
    """Return the functions to which an attribute of a class passes an instance; None if unknown."""
    if isinstance(member, (staticmethod, classmethod, type)):
        return
    parts = (member.fget, member.fset, member.fdel) if type(member) is property else (member,)
    for part in parts:
        if isinstance(part, types.FunctionType):
            yield part
        elif part is not None and (callable(part) or hasattr(type(part), "__get__")):
            yield None


def _keeps_itself(method: types.FunctionType) -> bool:
    code = method.__code__
    return code.co_argcount > 0 and code.co_varnames[0] not in texts_of(code).handed
