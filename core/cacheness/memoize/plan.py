"""Compute the cost of an edit: which results belong to today's code, and which to earlier code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any, Final, Literal, TypeAlias

from cacheness.errors import CachenessError
from cacheness.keys import Digest, Key, arguments_of, call_of, make_key, name_of_function
from cacheness.lazy_dataclass import dataclass
from cacheness.memoize.explain import Codes, changes_of_code
from cacheness.records import Entry
from cacheness.units import number_of

AT_ONCE: Final = 1000  #: results that are compared with those that are present, in one statement

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
    results = _ResultsSoFar(function, version, code_of, accepted=accepted, why_not=why_not, present=present)
    waiting = iter(entries)
    while page := list(islice(waiting, AT_ONCE)):
        results.add(page)
    return results.plan()


class _ResultsSoFar:
    """The results of a function so far, compared with its code of today; `plan_of` describes the parameters."""

    def __init__(
        self,
        function: Callable[..., Any],
        version: str | None,
        code_of: Callable[[Iterable[Entry]], Codes],
        *,
        accepted: Collection[tuple[bytes | None, bytes | None]],
        why_not: Callable[[Entry], str],
        present: Callable[[Sequence[Key]], Collection[str]],
    ) -> None:
        self._function, self._version, self._code_of = function, version, code_of
        self._accepted, self._why_not, self._present = accepted, why_not, present
        self._pinned: dict[str | None, Key] = {}
        self._counted: set[bytes] = set()  #: keys of today whose calls count as stale
        self._kept_back: Counter[str] = Counter()
        self._changes: tuple[str, ...] = ()
        self._served, self._served_bytes, self._replaced = 0, 0, 0
        self._stale = _Stale()

    def add(self, page: Sequence[Entry]) -> None:
        """Compare some results, newest first."""
        earlier: list[tuple[Entry, Key, Key | None]] = []
        for entry in page:
            found, its_version = _code_in(entry.args)
            chosen = its_version if self._version is None else self._version
            today = self._under(chosen)
            if (found == today.fingerprint or (today.fingerprint, found) in self._accepted) and its_version == chosen:
                self._add_todays(entry)
            else:
                earlier.append((entry, today, _todays_key(entry, self._function, chosen)))
        there = frozenset(self._present([key for _, _, key in earlier if key is not None])) if earlier else frozenset()
        for entry, today, key in earlier:
            if key is not None and (key.hex in there or key.digest in self._counted):
                self._replaced += 1
            else:
                self._add_stale(entry, entry.key if key is None else key.digest)
                self._changes = self._changes or self._described(entry, today)

    def plan(self) -> FunctionPlan:
        """Return the plan of all results that were added."""
        is_there = self._served or self._stale.count
        why = tuple(f"{why} ({number_of(count, 'result')})" for why, count in self._kept_back.items())
        return FunctionPlan(
            function=name_of_function(self._function),
            state="changed" if self._changes else "unchanged" if is_there else "new",
            changes=self._changes + why,
            results=self._served,
            bytes=self._served_bytes,
            stale=self._stale.count,
            stale_bytes=self._stale.bytes,
            stale_seconds=self._stale.seconds,
            replaced=self._replaced,
        )

    def _under(self, version: str | None) -> Key:
        """Return a key of the function under a version, whose code counts."""
        if version not in self._pinned:
            self._pinned[version] = make_key(args={}, function=self._function, version=version)
        return self._pinned[version]

    def _add_todays(self, entry: Entry) -> None:
        why = self._why_not(entry)
        if why:
            self._kept_back[why] += 1
            self._add_stale(entry, entry.key)
        else:
            self._served, self._served_bytes = self._served + 1, self._served_bytes + entry.size

    def _add_stale(self, entry: Entry, key: bytes) -> None:
        self._stale.add(entry)
        self._counted.add(key)

    def _described(self, entry: Entry, today: Key) -> tuple[str, ...]:
        changes = tuple(str(change) for change in changes_of_code(entry, self._code_of([entry]), today))
        return changes or ("what leads to what in the code changed",)


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
