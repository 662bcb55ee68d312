"""A result cache for Python workflows: computed once, read anywhere, verified, or a clean miss."""

from cacheness.cache import UnifiedCache
from cacheness.config import Config
from cacheness.errors import (
    BlobMissing,
    CacheClosed,
    CachenessError,
    CodecError,
    ConfigError,
    CorruptEntry,
    ForgedEntry,
    MissingExtra,
    RepairRefused,
    SchemaMismatch,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
    UnhashableArgument,
)
from cacheness.keys import Digest, File, Key, register
from cacheness.maintenance.report import IntegrityReport
from cacheness.memoize.explain import Explanation
from cacheness.records import Entry, Hit, Issue, Presence

__all__ = [
    "BlobMissing",
    "CacheClosed",
    "CachenessError",
    "CodecError",
    "Config",
    "ConfigError",
    "CorruptEntry",
    "Digest",
    "Entry",
    "Explanation",
    "File",
    "ForgedEntry",
    "Hit",
    "IntegrityReport",
    "Issue",
    "Key",
    "MissingExtra",
    "Presence",
    "RepairRefused",
    "SchemaMismatch",
    "StoreFull",
    "StoreRefused",
    "StoreUnavailable",
    "UnhashableArgument",
    "UnifiedCache",
    "register",
]
