"""Record which files a body opens, lists and replaces, with an audit hook.

Files that a library opens in C are not visible. Nor is a thread that the body starts.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from contextvars import ContextVar, Token
from typing import Any, Final, Self

#: The most paths that are recorded for one body.
MOST_PATHS: Final = 10_000
_ACCESS: Final = os.O_RDONLY | os.O_WRONLY | os.O_RDWR
_NEW: Final = os.O_TRUNC | os.O_EXCL
#: Events with a path that is replaced, created or filled, and the path's position among their arguments.
_REPLACING: Final = {"os.rename": 1, "os.link": 1, "os.symlink": 1, "os.mkdir": 0, "shutil.copyfile": 1}
_CHANGING: Final = {"os.truncate": 0, "sqlite3.connect": 0}
_LISTING: Final = {"os.listdir": 0, "os.scandir": 0}

_current: ContextVar[OpenedFiles | None] = ContextVar("cacheness_opened", default=None)
_hooked = False


class OpenedFiles:
    """Records what is opened while this is active, in this thread or task.

    `uses` has for each absolute path a letter per use: r read, w written from the start, a appended
    to, u changed in place, l listed.
    """

    def __init__(self) -> None:
        self.uses: dict[str, str] = {}
        self._outer: OpenedFiles | None = None
        self._token: Token[OpenedFiles | None] | None = None
        self._done = False

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def begin(self, *, alone: bool = False) -> None:
        """Record what is opened from now on; with `alone`, not for the outer records."""
        _hook()
        self._outer = None if alone else _current.get()
        self._token = _current.set(self)

    def end(self) -> None:
        """Stop recording; may be called in any context."""
        self._done = True
        if self._token is not None:
            with suppress(ValueError):  # a coroutine that is collected is closed in another context than its own
                _current.reset(self._token)
            self._token = None

    def note(self, path: str, use: str) -> None:
        """Record a use, also in outer records of this body."""
        if not self._done:
            known = self.uses.get(path, "")
            if (len(self.uses) < MOST_PATHS or known) and not known.endswith(use):
                self.uses[path] = known + use
        if self._outer is not None:
            self._outer.note(path, use)


class unseen:  # noqa: N801  used like a function
    """Open files inside the block without counting them as the function's: the cache opens them.

    A class and not a generator, which would take three times as long, in each hit.
    """

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        self._token = _current.set(None)

    def __exit__(self, *exc_info: object) -> None:
        try:
            _current.reset(self._token)
        except ValueError:  # as above
            return


def _hook() -> None:
    global _hooked  # noqa: PLW0603 - a hook is never taken off again
    if not _hooked:
        _hooked = True
        sys.addaudithook(_on_event)


def _on_event(event: str, args: tuple[Any, ...]) -> None:
    if event == "open":
        opened = _current.get()
        if opened is not None:
            _note(opened, args[0], _use_of(args[2]))
    elif event in _OTHERS:
        opened = _current.get()
        if opened is not None:
            place, use = _OTHERS[event]
            _note(opened, args[place], use)


_OTHERS: Final = {
    **{event: (place, "w") for event, place in _REPLACING.items()},
    **{event: (place, "u") for event, place in _CHANGING.items()},
    **{event: (place, "l") for event, place in _LISTING.items()},
}


def _use_of(flags: Any) -> str:
    if not isinstance(flags, int):
        return "r"
    access = flags & _ACCESS
    if access == os.O_RDONLY:
        return "r"
    if flags & _NEW:
        return "w"
    return "a" if access == os.O_WRONLY and flags & os.O_APPEND else "u"


def _note(opened: OpenedFiles, path: Any, use: str) -> None:
    try:
        if isinstance(path, int) or path is None:
            return  # a file descriptor, which was recorded by name when it was opened
        opened.note(os.path.abspath(os.fsdecode(path)), use)
    except Exception:  # noqa: BLE001, S110 - an error here would be one of the user's `open`
        pass
