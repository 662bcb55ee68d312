"""The steps of a cached call, run in the caller's thread for a function, in another for a coroutine.

Any other callable is a step too: its return value is sent back.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Protocol

from cacheness import bodies, forks, telemetry
from cacheness.bodies import under_way
from cacheness.coordination.leases import ComputeLeases
from cacheness.deadlines import Patience
from cacheness.keys import Key, Observed
from cacheness.lazy_dataclass import dataclass
from cacheness.memoize.lines import LineWatch


@dataclass(frozen=True, slots=True)
class Done:
    """The call is over."""

    value: Any


@dataclass(frozen=True, slots=True)
class Sleep:
    """Pause for a while."""

    seconds: float


@dataclass(frozen=True, slots=True)
class CallArguments:
    """The arguments of a call, and whether it returns a reference."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    is_lazy: bool = False
    given: CallArguments | None = None  #: the same without defaults that were added


#: True while a call is compared with a result of earlier code: calls of cached functions inside compute, too.
computes_all: ContextVar[bool] = ContextVar("cacheness_computes_all", default=False)


class HasOptions(Protocol):
    """A cached function, as far as a call of it needs."""

    __wrapped__: Callable[..., Any]
    options: Any


class CallFunction:
    """Call the function, and observe its files; calls inside it do not wait for its key.

    With `is_trial`, calls of cached functions inside it compute, too; `watch` records the lines that run.
    """

    def __init__(
        self,
        key: Key | None,
        call: CallArguments,
        observed: Observed | None = None,
        failed: Callable[[], None] = lambda: None,
        *,
        of: HasOptions | None = None,
        is_audit: bool = False,
        is_trial: bool = False,
        watch: LineWatch | None = None,
    ) -> None:
        self._key = key
        self._of = of
        self.call = call
        self._is_audit = is_audit
        self._is_trial = is_trial
        self._watch = watch
        self._observed = observed
        self._failed = failed  #: called when the function raises
        self._error: Exception | None = None  #: errors after which an audit continues

    def __enter__(self) -> None:
        key = self._key
        self._token = under_way.set(under_way.get() if key is None else under_way.get() | {key.digest})
        if key is not None and self._of is not None:
            options = self._of.options
            leaves_out = bool(options.ignore) or options.key is not None
            bodies.begin(self, self._of.__wrapped__, key, leaves_out=leaves_out)
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
        if kind is not None:
            self._failed()
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
        """Sent back instead of a result; only an audit, whose caller has a result, continues."""
        if not self._is_audit:
            raise error
        self._error = error
        return Failed(error)


@dataclass(frozen=True, slots=True)
class Failed:
    """The function raised an error while its result was checked."""

    error: Exception


class ComputeLease:
    """The right to compute one key, for one call, and how long the call may wait for locks in all its steps."""

    def __init__(self, leases: Callable[[], ComputeLeases], patience: float) -> None:
        self._leases = leases
        self.patience = Patience(patience)
        self._token = ""
        self._key = ""
        self.begun = False

    def begin(self, key: Key) -> bool:
        """Take it; return False when another process has it."""
        self._key, self._token = key.hex, self._token or secrets.token_hex(16)
        self.begun = True  # even if the answer is lost
        self._generation = forks.generation()
        self._taken_of = self._leases()
        taken = self._taken_of.acquire(self._key, self._token)
        self.begun = taken
        return taken

    def end(self) -> None:
        """Release it. In a child that was forked during the computation, it is still the parent's."""
        if self._generation == forks.generation():
            self._leases().release(self._key, self._token)

    def abandon(self) -> None:
        """Have the heartbeat release it, because a coroutine that is collected cannot wait."""
        if self.begun and self._generation == forks.generation():
            self._taken_of.abandon(self._key, self._token)
        self.begun = False
