"""The steps of one call, in their order: look up, wait or take the lease, compute, store, compare, count."""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Final

from cacheness import telemetry
from cacheness.bodies import under_way
from cacheness.errors import CachenessError, ModeRefused, NotCached
from cacheness.isolation import isolated
from cacheness.jitter import between
from cacheness.keys import Key, name_of_function
from cacheness.logs import logger_of
from cacheness.memoize.audits import audit, is_audited, judge
from cacheness.memoize.body import Body
from cacheness.memoize.call_arguments import CallArguments
from cacheness.memoize.compute import Computed, compute, result_of
from cacheness.memoize.function import MemoizedFunction, Without
from cacheness.memoize.lookup import Found, LookedUp, look, look_up, sentence_of_miss
from cacheness.memoize.steps import Steps
from cacheness.modes import writes
from cacheness.records import DISPUTED, REFRESHED, EarlierHit, Entry, Hit, Outcome
from cacheness.references import Ref

_log = logger_of(__name__)

#: Seconds between checks for a result that another process computes: the first pause, and the longest.
PAUSES: Final = (0.05, 1.0)
#: The reason in figures of a call whose cache failed.
NO_ANSWER: Final = "the cache did not answer"


async def make_call(cached: MemoizedFunction, call: CallArguments, steps: Steps, looked: LookedUp | None = None) -> Any:
    """Return the result of a call, or a reference to it; a plain function has done its look-up already."""
    key, found, reason, earlier = await steps.run(look, cached, call) if looked is None else looked
    if key is None:
        return await _call_uncached(cached, None, call, steps)
    mode, began, waited = cached.cache.config.mode, time.perf_counter(), False
    if mode == "offline" and (found is None or found is Without.FAILED):
        raise NotCached(await steps.run(_why_not_cached, cached, key, found))
    if found is None and not writes(mode):
        return await _call_uncached(cached, key, call, steps, reason)
    if found is None and cached.options.single_flight and key.digest not in under_way.get():
        found, waited = await _take_lease_or_wait(cached, key, call, steps)
    if isinstance(found, Hit):
        if earlier is None and not call.is_lazy and not waited and is_audited(cached, found.entry):
            return await audit(cached, key, call, found, steps)
        seconds = time.perf_counter() - began if waited else None
        return _served(cached, key, call, found, waited=seconds, is_earlier=earlier is not None)
    if found is None:
        return await _compute_and_store(cached, key, call, steps, reason=reason, earlier=earlier)
    return await _call_unanswered(cached, key, call, steps, found)


async def refresh(cached: MemoizedFunction, call: CallArguments, steps: Steps) -> Any:
    """Compute a result again, and store it in place of the old one."""
    mode = cached.cache.config.mode
    if mode == "off":
        return await _call_uncached(cached, None, call, steps)
    if not writes(mode):
        raise ModeRefused(f"{cached.short_name}.refresh stores what it computes; mode={mode!r} does not")
    key = await steps.run(cached.key, *call.args, **call.kwargs)
    return await _compute_and_store(cached, key, call, steps, reason=REFRESHED)


async def _take_lease_or_wait(
    cached: MemoizedFunction, key: Key, call: CallArguments, steps: Steps
) -> tuple[Found, bool]:
    """Take the lease of this key, or wait for its holder's result; return the result, and whether it waited."""
    give_up = time.monotonic() + cached.options.wait
    pause, waited = PAUSES[0], False
    while True:
        taken = await steps.ask(steps.lease.begin, key)
        if taken is True:  # the result may have been stored since the look-up
            return await steps.ask(look_up, cached, key, call), waited
        if taken is not False:  # if no lease can be taken, the call computes without one
            return None, waited
        if time.monotonic() >= give_up:
            return None, True
        await steps.sleep(pause * between(0.5, 1.0))
        pause, waited = min(pause * 2, PAUSES[1]), True
        found = await steps.ask(look_up, cached, key, call)
        if isinstance(found, Hit):
            return found, True


def _served(
    cached: MemoizedFunction, key: Key, call: CallArguments, found: Hit, *, waited: float | None, is_earlier: bool
) -> Any:
    """Count a hit, and return its value, or a reference; `waited` is how many seconds another process computed it."""
    outcome: Outcome = "hit" if waited is None else "waited"
    cached.cache.count_hit(found, outcome, function=key.function, spent=waited or 0.0)
    if call.is_lazy:
        return _reference(cached, call, key, found.entry, is_earlier=is_earlier)
    return found.value


async def _compute_and_store(
    cached: MemoizedFunction,
    key: Key,
    call: CallArguments,
    steps: Steps,
    *,
    reason: str,
    earlier: EarlierHit | None = None,
) -> Any:
    """Compute a result, store it, compare it with that of earlier code, and count a miss."""
    key.as_text()  # before the function can change its arguments
    given, is_unsure = await steps.run(cached.with_values, call)
    differs = False
    if is_unsure:  # if the value of a reference has changed, the key of the call is another one
        asked, key = key, await steps.run(cached.key_again, given)
        key.as_text()
        differs = key.digest != asked.digest
    is_trial, watch = (False, None) if earlier is None else (not earlier.is_accepted, earlier.watch)
    done = await compute(cached, key, given, steps, is_trial=is_trial, watch=watch)
    stored = await steps.ask(store, cached, done, refreshes=reason == REFRESHED)
    entry = stored if isinstance(stored, Entry) else None
    cached.cache.count(key.function, "miss", reason, spent=done.seconds, size=0 if entry is None else entry.size)
    if earlier is not None and not differs:
        await steps.ask(judge, cached, done, earlier)
    return _reference(cached, call, key, entry, done.value) if call.is_lazy else done.value


def store(cached: MemoizedFunction, done: Computed, *, refreshes: bool) -> Entry | None:
    """Store a result, unless there is a reason not to.

    Args:
        cached: the function.
        done: the result.
        refreshes: also if it is disputed, which settles the dispute.
    """
    cache, options, key, value = cached.cache, cached.options, done.key, done.value
    outcome = done.observed.outcome(value)
    why = outcome.not_stored
    stored = key if why else key.after(outcome, done.moved)
    if why:
        _log.info("%s is not stored: %s", key.function, why)
    elif cached.may_cache(key) and not _is_wanted(cached, value):
        why = "condition= refused it"
    elif not refreshes and cache.is_disputed(stored):
        why = DISPUTED
    if why or not cached.may_cache(key):
        cache.reasons.not_stored(key, why)
        with telemetry.operation(telemetry.STORE, namespace=cache.namespace, function=key.function) as storing:
            storing.came_to("not stored", why)
        return None
    try:
        entry = cache.put(
            value,
            stored,
            ttl=options.ttl,
            tags=options.tags,
            compute_seconds=done.seconds,
            by_value=options.by_value,
        )
    except CachenessError as error:
        cache.reasons.not_stored(key, type(error).__name__)
        raise
    cache.reasons.stored(key)
    if refreshes:
        cache.settle(stored)
    return entry


def _is_wanted(cached: MemoizedFunction, value: Any) -> bool:
    condition = cached.options.condition

    def report(error: Exception) -> None:
        cached.log_once(error, "has a condition= that failed, so a result was not stored")

    # The work is done: an error in the user's condition is not raised by on_error="raise" either.
    with isolated(report):
        return condition is None or bool(condition(value))
    return False


async def _call_uncached(
    cached: MemoizedFunction, key: Key | None, call: CallArguments, steps: Steps, reason: str = ""
) -> Any:
    """Call the function and store nothing; a call with a key is counted as a miss."""
    began = time.perf_counter()
    given, _ = await steps.run(cached.with_values, call)
    value = await result_of(Body(cached, key, given), steps)
    if key is not None:
        cached.cache.count(key.function, "miss", reason, spent=time.perf_counter() - began)
    if call.is_lazy:
        known = await steps.run(cached.key_again, given) if key is None else key
        return _reference(cached, call, known, None, value)
    return value


async def _call_unanswered(
    cached: MemoizedFunction, key: Key, call: CallArguments, steps: Steps, without: Without
) -> Any:
    """Call the function because the cache failed or must not be used. What cannot be read is not written either."""
    began = time.perf_counter()
    given, _ = await steps.run(cached.with_values, call)
    value = await result_of(Body(cached, key, given), steps)
    reason = NO_ANSWER if without is Without.FAILED else ""
    cached.cache.count(key.function, without.value, reason, spent=time.perf_counter() - began)
    return _reference(cached, call, key, None, value) if call.is_lazy else value


def _why_not_cached(cached: MemoizedFunction, key: Key, found: Found) -> str:
    reason = sentence_of_miss(cached, key, "") if found is None else "the cache could not be read"
    return f"{cached.full_name} has no cached result for this call, and mode='offline' computes none: {reason}"


def _reference(
    cached: MemoizedFunction, call: CallArguments, key: Key, entry: Entry | None, *held: Any, is_earlier: bool = False
) -> Ref[Any]:
    # A coroutine cannot be awaited where a value is needed.
    again: partial[Any] | None = None if cached.is_coroutine else partial(cached, *call.args, **call.kwargs)
    more: dict[str, Any] = {"held": held[0]} if held else {}
    if entry is not None:
        more["stamp"] = entry.digest
    if is_earlier:
        more["earlier"] = (key.fingerprint, key.digest)
    at, digest = (key.digest, None) if entry is None else (entry.key, entry.value)
    return Ref(cached.cache, at, digest, name_of_function(cached.__wrapped__), again=again, **more)
