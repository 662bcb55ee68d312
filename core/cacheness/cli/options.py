"""Options that commands share, above all those that name a cache."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints

import typer

from cacheness.lazy_dataclass import dataclass

if TYPE_CHECKING:
    # Imported here, because `--help` needs none of it.
    from cacheness.cache import UnifiedCache
    from cacheness.config import Config

CacheDir = Annotated[str | None, typer.Option("--cache-dir", "-d", help="Directory of an embedded cache.")]
Backend = Annotated[str | None, typer.Option("--metadata-backend", "-m", help="sqlite, json, or a database URL.")]
Blobs = Annotated[str | None, typer.Option("--blob-store", "-b", help="URL of the blob store.")]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Namespace within the store.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
KeyArgument = Annotated[str, typer.Argument(help="A key as `list` shows it: its first digits are enough.")]
#: The ways to name a function, in all commands.
FUNCTION_HELP: Final = "function (module:name, module.name or name)"
TARGETS_HELP: Final = "Functions (pipeline:clean, pipeline.clean or clean), modules or packages."
KEY_HELP: Final = "@FILE reads it from a file; an embedded cache has its own."


@dataclass(frozen=True, slots=True)
class Place:
    """The cache for a command, as it was named."""

    cache_dir: str | None = None
    metadata_backend: str | None = None
    blob_store: str | None = None
    namespace: str | None = None

    def config(self, *, reads_entries: bool = True) -> Config:
        """Return the configuration of an existing cache: a mistyped directory is an error, not an empty cache.

        Args:
            reads_entries: whether the command reads entries, and so needs the signing key.
        """
        from cacheness.cli.opening import config_of, existing
        from cacheness.errors import ModeRefused

        hint = "" if self.cache_dir else ". Name its folder with -d"
        named = config_of(self.cache_dir, self.metadata_backend, self.blob_store, self.namespace)
        config = existing(named, hint, reads_entries=reads_entries)
        if config.mode == "off":
            raise ModeRefused("mode='off' uses no store, and a command needs one: look at CACHENESS_MODE")
        return config

    @contextmanager
    def opened(self) -> Iterator[UnifiedCache]:
        """Open the cache for the duration of a block."""
        from cacheness.cache import UnifiedCache

        with UnifiedCache(self.config()) as cache:
            yield cache


_NAMED_BY: Final[dict[str, Any]] = {
    "cache_dir": CacheDir,
    "metadata_backend": Backend,
    "blob_store": Blobs,
    "namespace": Namespace,
}


def about_a_cache(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that name a cache to a command; its parameter `place` gets them."""
    return _with_options(command, _NAMED_BY)


def about_a_store(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that name a store, without one for a namespace, to a command."""
    return _with_options(command, {name: hint for name, hint in _NAMED_BY.items() if name != "namespace"})


def _with_options(command: Callable[..., None], options: Mapping[str, Any]) -> Callable[..., None]:
    def run(**given: Any) -> None:
        named = {name: given.pop(name) for name in options}
        command(place=Place(**named), **given)

    hints = get_type_hints(command, include_extras=True)
    parameters = inspect.signature(command).parameters.values()
    own = [p.replace(annotation=hints[p.name]) for p in parameters if p.name != "place"]
    kind = inspect.Parameter.KEYWORD_ONLY
    ours = [inspect.Parameter(name, kind, default=None, annotation=hint) for name, hint in options.items()]
    # The attributes of a function that typer reads.
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {**hints, **options}
    run.__signature__ = inspect.Signature([*own, *ours])  # type: ignore[attr-defined]
    return run
