"""Encode instances: their class, and their state by the pickle protocol.

The protocol's result is encoded like any other value. Its bytes are never used: they depend on the
order of attributes, on shared objects, and on the version of Python.
"""

from __future__ import annotations

import copyreg
import enum
import sys
import types
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from cacheness.keys.encode import Encoder, handles_family, handles_the_rest
from cacheness.keys.error_paths import FAILURES, Unencodable, brief_of
from cacheness.keys.owners import OURS, is_held, module_of, owner_of, owner_of_class
from cacheness.keys.values.attributes import add_attributes, held, left_out

_MOCKS: Final = frozenset({"NonCallableMock", "_Call"})


@handles_the_rest
def instance(encoder: Encoder, value: Any) -> None:
    """Append an instance: its class, and its state by the pickle protocol."""
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


def _is_namespace(kind: type) -> bool:
    """Return True when instances are plain attributes, whose order shows when they are printed."""
    return issubclass(kind, types.SimpleNamespace) or any(
        base.__module__ == "argparse" and base.__qualname__ == "Namespace" for base in kind.__mro__
    )


def is_mock(kind: type) -> bool:
    """Return True for classes of mocks: each mock has a separate one."""
    return any(base.__module__ == "unittest.mock" and base.__qualname__ in _MOCKS for base in kind.__mro__)


@handles_family(is_mock)
def _mock(_: Encoder, value: Any) -> None:
    # A mock has every attribute, and each of them has every attribute too.
    raise Unencodable(f"a {type(value).__qualname__} answers as a test has set it up: pass the value that it replaces")


@handles_family(_is_namespace)
def _namespace(encoder: Encoder, value: types.SimpleNamespace) -> None:
    if (start := encoder.enter(value)) >= 0:
        encoder.tagged("namespace", type(value))
        add_attributes(encoder, value, held(value), in_order=True)
        encoder.leave(value, start)


@handles_family(lambda kind: issubclass(kind, (set, frozenset)))
def _set_subclass(encoder: Encoder, value: set[Any] | frozenset[Any]) -> None:
    # The pickle protocol would list the members in the order of their hashes.
    if (start := encoder.enter(value)) >= 0:
        encoder.tagged("set", type(value), frozenset(value))
        add_attributes(encoder, value, held(value))
        encoder.leave(value, start)


@handles_family(lambda kind: issubclass(kind, BaseException))
def _exception(encoder: Encoder, value: BaseException) -> None:
    # Libraries extend pickle to include tracebacks, which give a place and not a value.
    if (start := encoder.enter(value)) >= 0:
        encoder.tagged("exception", type(value), value.args)
        add_attributes(encoder, value, _members(value) | held(value))
        encoder.leave(value, start)


def _members(error: BaseException) -> dict[str, Any]:
    """Return the attributes of a Python exception besides its arguments: its cause and context, a file's name."""
    found = {}
    for cls in type(error).__mro__:
        if cls.__module__ != "builtins":
            continue
        for name, member in vars(cls).items():
            if type(member) in _MEMBERS and name not in _NOT_PARTS:
                with suppress(AttributeError):
                    found[name] = getattr(error, name)
    # Unset attributes are left out, so that a member that a later Python adds changes no key.
    return {name: part for name, part in found.items() if part is not None and part is not False}


_MEMBERS: Final = (types.MemberDescriptorType, types.GetSetDescriptorType)
_NOT_PARTS: Final = frozenset({"args", "__dict__", "__traceback__"})


@handles_family(lambda kind: isinstance(kind, enum.EnumMeta))
def _enum(encoder: Encoder, value: enum.Enum) -> None:
    if (start := encoder.enter(value)) >= 0:
        encoder.tagged("enum", type(value), value.name, value.value)
        # Enums keep internal data under names like `_value_`.
        own = {name: part for name, part in held(value).items() if not (name[:1] == "_" == name[-1:])}
        add_attributes(encoder, value, {name: part for name, part in own.items() if name != "__objclass__"})
        encoder.leave(value, start)


#: Objects that read a file of which only the name is known.
_NAMES_ONLY: Final = frozenset({("zipfile", "Path"), ("zipfile._path", "Path"), ("zipp", "Path")})


@handles_family(lambda kind: any((base.__module__, base.__qualname__) in _NAMES_ONLY for base in kind.__mro__))
def _place_in_archive(_: Encoder, value: Any) -> None:
    raise Unencodable(
        f"a {type(value).__module__}.{type(value).__qualname__} is a place in an archive, and not its content:"
        " pass the archive's path and the name within"
    )


#: Written in C since Python 3.12, without a dictionary of these; evaluated on access.
_OF_TYPING: Final = {
    **dict.fromkeys(("TypeVar", "ParamSpec", "TypeVarTuple"), ("__bound__", "__constraints__", "__default__")),
    "TypeAliasType": ("__value__", "__type_params__"),
}


@handles_family(
    lambda kind: sys.version_info >= (3, 12) and kind.__module__ == "typing" and kind.__name__ in _OF_TYPING
)
def _of_typing(encoder: Encoder, value: Any) -> None:
    if (start := encoder.enter(value)) >= 0:
        parts = [getattr(value, name, None) for name in _OF_TYPING[type(value).__name__]]
        encoder.tagged("typing", type(value), value.__name__, *parts)
        for variance in ("__covariant__", "__contravariant__"):
            encoder.add(getattr(value, variance, None))
        encoder.leave(value, start)


def _global(encoder: Encoder, value: Any, name: str) -> None:
    """Append an object that pickle would find by its name: a library's by name; the user's by content, too."""
    if name.endswith("(vectorized)"):
        raise Unencodable("a function that `numpy.frompyfunc` made hides the one that it calls")
    module = getattr(value, "__module__", None)
    module = module if isinstance(module, str) else module_of(type(value))
    owner = owner_of(module)
    encoder.tagged("global", type(value), name)
    if owner.kind == "library":
        encoder.library(owner.name, owner.version)
    if owner.kind == "user" or not is_held(value, module, name):
        add_attributes(encoder, value, held(value))


def _reduce(value: Any) -> Any:
    kind = type(value)
    reducer = copyreg.dispatch_table.get(kind)
    try:
        return reducer(value) if reducer is not None else value.__reduce_ex__(4)
    except FAILURES as error:
        if isinstance(error, AttributeError) and _states_fields(kind):
            return (copyreg.__newobj__, (kind,), held(value))  # type: ignore[attr-defined] # a field is not set yet
        raise Unencodable(f"{module_of(kind)}.{kind.__qualname__} cannot be taken apart ({brief_of(error)})") from error


def _states_fields(kind: type) -> bool:
    """Return True when attrs or dataclasses wrote the pickling, and instances are only attributes."""
    states = getattr(kind, "__getstate__", None)
    generated = getattr(states, "__globals__", {}).get("__name__") in ("attr._make", "dataclasses")
    return generated and not issubclass(kind, (dict, list, tuple)) and kind.__reduce_ex__ is object.__reduce_ex__


def _walk(encoder: Encoder, value: Any, reduced: tuple[Any, ...]) -> None:
    made: list[Any] = [*reduced, None, None, None, None]
    make, arguments, state, items, pairs, setter = made[:6]
    beside = left_out(value, state)
    if beside:
        encoder.open("beside", 2)
        add_attributes(encoder, value, beside)
    if make in _NEW:
        encoder.tagged("object", make is _NEW[1], arguments[0])
        arguments = arguments[1:]
    else:
        encoder.tagged("made", type(value), make)
    if isinstance(value, tuple):
        encoder.add(getattr(type(value), "_fields", None))  # a library creates classes that differ in nothing else
    encoder.step("", arguments)
    _add_state(encoder, value, state)
    encoder.step("", None if items is None else list(items))
    encoder.step("", None if pairs is None else _in_order(pairs))
    encoder.add(setter)


def _in_order(pairs: Iterable[tuple[Any, Any]]) -> Any:
    listed = list(pairs)
    found = dict(listed)
    return found if len(found) == len(listed) else listed


_NEW: tuple[Any, Any] = (copyreg.__newobj__, copyreg.__newobj_ex__)  # type: ignore[attr-defined]


def _add_state(encoder: Encoder, value: Any, state: Any) -> None:
    halves = state if type(state) is tuple and len(state) == 2 else (state,)
    encoder.open("state", len(halves))
    for half in halves:
        if half is None:
            add_attributes(encoder, value, {})  # the same as an empty dictionary
        elif type(half) is dict and all(type(name) is str for name in half):
            add_attributes(encoder, value, half)
        else:
            encoder.step("", half)
