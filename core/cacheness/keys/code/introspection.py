"""List attributes of functions, classes and modules that count only if code reads them.

Docstrings, annotations, a function's attributes and a class's subclasses decide nothing unless code
reads them. The names that reachable code reads are known once all code was read.
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from cacheness.keys.code.additions import additions_to, users_subclasses
from cacheness.keys.code.counters import ADDED_TO
from cacheness.keys.code.environment import files_named_in, variables_named_in
from cacheness.keys.code.per_code import once_per_code
from cacheness.keys.code.texts import names_in, texts_of
from cacheness.keys.error_paths import FAILURES

_DOCSTRING: Final = frozenset({"__doc__", "getdoc", "getdocs", "help", "render_doc"})
_ANNOTATIONS: Final = frozenset(
    {
        *("__annotations__", "__annotate__", "get_annotations", "get_type_hints", "signature", "getfullargspec"),
        *("validate_call", "TypeAdapter", "typechecked", "beartype"),
    }
)
_ATTRIBUTES: Final = frozenset({"__dict__", "vars", "getmembers", "getmembers_static"})
_WRAPPED: Final = frozenset({"signature", "unwrap", "getsource", "get_type_hints"})
_SUBCLASSES: Final = "__subclasses__"


def reads_of(thing: Any) -> Collection[str]:
    """Return the names of attributes that a function reads, of any object.

    With a prefix, those that it increments.
    """
    return _reads_of_code(thing.__code__) if isinstance(thing, types.FunctionType) else ()


def _read(code: types.CodeType) -> frozenset[str]:
    texts = texts_of(code)
    counted = (ADDED_TO + name for name in texts.counted)
    return texts.reads.union(counted, variables_named_in(code), files_named_in(code))


_reads_of_code: Final = once_per_code(_read)


def parts_asked_of(thing: Any, asked: Collection[str]) -> dict[str, Any]:
    """Return, by labels, the parts of an object that count because reachable code reads these names."""
    if not asked:
        return {}
    if isinstance(thing, types.FunctionType):
        return dict(_of_function(thing, asked))
    found = {"docstring": thing.__doc__} if _asks(asked, _DOCSTRING) and vars(thing).get("__doc__") else {}
    if isinstance(thing, type):
        if _asks(asked, _ANNOTATIONS):
            found["annotated with"] = _resolved(vars(thing).get("__annotations__") or {}, _names_around(thing))
        if _SUBCLASSES in asked:
            found["subclasses"] = users_subclasses(thing) or None
    return {label: value for label, value in found.items() if value}


def attributes_asked_of(fn: types.FunctionType, asked: Collection[str]) -> list[str]:
    """Return the names of a function's attributes that count."""
    if not fn.__dict__:
        return []
    if _asks(asked, _ATTRIBUTES):
        return sorted(name for name in fn.__dict__ if name != "__wrapped__")
    wrapped = _asks(asked, _WRAPPED)
    return sorted(name for name in fn.__dict__ if name in asked or (wrapped and name == "__wrapped__"))


def _of_function(fn: types.FunctionType, asked: Collection[str]) -> Iterator[tuple[str, Any]]:
    if _asks(asked, _DOCSTRING) and (docstrings := [fn.__doc__, *_docstrings_in(fn.__code__)]) != [None]:
        yield "docstring", docstrings
    if "__doc__" in reads_of(fn):
        yield "docstring of the module", fn.__globals__.get("__doc__")
    if _asks(asked, _ANNOTATIONS) and (annotations := _annotations_of(fn)):
        yield "annotations", annotations
        if resolved := _resolved(annotations, fn.__globals__):
            yield "annotated with", resolved
    if "__type_params__" in asked and (parameters := getattr(fn, "__type_params__", ())):
        yield "type parameters", parameters
    for name in attributes_asked_of(fn, asked):
        yield f"attribute {name}", fn.__dict__[name]
    for name, value in additions_to(reads_of(fn)).items():
        yield f"addition {name}", value


def _asks(asked: Collection[str], names: frozenset[str]) -> bool:
    return not names.isdisjoint(asked)


def _docstrings_in(code: types.CodeType) -> Iterator[str]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            if constant.co_consts and isinstance(constant.co_consts[0], str):
                yield constant.co_consts[0]
            yield from _docstrings_in(constant)


def _annotations_of(fn: types.FunctionType) -> dict[str, Any]:
    with suppress(*FAILURES):  # Python 3.14 evaluates them now
        return dict(fn.__annotations__)
    return {}


def _resolved(annotations: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of names in annotations that are texts."""
    texts = [value.__forward_arg__ if isinstance(value, typing.ForwardRef) else value for value in annotations.values()]
    wanted = {name.name for text in texts if isinstance(text, str) for name in names_in(text)}
    return {name: names[name] for name in sorted(wanted) if name in names}


def _names_around(cls: type) -> Mapping[str, Any]:
    return vars(sys.modules.get(cls.__module__, types.ModuleType("")))
