"""Find where a result comes from: earlier results with the values of its arguments."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, TypeAlias

from blake3 import blake3

from cacheness.errors import CachenessError
from cacheness.keys import RESERVED, Digest, arguments_of, encode
from cacheness.lazy_dataclass import dataclass
from cacheness.printable import printable
from cacheness.records import Entry

#: Bytes of an encoded value from which on two results are unlikely to have it by chance.
TELLING: Final = 64
#: The most results that are checked; a value that many results have leads to many.
MOST: Final = 1000

#: Finds the entries that hold values with these digests.
Finder: TypeAlias = Callable[[Sequence[bytes]], Mapping[bytes, Sequence[Entry]]]


@dataclass(frozen=True, slots=True)
class LineageEdge:
    """An argument of a result, and an earlier result that has its value."""

    result: str  #: key
    argument: str
    source: str  #: key
    is_certain: bool  #: passed as a reference, or the only result with a value that is no coincidence


@dataclass(frozen=True, slots=True)
class Lineage:
    """The origin of a result."""

    key: str
    functions: Mapping[str, str]  #: by key
    edges: tuple[LineageEdge, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the lineage as data."""
        return asdict(self)

    def mermaid(self) -> str:
        """Return the lineage as a Mermaid diagram; a dotted line is a possible step."""
        names = {key: f"n{number}" for number, key in enumerate(self.functions)}
        lines = [f'    {names[key]}["{_in_diagram(name)}<br>{key[:12]}"]' for key, name in self.functions.items()]
        lines += [
            f"    {names[edge.source]} {'-->' if edge.is_certain else '-.->'}|{_in_diagram(edge.argument)}|"
            f" {names[edge.result]}"
            for edge in self.edges
        ]
        return "\n".join(["flowchart TD", *lines])

    def __str__(self) -> str:
        rows = [f"{self.key[:12]} {self.functions[self.key]}"]
        for edge in self.edges:
            words = "is" if edge.is_certain else "may be"
            source = f"{edge.source[:12]} {self.functions[edge.source]}"
            rows.append(f"  {edge.argument} of {edge.result[:12]} {words} {source}")
        return "\n".join(map(printable, rows))


def _in_diagram(name: str) -> str:
    """Return a name from a store as text in Mermaid.

    Characters except letters, digits and plain signs become numbers.
    """
    return re.sub(r"[^\w .:/-]", lambda found: f"#{ord(found[0])};", printable(name))


def lineage_of(entry: Entry, up: int, find: Finder) -> Lineage:
    """Follow the arguments of a result to earlier results that have their values, so many steps."""
    functions = {entry.cache_key: entry.function or "put by hand"}
    edges: list[LineageEdge] = []
    level = [entry]
    for _ in range(up):
        asked = {one.cache_key: list(_values_in(one)) for one in level}
        wanted = sorted({digest for values in asked.values() for _, digest, _, _ in values})
        found = find(wanted) if wanted else {}
        following: dict[str, Entry] = {}
        for key, values in asked.items():
            for name, digest, is_telling, label in values:
                sources = [source for source in found.get(digest, ()) if source.cache_key != key]
                for source in sources:
                    is_passed = label.startswith("result of ") and source.cache_key[:12] in label
                    is_certain = is_passed or (is_telling and len(sources) == 1)
                    edges.append(LineageEdge(key, name, source.cache_key, is_certain))
                    if source.cache_key not in functions and len(functions) < MOST:
                        following[source.cache_key] = source
                        functions[source.cache_key] = source.function or "put by hand"
        level = list(following.values())
    return Lineage(entry.cache_key, functions, tuple(edge for edge in edges if edge.source in functions))


def _values_in(entry: Entry) -> Iterator[tuple[str, bytes, bool, str]]:
    """Yield each argument of a result: its name and digest, whether the value identifies it, and its label."""
    try:
        found = arguments_of(entry.args)
    except CachenessError:
        return
    clashing = found.get("args")
    given = {n: v for n, v in found.items() if n not in RESERVED} | (clashing if isinstance(clashing, dict) else {})
    for name, value in given.items():
        if isinstance(value, Digest):
            yield name, value.digest, True, value.label  # it is longer than a row stores
        else:
            encoding = encode(value)
            yield name, blake3(encoding).digest(), len(encoding) >= TELLING, ""
