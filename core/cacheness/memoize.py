"""@cached: functions, coroutine functions and methods that are computed once.

What happens at a call is written once, as a generator of steps. The wrapper of a plain function
takes them where it is; that of a coroutine function takes them in a thread.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import random
import secrets
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import cloudpickle

from cacheness.deadlines import patience
from cacheness.entry import MICROSECONDS, Hit
from cacheness.explain import Explanation, explain
from cacheness.keys import Key

if TYPE_CHECKING:
    from cacheness.unified import UnifiedCache

_log = logging.getLogger(__name__)

#: Seconds that a call waits for a lock of the cache.
PATIENCE: Final = 5.0
#: Seconds between looks at what another computes: the first pause, and the longest.
PAUSES: Final = (0.05, 1.0)
#: Earlier entries of a function that are compared with a call.
CANDIDATES: Final = 1000

T = TypeVar("T")
_Steps: TypeAlias = Generator[Any, Any, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `@cache.cached(…)` may say."""

    ttl: float | timedelta | None = None  #: seconds
    version: str | None = None  #: counts in place of the function's code
    prefix: str = ""
    ignore: tuple[str, ...] = ()  #: parameters that do not count
    tags: tuple[str, ...] = ()
    key: Callable[..., Any] | None = None  #: gets the arguments; what it returns counts in their place
    condition: Callable[[Any], bool] | None = None  #: gets a result; whether it is stored
    single_flight: bool = True  #: let the others wait while one computes
    wait: float = 3600.0  #: seconds to wait for another


def memoize(cache: UnifiedCache, fn: Callable[..., Any], **options: Any) -> Cached:
    """Keep the results of a function in a cache. What may be said is in `Options`."""
    if isinstance(fn, (staticmethod, classmethod)):
        raise TypeError(f"put @cached below @{type(fn).__name__}, next to the function")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise TypeError(
            f"{fn.__qualname__} is a generator function: what it returns can be read only once, so there is nothing"
            " to keep. Return a list, or cache the function that makes each item"
        )
    for name in ("ignore", "tags"):
        if isinstance(options.get(name), str):
            raise TypeError(f"{name}={options[name]!r} is a string; give a tuple: {name}=({options[name]!r},)")
    function = fn.__wrapped__ if isinstance(fn, Cached) else fn
    kind = CachedCoroutine if _is_coroutine_function(function) else Cached
    return kind(cache, function, Options(**{n: tuple(v) if n in ("ignore", "tags") else v for n, v in options.items()}))


def explain_call(
    cache: UnifiedCache, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Explanation:
    """Why would this call miss? A function that is cached already is asked with its own options."""
    cached = fn if isinstance(fn, Cached | BoundCached) else memoize(cache, fn)
    return cached.explain(*args, **kwargs)


class Cached:
    """A function whose results are cached. It is called like the function; a method binds like one.

    A failing cache does not fail a call: the function's own result is returned, and the first
    failure of each kind is logged. `on_error="raise"` raises instead.
    """

    __wrapped__: Callable[..., Any]

    def __init__(self, cache: UnifiedCache, fn: Callable[..., Any], options: Options) -> None:
        functools.update_wrapper(self, fn)
        self.cache = cache
        self.options = options
        self._signature = _signature_of(fn)
        if unknown := set(options.ignore) - set(self._signature.parameters):
            raise TypeError(f"ignore={sorted(unknown)}: {_name_of(fn)} has no such parameter")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The cached result, or that of the function."""
        flight = _Flight(self.cache)
        return self._take(self._steps(flight, args, kwargs), flight, args, kwargs)

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        """Compute again, and store the new result in place of the old."""
        flight = _Flight(self.cache)
        return self._take(self._compute(self.key(*args, **kwargs)), flight, args, kwargs)

    def key(self, *args: Any, **kwargs: Any) -> Key:
        """The key of a call."""
        return self.cache.key(
            args=self._arguments(args, kwargs),
            prefix=self.options.prefix,
            version=self.options.version,
            function=self.__wrapped__,
        )

    def invalidate(self, *args: Any, **kwargs: Any) -> bool:
        """Forget the result of a call; False when there was none."""
        return self.cache.invalidate(self.key(*args, **kwargs))

    def explain(self, *args: Any, **kwargs: Any) -> Explanation:
        """Why would this call miss? Never computes it."""
        return self._explain(self.key(*args, **kwargs))

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else BoundCached(self, instance)

    def __repr__(self) -> str:
        return f"<cached {self.__wrapped__!r}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        return _reduce(self)

    def _take(self, steps: _Steps, flight: _Flight, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        try:
            result: Any = None
            while True:
                step = steps.send(result)
                if isinstance(step, _Done):
                    return step.value
                if isinstance(step, _Compute):
                    with step:
                        result = self.__wrapped__(*args, **kwargs)
                elif isinstance(step, _Pause):
                    result = time.sleep(step.seconds)
                else:
                    result = step()
        finally:
            if flight.begun:
                self._ask(flight.end)

    def _steps(self, flight: _Flight, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Steps:
        """What a call does, in order."""
        key, found = yield functools.partial(self._find, args, kwargs)
        if found is None and self.options.single_flight and key.digest not in _under_way.get():
            found = yield from self._queue(flight, key)
        if isinstance(found, Hit):
            yield _Done(found.value)
        elif found is _FAILED:
            yield _Done((yield _Compute(key)))  # a cache that cannot be read is not written to either
        else:
            yield from self._compute(key)

    def _find(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Key, Any]:
        key = self.key(*args, **kwargs)
        found = self._ask(functools.partial(self.cache.lookup, key))
        if found is None and _log.isEnabledFor(logging.INFO):
            answer = self._ask(functools.partial(self._explain, key))
            _log.info("%s: %s", key.function, answer.sentence() if isinstance(answer, Explanation) else "miss")
        return key, found

    def _queue(self, flight: _Flight, key: Key) -> Generator[Any, Any, Any]:
        """Take the flight of this key. If another has it, wait for the result."""
        give_up = time.monotonic() + self.options.wait
        pause = PAUSES[0]
        while True:
            taken = yield functools.partial(self._ask, functools.partial(flight.begin, key))
            if taken is not False:
                # It may have landed since we looked. A flight that cannot be taken is done without.
                return (
                    (yield functools.partial(self._ask, functools.partial(self.cache.lookup, key)))
                    if taken is True
                    else None
                )
            if time.monotonic() >= give_up:
                return None
            yield _Pause(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads those who wait, guards nothing
            pause = min(pause * 2, PAUSES[1])
            found = yield functools.partial(self._ask, functools.partial(self.cache.lookup, key))
            if isinstance(found, Hit):
                return found

    def _compute(self, key: Key) -> _Steps:
        began = time.perf_counter()
        value = yield _Compute(key)
        yield functools.partial(self._store, key, value, time.perf_counter() - began)
        yield _Done(value)

    def _store(self, key: Key, value: Any, seconds: float) -> None:
        options = self.options
        if options.condition is None or options.condition(value):
            put = functools.partial(self.cache.put, value, key, ttl=options.ttl, tags=options.tags)
            self._ask(functools.partial(put, compute_seconds=seconds))

    def _explain(self, key: Key) -> Explanation:
        entries = self.cache.iter_entries(function=key.function)
        return explain(key, islice(entries, CANDIDATES), int(time.time() * MICROSECONDS))

    def _arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if self.options.key is not None:
            return {"key": self.options.key(*args, **kwargs)}
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        for name in self.options.ignore:
            bound.arguments.pop(name, None)
        return bound.arguments

    def _ask(self, question: Callable[[], Any]) -> Any:
        """Ask something of the cache. Its failure is `_FAILED`, and told once."""
        try:
            with patience(PATIENCE):
                return question()
        except Exception as error:  # whatever is wrong with the cache, the function's result is not
            if self.cache.config.on_error == "raise":
                raise
            _tell_once(self, error)
            return _FAILED


class CachedCoroutine(Cached):
    """A coroutine function whose results are cached. The event loop goes on while the cache is asked."""

    def __init__(self, cache: UnifiedCache, fn: Callable[..., Any], options: Options) -> None:
        super().__init__(cache, fn, options)
        _mark_as_coroutine_function(self)

    async def _take(self, steps: _Steps, flight: _Flight, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        try:
            result: Any = None
            while True:
                step = steps.send(result)
                if isinstance(step, _Done):
                    return step.value
                if isinstance(step, _Compute):
                    with step:
                        result = await self.__wrapped__(*args, **kwargs)
                elif isinstance(step, _Pause):
                    result = await asyncio.sleep(step.seconds)
                else:
                    result = await _in_thread(step)
        finally:
            if flight.begun:
                await _in_thread(functools.partial(self._ask, flight.end))

    async def refresh(self, *args: Any, **kwargs: Any) -> Any:
        """Compute again, and store the new result in place of the old."""
        key = await _in_thread(functools.partial(self.key, *args, **kwargs))
        return await self._take(self._compute(key), _Flight(self.cache), args, kwargs)


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

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The cached result, or that of the method."""
        return self.__func__(self.__self__, *args, **kwargs)

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        """Compute again, and store the new result in place of the old."""
        return self.__func__.refresh(self.__self__, *args, **kwargs)

    def key(self, *args: Any, **kwargs: Any) -> Key:
        """The key of a call."""
        return self.__func__.key(self.__self__, *args, **kwargs)

    def invalidate(self, *args: Any, **kwargs: Any) -> bool:
        """Forget the result of a call; False when there was none."""
        return self.__func__.invalidate(self.__self__, *args, **kwargs)

    def explain(self, *args: Any, **kwargs: Any) -> Explanation:
        """Why would this call miss? Never computes it."""
        return self.__func__.explain(self.__self__, *args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.__func__, self.__self__))


# steps


_FAILED: Final = object()
#: Keys that this thread or task is computing: asked for again within, they do not wait for themselves.
_under_way: ContextVar[frozenset[bytes]] = ContextVar("cacheness_under_way", default=frozenset())


@dataclass(frozen=True, slots=True)
class _Done:
    value: Any


@dataclass(frozen=True, slots=True)
class _Pause:
    seconds: float


class _Compute:
    """Call the function; within, its key is under way."""

    def __init__(self, key: Key) -> None:
        self._key = key.digest

    def __enter__(self) -> None:
        self._token = _under_way.set(_under_way.get() | {self._key})

    def __exit__(self, *exc_info: object) -> None:
        _under_way.reset(self._token)


class _Flight:
    """The right to compute one key, for one call."""

    def __init__(self, cache: UnifiedCache) -> None:
        self._cache = cache
        self._token = ""
        self._key = ""
        self.begun = False

    def begin(self, key: Key) -> bool:
        self._key, self._token = key.hex, self._token or secrets.token_hex(16)
        self.begun = True  # even when the answer is lost
        taken = self._cache.flights.acquire(self._key, self._token)
        self.begun = taken
        return taken

    def end(self) -> None:
        self._cache.flights.release(self._key, self._token)


async def _in_thread(step: Callable[[], T]) -> T:
    """Take a step in a thread, to its end: a flight must not begin after its call was cancelled."""
    task = asyncio.ensure_future(asyncio.to_thread(step))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


# functions


def _signature_of(fn: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(fn)
    except ValueError:  # compiled, and says nothing about its parameters
        return inspect.signature(lambda *args, **kwargs: None)


def _name_of(fn: Callable[..., Any]) -> str:
    return str(getattr(fn, "__qualname__", fn))


def _is_coroutine_function(fn: Callable[..., Any]) -> bool:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))


def _mark_as_coroutine_function(wrapper: Any) -> None:
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(wrapper)
    else:
        wrapper._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]


# pickling

_by_value = threading.local()


def _reduce(cached: Cached) -> str | tuple[Any, ...]:
    """By name where that leads here again; else by value, like the function itself under cloudpickle."""
    name = getattr(cached, "__qualname__", "")
    module = getattr(cached, "__module__", None)
    found: Any = sys.modules.get(module or "")
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is cached and module != "__main__":
        return str(name)
    if getattr(_by_value, "depth", 0):
        # In two steps, because the function may refer to its wrapper.
        return (_blank, (type(cached),), (cached.cache, cached.__wrapped__, cached.options), None, None, _fill)
    with _pickling_by_value():
        return (cloudpickle.loads, (cloudpickle.dumps(cached),))


@contextmanager
def _pickling_by_value() -> Iterator[None]:
    _by_value.depth = getattr(_by_value, "depth", 0) + 1
    try:
        yield
    finally:
        _by_value.depth -= 1


def _blank(kind: type[Cached]) -> Cached:
    return kind.__new__(kind)


def _fill(cached: Cached, state: tuple[Any, Any, Any]) -> None:
    type(cached).__init__(cached, *state)


# trouble

_told: set[tuple[Any, type]] = set()


def _tell_once(cached: Cached, error: Exception) -> None:
    known = (cached.cache.config, type(error))
    if known not in _told:
        _told.add(known)
        _log.warning(
            "%s was computed without the cache: %s: %s. Results stay right, only slower; this is said once.",
            _name_of(cached.__wrapped__),
            type(error).__name__,
            error,
        )
