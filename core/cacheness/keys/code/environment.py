"""Find inputs that a function's code names outside modules: environment variables, and files near its module."""

from __future__ import annotations

import glob
import os
import pathlib
import re
import sys
import types
from collections.abc import Collection, Iterator
from functools import cache
from typing import Any, Final

from cacheness.keys.code.bytecode import info_of
from cacheness.keys.code.per_code import once_per_code
from cacheness.keys.code.sources import source_file_of
from cacheness.keys.code.texts import environment_read_as, texts_of
from cacheness.keys.code.write_only import ENVIRONMENT
from cacheness.keys.encode import Encoder, handles
from cacheness.keys.error_paths import Unencodable
from cacheness.keys.owners import name_of_module, owner_of
from cacheness.keys.values.files import digest_of_file

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_IN_CAPITALS: Final = re.compile(r"[A-Z_][A-Z0-9_]*")
_EXPANDED: Final = re.compile(r"\$\{?(\w+)")
#: Prefix of texts of the code among the names that are read.
NAMED: Final = "$"
#: Prefix of texts of the code that may be file names.
FILED: Final = "/"
_FILE: Final = re.compile(r"[^\s<>|*?{}\"']{1,100}\.[A-Za-z0-9]{1,8}")
#: Calls that write files: a name in the code may then be an output's.
_WRITES: Final = re.compile(
    r"write|save|dump(?!s)|mkdir|touch|unlink|rename|to_(csv|parquet|pickle|excel|file|zarr|netcdf)"
)
#: What returns files of a package, by names in the code or by the module that it comes from.
_PACKAGED: Final = frozenset({"resources", "importlib.resources", "importlib_resources", "pkgutil", "get_data"})
_PACKAGE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_OF_PACKAGES: Final = ("importlib.resources", "importlib_resources", "pkgutil")
#: Calls that read files or directories.
_OPENS: Final = re.compile(r"open|read|load|scan|listdir|walk|glob|iterdir|imread|fromfile|FileSystemLoader")
#: Limits on a function's texts that are tried as names, and on the folders.
_MOST: Final = 50
_LONGEST: Final = 4096  #: characters of a path


class Environment:
    """An environment variable, which counts by its value at each call."""

    def __init__(self, name: str) -> None:
        self.name = name


class Setting:
    """An option of `dask.config`, which counts by its value when the key is made."""

    def __init__(self, name: str) -> None:
        self.name = f"dask.config {name}"
        self.option = name


class AllVariables:
    """Replaces `os.environ` in a global: only variables named in the code count."""


class FolderByName:
    """Replaces a folder's path, if the code opens files there without naming them."""

    def __init__(self, path: str) -> None:
        self.path = path


class NotLookedAt:
    """Files named in a function's code that also writes files: they may be its outputs."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files


class FilesBeside:
    """Files named in a function's code, below its module's folder or one in a global."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files


@handles(Environment)
def _environment(encoder: Encoder, value: Environment) -> None:
    encoder.tagged("environment", os.environ.get(value.name))


@handles(Setting)
def _setting(encoder: Encoder, value: Setting) -> None:
    try:
        data = encoder.apart(sys.modules[_DASK_CONFIG].get(value.option, None))
    except Unencodable as error:
        data = b""
        encoder.unfollowed.append(f"{value.name}: {error}")
    encoder.open("setting", 1)
    encoder.blob(b"b", data)


@handles(AllVariables)
def _all_variables(encoder: Encoder, _: AllVariables) -> None:
    encoder.tagged("environ")


@handles(FilesBeside)
def _files_beside(encoder: Encoder, value: FilesBeside) -> None:
    found = {}
    for name, path in value.files.items():
        try:
            found[name] = digest_of_file(path)
        except Unencodable as error:
            encoder.note(str(error))
    encoder.tagged("files beside", found)


@handles(FolderByName)
def _folder_by_name(encoder: Encoder, value: FolderByName) -> None:
    encoder.tagged("folder", value.path)
    encoder.unfollowed.append(f"files in {value.path}")


@handles(NotLookedAt)
def _not_looked_at(encoder: Encoder, value: NotLookedAt) -> None:
    encoder.tagged("files beside")
    for name in value.files:
        encoder.note(f"the content of {name}, because the function also writes files")


_READERS: Final = (os.getenv, getattr(os, "getenvb", None) or os.getenv, os.path.expandvars)
_variable: Final = cache(Environment)
_option: Final = cache(Setting)
_DASK_CONFIG: Final = "dask.config"
_OPTION: Final = re.compile(r"[a-z][\w-]*(\.[\w-]+)+")


def variables_of(fn: types.FunctionType, asked: Collection[str]) -> list[Environment]:
    """Return the environment variables that a function's code may read by name; most texts name none.

    If the name is not in its code, the texts of all reachable code are tried: `asked` has them.
    """
    texts, others = texts_of(fn.__code__), _other_readers(fn)
    if not others and not texts.words & ENVIRONMENT:
        return []
    names = set(texts.strings)
    if "computed" in environment_read_by(fn):
        names |= {text[len(NAMED) :] for text in asked if text.startswith(NAMED)}
        held = [fn.__globals__.get(word) for word in _words(fn)]
        names |= {value for value in [*held, *(fn.__defaults__ or ())] if type(value) is str}
    if others or "expandvars" in texts.words:
        names |= {name for text in texts.strings for name in _EXPANDED.findall(text)}
    return [_variable(text) for text in sorted(names) if _VARIABLE.fullmatch(text)]


def settings_of(fn: types.FunctionType) -> list[Setting] | None:
    """Return the options of `dask.config` that a function's code names; None for functions that read none."""
    config: Any = sys.modules.get(_DASK_CONFIG)
    if config is None:
        return None
    texts = texts_of(fn.__code__)
    held = (fn.__globals__.get(word) for word in _words(fn))
    if not {"dask", "config"} <= texts.words and not any(
        value is config or (callable(value) and getattr(value, "__module__", "") == _DASK_CONFIG) for value in held
    ):
        return None
    return [_option(text) for text in sorted(texts.strings) if _OPTION.fullmatch(text) or text in config.config]


def is_environment(value: Any) -> bool:
    """Return True when a value is `os.environ` itself, under any name."""
    return value is os.environ or value is getattr(os, "environb", os.environ)


def environment_read_by(fn: types.FunctionType) -> frozenset[str]:
    """Return how a function's code reads environment variables, in the terms of `write_only.environment_read`."""
    found, others = texts_of(fn.__code__).environment, _other_readers(fn)
    return found | environment_read_as(fn.__code__, others) if others else found


def _other_readers(fn: types.FunctionType) -> frozenset[str]:
    """Return globals of a function that are `os.environ`, or functions that read it, under the user's names."""
    values, found = fn.__globals__, list[str]()
    for word in _words(fn):
        value = values.get(word)
        if value is None or word in ENVIRONMENT:
            continue
        if is_environment(value) or any(value is one for one in _READERS):
            found.append(word)
    return frozenset(found)


def _words(fn: types.FunctionType) -> list[str]:
    return _names_in(fn.__code__)


_names_in: Final = once_per_code(lambda code: [name.name for name in info_of(code).names])


def variables_named_in(code: types.CodeType) -> set[str]:
    """Return texts of a function's code that may name environment variables for another function that reads them."""
    return {NAMED + text for text in texts_of(code).strings if _IN_CAPITALS.fullmatch(text)}


def files_named_in(code: types.CodeType) -> set[str]:
    """Return texts of a function's code that may name files for another function that opens them."""
    return {FILED + text for text in texts_of(code).strings if _FILE.fullmatch(text)}


def names_files(asked: Collection[str]) -> bool:
    """Return True when the reachable code names files."""
    return any(text.startswith(FILED) for text in asked)


def places_of(fn: types.FunctionType, values: list[Any]) -> tuple[list[str], list[str]]:
    """Return folders in which a function may open files named in its code, and files named in its globals.

    The folders are those of its module, of packages whose files it reads, and of paths in globals.
    """
    texts = texts_of(fn.__code__)
    file, found = fn.__globals__.get("__file__"), list[str]()
    # Only they may name files.
    paths: list[Any] = [value for value in values if type(value) is str or isinstance(value, (list, pathlib.Path))]
    asks = bool(texts.words & _PACKAGED) or any(_is_of_packages(value) for value in values)
    if ("__file__" in texts.words or asks) and isinstance(file, str):
        here = os.path.dirname(os.path.abspath(file))
        found = [here, os.path.dirname(here)]
    if asks:
        packages = [name_of_module(value) for value in values if isinstance(value, types.ModuleType)]
        found += filter(None, map(_folder_of_package, [*packages, *sorted(filter(_PACKAGE.fullmatch, texts.strings))]))
    if texts.words & {"__file__", "__path__"}:  # of a module that the code names
        found += [os.path.dirname(value) for value in paths if _is_name_of_file(value)]
        found += [str(part) for value in paths if isinstance(value, list) for part in value if is_folder(part)]
    found += [os.fspath(value) for value in paths if is_folder(value)]
    files = [value for value in paths if _is_name_of_file(value) and not value.endswith(".py")]
    return list(dict.fromkeys(found)), files


def _folder_of_package(name: str) -> str:
    """Return the folder of a package of the user's, without importing it; "" if there is none."""
    file = source_file_of(name)
    return os.path.dirname(file) if file and owner_of(name).kind == "user" else ""


def _is_of_packages(value: Any) -> bool:
    return isinstance(value, types.FunctionType) and str(value.__module__).startswith(_OF_PACKAGES)


def is_among(folders: list[str], value: Any) -> bool:
    """Return True when a value is one of these folders."""
    return (type(value) is str or isinstance(value, pathlib.Path)) and os.fspath(value) in folders


def is_folder(value: Any) -> bool:
    """Return True when a value is a path to a folder; a text counts only if it is absolute."""
    return (isinstance(value, pathlib.Path) or _is_path(value)) and os.path.isdir(value)


def _is_name_of_file(value: Any) -> bool:
    return _is_path(value) and os.path.isfile(value)


def _is_path(value: Any) -> bool:
    return type(value) is str and value.startswith(os.sep) and len(value) < _LONGEST and "\0" not in value


def writes(code: types.CodeType) -> bool:
    """Return True when a function's code may write files."""
    texts = texts_of(code)
    return any(_WRITES.match(word) for word in texts.words) or ("open" in texts.words and texts.hands_over_a_mode)


def opens(code: types.CodeType) -> bool:
    """Return True when a function's code may open files."""
    return any(_OPENS.match(word) for word in texts_of(code).words)


def files_in(folders: list[str], files: list[str], fn: types.FunctionType, asked: Collection[str]) -> FilesBeside:
    """Return the files in some folders that texts in a function's code name, alone, joined, or as a pattern.

    Texts of all reachable code are tried, too, because a helper may get the name as an argument.
    """
    asked_for = {text[len(FILED) :] for text in asked if text.startswith(FILED)}
    held = [fn.__globals__.get(word) for word in _words(fn)]
    given = {value for value in (*held, *(fn.__defaults__ or ())) if type(value) is str and not os.path.isabs(value)}
    own = texts_of(fn.__code__).strings | given
    names = [text for text in (*sorted(own), *sorted(asked_for - own)) if 0 < len(text) < 200 and "\0" not in text]
    found: dict[str, str] = {}
    for folder in folders:
        for path in _named(folder, names[:_MOST]):
            found.setdefault(os.path.relpath(path, folder), path)
    for path in files:
        found.setdefault(os.path.basename(path), path)
    return FilesBeside(found)


def _named(folder: str, names: list[str]) -> Iterator[str]:
    seen, waiting = {folder}, [folder]
    while waiting and len(seen) <= _MOST:
        within = waiting.pop()
        for name in names:
            # In f"{HERE}/rates.csv" the text begins with the separator.
            path = os.path.normpath(os.path.join(within, name.lstrip(os.sep)))
            if glob.has_magic(name):
                yield from (p for p in sorted(glob.glob(path)[:_MOST]) if os.path.isfile(p))
            elif path.startswith(folder + os.sep) and os.path.isfile(path):
                yield path
            elif path.startswith(folder + os.sep) and path not in seen and os.path.isdir(path):
                seen.add(path)
                waiting.append(path)
