"""Report errors of the cache once per run and machine, in the run's log, without failing the run."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger
from prefect.settings import get_current_settings

from cacheness.errors import (
    CachenessError,
    CodecError,
    ConfigError,
    CorruptEntry,
    StoreFull,
    StoreUnavailable,
    UnhashableArgument,
)
from cacheness.isolation import isolated
from cacheness_prefect.reasons import GOES_ON, NOT_STORED

T = TypeVar("T")

RUNS_REMEMBERED = 1000
DAY = 24 * 3600.0

#: Kinds of errors that are reported once each, most specific first, with advice that the error does not contain.
KINDS: tuple[tuple[type[Exception], str], ...] = (
    (UnhashableArgument, 'To leave the argument out of the key, use `policy - "name"`.'),
    (StoreUnavailable, "Look whether the database and the blob store are up; nothing needs to be run again."),
    (StoreFull, ""),
    (CodecError, ""),
    (CorruptEntry, "The integrity_repair flow shows how much is damaged."),
    (ConfigError, ""),
)
UNEXPECTED = "This should not happen: please report it, with the traceback in the debug log."

_reported: OrderedDict[tuple[str, str], None] = OrderedDict()
_lock = threading.RLock()
#: A new lock in a child: a thread of the parent may hold the old one.
os.register_at_fork(after_in_child=_lock._at_fork_reinit)  # type: ignore[attr-defined]  # noqa: SLF001


def shielded(doing: str, action: Callable[[], T], fallback: T) -> T:
    """Return the result of an action on the cache; on any error, report once per run and return the fallback."""
    with isolated(partial(report, doing)):
        return action()
    return fallback


def report(doing: str, error: Exception) -> None:
    """Warn in the current run's log, once per kind of error, that the run continues without the cache."""
    kind, advice = _kind(error)
    logger = _logger()
    logger.debug("the cache could not %s", doing, exc_info=error)
    if _is_news(run_id(), kind):
        what = ". ".join(part for part in (_text(error).rstrip("."), advice) if part)
        logger.warning("the cache could not %s; %s: %s", doing, GOES_ON, what)


def report_not_stored(why: str) -> None:
    """Log in the current run that the cache does not keep the result, for a reason that is no error."""
    _logger().info("%s: %s", NOT_STORED, why)


def report_once(kind: str, what: str) -> None:
    """Warn in the current run's log, once per kind."""
    if _is_news(run_id(), kind):
        _logger().warning("%s", what)


def inform(what: str) -> None:
    """Log a message in the current run."""
    _logger().info("%s", what)


def warn(what: str) -> None:
    """Log a warning in the current run."""
    _logger().warning("%s", what)


def run_id() -> str:
    """Return the current flow run, otherwise the task run; "" outside of runs."""
    task_run = TaskRunContext.get()
    if task_run is not None:
        return str(task_run.task_run.flow_run_id or task_run.task_run.id)
    flow_run = FlowRunContext.get()
    return str(flow_run.flow_run.id) if flow_run is not None and flow_run.flow_run is not None else ""


def _text(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  an error of a class of the user's
        return type(error).__name__


def _kind(error: Exception) -> tuple[str, str]:
    for family, advice in KINDS:
        if isinstance(error, family):
            return family.__name__, advice
    return type(error).__name__, "" if isinstance(error, CachenessError) else UNEXPECTED


def _is_news(run: str, kind: str) -> bool:
    with _lock:
        if (run, kind) in _reported:
            return False
        _reported[run, kind] = None
        if len(_reported) > RUNS_REMEMBERED:
            _reported.popitem(last=False)
    return not run or _is_first_here(f"{run}.{kind}")


def _is_first_here(name: str) -> bool:
    """Return True when no other process of this machine has reported this. Worker processes share a run's errors."""
    folder = get_current_settings().home / "cacheness-reported"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).touch(exist_ok=False)
        for mark in folder.iterdir():
            if mark.stat().st_mtime < time.time() - DAY:
                mark.unlink(missing_ok=True)
    except OSError as error:  # reporting twice is better than never
        return not isinstance(error, FileExistsError)
    return True


def _logger() -> logging.Logger | logging.LoggerAdapter[Any]:
    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger("cacheness")
