"""What an edit costs: which results were made by the code of today, and which by an earlier one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict
from typing import Any, Literal, TypeAlias

from cacheness.errors import CachenessError
from cacheness.keys import Digest, Key, arguments_of, make_key, name_of_function
from cacheness.lazy_dataclass import dataclass
from cacheness.memoize.explain import Codes, changes_of_code
from cacheness.records import Entry

State: TypeAlias = Literal["unchanged", "changed", "new", "not importable", "gone"]


@dataclass(frozen=True, slots=True)
class FunctionPlan:
    """One function: whether its results count today, and what is at stake where they do not."""

    function: str  #: module:qualified name
    state: State
    changes: tuple[str, ...] = ()  #: since the newest result that an earlier code made
    results: int = 0  #: that are served today, those of accepted earlier code among them
    bytes: int = 0
    stale: int = 0  #: results of an earlier code, which are computed again when they are asked for
    stale_bytes: int = 0
    stale_seconds: float = 0.0  #: what they cost to compute

    def as_dict(self) -> dict[str, Any]:
        """The plan as data."""
        return asdict(self)


def plan_of(
    function: Callable[..., Any],
    version: str | None,
    entries: Iterable[Entry],
    code_of: Callable[[Iterable[Entry]], Codes],
    accepted: Collection[tuple[bytes | None, bytes | None]] = (),
) -> FunctionPlan:
    """Compare the code of a function with that of its results, the newest of which come first.

    Without a version, a result that a version pins is compared with the function under that version. Results of
    fingerprints that are `accepted`, as pairs of today's and an earlier one, are served, too.
    """
    pinned: dict[str | None, Key] = {}
    changes: tuple[str, ...] = ()
    served, served_bytes, stale, stale_bytes, seconds = 0, 0, 0, 0, 0.0
    for entry in entries:
        found, its_version = _code_in(entry.args)
        chosen = its_version if version is None else version
        if chosen not in pinned:
            pinned[chosen] = make_key(args={}, function=function, version=chosen)
        today = pinned[chosen]
        is_served = found == today.fingerprint or (today.fingerprint, found) in accepted
        if is_served and its_version == chosen:
            served, served_bytes = served + 1, served_bytes + entry.size
            continue
        if not stale:
            described = tuple(str(change) for change in changes_of_code(entry, code_of([entry]), today))
            changes = described or ("what leads to what in the code changed",)
        stale, stale_bytes, seconds = stale + 1, stale_bytes + entry.size, seconds + (entry.compute_seconds or 0.0)
    state: State = "changed" if stale else "unchanged" if served else "new"
    name = name_of_function(function)
    return FunctionPlan(name, state, changes, served, served_bytes, stale, stale_bytes, seconds)


def without_code(name: str, state: State, why: str, entries: Iterable[Entry]) -> FunctionPlan:
    """The plan of a function whose code cannot be looked at: none of its results is known to be served."""
    stale, size, seconds = 0, 0, 0.0
    for entry in entries:
        stale, size, seconds = stale + 1, size + entry.size, seconds + (entry.compute_seconds or 0.0)
    changes = (why,) if why else ()
    return FunctionPlan(name, state, changes, stale=stale, stale_bytes=size, stale_seconds=seconds)


def _code_in(args: bytes) -> tuple[bytes | None, str | None]:
    """The fingerprint of the function that arguments in a row were given to, and the version that pins it."""
    try:
        found = arguments_of(args)
    except CachenessError:
        return None, None
    function, version = found.get("function"), found.get("version")
    return (function.digest if isinstance(function, Digest) else None), version if isinstance(version, str) else None


def version_of(function: Any) -> tuple[Callable[..., Any], str | None]:
    """The function within what a decorator made of it, and the version that pins its code."""
    options = getattr(function, "options", None)
    inner = getattr(function, "__wrapped__", None) if options is not None else getattr(function, "fn", None)
    return (inner if callable(inner) else function), getattr(options, "version", None)
