"""Code that runs with the tasks: load a stored result, or compute one, time it and store it."""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Final, TypeAlias

from blake3 import blake3
from dask._task_spec import GraphNode

from cacheness import Config, Hit, Key, UnifiedCache, telemetry
from cacheness.audit import compared, differing, digest_or_none, is_same, reads_of
from cacheness.errors import CachenessError, CodecError
from cacheness.isolation import isolated
from cacheness.keys import Digest, Observed, Outcome, make_key
from cacheness.keys.moved_generators import moved_since, positions
from cacheness.logs import logger_of
from cacheness_dask import live
from cacheness_dask._task_spec import Calling, Consuming, EntryVanished, Fallback, Found, Loading
from cacheness_dask.cut_off import GivenValues, TaskInputs
from cacheness_dask.earlier_code import ToCompare
from cacheness_dask.files import Files
from cacheness_dask.fingerprint import entry_key
from cacheness_dask.mutations import Sample, change_told
from cacheness_dask.policy import Meter, Policy
from cacheness_dask.reasons import CHEAP, FILE, IN_PLACE, LEAVES, UNPICKLABLE, UNREADABLE
from cacheness_dask.sizes import size_of
from cacheness_dask.sources_and_sinks import why_not
from cacheness_dask.write_behind import CANNOT_BE_PICKLED, ComputeDetails, Late, WriteBehind

logger = logger_of("cacheness.dask")

_lock = threading.RLock()
_open: dict[Config, WorkerCache] = {}
#: How many runs of this process use a cache.
_holders: Counter[Config] = Counter()
#: The first error of a cache in this process since the last report.
_troubles: dict[Config, str] = {}
#: Results that were not stored since the last report: by fingerprint, the function and the reason.
_unstored: dict[Config, dict[bytes, tuple[str, str]]] = {}
#: How many results were stored while a process-wide generator moved, since the last report: by function and generator.
_moved: dict[Config, Counter[tuple[str, str]]] = {}
#: How many tasks raised, and their seconds, since the last report, by function.
_failed: dict[Config, dict[str, tuple[int, float]]] = {}
#: Results that are remembered until the next report.
_MOST_UNSTORED: Final = 10_000
_UNREADABLE: Final = "are computed again, because they cannot be read"
#: Files whose names an entry's provenance contains, for `explain`.
NAMED: Final = 8


def _begin_in_child() -> None:
    """In a forked child, open separate caches: the parent's queues store what waits in them."""
    _lock._at_fork_reinit()  # type: ignore[attr-defined]  # noqa: SLF001 - as the standard library does
    _open.clear()
    _holders.clear()
    _troubles.clear()
    _unstored.clear()
    _moved.clear()
    _failed.clear()


os.register_at_fork(after_in_child=_begin_in_child)


@dataclass(frozen=True)
class Store:
    """What every task of a run needs to know about the cache: small, and the same for all of them."""

    config: Config = field(repr=False)  # its URLs may contain passwords
    policy: Policy
    provenance: dict[str, Any] = field(default_factory=dict)
    pool: bytes = b""  #: the graph, if its tasks run in a pool of processes: they report through the cache

    def opened(self) -> WorkerCache:
        """Return this process's handle on the cache."""
        found = _open.get(self.config)
        return found if found is not None else _opened(self)


class WorkerCache:
    """One cache in one process, with its queue of results to be stored and its measured speed."""

    def __init__(self, store: Store) -> None:
        self.cache = Late(partial(UnifiedCache, store.config))
        self.meter = Meter(store.policy.latency)
        self.queue = WriteBehind(self.cache, self.meter, store.policy.queue_bytes, partial(_warn, store.config))


def _opened(store: Store) -> WorkerCache:
    with _lock:
        found = _open.get(store.config)
        if found is None:
            found = _open[store.config] = WorkerCache(store)
        return found


def _warn(config: Config, error: BaseException, what: str = "are not stored") -> None:
    """Record an error for `flush` to report: a client logs it once, however many tasks and workers had it."""
    trouble = f"Some results {what}: {error}"
    logger.log(logging.DEBUG if config in _troubles or _is_asked() else logging.WARNING, "%s", trouble)
    _troubles.setdefault(config, trouble)


def _is_asked() -> bool:
    """Return True when `flush` is called here: on workers and in the user's process, not in a pool's."""
    return multiprocessing.parent_process() is None or is_worker()


def is_worker() -> bool:
    """Return True when this process has a worker of Distributed, which itself draws numbers."""
    distributed = sys.modules.get("distributed.worker")
    return bool(distributed and distributed.Worker._instances)  # noqa: SLF001


def flush(config: Config) -> str:
    """Wait until everything that this process has to store is stored. Return the first error, if any."""
    found = _open.get(config)
    if found is not None:
        found.queue.flush()
    return _troubles.pop(config, "")


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """Results of one process since the last report."""

    trouble: str  #: the first error, if any
    unstored: dict[bytes, tuple[str, str]]  #: by fingerprint: the function, and why its result is not stored
    moved: Counter[tuple[str, str]]  #: results that may be random, by function and generator
    failed: dict[str, tuple[int, float]]  #: tasks that raised and their seconds, by function


def report(config: Config) -> WorkerReport:
    """Return the result of `flush`, and the results since the last report."""
    trouble = flush(config)
    live.send()
    return WorkerReport(trouble, _unstored.pop(config, {}), _moved.pop(config, Counter()), failed(config))


def failed(config: Config) -> dict[str, tuple[int, float]]:
    """Return tasks of this process that raised since the last report, and their seconds, by function."""
    return _failed.pop(config, {})


async def report_soon(config: Config) -> WorkerReport:
    """Do the same for the event loop of a worker, which must not be blocked."""
    return await asyncio.to_thread(report, config)


def hold(config: Config) -> None:
    """Keep this process's handle open until `release`, also when others release it."""
    with _lock:
        _holders[config] += 1


def release(config: Config) -> None:
    """Store what is waiting, and close this process's handle if there are no other users."""
    with _lock:
        _holders[config] -= 1
        if _holders[config] > 0:
            return
        del _holders[config]
        found = _open.pop(config, None)
    if found is not None:
        found.queue.close()


class Load(Loading):
    """A hit: reads the value where it is needed. Contains how to recompute it, if that is small."""

    __slots__ = ("_fallback", "_key", "_name", "_store")

    def __init__(self, store: Store, key: str, name: str, fallback: Fallback | None) -> None:
        self._store, self._key, self._name, self._fallback = store, key, name, fallback

    @property
    def __name__(self) -> str:
        return self._name

    @property
    def entry(self) -> str:
        """The key of the entry."""
        return self._key

    def found(self) -> Found:
        """Return the value that was read, or how to compute it."""
        hit = self._lookup()
        return self.recomputed() if hit is None else (hit.value,)

    def recomputed(self) -> Fallback:
        """Return how to compute it, if it cannot be read."""
        if self._fallback is None:
            raise EntryVanished(
                f"the entry {self._key} of {self._name} was deleted after it had been looked up, and too much"
                " would have to be computed again in one task. Run the computation once more"
            )
        return self._fallback

    def _lookup(self) -> Hit | None:
        start = time.perf_counter()
        try:
            opened = self._store.opened()
            hit = opened.cache().lookup(Key(bytes.fromhex(self._key), self._name))
        except CachenessError as error:
            _warn(self._store.config, error, _UNREADABLE)
            return None
        if hit is not None:
            seconds = time.perf_counter() - start
            opened.meter.saw(hit.entry.size, seconds)
            live.tell(loaded=1, loaded_bytes=hit.entry.size, load_seconds=seconds)
        return hit

    def __reduce__(self) -> tuple[Any, ...]:
        return (Load, (self._store, self._key, self._name, self._fallback))


class CheckedLoad(Load):
    """A hit that is computed again besides being read: a result that differs is disputed, and returned."""

    __slots__ = ("_again",)

    def __init__(self, store: Store, key: str, name: str, fallback: Fallback | None, again: Fallback) -> None:
        super().__init__(store, key, name, fallback)
        self._again = again

    def found(self) -> Found:
        """Return the value that was read or that differed, or how to compute it."""
        hit = self._lookup()
        if hit is None:
            return self.recomputed()
        with isolated(partial(_log_unchecked, self._name)):
            value = self._again.compute()
            if self._is_disputed(hit, value):
                return (value,)
        return (hit.value,)

    def _is_disputed(self, hit: Hit, value: Any) -> bool:
        cache = self._store.opened().cache()
        if is_same(hit.value, value, None, cache.round_trip):
            return False
        detail = compared(hit.value, value, list(reads_of(getattr(self._again.tasks[self._again.key], "func", None))))
        if not cache.dispute(hit.entry, digest_or_none(hit.value), digest_or_none(value), detail):
            return False
        logger.warning("%s came out differently: %s. cacheness disputes decides about it", self._name, detail)
        return True

    def __reduce__(self) -> tuple[Any, ...]:
        return (CheckedLoad, (self._store, self._key, self._name, self._fallback, self._again))


class EarlierLoad(Load):
    """A hit of earlier code. If it cannot be read, the computed replacement does not match the keys after it."""

    __slots__ = ("_digest",)

    def __init__(self, store: Store, key: str, name: str, fallback: Fallback | None, digest: bytes) -> None:
        super().__init__(store, key, name, fallback)
        self._digest = digest

    def recomputed(self) -> Fallback:
        """Return how to compute it with today's code; later tasks are not stored."""
        why = f"{UNREADABLE} a result of earlier code, the entry {self._key}"
        _note(self._store.config, self._digest, self._name, why)
        with isolated(partial(_warn, self._store.config)):
            self._store.opened().queue.note(self._key, why)  # a process of a pool reports nowhere else
        return super().recomputed()

    def __reduce__(self) -> tuple[Any, ...]:
        return (EarlierLoad, (self._store, self._key, self._name, self._fallback, self._digest))


class Consume(Consuming):
    """A task that reads its small input hits: one statement, instead of a task for each."""

    __slots__ = ("_loads", "_store")

    def __init__(self, node: GraphNode, given: tuple[Any, ...], store: Store, loads: dict[Any, Load]) -> None:
        super().__init__(node, given)
        self._store, self._loads = store, loads

    def _read(self) -> dict[Any, Found]:
        hits = self._lookup()
        known = set(hits)
        read: dict[Any, Found] = {}
        for key, load in self._loads.items():
            hit = hits.pop(load.entry, None)
            if hit is not None:
                read[key] = (hit.value,)
            # Two tasks with one result get two values: later tasks may change one of them in place.
            else:
                read[key] = load.found() if load.entry in known else load.recomputed()
        return read

    def _lookup(self) -> dict[str, Hit]:
        start = time.perf_counter()
        try:
            named = {load.entry: load.__name__ for load in self._loads.values()}
            hits = self._store.opened().cache().get_many([Key(bytes.fromhex(key), name) for key, name in named.items()])
        except CachenessError as error:
            _warn(self._store.config, error, _UNREADABLE)
            return {}
        size = sum(hit.entry.size for hit in hits.values())
        live.tell(loaded=len(hits), loaded_bytes=size, load_seconds=time.perf_counter() - start)
        return hits

    def __reduce__(self) -> tuple[Any, ...]:
        return (Consume, (self._node, self._given, self._store, self._loads))


def _log_unchecked(name: str, error: Exception) -> None:
    logger.info("a result of %s cannot be checked: %s: %s", name, type(error).__name__, error)


#: What a task needs whose result may be stored: its fingerprint; the checksums, which are stored
#: for `explain`; its own content and inputs, if an alias can be made of them; and the user code
#: that it calls.
ToStore: TypeAlias = tuple[bytes, bytes, TaskInputs | None, str]


@dataclass(frozen=True, slots=True)
class _Around:
    """Observes a task while it runs: its files, and a sample of its arguments."""

    observed: Observed
    troubles: dict[str, str]  #: with its files, before it ran
    sample: Sample
    generators: Mapping[str, Any]  #: positions of the process-wide random number generators
    start: float
    failed: Callable[[float], None]  #: called if the task raised, with its seconds
    given: GivenValues | None = None  #: the results of other tasks among its arguments
    computing: telemetry.Operation = telemetry.NOBODY

    def __enter__(self) -> None:
        self.computing.__enter__()
        self.observed.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.observed.__exit__(kind, error, traceback)
        if kind is not None:
            self.failed(time.perf_counter() - self.start)
        self.computing.__exit__(kind, error, traceback)


class Compute(Calling):
    """A miss: runs the task's own function, and stores the result if worthwhile."""

    __slots__ = ("_task", "_wanted", "files")

    _store: Store

    def __init__(self, func: Callable[..., Any], store: Store, task: ToStore, name: str, wanted: bool) -> None:
        super().__init__(func, store, name)
        self.files: Files | None = None  #: that the task names
        self._task = task
        self._wanted = wanted  #: store it whatever its cost

    def _before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Around:
        observed, troubles = Observed({}), dict[str, str]()
        if self.files is not None:
            troubles = {"": "those that it names could not be looked at"}
            with isolated(partial(_warn, self._store.config)):
                observed, troubles = self.files.observed()
        sample = _sample(self._store, self.func, args, kwargs)
        generators = {} if is_worker() else positions()
        given = None
        inputs = self._task[2]
        if inputs is not None and self.files is None:
            with isolated(partial(_warn, self._store.config)):
                given = GivenValues(inputs, args, kwargs, wanted=self._wanted)
        computing = telemetry.operation(telemetry.COMPUTE, function=self._name)
        failed = partial(_note_failure, self._store, self._name, self._task[0])
        return _Around(observed, troubles, sample, generators, time.perf_counter(), failed, given, computing)

    def _instead(self, around: _Around) -> tuple[Any] | None:
        """Return the earlier result of the same task with the same values, and store a link to it."""
        alias = around.given.alias if around.given is not None else None
        inputs = self._task[2]
        if alias is None or inputs is None or not inputs.is_known:
            return None
        with isolated(partial(_warn, self._store.config)):
            opened = self._store.opened()
            hit = opened.cache().lookup_alias(alias)
            if hit is not None:
                digest, clue, _, code = self._task
                key = make_key(args={}, function=Digest(digest, self._name))
                about = {**self._store.provenance, "clue": clue.hex(), **({"code": code} if code else {})}
                if moved := json.loads(hit.entry.provenance).get("moved"):
                    about["moved"] = moved
                opened.queue.link(key, hit.entry, about)
                live.tell(computed=1)
                return (hit.value,)
        return None

    def _after(self, around: _Around, value: Any) -> None:
        seconds = time.perf_counter() - around.start
        live.tell(computed=1, compute_seconds=seconds)
        observed, troubles = around.observed, around.troubles
        with isolated(partial(_warn, self._store.config)):
            trouble = next(
                (f"{FILE} {why}" for at, why in troubles.items() if not observed.is_only_appended_to(at)), ""
            )
            if trouble := trouble or around.sample.why_not() or self._keep(value, seconds, around):
                self._note(trouble)

    def _keep(self, value: Any, seconds: float, around: _Around) -> str:
        """Store a result, or return why not."""
        policy = self._store.policy
        if not (self._wanted or policy.measures):
            return ""
        outcome = around.observed.outcome(value)
        if self.files is not None and self.files.writes and outcome.left:
            return f"{LEAVES} {outcome.left[0]}, which is neither an argument nor in its result"
        if self.files is not None and self.files.unseen and not outcome.is_written:
            return f"{LEAVES} a file by `{self.files.unseen}`, which is neither an argument nor in its result"
        if outcome.not_stored:
            return f"{FILE} {outcome.not_stored}"
        return why_not(value) or self._put(value, seconds, outcome, around)

    def _put(self, value: Any, seconds: float, outcome: Outcome, around: _Around) -> str:
        policy, opened = self._store.policy, self._store.opened()
        if not (self._wanted or seconds > opened.meter.load_seconds(0)):
            return CHEAP  # whatever its size
        moved = moved_since(around.generators) if around.generators else ()
        size = size_of(value)
        if trouble := policy.too_large(size):
            return trouble
        if not (self._wanted or seconds > opened.meter.load_seconds(size)):
            return CHEAP
        digest, clue, _, code = self._task
        if self.files is not None and outcome.as_text - {""}:
            text = self.files.text_of(outcome.as_text)
            if text is None:
                return f"{FILE} it changed files that it names"
            digest = text
        key = make_key(args={}, function=Digest(digest, self._name))
        key.outputs = outcome.outputs
        given = around.given
        if given is not None and not outcome.outputs and given.alias is not None and given.is_unchanged():
            # For a task that changes its arguments, the value is not its only effect.
            key.alias, key.own = given.alias, given.own
        about = {**self._store.provenance, "clue": clue.hex(), **({"code": code} if code else {})}
        if self.files is not None:
            about["files"] = [counted.name for _, counted in self.files.found[:NAMED]]
        if moved:
            about["moved"] = list(moved)
            _moved.setdefault(self._store.config, Counter()).update((self._name, generator) for generator in moved)
        try:
            opened.queue.put(key, value, size, ComputeDetails(seconds, about, self._refuse))
        except CANNOT_BE_PICKLED as error:
            return f"{UNPICKLABLE} {error}"
        return ""

    def _refuse(self, error: CodecError) -> None:
        self._note(f"{UNPICKLABLE} {error}")

    def _note(self, why: str) -> None:
        """Record why the result is not stored, here and with its key."""
        digest = self._task[0]
        _note(self._store.config, digest, self._name, why)
        self._store.opened().queue.note(entry_key(digest), why)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Compute, (self.func, self._store, self._task, self._name, self._wanted), (None, {"files": self.files}))


class Checked(Calling):
    """A task that is not stored: runs its own function, and reports if that changes its arguments."""

    __slots__ = ()

    _store: Store

    def _before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Around:
        sample = _sample(self._store, self.func, args, kwargs)
        failed = partial(_note_failure, self._store, self._name, None)
        return _Around(Observed({}), {}, sample, {}, time.perf_counter(), failed)

    def _after(self, around: _Around, value: Any) -> None:
        with isolated(partial(_warn, self._store.config)):
            if why := around.sample.why_not():
                _note(self._store.config, blake3(self._name.encode()).digest(), self._name, why)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Checked, (self.func, self._store, self._name))


class Compared(Calling):
    """A task that computes in spite of a result of earlier code: a difference ends the accepted changes."""

    __slots__ = ("_with",)

    _store: Store

    def __init__(self, func: Callable[..., Any], store: Store, name: str, what: ToCompare) -> None:
        super().__init__(func, store, name)
        self._with = what

    def _before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AbstractContextManager[Any]:
        return nullcontext()

    def _after(self, around: object, value: Any) -> None:
        with isolated(partial(_log_unchecked, self._name)):
            cache = self._store.opened().cache()
            hit = cache.lookup(self._with.entry)
            if hit is not None and not is_same(hit.value, value, None, cache.round_trip):
                detail = differing(hit, value)
                for one in cache.acceptances.every():
                    if (one.new, one.old) in self._with.changes and one.until > 0:
                        cache.acceptances.end(one, detail)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Compared, (self.func, self._store, self._name, self._with))


def _sample(store: Store, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sample:
    with isolated(partial(_warn, store.config)):
        return Sample(store.policy.check_inputs, func, args, kwargs)
    return Sample(0.0, func, args, kwargs)


def failure_key(pool: bytes, digest: bytes) -> str:
    """Return the key under which a process of a pool writes the seconds of a task that raised.

    Args:
        pool: identifies the graph: another one may have the same task.
        digest: the task's fingerprint.
    """
    return entry_key(blake3(pool + digest).digest())


def _note_failure(store: Store, name: str, digest: bytes | None, seconds: float) -> None:
    """Remember until the next report that a task raised. A process of a pool writes it into the cache."""
    if store.pool:
        if digest is not None:
            with isolated(partial(_warn, store.config)):
                store.opened().cache().note_unstored({failure_key(store.pool, digest): str(seconds)})
        return
    with _lock:
        known = _failed.setdefault(store.config, {})
        calls, spent = known.get(name, (0, 0.0))
        known[name] = calls + 1, spent + seconds


def _note(config: Config, digest: bytes, name: str, why: str) -> None:
    """Remember until the next report why a result was not stored."""
    live.tell(reasons={f"{name}: {why}": 1})
    known = _unstored.setdefault(config, {})
    if why.startswith(IN_PLACE) and not _is_asked() and (name, why) not in known.values():
        logger.warning("%s", change_told(name, why))
    if len(known) < _MOST_UNSTORED:
        known[digest] = (name, why)
