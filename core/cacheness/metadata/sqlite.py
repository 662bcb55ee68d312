"""Store metadata in one SQLite file, for the processes of one machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from cacheness import forks
from cacheness.circuit import Guard
from cacheness.deadlines import Limits, patience
from cacheness.errors import ConfigError, SessionLost, StoreBusy, StoreRefused
from cacheness.file_locks import FileLocks
from cacheness.metadata.sql.group_commit import GroupCommit
from cacheness.metadata.sql.schema import SCHEMA_VERSION
from cacheness.metadata.sql.sqlite_texts import DEFINITIONS, STATEMENTS
from cacheness.metadata.sql.sqlite_transactions import SqliteFile, SqliteTransaction
from cacheness.metadata.sql.statements import Builder, Statement, Statements, hints_of, row_of, text_of
from cacheness.metadata.sql.store import (
    DELETE_BATCH,
    NARROW_BATCH,
    Row,
    SqlStore,
    Transaction,
    Values,
    check_schema,
    new_session,
    new_store,
    staying,
    version_name,
)
from cacheness.protocols import MetadataStore
from cacheness.records import Entry, Identity, Process, SessionInfo, may_replace

T = TypeVar("T")

#: Seconds that fencing waits for the lock; a process that writes that long is alive.
_FENCE_PATIENCE: Final = 1.0
#: Rows that a transaction deletes at first, and seconds that others may wait for one: the next
#: deletes as many as that allows.
_FIRST_DELETE_BATCH: Final = 200
_DELETE_SECONDS: Final = 0.004
#: https://www.sqlite.org/pragma.html#pragma_integrity_check; at most so many findings.
_CHECK: Final = Statement("PRAGMA quick_check(20)", {}, ())
_WHOLE_CHECK: Final = Statement("PRAGMA integrity_check(20)", {}, ())
_TABLES: Final = Statement("SELECT name FROM sqlite_master WHERE type = 'table'", {}, ())


def _builder() -> Builder:
    with forks.no_fork():
        from cacheness.metadata.sql.sqlite_building import builder

    return builder


def _one_after_the_other(keys: Sequence[bytes] | Sequence[str]) -> Any:
    """Keys of one width as one value: SQLite has no arrays, and limits the number of parameters."""
    return b"".join(keys) if keys and isinstance(keys[0], bytes) else "".join(keys)  # type: ignore[arg-type]


_statements: Final = Statements(STATEMENTS, _builder, _one_after_the_other)


class SqliteStore(SqlStore):
    """A metadata store in the file `path`; a lock file next to it shows that a session is alive.

    Its `Identity.system` is the file's inode number: it is the same after a rename, a move on its
    disk, or through a link, and differs in a copy. A directory that was moved to another disk looks
    like a copy.
    """

    needs_key = False

    def __init__(self, path: Path, *, limits: Limits) -> None:
        super().__init__(_statements)
        # Separate, because a hung writer blocks other writers, and never readers.
        self._reading = Guard(f"the metadata database {path}", limits)
        self._writing = Guard(f"the metadata database {path}", limits)
        self._file = SqliteFile(Path(path), limits.busy)
        transact: Any = self._file.transact  # mypy takes no generic function for `partial`
        self._groups = GroupCommit(partial(self._writing.once, transact), self._publish, self._file.refuse, limits.busy)
        self._delete_batch = _FIRST_DELETE_BATCH
        self._sessions = self._file.path.parent / "sessions"
        self._locks = FileLocks(self._sessions)
        try:
            self._open_schema()
        except BaseException:
            self.close()
            raise

    def now(self) -> int:
        """Return the machine's clock in microseconds since the epoch: the file is on this machine."""
        return time.time_ns() // 1000

    def measure_clock(self) -> None:
        """Do nothing: each `now()` reads the machine's clock."""

    def last_change(self) -> object | None:
        """Return SQLite's count of changes by other connections, with the connection that counts."""
        return self._file.last_change()

    def identity(self) -> Identity:
        """Return the database's identity."""
        [row] = self._query(self._sql.identity, {})
        return Identity(row[0], f"inode {os.stat(self._file.path).st_ino}", row[1])

    def commit(self, entries: Sequence[Entry], session: str, *, fresh: bool = False) -> list[str]:
        """Publish entries in one transaction, if the session is still live.

        There is one clock, so no time is rejected.
        """
        self._refuse_if_read_only()
        self._file.require_room(sum(len(entry.inline or b"") for entry in entries), len(entries))
        try:
            return self._groups.commit(entries, session, fresh=fresh)
        except SessionLost:
            self._locks.remove(_lock_of(session))
            raise

    def open_session(self, process: Process, *, lasting: bool = True) -> str:
        """Open a new session; return its id, 16 hexadecimal digits."""
        self._refuse_if_read_only()
        row = new_session(process)
        session = str(row["id"])
        try:
            # First the lock, then the row: a live row is never without its lock.
            self._sessions.mkdir(exist_ok=True)
            self._locks.take(_lock_of(session))
        except OSError as error:
            raise StoreRefused(
                f"cannot write a lock file next to the metadata database {self._file.path} ({error}). Check that"
                " this user may write to its directory"
            ) from error
        self._change(self._sql.open_session, row, lasting=lasting)
        return session

    def renew_session(self, session: str) -> bool:
        """Return True when the session is still live; its lock file is its lease."""
        return bool(self._query(self._sql.session_lives, {"session": session}))

    def end_session(self, session: str) -> None:
        """Mark a session as ended; waits for its running commit."""
        super().end_session(session)
        self._locks.remove(_lock_of(session))

    def live_sessions(self) -> list[SessionInfo]:
        """Return sessions that are not fenced or ended; a lease is over when no process holds the lock file."""
        return [
            replace(session, lease_expired=self._locks.is_free(_lock_of(session.id)))
            for session in super().live_sessions()
        ]

    def fence(self, session: str) -> bool:
        """Reject all later commits of a session. Return False if a process is committing right now."""
        self._refuse_if_read_only()
        fenced = {"session": session, "new_state": "fenced"}
        try:
            with patience(_FENCE_PATIENCE):
                self._file.transact(lambda transaction: transaction.run(self._sql.retire, fenced), deletes=True)
        except StoreBusy:
            return False
        self._locks.remove(_lock_of(session))
        return True

    def damage(self, *, whole: bool) -> list[str] | None:
        """Return errors that SQLite finds in its pages. They have no checksums: a valid page may still be wrong."""
        try:
            found = self._long_query(_WHOLE_CHECK if whole else _CHECK, {})
        except StoreRefused as error:
            return [str(error)]
        # The first line of several names the part of the file that the others describe.
        return [line for (text,) in found for line in text.splitlines() if line != "ok" and not line.startswith("***")]

    def close(self) -> None:
        """Close connections and release locks. May be called twice."""
        self._locks.close()
        self._file.close()

    def _publish(
        self, transaction: SqliteTransaction, entries: Sequence[Entry], session: str, fresh: bool
    ) -> list[str]:
        """Put entries, if their session is live, and bury the blobs that they replace; return these."""
        if len(entries) == 1:
            replaced = self._replace(transaction, entries, session, fresh=fresh)
        else:
            stay, replaced = staying(entries)
            for namespace in {entry.namespace for entry in stay}:
                some = [entry for entry in stay if entry.namespace == namespace]
                replaced += self._replace(transaction, some, session, fresh=fresh)
        if replaced:
            transaction.run_many(self._sql.bury, [{"blob": name} for name in replaced])
        return replaced

    def _replace(
        self, transaction: SqliteTransaction, entries: Sequence[Entry], session: str, *, fresh: bool
    ) -> list[str]:
        """Put entries of one namespace, each under another key; return the blobs that they replace.

        If an existing row must stay, the blob of its entry is returned.
        """
        # No other process writes during this transaction, so one look before the upserts is enough.
        namespace = entries[0].namespace
        asked = {"namespace": namespace, "session": session}
        if len(entries) == 1:
            found = transaction.run(self._sql.replaced_by, {**asked, "key": entries[0].key})
        else:
            keys = self._sql.keys([entry.key for entry in entries])
            found = transaction.run(self._sql.replaced_by_many, {**asked, "keys": keys})
        if not found:
            raise SessionLost(f"session {session} was ended or fenced; nothing was stored")
        old = {row[0]: row for row in found if row[0] is not None}
        unused: list[str] = []
        if old and not (fresh and all(entry.link is None for entry in entries)):
            entries, unused = _replacing(entries, old, fresh=fresh)
            old = {entry.key: old[entry.key] for entry in entries if entry.key in old}
            if not entries:
                return unused
        size = sum([entry.size for entry in entries]) - sum([row[1] for row in old.values()])
        added = {"namespace": namespace, "entries": len(entries) - len(old), "bytes": size}
        stale, names = _other_names(entries, {key: (*row[3:5],) for key, row in old.items()})
        blobs = {entry.blob for entry in entries}
        replaced = [row[2] for row in old.values() if isinstance(row[2], str) and row[2] not in blobs] + unused
        transaction.run_rows(self._sql.put, list(map(row_of, entries)))
        transaction.run_rows(self._sql.begin_use, [(namespace, entry.key, entry.created_at) for entry in entries])
        if stale:
            transaction.run_many(self._sql.untag, [{"namespace": namespace, "keys": self._sql.keys(stale)}])
        if names:
            transaction.run_many(self._sql.tag, names)
        transaction.run_many(self._sql.add_totals, [added])
        return replaced

    def _note_deletion(self, rows: int, seconds: float) -> None:
        if rows >= NARROW_BATCH:
            fitting = rows * _DELETE_SECONDS / max(seconds, 1e-6)
            near = min(max(fitting, self._delete_batch / 2), self._delete_batch * 2)
            self._delete_batch = int(min(max(near, NARROW_BATCH), DELETE_BATCH))

    def _sync(self) -> None:
        self._change(self._sql.sync, {}, deletes=True)

    def _query(self, statement: Statement, values: Values) -> list[Row]:
        return self._reading.once(self._file.run, statement, values)[0]

    def _change(self, statement: Statement, values: Values, *, lasting: bool = True, deletes: bool = False) -> int:
        return self._transact(
            lambda transaction: transaction.run_many(statement, [values]), lasting=lasting, deletes=deletes
        )

    def _long_query(self, statement: Statement, values: Values) -> list[Row]:
        return self._query(statement, values)

    def _transact(
        self,
        work: Callable[[Transaction], T],
        *,
        long: bool = False,
        lasting: bool = True,
        deletes: bool = False,
        rows: int = 1,
    ) -> T:
        self._refuse_if_read_only()
        return self._writing.once(self._file.transact, work, lasting=lasting, deletes=deletes)

    def _refuse_if_read_only(self) -> None:
        if self._file.why_read_only:
            raise StoreRefused(f"{self._file.why_read_only}: what is in the cache is served, nothing can be stored")

    def _open_schema(self) -> None:
        names = self._query(_TABLES, {})
        if not names:
            self._refuse_if_read_only()
            self._writing.once(self._file.transact, self._create_schema)
        elif ("store",) not in names or ("schema_version",) not in names:
            raise ConfigError(
                f"{self._file.path} is a database of another program: it has {', '.join(sorted(n for (n,) in names))}."
                " Set cache_dir to a separate directory"
            )
        _, _, min_reader, version = self._query(self._sql.identity, {})[0]
        check_schema(version, min_reader, f"the metadata database {self._file.path}")

    def _create_schema(self, transaction: SqliteTransaction) -> None:
        if transaction.run(_TABLES, {}):  # by another process, while this one waited for the lock
            return
        for text in DEFINITIONS:
            transaction.define(text)
        transaction.run(self._sql.create_store, new_store())
        transaction.run(self._sql.create_version, {"version_num": version_name(SCHEMA_VERSION)})


def _replacing(entries: Sequence[Entry], old: Mapping[bytes, Row], *, fresh: bool) -> tuple[list[Entry], list[str]]:
    """Return the entries that may replace existing rows, and the blobs of the others."""
    stored, unused = list[Entry](), list[str]()
    for entry in entries:
        row = old.get(entry.key)
        if row is None or may_replace(entry, is_link=not row[5], created_at=_time_in(row), fresh=fresh):
            stored.append(entry)
        elif entry.blob is not None:
            unused.append(entry.blob)
    return stored, unused


def _time_in(row: Row) -> int:
    """Return when an existing row was made; 0 if it contains something else, so that it is replaced."""
    return row[6] if type(row[6]) is int else 0


def _other_names(entries: Sequence[Entry], old: Mapping[bytes, Row]) -> tuple[list[bytes], list[dict[str, Any]]]:
    """Return the keys whose tags or prefix differ from those of the replaced rows, and the new ones as rows."""
    unnamed = ("", "")
    changed = [e for e in entries if (text_of(e.tags), e.prefix) != old.get(e.key, unnamed)]
    stale = [entry.key for entry in changed if any(old.get(entry.key, unnamed))]
    return stale, [
        {"namespace": entry.namespace, "key": entry.key, "kind": kind, "tag": name}
        for entry in changed
        for kind, name in hints_of(entry)
    ]


def _lock_of(session: str) -> str:
    return f"{session}.lock"


_conforms: type[MetadataStore] = SqliteStore
