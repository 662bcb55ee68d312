"""Stop, kill or fail a cache at a named step.

Every step of the commit protocol is a call of a store, so a wrapper around the stores reaches all
of them and the product needs no hooks. A step is `blobs.write`, `metadata.commit` and so on; each
has a moment before it and a moment after it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from cacheness import UnifiedCache, factory
from cacheness.config import Config

#: The calls that change something, and the reads between which something may change.
STEPS = frozenset(
    {
        "write",
        "writing",
        "read",
        "delete",
        "delete_many",
        "abort",
        "commit",
        "swap",
        "find",
        "scan",
        "clear_tombstones",
        "open_session",
        "end_session",
        "fence",
        "begin_epoch",
    }
)

OnStep = Callable[[str, str], None]  #: called with the step and "before" or "after"


class Crashed(BaseException):
    """The process "died" here. A BaseException, so that no handler can hide it."""


class Stepwise:
    """A store that calls `on_step` before and after each step, and raises its exceptions."""

    def __init__(self, inner: Any, name: str, on_step: OnStep) -> None:
        self._inner = inner
        self._name = name
        self._on_step = on_step

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._inner, attribute)
        if attribute not in STEPS:
            return value
        step = f"{self._name}.{attribute}"
        if attribute == "writing":
            return partial(self._during, step, value)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._on_step(step, "before")
            result = value(*args, **kwargs)
            self._on_step(step, "after")
            return result

        return call

    @contextmanager
    def _during(self, step: str, block: Callable[..., AbstractContextManager[None]], *args: Any) -> Iterator[None]:
        self._on_step(step, "before")
        with block(*args):
            yield
        self._on_step(step, "after")


def stepwise(config: Config, on_step: OnStep) -> UnifiedCache:
    """Return the cache of this configuration, with separate connections, whose steps are observed."""
    UnifiedCache(config).close()  # creates the signing key, before the database
    return UnifiedCache(
        config.but(
            metadata_backend=Stepwise(factory.open_metadata(config), "metadata", on_step),
            blob_store=Stepwise(factory.open_blobs(config), "blobs", on_step),
        )
    )


class Countdown:
    """Acts at the n-th moment: n = 1, 2, … until a run ends before it covers all moments."""

    def __init__(self, n: int, act: Callable[[str], None]) -> None:
        self.left = n
        self.seen: list[str] = []
        self._act = act

    def __call__(self, step: str, when: str) -> None:
        """Count one moment."""
        self.seen.append(f"{when} {step}")
        self.left -= 1
        if self.left == 0:
            self._act(self.seen[-1])

    @property
    def reached(self) -> bool:
        """Return True when the run was long enough to reach it."""
        return self.left <= 0


class At:
    """Acts at one named moment, once."""

    def __init__(self, step: str, when: str, act: Callable[[str], None]) -> None:
        self._moment = (step, when)
        self._act = act
        self.reached = False

    def __call__(self, step: str, when: str) -> None:
        """Act if this is the moment."""
        if not self.reached and (step, when) == self._moment:
            self.reached = True
            self._act(f"{when} {step}")


def crash(moment: str) -> None:
    """Raise Crashed."""
    raise Crashed(moment)


def kill(_moment: str) -> None:
    """End this very process with SIGKILL."""
    os.kill(os.getpid(), signal.SIGKILL)


def failing_with(error: Exception) -> Callable[[str], None]:
    """Raise this error, once."""

    def fail(_moment: str) -> None:
        raise error

    return fail
