"""Explain whether a call would miss, and why: find the entries with which its key is compared."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Final

from cacheness.keys import Key, covers, still_left
from cacheness.memoize.acceptances import change_of
from cacheness.memoize.explain import Explanation, explain
from cacheness.memoize.function import CacheLike, MemoizedFunction
from cacheness.records import DISPUTED, EXPIRED, MICROSECONDS, Entry

#: Earlier entries of a function that are compared with a call: the newest.
CANDIDATES: Final = 1000
#: … and for a call that is only logged.
FEW_CANDIDATES: Final = 10


def explain_fully(cached: MemoizedFunction, key: Key) -> Explanation:
    """Return whether a call would miss, and why."""
    cache = cached.cache
    earlier = list(cache.iter_entries(function=key.function, limit=CANDIDATES))
    own = cache.find(key)
    if own is not None and all(entry.key != own.key for entry in earlier):
        earlier.append(own)  # older than a thousand others
    found = _kept_back(cache, key) or _compared(cache, key, earlier or list(islice(_renamed(cache, key), CANDIDATES)))
    mode = cache.config.mode
    if mode == "off":
        return replace(found, hit=False, mode="mode='off' uses no cache")
    if mode == "refresh" and found.hit and cache.find(Key(bytes.fromhex(found.key))) is None:
        return replace(found, hit=False, mode="mode='refresh' computes again what is older than the run")
    return found if found.hit else _accepted(cached, key, found)


def explain_briefly(cached: MemoizedFunction, key: Key, reason: str) -> Explanation:
    """Return a reason for the log: from the look-up, or how the key differs from a few entries."""
    cache = cached.cache
    kept_back = _kept_back(cache, key) if reason in (EXPIRED, DISPUTED) else None
    return kept_back or _compared(cache, key, cache.iter_entries(function=key.function, limit=FEW_CANDIDATES))


def _kept_back(cache: CacheLike, key: Key) -> Explanation | None:
    """Return the explanation of a miss with an existing result: it has expired, or is disputed."""
    entry, now = cache.entry(key), int(time.time() * MICROSECONDS)
    if entry is None:
        return None
    past = ""
    if cache.disputes([key]):
        past = DISPUTED
    elif entry.expires_at is not None and entry.expires_at <= now:
        past = EXPIRED
    return explain(key, [entry], cache.code_of([entry]), now, past=past) if past else None


def _accepted(cached: MemoizedFunction, key: Key, found: Explanation) -> Explanation:
    """Return the explanation of a hit on a result of earlier code, if there is one."""
    if cached.is_comparable and not key.draws:
        earlier = cached.cache.acceptances.find(key, unread=True)
        if earlier is not None and earlier.is_accepted:
            entry, now = earlier.hit.entry, int(time.time() * MICROSECONDS)
            return replace(
                found,
                hit=True,
                changes=(),
                nearest=entry.cache_key,
                age=max(now - entry.created_at, 0) / MICROSECONDS,
                accepted=change_of(earlier.equivalence).sentence(),
            )
    return found


def _compared(cache: CacheLike, key: Key, earlier: Iterable[Entry]) -> Explanation:
    entries = list(earlier)
    known = {entry.key: entry.outputs or "" for entry in entries}
    served = (
        other
        for as_text, other in key.as_text().items()
        if (outputs := known.get(other.digest)) and covers(outputs, key.inputs, as_text) and still_left(outputs)
    )
    return explain(next(served, key), entries, cache.code_of(entries), int(time.time() * MICROSECONDS))


def _renamed(cache: CacheLike, key: Key) -> Iterator[Entry]:
    """Return entries of functions with the same code under other names; one entry of each function is checked."""
    body = key.all_components.get("body")
    for name in cache.functions() if body else ():
        entries = cache.iter_entries(function=name) if name != key.function else iter(())
        first = next(entries, None)
        if first is None or first.function != name:
            continue
        code = cache.code_of([first]).get(first.fn or b"")
        if code is not None and code.data.get("body") == body:
            yield first
            yield from entries
