"""A function with a cache and options: its keys, and what happens when the cache fails."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, ClassVar, Final, ParamSpec, Protocol, TypeVar

from cacheness.audit import Sampler
from cacheness.config import Config
from cacheness.coordination.leases import ComputeLeases
from cacheness.errors import UnhashableArgument
from cacheness.forks import LazyAttribute
from cacheness.incomplete import may_cache
from cacheness.keys import FunctionCode, Key, make_key, name_of_function
from cacheness.keys.code.writers import writes_to
from cacheness.keys.encode import Stated
from cacheness.logs import logger_of
from cacheness.memoize.acceptances import Acceptances
from cacheness.memoize.call_arguments import CallArguments, with_values
from cacheness.memoize.miss_reasons import MissReasons
from cacheness.memoize.options import Options
from cacheness.memoize.signature import Binder
from cacheness.records import Dispute, Entry, Hit
from cacheness.records import Outcome as CallOutcome
from cacheness.references import key_of_values

P = ParamSpec("P")
T = TypeVar("T")

_log = logger_of(__name__)

#: The reason in figures when a call has no key.
NO_KEY: Final = "an argument has no key"


class Without(Enum):
    """Why a call runs without the cache; in place of its answer."""

    FAILED = "failed"
    REFUSED = "not cacheable"


class CacheLike(Protocol):
    """The methods of a cache that a cached function needs."""

    config: Config

    @property
    def compute_leases(self) -> ComputeLeases:
        """Return the compute leases."""
        ...

    def entry(self, key: Key, /) -> Entry | None:
        """Return the entry under a key, served or not."""
        ...

    def disputes(self, keys: Sequence[Key] | None = None) -> list[Dispute]:
        """Return disputes, of these keys or of all."""
        ...

    @property
    def reasons(self) -> MissReasons:
        """Return the recorded reasons of misses."""
        ...

    @property
    def acceptances(self) -> Acceptances:
        """Return which results of earlier code count."""
        ...

    def try_earlier(self, cached: MemoizedFunction, key: Key, wanted: int, /) -> None:
        """Begin to compare calls of a function with the results of its earlier code."""
        ...

    def peek(self, key: Key, /, why: list[str] | None = None) -> Hit | None:
        """Return the result under a key, without counting a call."""
        ...

    def peek_earlier(self, key: Key, fingerprint: bytes, /, *, unread: bool = False) -> Hit | None:
        """Return the result of earlier code under a key, while it counts for the code of this fingerprint."""
        ...

    def count(
        self,
        function: str,
        outcome: CallOutcome,
        reason: str = "",
        *,
        spent: float = 0.0,
        saved: float = 0.0,
        size: int = 0,
    ) -> None:
        """Count a call."""
        ...

    def count_hit(self, hit: Hit, outcome: CallOutcome = "hit", *, function: str = "", spent: float = 0.0) -> None:
        """Count a call of a function that got a result."""
        ...

    @property
    def store_id(self) -> str:
        """Return the identity of the database."""
        ...

    @property
    def namespace(self) -> str:
        """Return the namespace of its results."""
        ...

    def find(self, key: Key, /, *, is_use: bool = False) -> Entry | None:
        """Return the entry under a key, without its value."""
        ...

    def put(
        self,
        value: Any,
        key: Key,
        /,
        *,
        ttl: Any = None,
        tags: Iterable[str] = (),
        compute_seconds: float | None = None,
        by_value: bool | None = None,
    ) -> Entry:
        """Store a result."""
        ...

    def invalidate(self, key: Key, /) -> bool:
        """Delete a result."""
        ...

    def dispute(self, entry: Entry, stored: bytes | None, computed: bytes | None, detail: str) -> bool:
        """Dispute a result; return False if it was replaced, or there are too many disputes."""
        ...

    def is_disputed(self, key: Key, /) -> bool:
        """Return True when the result under a key is disputed."""
        ...

    def settle(self, key: Key, /) -> bool:
        """Drop the dispute about a key."""
        ...

    def round_trip(self, value: Any) -> Any:
        """Return a value as a look-up would."""
        ...

    def iter_entries(self, *, function: str | None = None, limit: int | None = None) -> Iterator[Entry]:
        """Return the entries of a function, newest first."""
        ...

    def functions(self) -> list[str]:
        """Return the functions that have entries."""
        ...

    def code_of(self, entries: Iterable[Entry]) -> Mapping[bytes, FunctionCode]:
        """Return the code that made entries, by their `fn`."""
        ...


class MemoizedFunction:
    """A function, its cache and its options: what all steps of a call need."""

    __wrapped__: Callable[..., Any]
    is_coroutine: ClassVar[bool] = False

    def __init__(self, cache: CacheLike, fn: Callable[..., Any], options: Options) -> None:
        functools.update_wrapper(self, fn)
        self.cache = cache
        self.options = options
        self.binder = Binder(fn)
        share = (cache.config.check or 0.0) if options.check is None else options.check
        self.sampler = Sampler(share) if share > 0 and not writes_to(fn) else None  #: chooses the hits to audit
        self.not_comparable = ""  #: why results cannot be compared, if it takes long to find out
        if unknown := set(options.ignore) - self.binder.ignorable:
            raise TypeError(f"ignore={sorted(unknown)}: {self.short_name} has no such parameter")

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Return the cached result, or call the function."""
        raise NotImplementedError

    @property
    def short_name(self) -> str:
        """Return the function's qualified name, for messages."""
        return str(getattr(self.__wrapped__, "__qualname__", self.__wrapped__))

    @property
    def full_name(self) -> str:
        """Return the function's module and qualified name, for messages."""
        return f"{getattr(self.__wrapped__, '__module__', '')}.{self.short_name}"

    @LazyAttribute
    def is_comparable(self) -> bool:
        """Whether its results may be compared with those of other code, which needs calls without other effects."""
        return self.options.check != 0 and not writes_to(self.__wrapped__)

    def key(self, /, *args: Any, **kwargs: Any) -> Key:
        """Return the key of a call."""
        return key_of_values(self._arguments(args, kwargs), self._key_of_arguments)

    def key_of(self, call: CallArguments) -> Key:
        """Return the key of a call; count it as failed if an argument has none."""
        try:
            return self.key(*call.args, **call.kwargs)
        except UnhashableArgument:
            self.cache.count(name_of_function(self.__wrapped__), "failed", NO_KEY)
            raise

    def key_again(self, call: CallArguments) -> Key:
        """Return the key of a call whose references were loaded. `key=` is called as it was at first."""
        if call.given is not None and self.options.key is not None:
            call = call.given
        return self.key(*call.args, **call.kwargs)

    def _key_of_arguments(self, arguments: dict[str, Any]) -> Key:
        options = self.options
        return make_key(args=arguments, prefix=options.prefix, version=options.version, function=self.__wrapped__)

    def _arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if self.options.key is not None:
            given, _ = with_values(CallArguments(args, kwargs))
            try:
                return {"key": Stated(self.options.key(*given.args, **given.kwargs))}
            except TypeError:
                self.binder.bind(args, kwargs)  # a wrong call raises the function's TypeError here
                raise
        return self.binder.bind_without(self.options.ignore, args, kwargs)

    def with_values(self, call: CallArguments) -> tuple[CallArguments, bool]:
        """Return a call with the values of its references, and whether one may differ from the value in the key."""
        return with_values(call, self.binder)

    def may_cache(self, key: Key) -> bool:
        """Return whether results under this key are cached; warn once if the key is incomplete."""
        gaps = key.incomplete
        if not gaps:
            return True
        config = self.cache.config
        return may_cache(self.options.incomplete or config.incomplete, self.full_name, gaps, _log.warning, config)

    def leases(self) -> ComputeLeases:
        """Return the compute leases of its cache."""
        return self.cache.compute_leases

    def ask(self, question: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T | Without:
        """Return the cache's answer. After a failure return `Without.FAILED`, and log it once."""
        try:
            return question(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - like `isolated`, in less time: this is in each hit
            self.report(error)
        return Without.FAILED

    def report(self, error: Exception) -> None:
        """Log an error of the cache, or raise it, as the cache is configured."""
        if self.cache.config.on_error == "raise":
            raise error
        self.log_once(error)

    def log_once(self, error: Exception, what: str = "was computed without the cache") -> None:
        """Log the first error of each type."""
        known = (self.cache.config, type(error), what)
        if known not in _logged:
            _logged.add(known)
            _log.warning(
                "%s %s: %s: %s. Results stay right, only slower; this is logged once",
                self.short_name,
                what,
                type(error).__name__,
                error,
            )


_logged: set[tuple[Any, ...]] = set()
