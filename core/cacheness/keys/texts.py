"""Names that stand in the texts of a function's code: what it imports, evaluates or asks a frame for by name."""

from __future__ import annotations

import re
import types
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cacheness.keys.bytecode import Name, info_of

_IMPORTS: Final = frozenset({"import_module", "resolve_name", "__import__", "find_spec"})
_EVALUATES: Final = frozenset({"eval", "exec", "compile", "query"})
_MODULE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
#: pandas takes such names from the frame of the caller.
_OF_FRAME: Final = re.compile(r"@([A-Za-z_]\w*)")


@dataclass(frozen=True, slots=True)
class Texts:
    """What a code object and those inside of it hold as text, as far as it leads somewhere."""

    words: frozenset[str]  #: global names and attributes
    strings: frozenset[str]
    names: tuple[Name, ...]  #: global names in texts that are evaluated
    modules: tuple[str, ...]  #: possible names of modules in texts that are imported


_known: dict[int, tuple[weakref.ref[types.CodeType], Texts]] = {}


def texts_of(code: types.CodeType) -> Texts:
    """What there is to know of the texts in a code object; found once."""
    key = id(code)
    known = _known.get(key)
    if known is None or known[0]() is not code:
        gone = weakref.ref(code, lambda _, key=key: _known.pop(key, None))  # type: ignore[misc]
        known = _known[key] = (gone, _read(code))
    return known[1]


def _read(code: types.CodeType) -> Texts:
    words, strings = frozenset(code.co_names), frozenset(_strings(code.co_consts))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = texts_of(constant)
            words, strings = words | inner.words, strings | inner.strings
    names = {name for text in strings for name in _names_in(text)} if words & _EVALUATES else set()
    named = {text.partition(":")[0] for text in strings} if words & _IMPORTS else set()
    return Texts(words, strings, tuple(sorted(names)), tuple(sorted(n for n in named if _MODULE.fullmatch(n))))


def _strings(constants: tuple[object, ...]) -> Iterator[str]:
    for constant in constants:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, tuple):
            yield from _strings(constant)


def _names_in(text: str) -> Iterator[Name]:
    yield from (Name(name) for name in _OF_FRAME.findall(text))
    try:
        yield from info_of(compile(text, "<text>", "exec")).names
    except (SyntaxError, ValueError):
        return  # no code
