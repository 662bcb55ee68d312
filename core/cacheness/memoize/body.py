"""Run a function's body and observe it: its files, its lines, and that it runs."""

from __future__ import annotations

import time
from contextlib import suppress
from contextvars import ContextVar
from types import TracebackType
from typing import Final

from cacheness import bodies, telemetry
from cacheness.bodies import under_way
from cacheness.keys import Key, Observed
from cacheness.lazy_dataclass import dataclass
from cacheness.memoize.call_arguments import CallArguments
from cacheness.memoize.function import MemoizedFunction
from cacheness.memoize.lines import LineWatch
from cacheness.records import RAISED

#: True while a call is compared with a result of earlier code: calls of cached functions inside compute, too.
computes_all: Final[ContextVar[bool]] = ContextVar("cacheness_computes_all", default=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """The function raised an error while its result was checked."""

    error: Exception


class Body:
    """One run of a function's body, in a `with` block; calls inside it do not wait for its key.

    Args:
        cached: the function.
        key: of the call; None for a call that the cache does not know of.
        call: its arguments, with values in place of references.
        observed: records the files that it opens.
        is_audit: an error of the function ends only the comparison.
        is_trial: calls of cached functions inside it compute, too.
        watch: records the lines that run.
    """

    def __init__(
        self,
        cached: MemoizedFunction,
        key: Key | None,
        call: CallArguments,
        observed: Observed | None = None,
        *,
        is_audit: bool = False,
        is_trial: bool = False,
        watch: LineWatch | None = None,
    ) -> None:
        self._cached = cached
        self._key = key
        self.call = call
        self._is_audit = is_audit
        self._is_trial = is_trial
        self._watch = watch
        self._observed = observed
        self._error: Exception | None = None  #: errors after which an audit continues

    def __enter__(self) -> None:
        key, self._began = self._key, time.perf_counter()
        self._token = under_way.set(under_way.get() if key is None else under_way.get() | {key.digest})
        if key is not None:
            options = self._cached.options
            leaves_out = bool(options.ignore) or options.key is not None
            bodies.begin(self, self._cached.__wrapped__, key, leaves_out=leaves_out)
        self._inside = computes_all.set(self._is_trial) if self._is_trial else None
        self._computing = telemetry.NOBODY
        if key is not None:
            more = {"check": True} if self._is_audit else {}
            self._computing = telemetry.operation(telemetry.COMPUTE, function=key.function, **more).__enter__()
        if self._observed is not None:
            self._observed.begin()
        if self._watch is not None:
            self._watch.begin()

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        bodies.end(self)
        if self._watch is not None:
            self._watch.end()
        if error is not None and self._key is not None:
            spent = time.perf_counter() - self._began
            self._cached.cache.count(self._key.function, "failed", RAISED, spent=spent)
        if self._observed is not None:
            self._observed.end()
        is_here = False
        with suppress(ValueError):  # a coroutine that is collected is closed in another context than its own
            under_way.reset(self._token)
            if self._inside is not None:
                computes_all.reset(self._inside)
            is_here = True
        self._computing.end(error or self._error, is_current=is_here)

    def failed(self, error: Exception) -> Failed:
        """Return what replaces the result; only an audit, whose caller has a result, continues."""
        if not self._is_audit:
            raise error
        self._error = error
        return Failed(error)
