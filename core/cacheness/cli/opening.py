"""Find the configuration for a command's options: an existing cache, or the two ends of a copy."""

from __future__ import annotations

import os
from pathlib import Path

from cacheness.cli.endings import CouldNot, Misuse
from cacheness.config import EMBEDDED, Config
from cacheness.errors import ConfigError, MissingExtra
from cacheness.factory import BLOB_DIRECTORY, KEY_FILE, check, embedded_kind


def config_of(
    cache_dir: str | None,
    metadata_backend: str | None,
    blob_store: str | None,
    namespace: str | None,
    signing_key: str | None = None,
) -> Config:
    """Return the configuration of these options and the environment. Raises Misuse if they are contradictory."""
    given = {
        "cache_dir": cache_dir,
        "metadata_backend": metadata_backend or (cache_dir and _kind_of(cache_dir)),
        "blob_store": blob_store,
        "namespace": namespace,
        "signing_key": signing_key,
    }
    try:
        config = Config.from_env().but(**{name: value for name, value in given.items() if value is not None})
    except ConfigError as error:
        raise Misuse(str(error)) from None
    if cache_dir is not None and blob_store is None and os.path.isdir(os.path.join(cache_dir, BLOB_DIRECTORY)):
        # The environment's blob store belongs to another cache: this directory has its own blobs.
        return config.but(blob_store=None)
    return config


def existing(config: Config, hint: str = "", *, reads_entries: bool = True) -> Config:
    """Return the configuration, unless a mistyped directory would create an empty cache.

    Raises Misuse if the cache is of another kind, or, for a command that reads entries, if it cannot work.
    """
    backend = config.metadata_backend
    if backend in EMBEDDED:
        held = _kind_of(config.cache_dir)
        if held is None:
            raise ConfigError(f"there is no cache in {config.cache_dir}{_why_not(config.cache_dir)}{hint}")
        if held != backend:
            raise Misuse(f"{config.cache_dir} contains a cache of kind {held}, not {backend}")
    return possible(config) if reads_entries else config


def possible(config: Config) -> Config:
    """Return the configuration. Raises Misuse for one that can work on no machine."""
    try:
        check(config)
    except MissingExtra:
        raise
    except ConfigError as error:
        raise Misuse(str(error)) from None
    return config


def _why_not(directory: str) -> str:
    try:
        os.scandir(directory).close()
    except OSError as error:
        return f": {error.strerror}"
    except ValueError as error:
        return f": {error}"
    return ""


def _kind_of(place: str) -> str | None:
    return None if "://" in place else embedded_kind(place)


def endpoint(place: str, blobs: str | None, namespace: str | None, key: str | None, kind: str = "sqlite") -> Config:
    """Return one end of a copy: a directory, or the URL of a database."""
    secret = None if key is None else _secret(key)
    if "://" in place:
        return config_of(None, place, blobs, namespace, secret)
    config = config_of(place, _kind_of(place) or kind, blobs, namespace, secret)
    return config if blobs is not None else config.but(blob_store=None)


def target_of(place: str, blobs: str | None, namespace: str | None, key: str | None, to: str | None) -> Config:
    """Return the target of a copy; a directory may be new."""
    held = _kind_of(place)
    if to is not None and "://" in place:
        raise Misuse(f"--to {to} is for a target that is a directory, and {place.partition('://')[0]}:// is a server")
    if to is not None and held is not None and held != to:
        raise Misuse(f"{place} contains a cache of kind {held} already: leave out --to {to}, or name a new directory")
    config = endpoint(place, blobs, namespace, key, to or "sqlite")
    has_own = held is None or os.path.exists(os.path.join(place, KEY_FILE))
    if key is None and "://" not in place and has_own:
        # The environment's key is that of a shared cache; a later user of the directory may not have it.
        return config.but(signing_key=None)
    return config


def _secret(key: str) -> str:
    if not key.startswith("@"):
        return key
    try:
        return Path(key[1:]).read_text("ascii").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise CouldNot(f"the signing key cannot be read from {key[1:]}: {reason}") from None


def place_of(text: str) -> str:
    """Return a form that is equal for two names of one place."""
    return text if "://" in text else os.path.realpath(text)
