"""UnifiedCache, the class for users."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar, Unpack, overload

from cacheness import factory, forks, html, keys, maintenance, memoize, telemetry
from cacheness.arguments import (
    HERE,
    Function,
    KeyLike,
    canonical_json,
    check_order,
    checked_options,
    checked_tags,
    configured,
    digest_named,
    first_digits,
    functions_called,
    is_full_name,
    key_of,
    lifetime_of,
    one_function,
    shown,
)
from cacheness.async_calls import AsyncCalls
from cacheness.audit import MOST_A_DAY
from cacheness.blobs.near import NearBlobStore
from cacheness.config import CacheParameters, Config, redacted
from cacheness.coordination.leases import ComputeLeases
from cacheness.elsewhere import NoDictionary
from cacheness.errors import (
    CacheClosed,
    CachenessError,
    ModeRefused,
    NotCached,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)
from cacheness.keys import FunctionCode, Key, still_left
from cacheness.memoize.options import CachedOptions
from cacheness.modes import WRITING
from cacheness.protocols import CachedFunction, MetadataStore
from cacheness.records import (
    DISPUTED,
    HITS,
    HOUR,
    MICROSECONDS,
    REASONS_KEPT,
    Call,
    Dispute,
    Entry,
    Hit,
    Outcome,
    Presence,
    Use,
    Where,
)
from cacheness.references import caches, resolved
from cacheness.results.batch import Batch
from cacheness.results.store import UNKNOWN_SIGNER, Cache, Draft, PutDetails
from cacheness.units import Duration, bytes_named, seconds_named, seconds_of

if TYPE_CHECKING:  # modules that few processes use are imported on use
    from cacheness.maintenance.activity import Overview, Report
    from cacheness.maintenance.comparison import Progress
    from cacheness.maintenance.doctor import Finding
    from cacheness.maintenance.eviction import Progress as EvictionProgress
    from cacheness.maintenance.report import IntegrityReport
    from cacheness.maintenance.signers import Signer
    from cacheness.memoize.acceptances import Acceptances, AcceptedChange
    from cacheness.memoize.audit_stored import AuditedFunction
    from cacheness.memoize.collected import CollectedEvidence
    from cacheness.memoize.decorator import Cached
    from cacheness.memoize.explain import Explanation
    from cacheness.memoize.function import MemoizedFunction
    from cacheness.memoize.lineage import Lineage
    from cacheness.memoize.miss_reasons import MissReasons
    from cacheness.memoize.plan import FunctionPlan, State

P = ParamSpec("P")
R = TypeVar("R")

PAGE = 1000


class UnifiedCache(AsyncCalls, NoDictionary):
    """A cache of results in one namespace of a store.

    `UnifiedCache()` uses SQLite and files in ./.cacheness, `UnifiedCache("folder")` in that folder,
    and `UnifiedCache(metadata_backend="postgresql://…", blob_store="s3://…")` serves many machines.

    Threads may share it, and so may processes after a fork. Pickling keeps its configuration,
    secrets included; a cache that only reads shared stores holds no private key.

    Args:
        place: the path of a directory, a Config, or None for no cache: mode="off".
        parameters: the fields of `Config`, by name.

    Raises:
        ConfigError: the configuration cannot work. A server that does not answer is a StoreUnavailable at the first
            call that needs it.

    Args of several methods:
        key: which result: a Key, an Entry, or a key's 64 hexadecimal digits, instead of the arguments.
        named: the arguments that name the result, by name.
        args: the same as a mapping, for arguments whose names are those of options.
        prefix: a group of results: counts in the key, and selects in `list_entries` and `delete_matching`.
        version: counts in the key in place of the function's code.
        function: the function that computed the result, or its name: counts in the key, and selects. To select, a
            name is a module, a qualified name, or both with a colon or a dot between.
        ttl: how long an entry may be used: seconds, a timedelta, or text such as "1h". None uses the cache's ttl.
        tag: selects the entries that were put with this tag.
        older_than: selects the entries that were made longer ago than this: seconds, a timedelta, or text.
        limit: the most entries to return; None for all.
        fn: the function to call or to decorate.
    """

    def __init__(
        self, place: Config | str | os.PathLike[str] | None = HERE, /, **parameters: Unpack[CacheParameters]
    ) -> None:
        self.config = factory.begun(factory.fit_to_send(configured(place, parameters).in_mode().with_share()))
        self._local = _OfThread()
        self._store_id = ""
        self._hold()
        try:
            if not self._is_off:
                factory.open_cache(self._slot)
        except StoreUnavailable:
            pass  # a server that is down now may be up when it is needed; the next caller gets the error
        except BaseException:
            self.close()
            raise

    @classmethod
    def from_env(cls) -> UnifiedCache:
        """Open the cache that the CACHENESS_<PARAMETER> variables describe."""
        return cls(Config.from_env())

    @staticmethod
    def fit_to_send(config: Config) -> Config:
        """Return a configuration for another process.

        It has no private keys if its mode does not write.

        Args:
            config: the configuration.
        """
        return factory.fit_to_send(config)

    @staticmethod
    def check_config(config: Config) -> None:
        """Check a configuration without opening anything or calling a server.

        Args:
            config: the configuration.

        Raises:
            ConfigError: it cannot work on any machine.
        """
        factory.check(config)

    # one result

    def put(
        self,
        value: Any,
        key: KeyLike | None = None,
        /,
        *,
        args: Mapping[str, Any] | None = None,
        prefix: str = "",
        version: str | None = None,
        function: Function | None = None,
        ttl: Duration | None = None,
        tags: Iterable[str] = (),
        compute_seconds: float | None = None,
        provenance: Mapping[str, Any] | None = None,
        by_value: bool | None = None,
        **named: Any,
    ) -> Entry:
        """Store a result under its arguments or under a key.

        It is durable when this returns, and inside `write_batch` when the block ends. If it fails,
        an earlier entry of the same key stays.

        Args:
            value: the result.
            tags: names with which entries are found and deleted.
            compute_seconds: the cost of computing the result; `eviction="cost"` keeps expensive ones longer.
            provenance: where it was computed; any value for JSON.
            by_value: True and False: whether the entry has the value's digest. None: if the value
                alone decides the digest, and has at most 180 members.

        Returns:
            The entry.

        Raises:
            UnhashableArgument: an argument has no encoding.
            CodecError: no codec can store the value.
            StoreFull: the disk or the quota is full.
            StoreRefused: this user may not write to the store.
            StoreUnavailable: the store does not answer.
        """
        if key is not None:
            check_order(value, key)
        self._require_writing("put")
        about = PutDetails(
            ttl=self._lifetime(ttl),
            tags=checked_tags(tags),
            compute_seconds=compute_seconds,
            provenance=canonical_json(provenance or {}),
            by_value=by_value,
        )
        value = resolved(value)
        named_key = key_of("put", key, named, args=args, prefix=prefix, version=version, function=function)
        of = {"namespace": self.config.namespace, "function": named_key.function}
        with telemetry.operation(telemetry.STORE, **of) as storing:
            batch = self._batch
            draft = self._opened.cache.draft(named_key, value, about, is_alone=batch is None)
            if batch is None:
                entry = self._publish([draft])[0]
                storing.came_to("stored", size=entry.size)
                return entry
            batch.add(draft)
            storing.came_to("waits for its batch")
            return draft.entry

    def lookup(
        self,
        key: KeyLike | None = None,
        /,
        *,
        args: Mapping[str, Any] | None = None,
        prefix: str = "",
        version: str | None = None,
        function: Function | None = None,
        **named: Any,
    ) -> Hit | None:
        """Look a result up.

        Returns:
            A Hit, whose value may be None; or None for a miss. An entry that has expired is a miss,
            and so is one that is damaged or was not signed by a known key; the latter two are also
            logged.

        Raises:
            CodecError: the stored value cannot be decoded in this process.
            StoreUnavailable: the store does not answer.
        """
        return self._counted(key_of("lookup", key, named, args=args, prefix=prefix, version=version, function=function))

    def get(
        self,
        key: KeyLike | None = None,
        /,
        *,
        default: Any = None,
        args: Mapping[str, Any] | None = None,
        prefix: str = "",
        version: str | None = None,
        function: Function | None = None,
        **named: Any,
    ) -> Any:
        """Return a result, or a default for a miss.

        `lookup` distinguishes a cached None from a miss.

        Args:
            default: returned for a miss.

        Raises:
            CodecError: the stored value cannot be decoded in this process.
            StoreUnavailable: the store does not answer.
        """
        hit = self._counted(key_of("get", key, named, args=args, prefix=prefix, version=version, function=function))
        return default if hit is None else hit.value

    def find(self, key: KeyLike, /, *, is_use: bool = False) -> Entry | None:
        """Return the entry under a key, or None, without reading its value.

        None means that the row shows a miss.

        Args:
            is_use: count it as a use, because the value will be read later.
        """
        digest = digest_named(key)
        self._flush_if_it_holds(digest)
        return None if self._is_off else self._store.find(digest, is_use=is_use)

    def key(
        self,
        *,
        args: Mapping[str, Any] | None = None,
        prefix: str = "",
        version: str | None = None,
        function: Function | None = None,
        **named: Any,
    ) -> Key:
        """Return the key of these arguments for `get`, `put` and others.

        Its `.hex` is the `cache_key` of the entry.

        Raises:
            UnhashableArgument: an argument has no encoding.
        """
        return key_of("key", None, named, args=args, prefix=prefix, version=version, function=function)

    def invalidate(
        self,
        key: KeyLike | None = None,
        /,
        *,
        args: Mapping[str, Any] | None = None,
        prefix: str = "",
        version: str | None = None,
        function: Function | None = None,
        **named: Any,
    ) -> bool:
        """Delete one result.

        Returns:
            True if there was one.
        """
        self._require_writing("invalidate")
        digest = key_of("invalidate", key, named, args=args, prefix=prefix, version=version, function=function).digest
        self._flush_if_it_holds(digest)
        return self._store.delete(Where(self.config.namespace, keys=(digest,))) > 0

    def touch(
        self,
        key: KeyLike | None = None,
        /,
        *,
        ttl: Duration | None = None,
        args: Mapping[str, Any] | None = None,
        prefix: str = "",
        version: str | None = None,
        function: Function | None = None,
        **named: Any,
    ) -> bool:
        """Give an entry a new lifetime, which begins now.

        Returns:
            False if there is no such entry, it has expired, or another one replaces it during the call.
        """
        self._require_writing("touch")
        digest = key_of("touch", key, named, args=args, prefix=prefix, version=version, function=function).digest
        self._flush_if_it_holds(digest)
        cache = self._store
        cache.metadata.measure_clock()
        entry = cache.metadata.find(self.config.namespace, digest)
        if entry is None or not cache.is_genuine(entry) or cache.is_expired(entry):
            return False
        lifetime = self._lifetime(ttl)
        expires = None if lifetime is None else cache.metadata.now() + int(lifetime * MICROSECONDS)
        return cache.resign(entry, expires_at=expires)

    # many results

    def get_many(self, keys: Iterable[KeyLike]) -> dict[str, Hit]:
        """Look up many results in few statements.

        One statement reads up to 10,000 keys, and blobs are read in parallel.

        Args:
            keys: the keys.

        Returns:
            The hits, by key in hexadecimal digits. Results that cannot be decoded are left out and logged.
        """
        asked = [(digest_named(key), key.function if isinstance(key, Key) else "") for key in keys]
        digests, functions = [digest for digest, _ in asked], dict(asked)
        for digest in digests:
            self._flush_if_it_holds(digest)
        if self._is_off:
            return {}
        cache = self._store
        with telemetry.operation(telemetry.LOOKUP, namespace=self.config.namespace) as looking:
            found = cache.lookup_many(digests)
            looking.came_to("hit" if len(found) == len(set(digests)) else "miss", asked=len(digests), found=len(found))
        for digest, hit in found.items():
            cache.uses.count_hit(hit.entry, "near hit" if hit.near else "hit", function=functions[digest])
        missing = Counter(function for digest, function in functions.items() if digest not in found)
        for function, calls in missing.items():
            cache.uses.count_calls(function, "miss", calls=calls)
        return {digest.hex(): hit for digest, hit in found.items()}

    def put_many(self, items: Iterable[tuple[Any, Mapping[str, Any] | KeyLike]]) -> list[Entry]:
        """Store many results in few transactions.

        Args:
            items: pairs of a value and its key, or of a value and a mapping of keyword arguments for `put`.

        Returns:
            The entries, in the order of the items.
        """
        with self.write_batch():
            return [
                self.put(value, **about) if isinstance(about, Mapping) else self.put(value, about)
                for value, about in items
            ]

    def present(self, keys: Sequence[KeyLike]) -> dict[str, Presence]:
        """Return the keys that `lookup` would find, with sizes of entries.

        No value is read.

        Args:
            keys: the keys; one statement reads 10,000.

        Returns:
            A Presence for each key that has an entry, by key in hexadecimal digits.
        """
        asked = [digest_named(key) for key in keys]
        if self._is_off:
            return {}
        cache = self._store
        found = cache.metadata.present(self.config.namespace, asked)
        if self.config.mode == "refresh":
            found = {digest: one for digest, one in found.items() if cache.is_recent(one.created_at)}
        return {digest.hex(): one for digest, one in found.items() if one.outputs is None or still_left(one.outputs)}

    def lookup_alias(self, alias: bytes, /) -> Hit | None:
        """Look up a result by its code and its input values.

        Args:
            alias: the alias in the `Key` under which the result was put.
        """
        return None if self._is_off else self._store.lookup_alias(alias)

    def link(self, key: Key, entry: Entry, /, *, provenance: Mapping[str, Any] | None = None) -> Entry:
        """Store that a key has the result of an entry, without bytes.

        The link is deleted with that entry. If the key already has a result, it is kept and
        returned: links may name it, and it may be this entry itself.

        Args:
            key: the key.
            entry: an entry with an alias.
            provenance: where that was found; any value for JSON.
        """
        self._require_writing("link")
        if entry.key == key.digest:
            return entry
        self._flush_if_it_holds(key.digest)
        own = self._store.own_result(key.digest)
        if own is not None:
            return own
        draft = self._store.draft_link(key, entry, canonical_json(provenance or {}))
        batch = self._batch
        if batch is None:
            return self._publish([draft])[0]
        batch.add(draft)
        return draft.entry

    def known_code(self, digests: Sequence[bytes]) -> set[bytes]:
        """Return those of the digests that entries name as their code.

        Args:
            digests: the digests; one statement reads 10,000.
        """
        return set() if self._is_off else self._store.metadata.named_codes(self.config.namespace, digests)

    def note_unstored(self, reasons: Mapping[str, str]) -> None:
        """Store for 30 days why results were not stored.

        `unstored` returns it.

        Args:
            reasons: key -> reason.
        """
        self._require_writing("note_unstored")
        noted = {digest_named(key): shown(why) for key, why in reasons.items()}
        self._store.metadata.note_unstored(self.config.namespace, noted)

    def unstored(self, keys: Sequence[KeyLike]) -> dict[str, str]:
        """Return why the results of these keys were not stored.

        Args:
            keys: the keys.

        Returns:
            key in hexadecimal digits -> reason, for those given to `note_unstored`.
        """
        asked = [digest_named(key) for key in keys]
        if self._is_off:
            return {}
        found = self._store.metadata.unstored(self.config.namespace, asked, REASONS_KEPT)
        return {digest.hex(): why for digest, why in found.items()}

    # disputes

    def disputes(self, keys: Sequence[KeyLike] | None = None) -> list[Dispute]:
        """Return the disputes: results that differed when computed again.

        Their entries are not served.

        Args:
            keys: the keys; None for all.
        """
        asked = None if keys is None else [digest_named(key) for key in keys]
        return self._store.metadata.disputes(self.config.namespace, asked)

    def settle(self, key: KeyLike, /, *, keep: Literal["old", "new"] = "old") -> bool:
        """End a dispute: serve the stored result again, or delete it.

        After a deletion the next call computes the result.

        Args:
            keep: "old" for the stored result, "new" to delete it.

        Returns:
            False if there is no dispute.
        """
        if keep not in ("old", "new"):
            raise ValueError(f"keep={keep!r:.40} is neither 'old' nor 'new'")
        self._require_writing("settle")
        digest = digest_named(key)
        cache = self._store
        disputed = cache.metadata.disputes(self.config.namespace, [digest])
        if disputed and keep == "new":
            cache.delete(Where(self.config.namespace, keys=(digest,), created_before=disputed[0].at + 1))
        return cache.metadata.settle(self.config.namespace, [digest]) > 0

    def dispute(self, entry: Entry, stored: bytes | None, computed: bytes | None, detail: str) -> bool:
        """Stop serving an entry whose result differed when computed again.

        Args:
            entry: the entry.
            stored: the digest of the stored value.
            computed: the digest of the value that was computed.
            detail: how they differ, and possible causes.

        Returns:
            False if the entry was replaced, or its function has a hundred disputes of the last day.
        """
        self._require_writing("dispute")
        metadata = self._store.metadata
        at = max(metadata.now(), entry.created_at)  # before the look: an entry that is put after it is newer
        current = metadata.find(self.config.namespace, entry.key)
        if current is None or (current.mac, current.created_at) != (entry.mac, entry.created_at):
            return False
        dispute = Dispute(entry.key, at, stored, computed, entry.function, shown(detail, 2000))
        self.reasons.disputed(entry.function)
        return metadata.dispute(self.config.namespace, dispute, MOST_A_DAY)

    def is_disputed(self, key: KeyLike, /) -> bool:
        """Return True when the result under a key is disputed.

        A disputed result is not served.
        """
        return bool(self.disputes([key]))

    def round_trip(self, value: Any) -> Any:
        """Return a value encoded and decoded, as a look-up would.

        Nothing is stored.

        Args:
            value: the value.
        """
        return self._store.round_trip(value)

    @contextmanager
    def write_batch(self) -> Iterator[None]:
        """Make the puts of this thread inside the block share transactions.

        Results are durable when the block ends, or earlier: after 1,000 results, 64 MiB of encoded
        values, or ten seconds. If the block raises, results written before stay, and the rest is
        dropped.
        """
        if self._batch is not None:
            yield  # an inner batch is part of the outer one
            return
        self._local.batch = batch = Batch(self._publish_together)
        try:
            yield
            batch.flush()
        finally:
            self._local.batch = None

    # figures

    def report(
        self, *, since: Duration | None = None, by: Literal["function", "hour", "outcome", "reason"] = "function"
    ) -> Report:
        """Return the counts of calls: hits, misses, seconds saved and spent.

        Other processes write their figures once a minute, and when they close their cache.

        Args:
            since: how far back, to the hour: seconds, a timedelta, or text such as "1 day"; None for ever.
            by: what the rows of the report are: functions, hours, outcomes or reasons of misses.
        """
        cache = self._store
        cache.uses.flush()
        age = None if since is None else int(seconds_of(since) * MICROSECONDS)
        first = None if age is None else (cache.metadata.now() - age) // HOUR
        if by == "hour":
            found = cache.metadata.activity_by_hour(self.config.namespace, first or 0)
        else:
            found = cache.metadata.activity(self.config.namespace, first)
        return maintenance.activity.Report.of(found, by)

    def count(
        self,
        function: str,
        outcome: Outcome,
        reason: str = "",
        *,
        calls: int = 1,
        spent: float = 0.0,
        saved: float = 0.0,
        size: int = 0,
    ) -> None:
        """Count calls in the figures, if `cached` does not count them.

        The figures are written once a minute.

        Args:
            outcome: the outcome of the calls.
            reason: the reason of a miss.
            calls: how many.
            spent: seconds of their computation.
            saved: the cost of the hits' results in seconds.
            size: stored bytes that hits read, or that misses stored.
        """
        opened = self._slot.opened
        if opened is not None and not factory.is_inherited(self._slot):
            if outcome not in HITS:
                saved, size = 0.0, size if outcome == "miss" else 0
            opened.cache.uses.count_calls(function, outcome, reason, calls=calls, spent=spent, saved=saved, size=size)

    def listening(self) -> AbstractContextManager[list[Call]]:
        """Record each call of this process during a block.

        Calls of all its threads are recorded.

        Returns:
            A context manager, which returns a growing list of calls.
        """
        return self._store.uses.figures.listening()

    def count_hit(self, hit: Hit, outcome: Outcome = "hit", *, function: str = "", spent: float = 0.0) -> None:
        """Count a call that got a result through `peek`.

        Args:
            hit: the result.
            outcome: the outcome of the call: a hit, or waited.
            function: the called function; "" for the function that made the entry.
            spent: seconds of the call.
        """
        opened = self._slot.opened
        if opened is not None:
            came = "near hit" if hit.near and outcome == "hit" else outcome
            opened.cache.uses.count_hit(hit.entry, came, function, spent)

    def peek(self, key: KeyLike, /, why: list[str] | None = None) -> Hit | None:
        """Look up a result, and do not count the call.

        The caller counts it.

        Args:
            why: receives the reason of a miss.
        """
        digest = key.digest if isinstance(key, Key) else digest_named(key)
        self._flush_if_it_holds(digest)
        return None if self._is_off else self._store.lookup(digest, why)

    def peek_earlier(self, key: Key, fingerprint: bytes, /, *, unread: bool = False) -> Hit | None:
        """Return the result of earlier code, if it counts for today's.

        Args:
            key: the key.
            fingerprint: that of today's code.
            unread: return the entry without its value.
        """
        return None if self._is_off else self.acceptances.peek(fingerprint, key.digest, unread=unread)

    @property
    def reasons(self) -> MissReasons:
        """Return the reasons for misses that this process has recorded."""
        return self._opened.reasons

    # computing

    def get_or_compute(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the cached result of `fn(*args, **kwargs)`, or compute and store it.

        If many threads and machines need one result at once, one computes it. `cached` has options.

        Args:
            args: arguments of the call.
            kwargs: arguments of the call, by name.
        """
        result: R = memoize.decorator.memoize(self, fn)(*args, **kwargs)
        return result

    @overload
    def cached(self, fn: Callable[P, R], /) -> CachedFunction[P, R]: ...

    @overload
    def cached(self, /, **options: Unpack[CachedOptions]) -> Callable[[Callable[P, R]], CachedFunction[P, R]]: ...

    def cached(self, fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Decorate a function so that its results are cached.

        Use it as `@cache.cached` or `@cache.cached(ttl=3600, version="2", ignore=("client",))`.

        Args:
            options: the fields of `cacheness.memoize.Options`, by name.

        Returns:
            The function with `key`, `explain`, `invalidate` and `refresh`, which take the arguments of a call.

        Raises:
            TypeError: it is a generator function, or there is no such option or parameter.
            ConfigError: an option cannot be used.
        """
        if fn is None:
            return partial(self.cached, **checked_options(options))
        return memoize.decorator.memoize(self, fn, **checked_options(options))

    def explain(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Explanation:
        """Return why a call would miss, without calling the function.

        Args:
            args: arguments of the call.
            kwargs: arguments of the call, by name.

        Returns:
            What would happen, and what differs from the nearest earlier entry.
        """
        return memoize.decorator.explain_call(self, fn, args, kwargs)

    def plan(self, *functions: Callable[..., Any]) -> list[FunctionPlan]:
        """Return which results today's code serves, and what others cost.

        It computes nothing. Results of earlier code stay; a call that needs one computes it.

        Args:
            functions: the functions.
        """
        return [self._plan_of(function) for function in functions]

    def lineage(self, key: KeyLike, /, *, up: int = 3) -> Lineage:
        """Return the earlier results whose values a result was made from.

        They are found by the digests of values in entries.

        Args:
            up: the number of steps.

        Raises:
            NotCached: there is no such entry.
        """
        entry = self.entry(key)
        if entry is None or not self._store.is_genuine(entry):
            raise NotCached(f"no result is cached under the key {digest_named(key).hex()}")
        with forks.no_fork():
            from cacheness.memoize.lineage import lineage_of

        return lineage_of(entry, up, self._with_values)

    def _with_values(self, values: Sequence[bytes]) -> dict[bytes, list[Entry]]:
        """Return the entries that hold values with these digests, if their signatures are valid."""
        cache = self._store
        keys = cache.metadata.keys_by_value(self.config.namespace, values)
        found = cache.metadata.find_many(self.config.namespace, [key for some in keys.values() for key in some])
        holding: dict[bytes, list[Entry]] = {}
        for key in (key for some in keys.values() for key in some):
            entry = found.get(key)
            if entry is not None and entry.value is not None and cache.is_genuine(entry):
                holding.setdefault(entry.value, []).append(entry)
        return holding

    def plan_without_code(self, name: str, state: State, why: str = "", /) -> FunctionPlan:
        """Return the plan of a function whose code cannot be read.

        Args:
            name: module:qualified name.
            state: what is known about it.
            why: the reason.
        """
        with forks.no_fork():
            from cacheness.memoize.plan import without_code

        return without_code(name, state, why, self.iter_entries(function=name))

    def audit(self, function: Callable[..., Any], /, *, sample: int = 200) -> AuditedFunction:
        """Repeat stored calls of a function, and compare the results.

        It is for results that take too long for `check=`.

        A result that differs is disputed. Nothing is stored.

        Args:
            function: the function, or the result of `cached`, whose options count.
            sample: how many calls are repeated, chosen at random.

        Raises:
            NotAudited: nothing can be compared, or calls of such a function are never repeated.
        """
        self._require_writing("audit")
        _check_sample(sample)
        with forks.no_fork():
            from cacheness.memoize.audit_stored import audit_stored

        return audit_stored(self, self._as_cached_here(function), sample)

    # accepted changes

    def accept(
        self,
        function: Callable[..., Any],
        /,
        *,
        sample: int = 200,
        former: str | None = None,
        renamed: Mapping[str, str] | None = None,
        upgrade: str = "",
        python: bool = False,
        force: bool = False,
    ) -> list[AcceptedChange]:
        """Accept results of a function's earlier code for today's code.

        Stored calls are repeated, and their results must be equal.

        Stored calls are repeated, and cached functions inside them computed, too. Their results are
        stored, under today's keys.

        Args:
            function: the function, or the result of `cached`, whose options count.
            sample: how many calls of each earlier code are compared, chosen at random.
            former: the function's former name, as module:qualified name, if its code changed, too.
            renamed: renamed parameters: new name -> old name; a single one is found automatically.
            upgrade: accept earlier code only if nothing but the version of this library changed.
            python: … or nothing but the version of Python.
            force: accept also if lines of changed functions did not run, or few calls can be compared.

        Returns:
            The result for each earlier code: its `state` is "accepted" or "refused".

        Raises:
            NotAccepted: there is nothing to compare, or changes of such a function are never accepted.
        """
        self._require_writing("accept")
        _check_sample(sample)
        with forks.no_fork():
            from cacheness.memoize.accept import Acceptor, Upgrade

        cached = self._as_cached_here(function)
        asked = Upgrade(upgrade, python)
        return Acceptor(self, cached).accept(sample, former=former, renamed=renamed or {}, upgrade=asked, force=force)

    def _as_cached_here(self, function: Callable[..., Any]) -> Cached:
        """Return a function as one whose results are in this cache, whatever cache decorated it."""
        from cacheness.memoize.plan import version_of

        wrap = memoize.decorator.memoize
        cached = function if isinstance(function, memoize.Cached) else wrap(self, version_of(function)[0])
        return cached if cached.cache is self else type(cached)(self, cached.__wrapped__, cached.options)

    def accepted_changes(self) -> list[AcceptedChange]:
        """Return changes that are accepted, tried, ended or revoked.

        A difference ends a change.
        """
        return [] if self._is_off else [memoize.acceptances.change_of(one) for one in self.acceptances.every()]

    def revoke(self, change: str, /) -> bool:
        """Revoke an accepted change.

        Results of earlier code stop counting at once, everywhere; none is deleted.

        It is permanent: `accept=` of a function does not compare calls for this change again. `accept` does.

        Args:
            change: the `id` of the change, or its first digits.

        Returns:
            False if there is no such change, or it was revoked before.

        Raises:
            ValueError: several changes begin with these digits.
        """
        self._require_writing("revoke")
        found = [one for one in self.acceptances.every() if change and one.id.startswith(change)]
        if len(found) > 1:
            raise ValueError(f"several accepted changes begin with {change}: {', '.join(one.id for one in found)}")
        return bool(found) and self.acceptances.revoke(found[0])

    @property
    def acceptances(self) -> Acceptances:
        """Return the accepted changes that this process has read."""
        return self._opened.acceptances

    def try_earlier(self, cached: MemoizedFunction, key: Key, wanted: int, /) -> None:
        """Start to compare misses of a function with results of earlier code.

        Args:
            cached: the function.
            key: the key of a call.
            wanted: how many calls must be equal.
        """
        from cacheness.memoize.accept import NEWEST, Acceptor, why_never

        known = {one.old: one for one in self.acceptances.of(key.fingerprint)}
        revoked = {one.old: one for one in self.acceptances.revoked(key.fingerprint)}
        if not why_never(cached, self.disputed_functions()):
            acceptor = Acceptor(self, cached)
            for one in acceptor.earlier(None, 1, NEWEST):
                if one.fingerprint in known:
                    acceptor.watch_for(known[one.fingerprint])
                elif one.fingerprint in revoked:
                    self.acceptances.log_revoked(revoked[one.fingerprint])
                else:
                    acceptor.begin(one, wanted)

    def collect_evidence(self, function: Callable[..., Any], earlier: bytes, parameters: str, /) -> CollectedEvidence:
        """Start to compare the caller's calls with results of earlier code.

        Args:
            function: the function.
            earlier: the fingerprint of the earlier code.
            parameters: the digest of its parameters.
        """
        self._require_writing("accept")
        with forks.no_fork():
            from cacheness.memoize.collected import CollectedEvidence

        return CollectedEvidence(self, self._as_cached_here(function), earlier, parameters)

    def disputed_functions(self) -> frozenset[str]:
        """Return the functions with disputed results."""
        return frozenset(one.function for one in self.disputes())

    def result_of(self, entry: Entry, /) -> Hit | None:
        """Return the result of an entry, or of its replacement.

        It is None if that is not served.

        Args:
            entry: the entry.
        """
        return self._store.lookup(entry.key)

    def value_with(self, digest: bytes, /) -> Hit | None:
        """Return a result whose value has a digest as an argument.

        Args:
            digest: 32 bytes.
        """
        found = (self.result_of(entry) for entry in self._with_values([digest]).get(digest, ()))
        return next((hit for hit in found if hit is not None), None)

    def _plan_of(self, decorated: Callable[..., Any]) -> FunctionPlan:
        with forks.no_fork():
            from cacheness.memoize.plan import plan_of, version_of

        function, version = version_of(decorated)
        known = [] if self._is_off else self.acceptances.every()
        accepted = {(one.new, one.old) for one in known if memoize.acceptances.change_of(one).state == "accepted"}
        entries = self.iter_entries(function=function)
        disputed = set() if self._is_off else {one.key for one in self.disputes()}
        return plan_of(
            function,
            version,
            entries,
            self.code_of,
            accepted=accepted,
            why_not=lambda entry: DISPUTED if entry.key in disputed else self._store.why_not_served(entry),
            present=self.present,
        )

    @property
    def compute_leases(self) -> ComputeLeases:
        """Return the compute leases, for callers that compute outside of `cached`."""
        self._require_writing("compute_leases")
        return self._opened.compute_leases

    # the store

    def list_entries(
        self,
        *,
        tag: str | None = None,
        function: str | Callable[..., Any] | None = None,
        prefix: str | None = None,
        older_than: Duration | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """Return entries as dictionaries. `put(**entry["args"])` makes the same key.

        They are in the order of their keys; selected by function, in that of functions, each with its newest first;
        selected by age, newest first.
        """
        where = self._where(tag, self._called(function), prefix, older_than)
        entries = list(islice(self._entries(where, PAGE if limit is None else limit), limit))
        return self.describe(entries)

    def describe(self, entries: Iterable[Entry]) -> list[dict[str, Any]]:
        """Return entries as dictionaries, as `list_entries` does.

        They have their uses, and the code that made them.

        Args:
            entries: the entries.
        """
        shown = list(entries)
        if not shown:
            return []
        used = self._store.metadata.uses(self.config.namespace, [entry.key for entry in shown])
        codes = {digest: code.as_dict() for digest, code in self.code_of(shown).items()}
        return [
            entry.as_dict()
            | used.get(entry.key, Use(entry.created_at, 0)).as_dict()
            | {"code": None if entry.fn is None else codes.get(entry.fn)}
            for entry in shown
        ]

    def code_of(self, entries: Iterable[Entry]) -> dict[bytes, FunctionCode]:
        """Return the code that made entries, by their `fn`.

        The code need not exist any more.

        Args:
            entries: the entries. Their signatures verify it; entries put by hand, or with a `version`, name no code.
        """
        return {} if self._is_off else self._store.code_of(entries)

    def iter_entries(
        self,
        *,
        tag: str | None = None,
        function: str | Callable[..., Any] | None = None,
        prefix: str | None = None,
        older_than: Duration | None = None,
        limit: int | None = None,
    ) -> Iterator[Entry]:
        """Iterate over genuine entries that have not expired.

        They have the order of `list_entries`.
        """
        where = self._where(tag, self._called(function), prefix, older_than)
        return islice(self._entries(where, PAGE if limit is None else limit), limit)

    def entry(self, key: KeyLike, /) -> Entry | None:
        """Return an entry, expired or not, without reading its value.

        It is None if there is no entry.

        For a key as text, the first digits are enough, at least four, if only one entry begins with them. They may be
        in upper case.

        Raises:
            ValueError: several entries begin with these digits, or they are not digits of a key.
        """
        key = first_digits(key) if isinstance(key, str) else key
        if not isinstance(key, str) or len(key) == 64:
            where = Where(self.config.namespace, keys=(digest_named(key),))
            return next(iter(self._store.metadata.scan(where, limit=1)), None)  # also one that is disputed
        before = int(key.ljust(64, "0"), 16) - 1
        after = before.to_bytes(32, "big") if before >= 0 else b""
        found = self._store.metadata.scan(Where(self.config.namespace), after=after, limit=2)
        named = [entry for entry in found if entry.cache_key.startswith(key)]
        if len(named) > 1:
            raise ValueError(f"several entries begin with {key}: {named[0].cache_key}, {named[1].cache_key} …")
        return named[0] if named else None

    def value_of(self, entry: Entry, /) -> Any:
        """Return the value of an entry for inspection.

        That counts neither as a call nor as a use.

        Args:
            entry: the entry.

        Raises:
            CachenessError: it cannot be read, or not in this process.
        """
        return self._store.value_of(entry)

    def why_not_served(self, entry: Entry) -> str:
        """Return why an entry is not served now, or "".

        It may be disputed or have expired, for example.

        Checks its row, its signature and the files that its function wrote; its blob is not read.

        Args:
            entry: the entry.
        """
        if not self._store.is_genuine(entry):
            return UNKNOWN_SIGNER
        if self.disputes([entry.key.hex()]):
            return DISPUTED
        return self._store.why_not_served(entry)

    def functions(self) -> list[str]:
        """Return the functions that have entries here, as module:qualified name, sorted."""
        return [] if self._is_off else self._store.metadata.functions(self.config.namespace)

    def delete_matching(
        self,
        *,
        tag: str | None = None,
        function: str | Callable[..., Any] | None = None,
        prefix: str | None = None,
        older_than: Duration | None = None,
        dry_run: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Delete the entries that match every given condition.

        Args:
            function: a function or its name; "module:" selects all functions of a module.
            dry_run: count them, and delete nothing.
            progress: called with the number of deleted entries, and how many of the 256 shards were read.

        Returns:
            How many entries were deleted, or would be.

        Raises:
            TypeError: no condition is given; `clear` deletes everything.
            ValueError: several functions have this name; the message lists them.
        """
        if not dry_run:
            self._require_writing("delete_matching")
        if all(condition is None for condition in (tag, function, prefix, older_than)):
            raise TypeError("delete_matching needs a tag, function, prefix or older_than; clear() deletes everything")
        names = self._called(function)
        if isinstance(function, str):
            names = one_function(function, names or ())
        where = self._where(tag, names, prefix, older_than)
        return sum(1 for _ in self._entries(where, PAGE)) if dry_run else self._delete(where, progress)

    def deep_checks(self) -> dict[int, datetime]:
        """Return when each shard was last read in full, in UTC.

        Deep checks and repairs read shards.
        """
        times = self._store.metadata.check_times(self.config.namespace)
        return {shard: datetime.fromtimestamp(at / MICROSECONDS, UTC) for shard, at in times.items()}

    def verify_integrity(
        self,
        repair: bool = False,
        deep: bool = False,
        *,
        shard: int | None = None,
        sample: float = 1.0,
        force: bool = False,
        progress: Progress | None = None,
    ) -> IntegrityReport:
        """Compare rows with blobs, and report every difference.

        A check changes nothing. A repair is safe while writers, readers and other repairs run.

        Args:
            repair: fix what is safe to fix.
            deep: read every blob too, least recently read first; continues after an interrupted call.
            shard: check only the keys that begin with this byte, 0 to 255.
            sample: with `deep`, the share of blobs to read: 0.1 reads the next tenth.
            force: repair however much is wrong; after `adopt`, delete also blobs whose sessions this database does not
                know.
            progress: called with (blobs, entries) so far.

        Returns:
            The report; its `len()` is the number of issues.

        Raises:
            RepairRefused: more is wrong than a working store can have, or the blob store belongs to another database.
            ValueError: `shard` or `sample` is out of its range.
        """
        if not 0 < sample <= 1 or (shard is not None and not 0 <= shard <= 255):
            raise ValueError(f"sample={sample!r} must be in (0, 1], and shard={shard!r} from 0 to 255")
        if repair:
            self._require_writing("verify_integrity(repair=True)")
        scope = maintenance.comparison.Scope(self.config.namespace, shard=shard)
        inspector = self._opened.inspector
        look = partial(inspector.repair, force=force) if repair else inspector.check
        damage = [] if repair else inspector.damage(scope, whole=deep)
        report = maintenance.report.IntegrityReport(tuple(damage), 0, 0, repaired=repair)
        try:
            report += look(scope, progress=progress)
            if deep:
                broken = inspector.read_all(scope, repair=repair, force=force, sample=sample, progress=progress)
                # The first pass has reported and repaired these.
                reported = {issue.subject for issue in report}
                report = report.with_issues(issue for issue in broken if issue.subject not in reported)
        except StoreRefused:
            if not damage:
                raise
        return report

    def stats(self) -> dict[str, Any]:
        """Return what the namespace holds, and how it was used.

        Returns:
            entries and bytes, including expired ones that are not deleted yet; of all calls ever
            counted calls, hits, misses, waited, not_cacheable and failed, the share of hits among
            those that looked for a result (hit_rate, None before the first), seconds_saved and
            bytes_saved: the cost of the hits' results, and the stored bytes that hits read. With
            `near=` also near: the bytes of all copies, and how many blobs this process read from
            copies and from the remote store.
        """
        return self.overview().stats

    def overview(self) -> Overview:
        """Return `stats()` and a report of all calls, from one read."""
        cache = self._store
        cache.uses.flush()
        totals = cache.metadata.totals(self.config.namespace)
        activity = cache.metadata.activity(self.config.namespace)
        ever = maintenance.activity.Report.of(activity, "outcome").total
        near = {"near": cache.blobs.stats()} if isinstance(cache.blobs, NearBlobStore) else {}
        stats = near | {
            "entries": totals.entries,
            "bytes": totals.bytes,
            "calls": ever.calls,
            "hits": ever.hits,
            "misses": ever.misses,
            "waited": ever.waited,
            "not_cacheable": ever.not_cacheable,
            "failed": ever.failed,
            "hit_rate": ever.hit_rate,
            "seconds_saved": ever.seconds_saved,
            "bytes_saved": ever.bytes_saved,
        }
        return maintenance.activity.Overview(stats, tuple(activity))

    def evict(self, *, progress: EvictionProgress | None = None) -> int:
        """Delete expired entries, and as many others as the quota requires.

        Args:
            progress: called with the number of deleted entries, and about how many are left to
                delete, or None if unknown.

        Returns:
            How many entries were deleted.
        """
        self._require_writing("evict")
        return self._opened.evictor.make_room(progress)

    def evictable(self) -> int:
        """Return about how many entries `evict` would delete now."""
        return self._opened.evictor.would_delete()

    def diagnose(self) -> list[Finding]:
        """Test each part of the store.

        If the mode writes, it puts, reads and deletes results.

        Returns:
            The result for each part, and what to do about failures.
        """
        with forks.no_fork():
            from cacheness.maintenance.doctor import diagnose

        return diagnose(self._store, self.config)

    def signers(self) -> list[Signer]:
        """Return the keys of this cache and those that entries name.

        Each has the number of its entries, so every row is read.
        """
        return maintenance.signers.signers(self._store)

    def sign_again(self, *, dry_run: bool = False, progress: Callable[[int, int], None] | None = None) -> int:
        """Sign entries of other trusted keys with the first own key.

        It is the first key of `signing_key`.

        Args:
            dry_run: only count them.
            progress: called with the numbers of entries that were checked and signed so far.

        Returns:
            How many entries were signed.

        Raises:
            ConfigError: this cache has no key to sign with.
        """
        self._require_writing("sign_again")
        return maintenance.signers.sign_again(self._store, dry_run=dry_run, progress=progress)

    def adopt(self) -> int:
        """Make this database the owner of the blob store.

        It is needed after a clone, a restore or a move.

        Returns:
            How many blobs neither an entry nor a session of this database names: a lost database
            left them, or another one still uses them. A repair reports them, and with `force`
            deletes them.
        """
        self._require_writing("adopt")
        return self._opened.inspector.adopt()

    def now(self) -> float:
        """Return the time by the database's clock, in seconds since 1970."""
        metadata = self._store.metadata
        metadata.measure_clock()
        return metadata.now() / MICROSECONDS

    def clear(self, *, progress: Callable[[int, int], None] | None = None) -> int:
        """Delete every entry of the namespace.

        Args:
            progress: called with the number of deleted entries, and how many of the 256 shards were read.

        Returns:
            How many entries were deleted.
        """
        self._require_writing("clear")
        gone = self._delete(Where(self.config.namespace), progress)
        self._store.metadata.delete_unstored(self.config.namespace, -MICROSECONDS)
        return gone

    def _delete(self, where: Where, progress: Callable[[int, int], None] | None) -> int:
        if progress is None:
            return self._store.delete(where)
        gone = 0
        for shard in range(maintenance.comparison.SHARDS):
            gone += self._store.delete(replace(where, shard=shard))
            progress(gone, shard + 1)
        return gone

    @property
    def store_id(self) -> str:
        """Return the random id of the database, set at its creation."""
        if not self._store_id:
            self._store_id = self._store.metadata.identity().store_id
        return self._store_id

    @property
    def namespace(self) -> str:
        """Return the namespace of this cache's results."""
        return self.config.namespace

    @property
    def is_open(self) -> bool:
        """Return True until this cache is closed."""
        return self._finalizer.alive

    def close(self) -> None:
        """Close this cache. It may be called twice.

        The last cache of a process with this configuration ends its session.
        """
        if self._finalizer.detach() is not None:
            factory.release(self._slot)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.config,))

    def __cacheness_key__(self) -> None:
        """Count as nothing in keys: a cache decides no result."""

    def __repr__(self) -> str:
        return f"UnifiedCache({', '.join(f'{name}={value!r}' for name, value in self._chosen().items())})"

    def _repr_html_(self) -> str:
        said: dict[str, object] = dict(self._chosen())
        try:
            stats = self.stats()
            said |= stats | {
                "entries": f"{stats['entries']:,}",
                "bytes": bytes_named(stats["bytes"]),
                "hit_rate": "" if stats["hit_rate"] is None else f"{stats['hit_rate']:.0%}",
                "seconds_saved": seconds_named(stats["seconds_saved"]),
                "bytes_saved": bytes_named(stats["bytes_saved"]),
            }
        except CachenessError as error:
            said["not available"] = error
        return html.of_fields("UnifiedCache", said)

    def _chosen(self) -> dict[str, object]:
        """Return the cache's place, and the parameters that differ from their defaults, without secrets."""
        default = Config(check=0.0)  # the values of an open cache by default
        chosen: dict[str, object] = {"cache_dir": self.config.cache_dir}
        for parameter in fields(Config):
            value = getattr(self.config, parameter.name)
            if parameter.repr and parameter.name != "cache_dir" and value != getattr(default, parameter.name):
                chosen[parameter.name] = redacted(value) if isinstance(value, str) else value
        return chosen

    # internals

    def _counted(self, key: Key) -> Hit | None:
        batch = self._batch
        if batch is not None:
            batch.flush_if_it_holds(key.digest)
        if self._is_off:
            return None
        cache = self._opened.cache
        why: list[str] = []
        with telemetry.operation(telemetry.LOOKUP, namespace=self.config.namespace, function=key.function) as looking:
            hit = cache.lookup(key.digest, why)
            if hit is not None:
                outcome: Outcome = "near hit" if hit.near else "hit"
                looking.came_to(outcome, function=key.function or hit.entry.function)
                cache.uses.count_hit(hit.entry, outcome, function=key.function)
            else:
                looking.came_to("miss", why[-1] if why else "")
                cache.uses.count_calls(key.function, "miss", why[-1] if why else "")
        return hit

    @property
    def _store(self) -> Cache:
        return self._opened.cache

    def _hold(self) -> None:
        self._slot = factory.hold(self.config)
        self._finalizer = weakref.finalize(self, factory.drop, self._slot)
        self._finalizer.atexit = False  # the registry closes everything in that case
        caches.add(self)

    @property
    def _opened(self) -> factory.OpenCache:
        if not self._finalizer.alive:
            raise CacheClosed("this cache is closed: open another one")
        if self._is_off:
            raise ModeRefused("this cache was opened with mode='off', in which its stores are not used")
        opened = factory.opened(self._slot)
        if opened is None:
            self._hold()
            opened = factory.open_cache(self._slot)
        return opened

    @property
    def _is_off(self) -> bool:
        return self.config.mode == "off"

    def _require_writing(self, method: str) -> None:
        if self.config.mode not in WRITING:
            raise ModeRefused(
                f"mode={self.config.mode!r} changes nothing in the cache, and {method} would: open it with"
                " mode='readwrite', or look at CACHENESS_MODE"
            )

    @property
    def _batch(self) -> Batch | None:
        return self._local.batch

    def _publish(self, drafts: Sequence[Draft]) -> list[Entry]:
        opened = self._opened  # again, because a value may fork while it is encoded
        opened.evictor.before_put(drafts)
        began = time.monotonic()
        try:
            entries = opened.cache.publish(drafts)
        except StoreFull:
            if not opened.evictor.make_room():
                raise
            entries = opened.cache.publish(drafts)
        opened.evictor.after_put(entries, time.monotonic() - began)
        return entries

    def _publish_together(self, drafts: Sequence[Draft]) -> None:
        with telemetry.operation(telemetry.STORE, namespace=self.config.namespace) as storing:
            entries = self._publish(drafts)
            storing.came_to("stored", entries=len(entries), size=sum(entry.size for entry in entries))

    def _entries(self, where: Where, wanted: int) -> Iterator[Entry]:
        if self._is_off:
            return
        cache = self._store
        size = max(1, min(PAGE, wanted))
        for page in _pages(cache.metadata, where, size):
            yield from (entry for entry in page if cache.is_genuine(entry) and not cache.is_expired(entry))

    def _flush_if_it_holds(self, digest: bytes) -> None:
        if self._batch is not None:
            self._batch.flush_if_it_holds(digest)

    def _lifetime(self, ttl: Duration | None) -> float | None:
        ttl = self.config.ttl if ttl is None else ttl
        return None if ttl is None else lifetime_of(ttl)

    def _where(
        self,
        tag: str | None,
        functions: tuple[str, ...] | None,
        prefix: str | None,
        older_than: Duration | None,
    ) -> Where:
        age = None if older_than is None else int(seconds_of(older_than) * MICROSECONDS)
        return Where(self.config.namespace, tag=tag, functions=functions, prefix=prefix, older_than=age)

    def _called(self, function: str | Callable[..., Any] | None) -> tuple[str, ...] | None:
        """Return the full names of a function, or of all functions that a name selects."""
        if function is None:
            return None
        if not isinstance(function, str):
            if not callable(function):
                raise TypeError(f"function={function!r:.80} is neither a function nor the name of one")
            return (keys.name_of_function(function),)
        return (function,) if is_full_name(function) else functions_called(function, self.functions())


class _OfThread(threading.local):
    """The block of `write_batch` that a thread is in."""

    batch: Batch | None = None


def _check_sample(sample: object) -> None:
    if isinstance(sample, bool) or not isinstance(sample, int) or sample < 1:
        raise ValueError(
            f"sample={sample!r:.40} is not a number of calls to compare: give a whole number of at least 1"
        )


def _pages(metadata: MetadataStore, where: Where, size: int) -> Iterator[list[Entry]]:
    """Return matching entries in pages, by the index with the fewest rows."""
    if where.tag is not None or where.prefix or (where.functions is None and where.older_than is None):
        after = b""
        while page := metadata.scan(where, after=after, limit=size):
            yield page
            after = page[-1].key
        return
    for function in where.functions if where.functions is not None else (None,):
        one = where if function is None else replace(where, functions=(function,))
        before: tuple[int, bytes] | None = None
        while page := metadata.newest(one, before=before, limit=size):
            yield page
            before = page[-1].created_at, page[-1].key
