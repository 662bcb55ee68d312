"""Record calls of cached functions in a test, and assert their outcomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cacheness.arguments import functions_called
from cacheness.keys import name_of_function
from cacheness.records import Call

#: Outcomes in which a result was served.
_SERVED = frozenset({"hit", "near hit", "waited"})


class HeardCalls:
    """The calls of a block, in order: the result of `cacheness_calls()`.

    Args of several methods:
        function: a function, or its name: a module, a qualified name, or both with a colon or a dot between.
        times: how many calls must have this outcome; None for at least one.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = calls

    def of(self, function: Callable[..., Any] | str | None = None) -> list[Call]:
        """Return the calls of a function; None for all."""
        if function is None:
            return list(self._calls)
        if not isinstance(function, str):
            function = name_of_function(getattr(function, "__wrapped__", function))
        names = functions_called(function, {call.function for call in self._calls})
        return [call for call in self._calls if call.function in names]

    def assert_hit(self, function: Callable[..., Any] | str | None = None, *, times: int | None = None) -> None:
        """Require that results were served."""
        served = [call for call in self.of(function) if call.outcome in _SERVED]
        self._require(served, times, "hit", function)

    def assert_miss(
        self, function: Callable[..., Any] | str | None = None, *, because: str = "", times: int | None = None
    ) -> None:
        """Require that calls missed.

        Args:
            because: what the reason of each must contain: "new arguments", "code changed".
        """
        missed = [call for call in self.of(function) if call.outcome == "miss" and because in call.reason]
        self._require(missed, times, f"miss because {because!r}" if because else "miss", function)

    def _require(self, found: list[Call], times: int | None, what: str, function: Any) -> None:
        if found if times is None else len(found) == times:
            return
        wanted = "at least one" if times is None else str(times)
        about = "" if function is None else f" of {getattr(function, '__name__', function)}"
        heard = "".join(f"\n  {call.function or '(by hand)'}: {_described(call)}" for call in self.of(function))
        raise AssertionError(f"wanted {wanted} {what}{about}, and there were {len(found)} among:{heard or ' no calls'}")

    def __len__(self) -> int:
        return len(self._calls)

    def __repr__(self) -> str:
        return f"HeardCalls({[_described(call) for call in self._calls]})"


def _described(call: Call) -> str:
    return f"{call.outcome}, {call.reason}" if call.reason else call.outcome
