"""Suggest our names for names that users know from functools, joblib, diskcache and others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn

_BATCH: Final = "write cache.write_batch(), for puts, without isolation"
_DECORATE: Final = "decorate with @cache.cached"
_GET: Final = "write cache.get(name=…)"
_IS_THERE: Final = "write cache.lookup(name=…) is not None"
_LIST: Final = "write cache.list_entries()"
_NO_COUNTERS: Final = "there are no counters and no queues, only results"
_OR_COMPUTE: Final = "write cache.get_or_compute(function, …)"
_PUT_MANY: Final = "write cache.put_many(…)"
_WHERE: Final = "write cache.config.cache_dir"
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
    "check": "write cache.verify_integrity()",
    "contains": _IS_THERE,
    "cull": "write cache.evict()",
    "decr": _NO_COUNTERS,
    "delete": "write cache.invalidate(name=…)",
    "delete_many": "write cache.delete_matching(tag=…)",
    "directory": _WHERE,
    "eval": _OR_COMPUTE,
    "exists": _IS_THERE,
    "expire": "write cache.evict()",
    "get_or_set": _OR_COMPUTE,
    "has": _IS_THERE,
    "has_key": _IS_THERE,
    "incr": _NO_COUNTERS,
    "items": _LIST,
    "iterkeys": _LIST,
    "keys": _LIST,
    "location": _WHERE,
    "memoize": _DECORATE,
    "pop": "write cache.get(name=…), then cache.invalidate(name=…)",
    "popitem": _LIST,
    "pull": _NO_COUNTERS,
    "push": _NO_COUNTERS,
    "read": _GET,
    "reduce_size": "write cache.evict(), and max_bytes= of UnifiedCache for all the time",
    "set": "write cache.put(value, name=…)",
    "set_many": _PUT_MANY,
    "setdefault": _OR_COMPUTE,
    "size": 'write cache.stats()["bytes"]',
    "transact": _BATCH,
    "update": _PUT_MANY,
    "values": _LIST,
    "volume": 'write cache.stats()["bytes"]',
}
#: Operations of a dictionary, and what to write for a cache.
OF_DICTIONARY: Final = {
    "__contains__": _IS_THERE,
    "__delitem__": "write cache.invalidate(name=…)",
    "__getitem__": _GET,
    "__iter__": _LIST,
    "__len__": 'write cache.stats()["entries"]',
    "__setitem__": "write cache.put(value, name=…)",
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
    """Return the error for a missing attribute, with our name if the attribute is known from another library."""
    said = f"{type(owner).__name__!r} object has no attribute {name!r}"
    if name in instead:
        return AttributeError(f"{said}: {instead[name]}")
    return AttributeError(said, name=name, obj=owner)


class NoDictionary:
    """Operations of a dictionary on a cache raise an error that contains what to write."""

    if not TYPE_CHECKING:  # a type checker finds it earlier

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name, OF_CACHE)

        def __bool__(self) -> bool:
            return True  # also with `__len__`

        def __contains__(self, _: object) -> NoReturn:
            raise _no_dictionary(self, "__contains__")

        def __delitem__(self, _: object) -> NoReturn:
            raise _no_dictionary(self, "__delitem__")

        def __getitem__(self, _: object) -> NoReturn:
            raise _no_dictionary(self, "__getitem__")

        def __iter__(self) -> NoReturn:
            raise _no_dictionary(self, "__iter__")

        def __len__(self) -> NoReturn:
            raise _no_dictionary(self, "__len__")

        def __setitem__(self, _: object, value: object) -> NoReturn:
            raise _no_dictionary(self, "__setitem__")


def _no_dictionary(owner: object, operation: str) -> TypeError:
    return TypeError(f"{type(owner).__name__!r} object is not a dictionary: {OF_DICTIONARY[operation]}")
