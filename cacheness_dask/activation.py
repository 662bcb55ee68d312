"""`caching()` and `install()`: the two ways to use a cache."""

from __future__ import annotations

import functools
import inspect
import os
import time
import warnings
from collections.abc import Callable
from types import EllipsisType, TracebackType
from typing import Any, Final, TypeVar, cast

from dask.base import named_schedulers

from cacheness import Config, UnifiedCache
from cacheness.errors import ConfigError, StoreUnavailable
from cacheness.incomplete import Incomplete
from cacheness.modes import Mode
from cacheness.options import checked
from cacheness.units import Size
from cacheness_dask import hooks
from cacheness_dask.blocks import Block
from cacheness_dask.configuration import configured, configured_cache
from cacheness_dask.policy import Policy, Which
from cacheness_dask.run import CacheUnavailable, Run

F = TypeVar("F", bound=Callable[..., Any])
#: A cache, or its place; None for no cache.
Place = UnifiedCache | str | os.PathLike[str] | None

_ELSEWHERE: Final = (
    "This caching() block was left in another thread or task than it was entered in, and saw nothing of what was"
    " computed in between. Enter it where the work is done, as a `with` statement around it."
)


def caching(
    cache: Place | EllipsisType = ...,
    *,
    which: Which | None = None,
    scheduler: Any = None,
    max_value_bytes: Size | None = None,
    queue_bytes: Size | None = None,
    incomplete: Incomplete | None = None,
    check_inputs: float | str | None = None,
    check: float | str | None = None,
    mode: Mode | None = None,
) -> Caching:
    """Let everything that is computed in the block use a cache, on any scheduler and client.

    Waiting results are stored when the block ends. Defaults come from `dask.config`, under
    `cacheness`. An asynchronous client needs `async with`, which does not block the event loop.

    Args:
        cache: an open cache, or a directory or database URL to open for the block; None for no cache. With a URL, the
            environment provides the other parameters, as for `UnifiedCache.from_env`. Without it:
            `cacheness.cache` of `dask.config`, otherwise from the environment.
        which: what to store: "auto", the default, for outputs, marks, and results that took longer
            to compute than to load; "outputs", "all" or "marked" for only these.
        scheduler: a value for Dask's `scheduler=`; None for Dask's default.
        max_value_bytes: results larger than this are not stored; bytes, or text such as "1 GiB", the default.
        queue_bytes: the most memory, in each process, of results that wait to be stored; "64 MiB".
        incomplete: for a task whose key is incomplete: "warn" once per function and cache it,
            "serve" to cache it silently, "refuse" not to cache it; None for the cache's setting.
        check_inputs: the share of tasks, 0 to 1, whose inputs are digested before and after: a task that changes them
            in place is named, and its result is not stored.
        check: the share of hits, 0 to 1, that are computed again from cached inputs: a result that
            differs is disputed, and not served until `cacheness disputes` settles it; None for the
            cache's share, or CACHENESS_CHECK.
        mode: as for `UnifiedCache`, for the block; the more restrictive one applies. "refresh"
            begins at the block, "offline" raises NotCached before anything runs.
    """
    policy = _policy(
        which=which,
        max_value_bytes=max_value_bytes,
        queue_bytes=queue_bytes,
        incomplete=incomplete,
        check_inputs=check_inputs,
        check=check,
    )
    return Caching(_checked(cache), policy, _checked_scheduler(scheduler), _mode(mode))


class Caching:
    """The result of `caching()`: for `with`, for `async with`, or as a decorator."""

    def __init__(self, cache: Place, policy: Policy, scheduler: Any, mode: Mode = "readwrite") -> None:
        self._made_of = cache, policy, scheduler, mode
        self._entered: tuple[Block, Run] | None = None

    def __enter__(self) -> Run:
        return self._enter(is_everywhere=False)

    def enter_everywhere(self) -> Run:
        """Enter a block that applies to every thread and task of this process, until it is left."""
        return self._enter(is_everywhere=True)

    def _enter(self, *, is_everywhere: bool) -> Run:
        if self._entered is not None:
            raise RuntimeError("this block is entered already; each block, thread and task needs a separate caching()")
        place, policy, scheduler, mode = self._made_of
        run = run_with(place, policy, mode)
        self._entered = Block(run, scheduler, is_everywhere=is_everywhere), run
        try:
            hooks.come_in()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return run

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        run, was_here = self._leave()
        run.close(waits=not _is_interrupted(kind))
        _warn_unless(was_here or run.history)

    async def __aenter__(self) -> Run:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        run, was_here = self._leave()
        await run.aclose(waits=not _is_interrupted(kind))
        _warn_unless(was_here or run.history)

    def __repr__(self) -> str:
        return f"<caching with {self._made_of[0]!r}>"

    def _leave(self) -> tuple[Run, bool]:
        if self._entered is None:
            raise RuntimeError("this block was not entered")
        (block, run), self._entered = self._entered, None
        was_here = block.leave()
        hooks.go_out()
        return run, was_here

    def __call__(self, func: F) -> F:
        """Decorate a function: each of its calls is a block."""
        if inspect.iscoroutinefunction(func):

            @functools.wraps(func)
            async def within_async(*args: Any, **kwargs: Any) -> Any:
                async with Caching(*self._made_of):
                    return await func(*args, **kwargs)

            return cast("F", within_async)

        @functools.wraps(func)
        def within(*args: Any, **kwargs: Any) -> Any:
            with Caching(*self._made_of):
                return func(*args, **kwargs)

        return cast("F", within)


def install(
    client: Any,
    cache: Place | EllipsisType = ...,
    *,
    which: Which | None = None,
    max_value_bytes: Size | None = None,
    queue_bytes: Size | None = None,
    incomplete: Incomplete | None = None,
    check_inputs: float | str | None = None,
    check: float | str | None = None,
    mode: Mode | None = None,
) -> Run:
    """Let everything that a distributed client submits use a cache, until `uninstall(client)`.

    Inside a `caching()` block, the block's cache is used.

    Args:
        client: the distributed client.
        cache: as in `caching`.
        which: as in `caching`.
        max_value_bytes: as in `caching`.
        queue_bytes: as in `caching`.
        incomplete: as in `caching`.
        check_inputs: as in `caching`.
        check: as in `caching`.
        mode: as in `caching`.

    Returns:
        The run, as `caching()` returns it.
    """
    if not hasattr(client, "scheduler_info"):
        raise ConfigError(f"install takes a distributed client, not {type(client).__name__}: install(client, cache)")
    policy = _policy(
        which=which,
        max_value_bytes=max_value_bytes,
        queue_bytes=queue_bytes,
        incomplete=incomplete,
        check_inputs=check_inputs,
        check=check,
    )
    place, narrowed = _checked(cache), _mode(mode)
    uninstall(client)
    run = run_with(place, policy, narrowed)
    hooks.installed[client] = run
    hooks.come_in(blocks=0)
    return run


class RegisteredCache:
    """A cache for all graphs of this process, in every thread: from `register` on, like `dask.cache.Cache`.

    A `caching()` block inside uses its own cache. It may also be used in a `with` statement.

    Args:
        cache: as in `caching`.
        options: the other arguments of `caching`.
    """

    def __init__(self, cache: Place | EllipsisType = ..., **options: Any) -> None:
        self._caching = caching(cache, **options)

    def register(self) -> Run:
        """Let computations from now on use the cache.

        Returns:
            The run, as `caching()` returns it.
        """
        return self._caching.enter_everywhere()

    def unregister(self) -> None:
        """Store all waiting results, and undo `register`."""
        self._caching.__exit__(None, None, None)

    def __enter__(self) -> Run:
        return self.register()

    def __exit__(self, *exc_info: object) -> None:
        self.unregister()

    def __repr__(self) -> str:
        return f"<Cache for {self._caching!r}>"


def uninstall(client: Any) -> None:
    """Store all waiting results, and undo `install`.

    Args:
        client: the distributed client.
    """
    run = hooks.installed.pop(client, None)
    if run is not None:
        hooks.go_out(blocks=0)
        run.close()


def run_with(cache: Place, policy: Policy | None = None, mode: Mode = "readwrite") -> Run:
    """Return a run with a cache, which is opened for it and closed with it unless it is open."""
    cache = _checked(cache)
    if cache is None:
        return Run(UnifiedCache(None), policy, owns=True)
    if isinstance(cache, UnifiedCache):
        config = _for_block(cache, mode)
        return Run(cache, policy) if config == cache.config else Run(UnifiedCache(config), policy, owns=True)
    if isinstance(cache, str) and "://" in cache:
        config = Config.from_env().but(metadata_backend=cache)
    else:
        config = Config(cache_dir=os.fspath(cache))
    if config.in_mode(mode).mode == "refresh":
        with UnifiedCache(config.but(mode="readwrite", refresh_since=None)) as opened:
            config = _for_block(opened, mode)
    return Run(UnifiedCache(config.in_mode(mode)), policy, owns=True)


def _for_block(cache: UnifiedCache, mode: Mode) -> Config:
    """Return the configuration of an open cache in a more restrictive mode.

    A refresh begins here, unless the cache began one.
    """
    config = cache.config.in_mode(mode)
    if config.mode != "refresh" or cache.config.mode == "refresh":
        return config
    try:
        return config.but(refresh_since=cache.now())
    except StoreUnavailable:
        return config.but(refresh_since=time.time())


def _policy(**given: Any) -> Policy:
    return Policy.checked(**configured(**given))


def _mode(mode: Mode | None) -> Mode:
    found = configured(mode=mode)["mode"]
    narrowed: Mode = checked("mode", "off" if found is False else found)  # YAML's value for a bare `off`
    return narrowed


def _checked(cache: Place | EllipsisType) -> Place:
    if cache is ...:
        cache = configured_cache()
    if not (cache is None or isinstance(cache, (UnifiedCache, str, os.PathLike))):
        raise ConfigError(
            f"a cache is a UnifiedCache, the path of a directory, or the URL of a database, not {type(cache).__name__}"
        )
    if isinstance(cache, str) and "://" in cache:
        Config(metadata_backend=cache)
    elif isinstance(cache, str | os.PathLike):
        Config(cache_dir=os.fspath(cache))
    return cache


def _checked_scheduler(scheduler: Any) -> Any:
    known = ("distributed", "dask.distributed", *named_schedulers)
    if isinstance(scheduler, str) and scheduler.lower() not in known:
        raise ConfigError(f"scheduler cannot be used: {scheduler!r:.40} is not known: one of {', '.join(known)}")
    return scheduler


def _is_interrupted(kind: type[BaseException] | None) -> bool:
    """Return True for Ctrl-C, a cancelled task, and the exit of the program."""
    return kind is not None and not issubclass(kind, Exception)


def _warn_unless(seen: Any) -> None:
    if not seen:
        warnings.warn(_ELSEWHERE, CacheUnavailable, stacklevel=3)
