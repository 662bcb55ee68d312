"""Decide which results are stored: the requested ones, and those that take longer to compute than to load."""

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
_WEIGHT: Final = 0.2  #: weight of a new measurement


@dataclass(frozen=True, slots=True)
class Policy:
    """The user's settings. Sizes in bytes, times in seconds."""

    which: Which = "auto"
    max_value_bytes: int = 1 << 30  #: larger results are never stored
    queue_bytes: int = 64 << 20  #: limit of results that wait in a worker to be stored
    incomplete: Incomplete | None = None  #: for tasks whose key is incomplete; None: the cache's setting
    check_inputs: float = 0.0  #: the share of all tasks whose inputs are checked before and after
    check: float | None = None  #: the share of all hits that are computed again and compared; None: the cache's share
    latency: float = 0.0  #: of one round trip, as measured by the client

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
        """Return the policy for a user's arguments."""
        return cls(
            which=checked("which", which, choice(*get_args(Which))),
            max_value_bytes=checked("max_value_bytes", max_value_bytes, above_zero(bytes_of)),
            queue_bytes=checked("queue_bytes", queue_bytes, at_least(0, bytes_of)),
            incomplete=checked("incomplete", incomplete, optional=True),
            check_inputs=checked("check_inputs", check_inputs, share),
            check=checked("check", check, optional=True),
        )

    def always(self, *, output: bool, marked: bool) -> bool:
        """Return True when a task's result is stored whatever its cost."""
        return self.which == "all" or marked or (output and self.which in ("auto", "outputs"))

    def too_large(self, size: int) -> str:
        """Return why a result of this size is not stored; "" if it is."""
        return f"{TOO_LARGE} {format_bytes(size)}, {self._most()}" if size > self.max_value_bytes else ""

    def is_lasting(self, why: str) -> bool:
        """Return True when the reason why a result was not stored remains valid for the same task."""
        return why.endswith(self._most()) if why.startswith(TOO_LARGE) else why.startswith(LASTING)

    def _most(self) -> str:
        return f"where at most {format_bytes(self.max_value_bytes)} are stored"

    @property
    def measures(self) -> bool:
        """Return True when other tasks are stored if worthwhile."""
        return self.which == "auto"


class Meter:
    """How long this process waits for the store, measured at every read and write."""

    def __init__(self, latency: float) -> None:
        self._latency = latency
        self._rate: float | None = None  # nothing is known before the first large value
        self._lock = threading.RLock()

    def saw(self, size: int, seconds: float) -> None:
        """Add the measurement of a read or write of `size` bytes."""
        with self._lock:
            if size < _SMALL:
                self._latency += _WEIGHT * (seconds - self._latency)
                return
            rate = size / max(seconds - self._latency, 1e-6)
            self._rate = rate if self._rate is None else self._rate + _WEIGHT * (rate - self._rate)

    def load_seconds(self, size: int) -> float:
        """Return an estimate of the time to load a value."""
        return self._latency + (size / self._rate if self._rate else 0.0)
