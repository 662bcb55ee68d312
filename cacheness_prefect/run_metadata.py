"""What is known about a Prefect result besides its value, and where the cache keeps it."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from prefect.context import FlowRunContext, TaskRunContext

from cacheness import Config, Hit, Key
from cacheness.keys import make_key

PREFIX: Final = "prefect"
LONGEST_TAG: Final = 4096  #: characters that the cache takes
LONGEST_PARAMETER: Final = 200  #: characters of a flow parameter that an entry's provenance keeps
#: Modules whose classes describe themselves in a moment.
_PLAIN_MODULES: Final = frozenset({"builtins", "datetime", "decimal", "fractions", "pathlib", "uuid"})
_RECORD: Final = b'{"metadata":'
_CACHE_KEY: Final = re.compile("[0-9a-f]{64}")


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
    path: str = ""  #: as which Prefect knows the result

    def provenance(self) -> dict[str, Any]:
        """As the entry keeps it."""
        record = self.record
        if isinstance(self.key, Key) and _CACHE_KEY.fullmatch(self.path):
            record = record.replace(self.path, self.key.hex)  # where the next run will look for it
        return {PREFIX: {**self.run, "form": self.form, "record": record}}


@dataclass(frozen=True, slots=True)
class UnencodedValue:
    """A value on its way between Prefect and the cache, which encodes it itself: no bytes yet, or any more."""

    value: Any
    notes: Notes | None = None


@dataclass(frozen=True, slots=True)
class Recent:
    """What this task run has just verified, or just stored, so that Prefect's next step need not do it again."""

    store: Config
    path: str
    task_run: str
    record: str = ""
    content: Any = None  #: what was read; None after a write
    failed: bool = False  #: the write failed, and that has been reported
    hit: Hit | None = None  #: that was read


recent: ContextVar[Recent | None] = ContextVar("cacheness_prefect_recent", default=None)
#: Gets the reason of a miss, where the run that asks counts its calls itself.
asking: ContextVar[list[str] | None] = ContextVar("cacheness_prefect_asking", default=None)


def address(path: str) -> str | Key:
    """The cache key of a Prefect storage key. What a `CachenessPolicy` returns is the cache key itself."""
    return path if _CACHE_KEY.fullmatch(path) else make_key(args={"key": path}, prefix=PREFIX)


def hex_key_of(path: str) -> str:
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
        tags += [f"task:{task.task.name}", f"task_run:{task.task_run.id}", *task.task_run.tags]
    if flow is not None and flow.flow_run is not None:
        name = flow.flow.name if flow.flow is not None else ""
        run |= {"flow": name, "flow_run_id": str(flow.flow_run.id), "flow_run": flow.flow_run.name}
        run["parameters"] = {name: _short(value) for name, value in (flow.parameters or {}).items()}
        tags += [f"flow:{name}", f"flow_run:{flow.flow_run.id}"]
        if flow.flow_run.deployment_id is not None:
            run["deployment_id"] = str(flow.flow_run.deployment_id)
            tags.append(f"deployment:{flow.flow_run.deployment_id}")
    return run, tuple(tag for tag in map(_as_tag, tags) if tag)


def _as_tag(text: str) -> str:
    """What identifies a run, in the form that the cache takes for a tag."""
    plain = text.encode(errors="replace").decode().replace("\0", " ")
    return " ".join(plain.split())[:LONGEST_TAG]


class _Short(reprlib.Repr):
    """Describes plain values; of all others it says the class, for their own `__repr__` may take long or fail."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = LONGEST_PARAMETER

    def repr_instance(self, x: Any, level: int) -> str:
        """Describe what is neither text, number nor collection."""
        is_plain = type(x).__module__.partition(".")[0] in _PLAIN_MODULES
        return super().repr_instance(x, level) if is_plain else f"<{type(x).__qualname__}>"


def _short(value: Any) -> str:
    try:
        return _SHORT.repr(value)[:LONGEST_PARAMETER]
    except Exception:  # noqa: BLE001  a class of the user's, called `list` or `dict`
        return f"<{type(value).__qualname__}>"


_SHORT: Final = _Short()


def content_of(hit: Hit) -> Any:
    """What a storage answers for an entry."""
    return UnencodedValue(hit.value) if form_of(hit) == "value" else hit.value


def form_of(hit: Hit) -> str:
    """How an entry keeps its result: see `Notes.form`."""
    return str(about(hit).get("form", "bytes"))


def about(hit: Hit) -> dict[str, Any]:
    """What Prefect's side of an entry's provenance says."""
    noted: dict[str, Any] = json.loads(hit.entry.provenance).get(PREFIX, {})
    return noted


def is_record(content: Any) -> bool:
    """Return True when this is a payload inside its record, as Prefect writes them without key storage."""
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
