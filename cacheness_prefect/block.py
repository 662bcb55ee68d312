"""Base of our blocks: the fields that configure a cache, and reading and writing in it."""

from __future__ import annotations

import os
from abc import ABC
from collections.abc import Callable
from copy import deepcopy
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from uuid import UUID

from prefect.filesystems import LocalFileSystem, WritableFileSystem
from prefect.results import get_default_result_storage
from prefect.settings import get_current_settings
from pydantic import Field, PrivateAttr, SecretStr

from cacheness import Config, UnifiedCache
from cacheness.errors import CachenessError, ConfigError, SchemaMismatch, StoreRefused
from cacheness.modes import Mode, writes
from cacheness.off_loop import off_loop
from cacheness.options import READ, checked, path
from cacheness.units import Duration, Size
from cacheness_prefect.error_reporting import report, shielded
from cacheness_prefect.run_metadata import (
    PREFIX,
    Notes,
    Recent,
    UnencodedValue,
    address,
    content_of,
    describe_run,
    form_of,
    is_record,
    lifetime_of,
    recent,
    task_run_id,
)

DAY = 24 * 3600.0


class NotThere(FileNotFoundError, ValueError):
    """No intact result under a path; Prefect's local storage raises the same error."""


_OWN_FIELDS = frozenset({"result_ttl"})
#: Fields that are parsed here; the others are text or secrets, and `Config` parses them.
_READ_HERE = READ.keys() | _OWN_FIELDS

# Accepted types for a number; Prefect's form accepts a number.
if TYPE_CHECKING:
    Bytes: TypeAlias = Size
    Seconds: TypeAlias = Duration
    Share: TypeAlias = float | str
    Directory: TypeAlias = str | os.PathLike[str]
else:
    Bytes, Seconds, Share, Directory = int, float, float, str


def not_there(path: str) -> NotThere:
    """The error for a path without an intact result."""
    return NotThere(f"the cache has no intact result under {path!r}: never stored, expired or evicted")


def _default_storage() -> Any:
    """Prefect's default storage; a local file system if that storage is a cache too."""
    storage: Any = get_default_result_storage(_sync=True)  # type: ignore[call-arg]
    if not isinstance(storage, CachenessBlock):
        return storage
    return LocalFileSystem(basepath=str(get_current_settings().results.local_storage_path))


def _read_field(block: type[CachenessBlock], name: str, value: Any) -> Any:
    """Parse a field like parameters and variables: "10GB", "1h", a timedelta, a Path.

    A relative path is made absolute, because workers run in other directories.
    """
    field = block.model_fields.get(name)
    if field is None:
        return value
    if isinstance(value, str) and not value.strip():
        return field.get_default()  # an empty field of the form may arrive as an empty text
    if name not in _READ_HERE:
        return path(value) if isinstance(value, os.PathLike) else value
    if name in _OWN_FIELDS:
        return checked(name, value, READ["ttl"], optional=True)
    return checked(name, value, optional=field.default is None)


@lru_cache(maxsize=64)
def _config_of(values: tuple[tuple[str, Any], ...], *_environment: str | None) -> Config:
    """Return the configuration of these fields, cached under the fields and the environment that it reads."""
    return Config(**dict(values)).in_mode().with_share()


@lru_cache(maxsize=64)
def _open(config: Config) -> UnifiedCache:
    return UnifiedCache(config)  # until the process ends: a run should not reconnect


@lru_cache(maxsize=64)
def _schema_of(make: Callable[..., dict[str, Any]], _: object, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return make(*args, **kwargs)


class CachenessBlock(WritableFileSystem, ABC):  # abstract, so that Prefect's UI does not offer it
    """
    A cache as a Prefect block.

    The fields are the parameters of `cacheness.UnifiedCache`. The block contains only
    configuration; each process opens its connections once.
    """

    cache_dir: Directory | None = Field(
        default=None,
        title="Cache Directory",
        description="Where the embedded database and files live. Default: a folder in PREFECT_HOME.",
    )
    # Not SecretStr("sqlite"): Prefect's form shows the default as asterisks, and saves the asterisks.
    metadata_backend: SecretStr | None = Field(
        default=None,
        title="Metadata Backend",
        description="URL of a shared database: postgresql://user:password@host/database. Default: sqlite.",
    )
    blob_store: SecretStr | None = Field(
        default=None,
        title="Blob Store",
        description="Where large results live: s3://bucket/prefix. Default: files in the cache directory.",
    )
    namespace: str = Field(default="default", description="Keeps several caches in one database and bucket apart.")
    mode: Mode = Field(
        default="readwrite",
        description="What runs may do: readwrite, refresh, read, offline, off. CACHENESS_MODE can restrict it further.",
    )
    refresh_since: float | None = Field(
        default=None,
        title="Refresh Since",
        description="In mode refresh, what is older is computed again. Seconds since the epoch; None: the run's start.",
    )
    signing_key: SecretStr | None = Field(
        default=None,
        title="Signing Key",
        description="The secret that signs entries; the same for everyone who shares this cache.",
    )
    trust: str | None = Field(
        default=None,
        title="Trusted Keys",
        description="Read only what these keys signed: ed25519-pub:name:key, hmac:id. Default: those of signing_key.",
    )
    allow_unsigned: bool = Field(
        default=False, title="Allow Unsigned", description="Trust everybody who can write to the database."
    )
    safe_codecs: bool = Field(default=False, title="Safe Codecs", description="Never unpickle: arrays and tables only.")
    codecs: str = Field(
        default="",
        title="Codecs",
        description="Codecs of yours, as module:name, with commas between. Every machine must be able to import them.",
    )
    ttl: Seconds | None = Field(
        default=None,
        title="Lifetime",
        description="Lifetime of results in seconds, if their task sets none. None: forever.",
    )
    result_ttl: float | None = Field(
        default=30 * DAY,
        title="Lifetime of Other Results",
        description="Seconds to keep what no cache key leads to: results of flows and of failed runs. None: forever.",
    )
    inline_max_bytes: Bytes = Field(
        default=32 * 1024, title="Inline Size", description="Results up to this many bytes live in the database row."
    )
    compression: Literal["auto", "zstd", "none"] = Field(
        default="auto",
        description="zstd compresses what becomes half as large; auto less where everything is on this machine's disk.",
    )
    max_bytes: Bytes | None = Field(
        default=None, title="Quota", description="Bytes above which old results are evicted."
    )
    max_entries: int | None = Field(
        default=None, title="Quota of Entries", description="Number of results above which old ones are evicted."
    )
    eviction: Literal["lru", "cost"] = Field(
        default="lru", description="What is evicted: the least recently used, or the cheapest to compute again."
    )
    near: Directory | None = Field(
        default=None,
        title="Near Directory",
        description="A local directory for copies of blobs that come from far, or go there. Default: none.",
    )
    near_bytes: Bytes = Field(
        default=50_000_000_000, title="Near Size", description="Bytes that all copies in it may take."
    )
    shared_path: bool = Field(
        default=False,
        title="Shared Path",
        description="Every machine sees the cache directory (a shared database needs it).",
    )
    on_error: Literal["compute", "raise"] = Field(
        default="compute",
        title="On Error",
        description="What functions do that `open().cached` decorates, when the cache fails. A task always computes.",
    )
    incomplete: Literal["warn", "serve", "refuse"] = Field(
        default="warn",
        title="Incomplete Keys",
        description="What to do with results whose key is incomplete, unless a policy sets it.",
    )
    check: Share | None = Field(
        default=None,
        title="Checked Share",
        description="Share of cached runs, 0 to 1, that compute anyway, to be compared, unless a policy sets it."
        " Default: CACHENESS_CHECK, or none.",
    )
    lease: Seconds = Field(
        default=30.0,
        description="Seconds until others take over a computation whose process died, unless a policy sets it.",
    )
    connect_timeout: Seconds = Field(default=2.0, title="Connect Timeout", description="Seconds to reach a server.")
    statement_timeout: Seconds = Field(default=5.0, title="Statement Timeout", description="Seconds for the database.")
    blob_timeout: Seconds = Field(default=10.0, title="Blob Timeout", description="Seconds without progress of a blob.")
    busy_timeout: Seconds = Field(
        default=5.0, title="Busy Timeout", description="Seconds to wait for SQLite's lock before a run continues."
    )
    circuit_failures: int = Field(
        default=3,
        title="Failures Before a Pause",
        description="Failures in a row after which a server is not called for a while.",
    )
    circuit_seconds: Seconds = Field(
        default=30.0,
        title="Longest Pause",
        description="Seconds of that while at most; the first one is 1 s, each next one twice as long.",
    )

    _since: float | None = PrivateAttr(default=None)  #: the start of the run that another process began

    def __init__(self, *args: Any, **fields: Any) -> None:
        # Not in a validator, because pydantic wraps a validator's errors.
        super().__init__(*args, **{name: _read_field(type(self), name, value) for name, value in fields.items()})

    def block_initialization(self) -> None:
        """Read the block's identity from its fields.

        Prefect passes it to other processes among them.
        """
        extra = self.__pydantic_extra__ or {}
        extra.pop("block_type_slug", None)
        document = extra.pop("_block_document_id", None)
        if document is not None:
            self._block_document_id = document if isinstance(document, UUID) else UUID(document)
        self._block_document_name = extra.pop("_block_document_name", self._block_document_name)
        self._is_anonymous = extra.pop("_is_anonymous", self._is_anonymous)
        if extra:
            known = ", ".join(type(self).model_fields)
            raise ConfigError(f"{min(extra)!r} is not a field of {type(self).__name__}. Known: {known}")
        self.check_config()  # a wrong configuration raises here, not in the middle of a run

    # identity and configuration

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """
        Return the JSON schema of the fields.

        Prefect calls this once per field, whenever it saves a block or submits a task to another process.

        Args:
            args: passed to Prefect.
            kwargs: passed to Prefect.
        """
        # `model_rebuild` makes another validator.
        return deepcopy(_schema_of(super().model_json_schema, cls.__pydantic_validator__, *args, **kwargs))

    @property
    def saved_as(self) -> str | None:
        """Return the name of the saved block, or None."""
        return self._block_document_name

    def config(self) -> Config:
        """Return the configuration of the cache. It contains secrets."""
        values = {name: getattr(self, name) for name in CachenessBlock.model_fields if name not in _OWN_FIELDS}
        values = {k: (v.get_secret_value() or None) if isinstance(v, SecretStr) else v for k, v in values.items()}
        values["metadata_backend"] = values["metadata_backend"] or "sqlite"
        values["cache_dir"] = self.cache_dir or str(get_current_settings().home / "cacheness")
        if values["refresh_since"] is None:
            values["refresh_since"] = self._since
        # A run reads it about twenty times.
        return _config_of(tuple(values.items()), *map(os.environ.get, ("CACHENESS_MODE", "CACHENESS_CHECK")))

    @property
    def stores_results(self) -> bool:
        """Return True when runs store their results here.

        Otherwise Prefect's default storage has them.
        """
        return writes(self.config().mode)

    def __getstate__(self) -> dict[Any, Any]:
        """Return the fields for another process.

        They contain the start of a run that refreshes, and no keys that the process does not need.
        """
        config = self.config()
        if config.mode == "refresh" and config.refresh_since is None:
            try:
                self._since = self.open().config.refresh_since
            except CachenessError as error:
                report("find out when this run began", error)
        state = super().__getstate__()
        # Only the field counts: another process may have other environment variables.
        if not writes(self.mode):
            sent = UnifiedCache.fit_to_send(config.but(mode=self.mode))
            key = None if sent.signing_key is None else SecretStr(sent.signing_key)
            state = {**state, "__dict__": {**state["__dict__"], "signing_key": key, "trust": sent.trust}}
        return state

    def check_config(self) -> None:
        """Check the fields without opening anything.

        Blocks are created and saved on any machine.

        Raises:
            ConfigError: they cannot work on any machine.
        """
        UnifiedCache.check_config(self.config())

    def require_usable(self) -> None:
        """Check that this machine can use the cache.

        A server that does not answer is no error, because runs continue without it.

        Raises:
            ConfigError: a library or a directory is missing, or another setting cannot work here.
        """
        try:
            self.open()
        except ConfigError as error:
            if not isinstance(error, StoreRefused | SchemaMismatch):
                raise
        except CachenessError:
            return  # the first use of the cache reports the error

    def save(self, *args: Any, **kwargs: Any) -> Any:
        """Save the block, unless its configuration cannot work.

        Args:
            args: passed to Prefect.
            kwargs: passed to Prefect.
        """
        self.check_config()
        return super().save(*args, **kwargs)

    async def asave(self, *args: Any, **kwargs: Any) -> Any:
        """Do the same as `save` on an event loop.

        Args:
            args: passed to Prefect.
            kwargs: passed to Prefect.
        """
        self.check_config()
        return await super().asave(*args, **kwargs)

    def open(self) -> UnifiedCache:
        """Return the open cache of this configuration.

        All blocks of a process with the same configuration share it.
        """
        return _open(self.config())

    # methods that Prefect calls

    def read_path(self, path: str, _sync: bool | None = None) -> Any:
        """Return the stored content of a key.

        It is bytes, or an `UnencodedValue` if the cache encoded it.

        Args:
            path: Prefect's key of the result.
            _sync: Prefect's, not used.

        Raises:
            FileNotFoundError: nothing is stored there, or it is damaged.
        """
        kept = self._take_recent(path)
        if kept is not None:
            return kept.content
        return self._keep_for_next_step(path, self._read(path))

    async def aread_path(self, path: str) -> Any:
        """Do the same as `read_path` in a thread.

        Args:
            path: Prefect's key of the result.
        """
        kept = self._take_recent(path)
        if kept is not None:
            return kept.content
        return self._keep_for_next_step(path, await off_loop(lambda: self._read(path)))

    def write_path(  # type: ignore[override]  # Prefect calls it with _sync
        self, path: str, content: Any, _sync: bool | None = None
    ) -> None:
        """Store content, replacing the old one.

        A failure of the cache is logged and not raised.

        Args:
            path: Prefect's key of the result.
            content: what the serializer returned.
            _sync: Prefect's, not used.
        """
        recent.set(self._write(path, content))

    async def awrite_path(self, path: str, content: Any) -> None:
        """Do the same as `write_path` in a thread.

        Args:
            path: Prefect's key of the result.
            content: what the serializer returned.
        """
        recent.set(await off_loop(lambda: self._write(path, content)))

    def _resolve_path(self, path: str) -> None:
        """Paths are names in the cache, also when the block is not saved: Prefect must not make them file paths."""

    def _read(self, path: str) -> Any:
        # Prefect treats every error here as "not there" without a message; so it is logged before it is raised.
        hit = shielded("read a result", lambda: self.open().peek(address(path)), None)
        if hit is None or form_of(hit) == "elsewhere":
            if not self.stores_results:
                return _default_storage().read_path(path, _sync=True)
            raise not_there(path)
        return content_of(hit)

    def _write(self, path: str, content: Any) -> Recent:
        if not self.stores_results:
            _default_storage().write_path(path, content=content, _sync=True)
            return Recent(self.config(), path, task_run_id())
        if isinstance(content, UnencodedValue) and content.notes is not None:
            value, notes = content.value, content.notes
        else:
            unknown: tuple[dict[str, Any], tuple[str, ...]] = ({}, (PREFIX,))
            run, tags = shielded("describe a run", describe_run, unknown)
            value = content
            notes = Notes(key=address(path), ttl=lifetime_of(content, self.result_ttl), tags=tags, run=run)
        done = not notes.refused and shielded("store a result", lambda: self._put(value, notes), False)
        return Recent(self.config(), path, task_run_id(), notes.record, failed=not done)

    def _put(self, value: Any, notes: Notes) -> bool:
        cache = self.open()
        entry = cache.put(
            value,
            notes.key,
            ttl=notes.ttl,
            tags=notes.tags,
            compute_seconds=notes.compute_seconds,
            provenance=notes.provenance(),
            by_value=False,  # Prefect does not call this method
        )
        if entry.function:  # the call was counted when the task returned
            cache.count(entry.function, "miss", calls=0, size=entry.size)
        return True

    def _take_recent(self, path: str) -> Recent | None:
        kept = recent.get()
        if kept is None or kept.content is None or not self._is_ours(kept, path):
            return None
        recent.set(None)
        return kept

    def _keep_for_next_step(self, path: str, content: Any) -> Any:
        if task_run_id() and is_record(content):
            recent.set(Recent(self.config(), path, task_run_id(), content=content))
        return content

    def _is_ours(self, kept: Recent, path: str) -> bool:
        return (kept.path, kept.task_run, kept.store) == (path, task_run_id(), self.config())
