"""Names that people bring along from functools, joblib, diskcache and others, and what is written here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_DECORATE: Final = "decorate with @cache.cached"
_LIST: Final = "write cache.list_entries()"
_OPEN: Final = 'write cacheness.UnifiedCache("folder")'

#: Of the module.
OF_MODULE: Final = {
    "cached": 'it is a method: cache = cacheness.UnifiedCache("folder"), then @cache.cached',
    "Cache": _OPEN,
    "FanoutCache": _OPEN,
    "Memory": _OPEN,
    "lru_cache": 'write cache = cacheness.UnifiedCache("folder"), then @cache.cached',
    "memoize": 'write cache = cacheness.UnifiedCache("folder"), then @cache.cached',
}
#: Of a cache.
OF_CACHE: Final = {
    "add": "write cache.put(value, name=…), which overwrites",
    "cache": _DECORATE,
    "cull": "write cache.evict()",
    "delete": "write cache.invalidate(name=…)",
    "eval": "write cache.get_or_compute(function, …)",
    "expire": "write cache.evict()",
    "items": _LIST,
    "iterkeys": _LIST,
    "keys": _LIST,
    "memoize": _DECORATE,
    "pop": "write cache.get(name=…), then cache.invalidate(name=…)",
    "set": "write cache.put(value, name=…)",
    "values": _LIST,
    "volume": 'write cache.stats()["bytes"]',
}
#: Of a decorated function.
OF_FUNCTION: Final = {
    "cache_clear": "write cache.delete_matching(function=f), or f.invalidate(…) for one call",
    "cache_info": "write cache.report()",
    "cache_key": "write f.key(…)",
    "cache_parameters": "write f.options",
    "call": "write f.refresh(…), which stores, or f.__wrapped__(…)",
    "call_and_shelve": "write f.lazy(…)",
    "check_call_in_cache": "write f.explain(…).hit",
    "clear": "write cache.delete_matching(function=f), or f.invalidate(…) for one call",
    "func": "write f.__wrapped__",
}
#: Parameters of a cache, and options of `cached`.
OF_CALLS: Final = {
    "cache_expiration": "ttl",
    "cachedir": "cache_dir",
    "directory": "cache_dir",
    "eviction_policy": "eviction",
    "expire": "ttl",
    "location": "cache_dir",
    "max_size": "max_bytes",
    "maxsize": "max_bytes",
    "size_limit": "max_bytes",
    "tag": "tags",
    "timeout": "ttl",
}


def no_attribute(owner: object, name: str, instead: Mapping[str, str]) -> AttributeError:
    """The error for an attribute that is not there; it says what to write where the name is known from elsewhere."""
    said = f"{type(owner).__name__!r} object has no attribute {name!r}"
    if name in instead:
        return AttributeError(f"{said}: {instead[name]}")
    return AttributeError(said, name=name, obj=owner)
