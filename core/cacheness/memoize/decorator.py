"""Implement @cached for functions, coroutine functions and methods.

The steps of a call are written once, as a generator. The wrapper of a plain function runs them in
the caller's thread; that of a coroutine function in a separate one.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias, TypedDict

from cacheness import bodies, telemetry
from cacheness.audit import (
    NotComparable,
    Sampler,
    describe_difference,
    differing,
    digest_or_none,
    is_checkable,
    is_same,
)
from cacheness.config import Config
from cacheness.coordination.leases import ComputeLeases
from cacheness.elsewhere import OF_FUNCTION, no_attribute
from cacheness.errors import CachenessError, ModeRefused, NotCached, UnhashableArgument
from cacheness.incomplete import Incomplete, may_cache
from cacheness.isolation import isolated
from cacheness.jitter import between
from cacheness.keys import FunctionCode, Key, Observed, covers, make_key, name_of_function, still_left, unseen
from cacheness.keys.code.writers import writes_to
from cacheness.keys.encode import Stated
from cacheness.keys.moved_generators import moved_since, positions
from cacheness.lazy_dataclass import dataclass
from cacheness.logs import logger_of
from cacheness.memoize.acceptances import Acceptances, change_of
from cacheness.memoize.explain import Explanation, explain
from cacheness.memoize.lines import LineWatch
from cacheness.memoize.miss_reasons import MissReasons
from cacheness.memoize.signature import Binder, reduce_wrapper
from cacheness.memoize.steps import (
    CallArguments,
    CallFunction,
    ComputeLease,
    Done,
    Failed,
    Sleep,
    computes_all,
)
from cacheness.modes import writes
from cacheness.off_loop import to_the_end
from cacheness.records import DISPUTED, EXPIRED, MICROSECONDS, RAISED, REFRESHED, Dispute, EarlierHit, Entry, Hit
from cacheness.records import Outcome as CallOutcome
from cacheness.references import Differs, Ref, key_of_values, loaded, resolved
from cacheness.units import Duration

_log = logger_of(__name__)

#: Seconds that a call waits for locks of the cache in total.
PATIENCE: Final = 5.0
#: Seconds between checks for a result that another process computes: the first pause, and the longest.
PAUSES: Final = (0.05, 1.0)
#: Earlier entries of a function that `explain` compares with a call: the newest.
CANDIDATES: Final = 1000
#: … and for a call that is only logged.
FEW_CANDIDATES: Final = 10

#: Replaces an answer of the cache: the call runs without it, because the cache failed, or must not be used.
_FAILED: Final = object()
_REFUSED: Final = object()
_WITHOUT: Final = {_FAILED: "failed", _REFUSED: "not cacheable"}
#: Reasons in figures.
NO_KEY: Final = "an argument has no key"
NO_ANSWER: Final = "the cache did not answer"

_Steps: TypeAlias = Generator[Any, Any, None]


class CacheLike(Protocol):
    """The methods of a cache that a cached function needs."""

    config: Config

    @property
    def compute_leases(self) -> ComputeLeases:
        """Return the compute leases."""
        ...

    def entry(self, key: Key, /) -> Entry | None:
        """Return the entry under a key, served or not."""
        ...

    def disputes(self, keys: Sequence[Key] | None = None) -> list[Dispute]:
        """Return disputes, of these keys or of all."""
        ...

    @property
    def reasons(self) -> MissReasons:
        """Return the recorded reasons of misses."""
        ...

    @property
    def acceptances(self) -> Acceptances:
        """Return which results of earlier code count."""
        ...

    def try_earlier(self, cached: Cached, key: Key, wanted: int, /) -> None:
        """Begin to compare calls of a function with the results of its earlier code."""
        ...

    def peek(self, key: Key, /, why: list[str] | None = None) -> Hit | None:
        """Return the result under a key, without counting a call."""
        ...

    def peek_earlier(self, key: Key, fingerprint: bytes, /, *, unread: bool = False) -> Hit | None:
        """Return the result of earlier code under a key, while it counts for the code of this fingerprint."""
        ...

    def count(
        self,
        function: str,
        outcome: CallOutcome,
        reason: str = "",
        *,
        spent: float = 0.0,
        saved: float = 0.0,
        size: int = 0,
    ) -> None:
        """Count a call."""
        ...

    def count_hit(self, hit: Hit, outcome: CallOutcome = "hit", *, function: str = "", spent: float = 0.0) -> None:
        """Count a call of a function that got a result."""
        ...

    @property
    def store_id(self) -> str:
        """Return the identity of the database."""
        ...

    @property
    def namespace(self) -> str:
        """Return the namespace of its results."""
        ...

    def find(self, key: Key, /, *, is_use: bool = False) -> Entry | None:
        """Return the entry under a key, without its value."""
        ...

    def put(
        self,
        value: Any,
        key: Key,
        /,
        *,
        ttl: Any = None,
        tags: Iterable[str] = (),
        compute_seconds: float | None = None,
        by_value: bool | None = None,
    ) -> Entry:
        """Store a result."""
        ...

    def invalidate(self, key: Key, /) -> bool:
        """Delete a result."""
        ...

    def dispute(self, entry: Entry, stored: bytes | None, computed: bytes | None, detail: str) -> bool:
        """Dispute a result; return False if it was replaced, or there are too many disputes."""
        ...

    def is_disputed(self, key: Key, /) -> bool:
        """Return True when the result under a key is disputed."""
        ...

    def settle(self, key: Key, /) -> bool:
        """Drop the dispute about a key."""
        ...

    def round_trip(self, value: Any) -> Any:
        """Return a value as a look-up would."""
        ...

    def iter_entries(self, *, function: str | None = None, limit: int | None = None) -> Iterator[Entry]:
        """Return the entries of a function, newest first."""
        ...

    def functions(self) -> list[str]:
        """Return the functions that have entries."""
        ...

    def code_of(self, entries: Iterable[Entry]) -> Mapping[bytes, FunctionCode]:
        """Return the code that made entries, by their `fn`."""
        ...


class CachedOptions(TypedDict, total=False):
    """The options of `@cache.cached(…)`, for editors and type checkers; `Options` has defaults and meanings."""

    ttl: Duration | None
    version: str | None
    prefix: str
    ignore: Iterable[str]
    tags: Iterable[str]
    key: Callable[..., Any] | None
    condition: Callable[[Any], bool] | None
    single_flight: bool
    wait: Duration
    incomplete: Incomplete | None
    by_value: bool | None
    check: float | str | None
    accept: int | None
    same: Callable[[Any, Any], bool] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of `@cache.cached(…)`."""

    ttl: Duration | None = None  #: seconds, a timedelta, or text such as "1h"
    version: str | None = None  #: counts in place of the function's code
    prefix: str = ""  #: a group of results: counts in the key
    ignore: tuple[str, ...] = ()  #: parameters that do not count
    tags: tuple[str, ...] = ()  #: names with which results are found and deleted
    key: Callable[..., Any] | None = None  #: called with the arguments; its return value counts in their place
    condition: Callable[[Any], bool] | None = None  #: called with a result; returns whether it is stored
    single_flight: bool = True  #: let others wait while one computes
    wait: float = 3600.0  #: how long to wait for another process
    incomplete: Incomplete | None = None  #: what to do if the key is incomplete; None: the cache's setting
    by_value: bool | None = None  #: store the digest of a result however many members it has, or never
    check: float | None = None  #: share of hits that are computed again and compared; None: the cache's share
    accept: int | None = None  #: calls that are compared, as they miss, before results of earlier code count
    same: Callable[[Any, Any], bool] | None = None  #: gets the stored result and a computed one; whether they are equal


@dataclass(frozen=True, slots=True)
class Computed:
    """The outcome of a call."""

    key: Key
    call: CallArguments
    value: Any
    observed: Observed  #: its files
    seconds: float
    moved: Sequence[str]  #: process-wide random number generators that moved


class LookedUp(NamedTuple):
    """The state of a call before it computes anything."""

    key: Key | None  #: None: the cache is not used
    found: Any  #: the Hit; None for a miss; otherwise why the call does not use the cache
    reason: str  #: of a miss
    earlier: EarlierHit | None  #: a result of earlier code: to be returned, or only to be compared


def memoize(cache: CacheLike, fn: Callable[..., Any], **options: Any) -> Cached:
    """Keep the results of a function in a cache. `Options` has the options."""
    if isinstance(fn, (staticmethod, classmethod, property, functools.cached_property)):
        raise TypeError(f"put @cached below @{type(fn).__name__}, next to the function")
    if not callable(fn):
        raise TypeError(f"{fn!r:.80} is not a function, which is what results are kept of")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise TypeError(
            f"{fn.__qualname__} is a generator function: what it returns can be read only once, so there is nothing"
            " to keep. Return a list, or cache the function that makes each item"
        )
    function = fn.__wrapped__ if isinstance(fn, Cached) else fn
    kind = CachedCoroutine if _is_coroutine_function(function) else Cached
    return kind(cache, function, Options(**options))


def explain_call(
    cache: CacheLike, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Explanation:
    """Return why this call would miss. A cached function uses its own options."""
    cached = fn if isinstance(fn, Cached | BoundCached) else memoize(cache, fn)
    return cached.explain(*args, **kwargs)


class Cached:
    """A function whose results are cached. It is called like the function; a method binds like one.

    A failing cache does not fail a call: the computed result is returned, and the first failure of
    each kind is logged. `on_error="raise"` raises instead.
    """

    __wrapped__: Callable[..., Any]

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name, OF_FUNCTION)

    def __init__(self, cache: CacheLike, fn: Callable[..., Any], options: Options) -> None:
        functools.update_wrapper(self, fn)
        self.cache = cache
        self.options = options
        self.binder = Binder(fn)
        share = (cache.config.check or 0.0) if options.check is None else options.check
        self._sampler = Sampler(share) if share > 0 and not writes_to(fn) else None
        self._is_for_earlier: bool | None = None
        self._not_comparable = ""  #: why results cannot be compared, if it takes long to find out
        if unknown := set(options.ignore) - self.binder.ignorable:
            raise TypeError(f"ignore={sorted(unknown)}: {_name_of(fn)} has no such parameter")

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Return the cached result, or call the function."""
        call = CallArguments(args, kwargs)
        lease = ComputeLease(self._leases, PATIENCE)
        with lease.patience, unseen():
            looked = self._look(call)
        key, found, _, earlier = looked
        if isinstance(found, Hit) and earlier is None and key is not None:
            if self._sampler is None or not self._is_checked(found.entry):  # most calls end here
                self.cache.count_hit(found, function=key.function)
                return found.value
            return self._take(self._audit(key, call, found), lease)
        return self._take(self._steps(lease, call, looked), lease)

    def lazy(self, /, *args: Any, **kwargs: Any) -> Any:
        """Return a reference to the cached result, which is computed if there is none, and loaded when needed."""
        lease = ComputeLease(self._leases, PATIENCE)
        return self._take(self._steps(lease, CallArguments(args, kwargs, is_lazy=True)), lease)

    def refresh(self, /, *args: Any, **kwargs: Any) -> Any:
        """Compute again, and store the new result in place of the old."""
        lease = ComputeLease(self._leases, PATIENCE)
        return self._take(self._refresh(CallArguments(args, kwargs)), lease)

    def key(self, /, *args: Any, **kwargs: Any) -> Key:
        """Return the key of a call."""
        options = self.options

        def make(given: dict[str, Any]) -> Key:
            return make_key(args=given, prefix=options.prefix, version=options.version, function=self.__wrapped__)

        return key_of_values(self._arguments(args, kwargs), make)

    def invalidate(self, /, *args: Any, **kwargs: Any) -> bool:
        """Delete the result of a call; return True when there was one."""
        key = self.key(*args, **kwargs)
        # Otherwise a result of earlier code would be served in its place.
        earlier = map(Key, self.cache.acceptances.keys_of(key) if writes(self.cache.config.mode) else ())
        return sum(self.cache.invalidate(one) for one in (key, *key.as_text().values(), *earlier)) > 0

    def explain(self, /, *args: Any, **kwargs: Any) -> Explanation:
        """Return why this call would miss. Never computes it."""
        key = self.key(*args, **kwargs)
        earlier = list(self._earlier(key, CANDIDATES))
        own = self.cache.find(key)
        if own is not None and all(entry.key != own.key for entry in earlier):
            earlier.append(own)  # older than a thousand others
        found = self._kept_back(key) or self._explain(key, earlier or list(islice(self._renamed(key), CANDIDATES)))
        mode = self.cache.config.mode
        if mode == "off":
            return replace(found, hit=False, mode="mode='off' uses no cache")
        if mode == "refresh" and found.hit and self.cache.find(Key(bytes.fromhex(found.key))) is None:
            return replace(found, hit=False, mode="mode='refresh' computes again what is older than the run")
        return found if found.hit else self._explain_accepted(key, found)

    def _explain_briefly(self, key: Key, reason: str) -> Explanation:
        """Return a reason for the log: from the look-up, or how the key differs from a few entries."""
        kept_back = self._kept_back(key) if reason in (EXPIRED, DISPUTED) else None
        return kept_back or self._explain(key, self._earlier(key, FEW_CANDIDATES))

    def _kept_back(self, key: Key) -> Explanation | None:
        """Return the explanation of a miss with an existing result: it has expired, or is disputed."""
        entry, now = self.cache.entry(key), int(time.time() * MICROSECONDS)
        if entry is None:
            return None
        past = ""
        if self.cache.disputes([key]):
            past = DISPUTED
        elif entry.expires_at is not None and entry.expires_at <= now:
            past = EXPIRED
        return explain(key, [entry], self.cache.code_of([entry]), now, past=past) if past else None

    def _explain_accepted(self, key: Key, found: Explanation) -> Explanation:
        """Return the explanation of a hit on a result of earlier code, if there is one."""
        if self._may_be_of_earlier_code() and not key.draws:
            earlier = self.cache.acceptances.find(key, unread=True)
            if earlier is not None and earlier.is_accepted:
                entry, now = earlier.hit.entry, int(time.time() * MICROSECONDS)
                return replace(
                    found,
                    hit=True,
                    changes=(),
                    nearest=entry.cache_key,
                    age=max(now - entry.created_at, 0) / MICROSECONDS,
                    accepted=change_of(earlier.equivalence).sentence(),
                )
        return found

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else BoundCached(self, instance)

    def __repr__(self) -> str:
        return f"<cached {_shown(self.__wrapped__)}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        return reduce_wrapper(self, (self.cache, self.__wrapped__, self.options))

    def _leases(self) -> ComputeLeases:
        return self.cache.compute_leases

    def _take(self, steps: _Steps, lease: ComputeLease) -> Any:
        try:
            result: Any = None
            while True:
                step = steps.send(result)
                if isinstance(step, Done):
                    return step.value
                if isinstance(step, CallFunction):
                    with step:
                        try:
                            result = self.__wrapped__(*step.call.args, **step.call.kwargs)
                        except Exception as error:  # noqa: BLE001  raised again, but for an audit
                            result = step.failed(error)
                elif isinstance(step, Sleep):
                    time.sleep(step.seconds)
                    result = None
                else:
                    with lease.patience, unseen():
                        result = step()
        finally:
            if lease.begun:
                with lease.patience, unseen():
                    self._ask(lease.end)

    def _steps(self, lease: ComputeLease, call: CallArguments, looked: LookedUp | None = None) -> _Steps:
        """Run the steps of a call in order; a plain function has done its look-up already."""
        if looked is None:
            looked = yield functools.partial(self._look, call)
        mode = self.cache.config.mode
        key, found, reason, earlier = looked
        if key is None:
            yield from self._call_uncached(None, call)
            return
        began, waited = time.perf_counter(), False
        if mode == "offline" and (found is None or found is _FAILED):
            raise NotCached((yield functools.partial(self._why_not_cached, key, found)))
        if found is None and not writes(mode):
            yield from self._call_uncached(key, call, reason)
        if found is None and self.options.single_flight and key.digest not in bodies.under_way.get():
            found, waited = yield from self._queue(lease, key, call)
        if isinstance(found, Hit):
            if earlier is None and not call.is_lazy and not waited and self._is_checked(found.entry):
                yield from self._audit(key, call, found)
            seconds = time.perf_counter() - began if waited else 0.0
            self.cache.count_hit(found, "waited" if waited else "hit", function=key.function, spent=seconds)
            if call.is_lazy:
                yield Done(self._reference(call, key, found.entry, is_earlier=earlier is not None))
            yield Done(found.value)
        elif found is _FAILED or found is _REFUSED:
            # If the cache cannot be read, it is not written to either.
            outcome: CallOutcome = "failed" if found is _FAILED else "not cacheable"
            given, _ = yield functools.partial(_loaded, call, self.binder)
            failed = functools.partial(self._count, key, "failed", RAISED, began)
            value = yield from self._call(CallFunction(key, given, failed=failed, of=self))
            self._count(key, outcome, NO_ANSWER if found is _FAILED else "", began)
            yield Done(self._reference(call, key, None, value) if call.is_lazy else value)
        else:
            yield from self._compute(key, call, reason, earlier)

    def _call_uncached(self, key: Key | None, call: CallArguments, reason: str = "") -> _Steps:
        began = time.perf_counter()
        given, _ = yield functools.partial(_loaded, call, self.binder)
        if key is None:
            value = yield from self._call(CallFunction(key, given, of=self))
        else:
            failed = functools.partial(self._count, key, "failed", RAISED, began)
            value = yield from self._call(CallFunction(key, given, failed=failed, of=self))
            self._count(key, "miss", reason, began)
        if call.is_lazy:
            key = key or (yield functools.partial(self._key_again, given))
            value = self._reference(call, key, None, value)
        yield Done(value)

    def _call(self, step: CallFunction) -> Generator[Any, Any, Any]:
        """Call the function; replace references in its result by values, so that an entry names no other."""
        value = yield step
        return (yield functools.partial(resolved, value))

    def _refresh(self, call: CallArguments) -> _Steps:
        mode = self.cache.config.mode
        if mode == "off":
            yield from self._call_uncached(None, call)
        if not writes(mode):
            raise ModeRefused(f"{_name_of(self.__wrapped__)}.refresh stores what it computes; mode={mode!r} does not")
        key = yield functools.partial(self.key, *call.args, **call.kwargs)
        yield from self._compute(key, call, REFRESHED)

    def _why_not_cached(self, key: Key, found: Any) -> str:
        reason = "the cache could not be read"
        if found is None:
            answer = self._ask(functools.partial(self._explain_briefly, key, ""))
            reason = answer.sentence() if isinstance(answer, Explanation) else "miss"
        name = f"{getattr(self.__wrapped__, '__module__', '')}.{_name_of(self.__wrapped__)}"
        return f"{name} has no cached result for this call, and mode='offline' computes none: {reason}"

    def _look(self, call: CallArguments) -> LookedUp:
        """Make the key of a call, and look its result up, unless this call must not use the cache."""
        if self.cache.config.mode == "off" or computes_all.get():
            return LookedUp(None, None, "", None)
        with telemetry.operation(telemetry.LOOKUP, namespace=self.cache.namespace) as looking:
            key = self._key_of(call)
            looked = self._look_under(key, call)
            if looking is not telemetry.NOBODY:
                found = looked.found
                hit = "near hit" if isinstance(found, Hit) and found.near else "hit"
                outcome = hit if isinstance(found, Hit) else _WITHOUT.get(found, "miss")
                looking.came_to(outcome, looked.reason, function=key.function)
        return looked

    def _key_of(self, call: CallArguments) -> Key:
        try:
            return self.key(*call.args, **call.kwargs)
        except UnhashableArgument:
            self.cache.count(name_of_function(self.__wrapped__), "failed", NO_KEY)
            raise

    def _look_under(self, key: Key, call: CallArguments) -> LookedUp:
        if not self._may_cache(key):
            return LookedUp(key, _REFUSED, "", None)
        found: Any = _FAILED
        why: list[str] = []
        with isolated(self._report):
            found = self._look_up(key, call, why)
        if found is not None:
            return LookedUp(key, found, "", None)
        earlier = self._ask(functools.partial(self._of_earlier_code, key, call))
        if not isinstance(earlier, EarlierHit):
            earlier = None
        elif self._serves(earlier):
            return LookedUp(key, earlier.hit, "", earlier)
        elif call.is_lazy:  # found without the value for the comparison
            read = self._ask(functools.partial(self.cache.acceptances.find, key))
            earlier = read if isinstance(read, EarlierHit) else None
        return LookedUp(key, None, self._reason_of_miss(key, why), earlier)

    def _reason_of_miss(self, key: Key, why: list[str]) -> str:
        asked = why[-1] if why else self._ask(functools.partial(self.cache.reasons.of, key, self.cache))
        reason = asked if isinstance(asked, str) else ""
        if _log.isEnabledFor(logging.INFO):
            answer = self._ask(functools.partial(self._explain_briefly, key, reason))
            sentence = answer.sentence() if isinstance(answer, Explanation) else "miss"
            figures = {"function": key.function, "outcome": "miss", "reason": reason}
            _log.info("%s: %s", key.function, sentence, extra=figures)
        return reason

    def _of_earlier_code(self, key: Key, call: CallArguments) -> EarlierHit | None:
        """Return the result of accepted earlier code for a call, or of code that is being tried.

        Not for a call inside a function or a task whose result is stored, on any thread: that
        result would depend on it, and stay when the change is revoked.
        """
        acceptances, new = self.cache.acceptances, key.fingerprint
        wanted = self.options.accept if writes(self.cache.config.mode) else None
        if new is None or bodies.under_way.get() or not (acceptances.of(new) or wanted):
            return None
        if not self._may_be_of_earlier_code() or key.draws or bodies.is_elsewhere() or bodies.is_child_process():
            return None
        if bodies.may_be_within(self.__wrapped__):
            return None
        if wanted and not acceptances.has_looked_for(new):
            self.cache.try_earlier(self, key, wanted)
        return acceptances.find(key, unread=call.is_lazy)

    def _may_be_of_earlier_code(self) -> bool:
        if self._is_for_earlier is None:
            self._is_for_earlier = self.options.check != 0 and not writes_to(self.__wrapped__)
        return self._is_for_earlier

    def _serves(self, earlier: EarlierHit) -> bool:
        if not earlier.is_accepted:
            return False
        return not writes(self.cache.config.mode) or not self.cache.acceptances.is_audited(earlier)

    def _look_up(self, key: Key, call: CallArguments, why: list[str] | None = None) -> Hit | None:
        """Return the result of a call: under its key, or the key in which its own output files count by name.

        For a call that returns a reference, without the value.
        """
        found = self._look_at(key, call, why)
        for as_text, other in key.as_text().items() if found is None else ():
            hit = self._look_at(other, call)
            if hit is not None and covers(hit.entry.outputs or "", key.inputs, as_text):
                return hit
        return found

    def _look_at(self, key: Key, call: CallArguments, why: list[str] | None = None) -> Hit | None:
        if not call.is_lazy:
            return self.cache.peek(key, why)
        entry = self.cache.find(key, is_use=True)
        return None if entry is None else Hit(None, entry)

    def _queue(self, lease: ComputeLease, key: Key, call: CallArguments) -> Generator[Any, Any, Any]:
        """Take the lease of this key, or wait for its holder's result; return the result, and whether it waited."""
        look_up = functools.partial(self._ask, functools.partial(self._look_up, key, call))
        give_up = time.monotonic() + self.options.wait
        pause, waited = PAUSES[0], False
        while True:
            taken = yield functools.partial(self._ask, functools.partial(lease.begin, key))
            if taken is not False:
                # The result may have been stored since the look-up. If no lease can be taken, the
                # call computes without one.
                return (yield look_up) if taken is True else None, waited
            if time.monotonic() >= give_up:
                return None, True
            yield Sleep(pause * between(0.5, 1.0))
            pause, waited = min(pause * 2, PAUSES[1]), True
            found = yield look_up
            if isinstance(found, Hit):
                return found, True

    def _compute(self, key: Key, call: CallArguments, reason: str, earlier: EarlierHit | None = None) -> _Steps:
        key.as_text()  # before the function can change its arguments
        loaded, is_unsure = yield functools.partial(_loaded, call, self.binder)
        differs = False
        if is_unsure:  # if the value of a reference has changed, the key of the call is another one
            asked, key = key, (yield functools.partial(self._key_again, loaded))
            key.as_text()
            differs = key.digest != asked.digest
        is_trial, watch = (False, None) if earlier is None else (not earlier.is_accepted, earlier.watch)
        done = yield from self._run(key, loaded, is_trial=is_trial, watch=watch)
        value = done.value
        entry = yield functools.partial(self._ask, functools.partial(self._store, done, refreshes=reason == REFRESHED))
        size = entry.size if isinstance(entry, Entry) else 0
        self.cache.count(key.function, "miss", reason, spent=done.seconds, size=size)
        if earlier is not None and not differs:
            yield functools.partial(self._ask, functools.partial(self._judge, done, earlier))
        if call.is_lazy:
            yield Done(self._reference(call, key, entry if isinstance(entry, Entry) else None, value))
        yield Done(value)

    def _run(
        self,
        key: Key,
        call: CallArguments,
        *,
        is_audit: bool = False,
        is_trial: bool = False,
        watch: LineWatch | None = None,
    ) -> Generator[Any, Any, Computed]:
        """Call the function, and observe its files and the random number generators."""
        observed = Observed(key.inputs, self.__wrapped__)
        before, began = positions(), time.perf_counter()
        failed = functools.partial(self._count, key, "failed", RAISED, began)
        step = CallFunction(key, call, observed, failed, of=self, is_audit=is_audit, is_trial=is_trial, watch=watch)
        value = yield from self._call(step)
        return Computed(key, call, value, observed, time.perf_counter() - began, moved_since(before))

    def _is_checked(self, entry: Entry) -> bool:
        options = self.options
        return (
            self._sampler is not None
            and not self._not_comparable
            and self._sampler.chooses(entry.key)
            and writes(self.cache.config.mode)
            and is_checkable(entry, own_share=options.check is not None, own_ttl=options.ttl is not None)
        )

    def _audit(self, key: Key, call: CallArguments, hit: Hit) -> _Steps:
        """Compute a result again, compare, and count the call. Without a lease, because nothing is stored."""
        given, differs = yield functools.partial(_loaded, call, self.binder)
        if differs:
            differs = (yield functools.partial(self._key_again, given)).digest != key.digest
        done = yield from self._run(key, given, is_audit=True)
        if isinstance(done.value, Failed):
            _log_once(self, done.value.error, "could not be computed again to be checked")
        elif not differs and (yield functools.partial(self._ask, functools.partial(self._compare, done, hit))) is False:
            self.cache.count(key.function, "miss", DISPUTED, spent=done.seconds)
            yield Done(done.value)
        self.cache.count(key.function, "hit", spent=done.seconds, size=hit.entry.size)
        yield Done(hit.value)

    def _compare(self, done: Computed, hit: Hit) -> bool:
        """Return True when the results are equal; otherwise the stored one is disputed."""
        key, value = done.key, done.value
        try:
            if self.came_out_as(done, hit.value) is not False:
                return True
        except NotComparable as error:
            _log_once(self, error, "cannot be checked")
            return True
        detail = describe_difference(hit.value, value, key, self.__wrapped__, done.moved)
        if self.cache.dispute(hit.entry, digest_or_none(hit.value), digest_or_none(value), detail):
            _log.warning(
                "%s came out differently: %s. The entry %s is not served until it is settled: cacheness disputes",
                key.function,
                detail,
                hit.entry.cache_key,
            )
            return False
        current = self.cache.find(Key(hit.entry.key))
        return current is None or current.mac != hit.entry.mac

    def came_out_as(self, done: Computed, stored: Any) -> bool | None:
        """Return whether the result equals the stored one; None if files or arguments changed during the call."""
        if done.observed.outcome(done.value).not_stored:
            return None
        if self._key_again(done.call).digest != done.key.digest:
            return None
        if self._not_comparable:
            raise NotComparable(self._not_comparable)
        try:
            return is_same(stored, done.value, self.options.same, self.cache.round_trip)
        except NotComparable as error:
            if error.is_slow:
                self._not_comparable = str(error)
            raise

    def _judge(self, done: Computed, earlier: EarlierHit) -> None:
        """Record whether the result equals that of earlier code."""
        try:
            same = self.came_out_as(done, earlier.hit.value)
        except NotComparable as error:
            _log_once(self, error, "cannot be compared with what its earlier code made")
            return
        if same is not None:
            detail = "" if same else differing(earlier.hit, done.value)
            self.cache.acceptances.note(earlier, same=same, detail=detail)

    def try_again(self, call: CallArguments, watch: LineWatch) -> Any:
        """Call the function, and cached functions inside it, without look-ups; the outcome is stored.

        Returns:
            The outcome, whose value is `Failed` if the function raised; of a coroutine function, to be awaited.
        """
        lease = ComputeLease(self._leases, PATIENCE)
        return self._take(self._try_again(call, watch), lease)

    def compute_again(self, call: CallArguments) -> Any:
        """Call the function without a look-up, as a check of a hit does; nothing is stored.

        Returns:
            The outcome, as for `try_again`.
        """
        lease = ComputeLease(self._leases, PATIENCE)
        return self._take(self._compute_again(call), lease)

    def _compute_again(self, call: CallArguments) -> _Steps:
        key = yield functools.partial(self.key, *call.args, **call.kwargs)
        key.as_text()
        call, _ = yield functools.partial(_loaded, call, self.binder)
        yield Done((yield from self._run(key, call, is_audit=True)))

    def _try_again(self, call: CallArguments, watch: LineWatch) -> _Steps:
        key = yield functools.partial(self.key, *call.args, **call.kwargs)
        key.as_text()
        call, _ = yield functools.partial(_loaded, call, self.binder)
        done = yield from self._run(key, call, is_audit=True, is_trial=True, watch=watch)
        if not isinstance(done.value, Failed):
            yield functools.partial(self._store_if_new, done)
        yield Done(done)

    def _store_if_new(self, done: Computed) -> None:
        if self.cache.find(done.key) is None:
            self._ask(functools.partial(self._store, done, refreshes=False))

    def _reference(
        self, call: CallArguments, key: Key, entry: Entry | None, *held: Any, is_earlier: bool = False
    ) -> Ref[Any]:
        # A coroutine cannot be awaited where a value is needed.
        again = None if isinstance(self, CachedCoroutine) else functools.partial(self, *call.args, **call.kwargs)
        more: dict[str, Any] = {"held": held[0]} if held else {}
        if entry is not None:
            more["stamp"] = entry.digest
        if is_earlier:
            more["earlier"] = (key.fingerprint, key.digest)
        at, digest = (key.digest, None) if entry is None else (entry.key, entry.value)
        return Ref(self.cache, at, digest, name_of_function(self.__wrapped__), again=again, **more)

    def _store(self, done: Computed, *, refreshes: bool) -> Entry | None:
        """Store a result, unless there is a reason not to."""
        options, key, value = self.options, done.key, done.value
        outcome = done.observed.outcome(value)
        why = outcome.not_stored
        stored = key if why else key.after(outcome, done.moved)
        if why:
            _log.info("%s is not stored: %s", key.function, why)
        elif self._may_cache(key) and not self._is_wanted(value):
            why = "condition= refused it"
        elif not refreshes and self.cache.is_disputed(stored):
            why = DISPUTED
        if why or not self._may_cache(key):
            self.cache.reasons.not_stored(key, why)
            about = {"namespace": self.cache.namespace, "function": key.function}
            with telemetry.operation(telemetry.STORE, **about) as storing:
                storing.came_to("not stored", why)
            return None
        try:
            entry = self.cache.put(
                value,
                stored,
                ttl=options.ttl,
                tags=options.tags,
                compute_seconds=done.seconds,
                by_value=options.by_value,
            )
        except CachenessError as error:
            self.cache.reasons.not_stored(key, type(error).__name__)
            raise
        self.cache.reasons.stored(key)
        if refreshes:
            self.cache.settle(stored)
        return entry

    def _count(self, key: Key, outcome: CallOutcome, reason: str, began: float) -> None:
        self.cache.count(key.function, outcome, reason, spent=time.perf_counter() - began)

    def _is_wanted(self, value: Any) -> bool:
        condition = self.options.condition
        # The work is done: an error in the user's condition is not raised by on_error="raise" either.
        with isolated(lambda error: _log_once(self, error, "has a condition= that failed, so a result was not stored")):
            return condition is None or bool(condition(value))
        return False

    def _may_cache(self, key: Key) -> bool:
        config, chosen = self.cache.config, self.options.incomplete
        gaps = key.incomplete
        if not gaps:
            return True
        name = f"{getattr(self.__wrapped__, '__module__', '')}.{_name_of(self.__wrapped__)}"
        return may_cache(chosen or config.incomplete, name, gaps, _log.warning, config)

    def _explain(self, key: Key, earlier: Iterable[Entry]) -> Explanation:
        entries = list(earlier)
        known = {entry.key: entry.outputs or "" for entry in entries}
        served = (
            other
            for as_text, other in key.as_text().items()
            if (outputs := known.get(other.digest)) and covers(outputs, key.inputs, as_text) and still_left(outputs)
        )
        return explain(next(served, key), entries, self.cache.code_of(entries), int(time.time() * MICROSECONDS))

    def _earlier(self, key: Key, most: int) -> Iterator[Entry]:
        """Return the newest entries of this function, by its module and name."""
        return self.cache.iter_entries(function=key.function, limit=most)

    def _renamed(self, key: Key) -> Iterator[Entry]:
        """Return entries of functions with the same code under other names; one entry of each function is checked."""
        body = key.all_components.get("body")
        for name in self.cache.functions() if body else ():
            entries = self.cache.iter_entries(function=name) if name != key.function else iter(())
            first = next(entries, None)
            if first is None or first.function != name:
                continue
            code = self.cache.code_of([first]).get(first.fn or b"")
            if code is not None and code.data.get("body") == body:
                yield first
                yield from entries

    def _arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if self.options.key is not None:
            given, _ = _loaded(CallArguments(args, kwargs))
            try:
                return {"key": Stated(self.options.key(*given.args, **given.kwargs))}
            except TypeError:
                self.binder.bind(args, kwargs)  # a wrong call raises the function's TypeError here
                raise
        return self.binder.bind_without(self.options.ignore, args, kwargs)

    def _key_again(self, call: CallArguments) -> Key:
        """Return the key of a call whose references were loaded. `key=` is called as it was at first."""
        if call.given is not None and self.options.key is not None:
            call = call.given
        return self.key(*call.args, **call.kwargs)

    def _ask(self, question: Callable[[], Any]) -> Any:
        """Call a method of the cache. After a failure return `_FAILED`, and log it once."""
        with isolated(self._report):
            return question()
        return _FAILED

    def _report(self, error: Exception) -> None:
        if self.cache.config.on_error == "raise":
            raise error
        _log_once(self, error)


class CachedCoroutine(Cached):
    """A coroutine function whose results are cached. The event loop continues during calls of the cache."""

    def __init__(self, cache: CacheLike, fn: Callable[..., Any], options: Options) -> None:
        super().__init__(cache, fn, options)
        _mark_as_coroutine_function(self)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Return the cached result, or that of the coroutine; to be awaited."""
        lease = ComputeLease(self._leases, PATIENCE)
        return self._take(self._steps(lease, CallArguments(args, kwargs)), lease)

    async def _take(self, steps: _Steps, lease: ComputeLease) -> Any:
        import asyncio

        try:
            result: Any = None
            while True:
                step = steps.send(result)
                if isinstance(step, Done):
                    return step.value
                if isinstance(step, CallFunction):
                    with step:
                        try:
                            result = await self.__wrapped__(*step.call.args, **step.call.kwargs)
                        except Exception as error:  # noqa: BLE001  raised again, but for an audit
                            result = step.failed(error)
                elif isinstance(step, Sleep):
                    await asyncio.sleep(step.seconds)
                    result = None
                else:
                    with lease.patience, unseen():
                        result = await to_the_end(step)
        except GeneratorExit:
            lease.abandon()
            raise
        finally:
            if lease.begun:
                with lease.patience, unseen():
                    await to_the_end(functools.partial(self._ask, lease.end))

    async def refresh(self, /, *args: Any, **kwargs: Any) -> Any:
        """Compute again, and store the new result in place of the old."""
        lease = ComputeLease(self._leases, PATIENCE)
        return await self._take(self._refresh(CallArguments(args, kwargs)), lease)


class BoundCached:
    """A cached method of an instance, which is the first argument of each call."""

    def __init__(self, cached: Cached, instance: Any) -> None:
        self.__func__ = cached
        self.__self__ = instance
        self.__name__ = getattr(cached, "__name__", "")
        self.__qualname__ = getattr(cached, "__qualname__", "")
        self.__doc__ = cached.__doc__
        if isinstance(cached, CachedCoroutine):
            _mark_as_coroutine_function(self)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Return the cached result, or that of the method."""
        return self.__func__(self.__self__, *args, **kwargs)

    def lazy(self, /, *args: Any, **kwargs: Any) -> Any:
        """Return a reference to the cached result, which is loaded when needed."""
        return self.__func__.lazy(self.__self__, *args, **kwargs)

    def refresh(self, /, *args: Any, **kwargs: Any) -> Any:
        """Compute again, and store the new result in place of the old."""
        return self.__func__.refresh(self.__self__, *args, **kwargs)

    def key(self, /, *args: Any, **kwargs: Any) -> Key:
        """Return the key of a call."""
        return self.__func__.key(self.__self__, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<cached {_shown(self.__func__.__wrapped__)} of {type(self.__self__).__name__}>"

    def invalidate(self, /, *args: Any, **kwargs: Any) -> bool:
        """Delete the result of a call; return True when there was one."""
        return self.__func__.invalidate(self.__self__, *args, **kwargs)

    def explain(self, /, *args: Any, **kwargs: Any) -> Explanation:
        """Return why this call would miss. Never computes it."""
        return self.__func__.explain(self.__self__, *args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.__func__, self.__self__))


# functions


def _loaded(call: CallArguments, binder: Binder | None = None) -> tuple[CallArguments, bool]:
    """Return a call with the values of its references, and whether one may differ from the value in the key.

    With a binder, references in defaults are loaded too.
    """
    is_unsure = False
    while True:
        try:
            args, kwargs, is_open = loaded(call.args, call.kwargs)
            given = CallArguments(args, kwargs)
            whole = None if binder is None else binder.with_defaults(args, kwargs)
            if whole is None:
                return given, is_unsure or is_open
            args, kwargs, is_open_default = loaded(*whole)
            return CallArguments(args, kwargs, given=given), is_unsure or is_open or is_open_default
        except Differs:
            is_unsure = True


def _name_of(fn: Callable[..., Any]) -> str:
    return str(getattr(fn, "__qualname__", fn))


def _shown(fn: Callable[..., Any]) -> str:
    """Return a description of a function without the address in its repr."""
    kind = "coroutine function" if _is_coroutine_function(fn) else "function"
    name = getattr(fn, "__qualname__", None) or getattr(fn, "__name__", None)
    return f"{kind} {getattr(fn, '__module__', '?')}.{name}" if name else f"callable of {type(fn).__qualname__}"


def _is_coroutine_function(fn: Callable[..., Any]) -> bool:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(type(fn), "__call__", None))  # noqa: B004


def _mark_as_coroutine_function(wrapper: Any) -> None:
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(wrapper)
    else:
        from asyncio import coroutines

        wrapper._is_coroutine = vars(coroutines)["_is_coroutine"]  # noqa: SLF001 - Python 3.11 has no other mark


# errors

_logged: set[tuple[Any, ...]] = set()


def _log_once(cached: Cached, error: Exception, what: str = "was computed without the cache") -> None:
    known = (cached.cache.config, type(error), what)
    if known not in _logged:
        _logged.add(known)
        _log.warning(
            "%s %s: %s: %s. Results stay right, only slower; this is logged once",
            _name_of(cached.__wrapped__),
            what,
            type(error).__name__,
            error,
        )
