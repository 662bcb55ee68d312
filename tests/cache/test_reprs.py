"""What a terminal and a notebook show: short, without secrets, and with every text escaped."""

from __future__ import annotations

import re
from functools import partial
from html.parser import HTMLParser
from typing import Any

import pytest

from cacheness import UnifiedCache
from cacheness.errors import StoreUnavailable

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e"


class Tags(HTMLParser):
    """The tags of a page, and whether they close."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def tags_of(thing: Any) -> set[str]:
    text = thing._repr_html_()
    assert not {"\x1b", "\u202e"} & set(text)
    parser = Tags()
    parser.feed(text)
    assert parser.open == []
    return parser.seen


@pytest.fixture
def cache(tmp_path) -> UnifiedCache:
    return UnifiedCache(tmp_path / "cache", signing_key="a secret of 24 letters.", max_entries=7)


def test_reprs_are_short_and_tell_what_differs_from_the_defaults(cache):
    cache.put("x" * 20_000, day=1)
    hit = cache.lookup(day=1)
    assert len(repr(hit)) < 200
    assert hit.entry.cache_key[:12] in repr(hit)
    assert len(repr(hit.entry)) < 200
    assert repr(cache) == f"UnifiedCache(cache_dir={cache.config.cache_dir!r}, max_entries=7)"
    url = "postgresql://me:hunter2@localhost:1/x"
    with UnifiedCache(metadata_backend=url, allow_unsigned=True, blob_store="memory://", connect_timeout=0.1) as remote:
        assert "hunter2" not in repr(remote) + remote._repr_html_()


class Model:
    def run(self, x: int) -> int:
        return x

    def __call__(self, x: int) -> int:
        return x


async def later(x: int) -> int:
    return x


def test_no_repr_has_an_address_bytes_or_a_second_line(cache):
    Model.fast = cache.cached(Model.run)  # type: ignore[attr-defined]
    entries = [cache.put(value, x=len(value)) for value in (b"", b"1", bytes(2_000_000))]
    hits = [cache.lookup(entry) for entry in entries]
    functions = [cache.cached(f) for f in (len, later, partial(len), Model(), lambda x: x)]
    functions += [Model().fast, Model.fast]  # type: ignore[attr-defined]
    for thing in [*entries, *hits, *functions, cache, cache.key(x=1)]:
        assert len(repr(thing)) < 200
        assert not re.search(r" at 0x|\n|inline|\b1 [a-z]+s\b", repr(thing)), repr(thing)
    here = __name__
    assert [repr(f) for f in functions[:2]] == [
        "<cached function builtins.len>",
        f"<cached coroutine function {here}.later>",
    ]
    assert repr(functions[3]) == "<cached callable of Model>"
    assert repr(functions[5]) == f"<cached function {here}.Model.run of Model>"
    assert re.fullmatch(r"Entry\([0-9a-f]{12}…, \d+ B\)", repr(entries[0]))


def test_hostile_text_does_not_run_in_a_notebook(cache, monkeypatch):
    @cache.cached(prefix=HOSTILE)
    def f(x):
        return x

    f(HOSTILE)
    cache.count(HOSTILE, "miss", HOSTILE)
    entry = next(cache.iter_entries())
    shown = [cache, f.explain(HOSTILE), f.explain(2), cache.verify_integrity(), cache.peek(entry.cache_key), entry]
    shown += [cache.report(), cache.report(by="reason")]
    for thing in shown:
        assert tags_of(thing) <= {"table", "caption", "tr", "th", "td"}

    def down(*_: Any) -> Any:
        raise StoreUnavailable(HOSTILE)

    monkeypatch.setattr(cache._store.metadata, "totals", down)
    assert "not available" in cache._repr_html_()
    assert tags_of(cache) <= {"table", "caption", "tr", "th", "td"}


def test_what_prints_itself_steers_no_terminal(cache):
    def hostile(x: str) -> str:
        return x

    hostile.__module__ = hostile.__qualname__ = HOSTILE + "\n"
    cached = cache.cached(hostile)
    cached(HOSTILE)
    cache.count(HOSTILE, "miss", HOSTILE)
    printed = [cached.explain(HOSTILE), cached.explain("other" + HOSTILE), cached.explain(HOSTILE).sentence()]
    printed += [cache.report(), cache.report(by="reason"), cache.lineage(cached.key(HOSTILE))]
    for thing in printed:
        assert all(line.isprintable() for line in str(thing).split("\n"))
    assert "\n" not in cached.explain("other").sentence()
    assert len(str(cache.report()).splitlines()) == 3


def test_a_number_that_python_does_not_write_is_shown_by_its_type(cache):
    entry = cache.put([16**4000], n=16**4000)
    hit = cache.lookup(n=16**4000)
    assert (hit.value, hit.entry.cache_key) == ([16**4000], entry.cache_key)
    assert repr(hit).startswith("Hit(<list>, ")
    assert "n=&lt;int&gt;" in hit._repr_html_()
