"""Encode arrays as .npy files, which `numpy.load` opens; decoding copies nothing."""

from __future__ import annotations

import ast
import math
import struct
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal

from cacheness.errors import CodecError
from cacheness.protocols import Buffer, Codec

if TYPE_CHECKING:
    import numpy as np

_MAGIC: Final = b"\x93NUMPY\x01\x00"
_LENGTH: Final = struct.Struct("<H")
_PREFIX: Final = len(_MAGIC) + _LENGTH.size
_ALIGNMENT: Final = 64
_LONGEST_DESCRIPTION: Final = 60_000  #: the header's length has 16 bits
#: Booleans, numbers, times, fixed-width bytes and text, records. Not objects, not variable-width text.
_KINDS: Final = frozenset("?biufcmMSUV")


class NumpyCodec:
    """Encodes plain arrays of any dtype that .npy describes in full, in their memory order."""

    name = "numpy"
    safe = True

    def accepts(self, value: Any) -> bool:
        """Accept plain arrays: a subclass would lose its type, and objects need pickle."""
        numpy = sys.modules.get("numpy")
        return numpy is not None and type(value) is numpy.ndarray and _describes(value.dtype)

    def encode(self, value: Any) -> list[Buffer]:
        """Return a header, and the array's memory, copied only if it has gaps."""
        import numpy as np

        if not (value.flags.c_contiguous or value.flags.f_contiguous):
            value = np.ascontiguousarray(value)
        header = _header(value)
        return [header, memoryview(value.reshape(-1, order="A").view(np.uint8))] if value.nbytes else [header]

    def decode(self, data: Buffer) -> Any:
        """Return a writable array on the memory of `data`."""
        import numpy as np

        if memoryview(data).readonly:
            data = bytearray(data)
        start = _start(data)
        dtype, shape, order = _parse(bytes(memoryview(data)[_PREFIX:start]))
        if len(data) - start != math.prod(shape) * dtype.itemsize:
            raise CodecError(f"an array of shape {shape} and type {dtype} does not fill the {len(data)} bytes it has")
        try:
            return np.ndarray(shape, dtype, data, start, order=order)
        except (ValueError, TypeError) as error:
            raise CodecError(f"this is not an array: {error}") from error


def _describes(dtype: np.dtype[Any]) -> bool:
    """Return True when a .npy header describes this dtype in full."""
    if dtype.kind not in _KINDS or dtype.hasobject or dtype.isbuiltin == 2:
        return False
    # Records may have titles, alignment and overlaps; instead of checking each, encode and decode the dtype.
    return dtype.metadata is None and (dtype.names is None or _survives(dtype))


def _survives(dtype: np.dtype[Any]) -> bool:
    try:
        text = repr(dtype.descr)
        rebuilt = _dtype(ast.literal_eval(text))
    except (ValueError, TypeError):  # overlapping or out-of-order fields
        return False
    fits = len(text) < _LONGEST_DESCRIPTION and text.isascii()
    return fits and bool(rebuilt == dtype) and rebuilt.__reduce__() == dtype.__reduce__()


def _header(value: np.ndarray[Any, Any]) -> bytes:
    dtype = value.dtype
    description = dtype.str if dtype.names is None else dtype.descr
    fortran = value.flags.f_contiguous and not value.flags.c_contiguous
    text = f"{{'descr': {description!r}, 'fortran_order': {fortran}, 'shape': {value.shape!r}, }}"
    padding = -(_PREFIX + len(text) + 1) % _ALIGNMENT
    body = f"{text}{' ' * padding}\n".encode("latin-1")
    return _MAGIC + _LENGTH.pack(len(body)) + body


def _start(data: Buffer) -> int:
    """Return the offset of the first element."""
    if len(data) < _PREFIX or data[: len(_MAGIC)] != _MAGIC:
        raise CodecError("this is not an array: it does not begin like a .npy file")
    start: int = _PREFIX + _LENGTH.unpack_from(data, len(_MAGIC))[0]
    if start > len(data):
        raise CodecError("this is not an array: its header is cut short")
    return start


@lru_cache(maxsize=256)
def _parse(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...], Literal["C", "F"]]:
    try:
        fields = ast.literal_eval(header.decode("latin-1"))
        description, fortran, shape = fields["descr"], fields["fortran_order"], fields["shape"]
        dtype = _dtype(description)
    except (ValueError, TypeError, KeyError, SyntaxError, MemoryError, RecursionError, Warning) as error:
        raise CodecError(f"this is not an array: its header cannot be read ({type(error).__name__})") from error
    if not (isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)) or dtype.hasobject:
        raise CodecError(f"this is not an array of plain values: shape {shape!r}, type {dtype}")
    return dtype, shape, "F" if fortran else "C"


def _dtype(description: Any) -> np.dtype[Any]:
    from numpy.lib.format import descr_to_dtype

    return descr_to_dtype(description)


_conforms: type[Codec] = NumpyCodec
