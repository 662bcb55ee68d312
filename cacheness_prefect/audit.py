"""Audit task runs: a share of cached runs computes, and the result is compared with the stored one.

The body is called when Prefect reads a stored result, in the run's context and transaction. A
failure of the body does not fail the run, because the run has a result.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from prefect.client.schemas.objects import State
from prefect.context import TaskRunContext
from prefect.events import emit_event
from prefect.results import ResultRecord  # type: ignore[attr-defined]
from prefect.utilities.callables import call_with_parameters

from cacheness import Entry, Key, bodies
from cacheness.audit import NotComparable, Sampler, describe_difference, digest_or_none, is_checkable, is_same
from cacheness.keys import Observed
from cacheness.keys.code.writers import writes_to
from cacheness.keys.moved_generators import moved_since, positions
from cacheness_prefect.block import CachenessBlock
from cacheness_prefect.error_reporting import report_once, shielded, warn
from cacheness_prefect.run_metadata import address, hex_key_of

#: The event for automations.
DISPUTED: Final = "cacheness.result.disputed"

#: Return True when a stored result and a computed one are equal.
Same = Callable[[Any, Any], bool]

_sampler_of: Final = lru_cache(maxsize=64)(Sampler)  # one for all runs, so that the share applies to all together


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAudit:
    """The audit options of a task's runs."""

    store: CachenessBlock
    fn: Callable[..., Any]  #: the task's
    name: str  #: the task's
    key: Key  #: of this call
    make_key: Callable[[], Key]  #: calls it again
    share: float
    is_own: bool  #: the task's policy sets the share
    same: Same | None

    def chooses(self, path: str) -> bool:
        """Return True when the next cached run of a key is to be checked."""
        return self.share > 0 and _sampler_of(self.share).chooses(bytes.fromhex(hex_key_of(path)))

    def checkable(self, path: str) -> Entry | None:
        """Return the entry of a cached run, None if computing it again would show nothing."""
        return shielded("choose what is checked", lambda: self._checkable(path), None)

    def _checkable(self, path: str) -> Entry | None:
        context = TaskRunContext.get()
        entry = self.store.open().find(address(path))
        if context is None or entry is None or entry.compute_seconds is None:
            return None
        task = context.task
        own_ttl = task.cache_expiration is not None
        if not self.store.stores_results or not is_checkable(entry, own_share=self.is_own, own_ttl=own_ttl):
            return None
        # A timeout in the body would fail a run that has a result.
        is_quick = task.timeout_seconds is None or 2 * entry.compute_seconds < task.timeout_seconds
        return entry if is_quick and not self.key.draws and not writes_to(self.fn) else None

    def begin(self) -> BodyCall:
        """Return a function that calls the body."""
        context = TaskRunContext.get()
        parameters = {} if context is None else context.parameters
        return BodyCall(self.fn, parameters, self.key)

    def is_disputed(self, entry: Entry, record: ResultRecord[Any], call: BodyCall) -> bool:
        """Compare a body's return value with the stored result; return True if the new one is to be returned."""
        return shielded("check a result", lambda: self._compare(entry, record, call), False)

    def _compare(self, entry: Entry, record: ResultRecord[Any], call: BodyCall) -> bool:
        stored, value, cache = record.result, call.value, self.store.open()
        if call.error is not None or isinstance(value, State) or inspect.isawaitable(value):
            why = "it came to a state" if call.error is None else f"{type(call.error).__name__}: {call.error}"
            report_once("NotComputed", f"task {self.name!r} could not be computed again to be checked: {why}")
            return False
        if call.observed.outcome(value).not_stored or self.make_key().digest != self.key.digest:
            return False
        serializer = record.serializer
        encoded = getattr(serializer, "type", "") != "cacheness"
        round_trip = (lambda one: serializer.loads(serializer.dumps(one))) if encoded else cache.round_trip
        try:
            if is_same(stored, value, self.same, round_trip):
                return False
        except NotComparable as error:
            report_once("NotComparable", f"results of task {self.name!r} cannot be checked: {error}")
            return False
        detail = describe_difference(stored, value, self.key, self.fn, call.moved)
        if cache.dispute(entry, digest_or_none(stored), digest_or_none(value), detail):
            warn(
                f"task {self.name!r} came out differently: {detail}. The entry {entry.cache_key} is not served until it"
                " is settled: cacheness disputes"
            )
            self._emit(entry, detail)
            return True
        current = cache.find(Key(entry.key))
        return current is not None and current.mac == entry.mac  # the day has too many disputes

    def _emit(self, entry: Entry, detail: str) -> None:
        label = self.store.saved_as or self.store.namespace
        resource = {"prefect.resource.id": f"cacheness.store.{label}", "prefect.resource.name": label}
        payload = {"key": entry.cache_key, "task": self.name, "function": entry.function, "detail": detail}
        emit_event(DISPUTED, resource=resource, payload=payload)


class BodyCall:
    """One call of a task's body, and its result."""

    def __init__(self, fn: Callable[..., Any], parameters: Mapping[str, Any], key: Key) -> None:
        self._fn = fn
        self._key = key
        self._parameters = dict(parameters)
        self.is_asynchronous = inspect.iscoroutinefunction(fn)
        self.observed = Observed(key.inputs, fn)  #: its files
        self.value: Any = None
        self.error: Exception | None = None
        self.moved: tuple[str, ...] = ()  #: generators of random numbers

    @contextmanager
    def _running(self) -> Iterator[None]:
        token = bodies.Token()
        bodies.begin(token, self._fn, self._key, leaves_out=True)
        try:
            yield
        finally:
            bodies.end(token)

    def make(self) -> None:
        """Call the body in a thread that may wait."""
        before = positions()
        with self.observed, self._running():
            try:
                self.value = call_with_parameters(self._fn, self._parameters)
            except Exception as error:  # noqa: BLE001  the user's; there is a result already
                self.error = error
        self.moved = tuple(moved_since(before))

    async def amake(self) -> None:
        """Call the body on the event loop."""
        before = positions()
        with self.observed, self._running():
            try:
                coroutine: Any = call_with_parameters(self._fn, self._parameters)
                self.value = await coroutine
            except Exception as error:  # noqa: BLE001  the user's; there is a result already
                self.error = error
        self.moved = tuple(moved_since(before))
