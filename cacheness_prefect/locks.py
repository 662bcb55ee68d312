"""Implement Prefect's locks with compute leases: one computation of a key at a time, on any machine.

Locks save work and do not affect correctness. A dead holder costs the duration of one lease;
without the database runs compute twice; and a run never waits for itself.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Collection, Generator, Iterator
from contextlib import suppress
from contextvars import Token
from dataclasses import dataclass
from typing import Final, Literal

from prefect.client.schemas.objects import TaskRunResult
from prefect.context import TaskRunContext
from prefect.locking.protocol import LockManager
from prefect.transactions import BaseTransaction, get_transaction

from cacheness import Config
from cacheness.jitter import between
from cacheness_prefect.block import CachenessBlock
from cacheness_prefect.error_reporting import shielded
from cacheness_prefect.run_figures import note_wait
from cacheness_prefect.run_metadata import hex_key_of, task_run_id
from cacheness_prefect.waiting import Steps, WaitStep, run_steps, run_steps_off_loop, turns

POLL_SECONDS: Final = 0.05  #: first pause of a run that waits for another process; doubles up to POLL_AT_MOST
POLL_AT_MOST: Final = 1.0


@dataclass(frozen=True, slots=True)
class Claim:
    """What a holder in this process has: a compute lease and its turn, or permission to continue without them."""

    token: str | None  #: None: computes unlocked, because the result is there, or waiting would be wrong


#: The database's answer to a request for a compute lease; "away": it does not answer.
Found = Literal["free", "there", "taken above", "taken by others", "away"]

_claims: dict[tuple[Config, str, str], Claim] = {}  #: by cache, key and holder; holders are unique among processes
_claims_lock = threading.RLock()


def _begin_in_child() -> None:
    """In a forked child, drop all leases: the parent holds and releases them."""
    _claims_lock._at_fork_reinit()  # type: ignore[attr-defined]  # noqa: SLF001 - as the standard library does
    _claims.clear()


os.register_at_fork(after_in_child=_begin_in_child)


class CachenessLockManager(LockManager):
    """Locks for Prefect's transactions, from compute leases.

    It contains only configuration, by which it is compared and pickled.

    Args:
        store: the storage block whose cache has the compute leases.
        wait: seconds to wait for another run of the same key.
        lease: seconds until the lease of a dead run ends.

    Args of several methods:
        key: Prefect's key of a result.
        holder: the transaction that locks.
        acquire_timeout: seconds to wait; None for `wait`.
        hold_timeout: seconds after which the lock ends by itself.
        timeout: seconds to wait; None for no limit.
    """

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
        """Take the lock of a key, and wait for another holder.

        It does not wait when the result exists, when an outer run computes the key, or when the
        database does not answer. The lock lasts until it is released, its process dies, or
        `hold_timeout` has passed.

        Returns:
            False if the time to wait is over.
        """
        return run_steps(self._acquire(key, holder, acquire_timeout, hold_timeout))

    async def aacquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        """Do the same as `acquire_lock`, and wait without a thread."""
        steps = self._acquire(key, holder, acquire_timeout, hold_timeout)
        return await run_steps_off_loop(steps, lambda: self.release_lock(key, holder))

    def release_lock(self, key: str, holder: str) -> None:
        """Release the lock of a key, if this holder has it."""
        with _claims_lock:
            claim = _claims.pop((*self._place(key), holder), None)
        if claim is not None and claim.token is not None:
            try:
                self._give_up(key, claim.token)
            finally:
                turns.pass_on(self._place(key))

    def is_locked(self, key: str) -> bool:
        """Return True when a key is locked.

        A process computes it, or a holder here took it and has lost the lease since.
        """
        with _claims_lock:
            place = self._place(key)
            claimed = any(at[:2] == place and claim.token is not None for at, claim in _claims.items())
        return claimed or self._holder(key) is not None

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Return True when a holder may write.

        It may from taking the lock until it releases it.

        This includes the time after its lease has run out, although another run may have computed
        the key: results of one key are equal, so it may write again. Prefect would roll back a run
        that may not write.
        """
        return self._claim_of(key, holder) is not None

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until no process computes the key.

        Returns:
            False if the timeout is over.
        """
        return run_steps(self._wait_until_free(key, timeout))

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:  # noqa: ASYNC109  Prefect's name
        """Do the same as `wait_for_lock`, and wait without a thread."""
        return await run_steps_off_loop(self._wait_until_free(key, timeout), lambda: None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CachenessLockManager) and self._settings() == other._settings()

    def __hash__(self) -> int:
        return hash((self.wait, self.lease))

    def _settings(self) -> tuple[object, ...]:
        return (self.store, self.wait, self.lease)

    def _expire(self, key: str, holder: str, token: str) -> None:
        claim = self._claim_of(key, holder)
        if claim is not None and claim.token == token:
            self.release_lock(key, holder)

    def _acquire(self, key: str, holder: str, acquire_timeout: float | None, hold_timeout: float | None) -> Steps:
        if self._claim_of(key, holder) is not None:
            return True
        self.store.require_usable()
        if not self.store.stores_results:  # each run computes its result
            with _claims_lock:
                _claims[(*self._place(key), holder)] = Claim(None)
            return True
        wait = self.wait if acquire_timeout is None else min(acquire_timeout, self.wait)
        give_up = time.monotonic() + wait
        token, acquired, waited = None, True, False
        began = time.monotonic()
        if not self._is_computed_above(key) and not shielded("lock a key", lambda: self._is_there(key), True):
            lease = self.lease if hold_timeout is None else min(hold_timeout, self.lease)
            token, acquired, waited = yield from self._wait_for_turn(key, holder, lease, give_up)
        if waited and token is None:
            note_wait(task_run_id(), time.monotonic() - began)
        # Prefect's transactions ignore the return value: after `wait` they continue, and must be allowed to write.
        if acquired or acquire_timeout is None:
            with _claims_lock:
                _claims[(*self._place(key), holder)] = Claim(token)
        if token is not None and hold_timeout is not None:
            timer = threading.Timer(hold_timeout, self._expire, (key, holder, token))
            timer.daemon = True
            with suppress(RuntimeError):  # no thread can be started; the lease runs out by itself
                timer.start()
        return acquired

    def _wait_for_turn(
        self, key: str, holder: str, lease: float, give_up: float
    ) -> Generator[WaitStep, None, tuple[str | None, bool, bool]]:
        """Wait within this process, then among all.

        Returns:
            The token of the lease; whether the run may continue; whether it waited for another one.
        """
        place, run = self._place(key), task_run_id()
        above = _runs_above() | ({run} - {""})
        turn, token = turns.ask(place, run, above), None
        looked, pause = turn.done(), POLL_SECONDS
        waited = not looked
        try:
            while not turn.done():
                left = give_up - time.monotonic()
                if left <= 0 and turn.cancel():
                    return None, False, waited
                # The run with the turn may be done, and keep the turn until an outer task of both
                # runs ends, which waits for us.
                if self._is_computed_above(key) and turn.cancel():
                    return None, True, waited
                yield WaitStep(max(min(left, pause), 0.0), turn)
                pause = min(2 * pause, POLL_AT_MOST)
            if not turn.result():
                return None, True, waited
            token, found, waited_for_lease = yield from self._take_lease(
                key, f"{run}:{holder}", lease, give_up, above, looked=looked
            )
            if found == "there":
                turns.end(place)
            elif token is None:
                turns.pass_on(place)
            return token, found != "taken by others", waited or waited_for_lease
        except BaseException:
            if not turn.cancel() and turn.result():
                turns.pass_on(place)
            raise

    def _take_lease(
        self, key: str, name: str, lease: float, give_up: float, above: Collection[str], *, looked: bool
    ) -> Generator[WaitStep, None, tuple[str | None, Found, bool]]:
        token = f"{name}:{uuid.uuid4().hex[:8]}"
        pause, waited = POLL_SECONDS, False
        while True:
            found = self._ask_database(key, token, lease, above, looked=looked)
            if found == "free":
                return token, found, waited
            if found != "taken by others" or time.monotonic() >= give_up:
                return None, found, waited
            waited = True
            yield WaitStep(min(pause * between(0.5, 1.0), max(give_up - time.monotonic(), 0.0)))
            pause, looked = min(2 * pause, POLL_AT_MOST), False

    def _ask_database(self, key: str, token: str, lease: float, above: Collection[str], *, looked: bool) -> Found:
        def ask() -> Found:
            leases, hex_key = self.store.open().compute_leases, hex_key_of(key)
            if not looked and self._is_there(key):
                return "there"
            if not leases.acquire(hex_key, token, lease=lease):
                return "taken above" if _is_above(leases.holder(hex_key), above) else "taken by others"
            if self._is_there(key):  # stored between the check and the lease
                self._give_up(key, token)
                return "there"
            return "free"

        away: Found = "away"
        return shielded("lock a key", ask, away)

    def _wait_until_free(self, key: str, timeout: float | None) -> Steps:
        give_up = time.monotonic() + (self.wait if timeout is None else min(timeout, self.wait))
        above, pause = _runs_above() | ({task_run_id()} - {""}), POLL_SECONDS
        while (
            not self._is_computed_above(key)
            and (other := self._holder(key)) is not None
            and not _is_above(other, above)
        ):
            if time.monotonic() >= give_up:
                return False
            yield WaitStep(min(pause * between(0.5, 1.0), max(give_up - time.monotonic(), 0.0)))
            pause = min(2 * pause, POLL_AT_MOST)
        return True

    def _is_there(self, key: str) -> bool:
        return bool(self.store.open().present([hex_key_of(key)]))

    def _give_up(self, key: str, token: str) -> None:
        shielded("unlock a key", lambda: self.store.open().compute_leases.release(hex_key_of(key), token), None)

    def _place(self, key: str) -> tuple[Config, str]:
        return (self.store.config(), key)

    def _claim_of(self, key: str, holder: str) -> Claim | None:
        with _claims_lock:
            return _claims.get((*self._place(key), holder))

    def _is_computed_above(self, key: str) -> bool:
        """Return True when an outer transaction holds this key, or a nested one that waits for the outer commit."""
        around = (transaction for transaction in _transactions_around() if transaction.key == key)
        return any(self._claim_of(key, transaction._holder) is not None for transaction in around)  # noqa: SLF001

    def _holder(self, key: str) -> str | None:
        if not self.store.stores_results:
            return None
        return shielded("look up a lock", lambda: self.store.open().compute_leases.holder(hex_key_of(key)), None)


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


def _is_above(token: str | None, above: Collection[str]) -> bool:
    """Return True when a lease belongs to one of these task runs."""
    return token is not None and token.partition(":")[0] in above


def _runs_above() -> set[str]:
    """Return the task runs that may wait for this one: outer runs in this process, or recorded as their parents.

    Prefect passes only the submitting run's context to another process, and a run records only its
    parents. So the context contains all outer runs in this process, and two processes up.
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
    """Return the outer task run's context, which the token of this one will restore."""
    token = context._token  # noqa: SLF001  Prefect has no public way up; its own transactions go this one
    around = Token.MISSING if token is None else token.old_value
    return around if isinstance(around, TaskRunContext) else None
