"""Encode files and remote objects by content, which is read once per state of a file."""

from __future__ import annotations

import glob
import os
import pathlib
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from blake3 import blake3

from cacheness.hashing import hasher_for
from cacheness.keys.encode import Encoder, handles
from cacheness.keys.error_paths import Unencodable

#: A file that was written more recently is read again: it could change again without a new time stamp.
_RECENT_NS: Final = 2_000_000_000
#: Attributes with which stores identify the content, the most precise first.
_TAGS: Final = ("ETag", "etag", "md5Hash", "content_md5", "crc32c", "sha256", "generation")

#: Bytes of a file that are read at a time.
_PIECE: Final = 1 << 23

_State = tuple[int, int, int, int, int]
_known: dict[str, tuple[_State, bytes]] = {}


class File:
    """A file, an object in a store, or all matches of a pattern; in a key their content counts, and not their name.

    `File("s3://bucket/table.parquet")`, `File("data/*.csv")`. The function itself reads them, by `open()` or otherwise.

    Args:
        url: a path, a URL, or a pattern of either.
        options: passed to fsspec: where the store is and how to log in. They do not count.
    """

    __slots__ = ("options", "url")

    def __init__(self, url: str | os.PathLike[str], **options: Any) -> None:
        self.url = os.fspath(url)
        self.options = options

    def __fspath__(self) -> str:
        return local_path(self.url) or self.url

    def __repr__(self) -> str:
        return f"File({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, File) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)

    def open(self, mode: str = "rb") -> Any:
        """Open the file with fsspec.

        Args:
            mode: as for the built-in `open`.

        Returns:
            The file object.
        """
        import fsspec  # type: ignore[import-untyped]

        return fsspec.open(self.url, mode, **self.options).open()


class TooLarge(Unencodable):
    """A file is larger than the limit, and its digest is not known."""


def digest_of_file(path: str | os.PathLike[str], limit: int | None = None) -> bytes:
    """Return BLAKE3 of a file's content, read once per state of the file.

    Raises Unencodable if it cannot be read or changes during reading, and TooLarge.
    """
    path = os.path.abspath(path)
    state = state_of(path)
    known = _known.get(path)
    if known is not None and known[0] == state:
        return known[1]
    if limit is not None and state[0] > limit:
        raise TooLarge(f"file {path} has {state[0]} bytes")
    digest = _read(path)
    if state_of(path) != state:
        raise Unencodable(f"file {path} changed while it was being read")
    if time.time_ns() - max(state[1], state[2]) > _RECENT_NS:
        _known[path] = (state, digest)
    return digest


def known_of(paths: Iterable[str]) -> dict[str, tuple[_State, bytes]]:
    """Return the known digests of files, by absolute path, for `take_over` in another process."""
    return {path: _known[path] for path in paths if path in _known}


def take_over(known: Mapping[str, tuple[_State, bytes]]) -> None:
    """Add another process's digests of files that have the same state here, so that they are not read again."""
    for path, (state, digest) in known.items():
        if path not in _known and _is_in(path, state):
            _known[path] = (state, digest)


def _is_in(path: str, state: _State) -> bool:
    try:
        return state_of(path) == state
    except Unencodable:
        return False


def state_of(path: str) -> _State:
    """Return what changes when a file does: size, times, inode. Raises Unencodable if it is not a regular file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        raise Unencodable(f"file {path} cannot be read ({_reason(error)})") from error
    return _checked(path, found)


def _checked(path: str, found: os.stat_result) -> _State:
    if not stat.S_ISREG(found.st_mode):
        raise Unencodable(f"{path} is neither a regular file nor a directory")
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)


def _read(path: str) -> bytes:
    return digest_of_start(path, None)


def digest_of_start(path: str, size: int | None) -> bytes:
    """Return BLAKE3 of a file's first bytes, or of all if no size is given."""
    try:
        # A file may be replaced by a pipe at any time; opening that would block.
        with open(path, "rb", buffering=0, opener=_open_at_once) as file:
            hasher = hasher_for(_checked(path, os.fstat(file.fileno()))[0])
            buffer = bytearray(_PIECE if size is None else max(min(size, _PIECE), 1))
            left = size
            while left is None or left > 0:
                count = file.readinto(memoryview(buffer)[: len(buffer) if left is None else min(left, len(buffer))])
                if not count:
                    break
                hasher.update(memoryview(buffer)[:count])
                left = None if left is None else left - count
    except (OSError, ValueError) as error:
        raise Unencodable(f"file {path} cannot be read ({_reason(error)})") from error
    return hasher.digest()


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


@handles(pathlib.PosixPath, pathlib.WindowsPath)
def _path(encoder: Encoder, value: pathlib.Path) -> None:
    add_path(encoder, os.fspath(value))


def add_path(encoder: Encoder, path: str) -> None:
    """Append the content of a file or directory, and record that it counted."""
    inputs = encoder.inputs
    if inputs is None:
        _add_path(encoder, path, ())
    elif glob.has_magic(path) and not os.path.lexists(path) and inputs.add_name(encoder, path):
        pass  # a pattern, with all its matches
    elif inputs.as_text or inputs.is_absent(path):
        encoder.tagged("no file", path)
    else:
        start = len(encoder.out)
        _add_path(encoder, path, ())
        inputs.count(path, bytes(encoder.out[start:]), partial(encoding_of, path))


def encoding_of(path: str) -> bytes:
    """Return the canonical bytes of a file's or directory's content. Raises Unencodable."""
    encoder = Encoder()
    _add_path(encoder, path, ())
    return bytes(encoder.out)


@handles(File)
def _file(encoder: Encoder, value: File) -> None:
    start = len(encoder.out)
    _add_file(encoder, value)
    if encoder.inputs is not None:
        encoder.inputs.count(value.url, bytes(encoder.out[start:]), partial(_encoding_of_file, value))


def _add_file(encoder: Encoder, value: File) -> None:
    local = local_path(value.url)
    if local is None:
        system, path = _system_of(value)
        add_remote(encoder, system, path, value.url)
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


def _encoding_of_file(value: File) -> bytes:
    encoder = Encoder()
    _add_file(encoder, value)
    return bytes(encoder.out)


def local_path(url: str) -> str | None:
    """Return the path of a URL on this machine, None if it is on another."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    return rest if scheme in ("file", "local") else None


def _refuse_nothing(found: list[str], pattern: str) -> None:
    if not found:
        raise Unencodable(f"no file matches {pattern}")


def _system_of(file: File) -> tuple[Any, str]:
    import fsspec

    system, path = fsspec.core.url_to_fs(file.url, **file.options)
    return system, path


def add_remote(encoder: Encoder, system: Any, path: str, called: str) -> None:
    """Append a file, or all matches of a pattern, on a file system of fsspec."""
    system.invalidate_cache()  # its cached listing may be old
    try:
        paths = sorted(system.glob(path)) if glob.has_magic(path) else [path]
        _refuse_nothing(paths, called)
        encoder.open("remote", len(paths))
        for one in paths:
            encoder.add(one.rpartition("/")[2] if len(paths) > 1 else "")
            encoder.add(remote_content(system, one))
    except OSError as error:
        raise Unencodable(f"file {called} cannot be read ({_reason(error)})") from error


def remote_content(system: Any, path: str) -> Any:
    """Return the identity of a file's content: the store's name for it, or the digest of its bytes."""
    about = {} if "Cache" in type(system).__name__ else system.info(path)  # its readers see the copy
    for tag in _TAGS:
        if about.get(tag):
            return (tag, str(about[tag]), about.get("size"))
    hasher = blake3()
    with system.open(path, "rb") as stream:
        while piece := stream.read(1 << 22):
            hasher.update(piece)
    return hasher.digest()
