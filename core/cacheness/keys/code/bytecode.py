"""Read a code object: its instructions, independent of the source text, and its names.

Read from the compiled code and not from the source: after an edit on disk the source has the new
text while the old code still runs.
"""

from __future__ import annotations

import dis
import inspect
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from blake3 import blake3

from cacheness.keys.code.instructions import instructions_of, one_by_one
from cacheness.keys.code.per_code import once_per_code
from cacheness.keys.code.write_only import uses_in
from cacheness.keys.encode import encode_code as encode
from cacheness.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """A global name, and the attributes read from it: `helpers.normalise`."""

    name: str
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class Import:
    """An import inside a function, and the names taken from the module."""

    module: str
    level: int
    attributes: tuple[str, ...] = ()  #: empty: the module itself is passed on


@dataclass(frozen=True, slots=True)
class CodeInfo:
    """A code object and those inside it."""

    digest: bytes
    names: tuple[Name, ...]
    imports: tuple[Import, ...]
    uses: Mapping[str, frozenset[str]]  #: of each outside name, in the terms of `write_only.py`
    called: Mapping[str, bool]  #: for each dotted name, whether a literal text follows at every place


#: They do nothing, or repeat `co_flags`.
_IDLE: Final = frozenset({"NOP", "CACHE", "RESUME", "EXTENDED_ARG", "PRECALL"})
_JUMPS: Final = frozenset({*dis.hasjrel, *dis.hasjabs})
_CONSTANTS: Final = frozenset(dis.hasconst)
_GLOBALS: Final = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_ATTRIBUTES: Final = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_LOCALS: Final = frozenset(
    {"LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW", "LOAD_DEREF", "LOAD_NAME", "LOAD_GLOBAL"}
)
#: Names that a class body sets from its place in the source.
_ABOUT_ITSELF: Final = frozenset({"__doc__", "__firstlineno__", "__static_attributes__", "__module__", "__qualname__"})
#: Globals that describe where a module is, not what it does.
_WHERE: Final = frozenset(
    {"__name__", "__file__", "__doc__", "__spec__", "__loader__", "__package__", "__cached__", "__path__"}
)
_FLAGS: Final = (
    inspect.CO_VARARGS
    | inspect.CO_VARKEYWORDS
    | inspect.CO_GENERATOR
    | inspect.CO_COROUTINE
    | inspect.CO_ITERABLE_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
)


#: The effective instructions, and for each offset the one that is reached there.
_Kept: TypeAlias = tuple[list[dis.Instruction], dict[int, int]]


def _read(code: types.CodeType) -> CodeInfo:
    raw, busy, _ = instructions_of(code)
    instructions, _ = kept = _kept(raw, code)
    inner = [info_of(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    names = set(_names(instructions)).union(*(i.names for i in inner))
    imports = set(_imports(instructions, code)).union(*(i.imports for i in inner))
    uses: dict[str, frozenset[str]] = {}
    for name, kinds in [*((n, {kind}) for n, kind in uses_in(busy)), *(use for i in inner for use in i.uses.items())]:
        uses[name] = uses.get(name, frozenset()) | kinds
    called = dict(_called_with_text(instructions))
    for name, literal in (call for i in inner for call in i.called.items()):
        called[name] = called.get(name, True) and literal
    digest = _digest(code, kept, _frame(code), lambda inside: info_of(inside).digest)
    return CodeInfo(digest, tuple(sorted(names)), tuple(sorted(imports)), uses, called)


#: Return the facts about a code object; computed once.
info_of = once_per_code(_read)


def _read_body(code: types.CodeType) -> bytes:
    kind, _, *frame = _frame(code)
    return _digest(code, _kept(instructions_of(code).raw, code), (kind, *frame), body_of)


#: Return the digest of a code object without the function's name, which decides nothing; computed once.
body_of = once_per_code(_read_body)


def _digest(
    code: types.CodeType, kept: _Kept, frame: tuple[Any, ...], of_inner: Callable[[types.CodeType], bytes]
) -> bytes:
    instructions, places = kept
    effects = [_effect(instruction, places, of_inner) for instruction in instructions]
    return blake3(b"".join([encode(frame), *effects, _exceptions(code, places)])).digest()


def _frame(code: types.CodeType) -> tuple[Any, ...]:
    arguments = code.co_argcount + code.co_kwonlyargcount
    arguments += bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _FLAGS)
    return ("code", code.co_qualname, counts, code.co_varnames[:arguments], code.co_cellvars, code.co_freevars)


def _kept(raw: Sequence[dis.Instruction], code: types.CodeType) -> _Kept:
    kept: list[dis.Instruction] = []
    places: dict[int, int] = {}
    for instruction in raw:
        places[instruction.offset] = len(kept)
        if instruction.opname in _IDLE:
            continue
        if instruction.opname == "STORE_NAME" and instruction.argval in _ABOUT_ITSELF and kept:
            kept.pop()  # the value it would have stored
            continue
        kept += one_by_one(instruction, code)
    places[len(code.co_code)] = len(kept)
    return kept, places


def _effect(instruction: dis.Instruction, places: dict[int, int], of_inner: Callable[[types.CodeType], bytes]) -> bytes:
    opcode, value, argument = instruction.opcode, instruction.argval, instruction.arg
    if opcode in _CONSTANTS:
        text = b"code" + of_inner(value) if isinstance(value, types.CodeType) else encode(value)
    elif opcode in _JUMPS:
        text = b"%x" % places[value]
    elif isinstance(value, str):
        text = value.encode()
    else:
        text = b"" if argument is None else b"%x" % argument
    if "SUPER_ATTR" in instruction.opname and argument is not None:
        text += b"/%x" % (argument & 3)
    return b"%b %x:%b\n" % (instruction.opname.encode(), len(text), text)


_NO_EXCEPTIONS: Final = encode([])


def _exceptions(code: types.CodeType, places: dict[int, int]) -> bytes:
    if not code.co_exceptiontable:
        return _NO_EXCEPTIONS
    found: list[tuple[int, int, int, int]] = []
    for start, size, target, depth in exception_table(code.co_exceptiontable):
        entry = (places[start], places[start + size], places[target], depth)
        if entry[0] < entry[1]:
            if found and found[-1][1] == entry[0] and found[-1][2:] == entry[2:]:
                entry = (found.pop()[0], *entry[1:])
            found.append(entry)
    return encode(found)


def exception_table(table: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Start, size and target of each protected range, in bytes, and the stack's depth there, times two."""
    numbers = []
    value = 0
    for byte in table:
        value = value << 6 | byte & 63
        if not byte & 64:
            numbers.append(value)
            value = 0
    for at in range(0, len(numbers), 4):
        start, size, target, depth = numbers[at : at + 4]
        yield start * 2, size * 2, target * 2, depth


def _names(instructions: Sequence[dis.Instruction]) -> Iterator[Name]:
    for at, instruction in enumerate(instructions):
        if instruction.opname in _GLOBALS and instruction.argval not in _WHERE:
            yield Name(instruction.argval, _attributes_after(instructions, at))


def _called_with_text(instructions: Sequence[dis.Instruction]) -> Iterator[tuple[str, bool]]:
    """Return each name with its attributes, and whether each of its calls has a literal text as first argument."""
    found: dict[str, bool] = {}
    for at, instruction in enumerate(instructions):
        if instruction.opname in _LOCALS:
            attributes = _attributes_after(instructions, at)
            after = at + 1 + len(attributes)
            after += instructions[after].opname == "PUSH_NULL"
            name = ".".join((str(instruction.argval), *attributes))
            literal = isinstance(instructions[after].argval, str) and instructions[after].opname == "LOAD_CONST"
            literal = literal and _is_whole_argument(instructions, after)
            found[name] = found.get(name, True) and literal
    yield from found.items()


def _is_whole_argument(instructions: Sequence[dis.Instruction], at: int) -> bool:
    """Return True when a constant is an argument itself: a call follows, or one more argument and a call."""
    following = [instruction.opname for instruction in instructions[at + 1 : at + 3]]
    called = [name.startswith(("CALL", "KW_NAMES")) for name in following]
    return called[:1] == [True] or (called[1:] == [True] and following[0].startswith("LOAD_"))


def _attributes_after(instructions: Sequence[dis.Instruction], at: int) -> tuple[str, ...]:
    end = at + 1
    while instructions[end].opname in _ATTRIBUTES:
        end += 1
    return tuple(instruction.argval for instruction in instructions[at + 1 : end])


def _imports(instructions: Sequence[dis.Instruction], code: types.CodeType) -> Iterator[Import]:
    for at, instruction in enumerate(instructions):
        if instruction.opname != "IMPORT_NAME":
            continue
        wanted, level, module = instructions[at - 1].argval, instructions[at - 2].argval, instruction.argval
        if wanted:
            yield from (Import(module, level, (name,)) for name in wanted)
        else:
            yield from _uses(instructions, at, code)


def _uses(instructions: Sequence[dis.Instruction], at: int, code: types.CodeType) -> Iterator[Import]:
    """Return the uses of the module that `import a.b` or `import a.b as c` binds to a local name."""
    module, level, after = instructions[at].argval, instructions[at - 2].argval, at + 1
    while instructions[after].opname in ("IMPORT_FROM", "SWAP", "POP_TOP"):
        after += 1
    below = () if after > at + 1 else tuple(module.split(".")[1:])
    yield Import(module, level, ("__name__",))
    for attributes in _uses_of_local(instructions[after].argval, code):
        if attributes[: len(below)] == below:
            yield Import(module, level, attributes[len(below) :])
        else:
            yield Import(module.partition(".")[0], level, attributes)


def _uses_of_local(local: str, code: types.CodeType) -> Iterator[tuple[str, ...]]:
    instructions = _kept(instructions_of(code).raw, code)[0]
    for at, instruction in enumerate(instructions):
        if instruction.opname in _LOCALS and instruction.argval == local:
            yield _attributes_after(instructions, at)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _uses_of_local(local, constant)
