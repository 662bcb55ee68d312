"""Serve the page on this machine only.

A user needs the token of the printed URL; after that a cookie has it. A change is a POST that
contains the token again, from our own page: another site can send neither.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from cacheness.arguments import HEX_KEY
from cacheness.errors import CachenessError
from cacheness.maintenance.prometheus import text_of
from cacheness.page import views
from cacheness.page.views import HERE, View

if TYPE_CHECKING:
    from cacheness.cache import UnifiedCache

HOST: Final = "127.0.0.1"
LONGEST_FORM: Final = 10_000  #: bytes
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers send "Origin: null" from our own forms
    "Cache-Control": "no-store",
}
_Action = Callable[[Request, dict[str, str]], Response | View | None]


class ServedPage:
    """The application for one cache. An ASGI server runs `app`."""

    def __init__(self, cache: UnifiedCache, port: int, token: str | None = None) -> None:
        self.token = token or secrets.token_urlsafe(24)
        self._cache = cache
        self._names = {f"{HOST}:{port}", f"localhost:{port}"}
        self._cookie = f"cacheness_{port}"
        self.url = f"http://{HOST}:{port}/?token={self.token}"
        self.app = Starlette(
            routes=[
                Route("/", self._page(lambda *_: views.overview(cache))),
                Route("/entries", self._page(lambda _, given: views.entries(cache, given))),
                Route("/entry/{key}", self._page(self._entry)),
                Route("/entry/{key}/delete", self._page(self._delete), methods=["POST"]),
                Route("/disputes", self._page(lambda *_: views.disputes(cache))),
                Route("/disputes/{key}", self._page(self._settle), methods=["POST"]),
                Route("/integrity", self._page(lambda _, given: views.integrity(cache, given.get("shard", "")))),
                Route("/metrics", self._page(self._metrics)),
                Route("/style.css", _style),
            ],
        )

    def _page(self, show: _Action) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            response = await self._refusal(request)
            if response is None:
                form = await _form(request) if request.method == "POST" else {}
                if request.method == "POST" and not self._may_change(request, form):
                    response = self._html(
                        views.message("Not done", "This did not come from a page of this cache."), 403
                    )
                else:
                    given = form or dict(request.query_params)
                    response = await run_in_threadpool(self._shown, show, request, given)
            response.headers.update(_HEADERS)
            return response

        return answer

    async def _refusal(self, request: Request) -> Response | None:
        """Return the response to a wrong host name, or a missing token. A token is moved into a cookie."""
        if request.headers.get("host") not in self._names:  # another domain's name that resolves to this address
            return PlainTextResponse("unknown host", 400)
        given = request.query_params.get("token", "")
        if secrets.compare_digest(given.encode(), self.token.encode()):
            query = "&".join(part for part in request.url.query.split("&") if not part.startswith("token="))
            moved = RedirectResponse(request.url.path + (f"?{query}" if query else ""), 303)
            moved.set_cookie(self._cookie, self.token, httponly=True, samesite="strict")
            return moved
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        bearer = bearer.strip() if scheme.lower() == "bearer" else ""
        for text in (request.cookies.get(self._cookie, ""), bearer):
            if secrets.compare_digest(text.encode(), self.token.encode()):
                return None
        return self._html(
            views.message("Not here", "Open the address that `cacheness ui` printed, with its token."), 403
        )

    def _may_change(self, request: Request, form: dict[str, str]) -> bool:
        """Return True for a form of our page: it contains the token, and no browser reports another origin.

        Browsers send the origin of a form; a request without one is from a program that has the token.
        """
        origin = request.headers.get("origin")
        site = request.headers.get("sec-fetch-site")
        is_ours = origin is None or urlsplit(origin).netloc in self._names
        is_ours = is_ours and site in {None, "same-origin", "none"}
        return is_ours and secrets.compare_digest(form.get("token", "").encode(), self.token.encode())

    def _shown(self, show: _Action, request: Request, given: dict[str, str]) -> Response:
        try:
            found = show(request, given)
        except CachenessError as error:
            return self._html(views.trouble("The cache does not answer as it should. Try again later.", error), 503)
        if found is None:
            return self._html(views.message("Not there", "This entry does not exist, or no longer exists."), 404)
        return found if isinstance(found, Response) else self._html(found)

    def _html(self, view: View, status: int = 200) -> Response:
        return HTMLResponse(view.html(token=self.token), status)

    def _entry(self, request: Request, given: dict[str, str]) -> View | None:
        key = request.path_params["key"]
        return views.entry(self._cache, key, shows_value=bool(given.get("value"))) if _is_key(key) else None

    def _delete(self, request: Request, given: dict[str, str]) -> Response | None:
        key = request.path_params["key"]
        if not _is_key(key):
            return None
        if given.get("sure") != "yes":
            return self._html(views.message("Not done", "Tick the box, if you mean it: nothing was deleted."), 400)
        if not self._cache.invalidate(key):
            return self._html(
                views.message("Gone already", "This entry no longer exists: it was deleted or evicted."),
                404,
            )
        return RedirectResponse("/entries", 303)

    def _settle(self, request: Request, given: dict[str, str]) -> Response | None:
        key, keep = request.path_params["key"], given.get("keep")
        if not _is_key(key):
            return None
        if keep not in ("old", "new"):
            return self._html(views.message("Not done", "Say which is to be kept: nothing was changed."), 400)
        if not self._cache.settle(key, keep="old" if keep == "old" else "new"):
            return self._html(
                views.message(
                    "Settled already", "This dispute no longer exists: it was settled, or its entry was deleted."
                ),
                404,
            )
        return RedirectResponse("/disputes", 303)

    def _metrics(self, request: Request, given: dict[str, str]) -> Response:
        cache = self._cache
        ever = cache.overview()
        return PlainTextResponse(text_of(cache.config.namespace, ever.stats, ever.report("function")))


def _is_key(text: str) -> bool:
    return HEX_KEY.fullmatch(text) is not None


async def _form(request: Request) -> dict[str, str]:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_FORM:
            return {}
    return {name: values[0] for name, values in parse_qs(body.decode(errors="replace")).items()}


async def _style(_: Any) -> Response:
    return Response((HERE / "templates/style.css").read_bytes(), media_type="text/css", headers=_HEADERS)
