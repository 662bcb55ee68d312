"""Use results of a task's earlier code for today's code, if the change was accepted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import prefect

from cacheness import Key, bodies
from cacheness.audit import NotComparable, differing, is_same
from cacheness.keys.code.writers import writes_to
from cacheness.modes import writes
from cacheness.records import EarlierHit
from cacheness_prefect.block import CachenessBlock
from cacheness_prefect.error_reporting import shielded
from cacheness_prefect.run_metadata import PREFIX


class Comparison:
    """The comparison of a run with a result of earlier code for the same call.

    Args:
        store: the store of the result.
        earlier: the result of earlier code, and the change that is accepted or being tried.
        same: returns whether two results are equal, if the task's policy has it.
    """

    def __init__(
        self, store: CachenessBlock, earlier: EarlierHit, same: Callable[[Any, Any], bool] | None = None
    ) -> None:
        self._store = store
        self._earlier = earlier
        self._same = same

    def begin(self) -> None:
        """Start to record the lines that run, if the change is being tried."""
        if self._earlier.watch is not None:
            self._earlier.watch.begin()

    def end(self) -> None:
        """Stop recording lines."""
        if self._earlier.watch is not None:
            self._earlier.watch.end()

    def compare(self, value: Any) -> None:
        """Compare the run's result.

        Args:
            value: the task's return value.
        """
        shielded("compare a result", lambda: self._compare(value), None)

    def _compare(self, value: Any) -> None:
        cache, earlier = self._store.open(), self._earlier
        stored = cache.result_of(earlier.hit.entry)
        if stored is None:
            return
        try:
            same = is_same(stored.value, value, self._same, cache.round_trip)
        except NotComparable:
            return
        cache.acceptances.note(earlier, same=same, detail="" if same else differing(stored, value))


def function_of(store: CachenessBlock, task: prefect.Task[..., Any], **options: Any) -> Any:
    """Return a task's function as a cached function with the keys of its runs, whose results are not stored."""
    cached: Any = store.open().cached
    return cached(task.fn, prefix=PREFIX, condition=_is_not_stored, **options)


def of_earlier_code(
    store: CachenessBlock,
    task: prefect.Task[..., Any],
    key: Key,
    options: Mapping[str, Any],
    *,
    wanted: int | None = None,
    is_nested: bool = False,
) -> tuple[Key, Comparison | None]:
    """Return the key of earlier code's result for a call if that counts, otherwise the key itself.

    One call in twenty is computed in spite of it, and every call while a change is being tried; the result is compared.

    Args:
        store: the store of results.
        task: the task.
        key: the key of the call.
        options: options of `UnifiedCache.cached` for the task, from `options_of`.
        wanted: runs that are compared, as they miss, before results of earlier code count.
        is_nested: whether another task runs this one, so that its result would depend on this one's.
    """
    cache, mode = store.open(), store.config().mode
    acceptances, new = cache.acceptances, key.fingerprint
    wanted = wanted if writes(mode) else None
    # A result encoded by another serializer cannot be compared.
    if new is None or task.result_serializer is not None or not (acceptances.of(new) or wanted):
        return key, None
    if key.draws or options.get("check") == 0 or writes_to(task.fn) or cache.present([key]):
        return key, None
    if is_nested or bodies.under_way.get() or bodies.may_be_within(task.fn):
        return key, None
    if wanted and not acceptances.has_looked_for(new):
        cache.try_earlier(function_of(store, task, **options), key, wanted)
    earlier = acceptances.find(key, unread=True)
    if earlier is None:
        return key, None
    if earlier.is_accepted and not (writes(mode) and acceptances.is_audited(earlier)):
        return Key(earlier.hit.entry.key, key.function, key.prefix), None
    return key, Comparison(store, earlier, options.get("same")) if writes(mode) else None


def _is_not_stored(_: object) -> bool:
    """Results that are computed only for comparison have no run, and so no record that Prefect could read."""
    return False
