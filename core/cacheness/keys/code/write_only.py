"""Find names that a function only writes to: lists it appends to, counters, log files.

Their contents do not decide its result. If they counted, each call would change the key of the
next. Code that reads them is another use, and makes them count.
"""

from __future__ import annotations

import collections
import dis
import pathlib
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
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
#: The type that a name must have for a use to be write-only.
_TYPES: Final[Mapping[str, frozenset[type]]] = {
    "container": _CONTAINERS,
    "item": frozenset({dict, collections.Counter, collections.defaultdict}),
    "tally": _CONTAINERS - {set},
    "tally at": _CONTAINERS - {set},
    "number": frozenset({int, float}),
    "path": frozenset({pathlib.PosixPath, pathlib.WindowsPath}),
}
_WRITING: Final = frozenset({"a", "w", "ab", "wb", "at", "wt"})
_OPERANDS: Final = frozenset({"LOAD_CONST", "LOAD_SMALL_INT", "LOAD_FAST", "LOAD_FAST_BORROW"})
_LOOKUP: Final = frozenset({"BINARY_SUBSCR", "BINARY_OP"})
_ADDING: Final = frozenset({"+", "+=", "-", "-="})
_STORES: Final = frozenset({"STORE_GLOBAL", "STORE_DEREF", "STORE_NAME"})
_ANY_NAME: Final = _LOADS | _LOCALS
_NUMBERS: Final = frozenset({int, float})
#: Since Python 3.12, the lowest bit of LOAD_ATTR means that a method is called.
METHODS_ARE_ATTRIBUTES: Final = sys.version_info >= (3, 12)


def only_written(value: Any, kinds: frozenset[str] | None) -> bool:
    """Return True when uses of these kinds only write to a value of this type."""
    return (
        kinds is not None
        and all(type(value) in _TYPES.get(kind, ()) for kind in kinds)
        and (kinds.isdisjoint(_TALLIES) or _holds_numbers(value))
    )


def places_in(value: Any, kinds: frozenset[str] | None) -> Any:
    """Return what counts of a value that is only written to: the keys of incremented numbers, or None.

    `table[key] += 1` fails if there is no such key, and code may catch that.
    """
    if kinds is None or "tally at" not in kinds or _makes_zero(value):
        return None
    return set(value) if isinstance(value, dict) else len(value)


_TALLIES: Final = frozenset({"tally", "tally at"})


def _holds_numbers(value: Any) -> bool:
    return all(type(one) in _NUMBERS for one in (value.values() if isinstance(value, dict) else value))


def _makes_zero(value: Any) -> bool:
    return type(value) is collections.Counter or getattr(value, "default_factory", None) in _NUMBERS


def uses_in(busy: Sequence[dis.Instruction]) -> Iterator[tuple[str, str]]:
    """Yield each use of an outside name, and its kind; `read` if it may be more than a write.

    A `getattr` with a name that is not in the code is `computed`, and `hidden` if its object is the
    result of a call: an argument, and a name's value, count with all their parts.
    """
    for at, instruction in enumerate(busy):
        if instruction.opname in _LOADS:
            yield instruction.argval, _kind_of_use(busy, at)


def attributes_read(busy: Sequence[dis.Instruction]) -> Iterator[str]:
    """Yield names that are loaded or imported, except attributes that are read only to increment them."""
    for at, instruction in enumerate(busy):
        name = instruction.argval
        if instruction.opname.startswith(("LOAD_", "IMPORT_")) and isinstance(name, str) and name.isidentifier():
            if instruction.opname == "LOAD_CONST" or (instruction.opname == "LOAD_ATTR" and _is_counted(busy, at)):
                continue
            yield name


def attributes_counted(busy: Sequence[dis.Instruction]) -> Iterator[str]:
    """Return names of attributes that are read to increment them."""
    yield from (i.argval for at, i in enumerate(busy) if i.opname == "LOAD_ATTR" and _is_counted(busy, at))


def handed_about(busy: Sequence[dis.Instruction]) -> Iterator[str]:
    """Return names whose object may be passed on: any use but calling a method, and reading or setting an attribute."""
    for at, instruction in enumerate(busy):
        is_name = instruction.opname.startswith("LOAD_") and isinstance(instruction.argval, str)
        if is_name and instruction.opname not in _NO_NAMES and not _is_owner(busy, at):
            yield instruction.argval


_NO_NAMES: Final = frozenset({"LOAD_CONST", "LOAD_ATTR", "LOAD_METHOD"})


def _is_owner(busy: Sequence[dis.Instruction], at: int) -> bool:
    following = busy[at + 1]
    if following.opname == "COPY":
        following = busy[at + 2]
    is_attribute = following.opname in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR")
    return is_attribute and not following.argval.startswith("__")


#: Functions that read environment variables, by their names in `os` and `os.path`.
ENVIRONMENT: Final = frozenset({"environ", "environb", "getenv", "getenvb", "expandvars"})


def environment_read(bare: Sequence[dis.Instruction], readers: Collection[str] = ENVIRONMENT) -> Iterator[str]:
    """Return how environment variables are read: by a `literal` name in the code, a `computed` one, or `all`.

    `readers` are the names in the code of `os.environ` or of functions that read it.
    """
    for at, instruction in enumerate(bare[:-2]):
        if instruction.argval in readers and instruction.opname.startswith("LOAD_"):
            yield _kind_of_reading(bare, at)


_MODE: Final = re.compile(r"(?=.*[wax+])[rwaxbt+]{1,3}")


def hands_over_a_mode(bare: Sequence[dis.Instruction]) -> bool:
    """Return True when a text with which `open` would write is passed to a call, and is not an index or compared."""
    for step, after in pairwise(bare):
        is_mode = step.opname == "LOAD_CONST" and isinstance(step.argval, str) and _MODE.fullmatch(step.argval)
        if is_mode and after.opname.startswith(("CALL", "PRECALL", "KW_NAMES", "LOAD_")):
            return True
    return False


def _kind_of_reading(busy: Sequence[dis.Instruction], at: int) -> str:
    given = at + 1
    if busy[given].opname in ("LOAD_ATTR", "LOAD_METHOD"):
        if busy[given].argval not in ("get", "pop", "setdefault"):
            return "all"
        given += 1
    if busy[given].opname == "CONTAINS_OP":
        given = at - 2 if busy[at].opname == "LOAD_ATTR" else at - 1
        return "literal" if busy[given].opname == "LOAD_CONST" else "computed"
    if busy[given].opname == "LOAD_CONST":
        return "literal" if _stays_as_it_is(busy, given) else "computed"
    return "computed" if busy[given].opname.startswith("LOAD_") else "all"


def _stays_as_it_is(busy: Sequence[dis.Instruction], at: int) -> bool:
    """Return True when the constant loaded here is passed unchanged to a call or a look-up."""
    depth = 1
    for instruction in busy[at + 1 :]:
        if depth == 1 and instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            return False
        if instruction.opcode in dis.hasjrel or instruction.opcode in dis.hasjabs:
            return True
        depth += dis.stack_effect(instruction.opcode, instruction.arg)
        if depth <= 1:
            return depth < 1 or not instruction.opname.startswith(("BINARY_OP", "BUILD_", "FORMAT", "CONVERT"))
    return True


def attributes_taken(busy: Sequence[dis.Instruction]) -> Iterator[str]:
    """Return names of attributes that are read and not called at once; a method would keep its object."""
    yield from (i.argval for i in busy if i.opname == "LOAD_ATTR" and not _is_callee(i))


def _is_counted(busy: Sequence[dis.Instruction], at: int) -> bool:
    """Return True when an attribute is loaded for `thing.name += …` or `thing.name = thing.name + …`."""
    added = _addition(busy, at + 1)
    if added is None:
        return False
    before, store = busy[added + 1 : added + 3]
    is_back = before.opname == "SWAP" or before.opname in _ANY_NAME
    return is_back and store.opname == "STORE_ATTR" and store.argval == busy[at].argval


def _addition(busy: Sequence[dis.Instruction], at: int) -> int | None:
    """Return the offset where the loaded value is added to, if an expression without branches begins here."""
    depth = 0
    for place in range(at, len(busy) - 3):
        instruction = busy[place]
        if instruction.opcode in dis.hasjrel or instruction.opcode in dis.hasjabs:
            return None
        depth += dis.stack_effect(instruction.opcode, instruction.arg)
        if depth < 1:
            return None
        following = busy[place + 1]
        if depth == 1 and following.opname == "BINARY_OP" and following.argrepr in _ADDING:
            return place + 1
    return None


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
    return _kind_of_store(busy, at)


def _kind_of_store(busy: Sequence[dis.Instruction], at: int) -> str:
    if _matches(busy, at, (_OPERANDS, {"STORE_SUBSCR"})):
        return "item"
    if _matches(busy, at, (_OPERANDS, {"COPY"}, {"COPY"}, _LOOKUP)):
        added = _addition(busy, at + 5)
        is_back = added is not None and _matches(busy, added, ({"SWAP"}, {"SWAP"}, {"STORE_SUBSCR"}))
    else:
        is_back = _matches(busy, at, (_OPERANDS, _LOOKUP)) and _is_put_back(busy, at, at + 1, at + 3)
    if is_back:
        return "tally at"
    added = _addition(busy, at + 1)
    is_number = added is not None and busy[added + 1].opname in _STORES and busy[added + 1].argval == busy[at].argval
    return "number" if is_number else "read"


def _is_put_back(busy: Sequence[dis.Instruction], at: int, key: int, after: int) -> bool:
    """Return True when an item that was looked up is incremented, and stored in its place."""
    added = _addition(busy, after)
    if added is None or not _matches(busy, added, (_LOADS, _OPERANDS, {"STORE_SUBSCR"})):
        return False
    pairs = ((busy[at], busy[added + 1]), (busy[key], busy[added + 2]))
    return all((one.opname, one.argval) == (other.opname, other.argval) for one, other in pairs)


def _kind_of_method(busy: Sequence[dis.Instruction], at: int) -> str:
    method = busy[at + 1].argval
    if method == "open" and busy[at + 2].opname == "LOAD_CONST" and busy[at + 2].argval in _WRITING:
        return "path"
    if method == "get" and _matches(busy, at + 1, (_OPERANDS, {"LOAD_CONST", "LOAD_SMALL_INT"})):
        after = at + 4 + (busy[at + 4].opname == "PRECALL")
        is_call = busy[after].opname == "CALL" and type(busy[at + 3].argval) in _NUMBERS
        return "tally" if is_call and _is_put_back(busy, at, at + 2, after + 1) else "read"
    kind = _METHODS.get(method)
    return kind if kind is not None and _result_is_dropped(busy, at) else "read"


def _asks_for_a_constant(busy: Sequence[dis.Instruction], at: int) -> bool:
    """Return True when `getattr` gets a constant name, after a plain object."""
    place = at + 2
    while busy[place].opname in ("LOAD_ATTR", "LOAD_METHOD"):
        place += 1
    return busy[place].opname == "LOAD_CONST" and isinstance(busy[place].argval, str)


def _asks_of_a_name(busy: Sequence[dis.Instruction], at: int) -> bool:
    """Return True when `getattr` gets a variable, or an attribute of one."""
    if busy[at + 1].opname not in _LOADS | _LOCALS or _is_callee(busy[at + 1]):
        return False
    place = at + 2
    while busy[place].opname == "LOAD_ATTR" and not _is_callee(busy[place]):
        place += 1
    return busy[place].opname.startswith("LOAD_") and busy[place].opname != "LOAD_METHOD"


def _is_callee(instruction: dis.Instruction) -> bool:
    """Return True when the loaded object is about to be called: a NULL is then pushed along with it."""
    with_null = instruction.opname == "LOAD_GLOBAL" or (METHODS_ARE_ATTRIBUTES and instruction.opname == "LOAD_ATTR")
    return with_null and bool((instruction.arg or 0) & 1)


def _result_is_dropped(busy: Sequence[dis.Instruction], at: int) -> bool:
    """Return True when the call of a method, whose object is loaded here, is a statement."""
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
    for names in wanted:
        at += 1
        if at >= len(busy) or busy[at].opname not in names:
            return False
    return True
