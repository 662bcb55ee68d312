"""Decide where a result belongs, by what its call did to files.

A file that counted must be unchanged. A file that the body itself wrote is an output, if the write
was visible: the result is stored with that argument's names as text, and with a record of the
files' final state, which must hold whenever the result is served.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final, Self

from cacheness.keys import code
from cacheness.keys.error_paths import Unencodable
from cacheness.keys.inputs import Counted, Inputs, encoding_of_data_set, paths_in
from cacheness.keys.opened_files import OpenedFiles
from cacheness.keys.values.files import digest_of_file, digest_of_start
from cacheness.lazy_dataclass import dataclass

#: Values of a result that are checked as file names.
MOST_NAMES: Final = 1000
#: The most files in named folders in a record.
MOST_FILES: Final = 1000
#: File systems store times in steps of some milliseconds.
_STEP_NS: Final = 20_000_000
_IMPORTED: Final = (".py", ".pyc", ".so", ".pyd")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where a result is stored."""

    not_stored: str = ""  #: why it is not stored; "" if it is
    as_text: frozenset[str] = frozenset()  #: arguments whose files count by their names
    outputs: str = ""  #: canonical JSON: the files' final state; "" for none
    left: tuple[str, ...] = ()  #: files that were written and that neither an argument nor the result names
    is_written: bool = False  #: a file was written that an argument or the result names, or that was visible


class _NotStored(Exception):
    """This result cannot be stored; the message has the reason."""


class Observed:
    """The files of one call, from before its function is called until it has returned.

    Args:
        inputs: the files that counted, for each argument.
        function: the function.
        written: names of files that the function is known to write.
    """

    def __init__(
        self,
        inputs: Mapping[str, Inputs],
        function: Callable[..., Any] | None = None,
        *,
        written: Collection[str] = (),
    ) -> None:
        self._inputs = inputs
        self._written = written  # names that the code is known to write to
        self._function = function
        self._opened = OpenedFiles() if inputs else None
        self._start = time.time_ns()

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def begin(self, *, alone: bool = False) -> None:
        """Begin to observe: the function is about to run.

        Args:
            alone: do not record for an outer call, because the end of the function may not be observed.
        """
        self._start = time.time_ns()
        if self._opened is not None:
            self._opened.begin(alone=alone)

    def end(self) -> None:
        """Stop observing: the function has returned."""
        if self._opened is not None:
            self._opened.end()

    def outcome(self, result: Any) -> Outcome:
        """Check every file again, and return the key for the result.

        Args:
            result: the function's return value.
        """
        try:
            return self._judge(dict(self._named_in(result)), {os.path.abspath(t) for t in _texts_in(result)})
        except _NotStored as refusal:
            return Outcome(str(refusal))
        except (OSError, Unencodable) as error:
            return Outcome(f"a file cannot be looked at again ({error})")

    def _judge(self, named: dict[str, str], named_anywhere: set[str]) -> Outcome:
        written = {arg for arg in self._inputs if self._is_changed(arg, named)}
        given = {arg for arg, inputs in self._inputs.items() if inputs.found}
        if len(written & given) > 1 and len(given) > 3:
            written |= given  # for more, keys are made for each alone, or for all
        records = [record for arg in sorted(written) for record in self._as_left(arg)]
        records += [record for arg in sorted(self._inputs) for record in self._in_folders(arg)]
        known = {os.path.abspath(record["at"]) for record in records}
        records += [_record("", name, path) for path, name in named.items() if path not in known]
        text = json.dumps(records, sort_keys=True, separators=(",", ":")) if records else ""
        left = tuple(self._left({*named, *named_anywhere}))
        return Outcome("", frozenset(written), text, left, bool(written or named or left))

    def _left(self, named: Collection[str]) -> Iterator[str]:
        if self._opened is None:
            return
        named_anywhere = {*named, *(path for inputs in self._inputs.values() for path in _paths_of(inputs))}
        named_anywhere |= {os.path.realpath(path) for path in named_anywhere}
        below = tuple(os.path.join(path, "") for path in named_anywhere)
        for path, uses in self._opened.uses.items():
            is_known = (
                path in named_anywhere or path.startswith(below) or path.endswith(_IMPORTED) or _is_of_a_library(path)
            )
            if "w" in uses and not is_known and os.path.lexists(path):
                yield path

    def _is_changed(self, arg: str, named: Collection[str]) -> bool:
        changed = False
        inputs = self._inputs[arg]
        for counted in inputs.found.values():
            if not counted.is_same():
                self._require_written(arg, counted.name, counted.path, counted, named)
                changed = True
        for name, path in inputs.absent.items():
            if os.path.lexists(path):
                self._require_written(arg, name, path, None, named)
                changed = True
        return changed

    def _require_written(self, arg: str, name: str, path: str, counted: Counted | None, named: Collection[str]) -> None:
        """A change must come from the body, and not be of a file that the body read before."""
        uses = self._uses_below(path) if path and os.path.isdir(path) else self._uses(path)
        if not path or not os.path.lexists(path):
            raise _NotStored(f"{name} changed while it was computed")
        if not uses & {"w", "a", "u"} and not (
            path in named or name in self._written or arg in code.writers.writes_to(self._function)
        ):
            raise _NotStored(f"{name} changed while it was computed, and nothing of the function was seen to write it")
        if counted is not None and self._is_read_first(path):
            raise _NotStored(f"{name} is read and changed by the function, so the next call would find another content")

    def _uses(self, path: str) -> set[str]:
        uses = {} if self._opened is None else self._opened.uses
        real = os.path.realpath(path)
        return set(uses.get(path, "") + uses.get(real, ""))

    def _uses_below(self, folder: str) -> set[str]:
        return {use for path in self._paths_below(folder) for use in self._uses(path)} | (self._uses(folder) - {"l"})

    def _paths_below(self, folder: str) -> list[str]:
        starts = tuple({os.path.join(folder, ""), os.path.join(os.path.realpath(folder), "")})
        return [path for path in (() if self._opened is None else self._opened.uses) if path.startswith(starts)]

    def _is_read_first(self, path: str) -> bool:
        uses = {} if self._opened is None else self._opened.uses
        order = uses.get(path) or uses.get(os.path.realpath(path), "")
        return (bool(order) and order[0] in "ru") or (order.startswith("a") and "r" in order)

    def is_only_appended_to(self, path: str) -> bool:
        """Return True when the function only appended to a file.

        Args:
            path: the absolute path of the file.
        """
        return self._uses(path) == {"a"}

    def _is_log(self, path: str, counted: Counted | None) -> bool:
        """Return True when the body's only use of a file was to append to it."""
        if not self.is_only_appended_to(path) or not os.path.isfile(path):
            return False
        return counted is None or counted.encoding.endswith(digest_of_start(path, counted.size))

    def _as_left(self, arg: str) -> Iterator[dict[str, Any]]:
        """Return a record of each file of an argument."""
        inputs = self._inputs[arg]
        for name, counted in inputs.found.items():
            if not counted.path:
                raise _NotStored(
                    f"{arg} has files that were written, and {name}, whose name does not identify it later"
                )
            changed = not counted.is_same()
            log = changed and self._is_log(counted.path, counted)
            yield _log(arg, name, counted.path) if log else _record(arg, name, counted.path)
        for name, path in inputs.absent.items():
            if os.path.lexists(path):
                yield _log(arg, name, path) if self._is_log(path, None) else _record(arg, name, path)

    def _in_folders(self, arg: str) -> Iterator[dict[str, Any]]:
        """Return a record of each opened file and listed folder, in folders that count by name."""
        for name in self._inputs[arg].folders:
            if name in self._inputs[arg].found:
                continue
            for folder in paths_in(name):
                below = [path for path in self._paths_below(os.path.abspath(folder)) if not path.endswith(_IMPORTED)]
                if "l" in self._uses(os.path.abspath(folder)):
                    below.append(os.path.abspath(folder))
                if len(below) > MOST_FILES:
                    raise _NotStored(f"more than {MOST_FILES} files were opened in {name}, which counts by its name")
                for path in below:
                    yield from self._one_in_folder(arg, name, folder, path)

    def _one_in_folder(self, arg: str, name: str, folder: str, path: str) -> Iterator[dict[str, Any]]:
        uses = self._uses(path)
        at = os.path.join(folder, os.path.relpath(path, os.path.realpath(folder)))
        try:
            found = os.stat(path)
        except OSError:
            return  # a temporary file, or one that was not found
        if stat.S_ISDIR(found.st_mode) and "l" in uses:
            if found.st_mtime_ns > self._start and not self._uses_below(path) & {"w", "a", "u"}:
                raise _NotStored(f"{name} changed while it was computed")
            yield {"arg": arg, "at": at, "digest": _names_in(path).hex(), "kind": "names", "name": name}
        elif stat.S_ISREG(found.st_mode):
            if uses <= {"a", "u"}:
                return  # a log, a lock, a database
            if uses == {"r"} and max(found.st_mtime_ns, found.st_ctime_ns) > self._start:
                raise _NotStored(f"{path} changed while it was computed")
            yield {**_record(arg, name, path), "at": at}

    def _named_in(self, result: Any) -> Iterator[tuple[str, str]]:
        """Return each file that a result names and that is newer than the body's start: absolute path, and the name."""
        for text in _texts_in(result):
            for path in (*paths_in(text), *(() if paths_in(text) else (text,))):
                try:
                    found = os.stat(path)
                except (OSError, ValueError):
                    continue
                newest = max(found.st_mtime_ns, found.st_ctime_ns)
                if stat.S_ISREG(found.st_mode) and newest >= self._start - _STEP_NS:
                    yield os.path.abspath(path), path


def _is_of_a_library(path: str) -> bool:
    """Return True below a hidden folder of the user's home, where libraries keep fonts, settings and compiled code."""
    home = os.path.join(os.path.expanduser("~"), ".")
    return path.startswith(home) or f"{os.sep}__pycache__{os.sep}" in path


def _paths_of(inputs: Inputs) -> Iterator[str]:
    yield from (counted.path for counted in inputs.found.values() if counted.path)
    yield from inputs.absent.values()
    yield from (os.path.abspath(path) for name in inputs.folders for path in paths_in(name))


def _texts_in(result: Any) -> Iterator[str]:
    """Return the file names in a result, also in its lists, tuples and dictionaries."""
    waiting, left = [result], MOST_NAMES
    while waiting and left:
        left -= 1
        value = waiting.pop()
        if isinstance(value, str):
            if paths_in(value):
                yield value
        elif isinstance(value, os.PathLike):
            try:
                yield os.fsdecode(os.fspath(value))
            except (TypeError, ValueError, NotImplementedError):
                continue
        elif type(value) in (list, tuple):
            waiting += value[:left]
        elif type(value) is dict:
            waiting += list(value.values())[:left]


# records


def _record(arg: str, name: str, path: str) -> dict[str, Any]:
    """The current state of a file or folder."""
    if os.path.isdir(path):
        digest = encoding_of_data_set(path)
        return {"arg": arg, "at": place_of(name, path), "digest": digest.hex(), "kind": "folder", "name": name}
    digest = digest_of_file(path)
    found = os.stat(path)
    settled = time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > _STEP_NS
    return {
        "arg": arg,
        "at": place_of(name, path),
        "digest": digest.hex(),
        "kind": "file",
        "name": name,
        "size": found.st_size,
        "time": found.st_mtime_ns,
        # Return what identifies an unchanged file without reading it.
        "state": [found.st_ctime_ns, found.st_ino, found.st_dev] if settled else [],
    }


def _log(arg: str, name: str, path: str) -> dict[str, Any]:
    return {"arg": arg, "at": place_of(name, path), "kind": "log", "name": name}


def place_of(name: str, path: str) -> str:
    """Return the path of a name; relative if it was given so, because the next call means it so, too."""
    return next((one for one in (*paths_in(name), name) if "\0" not in one and os.path.abspath(one) == path), path)


def _names_in(folder: str) -> bytes:
    from blake3 import blake3

    names = sorted(os.listdir(os.fsencode(folder)))
    return blake3(b"".join(b"%x:%b" % (len(name), name) for name in names)).digest()


def still_left(outputs: str) -> bool:
    """Return True when every file in a record is in the state in which the function left it.

    Args:
        outputs: the field `outputs` of an entry.
    """
    try:
        return all(_holds(record) for record in json.loads(outputs)) if outputs else True
    except (OSError, Unencodable, ValueError, KeyError, TypeError):
        return False


def _holds(record: Mapping[str, Any]) -> bool:
    kind, at = record["kind"], record["at"]
    if kind == "log":
        return True
    digest = bytes.fromhex(record["digest"])
    if kind == "names":
        return _names_in(at) == digest
    if kind == "folder":
        return os.path.isdir(at) and encoding_of_data_set(at) == digest
    found = os.stat(at)
    if not stat.S_ISREG(found.st_mode) or found.st_size != record["size"]:
        return False
    untouched = (
        found.st_mtime_ns == record["time"] and [found.st_ctime_ns, found.st_ino, found.st_dev] == record["state"]
    )
    return untouched or digest_of_file(at) == digest


def names_of(outputs: str) -> frozenset[str]:
    """Return the names of the files in a record.

    Args:
        outputs: the field `outputs` of an entry.
    """
    return frozenset(record["name"] for record in json.loads(outputs)) if outputs else frozenset()


def not_as_left(outputs: str) -> list[str]:
    """Return the names of those files in a record that have changed since the function wrote them.

    Args:
        outputs: the field `outputs` of an entry.
    """
    return [record["name"] for record in json.loads(outputs) if not still_left(json.dumps([record]))] if outputs else []


def covers(outputs: str, inputs: Mapping[str, Inputs], as_text: Collection[str]) -> bool:
    """Return True when a record names every file of the arguments that count as text.

    Args:
        outputs: the record.
        inputs: the files of each argument.
        as_text: the names of those arguments.
    """
    named_anywhere = {(record["arg"], record["name"]) for record in json.loads(outputs)} if outputs else set()
    return all((arg, name) in named_anywhere for arg in as_text for name in inputs[arg].found)
