"""A result cache for Python workflows: computed once, read anywhere, verified, or a clean miss."""

from cacheness.config import Config
from cacheness.entry import Entry, Hit, Issue, Presence
from cacheness.errors import (
    BlobMissing,
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
from cacheness.explain import Explanation
from cacheness.keys import Digest, File, Key, register
from cacheness.report import IntegrityReport
from cacheness.unified import UnifiedCache

__all__ = [
    "BlobMissing",
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
