"""Files and remote objects count by their content, which is read once for each state of a file."""

from __future__ import annotations

import glob
import os
import pathlib
import stat
import time
from collections.abc import Iterator
from typing import Any, Final

from blake3 import blake3

from cacheness.keys.encode import Encoder, handles
from cacheness.keys.trace import Unencodable

#: A file written more recently is read again: it could change once more without a new time stamp.
_RECENT_NS: Final = 2_000_000_000
#: What stores call a name for the content, the most telling first.
_TAGS: Final = ("ETag", "etag", "md5Hash", "content_md5", "crc32c", "sha256", "generation")

_State = tuple[int, int, int, int, int]
_known: dict[str, tuple[_State, bytes]] = {}


class File:
    """A file, an object in a store, or all that match a pattern. In a key, its content counts.

    `File("s3://bucket/table.parquet")`, `File("data/*.csv")`. Options go to fsspec: where the store
    is and how to log in. They do not count, and neither does the name. Reading is the function's
    business, by `open()` or any other way.
    """

    __slots__ = ("options", "url")

    def __init__(self, url: str | os.PathLike[str], **options: Any) -> None:
        self.url = os.fspath(url)
        self.options = options

    def __fspath__(self) -> str:
        return _local(self.url) or self.url

    def __repr__(self) -> str:
        return f"File({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, File) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)

    def open(self, mode: str = "rb") -> Any:
        """The file object that fsspec gives for it."""
        import fsspec  # type: ignore[import-untyped]

        return fsspec.open(self.url, mode, **self.options).open()


def digest_of_file(path: str | os.PathLike[str]) -> bytes:
    """BLAKE3 of a file's content. Raises Unencodable when it cannot be read, or changes meanwhile."""
    path = os.path.abspath(path)
    state = _state(path)
    known = _known.get(path)
    if known is not None and known[0] == state:
        return known[1]
    digest = _read(path)
    if _state(path) != state:
        raise Unencodable(f"file {path} changed while it was being read")
    if time.time_ns() - max(state[1], state[2]) > _RECENT_NS:
        _known[path] = (state, digest)
    return digest


def _state(path: str) -> _State:
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        raise Unencodable(f"file {path} cannot be read ({_reason(error)})") from error
    if not stat.S_ISREG(found.st_mode):
        raise Unencodable(f"{path} is neither a regular file nor a directory")
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)


def _read(path: str) -> bytes:
    hasher = blake3(max_threads=blake3.AUTO)
    try:
        hasher.update_mmap(path)
    except OSError as error:
        raise Unencodable(f"file {path} cannot be read ({_reason(error)})") from error
    return hasher.digest()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


@handles(pathlib.PosixPath, pathlib.WindowsPath)
def _path(encoder: Encoder, value: pathlib.Path) -> None:
    _add_path(encoder, os.fspath(value), ())


@handles(File)
def _file(encoder: Encoder, value: File) -> None:
    local = _local(value.url)
    if local is None:
        _add_remote(encoder, value)
    elif glob.has_magic(local) and not os.path.exists(local):
        found = sorted(glob.glob(local, recursive=True), key=os.fsencode)
        _refuse_nothing(found, local)
        start = os.path.dirname(local[: next(i for i, c in enumerate(local) if c in "*?[")])
        encoder.open("files", len(found))
        for path in found:
            encoder.add(os.fsencode(os.path.relpath(path, start or ".")))
            _add_path(encoder, path, ())
    else:
        encoder.open("File", 1)
        _add_path(encoder, local, ())


def _add_path(encoder: Encoder, path: str, above: tuple[str, ...]) -> None:
    if not os.path.isdir(path):
        encoder.tagged("file", digest_of_file(path))
        return
    real = os.path.realpath(path)
    if real in above:
        raise Unencodable(f"directory {path} leads back to itself")
    if not encoder.reads_directories:
        raise Unencodable(f"directory {path}")
    names = sorted(_names_in(path), key=os.fsencode)
    encoder.open("directory", len(names))
    for name in names:
        encoder.add(os.fsencode(name))
        _add_path(encoder, os.path.join(path, name), (*above, real))


def _names_in(path: str) -> Iterator[str]:
    try:
        yield from os.listdir(path)
    except OSError as error:
        raise Unencodable(f"directory {path} cannot be read ({_reason(error)})") from error


def _local(url: str) -> str | None:
    """The path that a URL means on this machine, None when it means another."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    return rest if scheme in ("file", "local") else None


def _refuse_nothing(found: list[str], pattern: str) -> None:
    if not found:
        raise Unencodable(f"no file matches {pattern}")


def _add_remote(encoder: Encoder, file: File) -> None:
    import fsspec

    system, path = fsspec.core.url_to_fs(file.url, **file.options)
    system.invalidate_cache()  # what it remembers of a listing may be old
    try:
        paths = sorted(system.glob(path)) if glob.has_magic(path) else [path]
        _refuse_nothing(paths, file.url)
        encoder.open("remote", len(paths))
        for one in paths:
            encoder.add(one.rpartition("/")[2] if len(paths) > 1 else "")
            encoder.add(_remote_content(system, one))
    except OSError as error:
        raise Unencodable(f"file {file.url} cannot be read ({_reason(error)})") from error


def _remote_content(system: Any, path: str) -> Any:
    about = system.info(path)
    for tag in _TAGS:
        if about.get(tag):
            return (tag, str(about[tag]), about.get("size"))
    hasher = blake3()
    with system.open(path, "rb") as stream:
        while piece := stream.read(1 << 22):
            hasher.update(piece)
    return hasher.digest()
