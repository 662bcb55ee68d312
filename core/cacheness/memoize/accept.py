"""Accept a change: stored calls run with today's code, and are compared with the stored results.

Reading code cannot distinguish a change that invalidates every key but no result (a rename, a log
line, a helper, a patch release) from one that changes results. So evidence decides, and its bound
is reported.
"""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any, Final, Protocol, TypeVar

from cacheness.audit import NotComparable, brief, differing, names_in
from cacheness.errors import CodecError, NotAccepted
from cacheness.jitter import below, chosen
from cacheness.keys import (
    Digest,
    FunctionCode,
    Reached,
    call_of,
    digest_of_argument,
    group_of,
    make_key,
    name_of_function,
    reached_by,
    why_not_by_place,
)
from cacheness.keys.code.writers import writes_to
from cacheness.lazy_dataclass import dataclass
from cacheness.memoize.acceptances import MOST_EARLIER, Acceptances, AcceptedChange, change_of
from cacheness.memoize.audits import came_out_as
from cacheness.memoize.body import Failed
from cacheness.memoize.call_arguments import CallArguments
from cacheness.memoize.compute import Computed
from cacheness.memoize.explain import changes_of_code
from cacheness.memoize.function import MemoizedFunction
from cacheness.memoize.lines import LineWatch
from cacheness.memoize.repeat import try_again
from cacheness.memoize.stored_calls import CHANGES, StoredCalls, awaited
from cacheness.records import Entry, Equivalence, Hit

T = TypeVar("T")

#: Calls that must be equal at least, if there are so many results: they mean 14 % at most.
LEAST: Final = 20
#: Sampled results per compared one, because some cannot be compared.
_SPARE: Final = 4
#: Results of a function that are read to find earlier code, when calls are compared as they miss.
NEWEST: Final = 200
#: Prefixes of names in code that run code unseen.
_ELSEWHERE: Final = frozenset(
    {"subprocess", "Popen", "run_command", "system", "fork", "multiprocessing", "ProcessPoolExecutor", "Process"}
)

Parameters = Mapping[str, Mapping[str, str]]


class AcceptingCache(Protocol):
    """The methods of a cache that accepting needs."""

    @property
    def acceptances(self) -> Acceptances:
        """Return which results of earlier code count."""
        ...

    def iter_entries(self, *, function: str | None = None, limit: int | None = None) -> Iterator[Entry]:
        """Return the entries of a function, newest first."""
        ...

    def functions(self) -> list[str]:
        """Return the functions that have entries."""
        ...

    def code_of(self, entries: Iterable[Entry]) -> dict[bytes, FunctionCode]:
        """Return the code that made entries."""
        ...

    def result_of(self, entry: Entry) -> Hit | None:
        """Return the result of an entry."""
        ...

    def value_with(self, digest: bytes) -> Hit | None:
        """Return a result whose value has this digest."""
        ...

    def disputed_functions(self) -> frozenset[str]:
        """Return the functions with disputed results."""
        ...


@dataclass
class EarlierResults:
    """Results of one fingerprint, and a random sample of them."""

    fingerprint: bytes
    name: str  #: the function's name at that time
    newest: Entry
    most: int
    results: int = 0
    sample: list[Entry] = field(default_factory=list)

    def add(self, entry: Entry) -> None:
        """Add a result, so that each has the same chance to be in the sample."""
        self.results += 1
        if len(self.sample) < self.most:
            self.sample.append(entry)
        elif (at := below(self.results)) < self.most:
            self.sample[at] = entry


@dataclass(frozen=True)
class Upgrade:
    """Which changes are considered: all, or only those of libraries and Python."""

    library: str = ""
    python: bool = False

    def __bool__(self) -> bool:
        return bool(self.library) or self.python


def why_never(cached: MemoizedFunction, disputed: frozenset[str]) -> str:
    """Return why no change of a function can be accepted; "" if it can."""
    function, options = cached.__wrapped__, cached.options
    name = name_of_function(function)
    qualname = name.partition(":")[2].rpartition("<locals>.")[2]
    if inspect.ismethod(function) or "." in qualname:
        return "it is a method, whose instance counts by its class's code: make it a function that gets values"
    if writes_to(function):
        return "it writes files, which a result of earlier code would not"
    if options.check == 0:
        return "it has check=0, so a difference would never be found"
    if name in disputed:
        return "it has results that came out differently from the same code: cacheness disputes lists them"
    return ""


class Acceptor:
    """Compares the results of a function's earlier code with those of today's code."""

    def __init__(self, cache: AcceptingCache, cached: MemoizedFunction) -> None:
        self._cache = cache
        self._cached = cached
        self._function = cached.__wrapped__
        self._name = name_of_function(self._function)
        self._today = make_key(args={}, function=self._function, version=cached.options.version)
        self._reached = reached_by(self._function)

    def accept(
        self, sample: int, *, former: str | None, renamed: Mapping[str, str], upgrade: Upgrade, force: bool
    ) -> list[AcceptedChange]:
        """Compare, and accept fingerprints with equal results. Raises NotAccepted if nothing can be compared."""
        why = why_never(self._cached, self._cache.disputed_functions())
        if not why and self._cached.options.key is not None:
            why = "its key= replaces its arguments, which are not stored: only accept= of the function can compare"
        if why:
            raise NotAccepted(f"no change of {self._dotted} is accepted: {why}")
        found = self.earlier(former, sample * _SPARE)
        if not found:
            if former:
                raise NotAccepted(
                    f"{former}, given as the former name of {self._dotted}, has no results that a call can be"
                    " compared with: cacheness list shows the functions that have results"
                )
            there = f"of {self._dotted}, or of the same code under another name,"
            in_graphs = self._name.partition(":")[2] in self._cache.functions()
            raise NotAccepted(
                f"no result {there} was made by earlier code. For a function that was renamed and changed, give its"
                " former name: former=, or --former"
                + (". Results of tasks are compared by cacheness_dask.accept(collection)" if in_graphs else "")
            )
        return [self._try(one, sample, renamed, upgrade, force=force) for one in found]

    def earlier(self, former: str | None, most: int, looked_at: int | None = None) -> list[EarlierResults]:
        """Return results of earlier code, by their fingerprints, newest first."""
        for names in ([former or self._name], [] if former else self._same_body()):
            found: dict[bytes, EarlierResults] = {}
            for name in names:
                for entry in self._cache.iter_entries(function=name, limit=looked_at):
                    fingerprint = self._fingerprint_of(entry)
                    if fingerprint is None:
                        continue
                    if fingerprint not in found and len(found) == MOST_EARLIER:
                        continue
                    found.setdefault(fingerprint, EarlierResults(fingerprint, entry.function, entry, most)).add(entry)
            if found:
                return list(found.values())
        return []

    def begin(self, one: EarlierResults, wanted: int) -> None:
        """Start to compare calls, one by one as they miss."""
        parameters = self.parameters_of(one.newest, {})
        watch = self.watch_of(one)
        evidence = {**self._about(one), "state": "trying", "equal": 0, "wanted": wanted, "unrun": watch.state()}
        written = self._cache.acceptances.write(self.fingerprint, one.fingerprint, parameters, evidence)
        if written is not None:
            self._cache.acceptances.watch(written, watch)

    def watch_for(self, one: Equivalence) -> None:
        """Record lines for calls that another process began to compare."""
        names = change_names(one)
        codes = {reached.name: [reached.code] for reached in self._reached if reached.code and reached.name in names}
        watch = LineWatch(codes)
        watch.merge(names)
        self._cache.acceptances.watch(one, watch)

    @property
    def fingerprint(self) -> bytes:
        """The description of today's code."""
        return self._today.fingerprint or b""

    @property
    def _dotted(self) -> str:
        return self._name.replace(":", ".")

    def _same_body(self) -> list[str]:
        """Functions of another name with the same code."""
        mine = self._today.code
        if mine is None or not mine.data.get("body"):
            return []
        names = []
        for name in self._cache.functions():
            newest = next(self._cache.iter_entries(function=name, limit=1), None) if name != self._name else None
            code = None if newest is None else self._cache.code_of([newest]).get(newest.fn or b"")
            if code is not None and code.data.get("body") == mine.data.get("body"):
                names.append(name)
        return names

    def _fingerprint_of(self, entry: Entry) -> bytes | None:
        """Return the fingerprint that made an entry, if it differs from today's and nothing speaks against it."""
        try:
            _, options = call_of(entry.args)
        except CodecError:
            return None
        made_by = options["function"]
        wanted = (self._cached.options.version, self._cached.options.prefix)
        if not isinstance(made_by, Digest) or (options["version"], options["prefix"] or "") != wanted or entry.outputs:
            return None
        return made_by.digest if made_by.digest != self.fingerprint else None

    # one fingerprint

    def _try(
        self, one: EarlierResults, sample: int, renamed: Mapping[str, str], upgrade: Upgrade, *, force: bool
    ) -> AcceptedChange:
        about = self._about(one)
        trial = _Trial(self._cache, self._cached, one)
        try:
            self._check_upgrade(one, upgrade)
            parameters = self.parameters_of(one.newest, renamed)
            watch = self.watch_of(one)
            trial.run(sample, parameters, watch)
            if not (force and trial.equal):
                check_evidence(trial.equal, trial.results, sample, trial.skipped, watch)
        except NotAccepted as error:
            about |= {"state": "refused", "why": str(error), "equal": trial.equal, "skipped": dict(trial.skipped)}
            return change_of(unwritten(self.fingerprint, one.fingerprint, about))
        evidence = {
            **about,
            "state": "accepted",
            "equal": trial.equal,
            "skipped": dict(trial.skipped),
            "forced": watch.missing,
        }
        written = self._cache.acceptances.write(self.fingerprint, one.fingerprint, parameters, evidence, renews=True)
        if written is None:
            about |= {"state": "refused", "why": "a difference ended it: revoke it before it is accepted again"}
            return change_of(unwritten(self.fingerprint, one.fingerprint, about))
        return change_of(written)

    def _about(self, one: EarlierResults) -> dict[str, Any]:
        changes = [str(change) for change in self._changes(one)]
        return {
            "function": self._name,
            "was": one.name,
            "changes": changes or ["what leads to what in the code changed"],
            "not_watched": not_watched(self._today.code, self._reached),
            "results": one.results,
            "by_place": self._why_not_by_place(one),
        }

    def _why_not_by_place(self, one: EarlierResults) -> str:
        """Return why tasks of graphs, which have positional arguments, compute anyway; "" if they do not."""
        code = self._cache.code_of([one.newest]).get(one.newest.fn or b"")
        return why_not_by_place("" if code is None else code.data.get("parameters", ""), self._function)

    def _changes(self, one: EarlierResults) -> Sequence[Any]:
        return list(changes_of_code(one.newest, self._cache.code_of([one.newest]), self._today))

    def _check_upgrade(self, one: EarlierResults, upgrade: Upgrade) -> None:
        if not upgrade:
            return
        # The compiled code of another Python version differs, too.
        kinds = {"code"} if upgrade.python else set()
        names = {upgrade.library, "python"} if upgrade.python else {upgrade.library}
        changes = self._changes(one)
        others = [c for c in changes if c.kind not in kinds and not (c.kind == "library" and c.name in names)]
        if others:
            raise NotAccepted(f"more than {' and '.join(filter(None, names))} changed: {'; '.join(map(str, others))}")
        if not any(c.kind == "library" for c in changes):
            raise NotAccepted(f"{' and '.join(filter(None, names))} did not change")

    def parameters_of(self, entry: Entry, renamed: Mapping[str, str]) -> dict[str, dict[str, str]]:
        """Return the parameters that had another name when a result was made, and new ones."""
        try:
            then = set(call_of(entry.args)[0])
        except CodecError as error:
            raise NotAccepted(f"the arguments of {entry.cache_key} cannot be read: {error}") from error
        binder = self._cached.binder
        now = binder.names - set(self._cached.options.ignore)
        if self._cached.options.key is not None:
            return {}
        if unknown := sorted((set(renamed) - now) | (set(renamed.values()) - then)):
            raise NotAccepted(f"renamed: there is no parameter {', '.join(unknown)}")
        new, gone = now - then - set(renamed), then - now - set(renamed.values())
        required = [name for name in new if binder.default_of(name) is inspect.Parameter.empty]
        pairs = dict(renamed)
        if len(gone) == 1 and len(required or new) == 1:
            pairs[(required or sorted(new))[0]] = gone.pop()
        new -= set(pairs)
        if gone or any(binder.default_of(name) is inspect.Parameter.empty for name in new):
            raise NotAccepted(
                f"its parameters were {', '.join(sorted(then))} and are {', '.join(sorted(now))}: map the names,"
                ' renamed={"new": "old"}. One that is gone cannot be left out, and a new one needs a default'
            )
        defaults = {name: digest_of_argument(name, binder.default_of(name)).hex() for name in new}
        return {
            **{name: {"was": was} for name, was in pairs.items()},
            **{name: {"default": digest} for name, digest in defaults.items()},
        }

    def watch_of(self, one: EarlierResults) -> LineWatch:
        """Return the lines of every changed function.

        Of all functions if a library changed, or the change is unknown.
        """
        return LineWatch(codes_of(self._changed(one)))

    def _changed(self, one: EarlierResults) -> list[Any]:
        code = self._cache.code_of([one.newest]).get(one.newest.fn or b"")
        today = self._today.code
        if code is None or today is None:
            return self._reached
        then, now = code.data, today.data
        if then.get("versions") != now.get("versions"):
            return self._reached

        def differs(kind: str, name: str) -> bool:
            before, after = then.get(kind, {}), now.get(kind, {})
            label = name if name in after or name in before else group_of(name)
            return bool(before.get(label) != after.get(label))

        owners = [r for r in self._reached if differs("code", r.name) or any(differs("values", v) for v in r.values)]
        names = tuple(f"{owner.name}." for owner in owners if owner.code is None)  # classes: all of their methods
        found = [r for r in self._reached if r in owners or (names and r.name.startswith(names))]
        return found or self._reached


class _Trial:
    """Calls of a sample, compared one by one."""

    def __init__(self, cache: AcceptingCache, cached: MemoizedFunction, one: EarlierResults) -> None:
        self._cached = cached
        self._one = one
        self._calls = StoredCalls(cache, cached)
        self.results = one.results
        self.equal = 0

    @property
    def skipped(self) -> Counter[str]:
        """Return how many could not be compared, by reason."""
        return self._calls.skipped

    def run(self, wanted: int, parameters: Parameters, watch: LineWatch) -> None:
        """Compare so many calls. Raises NotAccepted at the first that differs."""
        for entry in chosen(self._one.sample, len(self._one.sample)):
            if self.equal == wanted:
                return
            call = self._calls.call_of(entry, self._one.fingerprint, parameters)
            stored = self._calls.result_of(entry) if call is not None else None
            if call is not None and stored is not None:
                self._compare(call, stored, watch)

    def _compare(self, call: CallArguments, stored: Hit, watch: LineWatch) -> None:
        done: Computed = awaited(lambda: try_again(self._cached, call, watch), self._cached)
        if isinstance(done.value, Failed):
            error = done.value.error
            raise NotAccepted(
                f"the code of today fails ({type(error).__name__}: {error}) where {brief(stored.value)} is stored:"
                f" {stored.entry.cache_key}"
            )
        try:
            same = came_out_as(self._cached, done, stored.value)
        except NotComparable as error:
            raise NotAccepted(f"its results cannot be compared: {error}") from error
        if same is None:
            self.skipped[CHANGES] += 1
        elif not same:
            raise NotAccepted(differing(stored, done.value))
        else:
            self.equal += 1


def change_names(one: Equivalence) -> dict[str, list[str]]:
    """Return the functions with missing lines, and where."""
    found: dict[str, list[str]] = json.loads(one.evidence).get("unrun", {})
    return found


def not_watched(code: FunctionCode | None, reached: Iterable[Reached]) -> list[str]:
    """Return what calls of a function may run unseen, as texts.

    Args:
        code: the function's code.
        reached: the functions that it reaches.
    """
    parts = {} if code is None else code.data
    libraries = [f"{name} {version}" for name, version in parts.get("versions", {}).items() if name != "python"]
    words = {word for one in reached if one.code for word in names_in(one.code)}
    found = [f"code of libraries: {', '.join(libraries)}"] if libraries else []
    if elsewhere := sorted(words & _ELSEWHERE):
        found.append(f"other processes (`{'`, `'.join(elsewhere)}` in its code)")
    return [*found, *parts.get("unfollowed", ())]


def codes_of(reached: Iterable[Reached]) -> dict[str, list[Any]]:
    """Return the code of reached functions, by their names."""
    codes: dict[str, list[Any]] = {}
    for one in reached:
        if one.code is not None:
            codes.setdefault(one.name, []).append(one.code)
    return codes


def check_evidence(equal: int, results: int, sample: int, skipped: Counter[str], watch: LineWatch) -> None:
    """Raise NotAccepted if too few calls were equal, or lines of changed code never ran.

    Args:
        equal: how many calls were equal.
        results: how many results there are.
        sample: how many calls were to be compared.
        skipped: how many could not be compared, by reason.
        watch: recorded the lines that ran.
    """
    least = min(LEAST, sample, results)
    if equal < max(least, 1):
        reasons = "".join(f"; {count:,} {why}" for why, count in skipped.most_common())
        raise NotAccepted(f"{equal:,} of its {results:,} results could be compared, and {least:,} are needed{reasons}")
    if watch.missing:
        lines = "; ".join(f"{name}: {', '.join(map(str, some))}" for name, some in watch.missing.items())
        raise NotAccepted(f"lines that no compared call ran (force=True accepts it in spite of that): {lines}")


def unwritten(new: bytes, old: bytes, evidence: Mapping[str, Any]) -> Equivalence:
    """Return a rejected equivalence with the reason."""
    return Equivalence("", new, old, "", "{}", json.dumps(evidence), 0, 0, "", "", b"")
