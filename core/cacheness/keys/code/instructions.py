"""Decode the instructions of a code object, for all modules that read code.

Several readers process each function in turn; `dis` takes as long as any of them. So the
instructions of the last few functions are kept, by identity: comparing two code objects would
compare all their constants.
"""

from __future__ import annotations

import dis
import types
from typing import Final

#: Instructions that are kept, of 0.2 KB each; the largest functions may have more.
_MOST_KEPT: Final = 10_000
#: Two instructions in one, which the compiler creates only within a line.
_PAIRS: Final = {
    "LOAD_FAST_LOAD_FAST": ("LOAD_FAST", "LOAD_FAST"),
    "LOAD_FAST_BORROW_LOAD_FAST_BORROW": ("LOAD_FAST_BORROW", "LOAD_FAST_BORROW"),
    "STORE_FAST_LOAD_FAST": ("STORE_FAST", "LOAD_FAST"),
    "STORE_FAST_STORE_FAST": ("STORE_FAST", "STORE_FAST"),
}


class _RecentInstructions:
    """The instructions of the functions that were read last."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[types.CodeType, tuple[dis.Instruction, ...]]] = {}
        self._kept = 0

    def of(self, code: types.CodeType) -> tuple[dis.Instruction, ...]:
        """Return the instructions of a code object, without those of code objects inside it."""
        known = self._known.get(id(code))
        if known is not None and known[0] is code:
            return known[1]
        found = tuple(dis.get_instructions(code))
        if self._kept + len(found) > _MOST_KEPT:  # if two threads do this at once, one reading is wasted
            self._known, self._kept = {}, 0
        self._known[id(code)] = (code, found)
        self._kept += len(found)
        return found


instructions_of = _RecentInstructions().of


def one_by_one(instruction: dis.Instruction, code: types.CodeType) -> list[dis.Instruction]:
    """Return the instructions for one: itself, or the two that the compiler joined."""
    if instruction.opname == "KW_NAMES" and instruction.arg is not None:
        # Python 3.11's `dis` does not look up this constant; all names would look the same.
        return [instruction._replace(argval=code.co_consts[instruction.arg])]
    if instruction.opname not in _PAIRS:
        return [instruction]
    names = zip(_PAIRS[instruction.opname], instruction.argval, strict=True)
    return [instruction._replace(opname=one, opcode=dis.opmap[one], argval=name) for one, name in names]
