"""The record of each graph that was computed with a cache."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Final

from rich.table import Table

from cacheness.units import number_of, seconds_named
from cacheness_dask.decisions import GraphPlan

_COLUMNS: Final = ("hits", "skipped", "misses", "refused", "seconds_saved", "lookup_seconds")


@dataclass(slots=True)
class Record:
    """The record of one compute or persist. Each task is counted once: hit, skipped, miss or refused."""

    hits: int  #: loaded
    skipped: int  #: needed by hits only
    misses: int  #: computed, unless they were cut, and stored if the policy requires it
    refused: int  #: computed, because they have no fingerprint or must always run
    seconds_saved: float  #: the cost of the hits and the skipped tasks when they were computed
    lookup_seconds: float  #: for fingerprinting, lookup and rewriting
    reasons: dict[Any, str] = field(default_factory=dict, repr=False)  #: why, by key of a refused task
    _missed: tuple[str, ...] = field(default=(), repr=False)
    _count: Callable[[Collection[str]], int] | None = field(default=None, repr=False)
    _count_links: Callable[[Collection[str]], int] | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return f"Record({self}, {seconds_named(self.lookup_seconds)} of looking up)"

    def __str__(self) -> str:
        return (
            f"{number_of(self.hits, 'hit')}, {self.skipped:,} skipped, {number_of(self.misses, 'miss')},"
            f" {self.refused:,} refused, {self.seconds_saved:.1f} s saved"
        )

    @property
    def stored(self) -> int:
        """Return how many of the misses are in the store now."""
        return self._count(self._missed) if self._count is not None else 0

    @property
    def cut(self) -> int:
        """Return how many misses were not computed, because their inputs came out the same as for an earlier result."""
        return self._count_links(self._missed) if self._count_links is not None else 0

    def settle(self) -> None:
        """Count the stored results for the last time, before the cache is closed."""
        stored, cut = self.stored, self.cut
        self._count, self._count_links = (lambda _: stored), (lambda _: cut)


def record_of(
    plan: GraphPlan,
    seconds: float,
    stored: Callable[[Collection[str]], int],
    links: Callable[[Collection[str]], int],
) -> Record:
    """Return the record of a graph that was decided about.

    Args:
        plan: the decisions.
        seconds: how long they took.
        stored: returns how many of some entries exist.
        links: returns how many of these are links.
    """
    return Record(
        hits=len(plan.hits),
        skipped=plan.skipped,
        misses=len(plan.misses),
        refused=len(plan.refused),
        seconds_saved=plan.seconds_saved,
        lookup_seconds=seconds,
        reasons=plan.refused,
        _missed=tuple(plan.misses.values()),
        _count=stored,
        _count_links=links,
    )


def as_table(records: Collection[Record], title: str) -> Table:
    """Return the records as a table for a terminal."""
    table = Table(*(column.replace("_", " ") for column in _COLUMNS), title=title)
    for cells in _cells(records):
        table.add_row(*cells)
    return table


def as_html(records: Collection[Record]) -> str:
    """Return the records as a table for a notebook."""
    head = "".join(f"<th>{column.replace('_', ' ')}</th>" for column in _COLUMNS)
    rows = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>" for cells in _cells(records))
    return f"<table><tr>{head}</tr>{rows}</table>"


def _cells(records: Collection[Record]) -> list[list[str]]:
    return [[f"{getattr(record, column):.4g}" for column in _COLUMNS] for record in records]
