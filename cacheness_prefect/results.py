"""Store a Prefect result as one entry of the cache.

Prefect stores a result in two steps, the payload and then a record that names it, and reads the
record twice and then the payload. Here both are one entry: the value, encoded by the cache's
codecs, with the record in its signed provenance.

A task with a `CachenessPolicy` gets a result store that makes its records (`KeptRecord`) when the
task returns: only then are the unchanged value, the key, its expiration and the run all known. A
record may be written later, in another task's context, when the value may have changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from prefect.client.schemas.objects import TaskRun
from prefect.context import TaskRunContext
from prefect.exceptions import SerializationError
from prefect.results import ResultRecord, ResultStore  # type: ignore[attr-defined]
from prefect.transactions import CommitMode, TransactionState, get_transaction
from prefect.types import DateTime
from pydantic import PrivateAttr

from cacheness import Key, NotCached, bodies
from cacheness.keys import Observed
from cacheness.off_loop import off_loop
from cacheness.references import has_reference
from cacheness_prefect.audit import BodyCall, RunAudit
from cacheness_prefect.block import CachenessBlock
from cacheness_prefect.earlier_code import Comparison
from cacheness_prefect.error_reporting import report_not_stored, shielded
from cacheness_prefect.key_storage import CachenessKeys
from cacheness_prefect.reasons import DISPUTED
from cacheness_prefect.run_figures import RunFigures
from cacheness_prefect.run_metadata import (
    Notes,
    Recent,
    UnencodedValue,
    address,
    asking,
    describe_run,
    recent,
    task_run_id,
)
from cacheness_prefect.serializers import CachenessSerializer

#: Immutable types of values.
_UNCHANGING: Final = (type(None), bool, int, float, complex, str, bytes)


class KeptRecord(ResultRecord[Any]):
    """A record that passes its value to the cache unencoded, with the metadata about it."""

    _notes: Notes = PrivateAttr()
    _task_run: TaskRun | None = PrivateAttr(default=None)
    _snapshot: bytes | None = PrivateAttr(default=None)

    def note(self, notes: Notes, *, written_later: bool) -> None:
        """Set the metadata; encode the value now if it may change before it is written."""
        self._notes = notes
        context = TaskRunContext.get()
        self._task_run = None if context is None else context.task_run
        if written_later and not isinstance(self.result, _UNCHANGING):
            try:
                self._snapshot = super().serialize_result()
            except SerializationError:
                return  # the commit raises the same error, where Prefect expects it

    def serialize_result(self) -> Any:
        """The argument of `CachenessStorage.write_path`: an `UnencodedValue` value, not bytes."""
        content, self._snapshot = self._snapshot, None
        form = "bytes"
        if content is None and isinstance(self.serializer, CachenessSerializer):
            content, form = self.result, "value"
        elif content is None:
            content = super().serialize_result()
        record = self.serialize_metadata().decode()
        refused = self._is_of_failure() or self._notes.refused
        return UnencodedValue(content, replace(self._notes, form=form, record=record, refused=refused))

    def _is_of_failure(self) -> bool:
        # Prefect would cache what a task returned inside a Failed state, and the next run would be Cached.
        task_run, self._task_run = self._task_run, None
        state = None if task_run is None else task_run.state
        return state is not None and state.is_failed()


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """The task run for which a result store works."""

    key: Key
    paths: frozenset[str]  #: its id in Prefect
    observed: Observed  #: the files of the run
    tags: tuple[str, ...] = ()  #: of the policy
    audit: RunAudit | None = None  #: how the run is checked, if it is cached
    #: the comparison with a result of earlier code, if the run computes in spite of it
    earlier: Comparison | None = None
    task_run: str = field(default_factory=task_run_id)
    started: float = field(default_factory=time.monotonic)
    seen: RunFigures = field(default_factory=RunFigures)
    body: bodies.Token = field(default_factory=bodies.Token)

    @classmethod
    def of(
        cls,
        fn: Callable[..., Any],
        key: Key,
        found: Key,
        *,
        tags: tuple[str, ...],
        audit: RunAudit | None = None,
        earlier: Comparison | None = None,
        leaves_out: bool = False,
    ) -> Making:
        """The task run that begins now; Prefect computes its key last."""
        observed = Observed(key.inputs, fn)
        observed.begin(alone=True)
        if earlier is not None:
            earlier.begin()
        paths = frozenset({key.hex, found.hex})
        made = cls(key=key, paths=paths, observed=observed, tags=tags, audit=audit, earlier=earlier)
        bodies.begin(made.body, fn, key, leaves_out=leaves_out)
        return made

    def end(self) -> None:
        """Stop observing: the body has returned, or there is none."""
        self.observed.end()
        bodies.end(self.body)
        if self.earlier is not None:
            self.earlier.end()

    def notes(self, value: Any, path: str, expiration: datetime | None, *, without_key: float | None) -> Notes:
        """Return the metadata of the result that the task has just returned, or the error that ended it."""
        stored, refused = shielded(
            "look at its files again", lambda: self._place(value, path), (address(path), "its files are not known")
        )
        if refused:
            report_not_stored(refused)
        elif self.earlier is not None and path in self.paths:  # otherwise it is the error of a failed run
            self.earlier.compare(value)
        run, tags = describe_run()
        ttl = None if expiration is None else max((expiration - datetime.now(UTC)).total_seconds(), 1e-3)
        transaction = get_transaction()
        has_key = transaction is not None and transaction.key == path
        return Notes(
            key=stored,
            path=path,
            refused=bool(refused),
            ttl=ttl if has_key else without_key,
            tags=(*tags, *self.tags),
            compute_seconds=time.monotonic() - self.started,
            run=run,
        )

    def _place(self, value: Any, path: str) -> tuple[str | Key, str]:
        """Return the key under which a result is stored, or why it is not."""
        self.end()
        outcome = self.observed.outcome(value)
        if outcome.not_stored:
            return address(path), outcome.not_stored
        if has_reference(value):
            return address(path), "it holds a Ref to another result: return its .value"
        if path in self.paths:
            return self.key.after(outcome), ""
        stored = address(path)
        if outcome.outputs:
            stored = Key(bytes.fromhex(stored)) if isinstance(stored, str) else stored
            stored.outputs = outcome.outputs
        changed = any(self.key.inputs[name].found for name in outcome.as_text)
        return stored, "it changed a file that counts in its key, to which other policies add" if changed else ""


class PolicyResultStore(ResultStore):
    """The result store of one task run with a `CachenessPolicy`."""

    _making: Making = PrivateAttr()
    _disputed: str = PrivateAttr(default="")  #: the key of the run, if the stored result is disputed

    @classmethod
    def around(cls, store: ResultStore, making: Making, **changes: Any) -> PolicyResultStore:
        """Return the same store, for the current task run."""
        fields = {name: getattr(store, name) for name in ResultStore.model_fields}
        made = cls.model_construct(**{**fields, **changes})
        made.work_for(making)
        return made

    def work_for(self, making: Making) -> None:
        """Set the task run to which this store belongs."""
        self._making = making

    def exists(self, key: str) -> bool:
        """Return True when a result is there.

        A task run calls this first, so a wrong configuration ends the run here.
        """
        self._require_usable()
        with self._asking() as why:
            found = super().exists(key)
        self._note(found, why)
        if not found:
            self._note_dispute(key)
        return found or self._is_computed(key)

    async def aexists(self, key: str) -> bool:
        """Run `exists` outside the event loop."""
        await off_loop(self._require_usable)
        with self._asking() as why:
            found = await super().aexists(key)
        await off_loop(lambda: self._note(found, why))
        if not found:
            await off_loop(lambda: self._note_dispute(key))
        return found or self._is_computed(key)

    def _note_dispute(self, key: str) -> None:
        """Record whether the result under a key is disputed: then a new one does not replace it."""
        store = _keeper(self)
        if store is None or not store.stores_results:
            return
        if shielded("look up a dispute", lambda: store.open().is_disputed(address(key)), False):
            self._disputed = key
            report_not_stored(DISPUTED)

    @contextmanager
    def _asking(self) -> Iterator[list[str]]:
        """Stop the key storage from counting, because the run does."""
        why: list[str] = []
        token = asking.set(why)
        try:
            yield why
        finally:
            asking.reset(token)

    def _note(self, found: bool, why: Sequence[str]) -> None:
        """Log the outcome of the look-up in the run, and count it."""
        making, storage = self._making, self.metadata_storage
        if isinstance(storage, CachenessBlock) and making.task_run == task_run_id() and storage.config().mode != "off":
            shielded("log why a task runs", partial(self._note_in, storage, recent.get() if found else None, why), None)

    def _note_in(self, storage: CachenessBlock, found: Recent | None, why: Sequence[str]) -> None:
        self._making.seen.note(storage.open(), self._making.key, found, why)

    def _is_computed(self, key: str) -> bool:
        """False: a missing result is computed. Raises NotCached in a mode where nothing is computed."""
        storage = self.metadata_storage
        if isinstance(storage, CachenessBlock) and storage.config().mode == "offline":
            context = TaskRunContext.get()
            name = "a task" if context is None else f"task {context.task.name!r}"
            raise NotCached(
                f"{name} has no cached result for this call (key {key}), and mode='offline' computes none."
                " `CachenessStorage.explain` shows why"
            )
        return False

    def _require_usable(self) -> None:
        for storage in (self.result_storage, self.metadata_storage):
            if isinstance(storage, CachenessBlock):
                storage.require_usable()

    def _count(self, store: CachenessBlock, *, raised: bool) -> None:
        making = self._making
        count = making.seen.raised if raised else making.seen.computed
        count(store.open(), making.key, time.monotonic() - making.started)

    def read(self, key: str, holder: str | None = None) -> ResultRecord[Any]:
        """Read a result; if it is that of the current task run, no body runs whose files would be observed.

        Unless the run is checked: then the body is called here.
        """
        self._end_observing()
        audit = self._audit_of(key)
        entry = None if audit is None else audit.checkable(key)
        record = super().read(key, holder)
        if audit is None or entry is None:
            return record
        call = audit.begin()
        if call.is_asynchronous:
            return record
        call.make()
        return self._checked(record, call, is_disputed=audit.is_disputed(entry, record, call))

    async def aread(self, key: str, holder: str | None = None) -> ResultRecord[Any]:
        """Run `read` outside the event loop."""
        self._end_observing()
        audit = self._audit_of(key)
        entry = None if audit is None else await off_loop(lambda: audit.checkable(key))
        record = await super().aread(key, holder)
        if audit is None or entry is None:
            return record
        call = audit.begin()
        if not call.is_asynchronous:
            return record
        await call.amake()
        is_disputed = await off_loop(lambda: audit.is_disputed(entry, record, call))
        return self._checked(record, call, is_disputed=is_disputed)

    def _audit_of(self, key: str) -> RunAudit | None:
        """Return how the current task run is checked, if it is selected."""
        making, transaction = self._making, get_transaction()
        is_own = making.task_run == task_run_id() and transaction is not None and transaction.key == key
        return making.audit if is_own and making.audit is not None and making.audit.chooses(key) else None

    def _checked(self, stored: ResultRecord[Any], call: BodyCall, *, is_disputed: bool) -> ResultRecord[Any]:
        """Return the result of a checked run: the stored one, or a new record if the body's result differs."""
        transaction = get_transaction()
        if call.error is not None or transaction is None:
            return stored
        # Its body has run, so the run is Completed, including hooks; the stored result is not changed.
        transaction.state = TransactionState.ACTIVE
        transaction.write_on_commit = transaction.write_on_commit and is_disputed
        return self.create_result_record(call.value) if is_disputed else stored

    def _end_observing(self) -> None:
        if self._making.task_run == task_run_id():
            self._making.end()

    def create_result_record(
        self, obj: Any, key: str | None = None, expiration: DateTime | None = None
    ) -> ResultRecord[Any]:
        """Make the record of a result; called when the task has just returned it."""
        if key and key == self._disputed:
            key, expiration = None, None  # under its own name, for code that has the run's state
        plain = super().create_result_record(obj, key=key, expiration=expiration)
        # Subflows and nested tasks copy this store; they are other runs, with other policies.
        making = self._making
        store = _keeper(self)
        if making.task_run != task_run_id() or store is None or not store.stores_results:
            return plain
        transaction = get_transaction()
        # What a task returned has the key of the run; Prefect gives what it raised a random one.
        raised = isinstance(obj, BaseException) and (transaction is None or key != transaction.key)
        shielded("count a task run", partial(self._count, store, raised=raised), None)
        record = KeptRecord(metadata=plain.metadata, result=obj)
        path, ttl = plain.metadata.storage_key or "", store.result_ttl
        notes = shielded("describe a result", lambda: making.notes(obj, path, expiration, without_key=ttl), None)
        if notes is None:
            return plain
        record.note(notes, written_later=_is_written_later())
        return record


def _keeper(results: ResultStore) -> CachenessBlock | None:
    """Return the storage of a task's records and results, if both use one of ours."""
    keys, storage = results.metadata_storage, results.result_storage
    if isinstance(keys, CachenessKeys) and isinstance(storage, CachenessBlock) and keys.config() == storage.config():
        return storage
    return None


def _is_written_later() -> bool:
    """Return True when an outer transaction decides when the result of this task is written."""
    transaction = get_transaction()
    if transaction is None or transaction.commit_mode == CommitMode.EAGER:
        return False
    return transaction.get_parent() is not None
