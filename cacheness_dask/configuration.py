"""Read the configuration from `dask.config`: keys under `cacheness`, and `DASK_CACHENESS__…` in the environment."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

import dask
import yaml  # type: ignore[import-untyped]

from cacheness import Config, UnifiedCache
from cacheness.errors import ConfigError
from cacheness.options import did_you_mean

_DEFAULTS: Final[dict[str, Any]] = yaml.safe_load((files(__package__) / "cacheness.yaml").read_text("utf-8"))
_KNOWN: Final[dict[str, Any]] = _DEFAULTS["cacheness"]


def load() -> None:
    """Give Dask the defaults of the keys; values configured by the user stay."""
    dask.config.update_defaults(_DEFAULTS)


def configured(**given: Any) -> dict[str, Any]:
    """Return the options of a block; None is replaced from Dask's configuration.

    Raises ConfigError for an unknown key of the configuration.
    """
    _check_keys()
    return {name: _found(name.replace("_", "-")) if value is None else value for name, value in given.items()}


def configured_cache() -> UnifiedCache | str:
    """Return the default cache."""
    place: str | None = _found("cache")
    return UnifiedCache(Config.from_env()) if place is None else place


def _check_keys() -> None:
    found = dask.config.get("cacheness", None) or {}
    if not isinstance(found, Mapping):
        raise ConfigError(f"dask.config has cacheness: {found!r:.80}, which names no key. Known: {_listed()}")
    for key in map(str, found):
        if key.replace("_", "-") not in _KNOWN:
            meant = did_you_mean(key.replace("_", "-"), _KNOWN)
            raise ConfigError(f"dask.config has cacheness.{key}, which is unknown.{meant} Known: {_listed()}")


def _listed() -> str:
    return ", ".join(f"cacheness.{key}" for key in _KNOWN)


def _found(key: str) -> Any:
    found = dask.config.get(f"cacheness.{key}", None)
    # `dask.config.set(cacheness={…})` removes the keys that it does not contain.
    return _KNOWN[key] if found is None else found
