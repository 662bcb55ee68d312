"""Check, plan, repair, drain: the only place that deletes blobs.

A plan lists the objects first and reads the rows afterwards, page by page, both in key order.
An object that no row names then is in flight, or an orphan: an orphan exactly when its session
can never commit again. A row whose object is not there is dangling only after the object was
asked for by name. Nothing is decided by a storage server's clock.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from cacheness.entry import MICROSECONDS, OBJECT_NAME, BlobInfo, Entry, Issue, Upload, Where
from cacheness.errors import BlobMissing, CachenessError, CorruptEntry, ForgedEntry, StoreRefused
from cacheness.marker import MARKER, Marker
from cacheness.protocols import BlobStore, MetadataStore
from cacheness.report import ROWS_AT_MOST, IntegrityReport, refuse
from cacheness.sessions import fence_dead, presumed_dead

_log = logging.getLogger(__name__)

PAGE = 1000  #: objects, and rows, that are held at a time

SHARDS = 256  #: by the first byte of the key
SESSIONS_KEPT = 7 * 24 * 3600 * MICROSECONDS  #: an upload delayed for longer than this is nobody's


def drain(metadata: MetadataStore, blobs: BlobStore, objects: Collection[str]) -> int:
    """Delete blobs that have tombstones, then the tombstones: in this order a crash loses nothing.

    Called after every commit with what it replaced, so trouble is no error of the caller's:
    what stays behind has its tombstone, and a repair drains it.
    """
    if not objects:
        return 0
    gone = []
    try:
        for name in objects:
            blobs.delete(name)
            gone.append(name)
    except CachenessError as error:
        _log.debug("%d replaced blobs wait for a repair: %s", len(objects) - len(gone), error)
    try:
        metadata.clear_tombstones(gone)
    except CachenessError as error:
        _log.debug("%d tombstones of deleted blobs wait for a repair: %s", len(gone), error)
        return 0
    return len(gone)


@dataclass(frozen=True, slots=True)
class Scope:
    """What one check looks at: a namespace, or the part of it whose keys begin with one byte."""

    namespace: str
    shard: int | None = None

    @property
    def prefix(self) -> str:
        """What the names of its blobs begin with."""
        return f"{self.namespace}/" if self.shard is None else f"{self.namespace}/{self.shard:02x}/"

    @property
    def listed(self) -> str:
        """Where the listing looks: everywhere when whole, and in the last shard, so that foreign names are seen too.

        So the reports of all shards add up to the report of the whole. Not in the first shard, which the
        others of a repair wait for.
        """
        return "" if self.shard in {None, SHARDS - 1} else self.prefix

    @property
    def passed_over(self) -> re.Pattern[str] | None:
        """Names in the last shard's listing that the other shards look at."""
        last = self.shard == SHARDS - 1
        return re.compile(rf"{self.namespace}/(?!{self.shard:02x})[0-9a-f]{{2}}/") if last else None

    def where(self) -> Where:
        """The rows of this scope."""
        return Where(self.namespace, shard=self.shard)


@dataclass(slots=True)
class Plan:
    """What is wrong, and what a repair would do about it. A dry run is a plan left unexecuted."""

    scope: Scope
    issues: list[Issue] = field(default_factory=list)
    orphans: list[BlobInfo] = field(default_factory=list)
    bad_rows: list[tuple[Issue, Entry]] = field(default_factory=list)
    tombstones: list[str] = field(default_factory=list)
    uploads: list[Upload] = field(default_factory=list)
    objects: int = 0  #: of this scope, listed
    entries: int = 0  #: of this scope, read
    strangers: int = 0  #: objects of other namespaces, seen and passed over

    def report(self, issues: Sequence[Issue] | None = None, *, repaired: bool = False) -> IntegrityReport:
        """What was found; with `issues`, what became of it."""
        return IntegrityReport(tuple(self.issues if issues is None else issues), self.objects, self.entries, repaired)


Progress = Callable[[int, int], None]  #: called with (objects, entries) looked at so far
ReadBytes = Callable[[Entry], object]
IsGenuine = Callable[[Entry], bool]


class Inspector:
    """Looks at one store for what is wrong with it, and mends what may be mended."""

    def __init__(
        self, metadata: MetadataStore, blobs: BlobStore, marker: Marker, read_bytes: ReadBytes, is_genuine: IsGenuine
    ) -> None:
        self._metadata = metadata
        self._blobs = blobs
        self._read_bytes = read_bytes
        self._is_genuine = is_genuine
        self.marker = marker

    def check(self, scope: Scope, progress: Progress | None = None) -> IntegrityReport:
        """Report what is wrong; changes nothing."""
        with self._metadata.exclusive():
            plan = self.plan(scope, presumed_dead(self._metadata), progress)
        return plan.report()

    def read_all(
        self, scope: Scope, *, repair: bool, force: bool, sample: float, progress: Progress | None = None
    ) -> Iterator[Issue]:
        """Read every entry whole, shard by shard, those least recently read first.

        Each shard is noted when it is done, so that an interrupted check goes on where it
        stopped, and a `sample` of the shards takes the next ones each time.
        """
        found = looked_at = 0
        for shard in self._least_recently_read(scope, sample):
            for entries in self._rows(replace(scope, shard=shard), b"", upto=None):
                looked_at += len(entries)
                for entry in entries:
                    issue = self._read(entry)
                    if issue is None:
                        continue
                    found += 1
                    if repair and not force:
                        refuse("entries whose bytes are broken", found, looked_at, ROWS_AT_MOST)
                    yield replace(issue, repaired=repair and self._remove(issue, entry))
                if progress is not None:
                    progress(0, looked_at)
            self._note(scope, shard)

    def _least_recently_read(self, scope: Scope, sample: float) -> Sequence[int]:
        if scope.shard is not None:
            return [scope.shard]
        times = self._metadata.check_times(scope.namespace)
        shards = sorted(range(SHARDS), key=lambda shard: times.get(shard, 0))
        return shards[: max(1, round(SHARDS * sample))]

    def _note(self, scope: Scope, shard: int) -> None:
        try:
            self._metadata.record_check(scope.namespace, shard, self._metadata.now())
        except StoreRefused as error:
            _log.debug("shard %02x was read, and that cannot be noted: %s", shard, error)

    def repair(self, scope: Scope, *, force: bool = False, progress: Progress | None = None) -> IntegrityReport:
        """Fence the dead, plan, and do it. Safe beside writers, readers and other repairs.

        Raises RepairRefused, with nothing deleted, when the blob store belongs to another
        database, or when the plan looks implausible and `force` is not given.
        """
        with self._metadata.exclusive():
            began = self._metadata.now()
            self.marker.require()
            fence_dead(self._metadata)
            plan = self.plan(scope, set(), progress)
            if not force:
                plan.report().require_plausible()
            if not scope.shard:  # once a repair: with the whole, or with the first of its shards
                self.marker.begin_epoch()
            issues = list(self._execute(plan))
            if scope.shard is None and not plan.strangers:
                # Every object of the store was looked at, so no blob of a long dead session is left.
                self._metadata.forget_sessions(began - SESSIONS_KEPT)
            return plan.report(issues, repaired=True)

    def plan(self, scope: Scope, presumed: set[str], progress: Progress | None = None) -> Plan:
        """Compare the listing with the rows. Touches nothing.

        `presumed` are sessions to take for dead although nobody has fenced them: fit for a
        report, never for a repair.
        """
        plan = Plan(scope)
        self._plan_tombstones(plan)
        self._plan_uploads(plan, presumed)
        after = b""
        for page in self._pages(plan):
            after = self._plan_page(plan, page, presumed, after)
            if progress is not None:
                progress(plan.objects, plan.entries)
        for entries in self._rows(scope, after, upto=None):
            self._plan_rows(plan, entries, {})
        if progress is not None:
            progress(plan.objects, plan.entries)
        return plan

    # the listing

    def _pages(self, plan: Plan) -> Iterator[list[BlobInfo]]:
        """Our objects in key order, about PAGE at a time, never parting the objects of one key."""
        page: list[BlobInfo] = []
        for _, group in groupby(self._ours(plan), key=lambda info: info.name.partition(".")[0]):
            page.extend(group)
            if len(page) >= PAGE:
                yield page
                page = []
        if page:
            yield page

    def _ours(self, plan: Plan) -> Iterator[BlobInfo]:
        others = plan.scope.passed_over
        for info in self._blobs.scan(plan.scope.listed):
            if others is not None and others.match(info.name):
                continue
            match = OBJECT_NAME.fullmatch(info.name)
            if match is None:
                if info.name != MARKER:
                    plan.issues.append(Issue("foreign", info.name, "not a name of ours; never touched", info.size))
            elif match["namespace"] == plan.scope.namespace:
                plan.objects += 1
                yield info
            else:
                plan.strangers += 1

    def _plan_page(self, plan: Plan, page: Sequence[BlobInfo], presumed: set[str], after: bytes) -> bytes:
        last = _key_of(page[-1].name)
        # Before the rows are read: a session that commits and ends between the two would look dead,
        # and the blob that it has just committed like an orphan.
        states = self._states({_session_of(info.name) for info in page}, presumed)
        listed = {info.name: info for info in page}
        named: set[str] = set()
        for entries in self._rows(plan.scope, after, upto=last):
            named.update(entry.object for entry in entries if entry.object is not None)
            self._plan_rows(plan, entries, listed)
        self._plan_unnamed(plan, [info for info in page if info.name not in named], states)
        return last

    def _states(self, sessions: set[str], presumed: set[str]) -> dict[str, str]:
        live = {session.id for session in self._metadata.live_sessions()} - presumed
        dead = self._metadata.dead_sessions(sessions) | presumed
        return {s: "dead" if s in dead else "live" if s in live else "unknown" for s in sessions}

    def _rows(self, scope: Scope, after: bytes, upto: bytes | None) -> Iterator[list[Entry]]:
        while True:
            entries = self._metadata.scan(scope.where(), after=after, limit=PAGE)
            wanted = [entry for entry in entries if upto is None or entry.key <= upto]
            if wanted:
                yield wanted
            if len(wanted) < PAGE:
                return
            after = wanted[-1].key

    # what is wrong

    def _plan_unnamed(self, plan: Plan, unnamed: Sequence[BlobInfo], states: dict[str, str]) -> None:
        for info in unnamed:
            state = states[_session_of(info.name)]
            if state == "live" or self._is_buried(info.name):
                continue
            if state == "dead":
                if self._blobs.stat(info.name) is None:
                    continue  # another repair was faster
                plan.orphans.append(info)
                plan.issues.append(Issue("orphaned", info.name, "no entry names this blob", info.size))
            else:
                plan.issues.append(
                    Issue("unknown", info.name, "its session is not known to this database; never touched", info.size)
                )

    def _is_buried(self, name: str) -> bool:
        return self._metadata.tombstones(name, limit=1) == [name]

    def _plan_rows(self, plan: Plan, entries: Sequence[Entry], listed: dict[str, BlobInfo]) -> None:
        plan.entries += len(entries)
        for entry in entries:
            issue = self._examine(plan, entry, listed)
            if issue is None:
                continue
            plan.issues.append(issue)
            if issue.kind != "forged":
                plan.bad_rows.append((issue, entry))

    def _examine(self, plan: Plan, entry: Entry, listed: dict[str, BlobInfo]) -> Issue | None:
        if not self._is_genuine(entry):
            # Never deleted: with the wrong key at hand, every row of somebody else looks like this.
            return Issue("forged", entry.cache_key, "the row is not signed by a key we have; never served", entry.size)
        if entry.object is not None:
            info = listed.get(entry.object)
            if info is None or info.size != entry.size:
                info = self._blobs.stat(entry.object)
            if info is None:
                return self._dangling(entry)
            if info.size != entry.size:
                return Issue(
                    "size_mismatch", entry.cache_key, f"{entry.object}: {info.size} bytes, not {entry.size}", entry.size
                )
        return None

    def _dangling(self, entry: Entry) -> Issue | None:
        now = self._metadata.find(entry.namespace, entry.key)
        if now is None or now.object != entry.object:
            return None  # overwritten or deleted while we looked
        return Issue("dangling", entry.cache_key, f"its blob {entry.object} is gone", entry.size)

    def _read(self, entry: Entry) -> Issue | None:
        try:
            self._read_bytes(entry)
        except BlobMissing:
            return None  # dangling, or overwritten while we looked; the listing told which
        except ForgedEntry:
            return None  # told already, and never touched
        except CorruptEntry as error:
            return Issue("corrupt", entry.cache_key, str(error), entry.size)
        return None

    def _plan_tombstones(self, plan: Plan) -> None:
        after = ""
        while names := self._metadata.tombstones(plan.scope.prefix, after=after, limit=PAGE):
            plan.tombstones.extend(names)
            plan.issues.extend(Issue("tombstone", name, "replaced or deleted, not yet removed") for name in names)
            after = names[-1]

    def _plan_uploads(self, plan: Plan, presumed: set[str]) -> None:
        ours = [upload for upload in self._blobs.uploads(plan.scope.prefix) if OBJECT_NAME.fullmatch(upload.name)]
        states = self._states({_session_of(upload.name) for upload in ours}, presumed)
        for upload in ours:
            if states[_session_of(upload.name)] == "dead":
                plan.uploads.append(upload)
                plan.issues.append(Issue("stale_upload", upload.name, "begun by a dead writer and never finished"))

    # repair

    def _execute(self, plan: Plan) -> Iterator[Issue]:
        """Mend what the plan may mend; every issue once, marked where it was mended."""
        mended = {("tombstone", name) for name in self._drain(plan.tombstones)}
        for info in plan.orphans:
            self._blobs.delete(info.name)
            mended.add(("orphaned", info.name))
        for upload in plan.uploads:
            self._blobs.abort(upload)
            mended.add(("stale_upload", upload.name))
        for issue, entry in plan.bad_rows:
            if self._remove(issue, entry):
                mended.add((issue.kind, issue.subject))
        for issue in plan.issues:
            yield replace(issue, repaired=(issue.kind, issue.subject) in mended)

    def _remove(self, issue: Issue, entry: Entry) -> bool:
        # Asked for a second time: one false "not found" must not cost a row.
        if issue.kind == "dangling" and entry.object is not None and self._blobs.stat(entry.object) is not None:
            return False
        unchanged = Where(
            entry.namespace,
            keys=(entry.key,),
            mac=entry.mac,
            object=entry.object,
            created_before=entry.created_at + 1,
        )
        deleted = self._metadata.delete(unchanged)
        drain(self._metadata, self._blobs, deleted.objects)
        return deleted.entries == 1

    def _drain(self, names: Sequence[str]) -> Sequence[str]:
        for start in range(0, len(names), PAGE):
            drain(self._metadata, self._blobs, names[start : start + PAGE])
        return names


def _key_of(name: str) -> bytes:
    return bytes.fromhex(name.rpartition("/")[2].partition(".")[0])


def _session_of(name: str) -> str:
    return name.split(".")[1]
