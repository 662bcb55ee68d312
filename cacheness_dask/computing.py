"""Code that runs around a task: observe it, time it, and store its result or say why not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Final

from blake3 import blake3

from cacheness import telemetry
from cacheness.audit import differing, is_same
from cacheness.errors import CodecError
from cacheness.isolation import isolated
from cacheness.keys import Digest, Observed, Outcome, make_key
from cacheness.keys.moved_generators import moved_since, positions
from cacheness_dask import live
from cacheness_dask._task_spec import Calling
from cacheness_dask.cut_off import GivenValues
from cacheness_dask.decisions import ToStore
from cacheness_dask.earlier_code import ToCompare
from cacheness_dask.files import Files
from cacheness_dask.loading import log_unchecked
from cacheness_dask.mutations import Sample
from cacheness_dask.pools import failure_key
from cacheness_dask.prints import entry_key
from cacheness_dask.reasons import CHEAP, FILE, LEAVES, UNPICKLABLE
from cacheness_dask.reports import is_worker, note_failure, note_moved, note_trouble, note_unstored
from cacheness_dask.sizes import size_of
from cacheness_dask.sources_and_sinks import why_not
from cacheness_dask.worker import Store
from cacheness_dask.write_behind import CANNOT_BE_PICKLED, ComputeDetails

#: Files whose names an entry's provenance contains, for `explain`.
NAMED: Final = 8


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
            with isolated(partial(note_trouble, self._store.config)):
                observed, troubles = self.files.observed()
        sample = _sample(self._store, self.func, args, kwargs)
        generators = {} if is_worker() else positions()
        given = None
        inputs = self._task.inputs
        if inputs is not None and self.files is None:
            with isolated(partial(note_trouble, self._store.config)):
                given = GivenValues(inputs, args, kwargs, wanted=self._wanted)
        computing = telemetry.operation(telemetry.COMPUTE, function=self._name)
        failed = partial(_raised, self._store, self._name, self._task.digest)
        return _Around(observed, troubles, sample, generators, time.perf_counter(), failed, given, computing)

    def _instead(self, around: _Around) -> tuple[Any] | None:
        """Return the earlier result of the same task with the same values, and store a link to it."""
        alias = around.given.alias if around.given is not None else None
        inputs = self._task.inputs
        if alias is None or inputs is None or not inputs.is_known:
            return None
        with isolated(partial(note_trouble, self._store.config)):
            opened = self._store.opened()
            hit = opened.cache().lookup_alias(alias)
            if hit is not None:
                key = make_key(args={}, function=Digest(self._task.digest, self._name))
                about = self._provenance()
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
        with isolated(partial(note_trouble, self._store.config)):
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
        digest = self._task.digest
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
        about = self._provenance()
        if self.files is not None:
            about["files"] = [counted.name for _, counted in self.files.found[:NAMED]]
        if moved:
            about["moved"] = list(moved)
            note_moved(self._store.config, self._name, moved)
        try:
            opened.queue.put(key, value, size, ComputeDetails(seconds, about, self._refuse))
        except CANNOT_BE_PICKLED as error:
            return f"{UNPICKLABLE} {error}"
        return ""

    def _provenance(self) -> dict[str, Any]:
        clue, code = self._task.clue.hex(), self._task.code
        return {**self._store.provenance, "clue": clue, **({"code": code} if code else {})}

    def _refuse(self, error: CodecError) -> None:
        self._note(f"{UNPICKLABLE} {error}")

    def _note(self, why: str) -> None:
        """Record why the result is not stored, here and with its key."""
        digest = self._task.digest
        note_unstored(self._store.config, digest, self._name, why)
        self._store.opened().queue.note(entry_key(digest), why)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Compute, (self.func, self._store, self._task, self._name, self._wanted), (None, {"files": self.files}))


class Checked(Calling):
    """A task that is not stored: runs its own function, and reports if that changes its arguments."""

    __slots__ = ()

    _store: Store

    def _before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Around:
        sample = _sample(self._store, self.func, args, kwargs)
        failed = partial(_raised, self._store, self._name, None)
        return _Around(Observed({}), {}, sample, {}, time.perf_counter(), failed)

    def _after(self, around: _Around, value: Any) -> None:
        with isolated(partial(note_trouble, self._store.config)):
            if why := around.sample.why_not():
                note_unstored(self._store.config, blake3(self._name.encode()).digest(), self._name, why)

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
        with isolated(partial(log_unchecked, self._name)):
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
    with isolated(partial(note_trouble, store.config)):
        return Sample(store.policy.check_inputs, func, args, kwargs)
    return Sample(0.0, func, args, kwargs)


def _raised(store: Store, name: str, digest: bytes | None, seconds: float) -> None:
    """Report that a task raised. A process of a pool writes it into the cache."""
    if not store.pool:
        note_failure(store.config, name, seconds)
    elif digest is not None:
        with isolated(partial(note_trouble, store.config)):
            store.opened().cache().note_unstored({failure_key(store.pool, digest): str(seconds)})
