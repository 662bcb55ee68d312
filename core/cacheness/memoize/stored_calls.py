"""Restore the calls that made stored results, so that they can be repeated."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, Final, Protocol

from cacheness.errors import CachenessError, CodecError
from cacheness.keys import Digest, Key, call_of, digest_of_argument
from cacheness.memoize.call_arguments import CallArguments
from cacheness.memoize.function import MemoizedFunction
from cacheness.records import Entry, Hit

#: Why the result of a call is no evidence.
CHANGES: Final = "change their arguments or files"


class ResultsByValue(Protocol):
    """The methods of a cache that repeating calls needs."""

    def iter_entries(self, *, function: str | None = None, limit: int | None = None) -> Iterator[Entry]:
        """Return the entries of a function, newest first."""
        ...

    def result_of(self, entry: Entry) -> Hit | None:
        """Return the result of an entry."""
        ...

    def value_with(self, digest: bytes) -> Hit | None:
        """Return a result whose value has this digest."""
        ...


class StoredCalls:
    """Restores calls of a function, and counts those that it cannot restore."""

    def __init__(self, cache: ResultsByValue, cached: MemoizedFunction) -> None:
        self._cache = cache
        self._cached = cached
        self.skipped: Counter[str] = Counter()  #: by the reason

    def result_of(self, entry: Entry) -> Hit | None:
        """Return the stored result; count and return None if it is not served."""
        try:
            found = self._cache.result_of(entry)
        except CodecError:
            self.skipped["no longer decode"] += 1
            return None
        if found is None:
            self.skipped["are gone, expired or disputed"] += 1
        return found

    def call_of(
        self, entry: Entry, fingerprint: bytes | None, parameters: Mapping[str, Mapping[str, str]]
    ) -> CallArguments | None:
        """Return an entry's call with today's names, verified by its key; count and return None if there is none.

        Args:
            entry: the entry.
            fingerprint: that of the code that made it; None for today's code.
            parameters: those that had other names then, or are new.
        """
        arguments = self._restored(entry)
        if arguments is None:
            return None
        was = {change["was"]: name for name, change in parameters.items() if "was" in change}
        named = {was.get(name, name): value for name, value in arguments.items()}
        try:
            args, kwargs = self._cached.binder.call_with(named)
            key: Key = self._cached.key(*args, **kwargs)
        except (TypeError, CachenessError):
            self.skipped["lack an argument that does not count"] += 1
            return None
        then = key.digest if fingerprint is None else key.under(fingerprint, parameters)
        if then != entry.key:
            self.skipped["had other arguments or files than can be found again"] += 1
            return None
        if key.draws:
            self.skipped["draw random numbers"] += 1
            return None
        return CallArguments(args, kwargs)

    def _restored(self, entry: Entry) -> dict[str, Any] | None:
        try:
            arguments, _ = call_of(entry.args)
        except CodecError:
            self.skipped["have arguments that no longer decode"] += 1
            return None
        found = {name: self._whole(value, self._files_of(entry, name)) for name, value in arguments.items()}
        lacking = [name for name, value in found.items() if value is _GONE]
        if lacking:
            labels = {getattr(arguments[name], "label", "") or "a value" for name in lacking}
            self.skipped[f"were given what was not kept whole ({', '.join(sorted(lacking))}: {min(labels):.60})"] += 1
            return None
        return found

    def _whole(self, value: Any, files: Sequence[str]) -> Any:
        """Return a value with digests replaced by the entries' values, or `_GONE`."""
        if isinstance(value, Digest):
            return self._loaded(value, files)
        if type(value) in (list, tuple):
            items = [self._whole(item, ()) for item in value]
            return _GONE if any(item is _GONE for item in items) else type(value)(items)
        if type(value) is dict:
            pairs = {name: self._whole(item, ()) for name, item in value.items()}
            return _GONE if any(item is _GONE for item in pairs.values()) else pairs
        return Path(value) if type(value) is PurePosixPath else value

    def _loaded(self, digest: Digest, files: Sequence[str]) -> Any:
        for candidate in (made for name in files for made in (name, Path(name))):
            if digest_of_argument("", candidate) == digest.digest:
                return candidate
        try:
            found = self._cache.value_with(digest.digest)
        except CodecError:
            found = None
        return _GONE if found is None else found.value

    def _files_of(self, entry: Entry, name: str) -> Sequence[str]:
        return tuple(json.loads(entry.components).get("files", {}).get(name, {}).get("files", ()))


#: Replaces an argument that cannot be found again.
_GONE: Final = object()


def awaited(begin: Callable[[], Any], cached: MemoizedFunction) -> Any:
    """Return a call's result; a coroutine runs in a new event loop, in a thread if a loop already runs."""
    if not cached.is_coroutine:
        return begin()

    async def whole() -> Any:
        return await begin()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(whole())
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(whole())).result()
