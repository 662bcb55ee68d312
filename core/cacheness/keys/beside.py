"""What a function's code names outside of any module: environment variables, and files that stand beside its module."""

from __future__ import annotations

import glob
import os
import pathlib
import re
import types
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from cacheness.keys.encode import Encoder, handles
from cacheness.keys.files import digest_of_file
from cacheness.keys.texts import texts_of
from cacheness.keys.trace import Unencodable

_ENVIRONMENT: Final = frozenset({"environ", "environb", "getenv", "getenvb"})
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Calls that write somewhere: then a name in the code may be that of an output.
_WRITES: Final = re.compile(r"write|save|dump|mkdir|touch|unlink|rename|to_(csv|parquet|pickle|excel|file|zarr|netcdf)")
_MODES: Final = re.compile(r"[wax]b?\+?|r\+b?")
#: Texts of a function that are tried as names, and folders in which they are.
_MOST: Final = 50


class Environment:
    """An environment variable, which counts by its value at each call."""

    def __init__(self, name: str) -> None:
        self.name = name


class FilesBeside:
    """Files that a function's code names, below its module's folder or one that a global holds."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files


@handles(Environment)
def _environment(encoder: Encoder, value: Environment) -> None:
    encoder.tagged("environment", os.environ.get(value.name))


@handles(FilesBeside)
def _files_beside(encoder: Encoder, value: FilesBeside) -> None:
    found = {}
    for name, path in value.files.items():
        try:
            found[name] = digest_of_file(path)
        except Unencodable as error:
            encoder.note(str(error))
    encoder.tagged("files beside", found)


_variable: Final = cache(Environment)


def variables_of(code: types.CodeType) -> list[Environment]:
    """Return the environment variables that a function's code reads by name; most of its texts name none."""
    texts = texts_of(code)
    if not texts.words & _ENVIRONMENT:
        return []
    return [_variable(text) for text in sorted(texts.strings) if _VARIABLE.fullmatch(text)][:_MOST]


def folders_of(fn: types.FunctionType, values: list[Any]) -> list[str]:
    """Return the folders below which a function names files: that of its module, and those that globals hold."""
    texts = texts_of(fn.__code__)
    file = fn.__globals__.get("__file__")
    found = []
    if "__file__" in texts.words and isinstance(file, str):
        here = os.path.dirname(os.path.abspath(file))
        found = [here, os.path.dirname(here)]
    found += [os.fspath(value) for value in values if is_folder(value)]
    return found if texts.strings else []


def is_folder(value: Any) -> bool:
    """Whether a value is a path to a folder."""
    return isinstance(value, pathlib.Path) and os.path.isdir(value)


def writes(code: types.CodeType) -> bool:
    """Whether a function's code may write files."""
    texts = texts_of(code)
    return any(_WRITES.match(word) for word in texts.words) or any(_MODES.fullmatch(text) for text in texts.strings)


def files_in(folders: list[str], code: types.CodeType) -> FilesBeside:
    """Return the files below some folders that texts in a function's code name, one after the other or as a pattern."""
    names = [text for text in sorted(texts_of(code).strings) if 0 < len(text) < 200 and "\0" not in text][:_MOST]
    found: dict[str, str] = {}
    for folder in folders:
        for path in _named(folder, names):
            found.setdefault(os.path.relpath(path, folder), path)
    return FilesBeside(found)


def _named(folder: str, names: list[str]) -> Iterator[str]:
    seen, waiting = {folder}, [folder]
    while waiting and len(seen) <= _MOST:
        within = waiting.pop()
        for name in names:
            path = os.path.normpath(os.path.join(within, name))
            if glob.has_magic(name):
                yield from (p for p in sorted(glob.glob(path)[:_MOST]) if os.path.isfile(p))
            elif path.startswith(folder + os.sep) and os.path.isfile(path):
                yield path
            elif path.startswith(folder + os.sep) and path not in seen and os.path.isdir(path):
                seen.add(path)
                waiting.append(path)
