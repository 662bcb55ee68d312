"""Which results deserve storing: what was asked for, and what takes longer to compute than to load."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final, Literal, get_args

from dask.utils import format_bytes

from cacheness.incomplete import Incomplete
from cacheness.options import above_zero, at_least, checked, choice, share
from cacheness.units import Size, bytes_of
from cacheness_dask.reasons import LASTING, TOO_LARGE

Which = Literal["auto", "outputs", "all", "marked"]

_SMALL: Final = 64 * 1024  #: reads below this measure the latency, larger ones the throughput
_WEIGHT: Final = 0.2  #: of a new measurement against the earlier ones


@dataclass(frozen=True, slots=True)
class Policy:
    """What a user asked for. Sizes in bytes, times in seconds."""

    which: Which = "auto"
    max_value_bytes: int = 1 << 30  #: larger results are never stored
    queue_bytes: int = 64 << 20  #: what may wait in a worker to be stored
    incomplete: Incomplete | None = None  #: tasks whose key could not see everything; None: as the cache has it
    check_inputs: float = 0.0  #: the part of all tasks whose inputs are looked at before and after
    check: float | None = None  #: the part of all hits that are computed again and compared; None: as the cache has it
    latency: float = 0.0  #: of one round trip, as the client measured it

    @classmethod
    def checked(
        cls,
        which: Which,
        max_value_bytes: Size,
        queue_bytes: Size,
        *,
        incomplete: Incomplete | None = None,
        check_inputs: float | str = 0.0,
        check: float | str | None = None,
    ) -> Policy:
        """The policy that a user's arguments mean."""
        return cls(
            which=checked("which", which, choice(*get_args(Which))),
            max_value_bytes=checked("max_value_bytes", max_value_bytes, above_zero(bytes_of)),
            queue_bytes=checked("queue_bytes", queue_bytes, at_least(0, bytes_of)),
            incomplete=checked("incomplete", incomplete, optional=True),
            check_inputs=checked("check_inputs", check_inputs, share),
            check=checked("check", check, optional=True),
        )

    def always(self, *, output: bool, marked: bool) -> bool:
        """Return True when a task's result is stored whatever it cost."""
        return self.which == "all" or marked or (output and self.which in ("auto", "outputs"))

    def too_large(self, size: int) -> str:
        """Why a result of this size is not stored; "" when it may be."""
        return f"{TOO_LARGE} {format_bytes(size)}, {self._most()}" if size > self.max_value_bytes else ""

    def is_lasting(self, why: str) -> bool:
        """Return True when a reason for which a result was not stored holds whenever the same is computed again."""
        return why.endswith(self._most()) if why.startswith(TOO_LARGE) else why.startswith(LASTING)

    def _most(self) -> str:
        return f"where at most {format_bytes(self.max_value_bytes)} are stored"

    @property
    def measures(self) -> bool:
        """True when other tasks are stored when they turn out to be worth it."""
        return self.which == "auto"


class Meter:
    """How long this process waits for the store, learned from every read and write."""

    def __init__(self, latency: float) -> None:
        self._latency = latency
        self._rate: float | None = None  # nothing is known before the first large value
        self._lock = threading.RLock()

    def saw(self, size: int, seconds: float) -> None:
        """Learn from a read or write of `size` bytes."""
        with self._lock:
            if size < _SMALL:
                self._latency += _WEIGHT * (seconds - self._latency)
                return
            rate = size / max(seconds - self._latency, 1e-6)
            self._rate = rate if self._rate is None else self._rate + _WEIGHT * (rate - self._rate)

    def load_seconds(self, size: int) -> float:
        """How long loading a value back would take, about."""
        return self._latency + (size / self._rate if self._rate else 0.0)
