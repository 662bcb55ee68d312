"""The flow that checks or repairs a store by shards, and reports what it found.

A repair is safe while writers, readers and other repairs run, and idempotent: a run that was killed
leaves nothing to clean up, and the next one continues its work.
"""

from __future__ import annotations

import functools
import operator
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.futures import as_completed
from prefect.states import Failed
from prefect.types.entrypoint import EntrypointType

from cacheness import IntegrityReport
from cacheness.errors import CachenessError, ConfigError
from cacheness_prefect.error_reporting import shielded
from cacheness_prefect.figures_report import publish_figures
from cacheness_prefect.repair_artifacts import Page
from cacheness_prefect.storage import CachenessStorage

SHARDS = 256  #: by the first byte of the key
UPDATE_EVERY = 2.0  #: seconds
NOTHING = IntegrityReport((), 0, 0, repaired=True)

Mode = Literal["check", "repair"]


@task(name="look-at-shards", cache_policy=NO_CACHE, persist_result=False)
def look_at_shards(
    storage: CachenessStorage, shards: Sequence[int], mode: Mode, deep: bool, force: bool
) -> IntegrityReport:
    """Check or repair some of the 256 shards of a store."""
    report = NOTHING
    try:
        cache = storage.open()
        for shard in shards:
            report += cache.verify_integrity(repair=mode == "repair", deep=deep, shard=shard, force=force)
    except CachenessError as error:
        # Raised, it would print the tracebacks of its causes, sixteen times when the database is down.
        return cast("IntegrityReport", Failed(message=str(error), data=error))
    return report


@flow(name="cacheness-integrity-repair", description="Check or repair a cacheness store, and report what was found.")
def integrity_repair(
    storage: CachenessStorage | str,
    mode: Mode = "check",
    deep: bool = False,
    tasks: int = 16,
    force: bool = False,
) -> dict[str, Any]:
    """Check or repair a whole store, in several tasks on any task runner.

    Args:
        storage: a saved block or its name.
        mode: "check" changes nothing; "repair" also repairs what was found, and deletes expired
            results and those over the quota.
        deep: read every blob.
        tasks: how many tasks the store is divided among.
        force: repair however much is wrong.

    Returns:
        How many issues of each kind were found.

    Raises:
        RepairRefused: more is wrong than a working store can have.
    """
    try:
        block = _load(storage)
    except ConfigError as error:
        return cast("dict[str, Any]", Failed(message=str(error), data=error))
    page = Page(block.saved_as or block.namespace, mode)
    parts = _parts(tasks)
    looked = 0.5 if mode == "repair" else 1.0
    seen, errors = _side_by_side(block, parts, "check", page.phase(0.0, looked), deep=deep)
    expired = 0
    if mode == "repair" and not errors:
        try:
            if not force:
                _sum(seen).require_plausible()
            wanting = {number: part for number, part in parts.items() if seen[number] or number == 0}
            repaired, errors = _side_by_side(block, wanting, "repair", page.phase(looked, 0.9), deep=deep, force=force)
            seen |= repaired
            # Whatever its lifetime, a result stays in the database and the bucket until it is deleted.
            expired = 0 if errors else _evict(block, page.phase(0.9, 1.0))
        except CachenessError as error:
            errors = [error]
    report = _sum(seen)
    disputed = Counter[str]()
    if not errors:
        disputed = shielded("list disputes", lambda: _disputed(block), disputed)
    page.publish(report, errors, expired, disputed)
    shielded("report what calls came to", lambda: publish_figures(block.open(), page.label), None)
    if errors:
        return cast("dict[str, Any]", Failed(message=str(errors[0]), data=errors[0]))
    totals = {"entries": report.entries, "blobs": report.blobs, "expired": expired}
    return {"issues": len(report), **totals, **report.counts()}


def repair_deployment(
    storage: CachenessStorage | str,
    *,
    cron: str | None = "0 3 * * *",
    mode: Mode = "repair",
    deep: bool = False,
    name: str | None = None,
    **options: Any,
) -> RunnerDeployment:
    """Return a deployment of the repair flow: `serve(repair_deployment("cacheness-storage/shared"))`.

    Runs do not overlap: one that is due while another still runs is cancelled.

    Args:
        storage: a saved block or its name.
        cron: when it runs; None for no schedule.
        mode: as in `integrity_repair`.
        deep: as in `integrity_repair`.
        name: of the deployment; None for the storage's name.
        options: passed to `RunnerDeployment.from_flow`.
    """
    reference = _reference(storage)
    parameters = {"storage": reference, "mode": mode, "deep": deep}
    return RunnerDeployment.from_flow(
        integrity_repair,
        name or reference.rpartition("/")[2],
        cron=cron,
        parameters=parameters,
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        entrypoint_type=EntrypointType.MODULE_PATH,
        **options,
    )


def _disputed(block: CachenessStorage) -> Counter[str]:
    return Counter(one.function or "keys of other policies" for one in block.open().disputes())


def _evict(block: CachenessStorage, advance: Callable[[float], None]) -> int:
    def show(gone: int, to_go: int | None) -> None:
        if to_go is not None:
            advance(gone / (gone + to_go) if to_go else 1.0)

    return block.open().evict(progress=_now_and_then(show))


def _now_and_then(show: Callable[[int, int | None], None]) -> Callable[[int, int | None], None]:
    """Called at most every few seconds, because each update is a request to Prefect's server."""
    shown = float("-inf")

    def seldom(gone: int, to_go: int | None) -> None:
        nonlocal shown
        if time.monotonic() - shown > UPDATE_EVERY or to_go == 0:
            shown = time.monotonic()
            show(gone, to_go)

    return seldom


def _parts(tasks: int) -> dict[int, Sequence[int]]:
    """Return the shards of each task. A repair's first shard writes the store's marker, which all others read."""
    rest = range(1, SHARDS)
    return {0: [0], **{1 + part: rest[part::tasks] for part in range(min(tasks, len(rest)))}}


def _side_by_side(
    block: CachenessStorage,
    parts: Mapping[int, Sequence[int]],
    mode: Mode,
    advance: Callable[[float], None],
    *,
    deep: bool,
    force: bool = False,
) -> tuple[dict[int, IntegrityReport], list[CachenessError]]:
    """Return the report of each part, and errors of parts without one.

    Part 0 runs alone; if it fails, no other starts.
    """
    reports: dict[int, IntegrityReport] = {}
    errors: list[CachenessError] = []
    for several in ([0], [number for number in parts if number]):
        futures = {}
        for number in several:
            named = look_at_shards.with_options(task_run_name=f"{mode}-part-{number}")
            futures[named.submit(block, list(parts[number]), mode, deep, force)] = number
        for future in as_completed(list(futures)):
            try:
                reports[futures[future]] = future.result()
            except CachenessError as error:
                errors.append(error)
            advance((len(reports) + len(errors)) / len(parts))
        if errors:
            break
    return reports, errors


def _sum(reports: Mapping[int, IntegrityReport]) -> IntegrityReport:
    return functools.reduce(operator.add, (reports[number] for number in sorted(reports)), NOTHING)


def _load(storage: CachenessStorage | str) -> CachenessStorage:
    if isinstance(storage, CachenessStorage):
        return storage
    name = storage.removeprefix(f"{CachenessStorage.get_block_type_slug()}/")
    load: Any = CachenessStorage.load  # its type hides that it can be called synchronously
    try:
        return cast("CachenessStorage", load(name, _sync=True))
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(
            f"there is no Cacheness Storage block named {name!r} on this Prefect server: save it once, with"
            f" CachenessStorage(...).save({name!r}), or in the UI under Blocks"
        ) from error


def _reference(storage: CachenessStorage | str) -> str:
    if isinstance(storage, str):
        return storage
    if storage.saved_as is None:
        raise ConfigError("a deployment finds its storage by name: save the block first, store.save('shared')")
    return f"{storage.get_block_type_slug()}/{storage.saved_as}"
