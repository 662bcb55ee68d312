"""Check and repair: find what is wrong with a store, and fix what is safe to fix.

`plan` finds issues, `tombstones` deletes blobs, and this module decides what is deleted, and when a
repair stops with an error.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from cacheness.coordination.sessions import fence_dead, presumed_dead
from cacheness.errors import BlobMissing, CorruptEntry, ForgedEntry, RepairRefused, StoreFull, StoreRefused
from cacheness.lazy_dataclass import dataclass
from cacheness.logs import logger_of
from cacheness.maintenance.comparison import SHARDS, Planner, Progress, RepairPlan, Scope, session_of
from cacheness.maintenance.report import ROWS_AT_MOST, IntegrityReport, refuse
from cacheness.records import MICROSECONDS, REASONS_KEPT, Entry, Issue, IssueKind, Upload
from cacheness.results.store import Cache, this_very
from cacheness.results.tombstones import Removal

_log = logger_of(__name__)

SESSIONS_KEPT = 7 * 24 * 3600 * MICROSECONDS  #: an upload that lasts longer has no writer any more


@dataclass(slots=True)
class Judged:
    """The result of reading a whole shard."""

    looked_at: int = 0
    broken: int = 0


class Inspector:
    """Checks one store for issues, and repairs what is safe to repair."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._metadata = cache.metadata
        self._marker = cache.marker
        self._tombstones = cache.tombstones
        self._planner = Planner(cache)
        self._judged: dict[tuple[str, int], Judged] = {}  #: of each namespace and shard, when last read in full

    def check(self, scope: Scope, progress: Progress | None = None) -> IntegrityReport:
        """Report what is wrong; changes nothing."""
        with self._metadata.exclusive():
            plan = self._planner.plan(scope, presumed_dead(self._metadata), progress)
        return plan.report()

    def damage(self, scope: Scope, *, whole: bool) -> list[Issue]:
        """Return damage in the database itself. Of all shards, only the first checks it."""
        if scope.shard:
            return []
        return [Issue(IssueKind.DAMAGED, "the database", text) for text in self._metadata.damage(whole=whole) or ()]

    def read_all(
        self, scope: Scope, *, repair: bool, force: bool, sample: float, progress: Progress | None = None
    ) -> Iterator[Issue]:
        """Read every entry in full, shard by shard, those least recently read first.

        Each shard is recorded when it is done, so that an interrupted check continues where it
        stopped, and a `sample` of the shards takes the next ones each time.
        """
        looked_at = 0
        for shards in _runs(self._least_recently_read(scope, sample)):
            judged: dict[int, Judged] = {}
            unnoted = shards.start
            for shard, entries in self._entries_by_shard(scope.namespace, shards):
                if shard > unnoted:  # earlier shards have been read
                    self._note(scope.namespace, range(unnoted, shard), judged)
                    unnoted = shard
                looked_at += len(entries)
                seen = self._judged[scope.namespace, shard] = judged.setdefault(shard, Judged())
                seen.looked_at += len(entries)
                for entry in entries:
                    issue = self._read(entry)
                    if issue is None:
                        continue
                    seen.broken += 1
                    if repair and not force:
                        self._refuse_too_many(scope.namespace)
                    yield self._remove(issue, entry) if repair else issue
                if progress is not None:
                    progress(0, looked_at)
            self._note(scope.namespace, range(unnoted, shards.stop), judged)

    def _entries_by_shard(self, namespace: str, shards: range) -> Iterator[tuple[int, list[Entry]]]:
        """Yield the entries of neighbouring shards, at most a page at once.

        Most of a small store's 256 shards are empty.
        """
        after = bytes([shards.start - 1]) + b"\xff" * 32 if shards.start else b""
        for page in self._planner.rows(Scope(namespace), after, upto=bytes([shards.stop - 1]) + b"\xff" * 32):
            for shard, entries in groupby(page, key=lambda entry: entry.key[0]):
                yield shard, list(entries)

    def repair(self, scope: Scope, *, force: bool = False, progress: Progress | None = None) -> IntegrityReport:
        """Fence dead sessions, plan, and execute. Safe while writers, readers and other repairs run.

        Raises RepairRefused, with nothing deleted, if the blob store belongs to another database,
        if the database is damaged, or if the plan looks implausible and `force` is not given.
        """
        with self._metadata.exclusive():
            began = time.monotonic()
            self._marker.require()
            self._require_sound(scope)
            fence_dead(self._metadata)
            plan = self._planner.plan(scope, set(), progress)
            if not force:
                self._require_plausible(plan)
            is_marked = self._begin_epoch(scope)
            issues = self._execute(plan, unknown_too=force and self._marker.is_adopted())
            if not is_marked and not self._begin_epoch(scope):
                _log.warning("the disk is full, so a restore of the database from before this repair may go unnoticed")
            if scope.shard is None and plan.is_whole and not plan.strangers:
                # Every blob of the store was checked, so none of a session that died long ago is left.
                lasted = int((time.monotonic() - began) * MICROSECONDS)
                self._metadata.delete_sessions(SESSIONS_KEPT + lasted)
                self._metadata.delete_unstored(scope.namespace, REASONS_KEPT)
            return plan.report(issues, repaired=True)

    def _require_sound(self, scope: Scope) -> None:
        """A damaged database does not show all its rows: the blobs of the missing ones would look like orphans."""
        damage = self.damage(scope, whole=False)
        if damage:
            raise RepairRefused(
                f"the database is damaged: {damage[0].detail}. Nothing was deleted. Take over into a new directory what"
                " it still reads (cacheness copy), restore it from a backup, or move it out of the way to start empty"
            )

    def _require_plausible(self, plan: RepairPlan) -> None:
        report = plan.report()
        report.require_plausible()
        if plan.scope.shard is not None and report.has_more_than(1 / SHARDS):
            # 256 shards, each within its limits and repaired one after the other, could lose any number.
            self._planner.plan(Scope(plan.scope.namespace), set()).report().require_plausible()

    def adopt(self) -> int:
        """Make this database the owner of the blob store; return how many blobs belong to unknown sessions.

        A repair with `force` deletes those from then on: no session that this database does not know can commit here.
        """
        with self._metadata.exclusive():
            self._marker.adopt()
            return sum(len(infos) for infos in self._planner.unknown())

    def _begin_epoch(self, scope: Scope) -> bool:
        """Write a new epoch into the marker, once per repair. Return False if there is no space for the marker."""
        if scope.shard:  # the first of its shards did, for all of them
            return True
        try:
            self._marker.begin_epoch()
        except StoreFull:
            return False
        return True

    def _refuse_too_many(self, namespace: str) -> None:
        every = [judged for (name, _), judged in self._judged.items() if name == namespace]
        broken, looked_at = sum(judged.broken for judged in every), sum(judged.looked_at for judged in every)
        refuse("entries whose bytes are broken", broken, looked_at, ROWS_AT_MOST)

    def _least_recently_read(self, scope: Scope, sample: float) -> Sequence[int]:
        if scope.shard is not None:
            return [scope.shard]
        times = self._metadata.check_times(scope.namespace)
        shards = sorted(range(SHARDS), key=lambda shard: times.get(shard, 0))
        return shards[: max(1, round(SHARDS * sample))]

    def _note(self, namespace: str, shards: range, judged: Mapping[int, Judged]) -> None:
        for empty in set(shards) - set(judged):
            self._judged.pop((namespace, empty), None)
        if not self._cache.writes:
            return
        try:
            self._metadata.record_checks(namespace, shards, self._metadata.now())
        except StoreRefused as error:
            _log.debug("shards %02x to %02x were read, and that cannot be noted: %s", shards[0], shards[-1], error)

    def _read(self, entry: Entry) -> Issue | None:
        try:
            self._cache.read_bytes(entry)
        except BlobMissing:
            return None  # dangling, or overwritten in between; the listing has shown which
        except ForgedEntry:
            return None  # reported by the first pass, and never changed
        except CorruptEntry as error:
            return Issue(IssueKind.CORRUPT, entry.cache_key, str(error), entry.size)
        return None

    def _execute(self, plan: RepairPlan, *, unknown_too: bool) -> list[Issue]:
        """Execute the plan; report every issue once, as repaired only if its blob or row is gone."""
        outcomes: dict[str, Removal] = {
            "tombstone": self._tombstones.drain(plan.tombstones),
            "orphaned": self._tombstones.delete(info.name for info in plan.orphans),
            "stale_upload": self._abort(plan.uploads),
        }
        if unknown_too:
            outcomes["unknown"] = self._delete_unknown(plan)
        if any(issue.kind == IssueKind.MISCOUNTED for issue in plan.issues):
            self._metadata.recount(plan.scope.namespace, correct=True)
            outcomes["miscounted"] = Removal({plan.scope.namespace})
        rows = {id(issue): self._remove(issue, entry) for issue, entry in plan.bad_rows}
        return [rows.get(id(issue)) or _outcome(issue, outcomes.get(issue.kind)) for issue in plan.issues]

    def _abort(self, uploads: Sequence[Upload]) -> Removal:
        """Delete uploads; the result has the names of their blobs."""
        by_handle = {upload.handle: upload.name for upload in uploads}
        removal = self._tombstones.abort(uploads)
        kept = {by_handle[handle]: why for handle, why in removal.kept.items()}
        return Removal({by_handle[handle] for handle in removal.gone} - set(kept), kept)

    def _delete_unknown(self, plan: RepairPlan) -> Removal:
        # Fenced after the listing, and in the database: a session that began in between is known and kept.
        names = [info.name for info in plan.unknown] + [upload.name for upload in plan.unknown_uploads]
        dead = self._metadata.condemn({session_of(name) for name in names})
        blobs = self._tombstones.delete(info.name for info in plan.unknown if session_of(info.name) in dead)
        uploads = self._abort([upload for upload in plan.unknown_uploads if session_of(upload.name) in dead])
        return Removal(blobs.gone | uploads.gone, {**blobs.kept, **uploads.kept})

    def _remove(self, issue: Issue, entry: Entry) -> Issue:
        # Requested a second time: one wrong "not found" must not cost a row.
        is_dangling = issue.kind == IssueKind.DANGLING
        if is_dangling and entry.blob is not None and self._cache.blobs.stat(entry.blob) is not None:
            return issue
        deleted = self._metadata.delete(this_very(entry))
        removal = self._tombstones.drain(deleted.blobs)
        if not deleted.entries:
            # Another repair was faster, or the entry was replaced since: in both cases the issue is resolved.
            return replace(issue, repaired=not self._is_there(entry))
        if is_dangling or not removal.kept:
            return replace(issue, repaired=True)
        [why] = removal.kept.values()
        return replace(issue, detail=f"{issue.detail}; the entry is deleted, and its blob is not: {why}")

    def _is_there(self, entry: Entry) -> bool:
        now = self._metadata.find(entry.namespace, entry.key)
        return now is not None and (now.mac, now.blob) == (entry.mac, entry.blob)


def _runs(shards: Sequence[int]) -> list[range]:
    """Group neighbours, in the order given."""
    runs: list[range] = []
    for shard in shards:
        if runs and runs[-1].stop == shard:
            runs[-1] = range(runs[-1].start, shard + 1)
        else:
            runs.append(range(shard, shard + 1))
    return runs


def _outcome(issue: Issue, removal: Removal | None) -> Issue:
    if removal is None:
        return issue
    if issue.subject in removal.gone:
        return replace(issue, repaired=True)
    why = removal.kept.get(issue.subject)
    return issue if why is None else replace(issue, detail=f"{issue.detail}; it could not be deleted: {why}")
