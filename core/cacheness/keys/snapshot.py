"""Check whether a large value of built-in types is unchanged, without encoding it again.

A snapshot is BLAKE3 over the pickle of a value that consists of exact built-in types only. It is
never part of a key. Pickled bytes contain the whole graph of such a value, each type and order in
it included, and nothing else decides its encoding; so equal snapshots mean equal encodings. Any
other object stops the attempt: the results of its methods (`__reduce__`, `__eq__`) prove nothing.
"""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import pickle
from typing import Any, Final, NoReturn

from blake3 import blake3

from cacheness.keys.encode import is_registered

#: Types that pickle handles by itself.
_CONTAINERS: Final = frozenset({dict, list, tuple, set, frozenset})
_LEAVES: Final = frozenset({type(None), bool, int, float, str, bytes, bytearray})
#: Written in C: pickle gets all of their state, and no code can change that.
_HELD: Final = frozenset({collections.OrderedDict, collections.defaultdict, collections.deque})
_FIXED: Final = frozenset({complex, dt.date, dt.datetime, dt.time, dt.timedelta, dt.timezone, decimal.Decimal})
_KNOWN: Final = _CONTAINERS | _LEAVES | _HELD | _FIXED


class _OtherType(Exception):
    """The value contains an object that is not of an exact built-in type."""


def snapshot(value: Any) -> bytes:
    """Return 32 bytes that are equal only while a container's encoding is; none if that is unknown."""
    kind = type(value)
    if not (kind in _CONTAINERS or kind in _HELD) or is_registered(_KNOWN):
        return b""
    sink = _Sink()
    pickler = _SnapshotPickler(sink, 5, buffer_callback=_refuse)
    pickler.dispatch_table = {}  # without reducers that others registered with pickle
    try:
        pickler.dump(value)
    except (_OtherType, pickle.PicklingError, RecursionError, RuntimeError):
        return b""  # RuntimeError: another thread is changing a dictionary
    return sink.digest()


class _Sink:
    """A file that keeps only the digest of what is written to it."""

    def __init__(self) -> None:
        hasher = blake3()
        self.write = hasher.update
        self.digest = hasher.digest


class _SnapshotPickler(pickle.Pickler):
    """Calls `reducer_override` for all but the exact built-in types that pickle handles by itself."""

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind in _FIXED or kind in _HELD or (kind is type and obj in _KNOWN):
            return NotImplemented
        raise _OtherType


def _refuse(_: pickle.PickleBuffer) -> NoReturn:
    raise _OtherType  # it would be written like the bytes inside it
