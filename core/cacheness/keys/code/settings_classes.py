"""Encode the inputs of pydantic-settings: environment variables, files and secrets that new instances read."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any, Final

from cacheness.keys.code.environment import FilesBeside

_LIBRARY: Final = "pydantic_settings.main"


def sources_of_settings(cls: type) -> list[Any]:
    """Return what decides the defaults of an instance, and nothing for most classes.

    Variables are compared without case unless the class sets otherwise; with a delimiter for nested
    ones, `DB__HOST` belongs to `db`.
    """
    base = getattr(sys.modules.get(_LIBRARY), "BaseSettings", None)
    if base is None or base not in cls.__mro__ or cls is base:
        return []
    options: Any = getattr(cls, "model_config", {})
    exact = bool(options.get("case_sensitive"))
    names = {name if exact else name.lower() for name in _names_of(cls, options.get("env_prefix") or "")}
    delimiter = options.get("env_nested_delimiter")
    nested = tuple(name + delimiter for name in names) if delimiter else ()
    read = {}
    for name, value in os.environ.items():
        compared = name if exact else name.lower()
        if compared in names or compared.startswith(nested):
            read[name] = value
    return [read, FilesBeside({path: path for path in _files_of(options)})]


def _names_of(cls: Any, prefix: str) -> Iterator[str]:
    for name, field in cls.model_fields.items():
        yield prefix + name
        for alias in (field.alias, field.validation_alias):
            yield from _texts_of(alias)


def _texts_of(alias: Any) -> Iterator[str]:
    """Return the names in an alias: a text, a path (`AliasPath`) that begins with one, or several of both."""
    if isinstance(alias, str):
        yield alias
        return
    for choice in getattr(alias, "choices", ()):
        yield from _texts_of(choice)
    for name in getattr(alias, "path", ())[:1]:
        yield from _texts_of(name)


def _files_of(options: Any) -> Iterator[str]:
    for option in ("env_file", "json_file", "toml_file", "yaml_file"):
        found = options.get(option) or ()
        for path in [found] if isinstance(found, (str, os.PathLike)) else found:
            yield from _files_at(path)
    found = options.get("secrets_dir") or ()
    for folder in [found] if isinstance(found, (str, os.PathLike)) else found:
        if os.path.isdir(folder):
            yield from (os.path.join(folder, name) for name in sorted(os.listdir(folder)))


def _files_at(path: str | os.PathLike[str]) -> Iterator[str]:
    place = os.path.expanduser(os.fspath(path))
    if os.path.isfile(place):
        yield place
