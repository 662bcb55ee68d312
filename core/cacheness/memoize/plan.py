"""Compute the cost of an edit: which results belong to today's code, and which to earlier code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict
from typing import Any, Literal, TypeAlias

from cacheness.errors import CachenessError
from cacheness.keys import Digest, Key, arguments_of, make_key, name_of_function
from cacheness.lazy_dataclass import dataclass
from cacheness.memoize.explain import Codes, changes_of_code
from cacheness.records import Entry
from cacheness.units import number_of

State: TypeAlias = Literal["unchanged", "changed", "new", "not importable", "gone"]


@dataclass(frozen=True, slots=True)
class FunctionPlan:
    """One function: whether its results count today, and the cost if they do not."""

    function: str  #: module:qualified name
    state: State
    changes: tuple[str, ...] = ()  #: compared with the newest result of earlier code, and why others are not served
    results: int = 0  #: that are served today, including those of accepted earlier code
    bytes: int = 0
    stale: int = 0  #: results that would be computed again: of earlier code, or not served
    stale_bytes: int = 0
    stale_seconds: float = 0.0  #: the cost of computing them

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as data."""
        return asdict(self)


def plan_of(
    function: Callable[..., Any],
    version: str | None,
    entries: Iterable[Entry],
    code_of: Callable[[Iterable[Entry]], Codes],
    *,
    accepted: Collection[tuple[bytes | None, bytes | None]] = (),
    why_not: Callable[[Entry], str] = lambda _: "",
) -> FunctionPlan:
    """Compare the code of a function with that of its results, newest first.

    Without a version, a result with a pinned version is compared with the function under that
    version. Results of fingerprints that are `accepted`, as pairs of today's and an earlier one,
    are served, too. `why_not` returns why a result is not served regardless of its code, such as a
    dispute; "" if it is served.
    """
    pinned: dict[str | None, Key] = {}
    changes: tuple[str, ...] = ()
    kept_back: Counter[str] = Counter()
    served, served_bytes, stale, stale_bytes, seconds = 0, 0, 0, 0, 0.0
    for entry in entries:
        found, its_version = _code_in(entry.args)
        chosen = its_version if version is None else version
        if chosen not in pinned:
            pinned[chosen] = make_key(args={}, function=function, version=chosen)
        today = pinned[chosen]
        is_of_today = found == today.fingerprint or (today.fingerprint, found) in accepted
        if is_of_today and its_version == chosen:
            why = why_not(entry)
            if not why:
                served, served_bytes = served + 1, served_bytes + entry.size
                continue
            kept_back[why] += 1
        elif not changes:
            described = tuple(str(change) for change in changes_of_code(entry, code_of([entry]), today))
            changes = described or ("what leads to what in the code changed",)
        stale, stale_bytes, seconds = stale + 1, stale_bytes + entry.size, seconds + (entry.compute_seconds or 0.0)
    state: State = "changed" if changes else "unchanged" if served or stale else "new"
    name = name_of_function(function)
    changes += tuple(f"{why} ({number_of(count, 'result')})" for why, count in kept_back.items())
    return FunctionPlan(name, state, changes, served, served_bytes, stale, stale_bytes, seconds)


def without_code(name: str, state: State, why: str, entries: Iterable[Entry]) -> FunctionPlan:
    """Return the plan of a function whose code cannot be read: none of its results is known to be served."""
    stale, size, seconds = 0, 0, 0.0
    for entry in entries:
        stale, size, seconds = stale + 1, size + entry.size, seconds + (entry.compute_seconds or 0.0)
    changes = (why,) if why else ()
    return FunctionPlan(name, state, changes, stale=stale, stale_bytes=size, stale_seconds=seconds)


def _code_in(args: bytes) -> tuple[bytes | None, str | None]:
    """Return the fingerprint of a row's function with its bound arguments, and its pinned version."""
    try:
        found = arguments_of(args)
    except CachenessError:
        return None, None
    function, version = found.get("function"), found.get("version")
    return (function.digest if isinstance(function, Digest) else None), version if isinstance(version, str) else None


def version_of(function: Any) -> tuple[Callable[..., Any], str | None]:
    """Return the function inside a decorator's result, and its pinned version."""
    options = getattr(function, "options", None)
    inner = getattr(function, "__wrapped__", None) if options is not None else getattr(function, "fn", None)
    return (inner if callable(inner) else function), getattr(options, "version", None)
