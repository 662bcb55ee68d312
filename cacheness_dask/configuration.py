"""What `dask.config` says of caches: keys under `cacheness`, and `DASK_CACHENESS__…` in the environment."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final

import dask
import yaml  # type: ignore[import-untyped]

from cacheness import Config, UnifiedCache

_DEFAULTS: Final[dict[str, Any]] = yaml.safe_load((files(__package__) / "cacheness.yaml").read_text("utf-8"))


def load() -> None:
    """Give Dask the defaults of the keys; what a user has configured stays."""
    dask.config.update_defaults(_DEFAULTS)


def configured(**given: Any) -> dict[str, Any]:
    """The options of a block; for None, what Dask's configuration says."""
    return {name: _found(name.replace("_", "-")) if value is None else value for name, value in given.items()}


def configured_cache() -> UnifiedCache | str:
    """The cache that is used where none is named."""
    place: str | None = _found("cache")
    return UnifiedCache(Config.from_env()) if place is None else place


def _found(key: str) -> Any:
    found = dask.config.get(f"cacheness.{key}", None)
    # `dask.config.set(cacheness={…})` takes away the keys that it does not name.
    return _DEFAULTS["cacheness"][key] if found is None else found
