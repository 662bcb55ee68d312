"""Cache keys that cover everything that decides a result: the values, and the code with all it calls."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, cast

import prefect
from prefect.cache_policies import CachePolicy, CompoundCachePolicy, Inputs
from prefect.context import TaskRunContext

from cacheness import Digest, Key, UnhashableArgument
from cacheness.incomplete import Incomplete, may_cache, quote
from cacheness.isolation import computing_elsewhere
from cacheness.keys import covers, digest_of, make_key
from cacheness.records import Presence
from cacheness_prefect.audit import RunAudit, Same
from cacheness_prefect.block import CachenessBlock
from cacheness_prefect.earlier_code import Comparison, of_earlier_code
from cacheness_prefect.error_reporting import run_id, shielded, warn
from cacheness_prefect.key_storage import CachenessKeys
from cacheness_prefect.locks import CachenessLockManager
from cacheness_prefect.results import Making, PolicyResultStore
from cacheness_prefect.run_metadata import PREFIX
from cacheness_prefect.serializers import CachenessSerializer


@dataclass
class CachenessPolicy(CachePolicy):
    """The cache policy that `CachenessStorage.policy()` returns.

    It contains only configuration, so it can be sent to any worker.

    The results of a task with this policy are stored in `store`, encoded by the cache, unless the
    task itself has a `result_storage` or `result_serializer`. Without a store the policy only makes
    keys.
    """

    store: CachenessBlock | None = None  #: where the results are stored
    version: str | None = None  #: counts in place of the code
    ignore: tuple[str, ...] = ()  #: names of arguments that do not count
    code: bool = True  #: whether the code counts
    tags: tuple[str, ...] = ()  #: names with which results are found and deleted
    incomplete: Incomplete = "warn"  #: what to do if the key is incomplete
    check: float | None = None  #: share of cached runs that compute again and compare; None: the store's share
    accept: int | None = None  #: runs that are compared, as they miss, before results of earlier code count
    same: Same | None = None  #: called with the stored result and a computed one; returns whether they are equal

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """Return the key of a task run, for Prefect.

        Args:
            task_ctx: the run's context.
            inputs: the arguments, by name.
            flow_parameters: not used.
            kwargs: not used.

        Returns:
            64 hexadecimal digits; None, with a warning, if an argument has no encoding.
        """
        policy: object = task_ctx.task.cache_policy
        if self.store is not None and self.store.config().mode == "off":
            # In a sum, the other parts would make a key without the values.
            return None if policy is self else uuid.uuid4().hex
        if policy is not self:
            # In a sum, None means "no part of the key", so the values would be left out. Prefect logs what is raised.
            return self._make_key(task_ctx, inputs)
        return shielded("make a key", lambda: self._make_key(task_ctx, inputs), None)

    def _make_key(self, task_ctx: TaskRunContext, inputs: Mapping[str, Any]) -> str:
        task: prefect.Task[..., Any] = task_ctx.task
        key = self.key(task, inputs, ignore=_left_out(task.cache_policy))
        self._check_complete(task, key)
        if self.store is None:
            return key.hex
        store, found = self.store, _written_by_itself(self.store, key)
        earlier: Comparison | None = None
        if found is key and self.code:
            nothing: tuple[Key, Comparison | None] = (key, None)
            is_nested = "__parents__" in task_ctx.task_run.task_inputs
            look = partial(
                of_earlier_code, store, task, key, self._options(task), wanted=self.accept, is_nested=is_nested
            )
            found, earlier = shielded("look for earlier code", look, nothing)
        audit = self._audit(store, task, inputs, key) if found is key else None
        leaves_out = bool(self._options(task)["ignore"])
        making = Making.of(task.fn, key, found, tags=self.tags, audit=audit, earlier=earlier, leaves_out=leaves_out)
        self._take_over(
            task_ctx,
            store,
            making,
        )
        return found.hex

    def _options(self, task: prefect.Task[..., Any]) -> dict[str, Any]:
        """The options with which `UnifiedCache.cached` works like this policy."""
        left_out = tuple({*self.ignore, *_left_out(task.cache_policy)})
        return {"version": self.version, "ignore": left_out, "check": self.check, "same": self.same}

    def _audit(
        self, store: CachenessBlock, task: prefect.Task[..., Any], inputs: Mapping[str, Any], key: Key
    ) -> RunAudit | None:
        share = store.config().check if self.check is None else self.check
        if not share:
            return None
        again = partial(self.key, task, inputs, ignore=_left_out(task.cache_policy))
        return RunAudit(
            store=store,
            fn=task.fn,
            name=task.name,
            key=key,
            make_key=again,
            share=share,
            is_own=self.check is not None,
            same=self.same,
        )

    def key(self, task: prefect.Task[..., Any], inputs: Mapping[str, Any], *, ignore: Iterable[str] = ()) -> Key:
        """Return the key of one call.

        Args:
            task: the task.
            inputs: the arguments, by name.
            ignore: names of arguments that do not count, besides those of the policy.
        """
        left_out = {*self.ignore, *ignore}
        return make_key(
            args={name: value for name, value in inputs.items() if name not in left_out},
            prefix=PREFIX,
            version=self.version,
            function=task.fn if self.code else Digest(digest_of(task.name), task.name),
        )

    def _check_complete(self, task: prefect.Task[..., Any], key: Key) -> None:
        unseen = key.incomplete
        name = f"task {task.name!r}"
        if not may_cache(self.incomplete, name, unseen, warn, run_id()):
            raise UnhashableArgument(f"the key of {name} is incomplete: {quote(unseen)}")

    def __sub__(self, other: str) -> CachePolicy:
        """Return the same policy, with one more argument that does not count."""
        if not isinstance(other, str):
            raise TypeError(f"only the name of an argument can be taken from a cache policy, not {other!r}")
        return replace(self, ignore=(*self.ignore, other))

    def _take_over(self, task_ctx: TaskRunContext, store: CachenessBlock, making: Making) -> None:
        # Prefect reads the result store from the context after it has asked for the key, in the
        # same expression. If a later version reads it earlier, the plain store is used, without the
        # run's details.
        task, results = task_ctx.task, task_ctx.result_store
        changes: dict[str, Any] = {}
        if task.result_storage is None:
            changes["result_storage"] = store
        if task.result_serializer is None:
            changes["serializer"] = CachenessSerializer()
        task_ctx.result_store = PolicyResultStore.around(results, making, **changes)


def _written_by_itself(store: CachenessBlock, key: Key) -> Key:
    """Return the key of an earlier run's result, if the task itself wrote files that it names."""
    texts = key.as_text()
    if not texts:
        return key
    there: dict[str, Presence] = shielded("look up a result", lambda: store.open().present([key, *texts.values()]), {})
    if key.hex in there:
        return key
    ours = (
        other
        for as_text, other in texts.items()
        if other.hex in there and covers(there[other.hex].outputs or "", key.inputs, as_text)
    )
    return next(ours, key)


def _minus(policy: CompoundCachePolicy, name: str) -> CachePolicy:
    """Return a sum of policies without an argument, in each part that has arguments."""
    less: Any = _prefects_minus(policy, name)
    if not any(isinstance(part, CachenessPolicy) for part in less.policies):
        return cast("CachePolicy", less)
    parts = [part - name if isinstance(part, CachenessPolicy) else part for part in less.policies]
    return cast("CachePolicy", replace(less, policies=parts))


# Prefect's own minus searches only its INPUTS, and does nothing without them. A class of our sums
# would not help, because `RUN_ID + store.policy()` is created by RUN_ID.
_prefects_minus: Final = CompoundCachePolicy.__sub__
CompoundCachePolicy.__sub__ = _minus  # type: ignore[method-assign]

_PLAIN = CachenessPolicy()


def _is_computing() -> bool:
    """Return True inside a task whose result depends on those of cached functions that it calls."""
    return TaskRunContext.get() is not None


computing_elsewhere["prefect"] = _is_computing


def make_policy(
    store: CachenessBlock, keys: CachenessKeys, *, single_flight: bool, wait: float, lease: float, **options: Any
) -> CachenessPolicy:
    """Make the policy for `CachenessStorage.policy`."""
    return CachenessPolicy(
        key_storage=keys,
        isolation_level="SERIALIZABLE" if single_flight else None,
        lock_manager=CachenessLockManager(store, wait=wait, lease=lease) if single_flight else None,
        store=store,
        **options,
    )


def cacheness_key(context: TaskRunContext, parameters: dict[str, Any]) -> str | None:
    """Return the key of a task's values and code, as a `cache_key_fn`.

    It needs no storage and no locks.

    For a task with a `cache_key_fn` Prefect drops the storage and the locks of its policy; set
    `result_storage=` on the task as well.

    Args:
        context: the run's context.
        parameters: the arguments, by name.

    Returns:
        64 hexadecimal digits; None, with a warning, if an argument has no encoding.
    """
    return shielded("make a key", lambda: _PLAIN.key(context.task, parameters).hex, None)


def options_of(task: prefect.Task[..., Any]) -> dict[str, Any]:
    """The options with which `UnifiedCache.cached` works like a task's policy."""
    policy: object = task.cache_policy
    parts = policy.policies if isinstance(policy, CompoundCachePolicy) else [policy]
    for part in parts:
        if isinstance(part, CachenessPolicy) and part.code:
            return part._options(task)  # noqa: SLF001  of this very module
    raise TypeError(f"the key of task {task.name!r} is not made by a CachenessPolicy with code=True")


def _left_out(policy: Any) -> set[str]:
    """Arguments that `(policy + INPUTS) - "name"` leaves out: Prefect records them only in `INPUTS`."""
    if not isinstance(policy, CompoundCachePolicy):
        return set()
    return {name for part in policy.policies if isinstance(part, Inputs) for name in part.exclude}
