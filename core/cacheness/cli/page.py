"""The page in a browser, and as a file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from cacheness.cli.endings import CouldNot
from cacheness.cli.options import Place, about_a_cache
from cacheness.cli.screen import hint, say

if TYPE_CHECKING:
    from cacheness.cache import UnifiedCache


@about_a_cache
def ui(
    *,
    place: Place,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 chooses a free one.")] = 0,
) -> None:
    """Show the cache as a page in a browser, until Ctrl-C: figures, entries, disputes, integrity.

    Only this machine can open it, and only with the token in the printed address. It needs the extra `ui`.
    """
    import socket

    from cacheness.errors import CachenessError, MissingExtra

    try:
        import uvicorn

        from cacheness.page.server import HOST, ServedPage
    except ImportError as error:
        raise MissingExtra.of(error, "starlette", "ui", "the page") from error
    with place.opened() as cache, socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
            listener.listen()  # a program that reads the address may connect at once
        except OSError as error:
            raise CouldNot(f"port {port} cannot be used: {error.strerror}") from None
        page = ServedPage(cache, listener.getsockname()[1])
        say(page.url)
        hint("Ctrl-C ends it.")
        try:
            cache.stats()
        except CachenessError as error:
            hint(f"The cache does not answer now, and its pages say so until it does: {error}")
        server = uvicorn.Server(uvicorn.Config(page.app, log_level="warning", lifespan="off", ws="none"))
        server.run(sockets=[listener])


def write_report(cache: UnifiedCache, path: str) -> None:
    """Write the first page into a file, whole or not at all. A pipe or a device is not replaced."""
    import secrets

    from cacheness.errors import MissingExtra

    try:
        import jinja2 as _  # noqa: F401  the page's templates

        from cacheness.page.views import overview
    except ImportError as error:
        raise MissingExtra.of(error, "jinja2", "ui", "a report in HTML") from error
    text = overview(cache).html(is_file=True)
    place = os.path.realpath(path)
    is_whole = os.path.isfile(place) or not os.path.exists(place)
    aside = f"{place}.{secrets.token_hex(4)}" if is_whole else place
    try:
        with open(aside, "w", encoding="utf-8") as file:
            file.write(text)
        if is_whole:
            os.replace(aside, place)
    except OSError as error:
        raise CouldNot(f"{path} cannot be written: {error.strerror}") from None
