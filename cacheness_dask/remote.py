"""Read versions of remote files: the ETag if there is one. Each file is requested once per graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Final

from cacheness.isolation import isolated
from cacheness_dask.encoding import NotCacheable

#: Attributes with which stores identify the content, the most specific first; the last is only the time of change.
_TAGS: Final = ("ETag", "etag", "version_id", "generation", "md5Hash", "content_md5")
_TIMES: Final = ("LastModified", "last_modified", "mtime", "updated", "modified")
#: So many files of one directory are requested one by one; beyond that one listing returns all.
_FEW: Final = 8


class _Versions:
    """The current versions of the files of one graph."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], Any] = {}
        self._systems: dict[int, Any] = {}  # kept alive, for their identities
        self._asked: Counter[tuple[int, str]] = Counter()

    def of(self, filesystem: Any, path: str) -> Any:
        """Return the identity of the content of a file."""
        key = (id(filesystem), path)
        if key not in self._known:
            with isolated(partial(_unanswered, path)):
                self._known[key] = _identity_of(filesystem, path, self._info(filesystem, path))
        return self._known[key]

    def _info(self, filesystem: Any, path: str) -> Mapping[str, Any]:
        new = id(filesystem) not in self._systems
        self._systems[id(filesystem)] = filesystem
        if not hasattr(filesystem, "info"):
            return _arrow_info(filesystem, path)
        if new:
            filesystem.invalidate_cache()  # its cached listing may be old
        place = (id(filesystem), path.rpartition("/")[0])
        self._asked[place] += 1
        if self._asked[place] == _FEW:
            with isolated(lambda _: None):  # a file that cannot be listed is requested separately
                filesystem.ls(place[1], detail=True)
        info: Mapping[str, Any] = filesystem.info(path)
        return info


_versions: ContextVar[_Versions] = ContextVar("cacheness_dask_versions")


@contextmanager
def asking_once() -> Iterator[None]:
    """Within the block, the version of each file is requested once."""
    token = _versions.set(_Versions())
    try:
        yield
    finally:
        _versions.reset(token)


def version_of(filesystem: Any, path: str) -> Any:
    """Return the identity of the content of a file, on a file system of fsspec or Arrow."""
    return _versions.get(_Versions()).of(filesystem, path)


def _arrow_info(filesystem: Any, path: str) -> Mapping[str, Any]:
    with filesystem.open_input_stream(path) as stream:  # the only way to the ETag; reads nothing
        info = {name: value.decode() for name, value in stream.metadata().items()}
    found = filesystem.get_file_info(path) if not info.get("ETag") else None
    return {"etag": info["ETag"]} if found is None else {"mtime": found.mtime_ns, "size": found.size}


def _identity_of(filesystem: Any, path: str, info: Mapping[str, Any]) -> Any:
    for name in (*_TAGS, *_TIMES):
        if info.get(name):
            # Some stores put an ETag in quotes for one file, and not in listings.
            return [type(filesystem).__name__, name, str(info[name]).strip('"'), info.get("size")]
    raise NotCacheable(f"{path} has neither an ETag nor a time of change")


def _unanswered(path: str, error: Exception) -> None:
    if isinstance(error, NotCacheable):
        raise error
    raise NotCacheable(f"{path} does not return its version: {error}") from error
