"""Audit a share of hits: compute them again and compare, to find results that their keys do not decide."""

from __future__ import annotations

import itertools
import os
import reprlib
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from blake3 import blake3

from cacheness import keys
from cacheness.errors import CachenessError
from cacheness.isolation import isolated
from cacheness.keys import Key
from cacheness.keys.encode import Encoder
from cacheness.records import Entry, Hit

#: Seconds that a result may have taken to compute, to be computed again during a call.
LONGEST: Final = 60.0
#: The most disputes of a function per day; more would give no new information.
MOST_A_DAY: Final = 100
#: Seconds that a comparison of two results may take, whose caller waits. The members of one array are not interrupted.
LONGEST_COMPARISON: Final = 5.0
#: Seconds after which a comparison that failed is not tried again in this process.
SLOW_COMPARISON: Final = 1.0
_STEP: Final = 256  #: values that are encoded between two looks at the clock
_WIDTH: Final = 60  #: characters of a value in a dispute
_GOLDEN: Final = 0x9E3779B97F4A7C15
_ALL: Final = 1 << 64
_MASK: Final = _ALL - 1
#: Takes a third of the time of `int.from_bytes` of a slice.
_first_of: Final[Callable[[bytes], tuple[int]]] = struct.Struct(">Q").unpack_from


class NotComparable(Exception):
    """Two values cannot be compared; the message has the reason."""

    is_slow = False  #: it took long to find this out


class _TooLong(CachenessError):
    """The time for a comparison is over."""


class _Timed(Encoder):
    """Stops at a time, because an object may lead to any number of others, and make them as they are read."""

    __slots__ = ("_left", "_until")

    def __init__(self, until: float) -> None:
        super().__init__()
        self._until = until
        self._left = 1

    def add(self, value: Any) -> None:
        self._left -= 1
        if self._left <= 0:
            if time.monotonic() > self._until:
                raise _TooLong(f"its comparison takes longer than {LONGEST_COMPARISON:.0f} seconds")
            self._left = _STEP
        super().add(value)


def _digest(value: Any, until: float) -> bytes:
    encoder = _Timed(until)
    encoder.run(value, "result")
    return blake3(encoder.out).digest()


class Sampler:
    """Chooses a share of hits, by their number and their keys: evenly over calls, and over keys too."""

    def __init__(self, share: float) -> None:
        self.share = share
        self._below = int(share * _ALL)
        # Started at a random position; otherwise the first hits of short processes would always, or never, be checked.
        self._numbers = itertools.count(int.from_bytes(os.urandom(8)) | 1, _GOLDEN)

    def chooses(self, key: bytes) -> bool:
        """Return True when the next hit is to be checked."""
        return (_first_of(key)[0] + next(self._numbers)) & _MASK < self._below


def is_checkable(entry: Entry, *, own_share: bool, own_ttl: bool) -> bool:
    """Return True when computing an entry again can show a difference.

    It cannot if the entry was put by hand, took long, or its function writes files; nor if a ttl
    shows that the result may change with time, unless the function requests the check.
    """
    if entry.compute_seconds is None or entry.compute_seconds > LONGEST or entry.outputs:
        return False
    return own_share or not own_ttl


def is_same(
    stored: Any, computed: Any, same: Callable[[Any, Any], bool] | None, round_trip: Callable[[Any], Any]
) -> bool:
    """Return True when two results are equal. Raises NotComparable if that cannot be decided."""
    if same is not None:
        try:
            return bool(same(stored, computed))
        except Exception as error:
            raise NotComparable(f"its same= failed ({type(error).__name__}: {error})") from error
    began = time.monotonic()
    until = began + LONGEST_COMPARISON
    try:
        expected = _digest(stored, until)
        # A change caused by storing is no difference: a codec may leave out an object's caches.
        if _digest(computed, until) == expected or _digest(round_trip(computed), until) == expected:
            return True
    except CachenessError as error:
        failure = NotComparable(f"{error}. Say what is equal: same=")
        failure.is_slow = time.monotonic() - began > SLOW_COMPARISON
        raise failure from error
    if name := _named_anew_in(computed):
        raise NotComparable(f"each {name} gets another name when it is made. Say what is equal: same=")
    return False


#: Classes whose instances get a random or counted name at their creation; Dask's collections are others.
_NAMED_ANEW: Final = frozenset({("pandas.io.formats.style", "Styler"), ("bokeh.model.model", "Model")})
#: Parts of a result that are checked.
_MOST_PARTS: Final = 1000


def _named_anew_in(value: Any) -> str:
    """Return the class of an object with such a name, in a result or in its lists, tuples and dictionaries."""
    waiting = [value]
    for _ in range(_MOST_PARTS):
        if not waiting:
            break
        part = waiting.pop()
        kind = type(part)
        if kind in (list, tuple):
            waiting += part[:_MOST_PARTS]
        elif kind is dict:
            waiting += itertools.islice(part.values(), _MOST_PARTS)
        elif hasattr(kind, "__dask_graph__") or any((c.__module__, c.__name__) in _NAMED_ANEW for c in kind.__mro__):
            return f"{kind.__module__}.{kind.__qualname__}"
    return ""


def digest_or_none(value: Any) -> bytes | None:
    """Return the digest of a value, if it has one that can be made in time."""
    try:
        return _digest(value, time.monotonic() + LONGEST_COMPARISON)
    except CachenessError:
        return None


def describe_difference(stored: Any, computed: Any, key: Key, function: Any, moved: Sequence[str]) -> str:
    """Describe both values of a call, and possible causes of the difference."""
    return compared(stored, computed, _suspects(key, function, moved))


def compared(stored: Any, computed: Any, suspects: Iterable[str]) -> str:
    """Describe both values, and possible causes of the difference."""
    blame = "; ".join(dict.fromkeys(suspects)) or "nothing that was seen"
    return f"{brief(stored)} is stored, {brief(computed)} was computed. To blame may be: {blame}"


def _suspects(key: Key, function: Any, moved: Sequence[str]) -> Iterator[str]:
    parts = key.all_components
    for line in parts.get("unfollowed", ()):
        yield f"what is not followed: {line}"
    for name in moved:
        yield f"the process-wide generator of {name} moved"
    for arg, files in parts.get("files", {}).items():
        for kind, words in (
            ("text", "a file that counts by its name"),
            ("folders", "a folder that counts by its name"),
        ):
            for name in files.get(kind, ()):
                yield f"{words}: {name} (arg `{arg}`)"
    yield from reads_of(function)


#: Names in code that read inputs outside the key.
_READERS: Final = {
    "the environment": {
        "environ",
        "getenv",
        "getcwd",
        "getlocale",
        "setlocale",
        "getpid",
        "gethostname",
        "getuser",
        "locale",
    },
    "the clock": {"time", "now", "today", "utcnow", "time_ns", "monotonic", "perf_counter"},
    "a file, a database or the network": {
        "open",
        "read_text",
        "read_bytes",
        "connect",
        "execute",
        "urlopen",
        "listdir",
    },
    "chance": {"random", "uuid4", "urandom", "token_hex", "choice", "shuffle", "default_rng", "id", "hash"},
    "the order of a set": {"set", "frozenset"},
    "the order of threads": {"as_completed", "ThreadPoolExecutor", "Thread", "imap_unordered"},
}


def reads_of(function: Any) -> Iterator[str]:
    """Return what a function reads outside its key, by the names in its code and in the user code that it reaches."""
    own = getattr(function, "__code__", None)
    codes = [("its code", own)] if own is not None else []
    with isolated(lambda _: None):  # an error in this guess must not fail the call
        codes += [
            (f"the code of `{one.name}`", one.code) for one in keys.reached_by(function) if one.code not in (None, own)
        ]
    for where, code in codes:
        names = set(names_in(code))
        for what, words in _READERS.items():
            if found := sorted(names & words):
                yield f"{what} (`{'`, `'.join(found)}` in {where})"


def names_in(code: Any) -> Iterator[str]:
    """Return the names that code uses, and code inside it."""
    yield from code.co_names
    for part in code.co_consts:
        if hasattr(part, "co_names"):
            yield from names_in(part)


class _Brief(reprlib.Repr):
    """`repr` that goes over no more of a container than is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxtuple = self.maxlist = self.maxarray = self.maxdict = self.maxset = self.maxfrozenset = 20
        self.maxdeque = 20
        self.maxstring = self.maxlong = self.maxother = 4 * _WIDTH

    def repr_dict(self, value: dict[Any, Any], level: int) -> str:
        """Show the items in their order."""
        if level <= 0:
            return "{...}" if value else "{}"
        items = itertools.islice(value.items(), self.maxdict)
        shown = [f"{self.repr1(key, level - 1)}: {self.repr1(item, level - 1)}" for key, item in items]
        return "{" + ", ".join(shown + ["..."] * (len(value) > self.maxdict)) + "}"

    def repr_instance(self, value: Any, level: int) -> str:
        """Show any other object as `repr` does."""
        return repr(value)


_repr: Final = _Brief()


def brief(value: Any) -> str:
    """Describe a value in a few words."""
    try:
        text = " ".join(_repr.repr(value).split())
    except Exception:  # noqa: BLE001  the user's own
        text = f"a {type(value).__qualname__}"
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}…"


def differing(stored: Hit, computed: Any) -> str:
    """Describe how a result differs from that of earlier code."""
    return f"the code of today makes {brief(computed)} where {brief(stored.value)} is stored: {stored.entry.cache_key}"
