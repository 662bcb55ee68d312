"""Import and call optional libraries, and convert their exceptions."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, TypeVar

from cacheness.errors import CachenessError, CodecError, MissingExtra

V = TypeVar("V")
T = TypeVar("T")


def attempt(run: Callable[[V], T], value: V) -> T:
    """Run code that may raise any exception: a value's `__reduce__`, a reader of data frames."""
    try:
        return run(value)
    except CachenessError:
        raise
    except Exception as error:
        raise CodecError(f"{type(error).__name__}: {error}") from error


@cache
def library(name: str) -> Any:
    """Import a library for data frames; MissingExtra names the extra to install."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtra.of(error, name, "dataframes", "reading or storing this table") from error


@cache
def installed(name: str) -> bool:
    """Return True when `library` would succeed; imports nothing."""
    return find_spec(name) is not None
