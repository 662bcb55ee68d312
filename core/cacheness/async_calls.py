"""Async versions of a cache's calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Self

from cacheness.arguments import Function, KeyLike
from cacheness.off_loop import off_loop, to_the_end
from cacheness.records import Entry, Hit
from cacheness.units import Duration


class AsyncCalls:
    """Calls for an event loop; threads of the cache do the work.

    `aget`, `alookup` and `aget_many` end immediately when they are cancelled. `aput` ends when the
    put has ended, so that nothing is written after it.
    """

    async def aget(
        self: Any,
        key: KeyLike | None = None,
        /,
        *,
        default: Any = None,
        args: Mapping[str, Any] | None = None,
        prefix: str = "",
        version: str | None = None,
        function: Function | None = None,
        **named: Any,
    ) -> Any:
        """Do the same as `get` without blocking the event loop.

        Args:
            default: returned for a miss.
        """
        about = {"args": args, "prefix": prefix, "version": version, "function": function}
        return await off_loop(partial(self.get, key, default=default, **about, **named))

    async def alookup(
        self: Any,
        key: KeyLike | None = None,
        /,
        *,
        args: Mapping[str, Any] | None = None,
        prefix: str = "",
        version: str | None = None,
        function: Function | None = None,
        **named: Any,
    ) -> Hit | None:
        """Do the same as `lookup` without blocking the event loop."""
        about = {"args": args, "prefix": prefix, "version": version, "function": function}
        return await off_loop(partial(self.lookup, key, **about, **named))

    async def aget_many(self: Any, keys: Iterable[KeyLike]) -> dict[str, Hit]:
        """Do the same as `get_many` without blocking the event loop.

        Args:
            keys: the keys.
        """
        return await off_loop(partial(self.get_many, list(keys)))

    async def aput(
        self: Any,
        value: Any,
        key: KeyLike | None = None,
        /,
        *,
        args: Mapping[str, Any] | None = None,
        prefix: str = "",
        version: str | None = None,
        function: Function | None = None,
        ttl: Duration | None = None,
        tags: Iterable[str] = (),
        compute_seconds: float | None = None,
        provenance: Mapping[str, Any] | None = None,
        by_value: bool | None = None,
        **named: Any,
    ) -> Entry:
        """Do the same as `put` without blocking the event loop.

        It is not part of a `write_batch`.

        Args:
            value: the result, which must not be changed before this returns.
            tags: names with which entries are found and deleted.
            compute_seconds: the cost of computing the result.
            provenance: where it was computed; any value for JSON.
            by_value: whether the entry has the value's digest, as for `put`.
        """
        about = {"args": args, "prefix": prefix, "version": version, "function": function, "ttl": ttl, "tags": tags}
        more = {"compute_seconds": compute_seconds, "provenance": provenance, "by_value": by_value}
        return await to_the_end(partial(self.put, value, key, **about, **more, **named))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self: Any, *exc_info: object) -> None:
        await to_the_end(self.close)
