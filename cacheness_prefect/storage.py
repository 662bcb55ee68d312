"""The block that users configure: stores results in a cacheness cache, finds and deletes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from prefect import Flow, Task

from cacheness import AcceptedChange, NotAccepted
from cacheness.incomplete import Incomplete
from cacheness.options import checked, flag
from cacheness.units import Duration
from cacheness_prefect.audit import Same
from cacheness_prefect.block import CachenessBlock
from cacheness_prefect.earlier_code import function_of
from cacheness_prefect.key_storage import CachenessKeys
from cacheness_prefect.policy import CachenessPolicy, make_policy, options_of
from cacheness_prefect.run_metadata import PREFIX, address


class CachenessStorage(CachenessBlock):
    """Stores the results of tasks in a cache.

    The fields are the parameters of `cacheness.UnifiedCache`. The block contains only
    configuration; each process opens its connections once.
    """

    _block_type_name = "Cacheness Storage"
    _block_type_slug = "cacheness-storage"
    _description = "Keeps task results in a cacheness cache: computed once, read anywhere, verified, or a clean miss."
    _code_example = """
```python
from prefect import task
from cacheness_prefect import CachenessStorage

store = CachenessStorage.load("BLOCK_NAME")

@task(cache_policy=store.policy())
def clean(day: str): ...
```
"""

    # Not `keys`: Prefect walks a task's arguments with dict(block), which would treat the block as a mapping.
    def key_storage(self) -> CachenessKeys:
        """The key storage that belongs to this storage, for `policy.configure(key_storage=...)`."""
        fields = {name: getattr(self, name) for name in CachenessStorage.model_fields}
        keys = CachenessKeys(**fields)
        keys._since = self._since  # noqa: SLF001  fields that are not configuration
        return keys

    def policy(
        self,
        *,
        version: str | None = None,
        ignore: Iterable[str] = (),
        code: bool = True,
        single_flight: bool = True,
        tags: Iterable[str] = (),
        wait: Duration = 600.0,
        lease: Duration | None = None,
        incomplete: Incomplete | None = None,
        check: float | None = None,
        accept: int | None = None,
        same: Same | None = None,
    ) -> CachenessPolicy:
        """Return a cache policy that stores results here.

        It makes keys from the values and the code of a task.

        Args:
            version: counts in place of the task's code.
            ignore: names of arguments that do not count.
            code: False leaves the code out of the key.
            single_flight: of several runs of one key at once, let one compute and the others wait.
            tags: names with which results are found and deleted.
            wait: how long to wait for another run: seconds, a timedelta, or text such as "1h".
            lease: how long until the lease of a dead run ends; None for the block's setting.
            incomplete: for a task whose key is incomplete: "warn" in the run's log and cache it,
                "serve" to cache it silently, "refuse" not to cache it; None for the block's
                setting.
            check: share, 0 to 1, of cached runs that compute anyway and compare: a result that
                differs is disputed, and not served until `cacheness disputes` settles it; None for
                the block's share.
            accept: runs of changed code that are compared, as they miss, with results of earlier
                code; after so many equal ones, the rest is cached by them.
            same: called with the stored result and a computed one; returns True when they are equal.

        Raises:
            ConfigError: an option cannot be used.
        """
        return make_policy(
            self,
            self.key_storage(),
            version=checked("version", version, optional=True),
            ignore=checked("ignore", ignore),
            code=checked("code", code, flag),
            tags=checked("tags", tags),
            single_flight=checked("single_flight", single_flight),
            wait=checked("wait", wait),
            lease=checked("lease", self.lease if lease is None else lease),
            incomplete=checked("incomplete", self.incomplete if incomplete is None else incomplete),
            check=checked("check", check, optional=True),
            accept=checked("accept", accept, optional=True),
            same=checked("same", same, optional=True),
        )

    # methods for users

    def invalidate(
        self,
        *,
        key: str | None = None,
        task: Task[..., Any] | str | None = None,
        flow: Flow[..., Any] | str | None = None,
        deployment: str | UUID | None = None,
        tag: str | None = None,
        older_than: Duration | None = None,
    ) -> int:
        """Delete the results that match every given condition.

        Args:
            key: Prefect's key of a result.
            task: a task or its name.
            flow: a flow or its name.
            deployment: an id, or "flow/deployment".
            tag: a tag of the results.
            older_than: how long ago they were stored: seconds, a timedelta, or text such as "1 day".

        Returns:
            How many results were deleted.

        Raises:
            TypeError: no condition is given.
        """
        if key is not None:
            if (task, flow, deployment, tag, older_than) != (None,) * 5:
                raise TypeError("a key names one result; give it alone")
            return int(self.open().invalidate(address(key)))
        wanted = [] if tag is None else [tag]
        wanted += [] if task is None else [f"task:{_name(task)}"]
        wanted += [] if flow is None else [f"flow:{_name(flow)}"]
        wanted += [] if deployment is None else [f"deployment:{_deployment_id(deployment)}"]
        if not wanted and older_than is None:
            raise TypeError("invalidate needs a key, task, flow, deployment, tag or older_than")
        return self._delete(wanted or [PREFIX], older_than)

    def _delete(self, tags: Sequence[str], older_than: Duration | None) -> int:
        cache = self.open()
        if len(tags) == 1:
            return cache.delete_matching(tag=tags[0], older_than=older_than)
        entries = list(cache.iter_entries(tag=tags[0], older_than=older_than))
        return sum(cache.invalidate(e.cache_key) for e in entries if set(tags) <= set(e.tags))

    def explain(self, task: Task[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Return why a call of a task would miss, without running it.

        The reason is what has changed since the nearest earlier result.

        It supports tasks whose cache policy is a `CachenessPolicy` alone.

        Args:
            task: the task.
            args: arguments of the call.
            kwargs: arguments of the call, by name.
        """
        cached: Any = self.open().cached
        return cached(task.fn, prefix=PREFIX, **options_of(task)).explain(*args, **kwargs)

    def accept(
        self,
        task: Task[..., Any],
        /,
        *,
        sample: int = 200,
        former: str | None = None,
        renamed: Mapping[str, str] | None = None,
        upgrade: str = "",
        python: bool = False,
        force: bool = False,
    ) -> list[AcceptedChange]:
        """Accept results of a task's earlier code for today's code.

        Stored calls are repeated, and their results must be equal.

        Stored calls are repeated by calling the task's function, outside of any run; their results
        are not stored. For tasks whose cache policy is a `CachenessPolicy` alone.

        Args:
            task: the task.
            sample: how many calls of each earlier code are compared, chosen at random.
            former: the function's former name, as module:qualified name, if its code changed, too.
            renamed: renamed parameters: new name -> old name.
            upgrade: accept earlier code only if nothing but the version of this library changed.
            python: … or nothing but the version of Python.
            force: accept also if lines of changed functions did not run, or few calls can be compared.

        Raises:
            NotAccepted: there is nothing to compare, or changes of such a task are never accepted.
        """
        if task.result_serializer is not None:
            raise NotAccepted(
                f"the results of task {task.name!r} cannot be compared: its result_serializer encodes them"
            )
        function = function_of(self, task, **options_of(task))
        return self.open().accept(
            function, sample=sample, former=former, renamed=renamed, upgrade=upgrade, python=python, force=force
        )


def _name(thing: Any) -> str:
    return thing if isinstance(thing, str) else str(thing.name)


def _deployment_id(deployment: str | UUID) -> str:
    if isinstance(deployment, UUID) or "/" not in deployment:
        return str(deployment)
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return str(client.read_deployment_by_name(deployment).id)
