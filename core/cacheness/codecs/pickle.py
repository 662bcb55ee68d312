"""Encode all other values: pickle protocol 5, with large buffers stored after the pickle.

The payload is the pickle, each buffer at a multiple of 64 bytes, and at the end the sizes of all these:

    pickle | padding | buffer | padding | buffer | … | sizes: 8 bytes each | how many: 8 bytes

A pickle marks its end, so `pickle.load` opens a value without large buffers.
"""

from __future__ import annotations

import pickle
import re
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any, Final

from cacheness.codecs import shared
from cacheness.codecs.libraries import attempt
from cacheness.errors import CodecError
from cacheness.protocols import Buffer, Codec

PROTOCOL: Final = 5
_ALIGNMENT: Final = 64
_SMALL: Final = 1024  #: bytes; smaller buffers stay in the pickle
_NUMBER: Final = struct.Struct("<Q")
#: How pickle writes the name of a module that cannot be imported: __main__, __mp_main__, or a
#: script's name if it was loaded from its path.
_NOWHERE: Final = re.compile(rb"\x8c.(__[a-z]\w*__)", re.DOTALL)
_MOST_STEPS: Final = 20
_MOST_LOOKS: Final = 200


class PickleCodec:
    """Encodes whatever pickle or cloudpickle accepts. Decoding runs code: only for verified bytes."""

    name = "pickle"
    safe = False

    def accepts(self, value: Any) -> bool:
        """Return True: this codec comes last, and `encode` raises for values that cannot be pickled."""
        return True

    def encode(self, value: Any) -> list[Buffer]:
        """Return the payload; large arrays and byte strings in it are not copied."""
        try:
            stream, buffers = attempt(_plainly, value)
            if not _nowhere(stream):
                return _join(stream, buffers)
        except CodecError:
            pass  # cloudpickle may still succeed; otherwise its message is better
        try:
            return _join(*attempt(_thoroughly, value))
        except CodecError as error:
            raise CodecError(
                f"a result of type {type(value).__qualname__} cannot be stored: {_culprit(value)} does not pickle"
                f" ({error}). Return plain data, or give that type a __reduce__ method"
            ) from error.__cause__

    def decode(self, data: Buffer) -> Any:
        """Return the value; arrays in it are writable and use the memory of `data`."""
        stream, *buffers = _split(memoryview(data))
        if buffers and stream.readonly:  # arrays on this memory must be writable
            _, *buffers = _split(memoryview(bytearray(data)))
        try:
            return attempt(lambda pickled: pickle.loads(pickled, buffers=buffers), stream)
        except CodecError as error:
            raise CodecError(
                f"a stored value does not unpickle here ({error}). Its class may have moved or changed,"
                " or another version of a library may have written it"
            ) from error.__cause__


class _PickleBuffers(list[Buffer]):
    """A file for pickle that keeps large byte strings without copying them."""

    write = list.append


class _Nothing:
    """A file that drops what is written."""

    def write(self, data: Buffer) -> None:
        pass


class _ValuePickler(pickle.Pickler):
    """Python's pickler, for values whose parts may be views of much larger memory."""

    reducer_override = staticmethod(shared.reduce_part)


def _plainly(value: Any) -> tuple[_PickleBuffers, list[memoryview]]:
    stream, buffers = _PickleBuffers(), list[memoryview]()
    kind = _ValuePickler if shared.may_share() else pickle.Pickler
    pickler = kind(stream, PROTOCOL, buffer_callback=_keeping_small_ones(buffers))
    pickler.dispatch_table = shared.reducers()
    pickler.dump(value)
    return stream, buffers


def _thoroughly(value: Any) -> tuple[_PickleBuffers, list[memoryview]]:
    """Pickle the value with the code of functions and classes that other processes cannot import."""
    import cloudpickle

    stream, buffers = _PickleBuffers(), list[memoryview]()
    _thorough_pickler()(stream, PROTOCOL, buffer_callback=_keeping_small_ones(buffers)).dump(value)
    # cloudpickle pickles only __main__ by value. The registration stays, because other processes
    # never can import these names.
    strangers = _nowhere(stream) - {"__main__"} - cloudpickle.list_registry_pickle_by_value()
    for name in strangers:
        cloudpickle.register_pickle_by_value(sys.modules[name])
    return _thoroughly(value) if strangers else (stream, buffers)


@cache
def _thorough_pickler() -> Any:
    import cloudpickle

    class SharedPickler(cloudpickle.Pickler):  # type: ignore[misc]
        @property
        def dispatch_table(self) -> Any:  # read once, when a pickler is made
            return {**super().dispatch_table, **shared.reducers()}

        def reducer_override(self, value: Any) -> Any:
            reduced = shared.reduce_part(value)
            return super().reducer_override(value) if reduced is NotImplemented else reduced

    return SharedPickler


def _keeping_small_ones(large: list[memoryview]) -> Callable[[pickle.PickleBuffer], bool]:
    def keep(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes >= _SMALL:
            large.append(raw)
        return raw.nbytes < _SMALL

    return keep


def _nowhere(stream: Iterable[Buffer]) -> set[str]:
    """Return the modules that the pickle may refer to and that no other process can import."""
    names = {match.decode() for piece in stream for match in _NOWHERE.findall(piece)}
    # multiprocessing gives __main__ a second name, under which it is not a separate module.
    return {name for name in names - {"__future__"} if getattr(sys.modules.get(name), "__name__", None) == name}


def _join(stream: Iterable[Buffer], buffers: list[memoryview]) -> list[Buffer]:
    file = list(stream)
    sizes = [sum(map(len, file))]
    for buffer in buffers:
        file += (bytes(-sizes[-1] % _ALIGNMENT), buffer)
        sizes.append(buffer.nbytes)
    file.append(struct.pack(f"<{len(sizes) + 1}Q", *sizes, len(sizes)))
    return file


def _split(data: memoryview) -> list[memoryview]:
    """Return the pickle and its buffers, as slices of the payload."""
    room = len(data) - _NUMBER.size
    count = _NUMBER.unpack_from(data, room)[0] if room >= 0 else 0
    end = room - count * _NUMBER.size
    if count < 1 or end < 0:
        raise CodecError("these bytes are no pickled value: the sizes at their end are missing")
    slices, start = [], 0
    for size in struct.unpack_from(f"<{count}Q", data, end):
        start += -start % _ALIGNMENT
        slices.append(data[start : start + size])
        start += size
    if start != end:
        raise CodecError("these bytes are no pickled value: the sizes at their end do not add up")
    return slices


def _culprit(value: Any) -> str:
    """Return the path to the innermost part that cannot be pickled, as `result.model._lock (lock)`."""
    path = "result"
    for _ in range(_MOST_STEPS):
        inner = next((one for one in islice(_children(value), _MOST_LOOKS) if not _pickles(one[1])), None)
        if inner is None:
            break
        path, value = path + inner[0], inner[1]
    return f"{path} ({type(value).__qualname__})"


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]" if isinstance(key, str | int) else "[…]", child) for key, child in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{number}]", child) for number, child in enumerate(value))
    elif not isinstance(value, type):
        yield from ((f".{name}", child) for name, child in getattr(value, "__dict__", {}).items())


def _pickles(value: Any) -> bool:
    try:
        attempt(_thorough_pickler()(_Nothing(), PROTOCOL).dump, value)
    except CodecError:
        return False
    return True


_conforms: type[Codec] = PickleCodec
