"""Digests of values that nothing but the value decides, so that they can be kept beside a result.

The digest is the one that the value has as an argument. An encoding is closed when it met no code, no file or name
of one, no library's version, no `register` and no `__cacheness_key__`: what it says then stays true when any of
these changes.
"""

from __future__ import annotations

import sys
from typing import Any, Final, NoReturn

from blake3 import blake3

from cacheness.keys.encode import Digest, Encoder, Stated, handler_of
from cacheness.keys.error_paths import FAILURES, Unencodable
from cacheness.keys.inputs import paths_in

#: Members of containers that are encoded, where nobody asks for more: each of them costs a put.
MOST_NODES: Final = 180
#: Where the types of closed encodings are known. Others encode code, files, connections, or what pickle says.
_CLOSED: Final = frozenset(
    f"cacheness.keys.values.{name}"
    for name in ("arrow", "builtins", "numpy", "pandas", "polars", "scipy", "torch", "unordered", "xarray")
)
_CONTAINERS: Final = frozenset({dict, list, tuple, set, frozenset})
#: Of the types that are known, those whose digest as an argument is another's or that no codec gives back as they were.
_NOT_AS_STORED: Final = frozenset({Digest, Stated, memoryview})


class _Open(Unencodable):
    """Something else than the value decides its encoding, or it has too many members."""


def closed_digest(value: Any, most: int | None = MOST_NODES) -> bytes | None:
    """Return the digest that a value has as an argument, where nothing but the value decides it.

    Args:
        value: the value.
        most: the most members that it may have; None for any number.

    Returns:
        32 bytes; None where something else decides it, or the value has more members.
    """
    encoder = _Closed(sys.maxsize if most is None else most)
    try:
        encoder.add(value)
    except FAILURES:  # of the user's own code, too: the value is stored
        return None
    return None if encoder.is_open or encoder.unfollowed else blake3(encoder.out).digest()


class _NoFiles:
    """Ends the encoding where a file would count, or where a name may become that of one."""

    as_text = False

    def is_absent(self, path: str) -> NoReturn:
        raise _Open

    def count(self, *_: object) -> NoReturn:
        raise _Open

    def add_name(self, encoder: Encoder, text: str) -> bool:
        if paths_in(text):
            encoder.library("", "")
        return False


class _Closed(Encoder):
    """Ends where something else than the value decides."""

    __slots__ = ("_left", "is_open")

    def __init__(self, most: int) -> None:
        super().__init__(_NoFiles())
        self._left = most
        self.is_open = False  #: code that catches `_Open` on the way does not close the encoding

    def add(self, value: Any) -> None:
        kind = type(value)
        if kind in _CONTAINERS:
            self.spend(len(value))
        if handler_of(kind).__module__ not in _CLOSED or kind in _NOT_AS_STORED:
            self._end()
        super().add(value)

    def spend(self, members: int) -> None:
        self._left -= members
        if self._left < 0:
            self._end()

    def reference(self, thing: Any) -> NoReturn:
        self._end()

    def library(self, name: str, version: str) -> NoReturn:
        self._end()

    def stated(self, value: Any, label: str = "") -> NoReturn:
        self._end()

    def _end(self) -> NoReturn:
        self.is_open = True
        raise _Open
