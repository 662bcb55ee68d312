"""The page in Chromium, on a cache of 100,000 entries: python -m tests.page.in_a_browser [--pictures FOLDER]

It speaks the DevTools protocol with a browser that has no window. Where a machine has no Chromium, test_page.py
asks for the same over HTTP.
"""

from __future__ import annotations

import argparse
import base64
import http.server
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from websockets.sync.client import ClientConnection, connect

from cacheness import UnifiedCache
from cacheness.results.store import Draft

ENTRIES = 100_000
BATCH = 5000
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
RUN = "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">"
HOSTILE = f"\"'>{RUN}</textarea></style>{RUN}\x1b[31m\u202e\n"
LEAST_CONTRAST = 4.5  #: of text, as the Web Content Accessibility Guidelines have it
PHONE = 360
#: What a page of another origin tries.
SUBMITS = (
    """<form method=post action="%s"><input name=sure value=yes></form><script>document.forms[0].submit()</script>"""
)
FETCHES = """<script>
const read = url => fetch(url, {credentials: "include"}).then(answer => answer.text())
const change = url => fetch(url, {
  method: "POST", mode: "no-cors", credentials: "include", body: new URLSearchParams({sure: "yes"}),
}).then(answer => answer.text())
Promise.allSettled([read("%s/"), read("%s/metrics"), change("%s")]).then(all => {
  document.title = "done " + all.map(one => (one.value || "").length).join(" ")
})
</script>"""
FOCUS = ["Overview", "Entries", "Disputes", "Integrity", "key", "Find"]


def price(x: int) -> int:
    """A function that the overview shows."""
    time.sleep(0.01)
    return 3 * x


def fail(x: int) -> int:
    """One that raises."""
    raise ZeroDivisionError(x)


class Tab:
    """A page of the browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._socket = socket
        self._numbers = itertools.count(1)
        self._loads = 0
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **given: Any) -> dict[str, Any]:
        """Ask for something, and return the answer; events that come before are noted."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": given}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == number:
                assert "error" not in message, (method, message)
                return dict(message["result"])
            self._note(message)

    def go(self, url: str) -> float:
        """Load a page; seconds that it took."""
        return self.loading(lambda: self.call("Page.navigate", url=url))

    def loading(self, act: Callable[[], object]) -> float:
        """Do what loads a page, and wait for it; seconds that it took."""
        began, before = time.perf_counter(), self._loads
        act()
        while self._loads == before:
            self._note(json.loads(self._socket.recv(timeout=60)))
        return time.perf_counter() - began

    def value(self, expression: str) -> Any:
        """What an expression is in the page. It runs also where the page's own scripts may not."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def text(self) -> str:
        """What can be read."""
        return str(self.value("document.body.innerText"))

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key and let it go."""
        named = {"key": key, "code": key if key != " " else "Space", "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **named, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def tab_to(self, selector: str) -> None:
        """Press Tab until an element has the focus."""
        for _ in range(200):
            self.press("Tab", 9)
            if self.value(f"document.activeElement.matches({selector!r})"):
                return
        raise AssertionError(f"{selector} cannot be reached by the keyboard")

    def picture(self, path: Path) -> None:
        """Keep what is seen as a picture."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def _note(self, event: dict[str, Any]) -> None:
        method, given = event.get("method", ""), event.get("params", {})
        if method == "Page.loadEventFired":
            self._loads += 1
        elif method == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"])
        elif method == "Page.javascriptDialogOpening":
            self.complaints.append(f"dialog: {given['message']}")
        elif method == "Log.entryAdded" and given["entry"]["source"] in ("security", "javascript"):
            self.complaints.append(given["entry"]["text"])


@contextmanager
def browser() -> Iterator[Tab]:
    """Chromium without a window, with a profile of its own."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        sys.exit(f"none of {', '.join(BROWSERS)} is installed")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--hide-scrollbars"]
        command = [program, *options, f"--user-data-dir={profile}", "about:blank"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                yield from _tab_of(Path(profile) / "DevToolsActivePort")
            finally:
                process.terminate()


def _tab_of(file: Path) -> Iterator[Tab]:
    import urllib.request

    until = time.monotonic() + 60
    while not file.exists() or "\n" not in file.read_text():
        assert time.monotonic() < until, "the browser did not start"
        time.sleep(0.1)
    port = file.read_text().split()[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
        (target, *_) = [one for one in json.load(answer) if one["type"] == "page"]
    with connect(target["webSocketDebuggerUrl"], max_size=None) as socket:
        yield Tab(socket)


def filled(folder: Path) -> dict[str, str]:
    """Fill a cache; the keys of entries that the checks need."""
    with UnifiedCache(folder) as cache:
        model = cache.put(0, args={"n": 0})
        for start in range(0, ENTRIES, BATCH):
            keys = (os.urandom(32) for _ in range(min(BATCH, ENTRIES - start)))
            cache._store.publish(
                [Draft(replace(model, key=key, inline=None), [model.inline or b""], None) for key in keys]
            )
        cached, failing = cache.cached(price), cache.cached(fail)
        for x in (*range(8), *range(8), *range(8)):
            cached(x)
        with suppress(ZeroDivisionError):
            failing(1)

        def hostile(x: str) -> str:
            return x

        hostile.__module__ = hostile.__qualname__ = HOSTILE[:150]
        cache.cached(hostile)(HOSTILE)
        cache.count(HOSTILE, "miss", HOSTILE)
        worst = cache.put(HOSTILE, x=HOSTILE * 1000, tags=[HOSTILE[:100]], prefix=HOSTILE[:100])
        disputed = cache.put(1, disputed=1)
        cache.dispute(disputed, None, None, HOSTILE)
        first, second = (cached.key(x).hex for x in (1, 2))
        return {"first": first, "second": second, "hostile": worst.cache_key, "disputed": disputed.cache_key}


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The page of a cache, by `cacheness ui`; the address that it prints."""
    command = [sys.executable, "-m", "cacheness", "ui", "-d", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@contextmanager
def elsewhere(page: str, host: str) -> Iterator[str]:
    """A page of another origin; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{host}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


class Checks:
    """What a person with this browser meets."""

    def __init__(self, tab: Tab, url: str, keys: dict[str, str], pictures: Path | None) -> None:
        self.tab, self.url, self.keys, self.pictures = tab, url, keys, pictures
        parts = urlsplit(url)
        self.home = f"{parts.scheme}://{parts.netloc}"

    def reads(self) -> str:
        """Each page shows what it is for."""
        took = {"/": self.tab.go(self.url)}
        pages = {
            "/": ":price",
            "/entries": "the first 100 are shown",
            "/entries?order=size": "put by hand",
            f"/entries?key={self.keys['first'][:8]}": self.keys["first"][:12],
            f"/entry/{self.keys['first']}": "x=1",
            f"/entry/{self.keys['first']}?value=1": "3",
            "/disputes": self.keys["disputed"][:12],
            "/integrity": "shard",
        }
        for path, words in pages.items():
            took[path] = self.tab.go(self.home + path)
            assert words in self.tab.text(), (path, words, self.tab.text()[:500])
        assert "100,0" in (self.tab.go(self.home), self.tab.text())[1]
        return ", ".join(f"{path[:20]} {seconds * 1e3:.0f} ms" for path, seconds in took.items())

    def without_scripts(self) -> str:
        """The same with JavaScript off; an entry is deleted and a dispute is settled, by the keyboard alone."""
        self.tab.call("Emulation.setScriptExecutionDisabled", value=True)
        self.reads()
        self.tab.go(f"{self.home}/entry/{self.keys['second']}")
        self.tab.tab_to("input[name=sure]")
        self.tab.press(" ", 32, " ")
        self.tab.tab_to("button.danger")
        self.tab.loading(lambda: self.tab.press("Enter", 13, "\r"))
        assert self.tab.value("location.pathname") == "/entries", self.tab.text()
        self.tab.go(f"{self.home}/entry/{self.keys['second']}")
        assert "This entry does not exist" in self.tab.text(), self.tab.text()
        self.tab.go(f"{self.home}/disputes")
        self.tab.tab_to("button[value=old], form[action*=disputes] button")
        self.tab.loading(lambda: self.tab.press("Enter", 13, "\r"))
        assert self.keys["disputed"][:12] not in self.tab.text(), self.tab.text()
        self.tab.call("Emulation.setScriptExecutionDisabled", value=False)
        return "all pages, a deletion, a settled dispute"

    def hostile(self) -> str:
        """What is stored does not run, and nothing was refused by the policy, because nothing tried."""
        paths = ["/", "/entries", "/entries?order=size", "/disputes", f"/entry/{self.keys['hostile']}?value=1"]
        self.tab.complaints.clear()
        for path in paths:
            self.tab.go(self.home + path)
            assert self.tab.value("document.title") != "ran", path
            assert self.tab.value("document.scripts.length + document.images.length") == 0, path
        assert self.tab.complaints == [], self.tab.complaints
        return f"{len(paths)} pages, none ran"

    def keyboard(self) -> str:
        """Tab goes through the page in its order, what has the focus is seen, and Enter follows a link."""
        self.tab.go(self.home)
        met = []
        for _ in FOCUS:
            self.tab.press("Tab", 9)
            met.append(self.tab.value("document.activeElement.id || document.activeElement.innerText"))
            assert self.tab.value("getComputedStyle(document.activeElement).outlineStyle") != "none"
        assert met == FOCUS, met
        self.tab.tab_to("td a")
        self.tab.loading(lambda: self.tab.press("Enter", 13, "\r"))
        assert self.tab.value("location.pathname") == "/entries"
        return ", ".join(met)

    def colours(self) -> str:
        """Light and dark differ, and text has contrast in both."""
        found = []
        for scheme in ("light", "dark"):
            self.tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            self.tab.go(self.home)
            back = self.tab.value("getComputedStyle(document.body).backgroundColor")
            for selector in ("body", "a", "th", "footer", "dt"):
                colour = self.tab.value(f"getComputedStyle(document.querySelector({selector!r})).color")
                assert contrast(colour, back) >= LEAST_CONTRAST, (scheme, selector, colour, back)
            found.append(back)
            if self.pictures:
                self.tab.call(
                    "Emulation.setDeviceMetricsOverride", width=1100, height=900, deviceScaleFactor=1, mobile=False
                )
                self.tab.picture(self.pictures / f"page-{scheme}.png")
                self.tab.go(f"{self.home}/entry/{self.keys['first']}?value=1")
                self.tab.picture(self.pictures / f"page-entry-{scheme}.png")
        assert found[0] != found[1]
        return f"contrast of {LEAST_CONTRAST} and more"

    def narrow(self) -> str:
        """No page is wider than a telephone."""
        self.tab.call("Emulation.setDeviceMetricsOverride", width=PHONE, height=700, deviceScaleFactor=1, mobile=True)
        for path in ("/", "/entries", f"/entry/{self.keys['hostile']}", "/disputes", "/integrity"):
            self.tab.go(self.home + path)
            assert self.tab.value("document.scrollingElement.scrollWidth") <= PHONE, path
        self.tab.call("Emulation.clearDeviceMetricsOverride")
        return f"{PHONE} pixels"

    def another_origin(self) -> str:
        """A page of another origin, in the browser that has the cookie, changes nothing and reads nothing."""
        target = f"{self.home}/entry/{self.keys['first']}/delete"
        form = SUBMITS % target
        fetch = FETCHES % (self.home, self.home, target)
        # To another port of the same host the browser sends the cookie along.
        for host in ("localhost", "127.0.0.1"):
            with elsewhere(form, host) as url:
                self.tab.go(url)
                time.sleep(0.5)
            with elsewhere(fetch, host) as url:
                self.tab.go(url)
                until = time.monotonic() + 30
                while not str(self.tab.value("document.title")).startswith("done") and time.monotonic() < until:
                    time.sleep(0.1)
                assert self.tab.value("document.title") == "done 0 0 0", self.tab.value("document.title")
            with elsewhere(f"<iframe src='{self.home}/'></iframe>", host) as url:
                self.tab.go(url)
        self.tab.go(f"{self.home}/entry/{self.keys['first']}")
        assert "x=1" in self.tab.text()
        return "a form, three requests and a frame, from another host and another port"

    def nothing_from_elsewhere(self) -> str:
        """The pages ask for nothing from any other place."""
        self.tab.requests.clear()
        self.reads()
        others = {url for url in self.tab.requests if not url.startswith(self.home)}
        assert not others, others
        return f"{len(self.tab.requests)} requests"


def contrast(one: str, other: str) -> float:
    """How much two colours of the browser differ, as accessibility guidelines count it."""

    def light(colour: str) -> float:
        shares = [int(part) / 255 for part in colour.removeprefix("rgb(").rstrip(")").split(",")]
        red, green, blue = (x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in shares)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, bright = sorted((light(one), light(other)))
    return (bright + 0.05) / (dark + 0.05)


def main() -> int:
    """Run every check; 1 where one does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="keep pictures in this folder")
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        keys = filled(Path(folder) / "cache")
        with served(Path(folder) / "cache") as url, browser() as tab:
            checks = Checks(tab, url, keys, options.pictures)
            order = (checks.reads, checks.hostile, checks.keyboard, checks.colours, checks.narrow)
            for check in (*order, checks.nothing_from_elsewhere, checks.another_origin, checks.without_scripts):
                try:
                    found = check()
                    print(f"ok   {check.__name__}: {found}", flush=True)
                except AssertionError as error:
                    failed += 1
                    print(f"BAD  {check.__name__}: {error}", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
