"""Implement the metadata store's calls that are the same SQL on both databases."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from cacheness.errors import SchemaMismatch, StoreFull
from cacheness.keys import FunctionCode
from cacheness.metadata.folding import ENDED, KEPT, bounds_by_function, bounds_by_hour, folded
from cacheness.metadata.sql.schema import MINIMUM_READER, SCHEMA_VERSION
from cacheness.metadata.sql.statements import (
    CODE,
    COLUMNS,
    DISPUTE,
    EQUIVALENCE,
    Statement,
    Statements,
    entry_of,
    lead_of,
    row_of,
    values_of,
)
from cacheness.records import (
    HOUR,
    MICROSECONDS,
    Activity,
    Candidate,
    Deleted,
    Dispute,
    Entry,
    Equivalence,
    Holdings,
    Presence,
    Process,
    Quota,
    SessionInfo,
    Totals,
    Use,
    Where,
    may_replace,
)

#: The process of a session that this database has never had.
_NOBODY: Final = Process(host="", boot_id="", pid_ns="", pid=0, pid_start="")

#: Columns of `activity`: its key columns, and its counts.
_PLACE: Final = ("span", "hour", "function", "outcome", "reason", "who")
_SUMS: Final = ("calls", "seconds_spent", "seconds_saved", "bytes")

T = TypeVar("T")
Row = Sequence[Any]
Values = Mapping[str, Any]

#: Keys in one statement; fewer when inline bytes are read, up to 32 KiB each.
PRESENCE_BATCH: Final = 10_000
LOOKUP_BATCH: Final = 1000
#: Rows that one transaction writes, if they need not be written together.
WRITE_BATCH: Final = 1000
#: Rows that one transaction deletes.
DELETE_BATCH: Final = 1000
NARROW_BATCH: Final = 20  #: … on a full disk
LAST_TIME: Final = (1 << 63) - 1

_Place: TypeAlias = tuple[int, bytes]  #: a time, if relevant, and a key


class Transaction(Protocol):
    """An open transaction. All of its statements take effect, or none."""

    def run(self, statement: Statement, values: Values) -> list[Row]:
        """Run a statement; return its rows."""
        ...

    def run_many(self, statement: Statement, values: Sequence[Values]) -> int:
        """Run a statement for each set of values; return the number of changed rows."""
        ...


class SqlStore(ABC):
    """Metadata store on top of three ways to reach a database."""

    def __init__(self, statements: Statements) -> None:
        self._sql = statements
        self._delete_batch = DELETE_BATCH

    @abstractmethod
    def _query(self, statement: Statement, values: Values) -> list[Row]:
        """Run one statement that may be repeated; return its rows."""

    @abstractmethod
    def _change(self, statement: Statement, values: Values, *, lasting: bool = True, deletes: bool = False) -> int:
        """Run one statement that may be repeated; return the number of changed rows.

        A power cut may undo a statement that is not `lasting`, if that makes it faster. A statement
        that `deletes`, or is needed to delete, may use the reserved space on a full disk.
        """

    @abstractmethod
    def _long_query(self, statement: Statement, values: Values) -> list[Row]:
        """Run a statement that may read every row, and may take longer; return its rows."""

    def _sum_up(self, statement: Statement, values: Values) -> list[Row]:
        """Run a statement that groups much of the figures; return its rows."""
        return self._long_query(statement, values)

    @abstractmethod
    def _transact(
        self,
        work: Callable[[Transaction], T],
        *,
        long: bool = False,
        lasting: bool = True,
        deletes: bool = False,
        rows: int = 1,
    ) -> T:
        """Run `work`, which writes so many `rows`, in one transaction; repeat it after a conflict."""

    def _change_each(self, statement: Statement, values: Sequence[Values], *, deletes: bool = False) -> None:
        """Run a statement without sync for each set of values, a thousand at a time."""
        for start in range(0, len(values), WRITE_BATCH):
            some = values[start : start + WRITE_BATCH]
            self._transact(
                lambda transaction, some=some: transaction.run_many(statement, some),  # type: ignore[misc]
                lasting=False,
                deletes=deletes,
                rows=len(some),
            )

    @abstractmethod
    def now(self) -> int:
        """Return microseconds since the epoch by the database's clock; costs no round trip."""

    @abstractmethod
    def measure_clock(self) -> None:
        """Read the database's clock, so that `now()` follows when it is set."""

    # entries

    def find(self, namespace: str, key: bytes) -> Entry | None:
        """Return one row by its key, expired or not, in one round trip."""
        rows = self._query(self._sql.find, {"namespace": namespace, "key": key})
        return entry_of(rows[0]) if rows else None

    def last_change(self) -> object | None:
        """Return None: asking a server takes as long as reading a row."""
        return None

    def find_many(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        """Return rows by their keys, one statement per 1,000."""
        found = map(entry_of, self._lookup(self._sql.find_many, LOOKUP_BATCH, namespace, keys))
        return {entry.key: entry for entry in found}

    def present(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, Presence]:
        """Return the keys that have an unexpired row; one statement per 10,000, no inline bytes."""
        found = self._lookup(self._sql.present, PRESENCE_BATCH, namespace, keys, now=self.now())
        return {
            key: Presence(size, raw_size, seconds, outputs, created_at, link)
            for key, size, raw_size, seconds, outputs, created_at, link in found
            if isinstance(size, int) and isinstance(raw_size, int)
        }

    def find_by_alias(self, namespace: str, alias: bytes) -> list[Entry]:
        """Return some entries with this alias, newest first, without links and disputed ones."""
        found = self._query(self._sql.by_alias, {"namespace": namespace, "alias": alias})
        return sorted(map(entry_of, found), key=lambda entry: entry.created_at, reverse=True)

    def named_codes(self, namespace: str, digests: Sequence[bytes]) -> set[bytes]:
        """Return which of these digests an entry names as its `fn`; one statement per 10,000."""
        return {row[0] for row in self._lookup(self._sql.named_codes, PRESENCE_BATCH, namespace, digests)}

    def keys_by_value(self, namespace: str, values: Sequence[bytes]) -> dict[bytes, list[bytes]]:
        """Return the keys of entries whose value has one of these digests, by digest."""
        found: dict[bytes, list[bytes]] = {}
        for value, key in self._lookup(self._sql.keys_by_value, PRESENCE_BATCH, namespace, values):
            found.setdefault(value, []).append(key)
        return {value: sorted(found[value]) for value in sorted(found)}

    def scan(self, where: Where, *, after: bytes = b"", limit: int = 1000) -> list[Entry]:
        """Return the first `limit` matching entries with a key greater than `after`, in key order."""
        if where.keys is not None:
            where = replace(where, keys=tuple(key for key in where.keys if key > after))
        values = {**values_of(where, self._sql.keys), "after": after, "limit": limit, "now": self.now()}
        return [entry_of(row) for row in self._long_query(self._sql.page("scan", where), values)]

    def newest(self, where: Where, *, before: tuple[int, bytes] | None = None, limit: int = 1000) -> list[Entry]:
        """Return the newest matching entries before `before` (a time and key), newest first."""
        at, key = before or (LAST_TIME, b"")
        values = {**values_of(where, self._sql.keys), "at": at, "before": key, "limit": limit, "now": self.now()}
        return [entry_of(row) for row in self._query(self._sql.page("newest", where), values)]

    def sample(self, namespace: str, start: bytes, limit: int) -> list[Candidate]:
        """Return neighbours in key order, starting at a key and wrapping around."""
        statement, values = self._sql.sample(limit), {"namespace": namespace, "key": start}
        found = self._query(statement, values)
        if len(found) < limit:
            more = self._query(statement, {**values, "key": b""})
            found += [row for row in more[: limit - len(found)] if row[0] < start]
        return [Candidate(*row) for row in found if isinstance(row[0], bytes) and len(row[0]) == 32]

    def functions(self, namespace: str) -> list[str]:
        """Return the functions that entries name, each once, sorted."""
        return sorted(row[0] for row in self._long_query(self._sql.functions, {"namespace": namespace}))

    def swap(self, old: Entry, new: Entry) -> bool:
        """Replace expiry and signature of a row that still equals `old`."""
        before = {f"old_{name}": value for name, value in zip(COLUMNS, row_of(old), strict=True)}
        after = {f"new_{name}": value for name, value in zip(COLUMNS, row_of(new), strict=True)}
        key = {"namespace": old.namespace, "key": old.key}
        return self._change(self._sql.swap, {**key, **before, **after}) == 1

    def delete(self, where: Where, *, most: int | None = None, waits: bool = True, lasting: bool = True) -> Deleted:
        """Delete matching rows, in batches, each with its tombstones in one transaction."""
        if where.functions is not None and len(where.functions) > 1 and lead_of(where) is not None:
            each = [self.delete(replace(where, functions=(name,)), waits=waits) for name in where.functions]
            return Deleted(sum(one.entries for one in each), tuple(name for one in each for name in one.blobs))
        deleted, blobs, is_full = 0, list[str](), False
        after: _Place | None = (0, b"")
        while after is not None and (most is None or deleted < most):
            limit = NARROW_BATCH if is_full else self._delete_batch
            wanted = limit if most is None else min(limit, most - deleted)
            try:
                batch, after = self._delete_after(where, after, wanted, waits=waits, lasting=lasting)
            except StoreFull:
                if is_full:
                    raise
                is_full = True  # so few that the reserved space is enough
                continue
            deleted += len(batch)
            blobs += [name for name in batch if name is not None]
        if blobs and not lasting:
            self._sync()
        return Deleted(deleted, tuple(blobs))

    def record_use(self, namespace: str, uses: Mapping[bytes, tuple[int, int]]) -> None:
        """Add hits and raise `accessed_at`: key -> (hits, microseconds). Keys without an entry are skipped."""
        # In key order, like every transaction that locks several rows: two of them never deadlock.
        rows = [{"namespace": namespace, "key": key, "uses": uses[key][0], "at": uses[key][1]} for key in sorted(uses)]
        for start in range(0, len(rows), WRITE_BATCH):
            some = rows[start : start + WRITE_BATCH]

            def record(transaction: Transaction, some: Sequence[Values] = some) -> None:
                transaction.run_many(self._sql.record_use, some)

            self._transact(record, lasting=False, rows=len(some))

    def uses(self, namespace: str, keys: Sequence[bytes]) -> dict[bytes, Use]:
        """Return when the entries under these keys were last used, and how often."""
        return {row[0]: Use(*row[1:]) for row in self._lookup(self._sql.uses, PRESENCE_BATCH, namespace, keys)}

    def totals(self, namespace: str) -> Totals:
        """Return the kept totals: entries and bytes."""
        [row] = self._query(self._sql.totals, {"namespace": namespace})
        return Totals(*row)

    def recount(self, namespace: str, *, correct: bool) -> tuple[int, int]:
        """Return by how many entries and bytes the kept totals are too low; `correct` adds the difference."""
        if not correct:
            [row] = self._long_query(self._sql.recount, {"namespace": namespace})
            return row[0], row[1]
        return self._transact(lambda transaction: self._correct(transaction, namespace), long=True, deletes=True)

    def _correct(self, transaction: Transaction, namespace: str) -> tuple[int, int]:
        [(entries, size)] = transaction.run(self._sql.recount, {"namespace": namespace})
        if entries or size:
            missing = {"namespace": namespace, "entries": entries, "bytes": size}
            transaction.run_many(self._sql.correct_totals, [missing])
        return entries, size

    # figures

    def record_activity(self, namespace: str, who: str, rows: Sequence[Activity]) -> None:
        """Replace the figures that a process wrote for the same hours by these."""
        values = [{"namespace": namespace, "who": who, **asdict(row)} for row in rows]
        self._change_each(self._sql.record_activity, values)

    def fold_activity(self, namespace: str, most: int) -> int:
        """Add up to `most` old rows of figures to others, or drop those that were added; return how many."""
        hour = self.now() // HOUR

        def fold(transaction: Transaction) -> int:
            page = {"namespace": namespace, "before": hour - ENDED, "limit": most}
            found = list(transaction.run(self._sql.ended_activity, page))
            for span, kept in KEPT.items():
                page |= {"span": span, "before": hour - kept, "limit": most - len(found)}
                found += transaction.run(self._sql.old_activity, page) if len(found) < most else []
            rows = [((*row[:6],), (*row[6:],)) for row in found]
            old = [{"namespace": namespace, **dict(zip(_PLACE, place, strict=True))} for place, _ in rows]
            more = [
                {"namespace": namespace, **dict(zip((*_PLACE, *_SUMS), (*place, *sums), strict=True))}
                for place, sums in folded(rows).items()
            ]
            if old:
                transaction.run_many(self._sql.delete_activity, old)
            if more:
                transaction.run_many(self._sql.add_activity, more)
            return len(old)

        return self._transact(fold, lasting=False, deletes=True, rows=most)

    def activity(self, namespace: str, since: int | None = None) -> list[Activity]:
        """Return calls since an hour, or ever, by function, outcome and reason."""
        if since is None:
            found = self._sum_up(self._sql.all_activity, {"namespace": namespace})
        else:
            bounds = bounds_by_function(since)
            found = self._sum_up(self._sql.activity_since, {"namespace": namespace, **bounds})
        return [Activity(*row) for row in found]

    def activity_by_hour(self, namespace: str, since: int) -> list[Activity]:
        """Return calls in each span since an hour, for all functions and reasons together."""
        bounds = bounds_by_hour(since, self.now() // HOUR)
        found = self._sum_up(self._sql.activity_by_hour, {"namespace": namespace, **bounds})
        return [Activity(*row) for row in found]

    # quotas

    def holdings(self, namespace: str) -> Holdings:
        """Return what the namespace holds, its quota, and when it was last maintained."""
        [(entries, size, max_bytes, max_entries, policy, at)] = self._query(
            self._sql.holdings, {"namespace": namespace}
        )
        return Holdings(entries, size, Quota(max_bytes, max_entries, policy or "lru"), at or 0)

    def set_quota(self, namespace: str, quota: Quota) -> bool:
        """Set the namespace's quota; return whether it changed."""
        values = {name: getattr(quota, name) for name in ("max_bytes", "max_entries", "policy")}
        return self._change(self._sql.set_quota, {"namespace": namespace, **values}, deletes=True) > 0

    def note_maintenance(self, namespace: str) -> None:
        """Record that a process maintains the namespace now."""
        self._change(self._sql.note_maintenance, {"namespace": namespace}, lasting=False, deletes=True)

    # reasons for results that are not stored

    def note_unstored(self, namespace: str, reasons: Mapping[bytes, str]) -> None:
        """Store the reasons why results of keys were not stored: key -> reason."""
        rows = [{"namespace": namespace, "key": key, "reason": reasons[key]} for key in sorted(reasons)]
        self._change_each(self._sql.note_unstored, rows)

    def unstored(self, namespace: str, keys: Sequence[bytes], age: int) -> dict[bytes, str]:
        """Return the reasons that were recorded at most so many microseconds ago; one statement per 10,000 keys."""
        found = self._lookup(self._sql.unstored, PRESENCE_BATCH, namespace, keys, age=age, now=self.now())
        return {row[0]: row[1] for row in found if isinstance(row[1], str)}

    def delete_unstored(self, namespace: str, age: int) -> None:
        """Drop the reasons that were recorded longer ago than this, in microseconds."""
        self._change(self._sql.delete_unstored, {"namespace": namespace, "age": age, "now": self.now()}, deletes=True)

    # the code that made results

    def note_functions(self, namespace: str, functions: Sequence[FunctionCode]) -> None:
        """Store rows, and that they were seen today, unless that is stored already; a power cut may undo this."""
        rows = {
            code.digest: {"digest": code.digest, **{name: getattr(code, name) for name in CODE}} for code in functions
        }
        # In their order, like every transaction that locks several rows.
        self._change_each(self._sql.note_function, [{"namespace": namespace, **rows[d]} for d in sorted(rows)])

    def function_codes(self, namespace: str, digests: Sequence[bytes]) -> dict[bytes, FunctionCode]:
        """Return the rows under many digests; one statement per 1,000."""
        found = self._lookup(self._sql.function_codes, LOOKUP_BATCH, namespace, digests)
        return {row[0]: FunctionCode(*row[1:]) for row in found if all(isinstance(text, str) for text in row[1:])}

    def forget_functions(self, namespace: str, age: int, most: int) -> int:
        """Drop rows that were not seen for so long and that no entry names; return how many were checked."""

        def forget(transaction: Transaction) -> int:
            values = {"namespace": namespace, "age": age, "now": self.now(), "limit": most}
            found = transaction.run(self._sql.old_functions, values)
            for statement, is_named in ((self._sql.see_function, True), (self._sql.delete_function, False)):
                these = sorted(row[0] for row in found if bool(row[1]) == is_named)
                transaction.run_many(statement, [{"namespace": namespace, "digest": digest} for digest in these])
            return len(found)

        return self._transact(forget, lasting=False, deletes=True, rows=most)

    # disputes

    def dispute(self, namespace: str, dispute: Dispute, most: int) -> bool:
        """Stop serving the entry under a key; return False if its function has `most` disputes of the last day."""
        values = {"namespace": namespace, "function": dispute.function, "now": self.now()}
        if self._query(self._sql.count_disputes, values)[0][0] >= most:
            return False
        row = {name: getattr(dispute, name) for name in DISPUTE if name != "namespace"}
        self._change(self._sql.dispute, {"namespace": namespace, **row})
        return True

    def disputes(self, namespace: str, keys: Sequence[bytes] | None = None) -> list[Dispute]:
        """Return the disputes about entries that still exist, in key order; of these keys, or of all."""
        if keys is None:
            return [Dispute(*row) for row in self._long_query(self._sql.disputes, {"namespace": namespace})]
        return [Dispute(*row) for row in self._lookup(self._sql.disputes_of, PRESENCE_BATCH, namespace, keys)]

    def settle(self, namespace: str, keys: Collection[bytes]) -> int:
        """Drop the disputes about these keys; return how many there were."""
        these = self._sql.keys(sorted(keys))
        return self._change(self._sql.settle, {"namespace": namespace, "keys": these}, deletes=True)

    def delete_stale_disputes(self, namespace: str) -> None:
        """Drop the disputes about entries that are deleted or replaced."""
        self._change(self._sql.delete_stale_disputes, {"namespace": namespace}, lasting=False, deletes=True)

    # equivalences

    def equivalences(self, namespace: str) -> list[Equivalence]:
        """Return the equivalences of a namespace, by their fingerprints; a thousand at most."""
        return [Equivalence(*row) for row in self._query(self._sql.equivalences, {"namespace": namespace})]

    def find_equivalent(self, namespace: str, new: bytes, keys: Sequence[bytes]) -> list[tuple[Entry, Equivalence]]:
        """Return each undisputed row under one of a few keys, with each current equivalence of this fingerprint."""
        values = {"namespace": namespace, "new": new, "keys": self._sql.keys(sorted(set(keys)))}
        found = self._query(self._sql.find_equivalent, values)
        return [(entry_of(row[: len(COLUMNS)]), Equivalence(*row[len(COLUMNS) :])) for row in found]

    def set_equivalence(self, equivalence: Equivalence) -> bool:
        """Write an equivalence. Return False, and change nothing, if the existing one has ended."""
        row = {name: getattr(equivalence, name) for name in EQUIVALENCE}
        return self._change(self._sql.set_equivalence, row) > 0

    def delete_equivalence(self, namespace: str, new: bytes, old: bytes) -> bool:
        """Delete an equivalence; return False if there is none."""
        pair = {"namespace": namespace, "new": new, "old": old}
        return self._change(self._sql.delete_equivalence, pair, deletes=True) > 0

    def delete_old_equivalences(self, namespace: str, before: int) -> None:
        """Drop the equivalences from before a time, in microseconds since the epoch."""
        values = {"namespace": namespace, "before": before}
        self._change(self._sql.delete_old_equivalences, values, lasting=False, deletes=True)

    # tombstones

    def tombstones(self, prefix: str = "", *, after: str = "", limit: int = 1000) -> list[str]:
        """Return blobs that wait to be deleted, sorted by name."""
        values = {"first": prefix, "last": prefix + "\U0010ffff", "after": after, "limit": limit}
        return [row[0] for row in self._query(self._sql.tombstones, values)]

    def clear_tombstones(self, blobs: Collection[str]) -> None:
        """Delete the tombstones of deleted blobs."""
        names = [{"name": name} for name in sorted(blobs)]
        self._change_each(self._sql.clear_tombstone, names, deletes=True)

    # sessions

    def end_session(self, session: str) -> None:
        """Mark a session as ended; waits for its running commit."""
        self._change(self._sql.retire, {"session": session, "new_state": "ended"}, deletes=True)

    def live_sessions(self) -> list[SessionInfo]:
        """Return sessions that are not fenced or ended."""
        return [_session_of(row) for row in self._query(self._sql.live_sessions, {})]

    def dead_sessions(self, sessions: Collection[str]) -> set[str]:
        """Return which of these are fenced or ended, and so will never commit again."""
        these = self._sql.keys(sorted(sessions))
        return {row[0] for row in self._query(self._sql.retired_sessions, {"keys": these})}

    def condemn(self, sessions: Collection[str]) -> set[str]:
        """Fence those of these sessions that this database does not know; return them.

        Checked by a write, so that a lagging replica cannot answer: a session that it does not know may be a new one.
        """
        rows = [{**new_session(_NOBODY), "id": session, "state": "fenced"} for session in sorted(sessions)]

        def work(transaction: Transaction) -> set[str]:
            return {row["id"] for row in rows if transaction.run(self._sql.condemn, row)}

        return self._transact(work, deletes=True, rows=len(rows)) if rows else set()

    def delete_sessions(self, age: int) -> int:
        """Drop the rows of sessions fenced or ended longer ago than this, in microseconds; return how many."""
        return self._change(self._sql.delete_sessions, {"age": age, "now": self.now()})

    def exclusive(self) -> AbstractContextManager[None]:
        """Do nothing: sessions keep writers and repairs apart."""
        return nullcontext()

    # checks

    def damage(self, *, whole: bool) -> list[str] | None:
        """Return nothing: a server's pages are checked by its own tools, such as PostgreSQL's `amcheck`."""
        return None

    def check_times(self, namespace: str) -> dict[int, int]:
        """Return when each shard was last checked deeply: first byte of its keys -> microseconds."""
        return {row[0]: row[1] for row in self._query(self._sql.check_times, {"namespace": namespace})}

    def record_checks(self, namespace: str, shards: Sequence[int], at: int) -> None:
        """Record that shards were checked deeply.

        Not lasting: a shard whose record a power cut undoes is read once more.
        """
        rows = [{"namespace": namespace, "shard": shard, "at": at} for shard in sorted(shards)]
        self._change_each(self._sql.record_check, rows)

    # compute leases

    def take_compute_lease(self, namespace: str, key: bytes, token: str, seconds: float) -> bool:
        """Take or renew the right to compute a key; return False when another token holds it."""
        values = {"namespace": namespace, "key": key, "token": token, "microseconds": int(seconds * MICROSECONDS)}
        return self._change(self._sql.take_compute_lease, values, lasting=False) == 1

    def end_compute_lease(self, namespace: str, key: bytes, token: str) -> None:
        """Release a compute lease. One that is gone, or another token's, is not changed."""
        self._change(self._sql.end_compute_lease, {"namespace": namespace, "key": key, "token": token}, lasting=False)

    def compute_lease_holder(self, namespace: str, key: bytes) -> str | None:
        """Return the token that holds a key's compute lease, or None."""
        rows = self._query(self._sql.compute_lease_holder, {"namespace": namespace, "key": key})
        return rows[0][0] if rows else None

    # the store itself

    def begin_epoch(self, epoch: str) -> None:
        """Put a new repair's random epoch before the last ones, atomically."""
        self._change(self._sql.begin_epoch, {"new_epoch": epoch}, deletes=True)

    def is_unused(self) -> bool:
        """Return True when this database is unused: no repair, no session and no entry with a blob."""
        [(epoch, sessions, blobs)] = self._long_query(self._sql.usage, {})
        return "," not in epoch and not sessions and not blobs

    def _lookup(
        self, statement: Statement, batch: int, namespace: str, keys: Sequence[bytes], **more: Any
    ) -> Iterable[Row]:
        keys = [key for key in keys if len(key) == 32]  # other keys are in none of our rows, and would hide these
        for start in range(0, len(keys), batch):
            some = self._sql.keys(keys[start : start + batch])
            yield from self._query(statement, {"namespace": namespace, "keys": some, **more})

    @abstractmethod
    def _sync(self) -> None:
        """Sync earlier commits that were not `lasting`.

        A blob must not be deleted before the deletion of its row is durable.
        """

    def _delete_after(
        self, where: Where, after: _Place, limit: int, *, waits: bool, lasting: bool
    ) -> tuple[list[str | None], _Place | None]:
        """Delete a batch; return its blobs, and where the next batch begins, None after the last."""
        these, last = where, None
        if where.keys is not None:
            keys = sorted(key for key in where.keys if key > after[1])
            these = replace(where, keys=tuple(keys[:limit]))
            last = (0, keys[limit - 1]) if len(keys) > limit else None
        elif lead_of(where) is not None:
            values = {
                **values_of(where, self._sql.keys),
                "at": after[0],
                "after": after[1],
                "limit": limit,
                "now": self.now(),
            }
            # A slice during a put is short: it must not wait for long queries, nor fail with them.
            found = (self._long_query if waits else self._query)(self._sql.page("lead", where), values)
            if not found:
                return [], None
            these = replace(where, keys=tuple(sorted(row[1] for row in found)))
            last = (found[-1][0], found[-1][1]) if len(found) == limit else None

        # Built before the transaction: otherwise other processes would wait during it.
        doom = self._sql.page("doom" if waits else "doom what is free", these)

        def delete(transaction: Transaction) -> tuple[list[str | None], _Place | None]:
            # Every condition is checked here, after the wait for the lock.
            values = {**values_of(these, self._sql.keys), "after": after[1], "limit": limit, "now": self.now()}
            began = time.monotonic()
            doomed = transaction.run(doom, values)
            doomed_too = self._links_to(transaction, where.namespace, doomed)
            self._delete_all(transaction, where.namespace, [*doomed, *doomed_too])
            self._note_deletion(len(doomed), time.monotonic() - began)
            following = (0, doomed[-1][0]) if these is where and len(doomed) == limit else last
            return [row[2] if isinstance(row[2], str) else None for row in doomed], following

        is_long = waits and where.keys is None
        return self._transact(delete, long=is_long, lasting=lasting, deletes=True, rows=limit)

    @abstractmethod
    def _note_deletion(self, rows: int, seconds: float) -> None:
        """Record how long a transaction took to delete so many rows."""

    def _links_to(self, transaction: Transaction, namespace: str, doomed: Sequence[Row]) -> list[Row]:
        """Return the links to deleted rows, which are deleted with them."""
        keys, aliases = {row[0] for row in doomed}, {row[3] for row in doomed}
        asked = sorted(alias for alias in aliases if isinstance(alias, bytes) and len(alias) == 32)
        if not asked:
            return []
        found = transaction.run(self._sql.links, {"namespace": namespace, "keys": self._sql.keys(asked)})
        return [row for row in found if row[3] in keys and row[0] not in keys]

    def _delete_all(self, transaction: Transaction, namespace: str, doomed: Sequence[Row]) -> None:
        if not doomed:
            return
        keys = self._sql.keys([row[0] for row in doomed])
        for statement in (self._sql.delete, self._sql.delete_uses, self._sql.untag):
            transaction.run_many(statement, [{"namespace": namespace, "keys": keys}])
        transaction.run_many(self._sql.bury, [{"blob": row[2]} for row in doomed if isinstance(row[2], str)])
        # Last, so that others wait for this row as briefly as possible.
        less = {"namespace": namespace, "entries": -len(doomed), "bytes": -sum(int(row[1]) for row in doomed)}
        transaction.run_many(self._sql.add_totals, [less])


def staying(entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """Return the last entry of each key, in key order, so that two batches never deadlock; and the others' blobs.

    A link is not the last one after an entry with bytes.
    """
    by_key: dict[tuple[str, bytes], Entry] = {}
    for entry in entries:
        before = by_key.get((entry.namespace, entry.key))
        if before is None or may_replace(entry, is_link=before.link is not None):
            by_key[entry.namespace, entry.key] = entry
    stay = [by_key[key] for key in sorted(by_key)]
    blobs = {entry.blob for entry in stay}
    return stay, [entry.blob for entry in entries if entry.blob is not None and entry.blob not in blobs]


def new_session(process: Process) -> Values:
    """Return the row of a new session."""
    row = {name: getattr(process, name) for name in ("host", "boot_id", "pid_ns", "pid", "pid_start")}
    return {**row, "id": os.urandom(8).hex(), "state": "live", "fenced_at": None}


def new_store() -> Values:
    """Return the description of a new database."""
    return {"id": os.urandom(16).hex(), "epoch": os.urandom(16).hex(), "min_reader": MINIMUM_READER}


def version_name(version: int) -> str:
    """Return a schema version as the migrations number it."""
    return f"{version:04}"


def check_schema(version: str, min_reader: int, where: str) -> None:
    """Raise an error for a database that this library cannot use as it is."""
    refuse_newer(version, min_reader, where)
    if int(version) < SCHEMA_VERSION:
        raise SchemaMismatch(
            f"{where} has schema {int(version)}, and this version of cacheness needs {SCHEMA_VERSION}. Run"
            " `cacheness migrate` once, with a user that may alter tables"
        )


def refuse_newer(version: str, min_reader: int, where: str) -> None:
    """Raise an error for a database that a newer library has changed incompatibly."""
    if min_reader > SCHEMA_VERSION:
        raise SchemaMismatch(
            f"{where} has schema {int(version)}, made by a newer version of cacheness; this one supports schema"
            f" {SCHEMA_VERSION}, and the database requires {min_reader} or later. Upgrade cacheness on this machine;"
            " nothing was read or changed"
        )


def _session_of(row: Row) -> SessionInfo:
    identity, host, boot_id, pid_ns, pid, pid_start, expired = row
    process = Process(host=host, boot_id=boot_id, pid_ns=pid_ns, pid=pid, pid_start=pid_start)
    return SessionInfo(identity, process, bool(expired))
