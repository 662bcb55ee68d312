"""Compute digests that depend on the value alone, so that they can be stored with a result.

The digest is the one that the value has as an argument. An encoding is closed if it contains no
code, no file or file name, no library's version, no `register` and no `__cacheness_key__`: it then
stays valid when any of these changes.
"""

from __future__ import annotations

import sys
from typing import Any, Final, NoReturn

from blake3 import blake3

from cacheness.keys.encode import Digest, Encoder, Stated, handler_of
from cacheness.keys.error_paths import FAILURES, Unencodable
from cacheness.keys.inputs import paths_in

#: Members of containers that are encoded by default; each of them costs time at a put.
MOST_NODES: Final = 180
#: Modules whose types have closed encodings. Others encode code, files, connections, or pickle's state.
_CLOSED: Final = frozenset(
    f"cacheness.keys.values.{name}"
    for name in ("arrow", "builtins", "numpy", "pandas", "polars", "rare", "scipy", "torch", "unordered", "xarray")
)
_CONTAINERS: Final = frozenset({dict, list, tuple, set, frozenset})
#: Known types whose digest as an argument belongs to another value.
_NOT_AS_STORED: Final = frozenset({Digest, Stated})


class _Open(Unencodable):
    """The encoding depends on more than the value, or the value has too many members."""


def closed_digest(value: Any, most: int | None = MOST_NODES) -> bytes | None:
    """Return the digest of a value as an argument, if it depends on the value alone.

    Args:
        value: the value.
        most: the most members that it may have; None for any number.

    Returns:
        32 bytes; None if the digest depends on more, or the value has more members.
    """
    encoder = _Closed(sys.maxsize if most is None else most)
    try:
        encoder.add(value)
    except FAILURES:  # including exceptions of the user's code: the value is stored anyway
        return None
    return None if encoder.is_open or encoder.unfollowed else blake3(encoder.out).digest()


class _NoFiles:
    """Stops if a file would count, or a name may become a file's."""

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
    """Stops when the encoding depends on more than the value."""

    __slots__ = ("_left", "is_open")

    def __init__(self, most: int) -> None:
        super().__init__(_NoFiles())
        self._left = most
        self.is_open = False  #: user code that catches `_Open` must not make the encoding closed

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
