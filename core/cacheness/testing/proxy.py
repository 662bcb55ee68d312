"""
A proxy on loopback that injects faults: in front of PostgreSQL, S3 or anything on TCP.

```python
with Proxy.before(database_url) as proxy:
    cache = UnifiedCache(metadata_backend=proxy.url, ...)
    proxy.drop_response(b"COMMIT")  # the server commits, and the client never hears of it
    proxy.stall()                   # accepts, and never answers
    proxy.heal()                    # as if nothing had been
```

Faults apply to all connections, old and new, until `heal`. A fault with a `match` applies when the
bytes appear in a client's data, at most `times` times.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Literal, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from cacheness.lazy_dataclass import dataclass

_BLOCK: Final = 1 << 16
_OVERLAP: Final = 256  #: a match may span two blocks
_RESET: Final = struct.pack("ii", 1, 0)  #: close with RST instead of FIN


@dataclass(slots=True)
class _FaultRule:
    match: bytes
    action: Literal["reset", "drop", "stall", "answer"]
    left: int
    reply: bytes = b""


class Proxy:
    """Forwards connections to one address, with the faults that a test sets."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._lock = threading.Lock()
        self._links: set[_Link] = set()
        self._rules: list[_FaultRule] = []
        self._listener: socket.socket | None = None
        self.port = 0
        self.url = ""
        self.connections = 0  #: accepted so far
        self.requests: list[bytes] = []  #: the first bytes of each block that clients sent
        self.round_trips = 0  #: how often a client sent something after an answer
        self.stalled = False
        self.rate: float | None = None  #: limit of bytes per second for servers' answers
        self.delay = 0.0  #: seconds of delay for a request, as for a remote server
        self.cut_left: int | None = None  #: bytes of answers until the next connection is cut
        self._listen()

    @classmethod
    def before(cls, url: str) -> Proxy:
        """Return a proxy before the server of a database URL, or of an S3 URL's `endpoint_url`; see `url`."""
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query))
        server = urlsplit(options.get("endpoint_url", url))
        proxy = cls(
            server.hostname or "127.0.0.1", server.port or {"postgresql": 5432, "https": 443}.get(server.scheme, 80)
        )
        here = f"127.0.0.1:{proxy.port}"
        if "endpoint_url" in options:
            options["endpoint_url"] = f"{server.scheme}://{here}"
            proxy.url = urlunsplit(parts._replace(query=urlencode(options)))
        else:
            user = parts.netloc.rpartition("@")[0]
            proxy.url = urlunsplit(parts._replace(netloc=f"{user}@{here}" if user else here))
        return proxy

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and cut every connection."""
        self.refuse()

    # faults

    def refuse(self) -> None:
        """Cut every connection and reject new ones, like a server that is down."""
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            # Closing alone would not wake the thread that accepts.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self._cut_all()

    def stall(self) -> None:
        """Accept connections and bytes, and forward nothing."""
        self.stalled = True

    def throttle(self, rate: float) -> None:
        """Slow down answers: so many bytes per second, a few at a time."""
        self.rate = rate

    def lag(self, seconds: float) -> None:
        """Delay each request: once per answer that is waited for, however long it is."""
        self.delay = seconds

    def cut_response(self, after: int) -> None:
        """Reset a connection, once, after so many more bytes of answers."""
        self.cut_left = after

    def reset_before(self, match: bytes, *, times: int = 1) -> None:
        """Reset the connection instead of forwarding the request."""
        self._rules.append(_FaultRule(match, "reset", times))

    def drop_response(self, match: bytes, *, times: int = 1) -> None:
        """Forward the request, and reset the connection instead of returning its answer."""
        self._rules.append(_FaultRule(match, "drop", times))

    def stall_before(self, match: bytes, *, times: int = 1) -> None:
        """Keep the request, and send nothing."""
        self._rules.append(_FaultRule(match, "stall", times))

    def answer(
        self,
        match: bytes,
        status: int,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        times: int = 1_000_000,
    ) -> None:
        """Answer an HTTP request in the proxy."""
        lines = {
            "Content-Length": str(len(body)),
            "Content-Type": "application/xml",
            **(headers or {}),
            "Connection": "close",
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._rules.append(
            _FaultRule(match, "answer", times, f"HTTP/1.1 {status} Because\r\n{head}\r\n".encode() + body)
        )

    def has_struck(self) -> bool:
        """Return True when every fault that waits for a match has occurred as often as requested."""
        with self._lock:
            return not any(rule.left for rule in self._rules)

    def heal(self) -> None:
        """Forward normally from now on. Stalled connections are reset."""
        self._rules.clear()
        self.rate = self.cut_left = None
        self.delay = 0.0
        if self.stalled:
            self.stalled = False
            self._cut_all()
        if self._listener is None:
            self._listen()

    # implementation

    def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(128)
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                open_still = self._listener is listener
            link = _Link(self, client, self._target)
            self._links.add(link)
            if open_still:
                link.start()
            else:
                link.cut()

    def _cut_all(self) -> None:
        for link in list(self._links):
            link.cut()

    def remove(self, link: _Link) -> None:
        """A connection has ended."""
        self._links.discard(link)

    def rule_for(self, data: bytes) -> _FaultRule | None:
        """Return the first fault that these bytes trigger, and reduce its count by one."""
        with self._lock:
            for rule in self._rules:
                if rule.left and rule.match in data:
                    rule.left -= 1
                    return rule
        return None

    def allowance(self, count: int) -> int:
        """Return how many of these bytes of an answer may pass; if not all, the connection is then cut."""
        with self._lock:
            if self.cut_left is None or self.cut_left >= count:
                self.cut_left = None if self.cut_left is None else self.cut_left - count
                return count
            passing, self.cut_left = self.cut_left, None
            return passing


class _Link:
    """One connection: client to proxy to server, with a thread for each direction."""

    def __init__(self, proxy: Proxy, client: socket.socket, target: tuple[str, int]) -> None:
        self._proxy = proxy
        self._client = client
        self._target = target
        self._server: socket.socket | None = None
        self._dropping = False
        self._answered = True  # so that the next bytes are a new request
        self._ended = 0

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def cut(self) -> None:
        """Reset both sides."""
        for side in (self._client, self._server):
            if side is not None:
                with contextlib.suppress(OSError):
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    # A close alone waits for the threads that are reading.
                    side.shutdown(socket.SHUT_RD)
                side.close()
        self._proxy.remove(self)

    def _run(self) -> None:
        try:
            self._server = socket.create_connection(self._target, timeout=10)
            self._server.settimeout(None)
            for side in (self._client, self._server):  # otherwise the kernel delays the end of a request
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            self.cut()
            return
        threading.Thread(target=self._pump, args=(self._answers, self._client), daemon=True).start()
        self._pump(self._requests, self._server)

    def _pump(self, forward: Callable[[], bool], receiver: socket.socket) -> None:
        try:
            if forward():
                receiver.shutdown(socket.SHUT_WR)
                self._ended += 1
                if self._ended < 2:
                    return
        except OSError:
            pass
        self.cut()

    def _requests(self) -> bool:
        """Return True when the client closed the connection cleanly."""
        assert self._server is not None
        seen = b""
        while data := self._client.recv(_BLOCK):
            self._proxy.requests.append(data[:2000])
            if self._answered:
                self._answered = False
                self._proxy.round_trips += 1
                time.sleep(self._proxy.delay)
            self._wait_while_stalled()
            seen = seen[-_OVERLAP:] + data
            rule = self._proxy.rule_for(seen)
            if rule is None:
                self._server.sendall(data)
                continue
            seen = b""
            if rule.action == "stall":
                self._client.recv(1)  # until the client gives up
            if rule.action == "answer":
                self._reply(data, rule.reply)
            if rule.action != "drop":
                return False
            self._dropping = True
            self._server.sendall(data)
        return True

    def _answers(self) -> bool:
        """Return True when the server closed the connection cleanly."""
        assert self._server is not None
        while data := self._server.recv(_BLOCK):
            self._answered = True
            self._wait_while_stalled()
            if self._dropping:
                return False
            passing = self._proxy.allowance(len(data))
            self._send_slowly(data[:passing])
            if passing < len(data):
                return False
        return True

    def _send_slowly(self, data: bytes) -> None:
        while data and (rate := self._proxy.rate):  # which a test may change at any time
            step = max(1, int(rate / 20))
            self._client.sendall(data[:step])
            data = data[step:]
            time.sleep(step / rate)
        self._client.sendall(data)

    def _wait_while_stalled(self) -> None:
        while self._proxy.stalled:
            time.sleep(0.01)
            if self._client.fileno() < 0:
                raise OSError("the link was cut")

    def _reply(self, data: bytes, reply: bytes) -> None:
        # The body first: a client that is still sending may not read an answer.
        head, _, body = data.partition(b"\r\n\r\n")
        names = (line.partition(b":") for line in head.split(b"\r\n"))
        headers = {name.strip().lower(): value.strip() for name, _, value in names}
        if headers.get(b"expect", b"").lower() == b"100-continue":
            self._client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        left = int(headers.get(b"content-length", b"0")) - len(body)
        while left > 0 and (more := self._client.recv(_BLOCK)):
            left -= len(more)
        if data.startswith(b"HEAD "):
            reply = reply.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        self._client.sendall(reply)
        self._client.shutdown(socket.SHUT_WR)
        self._client.recv(1)
