"""Results of a task's earlier code that count for its code of today, because the change was accepted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import prefect

from cacheness import Key
from cacheness.audit import NotComparable, differing, is_same
from cacheness.keys.code.writers import writes_to
from cacheness.modes import writes
from cacheness.records import EarlierHit
from cacheness_prefect.block import CachenessBlock
from cacheness_prefect.error_reporting import shielded


def of_earlier_code(
    store: CachenessBlock, task: prefect.Task[..., Any], key: Key
) -> tuple[Key, Callable[[Any], None] | None]:
    """Return the key under which earlier code stored the result of a call, where that counts, else the key itself.

    One in twenty is computed all the same: then with what compares the results.
    """
    cache = store.open()
    acceptances = cache.acceptances
    # What another serializer encoded cannot be compared.
    if not acceptances.of(key.fingerprint) or task.result_serializer is not None:
        return key, None
    if key.draws or writes_to(task.fn) or cache.present([key]):
        return key, None
    earlier = acceptances.find(key, unread=True)
    if earlier is None or not earlier.is_accepted:
        return key, None
    if not writes(store.config().mode) or not acceptances.is_audited(earlier):
        return Key(earlier.hit.entry.key, key.function, key.prefix), None
    return key, lambda value: shielded("compare a result", lambda: _compare(store, earlier, value), None)


def _compare(store: CachenessBlock, earlier: EarlierHit, value: Any) -> None:
    cache = store.open()
    stored = cache.result_of(earlier.hit.entry)
    if stored is None:
        return
    try:
        same = is_same(stored.value, value, None, cache.round_trip)
    except NotComparable:
        return
    cache.acceptances.note(earlier, same=same, detail="" if same else differing(stored, value))
