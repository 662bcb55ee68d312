"""Decode the instructions of a code object, for all modules that read code.

Several readers process each function in turn; `dis` takes as long as any of them. So the
instructions of the last few functions are kept, by identity: comparing two code objects would
compare all their constants.
"""

from __future__ import annotations

import dis
import types
from collections.abc import Sequence
from typing import Final, NamedTuple

#: Instructions that are kept, of 0.2 KB each; the largest functions may have more.
_MOST_KEPT: Final = 10_000
#: Two instructions in one, which the compiler creates only within a line.
_PAIRS: Final = {
    "LOAD_FAST_LOAD_FAST": ("LOAD_FAST", "LOAD_FAST"),
    "LOAD_FAST_BORROW_LOAD_FAST_BORROW": ("LOAD_FAST_BORROW", "LOAD_FAST_BORROW"),
    "STORE_FAST_LOAD_FAST": ("STORE_FAST", "LOAD_FAST"),
    "STORE_FAST_STORE_FAST": ("STORE_FAST", "STORE_FAST"),
}


#: `one_by_one` returns others for them.
_REPLACED: Final = frozenset({"KW_NAMES", *_PAIRS})
_IDLE: Final = frozenset({"CACHE", "NOP", "EXTENDED_ARG"})


class Instructions(NamedTuple):
    """The instructions of a code object, without those of code objects inside it."""

    raw: tuple[dis.Instruction, ...]
    busy: tuple[dis.Instruction, ...]  #: one by one, without those that do nothing
    bare: tuple[dis.Instruction, ...]  #: also without PUSH_NULL


class _RecentInstructions:
    """The instructions of the functions that were read last."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[types.CodeType, Instructions]] = {}
        self._kept = 0

    def of(self, code: types.CodeType) -> Instructions:
        """Return the instructions of a code object."""
        known = self._known.get(id(code))
        if known is not None and known[0] is code:
            return known[1]
        found = _read(code)
        if self._kept + len(found.raw) > _MOST_KEPT:  # if two threads do this at once, one reading is wasted
            self._known, self._kept = {}, 0
        self._known[id(code)] = (code, found)
        self._kept += len(found.raw)
        return found


def _read(code: types.CodeType) -> Instructions:
    raw = tuple(dis.get_instructions(code))
    busy = tuple(one for one in raw if one.opname not in _IDLE)
    if not _REPLACED.isdisjoint(one.opname for one in busy):
        busy = tuple(step for one in busy for step in one_by_one(one, code))
    return Instructions(raw, busy, tuple(step for step in busy if step.opname != "PUSH_NULL"))


instructions_of = _RecentInstructions().of


def one_by_one(instruction: dis.Instruction, code: types.CodeType) -> Sequence[dis.Instruction]:
    """Return the instructions for one: itself, or the two that the compiler joined."""
    if instruction.opname not in _REPLACED:
        return (instruction,)
    if instruction.opname == "KW_NAMES":
        if instruction.arg is None:
            return (instruction,)
        # Python 3.11's `dis` does not look up this constant; all names would look the same.
        return (instruction._replace(argval=code.co_consts[instruction.arg]),)
    names = zip(_PAIRS[instruction.opname], instruction.argval, strict=True)
    return [instruction._replace(opname=one, opcode=dis.opmap[one], argval=name) for one, name in names]
