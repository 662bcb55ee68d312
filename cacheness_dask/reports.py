"""What happened to the tasks of this process since the last report to a client."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cacheness import Config
from cacheness.logs import logger_of
from cacheness_dask import live
from cacheness_dask.mutations import change_told
from cacheness_dask.reasons import IN_PLACE

logger = logger_of("cacheness.dask")

_lock = threading.RLock()
#: The first error of a cache in this process since the last report.
_troubles: dict[Config, str] = {}
#: Results that were not stored since the last report: by fingerprint, the function and the reason.
_unstored: dict[Config, dict[bytes, tuple[str, str]]] = {}
#: How many results were stored while a process-wide generator moved, since the last report: by function and generator.
_moved: dict[Config, Counter[tuple[str, str]]] = {}
#: How many tasks raised, and their seconds, since the last report, by function.
_failed: dict[Config, dict[str, tuple[int, float]]] = {}
#: Results that are remembered until the next report.
_MOST_UNSTORED: Final = 10_000


def _begin_in_child() -> None:
    """In a forked child, begin without reports: the parent has these."""
    _lock._at_fork_reinit()  # type: ignore[attr-defined]  # noqa: SLF001 - as the standard library does
    _troubles.clear()
    _unstored.clear()
    _moved.clear()
    _failed.clear()


os.register_at_fork(after_in_child=_begin_in_child)


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """Results of one process since the last report."""

    trouble: str  #: the first error, if any
    unstored: dict[bytes, tuple[str, str]]  #: by fingerprint: the function, and why its result is not stored
    moved: Counter[tuple[str, str]]  #: results that may be random, by function and generator
    failed: dict[str, tuple[int, float]]  #: tasks that raised and their seconds, by function


def taken(config: Config) -> WorkerReport:
    """Return the results of this process since the last report."""
    return WorkerReport(
        _troubles.pop(config, ""), _unstored.pop(config, {}), _moved.pop(config, Counter()), failed(config)
    )


def failed(config: Config) -> dict[str, tuple[int, float]]:
    """Return tasks of this process that raised since the last report, and their seconds, by function."""
    return _failed.pop(config, {})


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


def note_failure(config: Config, name: str, seconds: float) -> None:
    """Remember until the next report that a task raised."""
    with _lock:
        known = _failed.setdefault(config, {})
        calls, spent = known.get(name, (0, 0.0))
        known[name] = calls + 1, spent + seconds


def note_unstored(config: Config, digest: bytes, name: str, why: str) -> None:
    """Remember until the next report why a result was not stored."""
    live.tell(reasons={f"{name}: {why}": 1})
    known = _unstored.setdefault(config, {})
    if why.startswith(IN_PLACE) and not _is_asked() and (name, why) not in known.values():
        logger.warning("%s", change_told(name, why))
    if len(known) < _MOST_UNSTORED:
        known[digest] = (name, why)


def note_moved(config: Config, name: str, generators: Iterable[str]) -> None:
    """Remember until the next report that process-wide generators moved while a result was computed."""
    _moved.setdefault(config, Counter()).update((name, generator) for generator in generators)
