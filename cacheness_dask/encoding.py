"""Terms: the encodings of parts of a task. Each marks its end, so that none merges with the next.

N T F i f s b   None, True, False, int, float, text, bytes
S               a shuffle's name, which is a token
p               text that names a regular file: the text, and the digest of the content
v               any other literal, by the core's digest
r               the result of a task, by its fingerprint
c               a container, a partial, a source: the digest of its terms
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any, Final

from blake3 import blake3


class NotCacheable(Exception):
    """This task has no fingerprint; the message has the reason, for `explain`."""


#: Part of every fingerprint. Raise it when the meaning of a term changes.
DOMAIN: Final = b"cacheness-dask/2"
#: The tag of a task's result, as a number.
RESULT: Final = ord("r")
#: The same for a text that names a file.
NAMED_FILE: Final = ord("p")

_pack_size = struct.Struct(">Q").pack
_pack_float = struct.Struct(">d").pack


def text(value: str) -> bytes:
    """Text, length first."""
    data = value.encode("utf-8", "surrogatepass")
    return _pack_size(len(data)) + data


def container(kind: bytes, terms: list[bytes]) -> bytes:
    """Return the term of an object that consists of other terms."""
    return b"c" + blake3(b"%b %b %d " % (DOMAIN, kind, len(terms)) + b"".join(terms)).digest()


def _float(value: float) -> bytes:
    return b"f" + _pack_float(math.nan if math.isnan(value) else value)


#: By exact type: a bool is no int here, and a subclass is not its base.
SCALARS: Final[dict[type, Callable[[Any], bytes]]] = {
    type(None): lambda _: b"N",
    bool: lambda value: b"T" if value else b"F",
    int: lambda value: b"i%d;" % value,
    float: _float,
    bytes: lambda value: b"b" + _pack_size(len(value)) + value,
}
