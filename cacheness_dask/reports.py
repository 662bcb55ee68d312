"""What happened to the tasks of this process since the last report to a client."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from cacheness import Config
from cacheness.logs import logger_of
from cacheness_dask import live
from cacheness_dask.mutations import change_told
from cacheness_dask.reasons import IN_PLACE

logger = logger_of("cacheness.dask")

#: Results that are remembered until the next report.
_MOST_UNSTORED: Final = 10_000
#: Runs whose reports wait: a client that was killed takes none.
_MOST_RUNS: Final = 100


@dataclass(slots=True)
class WorkerReport:
    """What happened to the tasks of one run in one process since its last report."""

    trouble: str = ""  #: the first error of the cache, if any; of any run
    unstored: dict[bytes, tuple[str, str]] = field(default_factory=dict)
    """By fingerprint: the function, and why its result is not stored."""
    moved: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Results that may be random, by function and generator."""
    failed: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Tasks that raised and their seconds, by function."""


_lock = threading.RLock()
#: The first error of a cache in this process since the last report.
_troubles: dict[Config, str] = {}
#: By run: several use one cache in a process, and each must learn what happened to its own results.
_reports: dict[bytes, WorkerReport] = {}


def _begin_in_child() -> None:
    """In a forked child, begin without reports: the parent has these."""
    _lock._at_fork_reinit()  # type: ignore[attr-defined]  # noqa: SLF001 - as the standard library does
    _troubles.clear()
    _reports.clear()


os.register_at_fork(after_in_child=_begin_in_child)


def taken(config: Config, run: bytes) -> WorkerReport:
    """Return the report of a run in this process since the last one."""
    with _lock:
        report = _reports.pop(run, None) or WorkerReport()
        report.trouble = _troubles.pop(config, "")
    return report


def failed(run: bytes) -> dict[str, tuple[int, float]]:
    """Return tasks of a run in this process that raised since the last report, and their seconds, by function."""
    with _lock:
        report = _reports.get(run)
        if report is None:
            return {}
        found, report.failed = report.failed, {}
    return found


def _report_of(run: bytes) -> WorkerReport:
    """Return the report that a run has not taken yet. The caller holds the lock."""
    found = _reports.get(run)
    if found is None:
        if len(_reports) >= _MOST_RUNS:
            del _reports[next(iter(_reports))]
        found = _reports[run] = WorkerReport()
    return found


def note_trouble(config: Config, error: BaseException, what: str = "are not stored") -> None:
    """Record an error for `flush` to report: a client logs it once, however many tasks and workers had it."""
    trouble = f"Some results {what}: {error}"
    logger.log(logging.DEBUG if config in _troubles or _is_asked() else logging.WARNING, "%s", trouble)
    _troubles.setdefault(config, trouble)


def _is_asked() -> bool:
    """Return True when `flush` is called here: on workers and in the user's process, not in a pool's."""
    return multiprocessing.parent_process() is None or is_worker()


def is_worker() -> bool:
    """Return True when this process has a worker of Distributed, which itself draws numbers."""
    distributed = sys.modules.get("distributed.worker")
    return bool(distributed and distributed.Worker._instances)  # noqa: SLF001


def note_failure(run: bytes, name: str, seconds: float) -> None:
    """Remember until the next report that a task raised."""
    with _lock:
        known = _report_of(run).failed
        calls, spent = known.get(name, (0, 0.0))
        known[name] = calls + 1, spent + seconds


def note_unstored(run: bytes, digest: bytes, name: str, why: str) -> None:
    """Remember until the next report why a result was not stored."""
    live.tell(reasons={f"{name}: {why}": 1})
    with _lock:
        known = _report_of(run).unstored
        is_news = why.startswith(IN_PLACE) and not _is_asked() and (name, why) not in known.values()
        if len(known) < _MOST_UNSTORED:
            known[digest] = (name, why)
    if is_news:
        logger.warning("%s", change_told(name, why))


def note_moved(run: bytes, name: str, generators: Iterable[str]) -> None:
    """Remember until the next report that process-wide generators moved while a result was computed."""
    with _lock:
        _report_of(run).moved.update((name, generator) for generator in generators)
