"""pytest plug-in for tests of code that uses a cache: fixtures, a marker and an option.

It imports nothing of cacheness until a test requests it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from cacheness.cache import UnifiedCache
    from cacheness.testing.calls import HeardCalls

_VARIABLE: Final = "CACHENESS_MODE"
_MODES: Final = ("off", "offline", "read", "refresh", "readwrite")
#: A folder whose files are in memory.
_MEMORY: Final = "/dev/shm"  # noqa: S108 - the name in it is a random one


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    group = parser.getgroup("cacheness")
    group.addoption(
        "--cacheness-mode",
        choices=_MODES,
        help="what the tests may do with every cache, as CACHENESS_MODE: the narrower of this and a cache's own counts",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Set the mode before the first module is imported, and name the marker."""
    config.addinivalue_line("markers", "nocache: every cache is off, as with mode='off', also those that are open")
    mode = config.getoption("--cacheness-mode")
    if mode is not None:
        config.add_cleanup(_set_variable(mode))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run a test that is marked with `nocache` without any cache."""
    with ExitStack() as after:
        if item.get_closest_marker("nocache") is not None:
            after.callback(_set_variable("off"))
            after.enter_context(_open_caches_off())
        return (yield)


@pytest.fixture
def cacheness_cache() -> Iterator[UnifiedCache]:
    """Return a new, empty cache for this test, deleted after it; in memory if the machine has such a folder."""
    from cacheness import UnifiedCache

    memory = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(prefix="cacheness-test-", dir=memory) as directory,
        UnifiedCache(directory, blob_store="memory://") as cache,
    ):
        yield cache


@pytest.fixture
def cacheness_calls(request: pytest.FixtureRequest) -> Callable[..., AbstractContextManager[HeardCalls]]:
    """Return a function that records calls of a cache in a block; by default of `cacheness_cache`."""
    from cacheness.testing.calls import HeardCalls

    @contextmanager
    def hear(cache: UnifiedCache | None = None) -> Iterator[HeardCalls]:
        heard: UnifiedCache = request.getfixturevalue("cacheness_cache") if cache is None else cache
        with heard.listening() as calls:
            yield HeardCalls(calls)

    return hear


def _set_variable(mode: str) -> Callable[[], None]:
    """Set CACHENESS_MODE; the returned function resets it."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = mode

    def set_back() -> None:
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before

    return set_back


@contextmanager
def _open_caches_off() -> Iterator[None]:
    """Switch off the caches that a module opened when it was imported."""
    references = sys.modules.get("cacheness.references")
    before = [] if references is None else [(cache, cache.config) for cache in list(references.caches)]
    for cache, config in before:
        cache.config = config.in_mode("off")
    try:
        yield
    finally:
        for cache, config in before:
            cache.config = config
