"""
Define all errors that cacheness raises, grouped by what the caller does next.

CachenessError
├── StoreUnavailable     try again later; the result may well exist
│   ├── CommitUnanswered the commit may or may not have happened; read the row
│   └── StoreBusy        another process held a lock longer than this call could wait
├── StoreFull            free space; nothing was stored, nothing was lost
├── SessionLost          take a new session and write again under a new name
├── ClockMoved           measure the database's clock again, and sign again
├── BlobMissing          look at the row again; the blob was replaced or lost
├── CorruptEntry         recompute; the bytes are not the ones written
│   └── ForgedEntry      recompute; the row was not signed by a known key
├── CodecError           fix the code: this value cannot be stored or read
├── UnhashableArgument   fix the call: this argument has no key (also a TypeError)
├── RepairRefused        look before you force: the repair would delete too much
├── NotCached            compute it (not with mode="offline"), or open the cache that has it
├── NotAccepted          look at the reason; no results of earlier code are served
├── NotAudited           look at the reason; no stored call was made again
├── CacheClosed          open another one (also a ValueError)
└── ConfigError          fix the configuration (also a ValueError)
    ├── StoreRefused     fix credentials, permissions or the name of the bucket
    ├── ModeRefused      open the cache in a mode that writes
    ├── SchemaMismatch   run `cacheness migrate`, or upgrade the library
    └── MissingExtra     install what the message names (also an ImportError)
"""

from __future__ import annotations

from typing import Final

#: How to install libraries whose distribution has another name.
_DISTRIBUTIONS: Final = {
    "attr": "attrs",
    "nacl": "pynacl",
    "psycopg": "'psycopg[binary]'",
    "resvg_py": "resvg-py",
    "yaml": "pyyaml",
}


class CachenessError(Exception):
    """The root of every error that cacheness raises on purpose."""


class StoreUnavailable(CachenessError):
    """A store did not answer in time, or cannot serve now."""


class CommitUnanswered(StoreUnavailable):
    """The connection was lost during a commit; only the row shows whether it happened."""


class StoreBusy(StoreUnavailable):
    """Other processes held a lock or every connection too long; the store itself works."""


class StoreFull(CachenessError):
    """A disk, quota or size limit refused the bytes; nothing was published."""


class SessionLost(CachenessError):
    """The writer's session was fenced or ended, so its whole commit was rejected."""


class ClockMoved(CachenessError):
    """An entry's time is too far from the database's clock, so the whole commit was rejected."""


class BlobMissing(CachenessError):
    """A blob that a row names is not in the blob store."""


class CorruptEntry(CachenessError):
    """The stored bytes are not the bytes that were signed."""


class ForgedEntry(CorruptEntry):
    """The row's signature is invalid, or of an unknown key."""


class CodecError(CachenessError):
    """No codec can store this value, or read these bytes."""


class UnhashableArgument(CachenessError, TypeError):
    """An argument has no canonical encoding.

    The message names the path to it.
    """


class RepairRefused(CachenessError):
    """A repair found implausibly many issues, and deleted nothing."""


class NotCached(CachenessError):
    """A result is not in the cache, and cannot be computed here.

    This process may not compute it, or has no function that does.
    """


class NotAccepted(CachenessError):
    """Results of earlier code are not served for today's code.

    The message has the reason.
    """


class NotAudited(CachenessError):
    """No stored call of a function was repeated for comparison.

    The message has the reason.
    """


class CacheClosed(CachenessError, ValueError):
    """A call on a cache that was closed."""


class ConfigError(CachenessError, ValueError):
    """The configuration cannot work; the message contains what to change."""


class StoreRefused(ConfigError):
    """A store denied access: credentials, permissions, or no such bucket."""


class ModeRefused(ConfigError):
    """The cache was opened in a mode that does not do this."""


class SchemaMismatch(ConfigError):
    """The database's schema is newer or older than this library can use."""


class MissingExtra(ConfigError, ImportError):
    """An optional library is not installed, or its import fails.

    The message names the library, and what to install.
    """

    def __init__(self, library: str, extra: str, purpose: str, cause: str = "") -> None:
        package = _DISTRIBUTIONS.get(library, library)
        state = f"cannot be imported: {cause.rstrip('.')}" if cause else "is not installed"
        super().__init__(f"{purpose} needs {library}, which {state}. Install it with: pip install {package}")
        self.library = library
        self.extra = extra
        self._given = (library, extra, purpose, cause)

    @classmethod
    def of(cls, error: ImportError, library: str, extra: str, purpose: str) -> MissingExtra:
        """Return the error for a failed import.

        This library, or one that it needs, is missing or broken.

        Args:
            error: the exception of the import.
            library: the imported library.
            extra: the extra of cacheness that installs it.
            purpose: the feature that needs it.
        """
        name = error.name or ""
        if isinstance(error, ModuleNotFoundError) and name.isidentifier() and not name.startswith("_"):
            return cls(name, extra, purpose)
        return cls(library, extra, purpose, " ".join(str(error).split())[:300])

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        return (type(self), self._given)
