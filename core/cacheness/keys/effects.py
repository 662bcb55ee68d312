"""Which names a function only writes to: lists it appends to, counters, files it logs to.

What is in them does not decide its result. If they counted, each call would change the key of
the next. Whoever reads them is another use, and lets them count.
"""

from __future__ import annotations

import collections
import dis
import pathlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

_LOADS: Final = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_GLOBALS"})
_LOCALS: Final = frozenset(
    {"LOAD_FAST", "LOAD_FAST_BORROW", "LOAD_FAST_LOAD_FAST", "LOAD_FAST_BORROW_LOAD_FAST_BORROW"}
)
_METHODS: Final = {
    **dict.fromkeys(("append", "appendleft", "extend", "extendleft", "insert", "add", "update"), "container"),
    **dict.fromkeys(("write_text", "write_bytes", "touch"), "path"),
}
_CONTAINERS: Final = frozenset({list, set, dict, collections.deque, collections.Counter, collections.defaultdict})
#: What a name must hold for a use to be a mere writing.
_TYPES: Final[Mapping[str, frozenset[type]]] = {
    "container": _CONTAINERS,
    "item": frozenset({dict, collections.Counter, collections.defaultdict}),
    "tally": _CONTAINERS,
    "number": frozenset({int, float}),
    "path": frozenset({pathlib.PosixPath, pathlib.WindowsPath}),
}
_WRITING: Final = frozenset({"a", "w", "ab", "wb", "at", "wt"})
_OPERANDS: Final = frozenset({"LOAD_CONST", "LOAD_SMALL_INT", "LOAD_FAST", "LOAD_FAST_BORROW"})
_IDLE: Final = frozenset({"CACHE", "NOP", "EXTENDED_ARG"})
_LOOKUP: Final = frozenset({"BINARY_SUBSCR", "BINARY_OP"})
#: What follows when a name is loaded for `name += 1`, `name[key] += 1`, `name[key] = value`.
_SHAPES: Final[Mapping[str, tuple[Collection[str], ...]]] = {
    "number": (_OPERANDS, {"BINARY_OP"}, {"STORE_GLOBAL", "STORE_DEREF", "STORE_NAME"}),
    "tally": (
        *(_OPERANDS, {"COPY"}, {"COPY"}, _LOOKUP, _OPERANDS, {"BINARY_OP"}),
        *({"SWAP"}, {"SWAP"}, {"STORE_SUBSCR"}),
    ),
    "item": (_OPERANDS, {"STORE_SUBSCR"}),
}
_ANY_NAME: Final = _LOADS | _LOCALS
_COUNTERS: Final = (
    (_OPERANDS, {"BINARY_OP"}, {"SWAP"}, {"STORE_ATTR"}),
    (_OPERANDS, {"BINARY_OP"}, _ANY_NAME, {"STORE_ATTR"}),
)


def only_written(value: Any, kinds: frozenset[str] | None) -> bool:
    """Whether a value of this type is only written to by uses of these kinds."""
    return kinds is not None and all(type(value) in _TYPES.get(kind, ()) for kind in kinds)


def uses_in(instructions: Sequence[dis.Instruction]) -> Iterator[tuple[str, str]]:
    """Each use of a name from outside, and its kind; `read` when it may be more than a writing.

    A `getattr` with a name that is not in the code is `computed`, and `hidden` when its object is one that
    a call returns: an argument, and what a name leads to, count with all their parts.
    """
    busy = [instruction for instruction in instructions if instruction.opname not in _IDLE]
    for at, instruction in enumerate(busy):
        if instruction.opname in _LOADS:
            yield instruction.argval, _kind_of_use(busy, at)


def attributes_read(instructions: Sequence[dis.Instruction]) -> Iterator[str]:
    """Names that are loaded or imported, but for attributes that are read only to add to them."""
    busy = [instruction for instruction in instructions if instruction.opname not in _IDLE]
    for at, instruction in enumerate(busy):
        name = instruction.argval
        if instruction.opname.startswith(("LOAD_", "IMPORT_")) and isinstance(name, str) and name.isidentifier():
            if instruction.opname == "LOAD_CONST" or (instruction.opname == "LOAD_ATTR" and _is_counted(busy, at)):
                continue
            yield name


def _is_counted(busy: Sequence[dis.Instruction], at: int) -> bool:
    """Whether an attribute is loaded for `thing.name += 1` or `thing.name = thing.name + 1`."""
    return any(_matches(busy, at, shape) for shape in _COUNTERS) and busy[at + 4].argval == busy[at].argval


def _kind_of_use(busy: Sequence[dis.Instruction], at: int) -> str:
    if busy[at].argval == "getattr":
        if _asks_for_a_constant(busy, at):
            return "read"
        return "computed" if _asks_of_a_name(busy, at) else "hidden"
    following = busy[at + 1]
    if following.opname in ("LOAD_ATTR", "LOAD_METHOD"):
        return _kind_of_method(busy, at)
    if _is_opened_to_write(busy, at):
        return "path"
    kind = next((kind for kind, shape in _SHAPES.items() if _matches(busy, at, shape)), "read")
    return kind if kind != "number" or busy[at + 3].argval == busy[at].argval else "read"


def _kind_of_method(busy: Sequence[dis.Instruction], at: int) -> str:
    method = busy[at + 1].argval
    if method == "open" and busy[at + 2].opname == "LOAD_CONST" and busy[at + 2].argval in _WRITING:
        return "path"
    kind = _METHODS.get(method)
    return kind if kind is not None and _result_is_dropped(busy, at) else "read"


def _asks_for_a_constant(busy: Sequence[dis.Instruction], at: int) -> bool:
    """Whether `getattr` is given a name that stands in the code, after a plain object."""
    place = at + 2
    while busy[place].opname in ("LOAD_ATTR", "LOAD_METHOD"):
        place += 1
    return busy[place].opname == "LOAD_CONST" and isinstance(busy[place].argval, str)


def _asks_of_a_name(busy: Sequence[dis.Instruction], at: int) -> bool:
    """Whether `getattr` is given a variable, or an attribute of one."""
    if busy[at + 1].opname not in _LOADS | _LOCALS or _is_callee(busy[at + 1]):
        return False
    place = at + 2
    while busy[place].opname == "LOAD_ATTR" and not _is_callee(busy[place]):
        place += 1
    return busy[place].opname.startswith("LOAD_") and busy[place].opname != "LOAD_METHOD"


def _is_callee(instruction: dis.Instruction) -> bool:
    """Whether what is loaded is about to be called: then a NULL is pushed along with it."""
    return instruction.opname in ("LOAD_GLOBAL", "LOAD_ATTR") and instruction.argrepr.startswith(("NULL", "method"))


def _result_is_dropped(busy: Sequence[dis.Instruction], at: int) -> bool:
    """Whether the call of a method, whose object is loaded here, is a statement of its own."""
    depth = 0
    for place in range(at, len(busy) - 1):
        instruction = busy[place]
        if instruction.opcode in dis.hasjrel or instruction.opcode in dis.hasjabs:
            return False
        depth += dis.stack_effect(instruction.opcode, instruction.arg)
        if place > at + 1 and depth <= 1:
            return instruction.opname.startswith("CALL") and busy[place + 1].opname == "POP_TOP"
    return False


def _is_opened_to_write(busy: Sequence[dis.Instruction], at: int) -> bool:
    before, after = busy[at - 1], busy[at + 1]
    if before.opname == "PUSH_NULL":
        before = busy[at - 2]
    calls_open = before.opname in _LOADS and before.argval == "open"
    return calls_open and after.opname == "LOAD_CONST" and after.argval in _WRITING


def _matches(busy: Sequence[dis.Instruction], at: int, wanted: Sequence[Collection[str]]) -> bool:
    found = busy[at + 1 : at + 1 + len(wanted)]
    return len(found) == len(wanted) and all(i.opname in names for i, names in zip(found, wanted, strict=True))
