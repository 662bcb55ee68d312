"""Decode canonical bytes to values, for the arguments in a row."""

from __future__ import annotations

import collections
import datetime as dt
import importlib
import pathlib
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from cacheness.errors import CodecError
from cacheness.keys.encode import Digest
from cacheness.keys.values.unordered import Unordered

_TOO_LONG: Final = "too long to show: only the digest of a part is kept"
_unpack_float: Final = struct.Struct(">d").unpack_from


def decode(data: bytes) -> Any:
    """Return the value of canonical bytes.

    Args:
        data: the result of `encode`.

    Raises:
        CodecError: the encoding does not contain enough of the value, or the bytes are damaged.
    """
    decoder = _Decoder(data)
    try:
        value = decoder.value()
    except (ArithmeticError, LookupError, OSError, RecursionError, TypeError, ValueError, struct.error) as error:
        raise CodecError(f"these {len(data)} bytes are not a value that can be rebuilt: {error}") from error
    if decoder.at != len(data):
        raise CodecError(f"{len(data) - decoder.at} bytes follow the end of an encoded value")
    return value


class _Decoder:
    """Reads values one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def value(self) -> Any:
        tag = self._data[self.at : self.at + 1]
        self.at += 1
        return _readers[tag](self)

    def number(self, end: bytes = b":") -> int:
        if self._data.startswith(b"#", self.at):
            raise CodecError(_TOO_LONG)
        stop = self._data.index(end, self.at)
        number = int(self._data[self.at : stop], 16)
        self.at = stop + 1
        return number

    def take(self, size: int) -> bytes:
        piece = self._data[self.at : self.at + size]
        if size < 0 or len(piece) != size:
            raise CodecError("an encoded value ends too early")
        self.at += size
        return piece

    def real(self) -> float:
        return float(_unpack_float(self.take(8))[0])

    def part(self) -> float:
        """The bytes of a float in a complex number, with its tag."""
        self.take(1)
        return self.real()

    def items(self) -> list[Any]:
        return [self.value() for _ in range(self.number())]

    def digest(self) -> NoReturn:
        """A long list, tuple, dictionary or object: a letter and a digest."""
        raise CodecError(_TOO_LONG)

    def pairs(self) -> dict[Any, Any]:
        return {self.value(): self.value() for _ in range(self.number())}

    def named(self) -> Any:
        build = _builders[self.take(self.number()).decode()]
        return build(*self.items())


_readers: Final[Mapping[bytes, Callable[[_Decoder], Any]]] = {
    b"N": lambda _: None,
    b"T": lambda _: True,
    b"F": lambda _: False,
    b"i": lambda d: d.number(b";"),
    b"f": _Decoder.real,
    b"c": lambda d: complex(d.part(), d.part()),
    b"s": lambda d: d.take(d.number()).decode("utf-8", "surrogatepass"),
    b"b": lambda d: d.take(d.number()),
    b"(": lambda d: tuple(d.items()),
    b"[": _Decoder.items,
    b"{": _Decoder.pairs,
    b"<": lambda d: set(d.items()),
    b">": lambda d: frozenset(d.items()),
    b"@": _Decoder.named,
    b"#": _Decoder.digest,
}


def _datetime(wall: str, fold: int, zone: dt.tzinfo | None) -> dt.datetime:
    return dt.datetime.fromisoformat(wall).replace(fold=fold, tzinfo=zone)


def _time(wall: str, fold: int, zone: dt.tzinfo | None) -> dt.time:
    return dt.time.fromisoformat(wall).replace(fold=fold, tzinfo=zone)


def _uuid(data: bytes, safe: int | None = None) -> Any:
    uuid = importlib.import_module("uuid")
    return uuid.UUID(bytes=data, is_safe=uuid.SafeUUID(safe))


def _later(module: str, name: str) -> Callable[..., Any]:
    """Return what builds a value by a class of a module that few programs import."""

    def build(*items: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*items)

    return build


_builders: Final[Mapping[str, Callable[..., Any]]] = {
    "bytearray": lambda data: bytearray(memoryview(data)),
    "OrderedDict": collections.OrderedDict,
    "unordered": Unordered,
    "Counter": collections.Counter,
    "deque": lambda limit, items: collections.deque(items, limit),
    "range": range,
    "slice": slice,
    "Ellipsis": lambda: ...,
    "NotImplemented": lambda: NotImplemented,
    "digest": Digest,
    "Decimal": _later("decimal", "Decimal"),
    "Fraction": _later("fractions", "Fraction"),
    "UUID": _uuid,
    "date": dt.date.fromisoformat,
    "datetime": _datetime,
    "time": _time,
    "timedelta": dt.timedelta,
    "timezone": dt.timezone,
    "zone": _later("zoneinfo", "ZoneInfo"),
    "PurePosixPath": pathlib.PurePosixPath,
    "PureWindowsPath": pathlib.PureWindowsPath,
}

#: The description of a value, from its first bytes, that cannot be rebuilt.
_KINDS: Final = {"[": "list", "(": "tuple", "{": "dict", "<": "set", ">": "frozenset", "s": "str", "b": "bytes"}


def describe(data: bytes, digest: bytes) -> str:
    """Describe an encoded value in a few words. The encoding may be truncated."""
    return rebuilt(data) or f"<{_kind_of(data)} {digest.hex()[:12]}…>"


def label_of(data: bytes) -> str:
    """Return the same for a `Digest`, whose repr is the digest itself."""
    return rebuilt(data) or _kind_of(data)


def rebuilt(data: bytes) -> str | None:
    """Describe an encoded value that can be rebuilt; return None for another."""
    try:
        value = decode(data)
    except CodecError:
        return None
    try:
        return _cut(repr(value))
    except ValueError:  # Python writes no number of more than 4,300 digits
        return f"<{type(value).__qualname__}>"


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"


def _kind_of(data: bytes) -> str:
    tag = data[:1].decode("latin-1")
    if tag == "#":
        return "long " + _KINDS.get(data[1:2].decode("latin-1"), "value")
    if tag != "@":
        return _KINDS.get(tag, "value")
    length, _, rest = data[1:].partition(b":")
    name = rest[: int(length, 16)].decode("latin-1")
    return _name_in(data) if name in _MADE else name


#: Encodings that begin with their constructor.
_MADE: Final = frozenset({"object", "made", "attrs", "enum", "set", "code", "of", "array subclass"})
_TEXT: Final = re.compile(rb"s([0-9a-f]+):")


def _name_in(data: bytes) -> str:
    """Return the first class or function that an encoding names: the user's, or `module:name`."""
    user, foreign = data.find(b"@4:code"), data.find(b"@2:of")
    is_user = user >= 0 and not 0 <= foreign < user
    for found in _TEXT.finditer(data, max(user if is_user else foreign, 0)):
        text = data[found.end() : found.end() + int(found[1], 16)].decode("utf-8", "replace")
        if is_user or ":" in text:
            return text.rpartition(":")[2]
    return "object"
