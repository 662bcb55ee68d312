"""The page, as a browser asks for it, and as others try to."""

from __future__ import annotations

import random
import re
import socket
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from cacheness import UnifiedCache
from cacheness.errors import CodecError, StoreUnavailable
from cacheness.page import views
from cacheness.page.chart import Bar, bars
from cacheness.page.server import ServedPage
from cacheness.units import seconds_named

HOSTILE = "<script>alert(1)</script>\"' onload=x \x1b[31mred\x1b[0m\nline \u202egnp.exe"


def tripled(x: int) -> int:
    return 3 * x


def failing(x: int) -> int:
    raise ZeroDivisionError(x)


class Seen(HTMLParser):
    """What a browser would make of a page."""

    VOID = frozenset({"meta", "link", "input", "rect", "line"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[UnifiedCache]:
    with UnifiedCache(tmp_path / "cache") as cache:
        triple, fail = cache.cached(tripled), cache.cached(failing)
        for x in (1, 2, 1):
            triple(x)
        with pytest.raises(ZeroDivisionError):
            fail(1)
        cache.put(random.Random(1).randbytes(100_000), n=1, tags=["night"], prefix="raw")
        yield cache


@pytest.fixture
def page(cache: UnifiedCache) -> Iterator[ServedPage]:
    """A page that is served for the length of a test."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        page = ServedPage(cache, listener.getsockname()[1])
        server = uvicorn.Server(uvicorn.Config(page.app, log_level="error", lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield page
        server.should_exit = True
        thread.join()


@pytest.fixture
def stranger(page: ServedPage) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=page.url.partition("/?")[0], follow_redirects=True) as client:
        yield client


@pytest.fixture
def browser(page: ServedPage, stranger: httpx.Client) -> httpx.Client:
    assert stranger.get(page.url).status_code == 200
    return stranger


def seen(browser: httpx.Client, path: str, status: int = 200) -> Seen:
    answer = browser.get(path)
    assert answer.status_code == status, answer.text
    assert "script" not in answer.headers["content-security-policy"]
    return Seen(answer.text)


def key_of(cache: UnifiedCache, **named: Any) -> str:
    return cache.key(**named).hex


def test_the_first_page_says_what_the_cache_does(browser: httpx.Client) -> None:
    shown = seen(browser, "/")
    for words in ("entries 3", "hits 1", "misses 2", "hit rate 33%", "test_page:tripled 3 1 2", "new arguments 1"):
        assert words in shown.text, words
    assert shown.tags.count("svg") == 2
    assert "rect" in shown.tags
    assert ("href", "/entries?function=tests.page.test_page%3Atripled") in shown.attributes


def test_entries_are_found_by_what_they_have(cache: UnifiedCache, browser: httpx.Client) -> None:
    raw = cache.key(n=1, prefix="raw").hex
    for query, found in {
        "": 3,
        "?tag=night": 1,
        "?prefix=raw": 1,
        "?function=tests.page.test_page:tripled": 2,
        f"?key={raw[:8]}": 1,
        f"?key={raw.upper()}": 1,
        "?tag=none": 0,
        "?order=size": 3,
        "?order=unused": 3,
        "?order=hits": 3,
        "?order=seconds": 3,
        "?order=nonsense": 3,
    }.items():
        links = [value for name, value in seen(browser, f"/entries{query}").attributes if name == "href"]
        assert len([link for link in links if link and link.startswith("/entry/")]) == found, query
    first = [value for name, value in seen(browser, "/entries?order=size").attributes if name == "href"]
    assert next(link for link in first if link and link.startswith("/entry/")) == f"/entry/{raw}"
    for wrong in ("f", "f" * 65, "f" * 10_000, "z" * 64):
        assert "is not a key or its first digits" in seen(browser, f"/entries?key={wrong}").text


def test_an_entry_shows_what_made_it_and_its_value_on_demand(cache: UnifiedCache, browser: httpx.Client) -> None:
    key = cache.cached(tripled).key(2).hex
    shown = seen(browser, f"/entry/{key}")
    for words in ("x=2", "tests.page.test_page.tripled", "in its row", "Load and show"):
        assert words in shown.text, words
    assert "pre" not in shown.tags
    assert " 6 " in seen(browser, f"/entry/{key}?value=1").text
    assert cache.stats()["hits"] == 1  # a look is no use
    for gone in ("0" * 64, "x", key[:10]):
        assert "This entry does not exist" in seen(browser, f"/entry/{gone}", 404).text


def test_lineage_leads_from_an_entry_to_those_it_was_made_from(tmp_path: Path) -> None:
    with UnifiedCache(tmp_path / "chain") as cache:
        rows = list(range(100))
        cache.put(rows, source="here")
        cache.cached(sum_of)(rows)
        view = views.entry(cache, cache.cached(sum_of).key(rows).hex)
        assert view is not None
        shown = Seen(view.html())
        assert ("href", f"/entry/{cache.key(source='here').hex}") in shown.attributes
        assert "rows" in shown.text


def sum_of(rows: list[int]) -> int:
    return sum(rows)


def test_what_is_stored_neither_runs_nor_breaks_a_page(cache: UnifiedCache, browser: httpx.Client) -> None:
    def hostile(x: str) -> str:
        return x

    hostile.__module__ = hostile.__qualname__ = "<img src=x>\u202e"
    cache.cached(hostile)(HOSTILE)
    cache.put(HOSTILE, **{HOSTILE[:30]: HOSTILE * 10_000}, tags=["<i>tag</i>"], prefix="<b>p</b>")
    pages = ["/", "/entries", "/disputes", "/entries?function=%3Cscript%3E&tag=%22%3E%3Cscript%3E"]
    pages += [f"/entry/{entry.cache_key}?value=1" for entry in cache.iter_entries()]
    for path in pages:
        answer = browser.get(path)
        assert answer.status_code == 200
        assert len(answer.text) < 100_000
        shown = Seen(answer.text)
        assert not {"script", "img", "i", "b"}.intersection(shown.tags), path
        assert not [name for name, _ in shown.attributes if name.startswith("on") or name == "style"], path
        assert not [char for char in answer.text if not char.isprintable() and char not in "\n\t"], path


def test_only_who_has_the_token_sees_anything(cache: UnifiedCache, page: ServedPage, stranger: httpx.Client) -> None:
    key = cache.cached(tripled).key(1).hex
    for path in ("/", "/entries", f"/entry/{key}", "/disputes", "/integrity", "/metrics", "/?token=wrong", "/?token=ü"):
        answer = stranger.get(path)
        assert answer.status_code == 403
        assert "tripled" not in answer.text
        assert page.token not in answer.text
    assert stranger.get("/metrics", headers={"Authorization": f"Bearer {page.token}"}).status_code == 200
    moved = stranger.get(f"/entries?tag=a&token={page.token}", follow_redirects=False)
    assert (moved.status_code, moved.headers["location"]) == (303, "/entries?tag=a")
    assert {"httponly", "samesite=strict"} <= {part.strip().lower() for part in moved.headers["set-cookie"].split(";")}


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1:1", ""])
def test_another_name_that_leads_here_is_not_answered(page: ServedPage, stranger: httpx.Client, host: str) -> None:
    assert stranger.get(page.url, headers={"Host": host}).status_code == 400


def test_nothing_is_changed_without_the_token_or_from_elsewhere(
    cache: UnifiedCache, page: ServedPage, browser: httpx.Client
) -> None:
    key = cache.cached(tripled).key(1).hex
    path, good = f"/entry/{key}/delete", {"sure": "yes", "token": page.token}
    for data, headers in (
        ({"sure": "yes"}, {}),
        ({"sure": "yes", "token": "wrong"}, {}),
        (good, {"Origin": "http://evil.example"}),
        (good, {"Origin": "null"}),
        (good, {"Sec-Fetch-Site": "cross-site"}),
        (good, {"Sec-Fetch-Site": "same-site"}),
        (good, {"Origin": page.url.partition("/?")[0], "Sec-Fetch-Site": "cross-site"}),
        ({"sure": "yes"}, {"Sec-Fetch-Site": "same-origin", "Origin": page.url.partition("/?")[0]}),
        ({**good, "filler": "x" * 20_000}, {}),
    ):
        assert browser.post(path, data=data, headers=headers).status_code == 403
    unsure = browser.post(path, data={"token": page.token})
    assert (unsure.status_code, "nothing was deleted" in unsure.text) == (400, True)
    assert browser.get(path).status_code == 405
    assert browser.get(f"{path}?sure=yes&token={page.token}", follow_redirects=False).status_code == 405
    browser.cookies.clear()
    assert browser.post(path, data=good).status_code == 403
    assert cache.cached(tripled).explain(1).hit


def test_a_program_needs_the_token_in_both_places_and_no_origin(
    cache: UnifiedCache, page: ServedPage, stranger: httpx.Client
) -> None:
    key, token = cache.cached(tripled).key(1).hex, page.token
    where, form = f"{page.url.partition('/?')[0]}/entry/{key}", {"sure": "yes", "token": page.token}
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert stranger.get(where, headers={"Authorization": f"{scheme} {token}"}).status_code == 200
    for wrong in ("", token, f"Basic {token}", f"Bearer{token}", "bearer", f"bearer {token}x"):
        assert stranger.get(where, headers={"Authorization": wrong}).status_code == 403
    named = {"Authorization": f"bearer {token}"}
    assert stranger.post(f"{where}/delete", data={"sure": "yes"}, headers=named).status_code == 403
    assert stranger.post(f"{where}/delete", data=form).status_code == 403
    assert cache.cached(tripled).explain(1).hit
    done = stranger.post(f"{where}/delete", data=form, headers=named, follow_redirects=False)
    assert done.status_code == 303
    assert not cache.cached(tripled).explain(1).hit


def test_what_is_gone_or_settled_already_is_said(cache: UnifiedCache, page: ServedPage, browser: httpx.Client) -> None:
    key = cache.cached(tripled).key(1).hex
    form = {"sure": "yes", "token": page.token, "keep": "old"}
    assert browser.post(f"/entry/{key}/delete", data=form).status_code == 200
    again = browser.post(f"/entry/{key}/delete", data=form)
    assert (again.status_code, "This entry no longer exists" in again.text) == (404, True)
    settled = browser.post(f"/disputes/{key}", data=form)
    assert (settled.status_code, "This dispute no longer exists" in settled.text) == (404, True)
    assert browser.post(f"/disputes/{key}", data={"token": page.token}).status_code == 400


def test_an_entry_is_deleted_and_a_dispute_is_settled(
    cache: UnifiedCache, page: ServedPage, browser: httpx.Client
) -> None:
    one, other = (cache.cached(tripled).key(x).hex for x in (1, 2))
    for key in (one, other):
        entry = cache.entry(key)
        assert entry is not None
        cache.dispute(entry, None, None, "3 where 4 was stored")
    assert "2 results came out differently" in seen(browser, "/").text
    assert "3 where 4 was stored" in seen(browser, "/disputes").text
    assert "not served" in seen(browser, f"/entry/{one}").text
    ours = {"Origin": page.url.partition("/?")[0]}
    for key, keep in ((one, "old"), (other, "new")):
        done = browser.post(
            f"/disputes/{key}", data={"keep": keep, "token": page.token}, headers=ours, follow_redirects=False
        )
        assert done.status_code == 303
    # Where the policy is no-referrer, a browser sends the origin of a form as "null", which is refused.
    assert browser.get("/").headers["referrer-policy"] == "same-origin"
    assert cache.disputes() == []
    assert (cache.get(one), cache.get(other)) == (3, None)
    assert browser.post(f"/disputes/{one}", data={"keep": "both", "token": page.token}).status_code == 400
    deleted = browser.post(f"/entry/{one}/delete", data={"sure": "yes", "token": page.token}, follow_redirects=False)
    assert deleted.headers["location"] == "/entries"
    assert cache.get(one) is None


def test_integrity_looks_at_a_shard_and_changes_nothing(cache: UnifiedCache, browser: httpx.Client) -> None:
    entry = cache.entry(cache.key(n=1, prefix="raw"))
    assert entry is not None
    assert entry.blob is not None
    cache._store.blobs.delete(entry.blob)
    shard = entry.key[0]
    assert "dangling" in seen(browser, f"/integrity?shard={shard}").text
    for wrong in ("x", "-1", "999", ""):
        seen(browser, f"/integrity?shard={wrong}")
    assert cache.entry(entry.cache_key) is not None


def test_a_store_that_does_not_answer_is_said_and_the_page_goes_on(
    cache: UnifiedCache, browser: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("the database is down")

    with monkeypatch.context() as patch:
        for name in ("overview", "report", "list_entries", "disputes", "entry"):
            patch.setattr(UnifiedCache, name, down)
        for path in ("/", "/entries", "/disputes", "/metrics", f"/entry/{'0' * 64}"):
            assert "the database is down" in browser.get(path).text
            assert browser.get(path).status_code == 503
    seen(browser, "/")


def test_what_no_store_can_hold_is_not_found(
    cache: UnifiedCache, browser: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def list_entries(*_: Any, **__: Any) -> list[Any]:
        raise CodecError("text that the database cannot hold")  # PostgreSQL of NUL

    assert browser.get("/entries?tag=%00").status_code == 200
    monkeypatch.setattr(type(cache), "list_entries", list_entries)
    answer = browser.get("/entries?tag=%00")
    assert answer.status_code == 200
    assert "text that the database cannot hold" in answer.text


def test_integrity_says_when_entries_were_read_whole(cache: UnifiedCache, browser: httpx.Client) -> None:
    assert "No entries were read whole yet" in seen(browser, "/integrity").text
    assert cache.deep_checks() == {}
    cache.verify_integrity(deep=True)
    checked = cache.deep_checks()
    assert set(checked) == set(range(256))
    text = " ".join(seen(browser, "/integrity").text.split())
    assert f"Entries of 256 of 256 shards were read whole: the last on {max(checked.values()):%Y-%m-%d}" in text


def test_metrics_are_those_of_the_command_line(cache: UnifiedCache, browser: httpx.Client) -> None:
    text = browser.get("/metrics").text
    assert re.search(r'cacheness_calls_total\{.*tripled",outcome="hit"\} 1', text)


def test_a_report_is_one_file_that_needs_nothing_else(cache: UnifiedCache, tmp_path: Path) -> None:
    text = views.overview(cache).html(is_file=True)
    shown = Seen(text)
    assert "style" in shown.tags
    assert not {"link", "form", "a", "script", "nav"}.intersection(shown.tags)
    assert "http" not in re.sub(r'http-equiv="[^"]*"', "", text)


def test_charts_of_anything_are_valid_and_say_their_figures() -> None:
    for columns in ([], [Bar("now", [])], [Bar("a<b", [("hits", 0.0)]), Bar("b", [("hits", 2.5), ("misses", 1e12)])]):
        shown = Seen(bars('A "title" <of> ours', columns, seconds_named))
        assert shown.tags[0] == "svg"
    assert "2.5 s hits, 11,574,074.1 d misses" in shown.text
    assert "2.5 hits, 1,000.0G misses" in Seen(bars("calls", columns)).text
