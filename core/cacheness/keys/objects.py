"""How instances are encoded: their class, and what the pickle protocol says they are made of.

The protocol's answer is walked like any other value. Its bytes are never used: they depend
on the order of attributes, on which objects are shared, and on the version of Python.
"""

from __future__ import annotations

import collections
import copyreg
import enum
import functools
import pickle
import types
from typing import Any

from cacheness.keys.encode import Encoder, handles, handles_family, handles_the_rest
from cacheness.keys.owners import OURS, owner_of, owner_of_class
from cacheness.keys.trace import Unencodable

#: What a class may raise to say that it has no parts to show.
_REFUSALS = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)


@handles_the_rest
def _instance(encoder: Encoder, value: Any) -> None:
    if owner_of_class(type(value)) == OURS and hasattr(value, "__wrapped__"):
        encoder.add(value.__wrapped__)  # a cached function counts as the function
        return
    if (start := encoder.enter(value)) < 0:
        return
    reduced = _reduce(value)
    if isinstance(reduced, str):
        _global(encoder, value, reduced)
    else:
        _walk(encoder, value, reduced)
    encoder.leave(value, start)


@handles(types.SimpleNamespace)
def _namespace(encoder: Encoder, value: types.SimpleNamespace) -> None:
    if (start := encoder.enter(value)) >= 0:
        encoder.tagged("SimpleNamespace")
        _attributes(encoder, value, vars(value))
        encoder.leave(value, start)


@handles_family(lambda kind: issubclass(kind, (set, frozenset)))
def _set_subclass(encoder: Encoder, value: set[Any] | frozenset[Any]) -> None:
    # The pickle protocol would list the members in the order of their hashes.
    if (start := encoder.enter(value)) >= 0:
        encoder.tagged("set", type(value), frozenset(value))
        _attributes(encoder, value, getattr(value, "__dict__", {}))
        encoder.leave(value, start)


@handles_family(lambda kind: hasattr(kind, "__attrs_attrs__"))
def _attrs(encoder: Encoder, value: Any) -> None:
    # Not its __dict__, which may hold a hash that differs in each process.
    if (start := encoder.enter(value)) >= 0:
        names = [field.name for field in type(value).__attrs_attrs__]
        encoder.tagged("attrs", type(value))
        _attributes(encoder, value, {name: getattr(value, name) for name in names if hasattr(value, name)})
        encoder.leave(value, start)


@handles_family(lambda kind: issubclass(kind, BaseException))
def _exception(encoder: Encoder, value: BaseException) -> None:
    # Libraries teach pickle to take tracebacks along, which say where and not what.
    if (start := encoder.enter(value)) >= 0:
        encoder.tagged("exception", type(value), value.args)
        _attributes(encoder, value, vars(value))
        encoder.leave(value, start)


@handles_family(lambda kind: isinstance(kind, enum.EnumMeta))
def _enum(encoder: Encoder, value: enum.Enum) -> None:
    encoder.tagged("enum", type(value), value.name, value.value)


def _global(encoder: Encoder, value: Any, name: str) -> None:
    """A thing that pickle would find by its name: a library's counts by that, and by the library."""
    module = getattr(value, "__module__", None)
    owner = owner_of(module) if isinstance(module, str) else owner_of_class(type(value))
    encoder.tagged("global", type(value), name)
    if owner.kind == "library":
        encoder.library(owner.name, owner.version)


def _reduce(value: Any) -> Any:
    kind = type(value)
    reducer = copyreg.dispatch_table.get(kind)
    try:
        return reducer(value) if reducer is not None else value.__reduce_ex__(4)
    except RecursionError:
        raise
    except (*_REFUSALS, pickle.PickleError) as error:
        raise Unencodable(f"{kind.__module__}.{kind.__qualname__} cannot be taken apart ({error})") from error


def _walk(encoder: Encoder, value: Any, reduced: tuple[Any, ...]) -> None:
    made: list[Any] = [*reduced, None, None, None, None]
    make, arguments, state, items, pairs, setter = made[:6]
    if make in _NEW:
        encoder.tagged("object", make is _NEW[1], arguments[0])
        arguments = arguments[1:]
    else:
        encoder.tagged("made", type(value), make)
    encoder.step("", arguments)
    _add_state(encoder, value, state)
    encoder.step("", None if items is None else list(items))
    if isinstance(value, collections.OrderedDict):
        encoder.step("", list(pairs))
    else:
        encoder.step("", None if pairs is None else dict(pairs))
    encoder.add(setter)


_NEW: tuple[Any, Any] = (copyreg.__newobj__, copyreg.__newobj_ex__)  # type: ignore[attr-defined]


def _add_state(encoder: Encoder, value: Any, state: Any) -> None:
    halves = state if type(state) is tuple and len(state) == 2 else (state,)
    encoder.open("state", len(halves))
    for half in halves:
        if half is None:
            _attributes(encoder, value, {})  # no different from an empty dictionary
        elif type(half) is dict and all(type(name) is str for name in half):
            _attributes(encoder, value, half)
        else:
            encoder.step("", half)


def _attributes(encoder: Encoder, value: Any, attributes: dict[str, Any]) -> None:
    # A cached property is computed from the others, and may or may not be there yet.
    kind = type(value)
    names = [n for n in attributes if not isinstance(getattr(kind, n, None), functools.cached_property)]
    encoder.open("attributes", len(names))
    for name in sorted(names):
        encoder.add(name)
        encoder.step("." + name, attributes[name])
