"""Recognise file names among the strings of an argument, and record files that counted in a key.

A string is checked if it is absolute, has a separator or ends in a suffix, so that a column called
`train` never depends on a file of that name. It counts by its text and by the file's content. A
file that cannot be read, or would take long to read, counts by its name alone, and `explain` lists
it. A pattern that names no file itself (`data/*.csv`) counts by its text, and by the names and
contents of all files that match it.
"""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import field
from functools import partial
from itertools import islice
from typing import Final
from urllib.parse import unquote

from blake3 import blake3

from cacheness.keys.encode import Encoder
from cacheness.keys.error_paths import Unencodable
from cacheness.keys.values.files import TooLarge, digest_of_file
from cacheness.lazy_dataclass import dataclass
from cacheness.platform import devices

#: Strings of an argument that are checked; later ones count by their text.
MOST_STRINGS: Final = 1000
#: The most bytes of a file that are read because of a string.
MOST_BYTES: Final = 1 << 30
#: The most files in a data set that a string names.
MOST_CHUNKS: Final = 100_000
#: Files that a pattern in a string may match, and patterns of an argument that are checked.
MOST_MATCHES: Final = 10_000
MOST_PATTERNS: Final = 100
_LONGEST: Final = 4096
#: Files that mark a folder as one data set.
_DATA_SETS: Final = frozenset({"zarr.json", ".zarray", ".zgroup", ".zmetadata", "_metadata", "_SUCCESS", "_delta_log"})
#: Virtual file systems: the kernel generates their contents when they are read.
_PSEUDO: Final = frozenset(
    {
        *("proc", "sysfs", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs", "configfs", "pstore", "bpf"),
        *("devtmpfs", "devpts", "mqueue", "efivarfs", "fusectl", "binfmt_misc", "nsfs", "autofs", "rpc_pipefs"),
    }
)


@dataclass(frozen=True, slots=True)
class Counted:
    """A file, folder or remote object whose content counted in a key."""

    name: str  #: as the user wrote it
    path: str  #: absolute, "" if it is not on this machine
    encoding: bytes
    again: Callable[[], bytes]  #: its current encoding; raises Unencodable
    size: int = 0  #: bytes, of a regular file
    is_folder: bool = False

    @property
    def digest(self) -> bytes:
        """Return 32 bytes, the digest of the content."""
        return blake3(self.encoding).digest()

    def is_same(self) -> bool:
        """Return True when the content is unchanged."""
        return self.now() == self.encoding

    def now(self) -> bytes | None:
        """Return the encoding of the current content, None if it cannot be read."""
        try:
            return self.again()
        except (OSError, Unencodable):
            return None


@dataclass(slots=True)
class Inputs:
    """Files that counted in the key of one argument, and names that may become files."""

    as_text: bool = False  #: every name counts by its text
    found: dict[str, Counted] = field(default_factory=dict)  #: names of files that counted
    absent: dict[str, str] = field(default_factory=dict)  #: names without a file: their absolute paths
    folders: list[str] = field(default_factory=list)  #: names of folders
    unread: dict[str, str] = field(default_factory=dict)  #: names of files that count by their text, and why
    left: int = MOST_STRINGS  #: how many more texts are checked
    patterns_left: int = MOST_PATTERNS  #: how many more patterns are checked
    here: str = ""  #: the directory for relative names, once it is known

    @property
    def names(self) -> Iterator[str]:
        """Return every name that is a file now, or was looked for."""
        yield from self.found
        yield from self.absent

    def merge(self, other: Inputs) -> None:
        """Add the contents of another one.

        Args:
            other: the other one.
        """
        self.found |= other.found
        self.absent |= other.absent
        self.folders += [name for name in other.folders if name not in self.folders]
        self.unread |= other.unread

    def __bool__(self) -> bool:
        return bool(self.found or self.absent or self.folders)

    def is_absent(self, path: str) -> bool:
        """Return True when a path does not exist; it is recorded, because the function may write there.

        Args:
            path: the path.
        """
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            self.absent[path] = os.path.abspath(path)
            return True
        except (OSError, ValueError):
            return False
        return False

    def count(self, name: str, encoding: bytes, again: Callable[[], bytes]) -> None:
        """Add what counted by its content.

        Args:
            name: the file's name as given.
            encoding: the canonical bytes that counted.
            again: returns the current bytes.
        """
        try:
            found = os.stat(name)
        except (OSError, ValueError):
            self.found[name] = Counted(name, "", bytes(encoding), again)
        else:
            folder = stat.S_ISDIR(found.st_mode)
            self.found[name] = Counted(name, os.path.abspath(name), bytes(encoding), again, found.st_size, folder)

    def add_name(self, encoder: Encoder, text: str) -> bool:
        """Append a text to an encoding as a file, if it is the name of one.

        Args:
            encoder: the encoding.
            text: the text.

        Returns:
            False if the text names no file, and counts by itself.
        """
        self.left -= 1
        if self.left < 0:
            encoder.names = False
            return False
        paths = paths_in(text)
        return any(self._add(encoder, text, path) for path in paths) if paths else False

    def _add(self, encoder: Encoder, text: str, path: str) -> bool:
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return self._add_absent(encoder, text, path)
        except (OSError, ValueError):
            return False
        if stat.S_ISDIR(found.st_mode):
            self.folders.append(text)
            if not is_data_set(path):
                return False
        elif not stat.S_ISREG(found.st_mode) or is_pseudo(found.st_dev):
            return False
        self.absent.pop(text, None)
        if self.as_text:
            return False
        return self._add_content(encoder, text, path, found)

    def _add_absent(self, encoder: Encoder, text: str, path: str) -> bool:
        """Append the matches of a pattern, or record a name that may become a file."""
        if glob.has_magic(path) and self._add_matches(encoder, text, path):
            return True
        if text not in self.absent:
            self.here = self.here or os.getcwd()
            # Like `abspath`, which looks up the current directory each time.
            self.absent[text] = os.path.normpath(path if os.path.isabs(path) else f"{self.here}{os.sep}{path}")
        return False

    def _add_matches(self, encoder: Encoder, text: str, pattern: str) -> bool:
        """Append the files that match a pattern, each with its name."""
        self.patterns_left -= 1
        if self.as_text or self.patterns_left < 0 or not os.path.isdir(_folder_of(pattern)):
            return False
        if "**" in pattern:
            self.unread[text] = "a pattern with ** is not followed"
            return False
        found = [name for name in islice(glob.iglob(pattern), MOST_MATCHES + 1) if _is_plain_file(name)]
        if len(found) > MOST_MATCHES:
            self.unread[text] = f"more than {MOST_MATCHES} files match it"
        elif found:
            within = Encoder()
            for name in sorted(found, key=os.fsencode):
                if not self._add(within, name, name):
                    within.tagged("unread", name)
            encoder.open("named pattern", 2)
            encoder.blob(b"s", text.encode("utf-8", "surrogatepass"))
            encoder.blob(b"b", within.out)
        return 0 < len(found) <= MOST_MATCHES

    def _add_content(self, encoder: Encoder, text: str, path: str, found: os.stat_result) -> bool:
        folder = stat.S_ISDIR(found.st_mode)
        encoding = partial(encoding_of_data_set, path) if folder else partial(digest_of_file, path, MOST_BYTES)
        try:
            content = encoding()
        except Unencodable as error:
            self.unread[text] = str(error)
            return False
        self.found[text] = Counted(text, os.path.abspath(path), content, encoding, found.st_size, folder)
        encoder.open("named data set" if folder else "named file", 2)
        encoder.blob(b"s", text.encode("utf-8", "surrogatepass"))
        encoder.blob(b"b", content)
        return True


def paths_in(text: str) -> list[str]:
    """Return the paths on this machine that a string may mean; none if it does not look like a file name."""
    if len(text) > _LONGEST or "\0" in text:
        return []
    if "://" in text or "::" in text:
        return [path for part in text.split("::") for path in _paths_of_url(part)]
    if text.startswith("file:/"):
        return _unquoted(text[5:])
    if text[:1] == "~" and os.sep in text:
        return [os.path.expanduser(text)]
    named = os.sep in text or (os.altsep is not None and os.altsep in text)
    return [text] if named or _has_suffix(text) else []


def _folder_of(pattern: str) -> str:
    """Return the fixed folder of a pattern, as far as it is known."""
    return os.path.dirname(_BEFORE_MAGIC.match(pattern)[0]) or os.curdir  # type: ignore[index]


_BEFORE_MAGIC: Final = re.compile(r"[^*?[]*")


def _is_plain_file(path: str) -> bool:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(found.st_mode) and not is_pseudo(found.st_dev)


def _has_suffix(name: str) -> bool:
    """Return True when a dot is between other characters, after leading dots."""
    stem, _, suffix = name.rpartition(".")
    return bool(suffix) and bool(stem.strip("."))


def _paths_of_url(part: str) -> list[str]:
    scheme, separator, rest = part.partition("://")
    if not separator:
        return paths_in(part)
    if scheme.lower() not in ("file", "local"):
        return []
    return _unquoted(rest.removeprefix("localhost") if rest.startswith("localhost/") else rest)


def _unquoted(path: str) -> list[str]:
    return [path] if "%" not in path else [path, unquote(path)]


def is_data_set(folder: str) -> bool:
    """Return True when a folder is one data set: a Zarr store, a Delta table, parts of a Parquet table."""
    return any(os.path.lexists(os.path.join(folder, name)) for name in _DATA_SETS)


def encoding_of_data_set(path: str) -> bytes:
    """Return the digest of the names and contents in a folder. Raises TooLarge for one with very many files."""
    hasher = blake3()
    try:
        entries = sorted(_listed(path), key=lambda entry: os.fsencode(entry[0]))
    except OSError as error:
        raise Unencodable(f"folder {path} cannot be read ({error.strerror})") from error
    for name, digest in entries:
        hasher.update(b"%x:%b" % (len(os.fsencode(name)), os.fsencode(name)) + digest)
    return hasher.digest()


def _listed(top: str) -> Iterator[tuple[str, bytes]]:
    """Return each file with the digest of its content, and each folder below."""
    waiting, count = [top], 0
    while waiting:
        with os.scandir(waiting.pop()) as listing:
            entries = list(listing)
        count += len(entries)
        if count > MOST_CHUNKS:
            raise TooLarge(f"folder {top} has more than {MOST_CHUNKS} files")
        for entry in entries:
            name = os.path.relpath(entry.path, top)
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
                yield name, b"d"
            elif entry.is_file():
                yield name, digest_of_file(entry.path)


_kinds: dict[int, str] = {}


def is_pseudo(device: int) -> bool:
    """Return True when the kernel generates this device's files during reading."""
    if device not in _kinds:
        _kinds.update(devices())
        _kinds.setdefault(device, "")
    return _kinds[device] in _PSEUDO
