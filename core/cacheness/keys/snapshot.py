"""Whether a large value of Python's own types is still as it was, found out without encoding it again.

A snapshot is BLAKE3 over what pickle writes of a value that is made of exact built-in types only. It
never enters a key. Pickled bytes hold the whole graph of such a value, each type and order in it
included, and nothing else decides its encoding; so equal snapshots mean equal encodings. Any other
object ends the attempt: what its methods say of it (`__reduce__`, `__eq__`) proves nothing.
"""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import pickle
from typing import Any, Final, NoReturn

from blake3 import blake3

from cacheness.keys.encode import is_registered

#: What pickle knows by itself.
_CONTAINERS: Final = frozenset({dict, list, tuple, set, frozenset})
_LEAVES: Final = frozenset({type(None), bool, int, float, str, bytes, bytearray})
#: Written in C: they say through pickle all that they are, and nobody can teach them to say otherwise.
_HELD: Final = frozenset({collections.OrderedDict, collections.defaultdict, collections.deque})
_FIXED: Final = frozenset({complex, dt.date, dt.datetime, dt.time, dt.timedelta, dt.timezone, decimal.Decimal})
_KNOWN: Final = _CONTAINERS | _LEAVES | _HELD | _FIXED


class _OtherType(Exception):
    """There is something within that is not of an exact built-in type."""


def snapshot(value: Any) -> bytes:
    """32 bytes that are equal only while the encoding of a container is; none when that cannot be said."""
    kind = type(value)
    if not (kind in _CONTAINERS or kind in _HELD) or is_registered(_KNOWN):
        return b""
    sink = _Sink()
    pickler = _SnapshotPickler(sink, 5, buffer_callback=_refuse)
    pickler.dispatch_table = {}  # not what others have taught pickle
    try:
        pickler.dump(value)
    except (_OtherType, pickle.PicklingError, RecursionError, RuntimeError):
        return b""  # RuntimeError: a dictionary that another thread is filling
    return sink.digest()


class _Sink:
    """A file that keeps only the digest of what is written to it."""

    def __init__(self) -> None:
        hasher = blake3()
        self.write = hasher.update
        self.digest = hasher.digest


class _SnapshotPickler(pickle.Pickler):
    """Asks `reducer_override` about all but the exact built-in types that pickle knows by itself."""

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind in _FIXED or kind in _HELD or (kind is type and obj in _KNOWN):
            return NotImplemented
        raise _OtherType


def _refuse(_: pickle.PickleBuffer) -> NoReturn:
    raise _OtherType  # it would be written like the bytes within
