"""A result cache for Python workflows: computed once, read anywhere, verified, or a clean miss."""

from __future__ import annotations

import importlib
import typing

if typing.TYPE_CHECKING:
    __version__: str
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
        ModeRefused,
        NotAccepted,
        NotAudited,
        NotCached,
        RepairRefused,
        SchemaMismatch,
        StoreFull,
        StoreRefused,
        StoreUnavailable,
        UnhashableArgument,
    )
    from cacheness.keys import Digest, File, Key, register
    from cacheness.maintenance.activity import Overview, Report
    from cacheness.maintenance.report import IntegrityReport
    from cacheness.memoize.acceptances import AcceptedChange
    from cacheness.memoize.audit_stored import AuditedFunction
    from cacheness.memoize.explain import Explanation
    from cacheness.protocols import Codec
    from cacheness.records import Call, Entry, Hit, Issue, IssueKind, Presence
    from cacheness.references import Ref

__all__ = [
    "AcceptedChange",
    "AuditedFunction",
    "BlobMissing",
    "CacheClosed",
    "CachenessError",
    "Call",
    "Codec",
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
    "IssueKind",
    "Key",
    "MissingExtra",
    "ModeRefused",
    "NotAccepted",
    "NotAudited",
    "NotCached",
    "Overview",
    "Presence",
    "Ref",
    "RepairRefused",
    "Report",
    "SchemaMismatch",
    "StoreFull",
    "StoreRefused",
    "StoreUnavailable",
    "UnhashableArgument",
    "UnifiedCache",
    "register",
]

#: The module of each public name. Names are imported on first use: the command line's help needs none of them.
_HOMES = {
    "cacheness.cache": ("UnifiedCache",),
    "cacheness.config": ("Config",),
    "cacheness.errors": (
        "BlobMissing",
        "CacheClosed",
        "CachenessError",
        "CodecError",
        "ConfigError",
        "CorruptEntry",
        "ForgedEntry",
        "MissingExtra",
        "ModeRefused",
        "NotAccepted",
        "NotAudited",
        "NotCached",
        "RepairRefused",
        "SchemaMismatch",
        "StoreFull",
        "StoreRefused",
        "StoreUnavailable",
        "UnhashableArgument",
    ),
    "cacheness.keys": ("Digest", "File", "Key", "register"),
    "cacheness.maintenance.activity": ("Overview", "Report"),
    "cacheness.maintenance.report": ("IntegrityReport",),
    "cacheness.memoize.acceptances": ("AcceptedChange",),
    "cacheness.memoize.audit_stored": ("AuditedFunction",),
    "cacheness.memoize.explain": ("Explanation",),
    "cacheness.protocols": ("Codec",),
    "cacheness.records": ("Call", "Entry", "Hit", "Issue", "IssueKind", "Presence"),
    "cacheness.references": ("Ref",),
}


if not typing.TYPE_CHECKING:  # otherwise a type checker would accept any name here

    def __getattr__(name: str) -> typing.Any:
        if name == "__version__":
            from importlib.metadata import version

            return version("cacheness")
        for module, names in _HOMES.items():
            if name in names:
                value = globals()[name] = getattr(importlib.import_module(module), name)
                return value
        from cacheness.elsewhere import OF_MODULE

        instead = f": {OF_MODULE[name]}" if name in OF_MODULE else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{instead}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
