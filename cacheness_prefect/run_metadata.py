"""Metadata of a Prefect result, and where the cache stores it."""

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
LONGEST_TAG: Final = 4096  #: the most characters in the cache
LONGEST_PARAMETER: Final = 200  #: characters of a flow parameter in an entry's provenance
#: Modules whose classes have a fast repr.
_PLAIN_MODULES: Final = frozenset({"builtins", "datetime", "decimal", "fractions", "pathlib", "uuid"})
_RECORD: Final = b'{"metadata":'
_CACHE_KEY: Final = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """The metadata of a result, when its task returns."""

    key: str | Key
    ttl: float | None = None
    tags: tuple[str, ...] = ()
    compute_seconds: float | None = None
    run: Mapping[str, Any] = field(default_factory=dict)
    form: str = "bytes"  #: "value" if the cache encoded it, "bytes" if a serializer did, "elsewhere"
    record: str = ""  #: Prefect's record of the result, JSON
    refused: bool = False  #: not a result to store
    path: str = ""  #: the result's id in Prefect

    def provenance(self) -> dict[str, Any]:
        """Return the form stored in the entry."""
        record = self.record
        if isinstance(self.key, Key) and _CACHE_KEY.fullmatch(self.path):
            record = record.replace(self.path, self.key.hex)  # where the next run will look for it
        return {PREFIX: {**self.run, "form": self.form, "record": record}}


@dataclass(frozen=True, slots=True)
class UnencodedValue:
    """A value between Prefect and the cache, which encodes it itself: not bytes yet, or no longer."""

    value: Any
    notes: Notes | None = None


@dataclass(frozen=True, slots=True)
class Recent:
    """What this task run has just verified or stored, so that Prefect's next step need not do it again."""

    store: Config
    path: str
    task_run: str
    record: str = ""
    content: Any = None  #: what was read; None after a write
    failed: bool = False  #: the write failed, and that was reported
    hit: Hit | None = None  #: that was read


recent: ContextVar[Recent | None] = ContextVar("cacheness_prefect_recent", default=None)
#: Receives the reason of a miss, if the run counts its calls itself.
asking: ContextVar[list[str] | None] = ContextVar("cacheness_prefect_asking", default=None)


def address(path: str) -> str | Key:
    """Return the cache key of a Prefect storage key. The result of a `CachenessPolicy` is already a cache key."""
    return path if _CACHE_KEY.fullmatch(path) else make_key(args={"key": path}, prefix=PREFIX)


def hex_key_of(path: str) -> str:
    """Return the same, as 64 hexadecimal digits."""
    key = address(path)
    return key if isinstance(key, str) else key.digest.hex()


def task_run_id() -> str:
    """Return the current task run; "" outside of task runs."""
    context = TaskRunContext.get()
    return "" if context is None else str(context.task_run.id)


def describe_run() -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return who computes: for an entry's provenance, and as tags to find it."""
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
    """Return a run's identity, in the cache's format for a tag."""
    plain = text.encode(errors="replace").decode().replace("\0", " ")
    return " ".join(plain.split())[:LONGEST_TAG]


class _Short(reprlib.Repr):
    """Describe plain values; others only by class, because their `__repr__` may take long or fail."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = LONGEST_PARAMETER

    def repr_instance(self, x: Any, level: int) -> str:
        """Describe a value that is not text, a number or a collection."""
        is_plain = type(x).__module__.partition(".")[0] in _PLAIN_MODULES
        return super().repr_instance(x, level) if is_plain else f"<{type(x).__qualname__}>"


def _short(value: Any) -> str:
    try:
        return _SHORT.repr(value)[:LONGEST_PARAMETER]
    except Exception:  # noqa: BLE001  a class of the user's, called `list` or `dict`
        return f"<{type(value).__qualname__}>"


_SHORT: Final = _Short()


def content_of(hit: Hit) -> Any:
    """Return a storage's answer for an entry."""
    return UnencodedValue(hit.value) if form_of(hit) == "value" else hit.value


def form_of(hit: Hit) -> str:
    """Return how an entry stores its result: see `Notes.form`."""
    return str(about(hit).get("form", "bytes"))


def about(hit: Hit) -> dict[str, Any]:
    """Return Prefect's part of an entry's provenance."""
    noted: dict[str, Any] = json.loads(hit.entry.provenance).get(PREFIX, {})
    return noted


def is_record(content: Any) -> bool:
    """Return True when this is a payload inside its record, as Prefect writes them without key storage."""
    return isinstance(content, bytes) and content.startswith(_RECORD)


def lifetime_of(content: Any, default: float | None) -> float | None:
    """Return the seconds that a payload lives: from the record that Prefect put around it, otherwise the default."""
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
    """Return the seconds until a time in ISO format; never zero or less, because a time in the past must expire too."""
    if expiration is None:
        return None
    return max((datetime.fromisoformat(expiration) - datetime.now(UTC)).total_seconds(), 1e-3)
