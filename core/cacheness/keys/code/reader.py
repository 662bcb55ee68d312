"""Encode values that code refers to, with holes for the user's functions and classes.

A fingerprint contains many such values. The functions and classes are read separately (`fingerprint.py`),
and their digests filled in when all are known (`merkle.py`).
"""

from __future__ import annotations

import pathlib
import types
from collections.abc import Hashable, Iterable
from typing import Any, Final

from cacheness.keys.code import callables
from cacheness.keys.code.merkle import Vertex
from cacheness.keys.code.random_calls import LOOKED_AT, Draw, drawn_when_called, kept_in
from cacheness.keys.encode import Encoder, types_of_python
from cacheness.keys.error_paths import Harmless, Unencodable, place_of
from cacheness.keys.owners import is_held, module_of, owner_of, owner_of_class
from cacheness.keys.snapshot import snapshot
from cacheness.keys.values import rare
from cacheness.keys.values.attributes import ABSENT, wrapped_by
from cacheness.keys.values.files import File
from cacheness.keys.values.objects import is_mock
from cacheness.lazy_dataclass import dataclass

#: Immutable values: it is enough that it is the same object.
_SETTLED: Final = frozenset({type(None), bool, int, float, complex, types.EllipsisType, types.ModuleType})


class Reader(Encoder):
    """Encodes values that code refers to, with holes for the user's functions and classes."""

    __slots__ = ("drawn", "edges", "place", "tolerant", "versions")
    #: A global like `Path(__file__).parent` is the code's place, not an input.
    reads_directories = False

    def __init__(self, place: str, versions: dict[str, str], tolerant: bool) -> None:
        super().__init__()
        self.place = place
        self.versions = versions
        self.tolerant = tolerant
        self.edges: list[Any] = []
        self.drawn: list[Draw] = []

    def reference(self, thing: Any) -> None:
        """Leave a hole for the digest of this object."""
        self.out += b"R"
        self.edges.append(thing)

    def library(self, name: str, version: str) -> None:
        """Keep the version, for `explain`."""
        super().library(name, version)
        self.versions[name] = version

    def note(self, trouble: str) -> None:
        """List something that is not visible and decides no result."""
        self.unfollowed.append(Harmless(f"{self.place}: {trouble}"))

    def add(self, value: Any) -> None:
        """Append a value; by its type, if it cannot be encoded and that is tolerated."""
        kind = type(value)
        if kind in LOOKED_AT:
            if draw := drawn_when_called(value):
                self.drawn.append(draw)
        elif kind not in _TRANSPARENT and (draw := kept_in(value)):
            self.drawn.append(draw)
        if kind in _TRANSPARENT or not self.tolerant:
            super().add(value)
            return
        edges, marks = self.edges, (len(self.out), len(self.edges), len(self._stack))
        # A part of the user's object may count by its type; a library's object counts as a whole.
        self.tolerant = owner_of_class(kind).kind == "user"
        try:
            super().add(value)
        except Unencodable:
            self._roll_back(edges, *marks)
            self.tolerant = True
            self._by_type(value)
        finally:
            self.tolerant = True

    def _roll_back(self, edges: list[Any], out: int, count: int, depth: int) -> None:
        del self.out[out:]
        self.orders = [order for order in self.orders if order[0] < out]
        self.edges = edges
        del self.edges[count:]
        del self._stack[depth:]
        self._levels = {key: level for key, level in self._levels.items() if level < depth}

    def _by_type(self, value: Any) -> None:
        kind = type(value)
        if is_mock(kind):  # each has a separate class, configured with its results
            kind = next(base for base in kind.__mro__ if is_held(base, module_of(base), base.__qualname__))
        wrapped = wrapped_by(value) if callable(value) else ABSENT
        wrapped = None if wrapped is ABSENT else wrapped
        self.tagged("by type", kind, wrapped)
        if wrapped is None:
            place = place_of(self.place, [*self._stack, value])
            line = f"{place}: {kind.__module__}.{kind.__qualname__}"
            self.unfollowed.append(Harmless(line) if _is_harmless(kind) else line)

    def unordered(self, members: Iterable[tuple[Any, ...]]) -> None:
        """Append members; as a bag, if they refer to code."""
        outer, found = self.edges, []
        for member in members:
            self.edges = []
            found.append((b"".join([self.apart(value) for value in member]), self.edges))
        self.edges = outer
        if any(edges for _, edges in found):
            # Their order is known only when the objects that they refer to have digests.
            self.out += b"U"
            self.edges.append(Bag(found))
        else:
            self.out += b"".join(sorted(content for content, _ in found))


#: They control how something runs and not its result: counted by class and module, with all subclasses.
_HARMLESS: Final = frozenset(
    {
        *(("_thread", name) for name in ("lock", "RLock", "_local", "_localdummy")),
        *(("threading", name) for name in ("Condition", "Semaphore", "Event", "Barrier", "Thread", "_RLock", "local")),
        *(("asyncio.mixins", "_LoopBoundMixin"), ("asyncio.events", "AbstractEventLoop"), ("asyncio.tasks", "Task")),
        *(("multiprocessing.synchronize", "SemLock"), ("multiprocessing.pool", "Pool")),
        *(("concurrent.futures._base", "Executor"), ("multiprocessing.context", "BaseContext")),
        *(("logging", name) for name in ("Filterer", "LoggerAdapter", "Formatter", "Manager")),
        *(("filelock._api", "BaseFileLock"), ("weakref", "finalize"), ("_contextvars", "Token")),
    }
)


def _is_harmless(kind: type) -> bool:
    return any((base.__module__, base.__qualname__) in _HARMLESS for base in kind.__mro__)


class Bag:
    """Members of a set that refer to code, each an encoding and its references."""

    __slots__ = ("members",)

    def __init__(self, members: list[tuple[bytes, list[Any]]]) -> None:
        self.members = members

    def vertices(self) -> dict[Hashable, Vertex]:
        """Return this bag and its members, for the graph."""
        members: dict[Hashable, Vertex] = {
            (id(self), at): Vertex(b"member" + c, names_of(edges)) for at, (c, edges) in enumerate(self.members)
        }
        return {id(self): Vertex(b"bag", list(members), ordered=False), **members}

    def outline(self) -> tuple[Any, ...]:
        """Return what identifies a bag, as long as the objects it refers to are alive."""
        return tuple((content, _outline(edges)) for content, edges in self.members)


def names_of(edges: Iterable[Any]) -> list[Hashable]:
    """Return the graph's names of these, as long as they are alive."""
    return [id(edge) for edge in edges]


def _outline(edges: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(edge.outline() if type(edge) is Bag else id(edge) for edge in edges)


@dataclass(slots=True)
class Value:
    """A value that code refers to, as last encoded, and whether it can change."""

    content: bytes
    edges: list[Any]
    unfollowed: list[str]
    settled: bool
    loose: bytes = b""  #: the digest without the order of dictionaries, if there are any
    outline: tuple[Any, ...] = ()
    drawn: tuple[Draw, ...] = ()  #: by its content
    snapshot: bytes = b""  #: a cheap check that it is unchanged; empty if there is none

    def drop_objects(self) -> None:
        """Keep only the identities of the objects, so that this keeps nothing alive."""
        self.outline = _outline(self.edges)
        self.edges = []

    def is_still(self, value: Any) -> bool:
        """Return True when the value's encoding has not changed."""
        if self.snapshot and snapshot(value) == self.snapshot:
            return True
        again = read(value, "", {})
        self.snapshot = again.snapshot if again.content == self.content else b""
        return again.content == self.content and _outline(again.edges) == self.outline


def read(value: Any, place: str, versions: dict[str, str], *, tolerant: bool = True) -> Value:
    """Encode a value that code refers to. With tolerance, a value that cannot be encoded counts by its type."""
    before = snapshot(value)
    reader = Reader(place, versions, tolerant)
    reader.run(value, place)
    content = bytes(reader.out)
    if reader.edges:
        settled = content == b"R" and reader.edges[0] is value
    else:
        settled = content.startswith(b"@7:by type") or _is_settled(value)
    loose = reader.loose() if reader.orders else b""
    # Another thread may have changed it during the encoding.
    unchanged = before if before and not settled and snapshot(value) == before else b""
    return Value(
        content, reader.edges, reader.unfollowed, settled, loose, drawn=tuple(reader.drawn), snapshot=unchanged
    )


def _is_settled(value: Any) -> bool:
    kind = type(value)
    if kind in _SETTLED:
        return True
    if kind is str or kind is bytes:
        return len(value) < 1024
    if kind is tuple or kind is frozenset:
        return len(value) < 100 and all(map(_is_settled, value))
    if kind is types.BuiltinFunctionType:
        return isinstance(value.__self__, types.ModuleType)
    if kind is types.FunctionType:
        return value.__closure__ is None and owner_of(value.__globals__.get("__name__")).kind in ("python", "library")
    return isinstance(value, type) and owner_of_class(value).kind != "user"


#: The last modules that list types of Python.
_LISTING: Final = (callables, rare)
#: Containers fail only if a member does. A path may be missing.
_TRANSPARENT: Final = frozenset(types_of_python()) - {pathlib.PosixPath, pathlib.WindowsPath, File}
