"""Encode compiled code of the user's by its file's content, because nothing else is readable."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Any, Final

from cacheness.keys.encode import Encoder
from cacheness.keys.error_paths import Unencodable
from cacheness.keys.owners import is_compiled, module_of
from cacheness.keys.values.files import digest_of_file

_SUFFIXES: Final = tuple(EXTENSION_SUFFIXES)


def is_extension(module: str | None) -> bool:
    """Return True when a module of this name was loaded from a compiled file."""
    return _file_of(sys.modules.get(module or "")).endswith(_SUFFIXES)


def is_compiled_class(cls: type) -> bool:
    """Return True when a class is not readable: compiled, or created in a compiled module."""
    return is_compiled(cls) or is_extension(module_of(cls))


def add_compiled(encoder: Encoder, module: str | None, name: str) -> None:
    """Append a compiled object of the user's: its name, and its module file's content."""
    files = list(_files_of(module or ""))
    if not files:
        raise Unencodable(f"{module}.{name} is compiled, and its module has no file")
    encoder.tagged("compiled", name, [digest_of_file(file) for file in files])


def _files_of(module: str) -> Iterator[str]:
    """Return a module's compiled file; for a package that exposes its parts, all their files."""
    file = _file_of(sys.modules.get(module))
    if file.endswith(_SUFFIXES):
        yield file
        return
    top = module.partition(".")[0]
    within = {_file_of(loaded) for name, loaded in list(sys.modules.items()) if name.partition(".")[0] == top}
    yield from sorted(file for file in within if file.endswith(_SUFFIXES))


def _file_of(module: Any) -> str:
    file = getattr(module, "__file__", None)
    return file if isinstance(file, str) else ""


def is_of_module(value: types.BuiltinFunctionType) -> bool:
    """Return True when a compiled function is bound only to its module; pybind11 and others bind it to a capsule."""
    of = getattr(value, "__self__", None)
    return of is None or isinstance(of, types.ModuleType) or type(of).__name__ == "PyCapsule"
