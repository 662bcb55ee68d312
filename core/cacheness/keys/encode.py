"""Encode values as canonical bytes: injective, and equal in every process and on every machine.

Each value begins with its tag. Variable lengths are written first, so that no two values share bytes:

    N T F   None, True, False          s b     text and bytes, length first
    i f c   int, float, complex        ( [     tuple and list, count first
    { < >   dict, set, frozenset       @       name, count, fields: everything else
    ^       this container again, so many levels up
    #       BLAKE3 of an encoding, or of text or bytes, too long to carry along

Sets are sorted by the encodings of their members, never by the members. A dictionary keeps its
order, which code that reads it can see; `loose` is the digest without order.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, Final, Protocol, TypeAlias, cast

from blake3 import blake3

from cacheness import forks
from cacheness.errors import CachenessError, UnhashableArgument
from cacheness.keys.error_paths import FAILURES, WAYS_OUT, Step, Unencodable, brief_of, place_of
from cacheness.keys.owners import module_of

Buffer: TypeAlias = bytes | bytearray | memoryview
Handler: TypeAlias = Callable[["Encoder", Any], None]
#: Where the items of a dictionary begin and end; or a place, and the bytes there without order.
Order: TypeAlias = list[int] | tuple[int, bytes]

#: Part of every key. A change of any encoding needs a new number.
FORMAT: Final = 2

#: A longer encoding is replaced by its digest, so that memory stays limited and an object that is
#: reachable in many ways is encoded once.
LONG: Final = 1 << 16
#: The prefix of a string of so many bytes.
_HEADS: Final = [b"s%x:" % size for size in range(256)]

#: Fixed, so that a value can be encoded or not independent of the call's depth in the program.
DEEPEST: Final = 128
#: How often containers may occur again that must be encoded each time, because they refer to one
#: around them. In a graph of objects that all lead to each other there is no end of these.
MOST_REPEATED: Final = 1 << 18

_NOWHERE: Final = 1 << 62

#: By exact type: what was asked for, what is registered, and what modules have listed that are loaded at the start.
_handlers: dict[type, Handler] = {}
#: By exact type, from modules that are loaded later. Only `_find` reads it, after it has waited for their import.
_listed: dict[type, Handler] = {}
#: Types that modules for Python's types, and for code, have listed.
_of_python: set[type] = set()
#: Our modules for functions and classes, in the order in which they were asked for a type. Imported with the first
#: value of a type that no module has listed.
_CODE: Final = "cacheness.keys.code."
_OF_CODE: Final = (f"{_CODE}wrappers", f"{_CODE}callables", f"{_CODE}fingerprint")
#: Our module for types of Python's library that few programs import.
_RARE: Final = "cacheness.keys.values.rare"
_OF_PYTHON: Final = ("cacheness.keys.values.", _CODE)
#: Our modules for the types of a library. Imported when such a value occurs.
_libraries: Final = {
    **dict.fromkeys(("decimal", "fractions", "uuid", "zoneinfo"), _RARE),
    "numpy": "cacheness.keys.values.numpy",
    "pandas": "cacheness.keys.values.pandas",
    "polars": "cacheness.keys.values.polars",
    "pyarrow": "cacheness.keys.values.arrow",
    "scipy": "cacheness.keys.values.scipy",
    "torch": "cacheness.keys.values.torch",
    "xarray": "cacheness.keys.values.xarray",
}
#: Encoders for types that are not listed by name.
_families: list[tuple[Callable[[type], bool], Handler]] = []
#: Encodes objects of all other types.
_rest: list[Handler] = []
#: What encoded types before a function was registered for them or for a base class.
_unregistered: dict[type, Handler] = {}
#: Functions given to `register`; they also hold for subclasses.
_overrides: dict[type, Callable[[Any], Any]] = {}


class Noting(Protocol):
    """How an encoder recognises files, and where it records those that count; `Inputs` is one."""

    as_text: bool

    def is_absent(self, path: str) -> bool:
        """Return True when a path does not exist yet."""
        ...

    def count(self, name: str, encoding: bytes, again: Callable[[], bytes]) -> None:
        """Record what counted by its content."""
        ...

    def add_name(self, encoder: Encoder, text: str) -> bool:
        """Append a string as a file; return False if it counts by its text."""
        ...


class Digest:
    """Represents a value of which only the digest is known; it counts in a key as that value would.

    Args:
        digest: 32 bytes.
        label: what `explain` shows for it.
    """

    __slots__ = ("digest", "label")

    def __init__(self, digest: bytes, label: str = "") -> None:
        if len(digest) != 32:
            raise ValueError(f"a digest has 32 bytes, not {len(digest)}")
        self.digest = bytes(digest)
        self.label = label  #: for messages; never part of a key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Digest) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"<{self.label or 'value'} {self.digest.hex()[:12]}…>"

    def __reduce__(self) -> tuple[type, tuple[bytes, str]]:
        return (type(self), (self.digest, self.label))


class Stated:
    """What a user declared as the key of a call. Strings in it are not file names; it counts as itself."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def encode(value: Any, path: str = "args", inputs: Noting | None = None) -> bytes:
    """Return the canonical bytes of a value.

    Args:
        value: the value.
        path: the name of the value in errors.
        inputs: with these, texts that name a file count by its content, and are added here.

    Raises:
        UnhashableArgument: a part of the value has no encoding; the message has its place below `path`.
    """
    encoder = Encoder(inputs)
    encoder.run(value, path)
    return bytes(encoder.out)


def encode_code(value: Any) -> bytes:
    """Return the canonical bytes of a part of code, whatever encoder is registered for its type.

    Otherwise an encoder that rounds numbers would make an edit of a constant a hit.
    """
    encoder = _CodeEncoder()
    encoder.run(value, "code")
    return bytes(encoder.out)


def digest_of(
    value: Any, path: str = "args", inputs: Noting | None = None, unfollowed: list[str] | None = None
) -> bytes:
    """Return the BLAKE3 digest of a value's canonical bytes, 32 bytes. A Digest is returned as it is.

    Args:
        value: the value.
        path: the name of the value in errors.
        inputs: with these, texts that name a file count by its content, and are added here.
        unfollowed: receives the names of what is not visible of the functions and classes in the value.

    Raises:
        UnhashableArgument: a part of the value has no encoding; the message has its place below `path`.
    """
    if type(value) is Digest:
        return value.digest
    encoder = Encoder(inputs)
    encoder.run(value, path)
    if unfollowed is not None:
        unfollowed += encoder.unfollowed
    return blake3(encoder.out).digest()


def register(type_: type, fn: Callable[[Any], Any]) -> None:
    """Let instances of a type, and of its subclasses, count as the type's name and a function's result.

    It holds for arguments and for values to which code refers. Constants of code always count as they are.

    Args:
        type_: the type.
        fn: called with an instance; returns what counts.
    """
    _overrides[type_] = fn
    # A type that was resolved earlier may be a subclass of this one.
    for known in [t for t in _handlers if issubclass(t, type_)]:
        if _handlers[known] is not _registered:
            _unregistered[known] = _handlers[known]
        _handlers[known] = _registered


def is_registered(types: Iterable[type]) -> bool:
    """Return True when `register` was called for one of these types."""
    return bool(_overrides) and any(base in _overrides for type_ in types for base in type_.__mro__)


class Encoder:
    """Appends the encodings of values to `out`."""

    __slots__ = (
        *("_code", "_levels", "_lowest", "_memo", "_repeated", "_stack"),
        *("inputs", "names", "orders", "out", "unfollowed"),
    )

    #: Whether a path to a directory counts by all the files in it.
    reads_directories = True
    #: Name and digest of a user's function, class or module, and what was not followed; set by `fingerprint.py`.
    digest_of_code: Callable[[Any], tuple[str, bytes, Iterable[str]]]  #: set when the modules for code are loaded

    def __init__(self, inputs: Noting | None = None) -> None:
        self.out = bytearray()
        self.orders: list[Order] = []  #: where in `out` dictionaries have their items, the inner ones first
        self.inputs = inputs  #: where files that count are recorded
        self.unfollowed: list[str] = []  #: what is not visible
        self.names = inputs is not None  #: whether strings are checked as file names
        self._stack: list[Any] = []
        self._levels: dict[int, int] = {}
        self._code: dict[int, tuple[Any, str, bytes]] = {}  # with the object, so that its id is not reused
        self._lowest = _NOWHERE  # the outermost level to which an unfinished value refers back
        #: With the object, so that its id is not reused; the last is None if it must be encoded each time.
        self._memo: dict[int, tuple[Any, bytes, bytes, bool | None]] = {}
        self._repeated = 0

    def run(self, value: Any, path: str) -> None:
        """Encode a value; an error contains the path below `path` to the part that failed."""
        try:
            self.add(value)
        except Unencodable as failure:
            raise UnhashableArgument(f"{place_of(path, self._stack)}: {failure}. {WAYS_OUT}") from failure.__cause__

    def add(self, value: Any) -> None:
        """Append one value. An exception of the user's code means that the value has no encoding."""
        kind = type(value)
        try:
            (_handlers.get(kind) or _find(kind))(self, value)
        except (Unencodable, CachenessError):
            raise
        except FAILURES as error:
            raise Unencodable(f"{module_of(kind)}.{kind.__qualname__} cannot be read ({brief_of(error)})") from error

    def items(self, values: Iterable[Any]) -> None:
        """Append values one by one; strings inline without calls, because there may be very many."""
        out, is_plain = self.out, not is_registered((str,))
        for value in values:
            if type(value) is not str or self.names or not is_plain:
                self.add(value)
                continue
            text = value.encode("utf-8", "surrogatepass")
            if len(text) < len(_HEADS):
                out += _HEADS[len(text)] + text
            else:
                self.blob(b"s", text)

    def word(self, value: Any) -> None:
        """Append a value in which no string is taken as a file: a key of a dictionary, a label."""
        names, self.names = self.names, False
        try:
            self.add(value)
        finally:
            self.names = names

    def apart(self, value: Any) -> bytes:
        """Return the separate encoding of a value at this place."""
        outer, self.out = self.out, bytearray()
        orders, self.orders = self.orders, []
        try:
            self.add(value)
            return bytes(self.out)
        finally:
            self.out, self.orders = outer, orders

    def blob(self, tag: bytes, data: Buffer) -> None:
        """Append bytes; if there are many, their digest instead."""
        size = len(data)
        if size <= LONG:
            self.out += b"%b%x:" % (tag, size)
            self.out += data
        else:
            self.out += b"%b#%x:" % (tag, size)
            self.out += blake3(data).digest()

    def open(self, name: str, fields: int) -> None:
        """Begin a value that consists of `fields` further values under a name."""
        self.out += b"@%x:%b%x:" % (len(name), name.encode(), fields)

    def tagged(self, name: str, *fields: Any) -> None:
        """Append a value that consists of some fields under a name."""
        self.open(name, len(fields))
        for field in fields:
            if type(field) is str:
                self.blob(b"s", field.encode("utf-8", "surrogatepass"))  # our text, and not a file name
            elif type(field) is bytes:
                self.blob(b"b", field)  # our bytes, for which no function is registered
            else:
                self.add(field)

    def reference(self, thing: Any) -> None:
        """Append a function, class or module of the user's: its content, not its place."""
        found = self._code.get(id(thing))
        if found is None:
            name, digest, unfollowed = Encoder.digest_of_code(thing)
            found = self._code[id(thing)] = (thing, name, digest)
            self.unfollowed += unfollowed
        self.tagged("code", found[1])
        self.out += found[2]

    def library(self, name: str, version: str) -> None:
        """Append a library by what counts for all its objects."""
        self.tagged("library", name, version)

    def spend(self, members: int) -> None:
        """Record that so many members are encoded in bulk; only a counting encoder uses it."""

    def note(self, trouble: str) -> None:
        """Record what is not visible and decides no result; only a reader of code lists it."""

    def enter(self, value: Any) -> int:
        """Begin a container. -1: it is complete already, because it occurred before."""
        key = id(value)
        level = self._levels.get(key)
        if level is not None:
            self.out += b"^%x;" % (len(self._stack) - level)
            self._lowest = min(self._lowest, level)
            for inner in self._stack[level + 1 :]:  # they refer to one around them
                if type(inner) is not Step:
                    self._memo.setdefault(id(inner), (inner, b"", b"", None))
            return -1
        known = self._memo.get(key)
        if known is not None and known[3] is self.names:
            self._append_short(known[1], known[2])
            return -1
        if known is not None and known[3] is None:
            self._repeated += 1
            if self._repeated > MOST_REPEATED:
                raise Unencodable("its objects lead to each other in too many ways")
        if len(self._stack) > DEEPEST:
            raise Unencodable(f"nested more than {DEEPEST} levels deep")
        self._levels[key] = len(self._stack)
        self._stack.append(value)
        return len(self.out)

    def leave(self, value: Any, start: int) -> None:
        """End a container that began at `start`."""
        self._stack.pop()
        level = self._levels.pop(id(value))
        if len(self.out) - start > LONG:
            self._shorten(value, start, level)
        if self._lowest >= level:
            self._lowest = _NOWHERE  # it refers back only to levels within itself

    def _shorten(self, value: Any, start: int, level: int) -> None:
        tag = b"#%c" % self.out[start]
        with memoryview(self.out) as whole, whole[start:] as mine:
            short = tag + blake3(mine).digest()
        within = [order for order in self.orders if order[0] >= start]
        loose = short
        if within:
            del self.orders[len(self.orders) - len(within) :]
            loose = tag + blake3(without_order(self.out[start:], within, start)).digest()
        del self.out[start:]
        self._append_short(short, loose)
        if self._lowest >= level:
            self._memo[id(value)] = (value, short, loose, self.names)

    def _append_short(self, short: bytes, loose: bytes) -> None:
        if loose != short:
            self.orders.append((len(self.out), loose))
        self.out += short

    def stated(self, value: Any, label: str = "") -> None:
        """Append what a user declared for an object: strings in it are not file names."""
        names, self.names = self.names, False
        try:
            self.step(label, value)
        finally:
            self.names = names

    def step(self, label: str, value: Any) -> None:
        """Append a value under a label for errors."""
        self._stack.append(Step(label))
        self.add(value)
        self._stack.pop()

    def pairs(self, items: Iterable[tuple[Any, Any]], label: Callable[[Any], str] | None = None) -> None:
        """Append the items of a dictionary in order, and record where each ends."""
        ends = [len(self.out)]
        for key, value in items:
            if self.names:
                self.word(key)
            else:
                self.add(key)
            if label is None:
                self.add(value)
            else:
                self.step(label(key), value)
            ends.append(len(self.out))
        if len(ends) > 2:
            self.orders.append(ends)

    def loose(self) -> bytes:
        """Return the digest that `out` would have if dictionaries had no order."""
        return blake3(without_order(self.out, self.orders) if self.orders else self.out).digest()

    def unordered(self, members: Iterable[tuple[Any, ...]]) -> None:
        """Append members, each with some values, in the order of their encodings."""
        encodings = [b"".join([self.apart(value) for value in member]) for member in members]
        encodings.sort()
        for encoding in encodings:
            self.out += encoding


def without_order(encoding: Buffer, orders: Iterable[Order], start: int = 0) -> bytearray:
    """Return an encoding with the items of its dictionaries sorted. The places in `orders` are relative to `start`."""
    loose = bytearray(encoding)
    for order in orders:
        first, rest = order[0] - start, order[1]
        if isinstance(rest, bytes):
            loose[first : first + len(rest)] = rest
        else:
            ends = [end - start for end in cast("list[int]", order)]
            loose[first : ends[-1]] = b"".join(sorted(loose[a:b] for a, b in pairwise(ends)))
    return loose


def _without_names(handler: Handler) -> Handler:
    """Take no string within arrays and frames as a file name."""

    @functools.wraps(handler)
    def within(encoder: Encoder, value: Any) -> None:
        names, encoder.names = encoder.names, False
        try:
            handler(encoder, value)
        finally:
            encoder.names = names

    return within


def reads_names(handler: Handler) -> Handler:
    """Decorator: strings within what this function encodes may be file names, although a library made it."""
    _reading_names.add(handler)
    return handler


_reading_names: set[Handler] = set()


def _guarded(handler: Handler) -> Handler:
    return _without_names(handler) if _is_of_library(handler) and handler not in _reading_names else handler


def _is_of_library(handler: Handler) -> bool:
    return handler.__module__ != _RARE and handler.__module__ in _libraries.values()


def _is_loaded_later(handler: Handler) -> bool:
    return handler.__module__.startswith(_CODE) or handler.__module__ in _libraries.values()


def handles(*types: type) -> Callable[[Handler], Handler]:
    """Decorator: this function encodes exactly these types."""

    def remember(handler: Handler) -> Handler:
        for type_ in types:
            if handler.__module__.startswith(_OF_PYTHON) and not _is_of_library(handler):
                _of_python.add(type_)
            known = _listed if _is_loaded_later(handler) else _handlers
            known[type_] = _guarded(handler)
        return handler

    return remember


def handles_family(belongs: Callable[[type], bool]) -> Callable[[Handler], Handler]:
    """Decorator: this function encodes types for which `belongs` returns True and that are not listed by name."""

    def remember(handler: Handler) -> Handler:
        _families.append((belongs, _guarded(handler)))
        return handler

    return remember


def handles_the_rest(handler: Handler) -> Handler:
    """Decorator: this function encodes all other types."""
    _rest.append(handler)
    return handler


def handler_of(kind: type) -> Handler:
    """Return the function that encodes values of exactly this type."""
    return _handlers.get(kind) or _find(kind)


def types_of_python() -> Iterable[type]:
    """Return the types that modules for Python's types have listed, so far as they are loaded."""
    return _of_python


def _find(kind: type) -> Handler:
    handler = _registered if any(base in _overrides for base in kind.__mro__) else _find_unregistered(kind)
    _handlers[kind] = handler
    return handler


def _find_unregistered(kind: type) -> Handler:
    handler: Handler
    if getattr(kind, "__cacheness_key__", None) is not None:
        handler = _own_key
    else:
        libraries = {module_of(base).partition(".")[0] for base in kind.__mro__}.intersection(_libraries)
        with forks.no_fork():  # a child forked during a thread's import could never import that module
            for module in (*_OF_CODE, *(_libraries[library] for library in libraries)):
                importlib.import_module(module)
        handler = _listed.get(kind) or next((h for belongs, h in _families if belongs(kind)), _rest[0])
    return handler


class _CodeEncoder(Encoder):
    """Encodes parts of code without registered functions."""

    __slots__ = ()

    def add(self, value: Any) -> None:
        kind = type(value)
        if handler_of(kind) is not _registered:
            super().add(value)
            return
        if kind not in _unregistered:
            _unregistered[kind] = _find_unregistered(kind)
        _unregistered[kind](self, value)

    def items(self, values: Iterable[Any]) -> None:
        for value in values:
            self.add(value)


def _registered(encoder: Encoder, value: Any) -> None:
    kind = type(value)
    fn = next(_overrides[base] for base in kind.__mro__ if base in _overrides)
    # By name, not by code: a class that defines its key defines it for its methods too.
    if (start := encoder.enter(value)) >= 0:
        encoder.tagged("registered", kind.__qualname__)
        encoder.stated(fn(value))
        encoder.leave(value, start)


def _own_key(encoder: Encoder, value: Any) -> None:
    if (start := encoder.enter(value)) >= 0:
        encoder.tagged("own", type(value).__qualname__)
        encoder.stated(value.__cacheness_key__(), ".__cacheness_key__()")
        encoder.leave(value, start)
