"""Detect whether a process-wide random number generator moved while a body ran: a hint, and no proof.

Seeding it moves it, too, and so does another thread, or a library that draws for internal use.

Each body is checked twice, so a check must cost next to nothing. `getstate` and `get_state` take 40
and 160 us to build 624 words each; here the same bytes are compared, read from where they lie.
"""

from __future__ import annotations

import _random
import ctypes
import random
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from cacheness.keys.error_paths import FAILURES

#: Bytes of the state of NumPy's Mersenne twister: its words, and its position among them.
_TWISTER: Final = 625 * 4
#: The position after NumPy has created it and nothing has used it; seeding with a number sets another one.
_UNUSED: Final = 623
#: What was read last: the object, which must live as long as its memory is read, and that memory. By what it is.
_memories: dict[Any, tuple[object, Any]] = {}


def positions() -> Mapping[str, Any]:
    """Positions of the generators of Python and NumPy, as far as they are loaded."""
    python = getattr(random.getstate, "__self__", None)  # that of the module's functions
    known = type(python) is random.Random
    found: dict[str, Any] = {"random": _of_python(python) if known else random.getstate()}
    mtrand = sys.modules.get("numpy.random.mtrand")
    with suppress(*FAILURES):  # other code may have installed another kind of generator
        if mtrand is not None:
            found["numpy.random"] = _of_numpy(vars(mtrand)["_rand"])
    return found


def moved_since(before: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of those that have moved; one that was loaded since, if anything was drawn from it."""
    now = positions().items()
    return tuple(n for n, place in now if (place != before[n] if n in before else not _is_unused(place)))


def _of_python(pythons: Any) -> tuple[Any, ...]:
    return _fields(pythons, _random.Random), pythons.gauss_next  # the second of a pair of normal numbers


def _of_numpy(numpys: Any) -> tuple[Any, ...]:
    bits = numpys._bit_generator  # noqa: SLF001
    if type(bits).__name__ != "MT19937":
        return (numpys.get_state(legacy=False),)
    known = _memories.get(_TWISTER)
    if known is None or known[0] is not bits:
        known = _read_later(_TWISTER, bits, bits.ctypes.state_address, _TWISTER)
    # The object has the second of a pair of normal numbers, and which twister it draws from.
    return known[1].raw, _fields(numpys, type(numpys))


def _is_unused(place: tuple[Any, ...]) -> bool:
    return int.from_bytes(place[0][-4:], sys.byteorder) == _UNUSED


def _fields(thing: object, kind: type) -> bytes:
    """The fields that a type written in C has in each of its objects."""
    known = _memories.get(kind)
    if known is None or known[0] is not thing:
        header = object.__basicsize__
        known = _read_later(kind, thing, id(thing) + header, kind.__basicsize__ - header)
    data: bytes = known[1].raw
    return data


def _read_later(what: object, owner: object, address: int, size: int) -> tuple[object, Any]:
    """Keep where an object's memory is: to find it each time takes three times as long as to read it."""
    known = _memories[what] = owner, (ctypes.c_char * size).from_address(address)
    return known
