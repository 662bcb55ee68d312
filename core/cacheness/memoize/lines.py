"""Record which lines of functions run: a call is no evidence about lines that it did not run.

Python 3.12 reports lines by `sys.monitoring`, at no cost to other code; 3.11 by `sys.settrace`.
Code in C, in other processes, or on Python 3.11 in threads that existed before, is not traced.
"""

from __future__ import annotations

import dis
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from blake3 import blake3

from cacheness import forks
from cacheness.errors import NotAccepted

#: Tool ids that by convention no debugger, profiler or coverage tool uses.
_IDS: Final = (3, 4)
_NAME: Final = "cacheness"


class LineWatch:
    """Records which lines of some functions run between `begin` and `end`, in any thread.

    Args:
        functions: the functions' code, by readable names.
    """

    def __init__(self, functions: Mapping[str, Sequence[types.CodeType]]) -> None:
        named = [(name, part) for name, codes in functions.items() for code in codes for part in _within(code)]
        self.codes = tuple(code for _, code in named)
        # By identity: comparing two code objects compares all their constants.
        self._names = {id(code): name for name, code in named}
        self._layouts = {name: _layout_of(codes) for name, codes in functions.items()}
        self._missing = {place for _, places in self._layouts.values() for place in places}

    def begin(self) -> None:
        """Begin to record. May be called again, also before `end`."""
        if self._missing:
            _watcher.add(self)

    def end(self) -> None:
        """Stop recording."""
        _watcher.remove(self)

    def see(self, code: types.CodeType, line: int) -> None:
        """Record that a line runs."""
        self._missing.discard((id(code), line))

    def looks_at(self, code: types.CodeType) -> bool:
        """Return True when lines of this code are recorded."""
        return id(code) in self._names

    @property
    def missing(self) -> dict[str, list[int]]:
        """Return the lines that never ran, by the name of their function; none if all did."""
        found: dict[str, set[int]] = {}
        for code, line in list(self._missing):
            found.setdefault(self._names[code], set()).add(line)
        return {name: sorted(found[name]) for name in sorted(found)}

    def state(self) -> dict[str, list[str]]:
        """Return missing lines for another process: a digest of each function's layout, and places in it."""
        found: dict[str, list[str]] = {}
        for name, (layout, places) in self._layouts.items():
            missing = [str(number) for number, place in enumerate(places) if place in self._missing]
            if missing:
                found[name] = [layout, *missing]
        return found

    def merge(self, state: Mapping[str, Sequence[str]]) -> None:
        """Add lines that another process has recorded.

        A function with another layout of lines there is skipped: a comment moves lines, and does
        not change a fingerprint.

        Args:
            state: its `state()`.
        """
        for name, (layout, places) in self._layouts.items():
            theirs, *missing = state.get(name, (layout,))
            if theirs == layout:
                kept = {int(number) for number in missing}
                self._missing -= {place for number, place in enumerate(places) if number not in kept}


def _within(code: types.CodeType) -> Iterator[types.CodeType]:
    """Return a function's code, and that of functions, comprehensions and classes in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _within(constant)


def _lines_of(code: types.CodeType) -> dict[int, list[int]]:
    """Return the lines that run with the body, and where it begins: not the line of the `def`, nor of a docstring."""
    begin = next((step.offset for step in dis.get_instructions(code) if step.opname == "RESUME"), -1)
    lines: dict[int, list[int]] = {}
    for start, _, line in code.co_lines():
        if line and start > begin:
            lines.setdefault(line, []).append(start)
    return lines


def _layout_of(codes: Iterable[types.CodeType]) -> tuple[str, list[tuple[int, int]]]:
    """Return a digest of the layout of lines in some code, and the lines, each with its code."""
    within = [part for code in codes for part in _within(code)]
    lines = [_lines_of(code) for code in within]
    layout = repr([list(one.values()) for one in lines]).encode()
    places = [(id(code), line) for code, one in zip(within, lines, strict=True) for line in one]
    return blake3(layout).hexdigest()[:12], places


class _Watcher:
    """Passes executed lines to the watches for them."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth: dict[LineWatch, int] = {}
        forks.watch_forks(self)

    def reset_after_fork(self) -> None:
        """Make a new lock, because a thread of the parent may hold the old one."""
        self._lock = threading.RLock()

    def add(self, watch: LineWatch) -> None:
        with self._lock:
            if not self._depth:
                self._start()
            self._depth[watch] = self._depth.get(watch, 0) + 1
            if self._depth[watch] == 1:
                self._look_at(watch)

    def remove(self, watch: LineWatch) -> None:
        with self._lock:
            if watch not in self._depth:
                return
            self._depth[watch] -= 1
            if not self._depth[watch]:
                del self._depth[watch]
                self._look_away(watch)
            if not self._depth:
                self._stop()

    def _see(self, code: types.CodeType, line: int) -> None:
        for watch in tuple(self._depth):
            watch.see(code, line)

    def _start(self) -> None:
        raise NotImplementedError

    def _stop(self) -> None:
        raise NotImplementedError

    def _look_at(self, watch: LineWatch) -> None:
        raise NotImplementedError

    def _look_away(self, watch: LineWatch) -> None:
        raise NotImplementedError


class _Tracing(_Watcher):
    """Python 3.11."""

    def _start(self) -> None:
        self._before = sys.gettrace(), threading.gettrace()
        sys.settrace(self._trace)
        threading.settrace(self._trace)

    def _stop(self) -> None:
        sys.settrace(self._before[0])
        threading.settrace(self._before[1])

    def _look_at(self, watch: LineWatch) -> None:
        pass

    def _look_away(self, watch: LineWatch) -> None:
        pass

    def _trace(self, frame: types.FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        if not any(watch.looks_at(frame.f_code) for watch in tuple(self._depth)):
            return None
        if event == "line":
            self._see(frame.f_code, frame.f_lineno)
        return self._trace


class _Monitoring(_Watcher):
    """Python 3.12 and later."""

    def _start(self) -> None:
        monitoring: Any = sys.monitoring  # type: ignore[attr-defined, unused-ignore]
        free = [number for number in _IDS if monitoring.get_tool(number) is None]
        if not free:
            raise NotAccepted("the lines that run cannot be watched: other tools have taken sys.monitoring's free ids")
        self._id = free[0]
        monitoring.use_tool_id(self._id, _NAME)
        monitoring.register_callback(self._id, monitoring.events.LINE, self._see)

    def _stop(self) -> None:
        monitoring: Any = sys.monitoring  # type: ignore[attr-defined, unused-ignore]
        monitoring.register_callback(self._id, monitoring.events.LINE, None)
        monitoring.free_tool_id(self._id)

    def _look_at(self, watch: LineWatch) -> None:
        monitoring: Any = sys.monitoring  # type: ignore[attr-defined, unused-ignore]
        for code in watch.codes:
            monitoring.set_local_events(self._id, code, monitoring.events.LINE)

    def _look_away(self, watch: LineWatch) -> None:
        monitoring: Any = sys.monitoring  # type: ignore[attr-defined, unused-ignore]
        for code in watch.codes:
            if not any(other.looks_at(code) for other in self._depth):
                monitoring.set_local_events(self._id, code, 0)


_watcher: Final[_Watcher] = _Monitoring() if sys.version_info >= (3, 12) else _Tracing()
