"""The result of an integrity check: counts, iterates, prints, and converts to data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any, Final

from cacheness import html
from cacheness.errors import RepairRefused
from cacheness.lazy_dataclass import dataclass
from cacheness.printable import printable
from cacheness.records import Issue, IssueKind
from cacheness.units import number_of

#: The meaning of each kind of issue, for operators.
MEANINGS: Final[Mapping[IssueKind, str]] = {
    IssueKind.ORPHANED: "blobs that no entry names, left by writers that died; a repair removes them",
    IssueKind.DANGLING: "entries whose blob is gone; a repair removes the row",
    IssueKind.SIZE_MISMATCH: "entries whose blob has another size; a repair removes them",
    IssueKind.CORRUPT: "entries whose bytes are not the ones written; a repair removes them",
    IssueKind.FORGED: "rows that no key of ours signed; never served, never touched",
    IssueKind.STALE_UPLOAD: "uploads that dead writers began; a repair aborts them",
    IssueKind.TOMBSTONE: "replaced or deleted blobs not yet removed; a repair removes them",
    IssueKind.UNKNOWN: "blobs of sessions that this database does not know; deleted only with force, after adopt",
    IssueKind.MISCOUNTED: "totals that a quota goes by, and that a count does not find; a repair corrects them",
    IssueKind.DAMAGED: "parts of the database itself that are broken; take over what it still reads: cacheness copy",
    IssueKind.UNSEEN: "what could not be looked at, because a right is missing; nothing is concluded from it",
    IssueKind.FOREIGN: "names in the blob store that are not ours; never touched",
}
LINES = 20  #: issues that a printed report lists

#: Above these limits a repair stops, because a truncated listing or a wrong database is more likely
#: than so much damage: rows to delete, and objects to delete, as (at least, share of the checked
#: ones).
ROWS_AT_MOST = (100, 0.01)
BLOBS_AT_MOST = (1000, 0.05)


@dataclass(frozen=True, slots=True)
class IntegrityReport:
    """The issues that `verify_integrity` found. `len()` is their number, repaired ones included."""

    issues: tuple[Issue, ...]  #: the issues
    blobs: int  #: blobs checked
    entries: int  #: rows checked
    repaired: bool  #: whether this was a repair, not only a check

    @property
    def ok(self) -> bool:
        """Return True when no issue was found, or each one is repaired."""
        return all(issue.repaired for issue in self.issues)

    def __len__(self) -> int:
        return len(self.issues)

    def __bool__(self) -> bool:
        return bool(self.issues)

    def __iter__(self) -> Iterator[Issue]:
        return iter(self.issues)

    def __add__(self, other: IntegrityReport) -> IntegrityReport:
        """Return the reports of two shards as one."""
        return IntegrityReport(
            self.issues + other.issues,
            self.blobs + other.blobs,
            self.entries + other.entries,
            self.repaired and other.repaired,
        )

    def with_issues(self, more: Iterable[Issue]) -> IntegrityReport:
        """Return the same report with more issues.

        Args:
            more: the issues to add.
        """
        return replace(self, issues=(*self.issues, *more))

    def require_plausible(self) -> None:
        """Check that no more is wrong than a working store can have.

        Every repair calls this before it changes anything. A caller that repairs shard by shard
        first calls it for the sum of their reports; a repair of one shard stops if that shard alone
        has more than half of what is plausible for it.

        Raises:
            RepairRefused: more is wrong.
        """
        for what, found, looked_at, bound in self._damage():
            refuse(what, found, looked_at, bound)

    def has_more_than(self, part: float) -> bool:
        """Return True when more than half of the plausible issues were found.

        How many are plausible for this part of a store depends on what was checked.

        Args:
            part: the share of the store that was checked, up to 1.
        """
        return any(
            found > max(at_least * part, looked_at * share) / 2
            for _, found, looked_at, (at_least, share) in self._damage()
        )

    def _damage(self) -> Iterator[tuple[str, int, int, tuple[int, float]]]:
        found = self.counts()
        broken = sum(found.get(kind, 0) for kind in (IssueKind.DANGLING, IssueKind.SIZE_MISMATCH, IssueKind.CORRUPT))
        yield "entries whose blob is gone or broken", broken, self.entries, ROWS_AT_MOST
        yield "blobs that no entry names", found.get("orphaned", 0), self.blobs, BLOBS_AT_MOST

    def counts(self) -> dict[str, int]:
        """Return the number of issues per kind, in the order of `IssueKind`."""
        found = Counter(issue.kind for issue in self.issues)
        return {kind.value: found[kind] for kind in IssueKind if found[kind]}

    def table(self) -> list[dict[str, Any]]:
        """Return a row per kind: kind, found, repaired, bytes, meaning."""
        return [
            {
                "kind": kind,
                "found": found,
                "repaired": sum(i.repaired for i in self.issues if i.kind == kind),
                "bytes": sum(i.size for i in self.issues if i.kind == kind),
                "meaning": MEANINGS[IssueKind(kind)],
            }
            for kind, found in self.counts().items()
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as data for JSON."""
        return {
            "blobs": self.blobs,
            "entries": self.entries,
            "repair": self.repaired,
            "counts": self.counts(),
            "issues": [asdict(issue) for issue in self.issues],
        }

    def _repr_html_(self) -> str:
        names = ("kind", "found", "repaired", "bytes", "meaning")
        title = str(self).partition("\n")[0]
        return html.of_rows(title, names, [[row[name] for name in names] for row in self.table()])

    def __str__(self) -> str:
        looked = f"looked at {number_of(self.entries, 'entry')} and {number_of(self.blobs, 'blob')}"
        if not self.issues:
            return f"No issues found; {looked}."
        heads = [f"{row['found']:>7,} {row['kind']:<14} {row['meaning']}" for row in self.table()]
        lines = [f"        {printable(_line(issue))}" for issue in self.issues[:LINES]]
        if len(self.issues) > LINES:
            lines.append(f"        … and {len(self.issues) - LINES:,} more")
        repaired = sum(issue.repaired for issue in self.issues)
        verdict = f", {repaired:,} repaired" if self.repaired else "; nothing was changed"
        return "\n".join([f"{number_of(len(self.issues), 'issue')} found{verdict}; {looked}.", *heads, *lines])


def refuse(what: str, found: int, looked_at: int, bound: tuple[int, float]) -> None:
    """Raise RepairRefused when more was found than is plausible."""
    at_least, share = bound
    most = max(at_least, int(looked_at * share))
    if found > most:
        raise RepairRefused(
            f"found {found:,} {what}, of {looked_at:,} looked at; more than {most:,} is not plausible damage. Nothing"
            " was deleted. Is this the right database for this blob store, and is its listing whole? If it"
            " is, repair with force=True"
        )


def _line(issue: Issue) -> str:
    return f"{issue.kind}: {issue.subject} ({issue.detail}){' repaired' if issue.repaired else ''}"
