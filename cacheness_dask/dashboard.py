"""Add a page to the scheduler's dashboard, and a part to its performance report: the cluster's figures."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from html import escape
from typing import Any, Final

from dask.utils import format_bytes, format_time
from distributed import Scheduler, SchedulerPlugin
from tornado.web import RequestHandler

from cacheness.isolation import isolated
from cacheness_dask.live import TOPIC, Progress, logger

#: Seconds after which the page reloads.
REFRESH: Final = 2
#: Reasons that it lists.
_MOST_SHOWN: Final = 20
#: Events that are kept for reports: a worker sends at most two per second.
_MOST_KEPT: Final = 100_000
#: After so long without a graph or a task, the running graphs count as finished.
_QUIET: Final = 60.0


def show_page(client: Any) -> None:
    """Make the scheduler of a client show the page."""
    client.loop.add_callback(_register, client)


async def _register(client: Any) -> None:
    with isolated(_log):
        await client.register_plugin(DashboardPlugin())


class DashboardPlugin(SchedulerPlugin):
    """Sums up events on the scheduler, and shows them under `/cacheness`."""

    name = "cacheness"
    idempotent = True

    async def start(self, scheduler: Scheduler) -> None:
        """Add the page, and the part of reports."""
        self.total = Progress()
        self.current = Progress()  #: since the first of the running graphs
        self.at = 0.0
        self.events: deque[tuple[float, Progress]] = deque(maxlen=_MOST_KEPT)
        for moment, event in scheduler.get_events(TOPIC):
            self._add(moment, Progress.of(event))
        pattern = r"/(?:.*/)?cacheness/?"  # below a proxy's prefix, too
        scheduler.http_application.add_handlers(r".*", [(pattern, DashboardPage, {"plugin": self})])
        with isolated(_log):
            _link(scheduler)
        beneath = scheduler.handlers["performance_report"]
        scheduler.handlers["performance_report"] = self._reporting(beneath)

    def log_event(self, topic: str, msg: Any) -> None:
        """Add an event."""
        if topic == TOPIC:
            self._add(time.time(), Progress.of(msg))

    def _add(self, moment: float, progress: Progress) -> None:
        self.events.append((moment, progress))
        self.total += progress
        is_over = moment - self.at > _QUIET or _is_done(self.current)
        self.current = progress if progress.graphs and is_over else self.current + progress
        self.at = moment

    def since(self, start: float) -> Progress:
        """Return the sum of events from a time on."""
        found = Progress()
        for moment, progress in self.events:
            if moment >= start:
                found += progress
        return found

    def _reporting(self, beneath: Callable[..., Any]) -> Callable[..., Any]:
        async def performance_report(start: float, last_count: int, code: str = "", mode: str | None = None) -> Any:
            with isolated(_log):
                # The report ends its first tab with the code, unescaped, within <pre>.
                code += f"</pre><h2>Cacheness</h2>{_table(self.since(start))}<pre>"
            return await beneath(start=start, last_count=last_count, code=code, mode=mode)

        return performance_report


class DashboardPage(RequestHandler):
    """The page. It has no script, and reloads itself."""

    def initialize(self, plugin: DashboardPlugin) -> None:
        """Store the plugin whose sums are shown."""
        self._plugin = plugin

    def get(self) -> None:
        """Send the page."""
        self.set_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
        self.set_header("Cache-Control", "no-store")
        self.write(page_of(self._plugin.current, self._plugin.total))


def page_of(current: Progress, total: Progress) -> str:
    """Return the page as HTML."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="{REFRESH}">'
        f"<title>Cacheness</title><style>{_STYLE}</style></head><body><h1>Cacheness</h1>"
        f"<p>{_bar('loaded', current.loaded, current.hits)}{_bar('computed', current.computed, current.to_compute)}</p>"
        f'{_table(total)}<p class="more"><a href="status">Dask: status</a></p></body></html>'
    )


def _bar(what: str, done: int, wanted: int) -> str:
    done = min(done, wanted)  # for a deleted entry, both reading and computing are reported
    return (
        f"<label>{done:,} of {wanted:,} {what}"
        f'<progress max="{max(wanted, 1)}" value="{done if wanted else 1}"></progress></label>'
    )


def _table(progress: Progress) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in _lines(progress))
    reasons = sorted(progress.reasons.items(), key=lambda item: (-item[1], item[0]))
    causes = "".join(f"<tr><td>{count:,}</td><td>{escape(why)}</td></tr>" for why, count in reasons[:_MOST_SHOWN])
    more = len(reasons) - _MOST_SHOWN
    rest = f"<tr><td></td><td>and {more} more reasons</td></tr>" if more > 0 else ""
    why = f"<h3>Refused or not stored, and why</h3><table>{causes}{rest}</table>" if causes else ""
    return f"<table>{rows}</table>{why}"


def _lines(progress: Progress) -> Iterator[tuple[str, str]]:
    asked = progress.hits + progress.misses
    rate = f" ({progress.hits / asked:.0%} of what may be cached)" if asked else ""
    yield "graphs", f"{progress.graphs:,}"
    yield "hits", f"{progress.hits:,}{rate}"
    yield "skipped, because only hits need them", f"{progress.skipped:,}"
    yield "misses", f"{progress.misses:,}"
    yield "refused", f"{progress.refused:,}"
    yield "time saved", format_time(progress.seconds_saved)
    yield "loaded", _moved(progress.loaded, progress.loaded_bytes, progress.load_seconds)
    yield "computed, and watched", f"{progress.computed:,} in {format_time(progress.compute_seconds)}"
    yield "stored", _moved(progress.stored, progress.stored_bytes)


def _moved(results: int, size: int, seconds: float | None = None) -> str:
    return f"{results:,}, {format_bytes(size)}" + ("" if seconds is None else f" in {format_time(seconds)}")


def _is_done(progress: Progress) -> bool:
    return progress.loaded >= progress.hits and progress.computed >= progress.to_compute


def _link(scheduler: Scheduler) -> None:
    """Add the page to the dashboard's menu."""
    from distributed.dashboard.scheduler import template_variables

    pages = template_variables(scheduler)["pages"]
    if "cacheness" not in pages:
        pages.append("cacheness")


def _log(error: Exception) -> None:
    logger.debug("the dashboard has no part of cacheness: %s: %s", type(error).__name__, error)


_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem; max-width: 60rem; }
h1 { font-size: 1.5rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
table { border-collapse: collapse; }
th { font-weight: normal; text-align: left; padding: .15rem 2rem .15rem 0; vertical-align: top; }
td { padding: .15rem 1rem .15rem 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
label { display: inline-block; margin: 0 2rem 1rem 0; }
progress { display: block; width: 24rem; max-width: 90vw; height: 1.2rem; accent-color: #2c7fb8; }
"""
