"""Providers of OpenTelemetry's API that keep what they get. Its SDK is not needed to see what a program would send."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import opentelemetry.metrics as otel_metrics
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

_numbers = itertools.count(1)


class KeptSpan(NonRecordingSpan):
    def __init__(self, name: str, parent: trace.Span, kept: list[KeptSpan]) -> None:
        super().__init__(SpanContext(1, next(_numbers), is_remote=False, trace_flags=TraceFlags(1)))
        self.name, self.parent, self.kept = name, getattr(parent, "name", ""), kept
        self.attributes: dict[str, Any] = {}
        self.errors: list[BaseException] = []

    def is_recording(self) -> bool:
        return True

    def set_attributes(self, attributes: Any) -> None:
        self.attributes.update(attributes)

    def record_exception(self, exception: BaseException, *args: Any, **kwargs: Any) -> None:
        self.errors.append(exception)

    def end(self, end_time: int | None = None) -> None:
        self.kept.append(self)


class Spans(trace.TracerProvider):
    """A tracer provider, and its spans in the order in which they ended."""

    def __init__(self) -> None:
        self.ended: list[KeptSpan] = []

    def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def start_span(self, name: str, context: Any = None, **kwargs: Any) -> KeptSpan:
        return KeptSpan(name, trace.get_current_span(context), self.ended)

    def told(self) -> list[tuple[str, str]]:
        return [(span.name, span.attributes["cacheness.outcome"]) for span in self.ended]


class Measures(otel_metrics.NoOpMeterProvider):
    """A meter provider, and what was added to its instruments: name, amount and attributes."""

    def __init__(self) -> None:
        self.added: list[tuple[str, float, dict[str, str]]] = []

    def get_meter(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def create_counter(self, name: str, *args: Any) -> Any:
        return Instrument(name, self)

    create_histogram = create_counter

    def sums(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        found: dict[tuple[str, ...], float] = {}
        for each, amount, attributes in self.added:
            if each == name:
                group = tuple(attributes.get(f"cacheness.{label}", "") for label in labels)
                found[group] = found.get(group, 0) + amount
        return found


class Instrument:
    def __init__(self, name: str, measures: Measures) -> None:
        self.name, self.measures = name, measures

    def add(self, amount: float, attributes: dict[str, str]) -> None:
        self.measures.added.append((self.name, amount, attributes))

    record = add


@contextmanager
def providers(patch: Any) -> Iterator[tuple[Spans, Measures]]:
    """Set both for a while, as a program does for good."""
    spans, measures = Spans(), Measures()
    with patch.context() as now:
        now.setattr(trace, "_TRACER_PROVIDER", spans)
        now.setattr(otel_metrics._internal, "_METER_PROVIDER", measures)
        yield spans, measures
