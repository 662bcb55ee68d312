"""Compare the result of a call with a stored one: an audited hit, or a result of earlier code."""

from __future__ import annotations

from typing import Any

from cacheness.audit import (
    NotComparable,
    describe_difference,
    differing,
    digest_or_none,
    is_checkable,
    is_same,
)
from cacheness.keys import Key
from cacheness.logs import logger_of
from cacheness.memoize.body import Failed
from cacheness.memoize.call_arguments import CallArguments
from cacheness.memoize.compute import Computed, compute
from cacheness.memoize.function import MemoizedFunction
from cacheness.memoize.steps import Steps
from cacheness.modes import writes
from cacheness.records import DISPUTED, EarlierHit, Entry, Hit

_log = logger_of(__name__)


def is_audited(cached: MemoizedFunction, entry: Entry) -> bool:
    """Return whether the hit on an entry is computed again and compared."""
    sampler, options = cached.sampler, cached.options
    return (
        sampler is not None
        and not cached.not_comparable
        and sampler.chooses(entry.key)
        and writes(cached.cache.config.mode)
        and is_checkable(entry, own_share=options.check is not None, own_ttl=options.ttl is not None)
    )


async def audit(cached: MemoizedFunction, key: Key, call: CallArguments, hit: Hit, steps: Steps) -> Any:
    """Compute a result again, compare, and count the call. Without a lease, because nothing is stored."""
    given, differs = await steps.run(cached.with_values, call)
    if differs:
        differs = (await steps.run(cached.key_again, given)).digest != key.digest
    done = await compute(cached, key, given, steps, is_audit=True)
    if isinstance(done.value, Failed):
        cached.log_once(done.value.error, "could not be computed again to be checked")
    elif not differs and await steps.ask(_is_confirmed, cached, done, hit) is False:
        cached.cache.count(key.function, "miss", DISPUTED, spent=done.seconds)
        return done.value
    cached.cache.count(key.function, "hit", spent=done.seconds, size=hit.entry.size)
    return hit.value


def _is_confirmed(cached: MemoizedFunction, done: Computed, hit: Hit) -> bool:
    """Return True when the results are equal; otherwise the stored one is disputed."""
    key, value = done.key, done.value
    try:
        if came_out_as(cached, done, hit.value) is not False:
            return True
    except NotComparable as error:
        cached.log_once(error, "cannot be checked")
        return True
    detail = describe_difference(hit.value, value, key, cached.__wrapped__, done.moved)
    if cached.cache.dispute(hit.entry, digest_or_none(hit.value), digest_or_none(value), detail):
        _log.warning(
            "%s came out differently: %s. The entry %s is not served until it is settled: cacheness disputes",
            key.function,
            detail,
            hit.entry.cache_key,
        )
        return False
    current = cached.cache.find(Key(hit.entry.key))
    return current is None or current.mac != hit.entry.mac


def judge(cached: MemoizedFunction, done: Computed, earlier: EarlierHit) -> None:
    """Record whether the result equals that of earlier code."""
    try:
        same = came_out_as(cached, done, earlier.hit.value)
    except NotComparable as error:
        cached.log_once(error, "cannot be compared with what its earlier code made")
        return
    if same is not None:
        detail = "" if same else differing(earlier.hit, done.value)
        cached.cache.acceptances.note(earlier, same=same, detail=detail)


def came_out_as(cached: MemoizedFunction, done: Computed, stored: Any) -> bool | None:
    """Return whether the result equals the stored one; None if files or arguments changed during the call."""
    if done.observed.outcome(done.value).not_stored:
        return None
    if cached.key_again(done.call).digest != done.key.digest:
        return None
    if cached.not_comparable:
        raise NotComparable(cached.not_comparable)
    try:
        return is_same(stored, done.value, cached.options.same, cached.cache.round_trip)
    except NotComparable as error:
        if error.is_slow:
            cached.not_comparable = str(error)
        raise
