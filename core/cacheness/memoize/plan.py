"""Compute the cost of an edit: which results belong to today's code, and which to earlier code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict
from typing import Any, Literal, TypeAlias

from cacheness.errors import CachenessError
from cacheness.keys import Digest, Key, arguments_of, call_of, make_key, name_of_function
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
    replaced: int = 0  #: results of earlier code for calls that have later ones

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
    present: Callable[[Sequence[Key]], Collection[str]] = lambda _: (),
) -> FunctionPlan:
    """Compare the code of a function with that of its results, newest first.

    Without a version, a result with a pinned version is compared with the function under that
    version. Results of fingerprints that are `accepted`, as pairs of today's and an earlier one,
    are served, too. `why_not` returns why a result is not served regardless of its code, such as a
    dispute; "" if it is served. `present` returns the keys that have results, in hexadecimal digits:
    a result of earlier code is not stale if the same call has one of today's. Each call counts once.
    """
    pinned: dict[str | None, Key] = {}
    kept_back: Counter[str] = Counter()
    served, served_bytes, replaced = 0, 0, 0
    stale = _Stale()
    counted: set[bytes] = set()
    earlier: list[tuple[Entry, Key | None]] = []
    for entry in entries:
        found, its_version = _code_in(entry.args)
        chosen = its_version if version is None else version
        if chosen not in pinned:
            pinned[chosen] = make_key(args={}, function=function, version=chosen)
        today = pinned[chosen]
        if (found == today.fingerprint or (today.fingerprint, found) in accepted) and its_version == chosen:
            why = why_not(entry)
            if not why:
                served, served_bytes = served + 1, served_bytes + entry.size
                continue
            kept_back[why] += 1
            stale.add(entry)
            counted.add(entry.key)
        else:
            earlier.append((entry, _todays_key(entry, function, chosen)))
    changes: tuple[str, ...] = ()
    there = frozenset(present([key for _, key in earlier if key is not None]))
    for entry, key in earlier:
        if key is not None:
            if key.hex in there or key.digest in counted:
                replaced += 1
                continue
            counted.add(key.digest)
        stale.add(entry)
        if not changes:
            today = pinned[_code_in(entry.args)[1] if version is None else version]
            described = tuple(str(change) for change in changes_of_code(entry, code_of([entry]), today))
            changes = described or ("what leads to what in the code changed",)
    state: State = "changed" if changes else "unchanged" if served or stale.count else "new"
    changes += tuple(f"{why} ({number_of(count, 'result')})" for why, count in kept_back.items())
    return FunctionPlan(
        name_of_function(function),
        state,
        changes,
        served,
        served_bytes,
        stale.count,
        stale.bytes,
        stale.seconds,
        replaced,
    )


class _Stale:
    """Results that would be computed again, their size, and the seconds that they took."""

    def __init__(self) -> None:
        self.count, self.bytes, self.seconds = 0, 0, 0.0

    def add(self, entry: Entry) -> None:
        """Count one more."""
        self.count += 1
        self.bytes += entry.size
        self.seconds += entry.compute_seconds or 0.0


def _todays_key(entry: Entry, function: Callable[..., Any], version: str | None) -> Key | None:
    """Return the key of the same call today; None if it cannot be made."""
    try:
        arguments, options = call_of(entry.args)
        return make_key(args=arguments, prefix=options["prefix"] or "", version=version, function=function)
    except (CachenessError, TypeError, ValueError):
        return None


def without_code(name: str, state: State, why: str, entries: Iterable[Entry]) -> FunctionPlan:
    """Return the plan of a function whose code cannot be read: none of its results is known to be served."""
    stale = _Stale()
    for entry in entries:
        stale.add(entry)
    changes = (why,) if why else ()
    return FunctionPlan(name, state, changes, stale=stale.count, stale_bytes=stale.bytes, stale_seconds=stale.seconds)


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
    function = getattr(function, "__func__", function)  # of a method that is bound to a class or an instance
    options = getattr(function, "options", None)
    inner = getattr(function, "__wrapped__", None) if options is not None else getattr(function, "fn", None)
    return (inner if callable(inner) else function), getattr(options, "version", None)
