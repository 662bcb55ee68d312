"""Encode Python's values: scalars, containers, times, numbers, paths without files."""

from __future__ import annotations

import array
import collections
import datetime as dt
import gc
import logging
import math
import pathlib
import re
import struct
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from cacheness.keys.encode import Digest, Encoder, Handler, Stated, handles
from cacheness.keys.error_paths import Unencodable
from cacheness.keys.values.attributes import add_attributes

_NAN: Final = b"f" + struct.pack(">d", float("nan"))
_pack_float: Final = struct.Struct(">d").pack


def _of_none(_: None) -> bytes:
    return b"N"


def _of_bool(value: bool) -> bytes:
    return b"T" if value else b"F"


def _of_int(value: int) -> bytes:
    # Hexadecimal, because Python refuses to write very long integers in decimal.
    return b"i%x;" % value


def _of_float(value: float) -> bytes:
    return b"f" + _pack_float(value) if not math.isnan(value) else _NAN


def _of_complex(value: complex) -> bytes:
    return b"c" + _of_float(value.real) + _of_float(value.imag)


#: Encoders of scalars, which contain nothing else and are not file names.
SCALARS: Final[Mapping[type, Callable[[Any], bytes]]] = {
    type(None): _of_none,
    bool: _of_bool,
    int: _of_int,
    float: _of_float,
    complex: _of_complex,
}


def _scalar(encoding_of: Callable[[Any], bytes]) -> Handler:
    def handler(encoder: Encoder, value: Any) -> None:
        encoder.out += encoding_of(value)

    return handler


for _kind, _encoding_of in SCALARS.items():
    handles(_kind)(_scalar(_encoding_of))


@handles(str)
def _str(encoder: Encoder, value: str) -> None:
    if encoder.names and encoder.inputs is not None and encoder.inputs.add_name(encoder, value):
        return
    encoder.blob(b"s", value.encode("utf-8", "surrogatepass"))


@handles(bytes)
def _bytes(encoder: Encoder, value: bytes) -> None:
    encoder.blob(b"b", value)


@handles(bytearray)
def _bytearray(encoder: Encoder, value: bytearray) -> None:
    encoder.open("bytearray", 1)
    encoder.blob(b"b", value)


@handles(memoryview)
def _memoryview(encoder: Encoder, value: memoryview) -> None:
    try:
        encoder.tagged("memoryview", value.format, value.shape, value.readonly)
        is_bytes = value.format == "B" and value.ndim == 1 and value.c_contiguous
        encoder.blob(b"b", value if is_bytes else value.tobytes())
    except ValueError as error:
        raise Unencodable(f"a memoryview that was released ({error})") from error


@handles(array.array)
def _array(encoder: Encoder, value: array.array[Any]) -> None:
    encoder.tagged("array", value.typecode, value.tolist())


@handles(tuple)
def _tuple(encoder: Encoder, value: tuple[Any, ...]) -> None:
    if (start := encoder.enter(value)) >= 0:
        encoder.out += b"(%x:" % len(value)
        encoder.items(value)
        encoder.leave(value, start)


@handles(list)
def _list(encoder: Encoder, value: list[Any]) -> None:
    if (start := encoder.enter(value)) >= 0:
        encoder.out += b"[%x:" % len(value)
        encoder.items(value)
        encoder.leave(value, start)


@handles(dict)
def _dict(encoder: Encoder, value: dict[Any, Any]) -> None:
    if (start := encoder.enter(value)) >= 0:
        encoder.out += b"{%x:" % len(value)
        encoder.pairs(value.items())
        encoder.leave(value, start)


@handles(set)
def _set(encoder: Encoder, value: set[Any]) -> None:
    if (start := encoder.enter(value)) >= 0:
        encoder.out += b"<%x:" % len(value)
        encoder.unordered((item,) for item in _members(encoder, value))
        encoder.leave(value, start)


def _members(encoder: Encoder, value: set[Any] | frozenset[Any]) -> Iterable[Any]:
    """Return a set's members, strings first and sorted.

    So the first thousand are the same in each process.
    """
    if not encoder.names:
        return value
    texts = [item for item in value if type(item) is str]
    return [*sorted(texts), *(item for item in value if type(item) is not str)]


@handles(frozenset)
def _frozenset(encoder: Encoder, value: frozenset[Any]) -> None:
    if (start := encoder.enter(value)) >= 0:
        encoder.out += b">%x:" % len(value)
        encoder.unordered((item,) for item in _members(encoder, value))
        encoder.leave(value, start)


@handles(types.MappingProxyType)
def _mapping_proxy(encoder: Encoder, value: types.MappingProxyType[Any, Any]) -> None:
    encoder.tagged("mappingproxy", *gc.get_referents(value))  # no attribute leads to the mapping behind it


@handles(collections.OrderedDict)
def _ordered_dict(encoder: Encoder, value: collections.OrderedDict[Any, Any]) -> None:
    _within(encoder, value, "OrderedDict", dict(value))


@handles(collections.defaultdict)
def _default_dict(encoder: Encoder, value: collections.defaultdict[Any, Any]) -> None:
    _within(encoder, value, "defaultdict", value.default_factory, dict(value))


@handles(collections.Counter)
def _counter(encoder: Encoder, value: collections.Counter[Any]) -> None:
    _within(encoder, value, "Counter", dict(value))


@handles(collections.deque)
def _deque(encoder: Encoder, value: collections.deque[Any]) -> None:
    _within(encoder, value, "deque", value.maxlen, list(value))


def _within(encoder: Encoder, value: Any, name: str, *fields: Any) -> None:
    if (start := encoder.enter(value)) >= 0:
        beside: dict[str, Any] = getattr(value, "__dict__", {})
        if beside:
            encoder.open("beside", 2)
            add_attributes(encoder, value, beside)
        encoder.tagged(name, *fields)
        encoder.leave(value, start)


@handles(range)
def _range(encoder: Encoder, value: range) -> None:
    encoder.tagged("range", value.start, value.stop, value.step)


@handles(slice)
def _slice(encoder: Encoder, value: slice) -> None:
    encoder.tagged("slice", value.start, value.stop, value.step)


@handles(types.EllipsisType, types.NotImplementedType)
def _singleton(encoder: Encoder, value: Any) -> None:
    encoder.tagged("Ellipsis" if value is ... else "NotImplemented")


@handles(Digest)
def _digest(encoder: Encoder, value: Digest) -> None:
    encoder.open("digest", 1)
    encoder.blob(b"b", value.digest)


@handles(Stated)
def _stated(encoder: Encoder, value: Stated) -> None:
    encoder.word(value.value)


@handles(dt.date)
def _date(encoder: Encoder, value: dt.date) -> None:
    encoder.tagged("date", value.isoformat())


@handles(dt.datetime)
def _datetime(encoder: Encoder, value: dt.datetime) -> None:
    wall = value.replace(tzinfo=None).isoformat()
    encoder.tagged("datetime", wall, value.fold, value.tzinfo)


@handles(dt.time)
def _time(encoder: Encoder, value: dt.time) -> None:
    encoder.tagged("time", value.replace(tzinfo=None).isoformat(), value.fold, value.tzinfo)


@handles(dt.timedelta)
def _timedelta(encoder: Encoder, value: dt.timedelta) -> None:
    encoder.tagged("timedelta", value.days, value.seconds, value.microseconds)


@handles(dt.timezone)
def _timezone(encoder: Encoder, value: dt.timezone) -> None:
    encoder.tagged("timezone", *value.__getinitargs__())  # type: ignore[attr-defined]


@handles(pathlib.PurePosixPath, pathlib.PureWindowsPath)
def _pure_path(encoder: Encoder, value: pathlib.PurePath) -> None:
    encoder.tagged(type(value).__name__, str(value))


@handles(re.Pattern)
def _pattern(encoder: Encoder, value: re.Pattern[Any]) -> None:
    encoder.tagged("Pattern", value.pattern, value.flags)


@handles(logging.Logger, logging.RootLogger)
def _logger(encoder: Encoder, _: logging.Logger) -> None:
    # Not its name, which is a module's: `logging.getLogger(__name__)`.
    encoder.tagged("Logger")
