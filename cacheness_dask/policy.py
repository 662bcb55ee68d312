"""Which results deserve storing: what was asked for, and what takes longer to compute than to load."""

from __future__ import annotations

import operator
import threading
from dataclasses import dataclass
from typing import Final, Literal, get_args

from dask.utils import format_bytes, parse_bytes

from cacheness.errors import ConfigError
from cacheness.incomplete import CHOICES, Incomplete
from cacheness_dask.reasons import LASTING, TOO_LARGE

Which = Literal["auto", "outputs", "all", "marked"]
#: Bytes, or text such as "1GB", which Dask reads.
Size = int | str

_SMALL: Final = 64 * 1024  #: reads below this tell the latency, larger ones the throughput
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
        check_inputs: float = 0.0,
        check: float | None = None,
    ) -> Policy:
        """The policy that a user's arguments mean."""
        if which not in get_args(Which):
            raise ConfigError(f"which={which!r} is not known: one of {', '.join(get_args(Which))}")
        if incomplete is not None and incomplete not in CHOICES:
            raise ConfigError(f"incomplete={incomplete!r} is not known: one of {', '.join(CHOICES)}")
        for name, part, of in (("check_inputs", check_inputs, "tasks"), ("check", check, "hits")):
            if part is not None and (type(part) not in (int, float) or not 0 <= part <= 1):
                raise ConfigError(f"{name}={part!r} is no part of all {of}: give a number from 0 to 1")
        return cls(
            incomplete=incomplete,
            check=None if check is None else float(check),
            check_inputs=float(check_inputs),
            which=which,
            max_value_bytes=_bytes("max_value_bytes", max_value_bytes, least=1),
            queue_bytes=_bytes("queue_bytes", queue_bytes, least=0),
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


def _bytes(name: str, size: Size, least: int) -> int:
    try:
        # Dask reads "" as one byte, and "GB" as a gigabyte.
        text = isinstance(size, str) and size.lstrip()[:1].isdigit()
        found = int(parse_bytes(size)) if text else operator.index(size)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        found = None
    if found is None or isinstance(size, bool) or found < least:
        raise ConfigError(f'{name}={size!r} is no size: give a number of bytes from {least} on, or text such as "1GB"')
    return found


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
