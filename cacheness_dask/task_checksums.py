"""Two-byte checksums of each part of a task, with which `explain` finds the difference from an earlier entry.

They are sent with each task that may be stored, so they are small: too small to prove that two
parts are the same, and large enough to show which one differs. Nothing is looked up by them.

The checksums begin with the number of steps of a fused task, 0 for a plain one. A plain task has
its function (the user's, if Dask's calls it), its bound arguments, then its arguments. A fused one
has for each step its function and the step's other content, in any order; inputs from outside are
left out, so that blocks of an array share one.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from typing import Final, TypeVar
from zlib import crc32

T = TypeVar("T")

MOST_PARTS: Final = 32

_pack = tuple(struct.Struct(f"<{n}H").pack for n in range(MOST_PARTS + 1))


def clue(steps: int, terms: Sequence[bytes]) -> bytes:
    """Return the checksums of a task from its terms; none for one with very many parts."""
    if len(terms) > MOST_PARTS:
        return b""
    return bytes((steps,)) + _pack[len(terms)](*[crc32(term) & 0xFFFF for term in terms])


def parts_of_call(parts: list[T], place: int, bound: Sequence[T] | None) -> list[T]:
    """Return the parts of a plain task in the order of checksums.

    The function comes first, and then its bound arguments.

    Args:
        parts: the function of the task, and its arguments.
        place: of the called function among these.
        bound: the code of the called function, and its bound arguments. Left out if these are too many.
    """
    others = [*parts[:place], *parts[place + 1 :]]
    split = [*(bound or ()), *others]
    return split if bound and len(split) <= MOST_PARTS else [parts[place], *others]


def of_step(steps: int, terms: Sequence[bytes], result: bytes, seen: Container[bytes]) -> Sequence[bytes]:
    """Return a step's own content in a fused task: its function, and its arguments that are not results."""
    if steps:  # fused itself
        return terms
    function, *arguments = terms or [result]
    return function, b"".join([term for term in arguments if term not in seen])


def differences(mine: bytes, theirs: bytes) -> list[int] | None:
    """Return the places of the parts that the other checksums lack. None if the two cannot be compared.

    The place after the last step of a fused task is its inputs.
    """
    if len(mine) < 3 or mine[:1] != theirs[:1] or len(mine) != len(theirs):
        return None
    steps = mine[0]
    if not steps:
        return [place for place, (new, old) in enumerate(zip(_parts(mine), _parts(theirs), strict=True)) if new != old]
    # The steps of a fused task are in the order of the process that fused them.
    new, old = _parts(mine), _parts(theirs)
    functions = set(old[::2])
    changed = _missing(_pairs(new), _pairs(old))
    return [2 * step + (new[2 * step] in functions) for step in changed] or [2 * steps]


def _parts(clue: bytes) -> list[bytes]:
    return [clue[at : at + 2] for at in range(1, len(clue), 2)]


def _pairs(parts: list[bytes]) -> list[bytes]:
    return [function + arguments for function, arguments in zip(parts[::2], parts[1::2], strict=True)]


def _missing(mine: Iterable[bytes], theirs: Iterable[bytes]) -> Iterable[int]:
    left = Counter(theirs)
    for place, part in enumerate(mine):
        left[part] -= 1
        if left[part] < 0:
            yield place
