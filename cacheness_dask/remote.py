"""Versions of files that lie elsewhere: the ETag where there is one. A file is asked for once for a graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Final

from cacheness.isolation import isolated
from cacheness_dask.encoding import NotCacheable

#: What stores call a name for the content, the most specific first; the last is only the time of change.
_TAGS: Final = ("ETag", "etag", "version_id", "generation", "md5Hash", "content_md5")
_TIMES: Final = ("LastModified", "last_modified", "mtime", "updated", "modified")
#: So many files of one directory are asked for one by one; then one listing has all.
_FEW: Final = 8


class _Versions:
    """What the files of one graph are now."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], Any] = {}
        self._systems: dict[int, Any] = {}  # kept alive, for their identities
        self._asked: Counter[tuple[int, str]] = Counter()

    def of(self, filesystem: Any, path: str) -> Any:
        """What stands for the content of a file."""
        key = (id(filesystem), path)
        if key not in self._known:
            with isolated(partial(_unanswered, path)):
                self._known[key] = _told(filesystem, path, self._info(filesystem, path))
        return self._known[key]

    def _info(self, filesystem: Any, path: str) -> Mapping[str, Any]:
        new = id(filesystem) not in self._systems
        self._systems[id(filesystem)] = filesystem
        if not hasattr(filesystem, "info"):
            return _arrow_info(filesystem, path)
        if new:
            filesystem.invalidate_cache()  # what it remembers of a listing may be old
        place = (id(filesystem), path.rpartition("/")[0])
        self._asked[place] += 1
        if self._asked[place] == _FEW:
            with isolated(lambda _: None):  # what cannot be listed is asked for one by one
                filesystem.ls(place[1], detail=True)
        info: Mapping[str, Any] = filesystem.info(path)
        return info


_versions: ContextVar[_Versions] = ContextVar("cacheness_dask_versions")


@contextmanager
def asking_once() -> Iterator[None]:
    """Within the block, each file is asked for its version once."""
    token = _versions.set(_Versions())
    try:
        yield
    finally:
        _versions.reset(token)


def version_of(filesystem: Any, path: str) -> Any:
    """What stands for the content of a file, on a file system of fsspec's or Arrow's."""
    return _versions.get(_Versions()).of(filesystem, path)


def _arrow_info(filesystem: Any, path: str) -> Mapping[str, Any]:
    with filesystem.open_input_stream(path) as stream:  # the only way to the ETag; reads nothing
        info = {name: value.decode() for name, value in stream.metadata().items()}
    found = filesystem.get_file_info(path) if not info.get("ETag") else None
    return {"etag": info["ETag"]} if found is None else {"mtime": found.mtime_ns, "size": found.size}


def _told(filesystem: Any, path: str, info: Mapping[str, Any]) -> Any:
    for name in (*_TAGS, *_TIMES):
        if info.get(name):
            # Some stores put an ETag in quotes when asked for one file, and not when they list many.
            return [type(filesystem).__name__, name, str(info[name]).strip('"'), info.get("size")]
    raise NotCacheable(f"{path} has neither an ETag nor a time of change")


def _unanswered(path: str, error: Exception) -> None:
    if isinstance(error, NotCacheable):
        raise error
    raise NotCacheable(f"{path} cannot be asked for its version: {error}") from error
