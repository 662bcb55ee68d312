"""Encode an object's attributes, including those that pickle leaves out."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cacheness.keys.encode import Encoder
from cacheness.keys.error_paths import FAILURES
from cacheness.keys.owners import module_of, owner_of_class

#: A stored hash, which differs in each process.
_HASHES: Final = frozenset({"_attrs_cached_hash"})
_MEMOIZING: Final = ("sqlalchemy.util.langhelpers", "HasMemoized")
#: By package and class, attributes in which a library stores values computed from the others.
_MEMOS: Final = {
    ("click", "Command"): frozenset({"_help_option"}),
    ("jinja2", "Environment"): frozenset({"cache"}),  # of templates; the templates in it count by their loader
    ("jinja2", "Template"): frozenset({"_module"}),
    ("pyparsing", "ParserElement"): frozenset({"streamlined", "_defaultName"}),
}
_DESCRIPTIONS: Final = frozenset({"__dict__", "__weakref__"})
#: Stands for a missing value.
ABSENT: Final = object()


def add_attributes(encoder: Encoder, value: Any, attributes: Mapping[str, Any], *, in_order: bool = False) -> None:
    """Append named parts of an object, sorted, because most code cannot see the order in which they were set."""
    kind = type(value)
    memoized = _memoized(kind, attributes)
    names = [name for name in attributes if name not in memoized and not _is_derived(kind, name)]
    if in_order:
        encoder.open("attributes in order", len(names))
        encoder.pairs(((name, attributes[name]) for name in names), ".".__add__)
        return
    encoder.open("attributes", len(names))
    for name in sorted(names):
        encoder.word(name)
        encoder.step("." + name, attributes[name])


def _is_derived(kind: type, name: str) -> bool:
    # A cached property is computed from the others, and may be absent. Libraries have similar
    # descriptors: a getter without a setter, which the attribute of its name overrides.
    if name in _HASHES:
        return True
    getter = inspect.getattr_static(kind, name, None)
    return isinstance(getter, functools.cached_property) or (
        hasattr(getter, "fget")
        and not hasattr(type(getter), "__set__")
        and owner_of_class(type(getter)).kind == "library"
    )


def _memoized(kind: type, attributes: Mapping[str, Any]) -> frozenset[str]:
    found: frozenset[str] = frozenset()
    for base in kind.__mro__:
        # A statement of SQLAlchemy stores values that were computed when it ran, and lists their names.
        if (base.__module__, base.__name__) == _MEMOIZING:
            found |= {"_memoized_keys", *attributes.get("_memoized_keys", ())}
        found |= _MEMOS.get((module_of(base).partition(".")[0], base.__name__), frozenset())
    return found


def held(value: Any) -> dict[str, Any]:
    """Return all attributes that an object stores: in its dictionary, and in slots of classes written in Python."""
    return {**getattr(value, "__dict__", {}), **_slots(value, type(value).__mro__)}


def left_out(value: Any, given: Any) -> dict[str, Any]:
    """Return attributes that `__reduce__` or `__getstate__` of a base class does not know, and so leaves out.

    `given` is the state that it returned. A method in the user's class is trusted for its instances.
    """
    mro = type(value).__mro__
    teller = next(
        at
        for at, cls in enumerate(mro)
        if cls is object or (not _TELLING.isdisjoint(vars(cls)) and not _tells_all(vars(cls)))
    )
    if mro[teller] is object:
        return {}
    found = _slots(value, mro[:teller])
    if _ignores_the_dictionary(mro[teller]):
        found |= getattr(value, "__dict__", {})
    halves = given if isinstance(given, tuple) else (given,)
    known = {name for half in halves if isinstance(half, dict) for name in half}
    known |= _memoized(type(value), found)
    return {name: part for name, part in found.items() if name not in known}


def _ignores_the_dictionary(teller: type) -> bool:
    # A base class that stores something, and has no dictionary, does not know the dictionary of a
    # subclass. A mixin stores nothing, and may leave attributes out on purpose.
    if teller.__dictoffset__:
        return owner_of_class(teller).kind == "python"
    return teller.__basicsize__ > object.__basicsize__


_TELLING: Final = frozenset({"__reduce__", "__reduce_ex__", "__getstate__"})


def _tells_all(namespace: Mapping[str, Any]) -> bool:
    """Return True when a class only repeats a method of `object`, as `__reduce__ = object.__reduce__` would."""
    return all(namespace.get(name) in (None, vars(object)[name]) for name in _TELLING)


def _slots(value: Any, classes: tuple[type, ...]) -> dict[str, Any]:
    return {name: part for cls in classes for name, part in _slots_of(value, cls)}


def _slots_of(value: Any, cls: type) -> Iterator[tuple[str, Any]]:
    if "__slots__" not in vars(cls):
        return  # compiled classes show their construction as members, and are handled elsewhere
    for name, member in vars(cls).items():
        if type(member) is types.MemberDescriptorType and name not in _DESCRIPTIONS:
            try:
                yield name, member.__get__(value)
            except AttributeError:
                continue  # never set


def wrapped_by(value: Any) -> Any:
    """Return the object wrapped by a decorated function or object, or `ABSENT`.

    The attribute must be stored: some objects have every attribute, without end.
    """
    try:
        attributes = object.__getattribute__(value, "__dict__")
    except FAILURES:
        attributes = {}
    if "__wrapped__" in attributes:
        return attributes["__wrapped__"]
    if inspect.getattr_static(type(value), "__wrapped__", ABSENT) is ABSENT:
        return ABSENT
    return getattr(value, "__wrapped__", ABSENT)
