"""What fingerprinting finds: the records about each task of a graph."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from cacheness.keys import Inputs
from cacheness_dask.cut_off import TaskInputs
from cacheness_dask.result_keys import entry_key
from cacheness_dask.sources_and_sinks import FileState

Names: TypeAlias = frozenset[str]


class Clues(Mapping[Any, bytes]):
    """What `explain` compares, by key of a task. Most are never needed: those of plain calls are made on demand.

    Args:
        known: those that exist already.
        made: makes another one.
    """

    def __init__(
        self, known: dict[Any, bytes] | None = None, made: Callable[[Any], bytes | None] = lambda _: None
    ) -> None:
        self.known: dict[Any, bytes] = {} if known is None else known
        self._made = made

    def __getitem__(self, key: Any) -> bytes:
        found = self.known.get(key)
        if found is None:
            found = self._made(key)
        if found is None:
            raise KeyError(key)
        return found

    def __iter__(self) -> Iterator[Any]:
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)


class EntryKeys(dict[bytes, str]):
    """The key of the entry with each fingerprint, in hexadecimal digits. Each is made when it is first read."""

    def __missing__(self, digest: bytes) -> str:
        name = self[digest] = entry_key(digest)
        return name


@dataclass(slots=True)
class Fingerprints:
    """The facts about each task that the wanted keys need."""

    digests: dict[Any, bytes] = field(default_factory=dict)  #: of tasks that may be looked up and stored
    terms: dict[Any, bytes] = field(default_factory=dict)  #: of every node that has one
    refused: dict[Any, str] = field(default_factory=dict)  #: why a task has no fingerprint
    plumbing: set[Any] = field(default_factory=set)  #: fingerprinted, and never looked up or stored
    marked: set[bytes] = field(default_factory=set)  #: digests of results that a user marked
    cuttable: list[Any] = field(default_factory=list)  #: fused tasks with a mark inside
    clues: Mapping[Any, bytes] = field(default_factory=dict)  #: with these, `explain` finds what changed in a task
    incomplete: dict[Any, tuple[str, ...]] = field(default_factory=dict)  #: what can decide a result and is not visible
    files: dict[str, FileState] = field(default_factory=dict)  #: whose content counts, with their state
    inputs: dict[Any, Inputs] = field(default_factory=dict)  #: the files of each node that names any
    functions: dict[bytes, types.FunctionType] = field(default_factory=dict)  #: those that occurred, by their digests
    entries: EntryKeys = field(default_factory=EntryKeys, repr=False)  #: keys of the entries with fingerprints
    groups: dict[Any, list[Names]] = field(default_factory=dict)  #: of these, those that count together
    texts: dict[Any, dict[Names, bytes]] = field(default_factory=dict)  #: digests with some files by their names
    #: Return a task's own content, and the places of other tasks' results in it; None if unknown.
    inputs_of: Callable[[Any], TaskInputs | None] = field(default=lambda _: None, repr=False)
