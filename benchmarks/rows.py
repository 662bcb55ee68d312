"""What a benchmark finds: rows, each of them ours, a peer, and a budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One line of the table: ours, a peer, and the budget."""

    what: str
    ours: float
    peer: str = ""
    theirs: float = 0.0
    at_most: float | None = None  #: of ours / theirs; of ours itself where there is no peer
    at_least: float | None = None  #: of theirs / ours
    unit: str = "s"
    spread: float = 0.0  #: median absolute deviation of ours, as a part of ours
    note: str = ""
    curve: str = ""  #: the name of the curve that this is a point of
    at: float = 0.0  #: where on it
    axis: str = "entries"  #: and what is counted along it

    @property
    def measured(self) -> float:
        """What the budget is about: a ratio, or the figure itself."""
        if not self.peer:
            return self.ours
        return self.theirs / self.ours if self.at_least is not None else self.ours / self.theirs

    @property
    def budget(self) -> str:
        """The budget as the table shows it."""
        suffix = " x" if self.peer else f" {self.unit}"
        if self.at_least is not None:
            return f">= {self.at_least:g}{suffix}"
        return "" if self.at_most is None else f"<= {self.at_most:g}{suffix}"

    @property
    def holds(self) -> bool | None:
        """None for a line that is shown for comparison only."""
        if self.at_least is not None:
            return self.measured >= self.at_least
        return None if self.at_most is None else self.measured <= self.at_most


@dataclass(frozen=True)
class Timing:
    """How long one call took, in seconds."""

    median: float
    spread: float


def compare(what: str, ours: Timing, peer: str, theirs: Timing, **budget: Any) -> Row:
    """A row about two timings of one race."""
    return Row(what, ours.median, peer, theirs.median, spread=ours.spread / ours.median, **budget)
