"""Code that runs in place of a hit: read the stored result, or compute it after all."""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Final

from dask._task_spec import GraphNode

from cacheness import Hit, Key
from cacheness.audit import compared, digest_or_none, is_same, reads_of
from cacheness.errors import CachenessError
from cacheness.isolation import isolated
from cacheness.logs import logger_of
from cacheness_dask import live
from cacheness_dask._task_spec import Consuming, EntryVanished, Fallback, Found, Loading
from cacheness_dask.reasons import UNREADABLE
from cacheness_dask.reports import note_trouble, note_unstored
from cacheness_dask.worker import Store

logger = logger_of("cacheness.dask")

_UNREADABLE: Final = "are computed again, because they cannot be read"


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
            note_trouble(self._store.config, error, _UNREADABLE)
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
        with isolated(partial(log_unchecked, self._name)):
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
        note_unstored(self._store.run, self._digest, self._name, why)
        with isolated(self._store.warn):
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
            note_trouble(self._store.config, error, _UNREADABLE)
            return {}
        size = sum(hit.entry.size for hit in hits.values())
        live.tell(loaded=len(hits), loaded_bytes=size, load_seconds=time.perf_counter() - start)
        return hits

    def __reduce__(self) -> tuple[Any, ...]:
        return (Consume, (self._node, self._given, self._store, self._loads))


def log_unchecked(name: str, error: Exception) -> None:
    """Log that a result could not be compared with the stored one."""
    logger.info("a result of %s cannot be checked: %s: %s", name, type(error).__name__, error)
