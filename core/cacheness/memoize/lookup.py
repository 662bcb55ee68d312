"""Look up the result of a call: under its key, or of earlier code that counts for today's."""

from __future__ import annotations

import logging
from typing import NamedTuple, TypeAlias

from cacheness import bodies, telemetry
from cacheness.keys import Key, covers
from cacheness.logs import logger_of
from cacheness.memoize.body import computes_all
from cacheness.memoize.call_arguments import CallArguments
from cacheness.memoize.explain_call import explain_briefly
from cacheness.memoize.function import MemoizedFunction, Without
from cacheness.modes import writes
from cacheness.records import EarlierHit, Hit

_log = logger_of(__name__)

#: The result of a call; None for a miss; otherwise why the call does not use the cache.
Found: TypeAlias = Hit | Without | None


class LookedUp(NamedTuple):
    """The state of a call before it computes anything."""

    key: Key | None  #: None: the cache is not used
    found: Found = None
    reason: str = ""  #: of a miss
    earlier: EarlierHit | None = None  #: a result of earlier code: to be returned, or only to be compared


def look(cached: MemoizedFunction, call: CallArguments) -> LookedUp:
    """Make the key of a call, and look its result up, unless this call must not use the cache."""
    cache = cached.cache
    if cache.config.mode == "off" or computes_all.get():
        return LookedUp(None)
    looking = telemetry.operation(telemetry.LOOKUP, namespace=cache.namespace)
    if looking is telemetry.NOBODY:
        return _look_under(cached, cached.key_of(call), call)
    with looking:
        key = cached.key_of(call)
        looked = _look_under(cached, key, call)
        looking.came_to(_outcome_of(looked.found), looked.reason, function=key.function)
    return looked


def _outcome_of(found: Found) -> str:
    if isinstance(found, Hit):
        return "near hit" if found.near else "hit"
    return "miss" if found is None else found.value


def _look_under(cached: MemoizedFunction, key: Key, call: CallArguments) -> LookedUp:
    if not cached.may_cache(key):
        return LookedUp(key, Without.REFUSED)
    why: list[str] = []
    found = cached.ask(look_up, cached, key, call, why)
    if found is not None:
        return LookedUp(key, found)
    earlier = cached.ask(_of_earlier_code, cached, key, call)
    if not isinstance(earlier, EarlierHit):
        earlier = None
    elif _is_served(cached, earlier):
        return LookedUp(key, earlier.hit, earlier=earlier)
    elif call.is_lazy:  # found without the value for the comparison
        read = cached.ask(cached.cache.acceptances.find, key)
        earlier = read if isinstance(read, EarlierHit) else None
    return LookedUp(key, None, _reason_of_miss(cached, key, why), earlier)


def look_up(cached: MemoizedFunction, key: Key, call: CallArguments, why: list[str] | None = None) -> Hit | None:
    """Return the result of a call: under its key, or the key in which its own output files count by name.

    For a call that returns a reference, without the value.

    Args:
        cached: the function.
        key: of the call.
        call: its arguments.
        why: receives the reason of a miss.
    """
    found = _look_at(cached, key, call, why)
    if found is None:
        for as_text, other in key.as_text().items():
            hit = _look_at(cached, other, call)
            if hit is not None and covers(hit.entry.outputs or "", key.inputs, as_text):
                return hit
    return found


def _look_at(cached: MemoizedFunction, key: Key, call: CallArguments, why: list[str] | None = None) -> Hit | None:
    if not call.is_lazy:
        return cached.cache.peek(key, why)
    entry = cached.cache.find(key, is_use=True)
    return None if entry is None else Hit(None, entry)


def _of_earlier_code(cached: MemoizedFunction, key: Key, call: CallArguments) -> EarlierHit | None:
    """Return the result of accepted earlier code for a call, or of code that is being tried.

    Not for a call inside a function or a task whose result is stored, on any thread: that
    result would depend on it, and stay when the change is revoked.
    """
    acceptances, new = cached.cache.acceptances, key.fingerprint
    wanted = cached.options.accept if writes(cached.cache.config.mode) else None
    if new is None or bodies.under_way.get() or not (acceptances.of(new) or wanted):
        return None
    if not cached.is_comparable or key.draws or bodies.is_elsewhere() or bodies.is_child_process():
        return None
    if bodies.may_be_within(cached.__wrapped__):
        return None
    if wanted and not acceptances.has_looked_for(new):
        cached.cache.try_earlier(cached, key, wanted)
    return acceptances.find(key, unread=call.is_lazy)


def _is_served(cached: MemoizedFunction, earlier: EarlierHit) -> bool:
    if not earlier.is_accepted:
        return False
    return not writes(cached.cache.config.mode) or not cached.cache.acceptances.is_audited(earlier)


def _reason_of_miss(cached: MemoizedFunction, key: Key, why: list[str]) -> str:
    asked = why[-1] if why else cached.ask(cached.cache.reasons.of, key, cached.cache)
    reason = asked if isinstance(asked, str) else ""
    if _log.isEnabledFor(logging.INFO):
        figures = {"function": key.function, "outcome": "miss", "reason": reason}
        _log.info("%s: %s", key.function, sentence_of_miss(cached, key, reason), extra=figures)
    return reason


def sentence_of_miss(cached: MemoizedFunction, key: Key, reason: str) -> str:
    """Return why a call missed, in one line."""
    answer = cached.ask(explain_briefly, cached, key, reason)
    return "miss" if isinstance(answer, Without) else answer.sentence()
