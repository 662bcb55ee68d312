"""Open the stores, codecs and keys of a configuration, once per process."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import field, replace
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import unquote, urlsplit

from cacheness import forks, threads
from cacheness.circuit import Guard
from cacheness.codecs import CODECS, TRUSTING_CODECS, compression
from cacheness.codecs.compression import Share
from cacheness.codecs.outside import OutsideCodec
from cacheness.config import Config, redacted, user_code_names
from cacheness.coordination.leases import ComputeLeases
from cacheness.coordination.ownership import Marker
from cacheness.deadlines import waiting
from cacheness.errors import CachenessError, ConfigError, StoreBusy, StoreUnavailable
from cacheness.file_systems import tag_cache
from cacheness.isolation import isolated
from cacheness.keys import add_user_code
from cacheness.lazy_dataclass import dataclass
from cacheness.logs import logger_of
from cacheness.maintenance.eviction import Evictor
from cacheness.modes import writes
from cacheness.protocols import BlobStore, Codec, MetadataStore
from cacheness.records import MICROSECONDS
from cacheness.results.signing import Keyring, load_or_create_key_file, own_key
from cacheness.results.signing_keys import without_private_keys
from cacheness.results.store import Cache

if TYPE_CHECKING:
    from cacheness.maintenance.repair import Inspector
    from cacheness.memoize.acceptances import Acceptances
    from cacheness.memoize.miss_reasons import MissReasons

_log = logger_of(__name__)

SQLITE_FILE = "metadata.sqlite"
JOURNAL_FILE = "metadata.jsonl"
BLOB_DIRECTORY = "blobs"
KEY_FILE = "signing.key"

add_user_code(*user_code_names())


@dataclass(frozen=True)
class OpenCache:
    """All objects for one configuration in this process."""

    cache: Cache
    compute_leases: ComputeLeases
    evictor: Evictor

    @forks.LazyAttribute
    def reasons(self) -> MissReasons:
        """What is known about misses."""
        with forks.no_fork():
            from cacheness.memoize.miss_reasons import MissReasons

            return MissReasons()  # its lock is a new one in a child, which must know it

    @forks.LazyAttribute
    def inspector(self) -> Inspector:
        """Compares entries and blobs."""
        with forks.no_fork():
            from cacheness.maintenance.repair import Inspector

        return Inspector(self.cache)

    @forks.LazyAttribute
    def acceptances(self) -> Acceptances:
        """Which results of earlier code count."""
        with forks.no_fork():
            from cacheness.memoize.acceptances import Acceptances

        return Acceptances(self.cache)

    def close(self) -> None:
        """Release compute leases, end the session, close the stores."""
        self.compute_leases.close()
        self.cache.close()


@dataclass(slots=True)
class Slot:
    """The place of one configuration: its open cache, and its number of handles."""

    config: Config
    guard: Guard
    lock: threading.RLock = field(default_factory=threading.RLock)
    opened: OpenCache | None = None
    handles: int = 0
    pid: int = field(default_factory=os.getpid)


class _Registry:
    """The slots of this process."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # reentrant, because a finalizer of the user may open or close a cache inside it
        self.pid = os.getpid()  # stored, because a system call costs a fifth of a hit
        self.slots: dict[Config, Slot] = {}
        #: Handles that were collected. Its `put` takes no lock that a thread could hold already.
        self.dropped: SimpleQueue[Slot] = SimpleQueue()
        self.closer: threading.Thread | None = None
        self.inherited: list[object] = []
        self.flushes_at_end = False

    def reset_after_fork(self) -> None:
        """In a forked child, start with no caches and new locks.

        Open objects stay alive on purpose: collecting a parent's connection in the child would end it for both.
        """
        self.inherited.append(self.slots)
        self.slots = {}
        self.lock = threading.RLock()
        self.dropped, self.closer = SimpleQueue(), None
        self.pid = os.getpid()
        self.flushes_at_end = False

    def close(self) -> None:
        """At exit: end sessions, so that no other process has to prove that this one is dead."""
        for slot in list(self.slots.values()):
            try:
                if slot.opened is not None:
                    slot.opened.close()
            except CachenessError as error:  # an error must not keep the others open
                _log.debug("a cache could not be closed at exit: %s", error)
        self.slots.clear()

    def flush_at_end(self) -> None:
        """Have counts written when a child of `multiprocessing` ends, because `atexit` is not run there."""
        if not self.flushes_at_end:
            self.flushes_at_end = True
            forks.at_end_of_child(self._flush, self)

    def _flush(self) -> None:
        # Not `close`: threads of the user may still run.
        for slot in list(self.slots.values()):
            if slot.opened is not None:
                slot.opened.cache.uses.flush()


_registry = _Registry()
os.register_at_fork(after_in_child=_registry.reset_after_fork)
atexit.register(_registry.close)


def hold(config: Config) -> Slot:
    """Count one more user of a configuration in this process."""
    with _registry.lock:
        slot = _take(config)
        if _registry.closer is None:
            dropped = _registry.dropped
            _registry.closer = threads.started(lambda: _close_dropped(dropped), "cacheness-closer")
        return slot


def drop(slot: Slot) -> None:
    """Have a thread release a slot whose handle was collected.

    A finalizer may run at any point, and so takes no lock and closes nothing itself.
    """
    _registry.dropped.put(slot)


def _close_dropped(dropped: SimpleQueue[Slot]) -> None:
    while True:  # stores of the user are closed here too, and other slots wait behind them
        with isolated(lambda error: _log.debug("a cache that was left open could not be closed: %s", error)):
            release(dropped.get())


def is_inherited(slot: Slot) -> bool:
    """Return True when a slot belongs to the parent of a forked child, which must not use it."""
    return slot.pid != _registry.pid


def opened(slot: Slot) -> OpenCache | None:
    """Return the open cache of a held configuration, as `open_cache` does; None if it is the parent's."""
    if slot.pid != _registry.pid:
        return None
    return slot.opened or open_cache(slot)


def release(slot: Slot) -> None:
    """Remove one user; the last one closes the cache. Does nothing in a forked child."""
    if is_inherited(slot):
        return
    with _registry.lock:
        slot.handles -= 1
        if slot.handles > 0:
            return
        if _registry.slots.get(slot.config) is slot:
            del _registry.slots[slot.config]
    if slot.opened is not None:
        slot.opened.close()


def open_cache(slot: Slot) -> OpenCache:
    """Return the open cache of a held configuration; open it if necessary.

    Raises ConfigError when the configuration cannot work, StoreUnavailable when a server does not
    answer; the latter is kept for `circuit_seconds`, so that a dead server costs a run its deadline
    once.
    """
    if slot.opened is None:
        _wait_for_opener(slot)
        try:
            if slot.opened is None:
                slot.opened = slot.guard.once(lambda: _open(slot.config))
                _registry.flush_at_end()
        finally:
            slot.lock.release()
    return slot.opened


def _wait_for_opener(slot: Slot) -> None:
    with waiting(slot.config.busy_timeout) as deadline:
        if not slot.lock.acquire(timeout=max(deadline - time.monotonic(), 0.0)):
            raise StoreBusy("another thread has been opening this cache for longer than this call may wait")


def embedded_kind(directory: str | Path) -> str | None:
    """Return the metadata in an embedded cache's directory: "sqlite", "json", or None for neither."""
    for kind, name in (("sqlite", SQLITE_FILE), ("json", JOURNAL_FILE)):
        if os.path.exists(os.path.join(directory, name)):  # False as well without permission to read it
            return kind
    return None


def _take(config: Config) -> Slot:
    while True:
        slot = _registry.slots.get(config)
        if slot is None:
            guard = Guard(f"opening {_name(config.metadata_backend)}", replace(config.limits(), failures=1))
            slot = _registry.slots.setdefault(config, Slot(config, guard))
        slot.handles += 1
        if _registry.slots.get(config) is slot:  # otherwise a finalizer has just closed its last handle
            return slot


# opening


def _open(config: Config) -> OpenCache:
    check(config)
    keyring = _keyring(config)
    with ExitStack() as on_failure:
        metadata = open_metadata(config)
        on_failure.callback(metadata.close)
        blobs = open_blobs(config)
        on_failure.callback(blobs.close)
        opened = _assemble(config, metadata, blobs, keyring)
        if writes(config.mode):
            opened.cache.marker.settle()
        on_failure.pop_all()
    return opened


def fit_to_send(config: Config) -> Config:
    """Return the configuration without private keys if the mode does not write, because it may go to other machines."""
    if writes(config.mode) or config.mode == "off" or config.signing_key is None:
        return config
    if config.trust is None and not _is_server(config):
        return config  # the key in the directory counts too, which `trust` would exclude
    signing_key, trust = without_private_keys(config.signing_key, config.trust)
    return config.but(signing_key=signing_key, trust=trust)


#: When the run of this process began, by configuration: everything in a process refreshes once.
_starts: dict[Config, float] = {}


def begun(config: Config) -> Config:
    """Return the configuration with its run's start if it refreshes: by the database's clock, once per process."""
    if config.mode != "refresh" or config.refresh_since is not None:
        return config
    start = _starts.get(config) or _starts.setdefault(config, _now_at(config))
    return config.but(refresh_since=start)


def _now_at(config: Config) -> float:
    try:
        if not isinstance(config.metadata_backend, str):
            config.metadata_backend.measure_clock()
            return float(config.metadata_backend.now() / MICROSECONDS)
        opened = _open(config)
    except StoreUnavailable:
        return time.time()  # a server that is down now may be up when it is needed
    try:
        return opened.cache.metadata.now() / MICROSECONDS
    finally:
        opened.close()


def _since(config: Config) -> int | None:
    since = config.refresh_since if config.mode == "refresh" else None
    return None if since is None else round(since * MICROSECONDS)


def _assemble(config: Config, metadata: MetadataStore, blobs: BlobStore, keyring: Keyring) -> OpenCache:
    cache = Cache(
        metadata,
        blobs,
        marker_of(config, metadata, blobs),
        codecs=codecs_of(config),
        keyring=keyring,
        namespace=config.namespace,
        inline_max_bytes=config.inline_max_bytes,
        safe_codecs=config.safe_codecs,
        compressed_share=_compressed_share(config),
        writes=writes(config.mode),
        since=_since(config),
    )
    return OpenCache(
        cache,
        ComputeLeases(metadata, config.namespace, config.lease),
        Evictor(cache, max_bytes=config.max_bytes, max_entries=config.max_entries, policy=config.eviction),
    )


def _compressed_share(config: Config) -> Share:
    """Return when values are compressed, depending on where the bytes go."""
    if config.compression == "none":
        return compression.never
    is_here = config.blob_store is None or str(config.blob_store).startswith(("file:", "memory:"))
    if config.compression == "auto" and is_here and config.metadata_backend in _EMBEDDED and not config.shared_path:
        return compression.staying(config.inline_max_bytes)
    return compression.travelling


def codecs_of(config: Config) -> tuple[Codec, ...]:
    """Return the codecs in order of preference: the configured ones, then the built-in ones."""
    if taken := {codec.name for codec in CODECS} & {codec.name for codec in config.codecs}:
        raise ConfigError(f"codecs cannot be used: {min(taken)!r} is the name of a built-in codec. Choose another name")
    return (*map(OutsideCodec, config.codecs), *(CODECS if config.safe_codecs else TRUSTING_CODECS))


def marker_of(config: Config, metadata: MetadataStore, blobs: BlobStore) -> Marker:
    """Return the relation between the two stores of a configuration."""
    return Marker(metadata, blobs, travel_together=_travel_together(config))


def _travel_together(config: Config) -> bool:
    """Return True when a copy of the metadata includes the blobs: both in one directory, without a link."""
    if config.blob_store is not None or config.metadata_backend not in _EMBEDDED:
        return False
    directory = Path(config.cache_dir).resolve()
    return (directory / BLOB_DIRECTORY).resolve().parent == directory


def open_metadata(config: Config) -> MetadataStore:
    """Return the metadata store that `metadata_backend` names, or is."""
    # Imports are inside `no_fork`: a child forked during a thread's import could never import that module.
    backend = config.metadata_backend
    if not isinstance(backend, str):
        return cast("MetadataStore", backend)
    if backend in _EMBEDDED:
        return _EMBEDDED[backend](config)
    with forks.no_fork():
        from cacheness.metadata.postgresql import PostgresqlStore

    return PostgresqlStore(backend, limits=config.limits())


def _sqlite(config: Config) -> MetadataStore:
    with forks.no_fork():
        from cacheness.metadata.sqlite import SqliteStore

    return SqliteStore(_directory(config, other=JOURNAL_FILE) / SQLITE_FILE, limits=config.limits())


def _journal(config: Config) -> MetadataStore:
    with forks.no_fork():
        from cacheness.metadata.journal.store import JournalStore

    return JournalStore(_directory(config, other=SQLITE_FILE) / JOURNAL_FILE, limits=config.limits())


_HERE: Final = ("file", "memory")  #: schemes of blob stores that need no library
_EMBEDDED: dict[str, Callable[[Config], MetadataStore]] = {"sqlite": _sqlite, "json": _journal}


def _directory(config: Config, *, other: str) -> Path:
    directory = Path(config.cache_dir)
    if (directory / other).exists():
        asked = config.metadata_backend
        held = "json" if other == JOURNAL_FILE else "sqlite"
        raise ConfigError(
            f"{directory} holds a cache with metadata_backend='{held}', not '{asked}'. Open it as '{held}', choose"
            f" another cache_dir, or convert it with: cacheness copy {directory} NEW_DIRECTORY --to {asked}"
        )
    return directory


def open_blobs(config: Config) -> BlobStore:
    """Return the blob store that `blob_store` names, or is."""
    url = config.blob_store
    if url is not None and not isinstance(url, str):
        return cast("BlobStore", url)
    with forks.no_fork():
        from cacheness.blobs.local import LocalBlobStore

    if url is None:
        return LocalBlobStore(Path(config.cache_dir) / BLOB_DIRECTORY, limits=config.limits())
    parts = urlsplit(url)
    if parts.scheme == "file":
        return LocalBlobStore(Path(unquote(parts.path)), limits=config.limits())
    if parts.scheme == "memory":
        from cacheness.blobs.memory import MemoryBlobStore

        return MemoryBlobStore()
    _check_scheme(url)
    far = _remote_blobs(url, config)
    if config.near is None:
        return far
    from cacheness.blobs.near import NearBlobStore

    return NearBlobStore(far, config.near, config.near_bytes)


def _remote_blobs(url: str, config: Config) -> BlobStore:
    parts = urlsplit(url)
    if parts.scheme == "s3" and "engine=s3fs" not in parts.query.split("&"):
        with forks.no_fork():
            from cacheness.blobs.object_store import ObjectStore, usable_here

        if usable_here():
            return ObjectStore.from_url(url, limits=config.limits())
        _log.warning("this process was forked after its parent used obstore, which hangs there; using s3fs instead")
    with forks.no_fork():
        from cacheness.blobs.filesystem import FilesystemStore

    return FilesystemStore.from_url(url, limits=config.limits())


def _is_server(config: Config) -> bool:
    backend = config.metadata_backend
    return backend.needs_key if not isinstance(backend, str) else backend not in _EMBEDDED


def check_sharing(config: Config) -> None:
    """Raise ConfigError when machines would share the metadata and not the blobs."""
    blobs = config.blob_store
    is_local = blobs is None or (isinstance(blobs, str) and urlsplit(blobs).scheme == "file")
    if _is_server(config) and is_local and not config.shared_path:
        place = config.cache_dir if blobs is None else blobs
        raise ConfigError(
            f"the metadata is shared ({_name(config.metadata_backend)}) but the blobs are in a local path ({place}),"
            " which other machines cannot read. Give blob_store='s3://bucket/prefix', or shared_path=True if every"
            " machine sees the same files there"
        )


def check(config: Config) -> None:
    """Raise ConfigError for what can work on no machine. Reads no disk and calls no server."""
    check_sharing(config)
    codecs_of(config)
    if isinstance(config.blob_store, str) and urlsplit(config.blob_store).scheme not in _HERE:
        _check_scheme(config.blob_store)
    if config.signing_key is not None or config.trust is not None or _is_server(config):
        _shared_keyring(config)


def _check_scheme(url: str) -> None:
    with forks.no_fork():
        from fsspec import available_protocols  # type: ignore[import-untyped]

    scheme = urlsplit(url).scheme
    if not scheme:
        raise ConfigError(
            f"blob_store {redacted(url)!r} is not a URL: use file:///path, s3://bucket/prefix, or any fsspec URL"
        )
    if scheme not in available_protocols():
        raise ConfigError(
            f"blob_store {redacted(url)!r} has no scheme that fsspec supports: is {scheme!r} spelt right?"
        )


def _keyring(config: Config) -> Keyring:
    if config.trust is not None or _is_server(config):
        return _shared_keyring(config)
    directory = Path(config.cache_dir)
    if config.signing_key is not None:
        if writes(config.mode):
            _make(directory)
        return Keyring.parse(config.signing_key, also=own_key(directory / KEY_FILE))
    _make(directory)
    holds_data = any((directory / name).exists() for name in (SQLITE_FILE, JOURNAL_FILE))
    return Keyring.parse(load_or_create_key_file(directory / KEY_FILE, may_create=not holds_data))


def _shared_keyring(config: Config) -> Keyring:
    if config.signing_key is not None:
        return Keyring.parse(config.signing_key, trust=config.trust)
    if config.trust is not None:
        if writes(config.mode):
            raise ConfigError(
                "a cache with trust= and without signing_key= can only read, because it has no key to sign with: give"
                " mode='read' (CACHENESS_MODE=read), or a separate signing key (cacheness keys new)"
            )
        return Keyring.parse(None, trust=config.trust)
    if config.allow_unsigned:
        return Keyring.unsigned()
    raise ConfigError(
        "a shared cache needs a signing key, so that nobody who can write to the database or the bucket can make you"
        " unpickle their bytes. Give signing_key= (with from_env(): CACHENESS_SIGNING_KEY) the same secret on every"
        ' machine (make one with: python -c "import secrets; print(secrets.token_hex(32))"), or accept the risk with'
        " allow_unsigned=True"
    )


def _make(directory: Path) -> None:
    if directory.is_dir():
        return  # a directory with other files is not marked: only a directory of ours can be made again
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # a ValueError for a NUL
        raise ConfigError(
            f"cache_dir {str(directory)!r} cannot be made: {getattr(error, 'strerror', error)}."
            " Choose a directory that you may write to"
        ) from error
    with suppress(OSError):  # the mark is optional
        tag_cache(directory, "Results of computations, by cacheness. Its documentation describes how to back it up.")


def _name(backend: object) -> str:
    return redacted(backend) if isinstance(backend, str) else type(backend).__name__
