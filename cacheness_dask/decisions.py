"""What is decided about a graph before it runs: the records that pass from planning to the tasks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, NamedTuple

from dask._task_spec import Alias, GraphNode

from cacheness.records import Presence
from cacheness_dask.cut_off import TaskInputs
from cacheness_dask.earlier_code import ToCompare
from cacheness_dask.files import Files
from cacheness_dask.graphs import Graph
from cacheness_dask.sources_and_sinks import FileState
from cacheness_dask.worker import Store

_DIGEST: Final = 32  #: bytes


@dataclass(frozen=True, slots=True)
class GraphRequest:
    """What a caller wants computed."""

    graph: Graph
    keys: Collection[Any]  #: whose results are wanted
    held: Mapping[Any, bytes | None] = field(default_factory=dict)  #: keys for which a client has futures: their terms
    waits: bool = True  #: a caller waits for the results, and runs the graph again if a hit was deleted
    pool: bytes = b""  #: identifies the graph, if its tasks run in a pool of processes


@dataclass(frozen=True, slots=True)
class CachedResults:
    """What the cache has for the tasks of a graph."""

    present: Mapping[str, Presence]  #: the existing results, by the entry's key
    noted: Mapping[str, str]  #: why others were not stored
    seconds: float  #: of one answer
    is_whole: bool = False  #: no result is missing


class ToStore(NamedTuple):
    """What a task needs whose result may be stored."""

    digest: bytes  #: its fingerprint
    clue: bytes  #: the checksums of its parts, stored for `explain`
    inputs: TaskInputs | None  #: its own content and inputs, if an alias can be made of them
    code: str  #: the user's code that it calls


@dataclass(frozen=True, slots=True)
class Decisions:
    """Decisions about a graph, without the graph: small, and valid wherever the graph is."""

    keys: tuple[Any, ...]  #: wanted
    hits: dict[Any, str]  #: loaded: the entry's key
    stored: dict[Any, ToStore]  #: computed, and stored if worthwhile
    marked: AbstractSet[Any]  #: of these, stored because a user marked them
    store: Store
    waits: bool  #: a caller waits for the results, and runs the graph again if a hit was deleted
    files: dict[Any, Files] = field(default_factory=dict)  #: of results to be stored, if a task names any
    checks: dict[Any, dict[Any, str]] = field(default_factory=dict)  #: hits that are computed again: entries of inputs
    earlier: dict[Any, bytes] = field(default_factory=dict)  #: hits of earlier code: the fingerprints of these
    compared: dict[Any, ToCompare] = field(default_factory=dict)  #: computed, and compared with earlier code's
    small: dict[Any, int] = field(default_factory=dict)  #: hits that their only dependent task may read: bytes

    def __reduce__(self) -> tuple[Any, ...]:
        # One object per task, of thousands, would take twice the bytes.
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        return _unpacked, ({**given, "stored": _Columns.of(self.stored)},)

    def for_elsewhere(self) -> Decisions:
        """Return the same for a graph that is created elsewhere, where other tasks may be fused."""
        stored = {
            key: one._replace(inputs=None) if one.inputs is not None and one.inputs.is_fused else one
            for key, one in self.stored.items()
        }
        return replace(self, stored=stored)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Results to be stored, in a compact form for another process."""

    keys: tuple[Any, ...]
    digests: bytes  #: one after the other
    clues: tuple[bytes, ...]
    places: tuple[int, ...]  #: of each in the table
    table: tuple[tuple[TaskInputs | None, str], ...]  #: what many tasks have in common

    @classmethod
    def of(cls, stored: Mapping[Any, ToStore]) -> _Columns:
        table: dict[tuple[TaskInputs | None, str], int] = {}
        places = tuple(table.setdefault((one.inputs, one.code), len(table)) for one in stored.values())
        digests, clues = b"".join(one.digest for one in stored.values()), tuple(one.clue for one in stored.values())
        return cls(tuple(stored), digests, clues, places, tuple(table))

    def stored(self) -> dict[Any, ToStore]:
        """Return the original decisions."""
        digests = (self.digests[at : at + _DIGEST] for at in range(0, len(self.digests), _DIGEST))
        rows = zip(self.keys, digests, self.clues, self.places, strict=True)
        return {key: ToStore(digest, clue, *self.table[place]) for key, digest, clue, place in rows}


def _unpacked(given: dict[str, Any]) -> Decisions:
    return Decisions(**{**given, "stored": given["stored"].stored()})


@dataclass(slots=True)
class GraphPlan:
    """The decision for each node that the wanted keys need. Made before anything runs."""

    graph: Mapping[Any, GraphNode]  #: the graph
    decisions: Decisions
    runs: set[Any] = field(default_factory=set)  #: computed or loaded
    misses: dict[Any, str] = field(default_factory=dict)  #: computed, and may be stored: the entry's key
    refused: dict[Any, str] = field(default_factory=dict)  #: computed, and never stored: why
    cut: bool = False  #: fused tasks were split, so that the graph has additional keys
    skipped: int = 0  #: needed by hits only, so neither computed nor loaded
    seconds_saved: float = 0.0
    seconds_spared: float = 0.0  #: of these, those of tasks that are neither computed nor loaded
    files: dict[str, FileState] = field(default_factory=dict)  #: read by the misses, with their state
    earlier: Mapping[Any, str] = field(default_factory=dict)  #: descriptions of results by earlier code
    noted: Mapping[str, str] = field(default_factory=dict)  #: why results were not stored, by the entry's key
    keeping: Any = None  #: what must stay alive until the graph is submitted
    under_way: Any = None  #: how its run tracks it until it ends

    @property
    def hits(self) -> dict[Any, str]:
        """Return the entry's key of a loaded result."""
        return self.decisions.hits


def other_names(graph: Mapping[Any, GraphNode], keys: Collection[Any]) -> Iterator[tuple[Any, Any]]:
    """Return the wanted keys that are only aliases, each with its target: a fused task has its own name."""
    for key in keys:
        node = graph.get(key)
        while isinstance(node, Alias):
            yield key, node.target
            node = graph.get(node.target)
