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
from cacheness.keys import Observed, Outcome
from cacheness.keys.moved_generators import moved_since, positions
from cacheness_dask import live
from cacheness_dask._task_spec import Calling
from cacheness_dask.cut_off import GivenValues
from cacheness_dask.decisions import ToStore
from cacheness_dask.earlier_code import ToCompare
from cacheness_dask.files import Files
from cacheness_dask.loading import log_unchecked
from cacheness_dask.mutations import Sample
from cacheness_dask.reasons import CHEAP, FILE, LEAVES, UNPICKLABLE
from cacheness_dask.reports import is_worker, note_failure, note_moved, note_unstored
from cacheness_dask.result_keys import entry_key, failure_key, result_key
from cacheness_dask.sizes import size_of
from cacheness_dask.sources_and_sinks import why_not
from cacheness_dask.worker import Store
from cacheness_dask.write_behind import CANNOT_BE_PICKLED, ComputeDetails

#: Files whose names an entry's provenance contains, for `explain`.
NAMED: Final = 8
#: Types of values that name no file, and are no handles.
_NUMBERS: Final = frozenset({bool, int, float, complex})
_NOTHING_WRITTEN: Final = Outcome()


@dataclass(slots=True)  # not frozen: creating it would take three times as long, and each task needs one
class _Around:
    """Observes a task while it runs: its files, and a sample of its arguments."""

    failed: Callable[[float], None]  #: called if the task raised, with its seconds
    observed: Observed
    sample: Sample | None  #: None: its arguments are not checked
    troubles: Mapping[str, str] | None = None  #: with its files, before it ran
    generators: Mapping[str, Any] | None = None  #: positions of the process-wide random number generators
    given: GivenValues | None = None  #: the results of other tasks among its arguments
    computing: telemetry.Operation = telemetry.NOBODY
    start: float = 0.0

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
        around = _Around(self._raised, Observed({}), _sample(self._store, self.func, args, kwargs))
        if self.files is not None:
            around.troubles = {"": "those that it names could not be looked at"}
            with isolated(self._store.warn):
                around.observed, around.troubles = self.files.observed()
        if not is_worker():
            around.generators = positions()
        inputs = self._task.inputs
        if inputs is not None and self.files is None:
            with isolated(self._store.warn):
                around.given = GivenValues(inputs, args, kwargs, wanted=self._wanted)
        around.computing = telemetry.operation(telemetry.COMPUTE, function=self._name)
        around.start = time.perf_counter()
        return around

    def _instead(self, around: _Around) -> tuple[Any] | None:
        """Return the earlier result of the same task with the same values, and store a link to it."""
        alias = around.given.alias if around.given is not None else None
        inputs = self._task.inputs
        if alias is None or inputs is None or not inputs.is_known:
            return None
        with isolated(self._store.warn):
            opened = self._store.opened()
            hit = opened.cache().lookup_alias(alias)
            if hit is not None:
                key = result_key(self._task.digest, self._name)
                about = self._provenance()
                if moved := json.loads(hit.entry.provenance).get("moved"):
                    about["moved"] = moved
                opened.queue.link(key, hit.entry, ComputeDetails(0.0, about, pool=self._store.pool))
                live.tell(computed=1)
                return (hit.value,)
        return None

    def _after(self, around: _Around, value: Any) -> None:
        seconds = time.perf_counter() - around.start
        live.tell(computed=1, compute_seconds=seconds)
        with isolated(self._store.warn):
            trouble = _trouble_with_files(around) or (around.sample.why_not() if around.sample is not None else "")
            if trouble := trouble or self._keep(value, seconds, around):
                self._note(trouble)

    def _raised(self, seconds: float) -> None:
        _note_raised(self._store, self._name, self._task.digest, seconds)

    def _keep(self, value: Any, seconds: float, around: _Around) -> str:
        """Store a result, or return why not."""
        policy = self._store.policy
        if not (self._wanted or policy.measures):
            return ""
        if self.files is None and type(value) in _NUMBERS:
            return self._put(value, seconds, _NOTHING_WRITTEN, around)
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
        key = result_key(digest, self._name)
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
            note_moved(self._store.run, self._name, moved)
        try:
            opened.queue.put(key, value, size, ComputeDetails(seconds, about, self._refuse, self._store.pool))
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
        note_unstored(self._store.run, digest, self._name, why)
        self._store.opened().queue.note(entry_key(digest), why)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Compute, (self.func, self._store, self._task, self._name, self._wanted), (None, {"files": self.files}))


class Checked(Calling):
    """A task that is not stored: runs its own function, and reports if that changes its arguments."""

    __slots__ = ()

    _store: Store

    def _before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Around:
        sample = _sample(self._store, self.func, args, kwargs)
        return _Around(self._raised, Observed({}), sample, start=time.perf_counter())

    def _after(self, around: _Around, value: Any) -> None:
        with isolated(self._store.warn):
            if why := "" if around.sample is None else around.sample.why_not():
                note_unstored(self._store.run, blake3(self._name.encode()).digest(), self._name, why)

    def _raised(self, seconds: float) -> None:
        _note_raised(self._store, self._name, None, seconds)

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


def _trouble_with_files(around: _Around) -> str:
    for at, why in (around.troubles or {}).items():
        if not around.observed.is_only_appended_to(at):
            return f"{FILE} {why}"
    return ""


def _sample(store: Store, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sample | None:
    if store.policy.check_inputs:
        with isolated(store.warn):
            return Sample(store.policy.check_inputs, func, args, kwargs)
    return None


def _note_raised(store: Store, name: str, digest: bytes | None, seconds: float) -> None:
    """Report that a task raised. A process of a pool writes it into the cache."""
    if not store.pool:
        note_failure(store.run, name, seconds)
    elif digest is not None:
        with isolated(store.warn):
            store.opened().cache().note_unstored({failure_key(store.pool, digest): str(seconds)})
