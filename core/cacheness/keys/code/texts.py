"""Find names in the texts of a function's code: what it imports, evaluates or looks up by name."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from cacheness.keys.code.bytecode import Name, info_of
from cacheness.keys.code.instructions import instructions_of
from cacheness.keys.code.per_code import once_per_code
from cacheness.keys.code.write_only import (
    attributes_counted,
    attributes_read,
    attributes_taken,
    environment_read,
    handed_about,
    hands_over_a_mode,
)
from cacheness.lazy_dataclass import dataclass

_IMPORTS: Final = frozenset({"import_module", "resolve_name", "__import__", "find_spec"})
_EVALUATES: Final = frozenset({"eval", "exec", "compile", "query"})
#: They take names of attributes as texts.
_BY_TEXT: Final = frozenset({"getattr", "hasattr", "attrgetter", "methodcaller", "__getattribute__", "getattr_static"})
_MODULE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
#: pandas looks up such names in the caller's frame.
_OF_FRAME: Final = re.compile(r"@([A-Za-z_]\w*)")


@dataclass(frozen=True, slots=True)
class Texts:
    """Relevant texts of a code object and those inside it."""

    words: frozenset[str]  #: global names and attributes
    strings: frozenset[str]
    reads: frozenset[str]  #: names and attributes that are read, except counters; texts too if they may be names
    names: tuple[Name, ...]  #: global names in texts that are evaluated
    modules: tuple[str, ...]  #: possible names of modules in texts that are imported
    counted: frozenset[str]  #: attributes that are read only to increment them
    handed: frozenset[str]  #: names whose object may be passed on
    taken: frozenset[str]  #: attributes that are read and not called at once
    environment: frozenset[str]  #: how environment variables are read, in the terms of `write_only.py`
    hands_over_a_mode: bool  #: a mode with which `open` would write


def _read(code: types.CodeType) -> Texts:
    words, strings = frozenset(code.co_names), frozenset(_strings(code.co_consts))
    _, busy, bare = instructions_of(code)
    reads, counted = frozenset(attributes_read(busy)), frozenset(attributes_counted(busy))
    handed, taken = frozenset(handed_about(busy)), frozenset(attributes_taken(busy))
    environment, mode = frozenset(environment_read(bare)), hands_over_a_mode(bare)
    if words & _BY_TEXT:
        reads |= {part for text in strings for part in text.split(".") if part.isidentifier()}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = texts_of(constant)
            words, strings, reads = words | inner.words, strings | inner.strings, reads | inner.reads
            counted, handed, taken = counted | inner.counted, handed | inner.handed, taken | inner.taken
            environment, mode = environment | inner.environment, mode or inner.hands_over_a_mode
    names = {name for text in strings for name in names_in(text)} if words & _EVALUATES else set()
    named = {text.partition(":")[0] for text in strings} if words & _IMPORTS else set()
    modules = tuple(sorted(name for name in named if _MODULE.fullmatch(name)))
    return Texts(words, strings, reads, tuple(sorted(names)), modules, counted, handed, taken, environment, mode)


#: Return the facts about a code object; computed once.
texts_of = once_per_code(_read)


@lru_cache(maxsize=1024)
def environment_read_as(code: types.CodeType, names: frozenset[str]) -> frozenset[str]:
    """Return how a code object and those inside it read environment variables by other names of `os.environ`."""
    inside = (environment_read_as(inner, names) for inner in code.co_consts if isinstance(inner, types.CodeType))
    return frozenset(environment_read(instructions_of(code).bare, names)).union(*inside)


def _strings(constants: tuple[object, ...]) -> Iterator[str]:
    for constant in constants:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, tuple):
            yield from _strings(constant)


def names_in(text: str) -> Iterator[Name]:
    """Return the global names in a text that may be code."""
    yield from (Name(name) for name in _OF_FRAME.findall(text))
    try:
        yield from info_of(compile(text, "<text>", "exec")).names
    except (SyntaxError, ValueError):
        return  # not code
