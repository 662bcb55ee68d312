"""Report results while graphs run: to callbacks here, and by the scheduler to those elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from types import TracebackType
from typing import Any, Final, Self

from cacheness.isolation import isolated
from cacheness.logs import logger_of

logger = logger_of("cacheness.dask")

#: The topic of these events on the scheduler: `client.get_events`, `client.subscribe_topic`.
TOPIC: Final = "cacheness"
#: Seconds between two events of a worker.
EVERY: Final = 0.5
#: Reasons in an event.
MOST_REASONS: Final = 50
_REASON_LENGTH: Final = 200


@dataclass(frozen=True, slots=True)
class Progress:
    """Results since the last event: of a graph that was decided about, or of tasks that ran.

    The sum of all events is the total.
    """

    graphs: int = 0  #: that were decided about
    hits: int = 0  #: tasks of these whose results are there
    skipped: int = 0  #: tasks that only hits need
    misses: int = 0  #: tasks that are computed
    refused: int = 0  #: tasks that are computed, and never stored
    seconds_saved: float = 0.0  #: the cost of hits and skipped tasks when they were computed
    loaded: int = 0  #: results that were read
    loaded_bytes: int = 0  #: stored bytes of these
    load_seconds: float = 0.0  #: for reading them
    to_compute: int = 0  #: misses whose end is reported
    computed: int = 0  #: of these, those that ended
    compute_seconds: float = 0.0  #: for these
    stored: int = 0  #: results
    stored_bytes: int = 0  #: in memory
    reasons: Mapping[str, int] = field(default_factory=dict)  #: why results are refused or not stored, with counts

    def __add__(self, other: Progress) -> Progress:
        """Return the sum of both."""
        sums = {one.name: getattr(self, one.name) + getattr(other, one.name) for one in _NUMBERS}
        reasons = Counter(self.reasons)
        for why, count in other.reasons.items():
            reasons[why if why in reasons or len(reasons) < MOST_REASONS else "other reasons"] += count
        return Progress(**sums, reasons=dict(reasons))

    def as_dict(self) -> dict[str, Any]:
        """Return the event as the scheduler stores it."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def of(cls, event: object) -> Progress:
        """Return the event of the scheduler's data; an empty one for other data under this topic.

        Args:
            event: the scheduler's data under `TOPIC`.
        """
        known = event if isinstance(event, dict) else {}
        numbers = {one.name: known[one.name] for one in _NUMBERS if isinstance(known.get(one.name), int | float)}
        reasons = known.get("reasons")
        return cls(**numbers, reasons=dict(reasons) if isinstance(reasons, dict) else {})


_NUMBERS: Final = tuple(one for one in fields(Progress) if one.name != "reasons")


class Callback:
    """Receives events during a block: `with Callback(print): …`, or a subclass with an `event`.

    On a distributed scheduler, events of workers arrive once or twice a second, and the last one
    when all results are stored.

    Args:
        event: called with each Progress; an error in it is logged.
    """

    def __init__(self, event: Callable[[Progress], object] | None = None) -> None:
        self._event = event

    def event(self, progress: Progress) -> None:
        """Receive one event. It may come in any thread.

        Args:
            progress: the results since the last one.
        """
        if self._event is not None:
            self._event(progress)

    def __enter__(self) -> Self:
        global _callbacks  # noqa: PLW0603
        with _lock:
            _callbacks = (*_callbacks, self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        global _callbacks  # noqa: PLW0603
        with _lock:
            _callbacks = tuple(one for one in _callbacks if one is not self)


_lock = threading.RLock()
_callbacks: tuple[Callback, ...] = ()
_waiting = Progress()  #: what a worker has not sent yet
_sent = float("-inf")
_is_sent_later = False  #: whether the worker's loop will send it: no more may come for long


def _begin_in_child() -> None:
    global _waiting, _is_sent_later
    _lock._at_fork_reinit()  # type: ignore[attr-defined]  # noqa: SLF001 - as the standard library does
    _waiting, _is_sent_later = Progress(), False


os.register_at_fork(after_in_child=_begin_in_child)


def tell(client: Any = None, **what: Any) -> None:
    """Report results of this process, or decisions here about a graph for a client's scheduler.

    Args:
        client: the distributed client, if a graph was decided about.
        what: the fields of `Progress`.
    """
    worker = _worker() if client is None and "graphs" not in what else None
    if not (_callbacks or client is not None or worker is not None):
        return
    progress = Progress(**what)
    if progress.reasons:
        progress = replace(progress, reasons={why[:_REASON_LENGTH]: n for why, n in progress.reasons.items()})
    _call(progress)
    if client is not None:
        client.loop.add_callback(_send, client, progress)
    elif worker is not None:
        _keep(progress, worker)


def send() -> None:
    """Send what waits in this process."""
    global _waiting, _sent, _is_sent_later
    worker = _worker()
    with _lock:
        waiting, _waiting, _sent, _is_sent_later = _waiting, Progress(), time.monotonic(), False
    if worker is not None and (event := waiting.as_dict()):
        with isolated(_log):
            worker.log_event(TOPIC, event)


def follow(client: Any) -> None:
    """Pass events of a client's workers to callbacks of this process."""
    if _callbacks:
        with isolated(_log):
            client.subscribe_topic(TOPIC, _heard)


def _keep(progress: Progress, worker: Any) -> None:
    global _waiting, _is_sent_later  # noqa: PLW0603
    with _lock:
        _waiting += progress
        is_due = time.monotonic() - _sent > EVERY
        is_last = not is_due and not _is_sent_later
        _is_sent_later = _is_sent_later or is_last
    if is_due:
        send()
    elif is_last:
        with isolated(_log):
            worker.loop.add_callback(worker.loop.call_later, EVERY, send)


def _call(progress: Progress) -> None:
    for callback in _callbacks:
        with isolated(_log):
            callback.event(progress)


def _heard(event: tuple[float, object]) -> None:
    progress = Progress.of(event[1])
    # This client's decisions were reported when they were made.
    if not progress.graphs and _worker() is None:
        _call(progress)


async def _send(client: Any, progress: Progress) -> None:
    with isolated(_log):
        await client.log_event(TOPIC, progress.as_dict())


def _worker() -> Any:
    """Return a worker of Distributed in this process; None if there is none."""
    distributed = sys.modules.get("distributed.worker")
    known = distributed.Worker._instances if distributed else ()  # noqa: SLF001
    workers = list(known) if len(known) else []  # iterating an empty weak set takes longer than its length
    return next((worker for worker in workers if worker.status.name == "running"), None)


def _log(error: Exception) -> None:
    logger.debug("what became of results could not be sent: %s: %s", type(error).__name__, error)
