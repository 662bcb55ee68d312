"""Evidence about a change of code from a caller that repeats calls itself, within a graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cacheness.errors import NotAccepted
from cacheness.keys import defaults_added, digest_of_argument, make_key, name_of_function, reached_by, why_not_by_place
from cacheness.memoize.accept import AcceptingCache, check_evidence, codes_of, not_watched, unwritten, why_never
from cacheness.memoize.acceptances import AcceptedChange, change_of
from cacheness.memoize.body import computes_all
from cacheness.memoize.function import MemoizedFunction
from cacheness.memoize.lines import LineWatch


class CollectedEvidence:
    """Comparisons of a function's calls today with results of one earlier code.

    Args:
        cache: the cache.
        cached: the function.
        old: the fingerprint of the earlier code.
        parameters: the digest of its former parameters.
    """

    def __init__(self, cache: AcceptingCache, cached: MemoizedFunction, old: bytes, parameters: str) -> None:
        self._cache, self._parameters, self._function = cache, parameters, cached.__wrapped__
        key, reached = make_key(args={}, function=self._function), reached_by(self._function)
        self.name = name_of_function(self._function)
        self.new, self.old = key.fingerprint or b"", old
        self.results = 0  #: of the earlier code
        self.equal = 0  #: calls that were equal
        self.skipped: Counter[str] = Counter()  #: how many could not be compared, by reason
        self.refused = self._why_never(cached)  #: why it is not accepted, if known already
        # The changed part of the code is unknown, so all of it must run.
        self.watch = LineWatch(codes_of(reached))
        self._not_watched = not_watched(key.code, reached)

    def _why_never(self, cached: MemoizedFunction) -> str:
        disputed = self._cache.disputed_functions()
        if self.name.partition(":")[2] in disputed:  # results of tasks have the name without the module
            disputed |= {self.name}
        return why_never(cached, disputed) or why_not_by_place(self._parameters, self._function)

    @contextmanager
    def making_a_call(self) -> Iterator[None]:
        """Record the lines that run in the block; cached functions inside it compute, too."""
        token = computes_all.set(True)
        self.watch.begin()
        try:
            yield
        finally:
            self.watch.end()
            computes_all.reset(token)

    def finish(self, sample: int, *, force: bool) -> AcceptedChange:
        """Accept the change if the evidence is enough, and return the outcome.

        Args:
            sample: how many calls were to be compared.
            force: accept it also if few could be compared, or lines never ran.
        """
        evidence: dict[str, Any] = {
            "function": self.name,
            "was": self.name,
            "changes": ["what changed in its code is not known"],
            "not_watched": self._not_watched,
            "results": self.results,
            "by_place": "",
            "equal": self.equal,
            "skipped": dict(self.skipped),
        }
        if why := self.refused or self._why_not_enough(sample, force=force):
            return change_of(unwritten(self.new, self.old, {**evidence, "state": "refused", "why": why}))
        added = defaults_added(self._parameters, self._function)
        parameters = {name: {"default": digest_of_argument(name, default).hex()} for name, default in added.items()}
        accepted = {**evidence, "state": "accepted", "forced": self.watch.missing}
        written = self._cache.acceptances.write(self.new, self.old, parameters, accepted, renews=True)
        if written is None:
            why = "a difference ended it: revoke it before it is accepted again"
            return change_of(unwritten(self.new, self.old, {**evidence, "state": "refused", "why": why}))
        return change_of(written)

    def _why_not_enough(self, sample: int, *, force: bool) -> str:
        try:
            if not (force and self.equal):
                check_evidence(self.equal, self.results, sample, self.skipped, self.watch)
        except NotAccepted as error:
            return str(error)
        return ""
