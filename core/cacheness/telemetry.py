"""Spans and metrics for OpenTelemetry: only if a program has imported its API and set a provider.

Without these, a program pays one look-up in `sys.modules` per operation.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

from cacheness.isolation import isolated
from cacheness.logs import logger_of

_log = logger_of(__name__)

SCOPE: Final = "cacheness"
LOOKUP: Final = "cacheness.lookup"
COMPUTE: Final = "cacheness.compute"
STORE: Final = "cacheness.store"
#: Counters of calls: name -> (unit, meaning).
COUNTERS: Final[Mapping[str, tuple[str, str]]] = {
    "cacheness.calls": ("{call}", "Calls by function and outcome."),
    "cacheness.saved": ("s", "Seconds that results of hits cost when they were computed."),
    "cacheness.spent": ("s", "Seconds that calls computed or waited."),
    "cacheness.read": ("By", "Stored bytes that hits read."),
}
#: Histograms of operations.
HISTOGRAMS: Final[Mapping[str, tuple[str, str]]] = {
    "cacheness.lookup.duration": ("s", "Making a key, and asking for its result."),
    "cacheness.compute.duration": ("s", "Computing a result."),
    "cacheness.store.duration": ("s", "Encoding and storing a result."),
    "cacheness.store.size": ("By", "Stored bytes of a result."),
}


class _Instruments:
    """The instruments of one meter provider."""

    def __init__(self, provider: Any) -> None:
        self.provider = provider
        meter = provider.get_meter(SCOPE)
        self.counters = {name: meter.create_counter(name, unit, about) for name, (unit, about) in COUNTERS.items()}
        self.histograms = {
            name: meter.create_histogram(name, unit, about) for name, (unit, about) in HISTOGRAMS.items()
        }


_meter: _Instruments | None = None
_logged: set[str] = set()


class Operation:
    """One look-up, computation or store, from `with` to its end. Its span is the current one inside."""

    def __init__(self, name: str, about: Mapping[str, Any], tracers: Any, meter: _Instruments | None) -> None:
        self._name, self._tracers, self._meter = name, tracers, meter
        self._about = dict(about)
        self._span: Any = None
        self._token: Any = None

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        if self._tracers is not None:
            with isolated(_log_once):
                from opentelemetry import context, trace

                self._span = self._tracers.get_tracer(SCOPE).start_span(self._name)
                self._token = context.attach(trace.set_span_in_context(self._span))
        return self

    def came_to(self, outcome: str, reason: str = "", **about: Any) -> None:
        """Set the outcome, its reason, and further attributes."""
        self._about |= {"outcome": outcome, **({"reason": reason} if reason else {}), **about}

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.end(error)

    def end(self, error: BaseException | None = None, *, is_current: bool = True) -> None:
        """End the operation.

        Args:
            error: the exception that ended it.
            is_current: False in another context than that of the beginning, which is not changed.
        """
        seconds = time.perf_counter() - self._began
        if error is not None:
            self.came_to("failed")
        elif self._name == COMPUTE:
            self.came_to("computed")
        with isolated(_log_once):
            if self._token is not None and is_current:
                from opentelemetry import context

                context.detach(self._token)
            self._token = None
        with isolated(_log_once):
            if self._span is not None:
                self._end_span(error)
        with isolated(_log_once):
            if self._meter is not None:
                self._measure(self._meter, seconds)

    def _end_span(self, error: BaseException | None) -> None:
        span = self._span
        if span.is_recording():
            span.set_attributes({f"cacheness.{name}": value for name, value in self._about.items() if value != ""})
            if isinstance(error, Exception):
                from opentelemetry.trace import Status, StatusCode

                span.record_exception(error)
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        span.end()

    def _measure(self, meter: _Instruments, seconds: float) -> None:
        labels = _labels(self._about)
        meter.histograms[f"{self._name}.duration"].record(seconds, labels)
        if self._name == STORE and "size" in self._about and "entries" not in self._about:
            meter.histograms["cacheness.store.size"].record(self._about["size"], labels)


class _NoOperation(Operation):
    """Replaces an operation if there is no provider."""

    def __init__(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def came_to(self, outcome: str, reason: str = "", **about: Any) -> None:
        pass

    def end(self, error: BaseException | None = None, *, is_current: bool = True) -> None:
        pass


NOBODY: Final[Operation] = _NoOperation()


def operation(name: str, /, **about: Any) -> Operation:
    """Begin an operation, for `with`.

    Args:
        name: of its span: `LOOKUP`, `COMPUTE` or `STORE`.
        about: known attributes: function, namespace.
    """
    tracers, meter = _TRACES.provider(), _meters()
    return NOBODY if tracers is None and meter is None else Operation(name, about, tracers, meter)


def count(
    namespace: str,
    function: str,
    outcome: str,
    reason: str = "",
    *,
    calls: int = 1,
    spent: float = 0.0,
    saved: float = 0.0,
    size: int = 0,
) -> None:
    """Count calls, like the figures of a cache."""
    meter = _meters()
    if meter is None:
        return
    with isolated(_log_once):
        about = {"namespace": namespace, "function": function, "outcome": outcome, "reason": reason}
        labels = _labels(about)
        meter.counters["cacheness.calls"].add(calls, labels)
        read = 0 if outcome == "miss" else size  # for a miss, the stored bytes
        for name, amount in (("saved", saved), ("spent", spent), ("read", read)):
            if amount > 0:
                meter.counters[f"cacheness.{name}"].add(amount, labels)


def _labels(about: Mapping[str, Any]) -> dict[str, str]:
    """Return the attributes of a metric: only the kind of a reason, because the names in reasons are unlimited."""
    known = {name: str(about[name]) for name in ("namespace", "function", "outcome", "reason") if about.get(name)}
    if "reason" in known:
        known["reason"] = known["reason"].partition(":")[0]
    return {f"cacheness.{name}": value for name, value in known.items()}


def _meters() -> _Instruments | None:
    global _meter  # noqa: PLW0603
    provider = _METRICS.provider()
    if provider is None:
        return None
    if _meter is None or _meter.provider is not provider:
        _meter = None
        with isolated(_log_once):
            _meter = _Instruments(provider)
    return _meter


class _Global:
    """A provider that a program may set, once per process."""

    def __init__(self, module: str, getter: str, holder: str, variable: str) -> None:
        self._module, self._getter, self._holder, self._variable = module, getter, holder, variable
        self._is_asked = False

    def provider(self) -> Any:
        """Return the provider; None if there is only the API's default, which does nothing."""
        module = sys.modules.get(self._module)
        # The call reads the environment, which takes a microsecond or more, so it is made once
        # while no provider is set. If a later version lacks this variable, it is made each time.
        if module is None or (
            self._is_asked and getattr(sys.modules.get(self._holder), self._variable, module) is None
        ):
            return None
        get: Callable[[], Any] | None = getattr(module, self._getter, None)  # None while it is being imported
        if get is None:
            return None
        self._is_asked = True
        provider: Any = None
        with isolated(_log_once):
            provider = get()  # this may load one that the environment names
        return None if type(provider).__module__.startswith((self._module, "builtins")) else provider


_TRACES: Final = _Global("opentelemetry.trace", "get_tracer_provider", "opentelemetry.trace", "_TRACER_PROVIDER")
_METRICS: Final = _Global(
    "opentelemetry.metrics", "get_meter_provider", "opentelemetry.metrics._internal", "_METER_PROVIDER"
)


def _log_once(error: Exception) -> None:
    kind = type(error).__name__
    if kind not in _logged:
        _logged.add(kind)
        _log.warning("OpenTelemetry failed, and results stay right: %s: %s; this is logged once", kind, error)
