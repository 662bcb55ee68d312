"""Audit stored results: repeat stored calls and compare, outside of a program's calls.

For functions that take too long to be computed twice in a call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, Protocol

from cacheness.audit import NotComparable, describe_difference, digest_or_none
from cacheness.errors import CodecError, NotAudited
from cacheness.jitter import below, chosen
from cacheness.keys import Digest, call_of, make_key, name_of_function
from cacheness.keys.code.writers import writes_to
from cacheness.lazy_dataclass import dataclass
from cacheness.memoize.acceptances import bound_of
from cacheness.memoize.audits import came_out_as
from cacheness.memoize.body import Failed
from cacheness.memoize.call_arguments import CallArguments
from cacheness.memoize.compute import Computed
from cacheness.memoize.function import MemoizedFunction
from cacheness.memoize.repeat import compute_again
from cacheness.memoize.stored_calls import CHANGES, ResultsByValue, StoredCalls, awaited
from cacheness.records import Entry, Hit
from cacheness.units import number_of

#: Sampled results per compared one, because some cannot be compared.
_SPARE: Final = 4


@dataclass(frozen=True, slots=True)
class AuditedFunction:
    """The result of repeating stored calls of a function."""

    function: str  #: module:qualified name
    results: int = 0  #: stored results of today's code
    equal: int = 0  #: calls with an equal result
    disputed: Mapping[str, str] | None = None  #: keys of the others, and how they differ
    skipped: Mapping[str, int] | None = None  #: how many could not be compared, by reason

    @property
    def bound(self) -> float:
        """Return the largest share of such calls that may differ, at 95 %, if none did."""
        return 1.0 if self.disputed else bound_of(self.equal)

    def sentence(self) -> str:
        """Return a description in one line."""
        different = len(self.disputed or ())
        if different:
            return f"{different:,} of {number_of(self.equal + different, 'call')} came out differently"
        return f"{number_of(self.equal, 'equal call')}: at most {100 * self.bound:.1f} % of such calls differ, at 95 %"

    def as_dict(self) -> dict[str, Any]:
        """Return it as data for JSON."""
        return asdict(self) | {"bound": self.bound}


class AuditedCache(ResultsByValue, Protocol):
    """The methods of a cache that an audit of stored results needs."""

    def dispute(self, entry: Entry, stored: bytes | None, computed: bytes | None, detail: str) -> bool:
        """Dispute a result; return False if it was replaced, or there are too many disputes."""
        ...


def audit_stored(cache: AuditedCache, cached: MemoizedFunction, sample: int) -> AuditedFunction:
    """Repeat so many stored calls of a function, chosen at random. Raises NotAudited if none can be repeated."""
    name = name_of_function(cached.__wrapped__)
    why = _why_not(cached)
    results, held = (0, []) if why else _sample_of(cache, cached, name, sample * _SPARE)
    if not why and not results:
        why = "no result is stored that its code of today made, with the globals and variables that it reads"
    audit = _StoredAudit(cache, cached)
    if not why:
        audit.run(held, sample)
        if not audit.equal and not audit.disputed:
            skipped = "; ".join(f"{count:,} {reason}" for reason, count in audit.skipped.most_common())
            why = f"none of its {results:,} results could be compared: {skipped}"
    if why:
        raise NotAudited(f"{name.replace(':', '.')} is not audited: {why}")
    return AuditedFunction(name, results, audit.equal, audit.disputed, dict(audit.skipped))


class _StoredAudit:
    """Calls of a sample, repeated one by one."""

    def __init__(self, cache: AuditedCache, cached: MemoizedFunction) -> None:
        self._cache = cache
        self._cached = cached
        self._calls = StoredCalls(cache, cached)
        self.skipped = self._calls.skipped
        self.equal = 0
        self.disputed: dict[str, str] = {}

    def run(self, held: Sequence[Entry], sample: int) -> None:
        """Compare so many of these."""
        for entry in chosen(held, len(held)):
            if self.equal + len(self.disputed) == sample:
                return
            if entry.outputs:
                self.skipped["wrote files"] += 1
                continue
            call = self._calls.call_of(entry, None, {})
            stored = self._calls.result_of(entry) if call is not None else None
            if call is not None and stored is not None:
                self._compare(call, stored)

    def _compare(self, call: CallArguments, stored: Hit) -> None:
        done: Computed = awaited(lambda: compute_again(self._cached, call), self._cached)
        if isinstance(done.value, Failed):
            self.skipped[f"fail when they are made again ({type(done.value.error).__name__})"] += 1
            return
        try:
            same = came_out_as(self._cached, done, stored.value)
        except NotComparable as error:
            raise NotAudited(f"{done.key.function} is not audited: its results cannot be compared: {error}") from error
        if same is None:
            self.skipped[CHANGES] += 1
        elif same:
            self.equal += 1
        else:
            detail = describe_difference(stored.value, done.value, done.key, self._cached.__wrapped__, done.moved)
            digests = digest_or_none(stored.value), digest_or_none(done.value)
            if self._cache.dispute(stored.entry, *digests, detail):
                self.disputed[stored.entry.cache_key] = detail
            else:
                self.skipped["came out differently, but were replaced since, or exceed the disputes of a day"] += 1


def _why_not(cached: MemoizedFunction) -> str:
    """Return why calls of a function are never repeated; "" if they are."""
    if writes_to(cached.__wrapped__):
        return "it writes files, and would write them again"
    if cached.options.check == 0:
        return "it has check=0"
    if cached.options.key is not None:
        return "its key= replaces its arguments, which are not stored: check= of the function can compare"
    return ""


def _sample_of(cache: AuditedCache, cached: MemoizedFunction, name: str, most: int) -> tuple[int, list[Entry]]:
    """Return how many results today's code has made, and a random sample of them."""
    options = cached.options
    today = make_key(args={}, function=cached.__wrapped__, version=options.version).fingerprint
    results, held = 0, list[Entry]()
    for entry in cache.iter_entries(function=name):
        try:
            _, made_by = call_of(entry.args)
        except CodecError:
            continue
        function = made_by["function"]
        fingerprint = function.digest if isinstance(function, Digest) else None
        if (fingerprint, made_by["version"], made_by["prefix"] or "") != (today, options.version, options.prefix):
            continue
        results += 1
        if len(held) < most:
            held.append(entry)
        elif (at := below(results)) < most:
            held[at] = entry
    return results, held
