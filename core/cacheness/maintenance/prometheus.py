"""Format figures for Prometheus, as a file or a page: names and labels never change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cacheness.maintenance.activity import Report

_OUTCOMES = {"hit": "hits", "miss": "misses", "waited": "waited", "not cacheable": "not_cacheable", "failed": "failed"}


def text_of(namespace: str, stats: Mapping[str, Any], report: Report) -> str:
    """Return the totals of a namespace and all its calls, in Prometheus' text format."""
    here = {"namespace": namespace}
    of = [(row, {**here, "function": row.name}) for row in report]
    calls = (
        ({**labels, "outcome": outcome}, getattr(row, field))
        for row, labels in of
        for outcome, field in _OUTCOMES.items()
    )
    lines = [
        *_metric("cacheness_entries", "gauge", "Entries.", [(here, stats["entries"])]),
        *_metric("cacheness_bytes", "gauge", "Stored bytes of entries.", [(here, stats["bytes"])]),
        *_metric("cacheness_calls_total", "counter", "Calls by function and outcome.", calls),
        *_metric(
            "cacheness_seconds_saved_total",
            "counter",
            "Seconds that the results of hits took to compute.",
            ((labels, row.seconds_saved) for row, labels in of),
        ),
        *_metric(
            "cacheness_seconds_spent_total",
            "counter",
            "Seconds that calls computed or waited.",
            ((labels, row.seconds_spent) for row, labels in of),
        ),
        *_metric(
            "cacheness_bytes_saved_total",
            "counter",
            "Stored bytes that hits read.",
            ((labels, row.bytes_saved) for row, labels in of),
        ),
    ]
    return "".join(f"{line}\n" for line in lines)


def _metric(name: str, kind: str, meaning: str, values: Iterable[tuple[Mapping[str, str], float]]) -> Iterator[str]:
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"
    for labels, value in values:
        named = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"{name}{{{named}}} {value}"


def _escaped(text: str) -> str:
    """Return a label's value: only these three characters have a meaning there, but a terminal may show it."""
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return "".join(char if char.isprintable() else f"\\\\x{ord(char):02x}" for char in text)
