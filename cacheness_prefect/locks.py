"""Prefect's locks on the cache's flights: one computation of a key at a time, on any machine.

An economy and never a matter of correctness. A dead holder costs one lease; a dead database costs
nothing but the economy; and a run never waits for itself.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextvars import Token
from dataclasses import dataclass, replace

from prefect.client.schemas.objects import TaskRunResult
from prefect.context import TaskRunContext
from prefect.locking.protocol import LockManager
from prefect.transactions import BaseTransaction, TransactionState, get_transaction

from cacheness_prefect.block import CachenessBlock
from cacheness_prefect.notes import flight_of, task_run_id
from cacheness_prefect.trouble import shielded

POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Claim:
    """What a holder in this process has: a flight, or leave to go on without one."""

    token: str | None  #: None: computes unlocked, because the result is there, or to wait would be wrong
    shared: bool = False  #: with a nested run of the same key, which may store the result first


_claims: dict[tuple[str, str], Claim] = {}  #: by key and holder; holders are unique among processes
_claims_lock = threading.RLock()


def _begin_in_child() -> None:
    """Hold nothing in a forked child: the claims are the parent's, who releases them."""
    _claims_lock._at_fork_reinit()  # type: ignore[attr-defined]  # noqa: SLF001 - as the standard library does
    _claims.clear()


os.register_at_fork(after_in_child=_begin_in_child)


class CachenessLockManager(LockManager):
    """Locks for Prefect's transactions. Configuration only; compares and pickles by it."""

    def __init__(self, store: CachenessBlock, *, wait: float = 600.0, lease: float = 30.0) -> None:
        self.store = store
        self.wait = wait
        self.lease = lease

    def acquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        """Claim the computation of a key, waiting for whoever computes it now; False after `wait`.

        Does not wait when the result is there, when the key is being computed further up in the
        same run, or when the database does not answer. A claim lasts until it is released, its
        process dies, or `hold_timeout` is over.
        """
        if _claim_of(key, holder) is not None:
            return True
        unlocked: tuple[bool, str | None] = (True, None)
        if _is_computed_above(key):
            _share(key)
            acquired, token = unlocked
        else:
            acquired, token = shielded(
                "lock a key", lambda: self._fly(key, holder, acquire_timeout, hold_timeout), unlocked
            )
        # Prefect's transactions do not look at the answer: after `wait` they go on, and must be let write.
        if acquired or acquire_timeout is None:
            with _claims_lock:
                _claims[key, holder] = Claim(token)
        if token is not None and hold_timeout is not None:
            timer = threading.Timer(hold_timeout, self._expire, (key, holder, token))
            timer.daemon = True
            timer.start()
        return acquired

    async def aacquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        """`acquire_lock`, off the event loop."""
        return await asyncio.to_thread(self.acquire_lock, key, holder, acquire_timeout, hold_timeout)

    def release_lock(self, key: str, holder: str) -> None:
        """Give a claim up. One that is gone already is no error."""
        with _claims_lock:
            claim = _claims.pop((key, holder), None)
        if claim is not None and claim.token is not None:
            flight, token = flight_of(key), claim.token
            shielded("unlock a key", lambda: self.store.open().flights.release(flight, token), None)

    def is_locked(self, key: str) -> bool:
        """Whether somebody computes this key; also true for a holder here that has lost its lease."""
        with _claims_lock:
            claimed = any(k == key and claim.token is not None for (k, _), claim in _claims.items())
        return claimed or self._holder(key) is not None

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether a holder may write. False when its lease ran out and somebody else took over or finished.

        A lease that ran out while nobody else wanted the key (a laptop slept) harms nobody: its holder may write.
        """
        claim = _claim_of(key, holder)
        if claim is None or claim.token is None:
            return claim is not None
        return shielded("look up a lock", lambda: self._is_still(key, claim), True)

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody computes the key; False after the timeout."""
        give_up = time.monotonic() + (self.wait if timeout is None else min(timeout, self.wait))
        above = _runs_above()
        while (other := self._holder(key)) is not None and not _is_above(other, above):
            if _is_computed_above(key):
                break
            if time.monotonic() >= give_up:
                return False
            time.sleep(POLL_SECONDS)
        return True

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:  # noqa: ASYNC109  Prefect's name
        """`wait_for_lock`, off the event loop."""
        return await asyncio.to_thread(self.wait_for_lock, key, timeout)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CachenessLockManager) and self._settings() == other._settings()

    def __hash__(self) -> int:
        return hash((self.wait, self.lease))

    def _settings(self) -> tuple[object, ...]:
        return (self.store, self.wait, self.lease)

    def _expire(self, key: str, holder: str, token: str) -> None:
        claim = _claim_of(key, holder)
        if claim is not None and claim.token == token:
            self.release_lock(key, holder)

    def _fly(
        self, key: str, holder: str, acquire_timeout: float | None, hold_timeout: float | None
    ) -> tuple[bool, str | None]:
        cache, flight = self.store.open(), flight_of(key)
        token = f"{task_run_id()}:{holder}:{uuid.uuid4().hex[:8]}"
        leave = False
        above = _runs_above()

        def need_not_wait() -> bool:
            nonlocal leave
            leave = bool(cache.present([flight])) or (bool(above) and _is_above(cache.flights.holder(flight), above))
            return leave

        if need_not_wait():
            return True, None
        wait = self.wait if acquire_timeout is None else min(acquire_timeout, self.wait)
        lease = self.lease if hold_timeout is None else min(hold_timeout, self.lease)
        taken = cache.flights.acquire(flight, token, wait=wait, lease=lease, unless=need_not_wait)
        return (True, token) if taken else (leave, None)

    def _is_still(self, key: str, claim: Claim) -> bool:
        # A result that is there now was not when the claim was made: somebody else computed it,
        # after our lease ran out, even if the flight is free, or ours, again.
        cache, flight = self.store.open(), flight_of(key)
        untaken = cache.flights.holder(flight) in (None, claim.token)
        return untaken and (claim.shared or not cache.present([flight]))

    def _holder(self, key: str) -> str | None:
        return shielded("look up a lock", lambda: self.store.open().flights.holder(flight_of(key)), None)


def _claim_of(key: str, holder: str) -> Claim | None:
    with _claims_lock:
        return _claims.get((key, holder))


def _is_computed_above(key: str) -> bool:
    """Whether this key is being computed by a transaction that we are part of, or waits in it to be committed."""
    return any(t.key == key and t.state is not TransactionState.COMMITTED for t in _transactions_around())


def _transactions_around() -> Iterator[BaseTransaction]:
    transaction = get_transaction()
    while transaction is not None:
        yield transaction
        yield from _below(transaction)
        transaction = transaction.get_parent()


def _below(transaction: BaseTransaction) -> Iterator[BaseTransaction]:
    for child in transaction.children:
        yield child
        yield from _below(child)


def _share(key: str) -> None:
    with _claims_lock:
        for place, claim in _claims.items():
            if place[0] == key:
                _claims[place] = replace(claim, shared=True)


def _is_above(token: str | None, above: set[str]) -> bool:
    """Whether a flight belongs to one of these task runs."""
    return token is not None and token.partition(":")[0] in above


def _runs_above() -> set[str]:
    """The task runs that may be waiting for ours: around us in this process, or noted as the parents of those.

    Prefect takes one context along to another process, that of the run which submits; and a run notes
    its parents alone. So a run knows all that is above it in its own process, and two processes up.
    """
    found: set[str] = set()
    context = TaskRunContext.get()
    while context is not None:
        parents = context.task_run.task_inputs.get("__parents__", [])
        found |= {str(run.id) for run in parents if isinstance(run, TaskRunResult)}
        context = _context_around(context)
        if context is not None:
            found.add(str(context.task_run.id))
    return found - {task_run_id()}  # Prefect enters a run's context twice


def _context_around(context: TaskRunContext) -> TaskRunContext | None:
    """The task run's context that this one was entered in, as the token tells that will restore it."""
    token = context._token  # noqa: SLF001  Prefect has no public way up; its own transactions go this one
    around = Token.MISSING if token is None else token.old_value
    return around if isinstance(around, TaskRunContext) else None
