"""How a Prefect result becomes one entry of the cache.

Prefect stores a result in two steps, the payload and then a record that leads to it, and reads the
record twice and then the payload. Here both are one entry: the value, encoded by the cache's own
codecs, with the record in its signed provenance.

A task with a `CachenessPolicy` gets a result store that makes its records (`KeptRecord`) when the
task returns: only then are the value as it was, the key, its expiration and the run known all at once.
When a record is written, it may be in another task's context, and the value may have changed.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from prefect.client.schemas.objects import TaskRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import SerializationError
from prefect.results import ResultRecord, ResultStore  # type: ignore[attr-defined]
from prefect.transactions import CommitMode, get_transaction
from prefect.types import DateTime
from pydantic import PrivateAttr

from cacheness import Config, Hit, Key
from cacheness.keys import make_key
from cacheness_prefect.serializers import CachenessSerializer, Held

if TYPE_CHECKING:
    from cacheness_prefect.policy import CachenessPolicy

PREFIX: Final = "prefect"
LONGEST_PARAMETER: Final = 200  #: characters of a flow parameter that an entry's provenance keeps
_RECORD: Final = b'{"metadata":'
_CACHE_KEY: Final = re.compile("[0-9a-f]{64}")
#: Values that nobody can change after a task returned them.
_UNCHANGING: Final = (type(None), bool, int, float, complex, str, bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """What is known about a result besides its value, when its task returns."""

    key: str | Key
    ttl: float | None = None
    tags: tuple[str, ...] = ()
    compute_seconds: float | None = None
    run: Mapping[str, Any] = field(default_factory=dict)
    form: str = "bytes"  #: "value" when the cache encoded it, "bytes" when a serializer did, "elsewhere"
    record: str = ""  #: Prefect's record of the result, JSON
    refused: bool = False  #: not a result to keep

    def provenance(self) -> dict[str, Any]:
        """As the entry keeps it."""
        return {PREFIX: {**self.run, "form": self.form, "record": self.record}}


@dataclass(frozen=True, slots=True)
class Recent:
    """What this task run has just verified, or just stored, so that Prefect's next step need not do it again."""

    store: Config
    path: str
    task_run: str
    record: str = ""
    content: Any = None  #: what was read; None after a write
    failed: bool = False  #: the write came to nothing, and that has been told


recent: ContextVar[Recent | None] = ContextVar("cacheness_prefect_recent", default=None)


def address(path: str) -> str | Key:
    """The cache key of a Prefect storage key. What a `CachenessPolicy` returns is the cache key itself."""
    return path if _CACHE_KEY.fullmatch(path) else make_key(args={"key": path}, prefix=PREFIX)


def flight_of(path: str) -> str:
    """The same, as 64 hexadecimal digits."""
    key = address(path)
    return key if isinstance(key, str) else key.digest.hex()


def task_run_id() -> str:
    """The task run that we are in; "" outside of task runs."""
    context = TaskRunContext.get()
    return "" if context is None else str(context.task_run.id)


def describe_run() -> tuple[dict[str, Any], tuple[str, ...]]:
    """Who computes: for an entry's provenance, and as tags to find it by."""
    run: dict[str, Any] = {}
    tags = [PREFIX]
    flow, task = FlowRunContext.get(), TaskRunContext.get()
    if task is not None:
        run |= {"task": task.task.name, "task_run_id": str(task.task_run.id), "task_run": task.task_run.name}
        tags += [f"task:{task.task.name}", *task.task_run.tags]
    if flow is not None and flow.flow_run is not None:
        name = flow.flow.name if flow.flow is not None else ""
        run |= {"flow": name, "flow_run_id": str(flow.flow_run.id), "flow_run": flow.flow_run.name}
        run["parameters"] = {k: repr(v)[:LONGEST_PARAMETER] for k, v in (flow.parameters or {}).items()}
        tags += [f"flow:{name}", f"flow_run:{flow.flow_run.id}"]
        if flow.flow_run.deployment_id is not None:
            run["deployment_id"] = str(flow.flow_run.deployment_id)
            tags.append(f"deployment:{flow.flow_run.deployment_id}")
    return run, tuple(" ".join(tag.split()) for tag in tags if tag.strip())


def content_of(hit: Hit) -> Any:
    """What a storage answers for an entry."""
    return Held(hit.value) if form_of(hit) == "value" else hit.value


def form_of(hit: Hit) -> str:
    """How an entry keeps its result: see `Notes.form`."""
    return str(about(hit).get("form", "bytes"))


def about(hit: Hit) -> dict[str, Any]:
    """What Prefect's side of an entry's provenance says."""
    noted: dict[str, Any] = json.loads(hit.entry.provenance).get(PREFIX, {})
    return noted


def is_record(content: Any) -> bool:
    """Whether this is a payload inside its record, as Prefect writes them without key storage."""
    return isinstance(content, bytes) and content.startswith(_RECORD)


def lifetime_of(content: Any, default: float | None) -> float | None:
    """Seconds that a payload lives: as the record says that Prefect put around it, else the default."""
    if not is_record(content):
        return default
    try:
        metadata, _ = json.JSONDecoder().raw_decode(
            content[len(_RECORD) : len(_RECORD) + 4096].decode(errors="replace")
        )
    except ValueError:
        return default
    return seconds_left(metadata.get("expiration")) or default


def seconds_left(expiration: str | None) -> float | None:
    """Until a time in ISO format; never less than a moment, so that the past is a lifetime too."""
    if expiration is None:
        return None
    return max((datetime.fromisoformat(expiration) - datetime.now(UTC)).total_seconds(), 1e-3)


class KeptRecord(ResultRecord[Any]):
    """A record that hands its value to the cache instead of encoding it, and knows what to note about it."""

    _notes: Notes = PrivateAttr()
    _task_run: TaskRun | None = PrivateAttr(default=None)
    _snapshot: bytes | None = PrivateAttr(default=None)

    def note(self, notes: Notes, *, written_later: bool) -> None:
        """Say what is known; and encode the value now, if it may change before it is written."""
        self._notes = notes
        context = TaskRunContext.get()
        self._task_run = None if context is None else context.task_run
        if written_later and not isinstance(self.result, _UNCHANGING):
            try:
                self._snapshot = super().serialize_result()
            except SerializationError:
                return  # the commit meets the same error, where Prefect expects it

    def serialize_result(self) -> Any:
        """What `CachenessStorage.write_path` gets: a `Held` value, not bytes."""
        content, self._snapshot = self._snapshot, None
        form = "bytes"
        if content is None and isinstance(self.serializer, CachenessSerializer):
            content, form = self.result, "value"
        elif content is None:
            content = super().serialize_result()
        record = self.serialize_metadata().decode()
        return Held(content, replace(self._notes, form=form, record=record, refused=self._is_of_failure()))

    def _is_of_failure(self) -> bool:
        # Prefect caches what a task returned inside a Failed state, and the next run would be Cached.
        task_run, self._task_run = self._task_run, None
        state = None if task_run is None else task_run.state
        return state is not None and state.is_failed()


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """The task run that a result store works for."""

    policy: CachenessPolicy
    key: Key
    task_run: str = field(default_factory=task_run_id)
    started: float = field(default_factory=time.monotonic)

    def notes(self, path: str, expiration: datetime | None) -> Notes:
        """What is known about the result that the task has just returned, or the error that ended it."""
        run, tags = describe_run()
        ttl = None if expiration is None else max((expiration - datetime.now(UTC)).total_seconds(), 1e-3)
        transaction = get_transaction()
        has_key = transaction is not None and transaction.key == path
        return Notes(
            key=self.key if self.key.digest.hex() == path else address(path),
            ttl=ttl if has_key else self.policy.store.result_ttl,
            tags=(*tags, *self.policy.tags),
            compute_seconds=time.monotonic() - self.started,
            run=run,
        )


class PolicyResultStore(ResultStore):
    """The result store of one task run with a `CachenessPolicy`."""

    _making: Making = PrivateAttr()

    @classmethod
    def around(cls, store: ResultStore, making: Making, **changes: Any) -> PolicyResultStore:
        """The same store, for the current task run."""
        fields = {name: getattr(store, name) for name in ResultStore.model_fields}
        made = cls.model_construct(**{**fields, **changes})
        made.work_for(making)
        return made

    def work_for(self, making: Making) -> None:
        """Say which task run this store belongs to."""
        self._making = making

    def create_result_record(
        self, obj: Any, key: str | None = None, expiration: DateTime | None = None
    ) -> ResultRecord[Any]:
        """Make the record of a result; called when the task has just returned it."""
        plain = super().create_result_record(obj, key=key, expiration=expiration)
        # Subflows and nested tasks copy this store; theirs are other runs, with policies of their own.
        making = self._making
        if making.task_run != task_run_id() or not making.policy.keeps(self):
            return plain
        record = KeptRecord(metadata=plain.metadata, result=obj)
        record.note(making.notes(plain.metadata.storage_key or "", expiration), written_later=_is_written_later())
        return record


def _is_written_later() -> bool:
    """Whether a transaction around this task decides when its result is written."""
    transaction = get_transaction()
    if transaction is None or transaction.commit_mode == CommitMode.EAGER:
        return False
    return transaction.get_parent() is not None
