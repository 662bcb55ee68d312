"""The options of `@cache.cached(…)`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypedDict

from cacheness.incomplete import Incomplete
from cacheness.lazy_dataclass import dataclass
from cacheness.units import Duration


class CachedOptions(TypedDict, total=False):
    """The options of `@cache.cached(…)`, for editors and type checkers; `Options` has defaults and meanings."""

    ttl: Duration | None
    version: str | None
    prefix: str
    ignore: Iterable[str]
    tags: Iterable[str]
    key: Callable[..., Any] | None
    condition: Callable[[Any], bool] | None
    single_flight: bool
    wait: Duration
    incomplete: Incomplete | None
    by_value: bool | None
    check: float | str | None
    accept: int | None
    same: Callable[[Any, Any], bool] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of `@cache.cached(…)`."""

    ttl: Duration | None = None  #: seconds, a timedelta, or text such as "1h"
    version: str | None = None  #: counts in place of the function's code
    prefix: str = ""  #: a group of results: counts in the key
    ignore: tuple[str, ...] = ()  #: parameters that do not count
    tags: tuple[str, ...] = ()  #: names with which results are found and deleted
    key: Callable[..., Any] | None = None  #: called with the arguments; its return value counts in their place
    condition: Callable[[Any], bool] | None = None  #: called with a result; returns whether it is stored
    single_flight: bool = True  #: let others wait while one computes
    wait: float = 3600.0  #: how long to wait for another process
    incomplete: Incomplete | None = None  #: what to do if the key is incomplete; None: the cache's setting
    by_value: bool | None = None  #: store the digest of a result however many members it has, or never
    check: float | None = None  #: share of hits that are computed again and compared; None: the cache's share
    accept: int | None = None  #: calls that are compared, as they miss, before results of earlier code count
    same: Callable[[Any, Any], bool] | None = None  #: gets the stored result and a computed one; whether they are equal
