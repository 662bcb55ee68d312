"""Serializers for Prefect that use the cache's encoding.

`cacheness` is binary, and the one for tasks with a `CachenessPolicy`: there the storage takes the
value itself and the cache encodes it, so that arrays and tables are stored in their formats. In all
other cases, and with any other storage, it is a pickle followed by its large buffers:

    magic | how many: 8 bytes | sizes: 8 bytes each | pickle | buffer | buffer | …

`cacheness/text` is the same in base64, for results without key storage: Prefect puts those into
JSON, which cannot contain bytes.
"""

from __future__ import annotations

import base64
import pickle
import struct
from collections.abc import Iterator
from typing import Any, Literal

import cloudpickle
from prefect.serializers import Serializer
from pydantic import Field

from cacheness_prefect.run_metadata import UnencodedValue

MAGIC = b"cacheness\x01"
_SIZE = struct.Struct("<Q")


class CachenessSerializer(Serializer):
    """Serializes any value as bytes.

    Large arrays are encoded once and copied once.
    """

    type: Literal["cacheness"] = Field(default="cacheness", frozen=True)

    def dumps(self, obj: Any) -> bytes:
        """Return the value as bytes for `loads` in any process.

        The process needs the same libraries.

        Args:
            obj: the value.
        """
        buffers: list[pickle.PickleBuffer] = []
        stream = cloudpickle.dumps(obj, protocol=5, buffer_callback=buffers.append)
        pieces = [memoryview(stream), *(buffer.raw() for buffer in buffers)]
        sizes = b"".join(_SIZE.pack(piece.nbytes) for piece in pieces)
        return b"".join([MAGIC, _SIZE.pack(len(pieces)), sizes, *pieces])

    def loads(self, blob: bytes | UnencodedValue) -> Any:
        """Return the value; its arrays are writable.

        Args:
            blob: what `dumps` returned, or a value that the cache did not encode.
        """
        if isinstance(blob, UnencodedValue):
            return blob.value
        stream, *buffers = _pieces(memoryview(blob))
        return pickle.loads(stream, buffers=[bytearray(buffer) for buffer in buffers])


class CachenessTextSerializer(Serializer):
    """Serializes any value as text, a third larger than bytes.

    It works with any storage, without key storage.
    """

    type: Literal["cacheness/text"] = Field(default="cacheness/text", frozen=True)

    def dumps(self, obj: Any) -> bytes:
        """Return the value as ASCII.

        Args:
            obj: the value.
        """
        return base64.b64encode(CachenessSerializer().dumps(obj))

    def loads(self, blob: bytes) -> Any:
        """Return the value; its arrays are writable.

        Args:
            blob: what `dumps` returned.
        """
        return CachenessSerializer().loads(base64.b64decode(blob))


def _pieces(data: memoryview) -> Iterator[memoryview]:
    start = len(MAGIC) + _SIZE.size
    if bytes(data[: len(MAGIC)]) != MAGIC or len(data) < start:
        raise ValueError("these bytes were not written by the cacheness serializer")
    (count,) = _SIZE.unpack_from(data, len(MAGIC))
    place = start + count * _SIZE.size
    if place > len(data):
        raise ValueError("these bytes of the cacheness serializer are cut short")
    for number in range(count):
        (size,) = _SIZE.unpack_from(data, start + number * _SIZE.size)
        if place + size > len(data):
            raise ValueError("these bytes of the cacheness serializer are cut short")
        yield data[place : place + size]
        place += size
