"""Options and their formats, the same in parameters, environment variables, blocks, decorators and plug-ins."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from cacheness.elsewhere import OF_CALLS
from cacheness.errors import ConfigError
from cacheness.incomplete import CHOICES
from cacheness.modes import MODES
from cacheness.units import bytes_of, seconds_of, time_of, whole

#: Converts a given value to the used one. Raises TypeError or ValueError with a text for use after a colon.
Read: TypeAlias = Callable[[Any], Any]

_FLAGS: Final = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


def path(value: Any) -> str:
    """Return the absolute path of a directory: a relative one would change after a chdir, or in another process."""
    if not isinstance(value, str | os.PathLike) or not str(os.fspath(value)).strip():
        raise ValueError(f"{value!r:.80} is not the path of a directory; leave it out for the default")
    return os.path.abspath(os.path.expanduser(str(os.fspath(value))))


def text(value: Any) -> str:
    """Accept only text: a number could be written in several ways."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is not text")
    return value


def choice(*known: str) -> Read:
    """Accept one of a few words, in any case."""

    def read(value: Any) -> str:
        chosen = value.strip().lower() if isinstance(value, str) else value
        if chosen not in known:
            raise ValueError(f"{value!r:.40} is not known: one of {', '.join(known)}")
        return str(chosen)

    return read


def flag(value: Any) -> bool:
    """Accept True or False, also as text, as in a variable."""
    found = _FLAGS.get(value.strip().lower()) if isinstance(value, str) else value
    if found not in (True, False) or not isinstance(found, int):  # 1 and 0 as well, and not 1.0
        raise TypeError(f"{value!r:.40} is neither True nor False")
    return bool(found)


def whole_number(value: Any) -> int:
    """Accept a whole number, also as text such as "1000" or "1e6"."""
    try:
        return (
            whole(value)
            if not isinstance(value, str)
            else int(value)
            if value.strip().isdecimal()
            else whole(float(value))
        )
    except (TypeError, ValueError):
        raise TypeError(f"{value!r:.40} is not a whole number") from None


def share(value: Any) -> float:
    """Accept a share from 0 to 1: a number, or text such as "0.05" or "5%"."""
    said = f"{value!r:.40} is not a share: give a number from 0 to 1"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(said)
    number = str(value).strip()
    try:
        found = float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
    except ValueError:
        raise ValueError(said) from None
    if not 0.0 <= found <= 1.0:
        raise ValueError(said)
    return found


def names(value: Any) -> tuple[str, ...]:
    """Accept several names."""
    if isinstance(value, str):
        raise TypeError(f"{value!r:.40} is a string; give a list: [{value!r:.40}]")
    if not isinstance(value, Iterable):
        raise TypeError(f"{value!r:.40} is not a list of names")
    found = tuple(value)
    for name in found:
        if not isinstance(name, str):
            raise TypeError(f"{name!r:.40} is not text")
    return found


def plain_function(value: Any) -> Any:
    """Accept a function that can be called without awaiting a coroutine."""
    if not callable(value) or inspect.iscoroutinefunction(value):
        raise TypeError(f"{value!r:.80} is not a plain function, which is what the decorator calls")
    return value


def at_least(least: float, read: Read) -> Read:
    """Accept the same, not below a limit."""

    def checked(value: Any) -> Any:
        found = read(value)
        if not found >= least:
            raise ValueError(f"{value!r:.40} must be at least {least:g}")
        return found

    return checked


def above_zero(read: Read) -> Read:
    """Accept the same, greater than zero."""

    def checked(value: Any) -> Any:
        found = read(value)
        if not found > 0:
            raise ValueError(f"{value!r:.40} must be greater than 0, or left out")
        return found

    return checked


#: How each option is read, wherever it is given. None may be given if it is the default.
READ: Final[Mapping[str, Read]] = {
    # of a cache
    "cache_dir": path,
    "mode": choice(*MODES),
    "refresh_since": time_of,
    "allow_unsigned": flag,
    "safe_codecs": flag,
    "inline_max_bytes": at_least(0, bytes_of),
    "compression": choice("auto", "zstd", "none"),
    "max_bytes": above_zero(bytes_of),
    "max_entries": above_zero(whole_number),
    "eviction": choice("lru", "cost"),
    "on_error": choice("compute", "raise"),
    "near_bytes": above_zero(bytes_of),
    "shared_path": flag,
    "connect_timeout": above_zero(seconds_of),
    "statement_timeout": above_zero(seconds_of),
    "blob_timeout": above_zero(seconds_of),
    "busy_timeout": at_least(0, seconds_of),
    "circuit_failures": above_zero(whole_number),
    "circuit_seconds": above_zero(seconds_of),
    # of a cache, a decorated function and a task
    "ttl": above_zero(seconds_of),
    "check": share,
    "incomplete": choice(*CHOICES),
    "lease": above_zero(seconds_of),
    # of a decorated function and a task
    "version": text,
    "prefix": text,
    "ignore": names,
    "tags": names,
    "key": plain_function,
    "condition": plain_function,
    "same": plain_function,
    "single_flight": flag,
    "wait": at_least(0, seconds_of),
    "by_value": flag,
    "accept": at_least(1, whole_number),
}


def checked(name: str, value: Any, read: Read | None = None, *, optional: bool = False) -> Any:
    """Read one option.

    Raises ConfigError, which is a ValueError, for what cannot be used.
    """
    if value is None and optional:
        return None
    try:
        return (read or READ[name])(value)
    except (TypeError, ValueError) as error:
        said = str(error) if name != "signing_key" else "it is not text"
        raise ConfigError(f"{name} cannot be used: {said}") from None


def check_names(callee: str, kind: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise TypeError for an unknown name, with the most similar known one."""
    known = list(known)
    for name in given:
        if name not in known:
            raise TypeError(f"{callee}() has no {kind} {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question that follows a message about an unknown name; "" if no known one is similar."""
    import difflib

    known = list(known)
    near = [n for n in (OF_CALLS.get(name),) if n in known] or difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
