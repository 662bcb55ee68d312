"""Report a repair: artifacts, and an event for automations."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.events import emit_event

from cacheness import IntegrityReport
from cacheness.errors import CachenessError
from cacheness.records import Issue
from cacheness.units import number_of

LISTED = 200  #: issues that the report lists
FOUND = "cacheness.integrity.found"  #: the events for automations
CLEAN = "cacheness.integrity.clean"
FAILED = "cacheness.integrity.failed"

_HEX = re.compile(r"([0-9a-f]{12})[0-9a-f]{52}[.0-9a-f]*")
_MARKS = re.compile(r"([\\`*_<>\[\]#|~])")
_UNSEEN = re.compile(r"[\x00-\x1f\x7f`]")


class Page:
    """The artifacts of one run of the flow, and its event."""

    def __init__(self, label: str, mode: str) -> None:
        self.label = label
        self.mode = mode
        self.title = f"Integrity {mode} of {label}"
        # Prefect's types do not show that a synchronous caller gets the identifier itself.
        self._progress: Any = create_progress_artifact(
            progress=0.0, key="cacheness-progress", description=f"{self.title}: parts of the store looked at"
        )

    def phase(self, begin: float, end: float) -> Callable[[float], None]:
        """Moves the progress bar through a part of its length, as the work of that part goes from 0 to 1."""

        def advance(share: float) -> None:
            update_progress_artifact(artifact_id=self._progress, progress=100.0 * (begin + (end - begin) * share))

        return advance

    def publish(
        self, report: IntegrityReport, errors: Sequence[CachenessError], expired: int, disputed: Mapping[str, int]
    ) -> None:
        """Report what was found, and what could not be done.

        Args:
            report: what was found.
            errors: what could not be done.
            expired: how many expired results were deleted.
            disputed: how many results differed, by function.
        """
        summary = f"{self.title}: {_verdict(report, errors)}"
        create_markdown_artifact(
            markdown=_text(report, errors, expired, disputed), key="cacheness-report", description=self.title
        )
        create_table_artifact(table=_table(report, errors), key="cacheness-issues", description=summary)
        payload = {
            "mode": self.mode,
            "entries": report.entries,
            "blobs": report.blobs,
            "expired": expired,
            "counts": report.counts(),
            "disputed": dict(disputed),
            "errors": _distinct(errors),
        }
        resource = {"prefect.resource.id": f"cacheness.store.{self.label}", "prefect.resource.name": self.label}
        events = [FOUND] * bool(report) + [FAILED] * bool(errors) or [CLEAN]
        for event in events:
            emit_event(event, resource=resource, payload=payload)


def _distinct(errors: Sequence[CachenessError]) -> list[str]:
    """Return the texts of the errors, each once: most parts of a store fail for the same reason."""
    return list(dict.fromkeys(str(error) for error in errors))


def _table(report: IntegrityReport, errors: Sequence[CachenessError]) -> list[dict[str, Any]]:
    found = [{**row, "bytes": f"{row['bytes']:,}"} for row in report.table()]  # Prefect shows numbers unformatted
    nothing = {"kind": "none", "found": 0, "repaired": 0, "bytes": "0", "meaning": "nothing is wrong"}
    failed = [
        {"kind": "not done", "found": 0, "repaired": 0, "bytes": "0", "meaning": text} for text in _distinct(errors)
    ]
    return (found + failed) or [nothing]


def _verdict(report: IntegrityReport, errors: Sequence[CachenessError]) -> str:
    repaired = sum(issue.repaired for issue in report)
    found = f"{number_of(len(report), 'issue')} found, {repaired:,} repaired" if report else "no issues found"
    return f"{found}, and not everything was done" if errors else found


def _text(report: IntegrityReport, errors: Sequence[CachenessError], expired: int, disputed: Mapping[str, int]) -> str:
    verdict = _verdict(report, errors)
    looked = f"Looked at {number_of(report.entries, 'entry')} and {number_of(report.blobs, 'blob')}."
    lines = [f"**{verdict[0].upper()}{verdict[1:]}.** {looked}"]
    lines += [f"\n**Not done:** {plain(text)}" for text in _distinct(errors)]
    if expired:
        lines.append(f"\n{number_of(expired, 'expired result')} removed.")
    if disputed:
        count = number_of(sum(disputed.values()), "result")
        by = ", ".join(f"{plain(name)} ({number:,})" for name, number in sorted(disputed.items())[:LISTED])
        lines.append(
            f"\n**{count} came out differently** when computed again, and wait for `cacheness disputes`: {by}."
        )
    if report:
        lines.append("")
        lines += [_line(issue) for issue in report.issues[:LISTED]]
    if len(report) > LISTED:
        lines.append(f"\n… and {len(report) - LISTED:,} more.")
    return "\n".join(lines)


def _line(issue: Issue) -> str:
    # The length of the names in a detail does not fit on a page; the whole subject is listed below.
    detail = plain(_HEX.sub(r"\1…", issue.detail).rstrip("."))
    done = ", repaired" if issue.repaired else ""
    return f"- **{plain(issue.kind)}**{done}: {detail} ({issue.size:,} bytes)  \n  `{_UNSEEN.sub('?', issue.subject)}`"


def plain(text: str) -> str:
    """Return text unchanged where Markdown would see markup: the asterisks of a hidden password."""
    return _MARKS.sub(r"\\\1", text)
