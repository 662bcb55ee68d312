"""The contents of each page: data of a cache, in templates that escape every text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache as once
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup

from cacheness.errors import CodecError
from cacheness.jitter import below
from cacheness.maintenance.ranking import first_of
from cacheness.page.chart import Bar, bars
from cacheness.page.preview import not_served, preview
from cacheness.printable import cut, printable
from cacheness.records import COLUMNS
from cacheness.units import bytes_named, number_of, seconds_named

if TYPE_CHECKING:
    import jinja2

    from cacheness.cache import UnifiedCache
    from cacheness.maintenance.activity import Sum

HERE: Final = Path(__file__).parent
HOURS: Final = 48  #: that the charts show
ROWS: Final = 50  #: of a table on the first page
LISTED: Final = 100  #: entries in a list
LOOK_SECONDS: Final = 2.0  #: that reading the entries may take
PAGE: Final = 500
TEXT: Final = 2000  #: characters of one text
PREVIEW: Final = 2000
ARGUMENT: Final = 200  #: characters of one of many
ORDERS: Final = {
    "size": "largest first",
    "unused": "unused for longest first",
    "uses": "most uses first",
    "seconds": "most seconds to compute first",
}


@dataclass(frozen=True, slots=True)
class View:
    """One page: the template, and its data."""

    template: str
    title: str
    data: Mapping[str, Any]

    def html(self, *, token: str = "", is_file: bool = False) -> str:
        """Return the page as HTML. A page that is a file contains its style, and neither links nor buttons."""
        style = (HERE / "templates/style.css").read_text() if is_file else ""
        made = datetime.now(UTC)
        return (
            _templates()
            .get_template(self.template)
            .render(
                **self.data,
                title=self.title,
                token=token,
                is_file=is_file,
                style=Markup(style),  # noqa: S704  our own file
                version=version("cacheness"),
                made=f"{made:%Y-%m-%d %H:%M:%S} UTC",
            )
        )


def overview(cache: UnifiedCache) -> View:
    """Show the cache's contents, what it saved, by function and hour, and why calls missed. Reads no entries."""
    hours = {row.name: row for row in cache.report(since=timedelta(hours=HOURS), by="hour")}
    ever = cache.overview()
    functions, reasons = ever.report("function"), ever.report("reason")
    names = [_hour(ago) for ago in reversed(range(HOURS))]
    return View(
        "overview.html",
        "What the cache does",
        {
            "namespace": cache.config.namespace,
            "columns": COLUMNS,
            "stats": ever.stats,
            "functions": functions,
            "reasons": reasons,
            "rows": ROWS,
            "disputes": len(cache.disputes()),
            "calls": _chart("Calls in each hour", names, hours, _calls),
            "saved": _chart("Time saved in each hour", names, hours, _saved, seconds_named),
        },
    )


def entries(cache: UnifiedCache, asked: Mapping[str, str]) -> View:
    """Show entries: by the first digits of a key, function, tag or prefix, or the first in some order."""
    chosen = {name: asked[name] for name in ("function", "tag", "prefix") if asked.get(name)}
    order, key = asked.get("order", ""), asked.get("key", "").strip()
    note, found = "", list[dict[str, Any]]()
    try:
        if key:
            entry = cache.entry(key)
            found = cache.describe([] if entry is None else [entry])
        elif order in ORDERS:
            found, note = _ordered(cache, chosen, order)
        else:
            found = cache.list_entries(**chosen, limit=LISTED + 1)
            note = f"the first {LISTED} are shown" if len(found) > LISTED else ""
    except (ValueError, CodecError) as error:  # for text that no store can contain, such as NUL
        note = str(error)
    return View(
        "entries.html",
        "Entries",
        {
            "entries": found[:LISTED],
            "asked": asked,
            "orders": ORDERS,
            "note": note,
        },
    )


def entry(cache: UnifiedCache, key: str, *, shows_value: bool = False) -> View | None:
    """Show one entry: its function, inputs, origin, and on demand its value. Return None if it does not exist."""
    found = cache.entry(key)
    if found is None:
        return None
    (listed,) = cache.describe([found])
    lineage = cache.lineage(found.key.hex(), up=2)
    return View(
        "entry.html",
        found.function or "put by hand",
        {
            "entry": found,
            "listed": listed,
            "code": listed["code"] or {},
            "edges": lineage.edges,
            "functions": lineage.functions,
            "dispute": next(iter(cache.disputes([found.key.hex()])), None),
            "not_served": not_served(cache, found),
            "value": preview(cache, found, PREVIEW) if shows_value else None,
        },
    )


def disputes(cache: UnifiedCache) -> View:
    """Show results that differed when they were computed again."""
    return View("disputes.html", "Disputes", {"disputes": [one.as_dict() for one in cache.disputes()]})


def integrity(cache: UnifiedCache, shard: str = "") -> View:
    """Compare one 256th of the rows with their blobs; changes nothing."""
    number = int(shard) if shard.isdecimal() and int(shard) < 256 else below(256)
    report, checked = cache.verify_integrity(shard=number), cache.deep_checks()
    data = {"report": report.as_dict(), "rows": report.table(), "shard": number, "checked": sorted(checked.values())}
    return View("integrity.html", "Integrity", data)


def trouble(what: str, error: Exception) -> View:
    """The reason why a page cannot be shown."""
    return View("trouble.html", "Not now", {"what": what, "error": f"{type(error).__name__}: {error}"})


def message(title: str, text: str) -> View:
    """A sentence."""
    return View("trouble.html", title, {"what": text, "error": ""})


def _ordered(cache: UnifiedCache, chosen: Mapping[str, Any], order: str) -> tuple[list[dict[str, Any]], str]:
    """Return the first entries in an order, of those that are read in the time for a page."""
    best, looked_at, until = list[dict[str, Any]](), 0, time.monotonic() + LOOK_SECONDS
    left = cache.iter_entries(**chosen)
    while page := cache.describe(islice(left, PAGE)):
        looked_at += len(page)
        best = first_of(best, page, LISTED, order)
        if time.monotonic() > until:
            return best, f"of the first {looked_at:,} entries; `cacheness top --by {order}` looks at all"
    return best, ""


def _hour(ago: int) -> str:
    return f"{datetime.now(UTC) - timedelta(hours=ago):%Y-%m-%d %H:00}"


def _calls(row: Sum) -> list[tuple[str, float]]:
    # As the columns of the table, from the bottom up.
    return [(name, float(count)) for name, count in zip(COLUMNS[1:], row.counts[1:], strict=True)]


def _saved(row: Sum) -> list[tuple[str, float]]:
    return [("saved", row.seconds_saved)]


def _chart(
    title: str,
    names: list[str],
    hours: Mapping[str, Sum],
    parts: Callable[[Sum], list[tuple[str, float]]],
    named: Callable[[float], str] | None = None,
) -> Markup:
    columns = [Bar(name, parts(hours[name]) if name in hours else []) for name in names]
    return Markup(bars(title, columns, named))  # noqa: S704  it has escaped what it was given


@once
def _templates() -> jinja2.Environment:
    import jinja2

    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_plain,
    )  # fmt: skip
    templates.filters |= {
        "size": bytes_named,
        "seconds": _seconds,
        "share": _share,
        "when": _when,
        "called": _called,
        "number": number_of,
    }
    return templates


def _plain(value: Any) -> Any:
    """Return a text for a page: of limited length, and without characters that change the direction of writing."""
    if value is None or isinstance(value, Markup):
        return "" if value is None else value
    return printable(cut(f"{value}", TEXT), also="\n\t")


def _seconds(number: float | None) -> str:
    return "" if number is None else seconds_named(number)


def _share(number: float | None) -> str:
    return "" if number is None else f"{number:.0%}"


def _when(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def _called(given: Any) -> str:
    if not isinstance(given, Mapping):
        return f"{given}"
    return ", ".join(_arguments(given))


def _arguments(given: Mapping[str, Any]) -> Iterator[str]:
    for name, value in given.items():
        if name in ("function", "prefix"):  # options of the key, which are shown elsewhere
            continue
        try:
            yield f"{name}={cut(repr(value), ARGUMENT)}"
        except Exception as error:  # noqa: BLE001  the value's own class
            yield f"{name}: its repr failed: {type(error).__name__}"
