"""Detect tasks that change their arguments in place, in a sample, by digests before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from dask._task_spec import _execute_subgraph

from cacheness import CachenessError
from cacheness.jitter import between
from cacheness.keys import Inputs, digest_of
from cacheness_dask.reasons import IN_PLACE
from cacheness_dask.sources_and_sinks import handle_in

#: Immutable types of values.
_UNCHANGING: Final = frozenset({type(None), bool, int, float, complex, str, bytes, range, slice})


class Sample:
    """The arguments of a task before it ran; none for a task that is not checked."""

    def __init__(
        self, fraction: float, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        chosen = fraction > 0.0 and between(0.0, 1.0) <= fraction
        self._given = dict(_arguments(func, args, kwargs)) if chosen else {}
        self._before = {name: digest for name, value in self._given.items() if (digest := _digest(value))}

    def why_not(self) -> str:
        """Return why the result is not stored: which arguments have changed. Otherwise ""."""
        changed = [name for name, digest in self._before.items() if _digest(self._given[name]) != digest]
        return f"{IN_PLACE} it changes {', '.join(changed)}" if changed else ""


def change_told(name: str, why: str) -> str:
    """Return the same as a sentence for the user."""
    what = why.removeprefix(IN_PLACE).removeprefix(" it")
    return f"{name}{what} in place, so that other tasks get the one value or the other: let it change a copy"


def _arguments(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield a function's mutable arguments, with names for them."""
    fused = func is _execute_subgraph  # its first arguments are its steps, then results of other tasks
    for number, value in enumerate(args[3:] if fused else args, 1):
        if type(value) not in _UNCHANGING and not handle_in(value):
            yield f"{'input' if fused else 'argument'} {number} ({type(value).__name__})", value
    for name, value in kwargs.items():
        if type(value) not in _UNCHANGING and not handle_in(value):
            yield f"argument `{name}` ({type(value).__name__})", value


def _digest(value: Any) -> bytes:
    """Return a digest of a value; b"" for one that cannot be read, such as a lock. Files in it count by their names."""
    with suppress(CachenessError):
        return digest_of(value, inputs=Inputs(as_text=True))
    return b""
