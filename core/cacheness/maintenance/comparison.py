"""Compare blobs with rows: find what is wrong, and what a repair would do about it.

A plan lists the blobs first and reads the rows afterwards, page by page, both in key order. A blob
that no row names is being written, or is an orphan: an orphan exactly if its session can never
commit again. A row whose blob is missing counts as dangling only after a request for the blob by
name. Nothing depends on a storage server's clock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from itertools import groupby, islice

from cacheness.coordination.ownership import MARKER
from cacheness.errors import StoreRefused
from cacheness.lazy_dataclass import dataclass
from cacheness.logs import logger_of
from cacheness.maintenance.report import IntegrityReport
from cacheness.records import OBJECT_NAME, BlobInfo, Entry, Issue, IssueKind, Upload, Where
from cacheness.results.store import Cache
from cacheness.transfers import concurrently

_log = logger_of(__name__)

PAGE = 1000  #: blobs, and rows, that are in memory at a time

SHARDS = 256  #: by the first byte of the key

_UNKNOWN = "its session is not known to this database; deleted only with force, after `cacheness adopt`"

Progress = Callable[[int, int], None]  #: called with (blobs, entries) checked so far


@dataclass(frozen=True, slots=True)
class Scope:
    """The scope of one check: a namespace, or the part of it whose keys begin with one byte."""

    namespace: str
    shard: int | None = None

    @property
    def prefix(self) -> str:
        """The prefix of the names of its blobs."""
        return f"{self.namespace}/" if self.shard is None else f"{self.namespace}/{self.shard:02x}/"

    @property
    def listed(self) -> str:
        """Return the prefix of the listing.

        It is empty for the whole, and for the last shard, so that foreign names are found too.

        So the reports of all shards add up to the report of the whole, except foreign names within
        the shards of other namespaces. Not in the first shard, which a repair's other shards wait
        for.
        """
        return "" if self.shard in {None, SHARDS - 1} else self.prefix

    @property
    def passed_over(self) -> re.Pattern[str] | None:
        """Return the names in the last shard's listing that the other shards check."""
        last = self.shard == SHARDS - 1
        return re.compile(rf"{self.namespace}/(?!{self.shard:02x})[0-9a-f]{{2}}/") if last else None

    def where(self) -> Where:
        """Return the rows of this scope."""
        return Where(self.namespace, shard=self.shard)


@dataclass(slots=True)
class RepairPlan:
    """What is wrong, and what a repair would do about it. A dry run makes a plan without executing it."""

    scope: Scope
    issues: list[Issue] = field(default_factory=list)
    orphans: list[BlobInfo] = field(default_factory=list)
    bad_rows: list[tuple[Issue, Entry]] = field(default_factory=list)
    tombstones: list[str] = field(default_factory=list)
    uploads: list[Upload] = field(default_factory=list)
    unknown: list[BlobInfo] = field(default_factory=list)  #: of sessions that this database does not know
    unknown_uploads: list[Upload] = field(default_factory=list)
    blobs: int = 0  #: of this scope, listed
    entries: int = 0  #: of this scope, read
    strangers: int = 0  #: objects of other namespaces, seen and skipped
    is_whole: bool = True  #: whether the listing was read to its end

    def report(self, issues: Sequence[Issue] | None = None, *, repaired: bool = False) -> IntegrityReport:
        """Return what was found; with `issues`, the state of each."""
        return IntegrityReport(tuple(self.issues if issues is None else issues), self.blobs, self.entries, repaired)


class Planner:
    """Checks one store for faults; changes nothing."""

    def __init__(self, cache: Cache) -> None:
        self._metadata = cache.metadata
        self._blobs = cache.blobs
        self._is_genuine = cache.is_genuine

    def plan(self, scope: Scope, presumed: set[str], progress: Progress | None = None) -> RepairPlan:
        """Compare the listing with the rows. Changes nothing.

        `presumed` are sessions that count as dead although they are not fenced: for a report, never for a repair.
        """
        plan = RepairPlan(scope)
        self._plan_totals(plan)
        self._plan_tombstones(plan)
        self._plan_uploads(plan, presumed)
        after = b""
        for page in self._pages(plan):
            after = self._plan_page(plan, page, presumed, after)
            if progress is not None:
                progress(plan.blobs, plan.entries)
        for entries in self.rows(scope, after):
            self._plan_rows(plan, entries, {})
        if progress is not None:
            progress(plan.blobs, plan.entries)
        return plan

    # the listing

    def _pages(self, plan: RepairPlan) -> Iterator[list[BlobInfo]]:
        """Yield our objects in key order, about PAGE at a time, never separating the objects of one key."""
        page: list[BlobInfo] = []
        for _, group in groupby(self._ours(plan), key=lambda info: info.name.partition(".")[0]):
            page.extend(group)
            if len(page) >= PAGE:
                yield page
                page = []
        if page:
            yield page

    def _listing(self, plan: RepairPlan) -> Iterator[BlobInfo]:
        """Yield the store's listing. If listing is denied, each entry's blob is still requested by name.

        Not if the marker is not visible either: it may be another store, or none, in which no blob would be found.
        """
        scope = plan.scope
        try:
            yield from self._blobs.scan(scope.listed) if scope.passed_over is None else self._passing_over(scope)
        except StoreRefused as error:
            if self._blobs.stat(MARKER) is None:
                raise
            plan.is_whole = False
            detail = (
                f"{error}. Looked for are only the blobs that entries name, not orphans and names that are not ours"
            )
            plan.issues.append(Issue(IssueKind.UNSEEN, plan.scope.listed or "the listing", detail))

    def _passing_over(self, scope: Scope) -> Iterator[BlobInfo]:
        """List names that no other shard lists; skips each folder of another shard, which takes a request."""
        begun, after = False, ""
        while not begun or after:
            begun, listing, after = True, self._blobs.scan(after=after), ""
            for info in listing:
                if re.fullmatch(OBJECT_NAME, info.name) and not info.name.startswith(scope.prefix):
                    after = f"{info.name.rpartition('/')[0]}/z"  # after every name of ours
                    break
                yield info

    def _ours(self, plan: RepairPlan) -> Iterator[BlobInfo]:
        others = plan.scope.passed_over
        for info in self._listing(plan):
            if others is not None and others.match(info.name):
                continue
            match = re.fullmatch(OBJECT_NAME, info.name)
            if match is None:
                if info.name != MARKER:
                    plan.issues.append(
                        Issue(IssueKind.FOREIGN, info.name, "not a name of ours; never touched", info.size)
                    )
            elif match["namespace"] == plan.scope.namespace:
                plan.blobs += 1
                yield info
            else:
                plan.strangers += 1

    def _plan_page(self, plan: RepairPlan, page: Sequence[BlobInfo], presumed: set[str], after: bytes) -> bytes:
        last = _key_of(page[-1].name)
        # Before the rows are read: otherwise a session that commits and ends in between would look
        # dead, and its newly committed blob like an orphan.
        states = self._states({session_of(info.name) for info in page}, presumed)
        listed = {info.name: info for info in page}
        named: set[str] = set()
        for entries in self.rows(plan.scope, after, upto=last):
            named.update(entry.blob for entry in entries if entry.blob is not None)
            self._plan_rows(plan, entries, listed)
        self._plan_unnamed(plan, [info for info in page if info.name not in named], states)
        return last

    def _states(self, sessions: set[str], presumed: set[str]) -> dict[str, str]:
        live = {session.id for session in self._metadata.live_sessions()} - presumed
        dead = self._metadata.dead_sessions(sessions) | presumed
        return {s: "dead" if s in dead else "live" if s in live else "unknown" for s in sessions}

    def rows(self, scope: Scope, after: bytes = b"", upto: bytes | None = None) -> Iterator[list[Entry]]:
        """Yield the entries of a scope with keys greater than `after`, a page at a time, in key order."""
        while True:
            entries = self._metadata.scan(scope.where(), after=after, limit=PAGE)
            wanted = [entry for entry in entries if upto is None or entry.key <= upto]
            if wanted:
                yield wanted
            if len(wanted) < PAGE:
                return
            after = wanted[-1].key

    def unknown(self) -> Iterator[list[BlobInfo]]:
        """Yield blobs of any namespace whose sessions this database does not know, and that no entry names."""
        names = (
            (match["namespace"], info) for info in self._blobs.scan() if (match := re.fullmatch(OBJECT_NAME, info.name))
        )
        for namespace, group in groupby(names, key=lambda item: item[0]):
            infos = (info for _, info in group)
            while page := list(islice(infos, PAGE)):
                yield self._unknown_among(namespace, page)

    def _unknown_among(self, namespace: str, page: Sequence[BlobInfo]) -> list[BlobInfo]:
        states = self._states({session_of(info.name) for info in page}, set())
        unknown = [info for info in page if states[session_of(info.name)] == "unknown"]
        rows = self._metadata.find_many(namespace, list({_key_of(info.name) for info in unknown}))
        named = {entry.blob for entry in rows.values()}
        return [info for info in unknown if info.name not in named and not self._has_tombstone(info.name)]

    # issues

    def _plan_unnamed(self, plan: RepairPlan, unnamed: Sequence[BlobInfo], states: dict[str, str]) -> None:
        for info in unnamed:
            state = states[session_of(info.name)]
            if state == "live" or self._has_tombstone(info.name):
                continue
            if state == "dead":
                if self._blobs.stat(info.name) is None:
                    continue  # another repair was faster
                plan.orphans.append(info)
                plan.issues.append(Issue(IssueKind.ORPHANED, info.name, "no entry names this blob", info.size))
            else:
                plan.unknown.append(info)
                plan.issues.append(Issue(IssueKind.UNKNOWN, info.name, _UNKNOWN, info.size))

    def _has_tombstone(self, name: str) -> bool:
        return self._metadata.tombstones(name, limit=1) == [name]

    def _plan_rows(self, plan: RepairPlan, entries: Sequence[Entry], listed: dict[str, BlobInfo]) -> None:
        plan.entries += len(entries)
        genuine = {entry.key: entry for entry in entries if self._is_genuine(entry)}
        unsure = [
            (entry, blob)
            for entry in genuine.values()
            if (blob := entry.blob) is not None and not _is_as_listed(entry, listed.get(blob))
        ]
        issues = concurrently(lambda item: self._examine(*item), unsure, lambda item: item[0].size)
        examined = {entry.key: issue for (entry, _), issue in zip(unsure, issues, strict=True)}
        for entry in entries:
            # An unsigned row is never deleted: with a wrong key, every row of others looks unsigned.
            issue = examined.get(entry.key) if entry.key in genuine else _forged(entry)
            if issue is None:
                continue
            plan.issues.append(issue)
            if issue.kind not in {"forged", "unseen"}:
                plan.bad_rows.append((issue, entry))

    def _examine(self, entry: Entry, blob: str) -> Issue | None:
        """Request an entry's blob by name if the listing does not match the entry."""
        try:
            info = self._blobs.stat(blob)
        except StoreRefused as error:
            return Issue(IssueKind.UNSEEN, entry.cache_key, str(error), entry.size)
        if info is None:
            return self._dangling(entry)
        if info.size != entry.size:
            return Issue(
                IssueKind.SIZE_MISMATCH, entry.cache_key, f"{blob}: {info.size} bytes, not {entry.size}", entry.size
            )
        return None

    def _dangling(self, entry: Entry) -> Issue | None:
        now = self._metadata.find(entry.namespace, entry.key)
        if now is None or now.blob != entry.blob:
            return None  # overwritten or deleted during the check
        return Issue(IssueKind.DANGLING, entry.cache_key, f"its blob {entry.blob} is gone", entry.size)

    def _plan_totals(self, plan: RepairPlan) -> None:
        if plan.scope.shard in {None, SHARDS - 1}:
            entries, size = self._metadata.recount(plan.scope.namespace, correct=False)
            if entries or size:
                what = f"the kept totals differ from a count by {-entries:+,} entries and {-size:+,} bytes"
                plan.issues.append(Issue(IssueKind.MISCOUNTED, plan.scope.namespace, what))

    def _plan_tombstones(self, plan: RepairPlan) -> None:
        after = ""
        while names := self._metadata.tombstones(plan.scope.prefix, after=after, limit=PAGE):
            plan.tombstones.extend(names)
            plan.issues.extend(
                Issue(IssueKind.TOMBSTONE, name, "replaced or deleted, not yet removed") for name in names
            )
            after = names[-1]

    def _plan_uploads(self, plan: RepairPlan, presumed: set[str]) -> None:
        try:
            found = list(self._blobs.uploads(plan.scope.prefix))
        except StoreRefused as error:  # a right that listing blobs does not need; the rest continues
            _log.warning("unfinished uploads are not looked for: %s", error)
            return
        ours = [upload for upload in found if re.fullmatch(OBJECT_NAME, upload.name)]
        states = self._states({session_of(upload.name) for upload in ours}, presumed)
        for upload in ours:
            state = states[session_of(upload.name)]
            if state == "dead":
                plan.uploads.append(upload)
                plan.issues.append(
                    Issue(IssueKind.STALE_UPLOAD, upload.name, "begun by a dead writer and never finished")
                )
            elif state == "unknown":
                plan.unknown_uploads.append(upload)
                plan.issues.append(Issue(IssueKind.UNKNOWN, upload.name, f"an unfinished upload; {_UNKNOWN}"))


def _is_as_listed(entry: Entry, info: BlobInfo | None) -> bool:
    return info is not None and info.size == entry.size


def _forged(entry: Entry) -> Issue:
    size = entry.size if isinstance(entry.size, int) else 0
    return Issue(IssueKind.FORGED, entry.cache_key, "the row is not signed by a key we have; never served", size)


def _key_of(name: str) -> bytes:
    return bytes.fromhex(name.rpartition("/")[2].partition(".")[0])


def session_of(name: str) -> str:
    """Return the session that wrote a blob, from its name."""
    return name.split(".")[1]
