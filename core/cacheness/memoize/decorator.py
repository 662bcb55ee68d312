"""Implement @cached for functions, coroutine functions and methods: what users hold and call.

`call.py` has the steps of a call.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from cacheness.deadlines import Patience
from cacheness.elsewhere import OF_FUNCTION, no_attribute
from cacheness.keys import Key, unseen
from cacheness.memoize.audits import audit, is_audited
from cacheness.memoize.call import make_call, refresh
from cacheness.memoize.call_arguments import CallArguments
from cacheness.memoize.explain import Explanation
from cacheness.memoize.explain_call import explain_fully
from cacheness.memoize.function import CacheLike, MemoizedFunction
from cacheness.memoize.lookup import look
from cacheness.memoize.options import Options
from cacheness.memoize.signature import reduce_wrapper
from cacheness.memoize.steps import PATIENCE, InThread, OffLoop, runner_for
from cacheness.modes import writes
from cacheness.records import Hit


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


class Cached(MemoizedFunction):
    """A function whose results are cached. It is called like the function; a method binds like one.

    A failing cache does not fail a call: the computed result is returned, and the first failure of
    each kind is logged. `on_error="raise"` raises instead.
    """

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name, OF_FUNCTION)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Return the cached result, or call the function."""
        call, patience = CallArguments(args, kwargs), Patience(PATIENCE)
        with patience, unseen():
            looked = look(self, call)
        key, found, _, earlier = looked
        if isinstance(found, Hit) and earlier is None and key is not None:
            if self.sampler is None or not is_audited(self, found.entry):  # most calls end here
                self.cache.count_hit(found, function=key.function)
                return found.value
            steps = InThread(self, patience)
            return steps.finish(audit, self, key, call, found, steps)
        steps = InThread(self, patience)
        return steps.finish(make_call, self, call, steps, looked)

    def lazy(self, /, *args: Any, **kwargs: Any) -> Any:
        """Return a reference to the cached result, which is computed if there is none, and loaded when needed."""
        steps = runner_for(self)
        return steps.finish(make_call, self, CallArguments(args, kwargs, is_lazy=True), steps)

    def refresh(self, /, *args: Any, **kwargs: Any) -> Any:
        """Compute again, and store the new result in place of the old."""
        steps = runner_for(self)
        return steps.finish(refresh, self, CallArguments(args, kwargs), steps)

    def invalidate(self, /, *args: Any, **kwargs: Any) -> bool:
        """Delete the result of a call; return True when there was one."""
        key = self.key(*args, **kwargs)
        # Otherwise a result of earlier code would be served in its place.
        earlier = map(Key, self.cache.acceptances.keys_of(key) if writes(self.cache.config.mode) else ())
        return sum(self.cache.invalidate(one) for one in (key, *key.as_text().values(), *earlier)) > 0

    def explain(self, /, *args: Any, **kwargs: Any) -> Explanation:
        """Return why this call would miss. Never computes it."""
        return explain_fully(self, self.key(*args, **kwargs))

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else BoundCached(self, instance)

    def __repr__(self) -> str:
        return f"<cached {_shown(self.__wrapped__)}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        return reduce_wrapper(self, (self.cache, self.__wrapped__, self.options))


class CachedCoroutine(Cached):
    """A coroutine function whose results are cached. The event loop continues during calls of the cache."""

    is_coroutine: ClassVar[bool] = True

    def __init__(self, cache: CacheLike, fn: Callable[..., Any], options: Options) -> None:
        super().__init__(cache, fn, options)
        _mark_as_coroutine_function(self)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Return the cached result, or that of the coroutine; to be awaited."""
        steps = OffLoop(self)
        return steps.finish(make_call, self, CallArguments(args, kwargs), steps)

    async def refresh(self, /, *args: Any, **kwargs: Any) -> Any:
        """Compute again, and store the new result in place of the old."""
        steps = OffLoop(self)
        return await steps.finish(refresh, self, CallArguments(args, kwargs), steps)


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
