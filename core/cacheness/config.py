"""Configuration of a cache: parameters, their defaults, and the environment variables for them."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import field, fields, replace
from pathlib import Path
from typing import Any, Final, Literal, TypedDict
from urllib.parse import urlsplit, urlunsplit

from cacheness import options
from cacheness.deadlines import Limits
from cacheness.errors import ConfigError
from cacheness.incomplete import Incomplete
from cacheness.lazy_dataclass import dataclass
from cacheness.modes import Mode, narrower
from cacheness.protocols import BlobStore, Codec, MetadataStore
from cacheness.records import NAMESPACE
from cacheness.units import Duration, Size, Time

ENVIRONMENT_PREFIX = "CACHENESS_"
EMBEDDED: Final = ("sqlite", "json")  #: metadata backends that are files in the cache's directory
SERVERS: Final = ("postgresql", "postgres")  #: schemes of databases; the first one is stored
AUTO: Final = "auto"  #: the default place of a user's cache
#: Also read from the environment, but not parameters of a cache.
OTHER_VARIABLES = frozenset({"USER_CODE"})
#: Parameters that are secrets or may contain them.
SECRETS: Final = ("metadata_backend", "blob_store", "signing_key")
#: Parameters of which CACHENESS_<PARAMETER>_FILE names a file with the value.
FROM_FILES: Final = (*SECRETS, "trust")
LARGEST_SECRET: Final = 64 * 1024  #: bytes


class CacheParameters(TypedDict, total=False):
    """The parameters of `UnifiedCache`, for editors and type checkers; `Config` has defaults and meanings."""

    cache_dir: str | os.PathLike[str]
    metadata_backend: Any
    blob_store: Any
    namespace: str
    mode: Mode
    refresh_since: Time | None
    signing_key: str | None
    trust: str | None
    allow_unsigned: bool
    safe_codecs: bool
    codecs: Iterable[Codec | str] | str
    inline_max_bytes: Size
    compression: Literal["auto", "zstd", "none"]
    ttl: Duration | None
    max_bytes: Size | None
    max_entries: int | None
    eviction: Literal["lru", "cost"]
    on_error: Literal["compute", "raise"]
    incomplete: Incomplete
    check: float | None
    lease: Duration
    near: str | os.PathLike[str] | None
    near_bytes: Size
    shared_path: bool
    connect_timeout: Duration
    statement_timeout: Duration
    blob_timeout: Duration
    busy_timeout: Duration
    circuit_failures: int
    circuit_seconds: Duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The parameters of `UnifiedCache`.

    Sizes are bytes or text ("10GB"), times are seconds, text ("1h") or a timedelta; both are stored
    as numbers. Environment variables have the same formats. Caches with equal configurations share
    their connections within a process, so a Config is hashable. Its repr shows no secrets.
    """

    cache_dir: str = ".cacheness"  #: of an embedded cache; stored as an absolute path
    metadata_backend: Any = "sqlite"  #: "sqlite", "json", a database URL, or a MetadataStore
    blob_store: Any = None  #: None (files in cache_dir), a URL, or a BlobStore
    namespace: str = "default"  #: separates caches that share stores but no entries: letters, digits, "-", "_"
    mode: Mode = "readwrite"  #: or "read", "refresh", "offline", "off"; CACHENESS_MODE can only restrict it further
    refresh_since: float | None = None  #: with mode="refresh": older entries are computed again; None: this run's start
    signing_key: str | None = field(default=None, repr=False)  #: "secret", "id:secret,id:secret" or "ed25519:name:key"
    trust: str | None = None  #: the only keys whose entries are accepted: "ed25519-pub:name:key,hmac:id"
    allow_unsigned: bool = False  #: let a shared cache work without a key: users who can write to it can run code here
    safe_codecs: bool = False  #: neither write nor read pickles
    codecs: tuple[Codec, ...] = ()  #: additional codecs, tried before the built-in ones; or "module:name, module:name"
    inline_max_bytes: int = 32 * 1024  #: values up to this size are stored in the row
    compression: Literal["auto", "zstd", "none"] = "auto"  #: "zstd": if it halves the size; "auto": less on a disk
    ttl: float | None = None  #: lifetime of entries without a ttl; None keeps them
    max_bytes: int | None = None  #: quota of stored bytes; beyond it the least valuable entries are evicted
    max_entries: int | None = None  #: quota of entries
    eviction: Literal["lru", "cost"] = "lru"  #: least recently used, or least seconds to recompute x hits per byte
    on_error: Literal["compute", "raise"] = "compute"  #: what a decorated function does when the cache fails
    incomplete: Incomplete = "warn"  #: for decorated functions whose key is incomplete: or "serve", "refuse"
    check: float | None = None  #: share of hits that are computed again and compared; None: CACHENESS_CHECK, or none
    lease: float = 30.0  #: how long others wait for a computation whose process died
    near: str | None = None  #: a directory for copies of remote blobs, on each machine; "auto": in the user's cache
    near_bytes: int = 50_000_000_000  #: quota of all copies in it
    shared_path: bool = False  #: every machine sees the same files under a local blob store's path
    connect_timeout: float = 2.0  #: for a connection to a server
    statement_timeout: float = 5.0  #: for one statement
    blob_timeout: float = 10.0  #: for a transfer without progress; it may also not fall below 1 MiB/s
    busy_timeout: float = 30.0  #: for SQLite's write lock; 5 inside decorated functions
    circuit_failures: int = 3  #: failures in a row after which a server is not called for a while
    circuit_seconds: float = 30.0  #: the longest such pause; the first one is 1 s, each next one twice as long

    def __post_init__(self) -> None:
        for parameter in fields(self):
            name, value = parameter.name, getattr(self, parameter.name)
            found = options.checked(name, value, _READ[name], optional=parameter.default is None)
            object.__setattr__(self, name, found)
        _check(self)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Config:
        """Read the parameters from CACHENESS_<PARAMETER>, with the parameter in capitals.

        The keys and the URLs of the stores may be in files: CACHENESS_SIGNING_KEY_FILE names one, for example.

        Args:
            environ: the variables; None for those of the process.

        Raises:
            ConfigError: a variable is unknown, or its value is invalid.
        """
        return cls(**_read_environment(cls, os.environ if environ is None else environ))  # type: ignore[arg-type] # text

    def __repr__(self) -> str:
        # Error reports and logs contain it: a URL shows neither its password nor the values of its options.
        shown = ((f.name, getattr(self, f.name)) for f in fields(self) if f.repr)
        return f"Config({', '.join(f'{name}={_shown(name, value)!r}' for name, value in shown)})"

    def in_mode(self, *modes: Mode) -> Config:
        """Return the configuration in its most restrictive mode.

        These modes, its own mode and CACHENESS_MODE are compared.

        Args:
            modes: more modes.
        """
        variable = os.environ.get(ENVIRONMENT_PREFIX + "MODE", "").strip() or "readwrite"
        narrowest = self.mode
        for mode in (*modes, variable):
            narrowest = narrower(narrowest, options.checked("mode", mode))
        return self if narrowest == self.mode else self.but(mode=narrowest)

    def with_share(self) -> Config:
        """Return the configuration with `check` from CACHENESS_CHECK, unless it is set."""
        if self.check is not None:
            return self
        return self.but(check=os.environ.get(ENVIRONMENT_PREFIX + "CHECK", "").strip() or 0.0)

    def limits(self) -> Limits:
        """Return the deadlines of calls to the stores."""
        return Limits(
            connect=self.connect_timeout,
            statement=self.statement_timeout,
            stall=self.blob_timeout,
            busy=self.busy_timeout,
            failures=self.circuit_failures,
            cooldown=self.circuit_seconds,
        )

    def but(self, **changes: Any) -> Config:
        """Return a copy with some parameters changed.

        Args:
            changes: the parameters to change, by name.
        """
        return replace(self, **changes)


def user_code_names(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the distributions and modules that CACHENESS_USER_CODE adds to the user's code."""
    text = (os.environ if environ is None else environ).get(ENVIRONMENT_PREFIX + "USER_CODE", "")
    return tuple(name for name in text.replace(",", " ").split() if name)


def redacted(url: str) -> str:
    """Return a URL for logs and errors: without password, and without the values of its options."""
    try:
        parts = urlsplit(url)
    except ValueError:  # not a valid URL, and perhaps a secret
        return "…"
    query = "&".join(option.partition("=")[0] + "=…" for option in parts.query.split("&") if option)
    if not parts.netloc:  # urlunsplit would change the number of slashes
        return url.partition("#")[0].partition("?")[0] + (query and f"?{query}")
    host = parts.netloc.rpartition("@")[2]
    netloc = f"{parts.username or ''}:***@{host}" if parts.password else parts.netloc
    return urlunsplit((parts.scheme, netloc, parts.path, query, ""))


def _shown(name: str, value: Any) -> Any:
    if name == "trust" and isinstance(value, str):  # it should contain no secret, but may contain a misplaced key
        items = (item.strip().split(":") for item in value.split(","))
        return ", ".join(":".join(item[:-1] or ["…"]) for item in items)
    return redacted(value) if name in SECRETS and isinstance(value, str) else value


def _check(config: Config) -> None:
    if not re.fullmatch(NAMESPACE, config.namespace):
        raise ConfigError(
            f"namespace {config.namespace!r} cannot be used: 1 to 63 letters, digits, hyphens and"
            " underscores, beginning with a letter or digit"
        )
    _check_near(config)


def _check_near(config: Config) -> None:
    backend = config.metadata_backend
    if config.near is None or not isinstance(backend, str) or backend not in EMBEDDED:
        return
    near = near_directory(config.near)
    if os.path.commonpath([near, config.cache_dir]) == near:
        raise ConfigError(
            f"near={config.near!r} holds cache_dir {config.cache_dir!r}, but what is in a near directory are copies,"
            " which may be deleted and are left out of backups: use a separate directory"
        )


def near_directory(near: str) -> str:
    """Return the directory for `near=` on this machine: "auto" is cacheness/ in the user's cache (XDG)."""
    if near == AUTO:
        base = os.environ.get("XDG_CACHE_HOME", "")
        # A relative path there must be ignored (XDG Base Directory Specification).
        near = os.path.join(base if os.path.isabs(base) else "~/.cache", "cacheness")
    return os.path.abspath(os.path.expanduser(near))


def _path_on_each_machine(value: Any) -> str:
    if value == AUTO:
        return AUTO
    # Workers have different home directories.
    is_home = isinstance(value, str | os.PathLike) and str(os.fspath(value)).startswith("~")
    return str(os.fspath(value)) if is_home else options.path(value)


def _backend(value: Any) -> Any:
    if not isinstance(value, str):
        return _store(value, MetadataStore, "a metadata store: give 'sqlite', 'json', a database URL")
    backend = value.strip()
    if backend.lower() in EMBEDDED:
        return backend.lower()
    scheme = urlsplit(backend).scheme.partition("+")[0]
    if scheme in SERVERS:
        # SQLAlchemy's URLs may name a driver; ours is psycopg, whatever is named.
        return SERVERS[0] + backend[backend.index(":") :]
    shown = redacted(backend)
    if scheme == "sqlite":
        # Three slashes and a relative path, or four and an absolute one.
        directory = os.path.dirname(urlsplit(backend).path.removeprefix("/")) or "."
        raise ValueError(
            f"{shown!r} is the URL of a file, and a cache on SQLite is a directory with several files: leave it out,"
            f" and give the directory, as cache_dir={directory!r}"
        )
    raise ValueError(f"{shown!r} is not known: use 'sqlite', 'json', or 'postgresql://user@host/database'")


def _blobs(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, os.PathLike) or (isinstance(value, str) and value.startswith(("/", "~"))):
        return Path(options.path(value)).as_uri()
    if not isinstance(value, str):
        return _store(value, BlobStore, "a blob store: give a URL, a directory")
    if "://" not in value:
        raise ValueError(f"{redacted(value)!r} is not a URL: use file:///path, s3://bucket/prefix, or any fsspec URL")
    return value.strip()


def _store(value: Any, protocol: type, wanted: str) -> Any:
    """An object of the user that has the methods that the cache calls."""
    calls = [name for name in dir(protocol) if not name.startswith("_")]
    if isinstance(value, type) or any(not hasattr(value, name) for name in calls):
        raise TypeError(f"{value!r:.60} is not {wanted}, or an object with the methods of {protocol.__name__}")
    return value


def _codecs(value: Any) -> tuple[Codec, ...]:
    given = [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value
    if not isinstance(given, Iterable):
        raise TypeError(f"{value!r:.40} is not a list of codecs")
    codecs = tuple(_imported(codec) if isinstance(codec, str) else codec for codec in given)
    for codec in codecs:
        _check_codec(codec)
    names = [codec.name for codec in codecs]
    if len(set(names)) < len(names):
        raise ValueError(f"two codecs have one name: {', '.join(names)}")
    return codecs


def _imported(name: str) -> Any:
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError(f"{name!r} does not name a codec: give module:name")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{name!r} cannot be imported: {error}") from error


def _check_codec(codec: Any) -> None:
    if isinstance(codec, type):
        raise TypeError(f"{codec.__qualname__} is a class: give an instance, {codec.__qualname__}()")
    missing = [name for name in ("name", "safe", "accepts", "encode", "decode") if not hasattr(codec, name)]
    if missing:
        raise TypeError(f"{codec!r:.60} is not a codec: it has no {', '.join(missing)}")
    if not isinstance(codec.name, str) or not re.fullmatch(_CODEC_NAME, codec.name):
        raise ValueError(f"the codec's name {codec.name!r:.40} must be 1 to 32 small letters, digits and hyphens")
    if not isinstance(codec.safe, bool):
        raise TypeError(f"safe={codec.safe!r:.40} of the codec {codec.name!r} is neither True nor False")
    hash(codec)  # caches with equal configurations share their connections


_CODEC_NAME: Final = r"[a-z0-9-]{1,32}"


#: Readers of the parameters that decorators and plug-ins do not have.
_READ: Final[Mapping[str, options.Read]] = {
    **options.READ,
    "metadata_backend": _backend,
    "blob_store": _blobs,
    "namespace": options.text,
    "signing_key": options.text,
    "trust": options.text,
    "codecs": _codecs,
    "near": _path_on_each_machine,
}


def _read_environment(cls: type[Config], environ: Mapping[str, str]) -> dict[str, str]:
    known = {ENVIRONMENT_PREFIX + f.name.upper(): f.name for f in fields(cls)}
    files = {f"{ENVIRONMENT_PREFIX}{name.upper()}_FILE": name for name in FROM_FILES}
    found: dict[str, str] = {}
    for variable, text in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable.startswith(ENVIRONMENT_PREFIX + "TEST_"):
            continue
        if variable[len(ENVIRONMENT_PREFIX) :] in OTHER_VARIABLES:
            continue
        if variable not in known and variable not in files:
            raise ConfigError(f"{variable} is not a setting of cacheness. Known: {', '.join(sorted({*known, *files}))}")
        if not text.strip():  # an empty variable counts as not set
            continue
        name = known.get(variable) or files[variable]
        if name in found:
            raise ConfigError(f"{name} is set twice: by {ENVIRONMENT_PREFIX}{name.upper()}, and by the same with _FILE")
        found[name] = text if variable in known else _secret_in(text.strip(), variable)
    return found


def _secret_in(path: str, variable: str) -> str:
    """Return the text of a file, without surrounding white space. No error contains the text."""
    try:
        with open(os.path.expanduser(path), "rb") as file:
            content = file.read(LARGEST_SECRET + 1)
        text = content.decode("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise ConfigError(f"{variable} names {path}, which cannot be read: {reason}") from None
    if not text or len(content) > LARGEST_SECRET:
        why = "is empty" if not text else f"has more than {LARGEST_SECRET:,} bytes"
        raise ConfigError(f"{variable} names {path}, which {why}")
    return text
