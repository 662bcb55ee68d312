"""The key storage of a `CachenessStorage`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from cacheness import Hit
from cacheness.off_loop import off_loop
from cacheness_prefect.block import CachenessBlock, not_there
from cacheness_prefect.error_reporting import shielded
from cacheness_prefect.run_metadata import (
    Notes,
    Recent,
    about,
    address,
    asking,
    content_of,
    form_of,
    recent,
    seconds_left,
    task_run_id,
)


class CachenessKeys(CachenessBlock):
    """
    The key storage of a `CachenessStorage`: has a key if its result is there and intact.

    Prefect reads a record from it, and runs the task if there is none. The record is part of the
    result's entry, so the two are always consistent.
    """

    _block_type_name = "Cacheness Key Storage"
    _block_type_slug = "cacheness-key-storage"
    _description = "The key storage of a Cacheness Storage; made by its `key_storage()`."

    def read_path(self, path: str, _sync: bool | None = None) -> Any:
        """Return the record of a result that was just verified; raise `NotThere` if there is none, or on an error."""
        return self._known(path) or self._remember(self._look(path), path)

    async def aread_path(self, path: str) -> Any:
        """Run `read_path` outside the event loop."""
        return self._known(path) or self._remember(await off_loop(lambda: self._look(path)), path)

    def write_path(  # type: ignore[override]  # Prefect calls it with _sync
        self, path: str, content: bytes, _sync: bool | None = None
    ) -> None:
        """Add the record to the result's entry, unless the result was stored together with it."""
        payload = self._payload(path)
        if payload is None or payload.record != content.decode():
            self._add(path, content, payload)

    async def awrite_path(self, path: str, content: bytes) -> None:
        """Run `write_path` outside the event loop."""
        payload = self._payload(path)
        if payload is None or payload.record != content.decode():
            await off_loop(lambda: self._add(path, content, payload))

    def _known(self, path: str) -> bytes | None:
        kept = recent.get()
        if kept is None or kept.content is None or not kept.record or not self._is_ours(kept, path):
            return None
        return kept.record.encode()

    def _remember(self, found: Recent | None, path: str) -> bytes:
        if found is None:
            raise not_there(path)
        recent.set(found if found.task_run else None)
        return found.record.encode()

    def _look(self, path: str) -> Recent | None:
        why = asking.get()
        hit = shielded("look up a result", lambda: self._look_up(path, why), None)
        record = "" if hit is None else about(hit).get("record", "")
        if hit is None or not record:
            return None
        return Recent(self.config(), path, task_run_id(), record, content_of(hit), hit=hit)

    def _look_up(self, path: str, why: list[str] | None) -> Hit | None:
        cache = self.open()
        return cache.lookup(address(path)) if why is None else cache.peek(address(path), why)

    def _payload(self, path: str) -> Recent | None:
        """Return what Prefect's previous step stored here; None if another storage has the payload."""
        kept = recent.get()
        recent.set(None)
        return kept if kept is not None and self._is_ours(kept, path) else None

    def _add(self, path: str, content: bytes, payload: Recent | None) -> None:
        if not self.stores_results:
            return
        record = content.decode()
        notes = Notes(
            key=address(path), ttl=seconds_left(json.loads(record).get("expiration")), form="elsewhere", record=record
        )
        if payload is None:
            shielded("store the key of a result", lambda: self._put(None, notes), False)
        elif not payload.failed:
            shielded("store the key of a result", lambda: self._put_again(notes), False)

    def _put_again(self, notes: Notes) -> bool:
        hit = self.open().peek(notes.key)
        if hit is None:
            return False
        run = {name: value for name, value in about(hit).items() if name not in ("record", "form")}
        return self._put(hit.value, replace(notes, form=form_of(hit), tags=hit.entry.tags, run=run))
