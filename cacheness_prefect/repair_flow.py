"""The flow that keeps a store honest: checks or repairs it by shards, and tells what it found.

A repair is safe beside writers, readers and other repairs, and idempotent: a run that was killed
leaves nothing to clean up, and the next one does what it left undone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, cast

from prefect import flow, get_run_logger, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.events import emit_event
from prefect.futures import PrefectFuture, as_completed
from prefect.types.entrypoint import EntrypointType

from cacheness import IntegrityReport
from cacheness.errors import CachenessError, ConfigError
from cacheness_prefect.storage import CachenessStorage

SHARDS = 256  #: by the first byte of the key
LISTED = 200  #: findings that the table artifact spells out
FOUND = "cacheness.integrity.found"  #: the event that an automation can react to
CLEAN = "cacheness.integrity.clean"

_NAME = re.compile(r"([0-9a-f]{12})[0-9a-f]{52}[.0-9a-f]*")

Mode = Literal["check", "repair"]


@task(name="check-shards", cache_policy=NO_CACHE, persist_result=False, retries=2, retry_delay_seconds=1)
def check_shards(
    storage: CachenessStorage, shards: Sequence[int], mode: Mode, deep: bool, force: bool
) -> IntegrityReport:
    """Check or repair some of the 256 shards of a store."""
    cache = storage.open()
    report = IntegrityReport((), 0, 0, repaired=mode == "repair")
    for shard in shards:
        report += cache.verify_integrity(repair=mode == "repair", deep=deep, shard=shard, force=force)
    return report


@flow(name="cacheness-integrity-repair", description="Check or repair a cacheness store, and tell what was found.")
def integrity_repair(
    storage: CachenessStorage | str,
    mode: Mode = "check",
    deep: bool = False,
    tasks: int = 16,
    force: bool = False,
) -> dict[str, Any]:
    """Look at a whole store, in `tasks` parts side by side, on any task runner.

    `storage` is a saved block or its name. `check` changes nothing; `repair` also removes what has
    expired or exceeds the quota. `deep` reads every byte. `force` repairs even what looks too bad to
    be true. Returns the counts by kind of finding.
    """
    block = _load(storage)
    # Whatever its lifetime says, a result stays in the database and the bucket until somebody removes it.
    expired = block.open().evict() if mode == "repair" else 0
    progress = create_progress_artifact(progress=0.0, key="cacheness-progress", description=_title(block, mode))
    # The first shard of a repair writes the store's marker anew, and all of them read it.
    first = check_shards.submit(block, [0], mode, deep, force)
    first.wait()
    parts = [list(range(1, SHARDS))[start::tasks] for start in range(min(tasks, SHARDS - 1))]
    futures = [first, *(check_shards.submit(block, part, mode, deep, force) for part in parts)]
    report, errors = _collect(futures, mode, progress)
    _publish(block, mode, report, errors, expired)
    if errors:
        raise errors[0]
    looked = {"entries": report.entries, "objects": report.objects, "expired": expired}
    return {"findings": len(report), **looked, **report.counts()}


def repair_deployment(
    storage: CachenessStorage | str,
    *,
    cron: str | None = "0 3 * * *",
    mode: Mode = "repair",
    deep: bool = False,
    name: str | None = None,
    **options: Any,
) -> RunnerDeployment:
    """A deployment of the repair flow: `serve(repair_deployment("cacheness-storage/shared"))`.

    Named after its storage. Runs never overlap: one that is due while another still runs is
    cancelled. `options` go to `RunnerDeployment.from_flow`.
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


def _collect(
    futures: Sequence[PrefectFuture[IntegrityReport]], mode: Mode, progress: Any
) -> tuple[IntegrityReport, list[CachenessError]]:
    """The report of all parts, and what kept parts from reporting."""
    report = IntegrityReport((), 0, 0, repaired=mode == "repair")
    errors = []
    for done, future in enumerate(as_completed(list(futures)), start=1):
        try:
            report += future.result()
        except CachenessError as error:
            get_run_logger().error("A part of the store could not be looked at. %s", error)
            errors.append(error)
        update_progress_artifact(artifact_id=progress, progress=100.0 * done / len(futures))
    return report, errors


def _publish(
    block: CachenessStorage, mode: Mode, report: IntegrityReport, errors: Sequence[CachenessError], expired: int
) -> None:
    """Artifacts for people, an event for automations."""
    create_table_artifact(
        table=report.table()
        or [{"kind": "none", "found": 0, "repaired": 0, "bytes": 0, "meaning": "nothing is wrong"}],
        key="cacheness-findings",
        description=_title(block, mode),
    )
    create_markdown_artifact(markdown=_summary(_title(block, mode), report, errors, expired), key="cacheness-report")
    emit_event(
        FOUND if report else CLEAN,
        resource={"prefect.resource.id": f"cacheness.store.{_label(block)}", "prefect.resource.name": _label(block)},
        payload={
            "mode": mode,
            "entries": report.entries,
            "objects": report.objects,
            "expired": expired,
            "counts": report.counts(),
        },
    )


def _summary(title: str, report: IntegrityReport, errors: Sequence[CachenessError], expired: int) -> str:
    mended = sum(issue.repaired for issue in report)
    verdict = "No issues found." if not report else f"{len(report):,} issues found, {mended:,} repaired."
    lines = [f"# {title}", "", f"**{verdict}** {report.entries:,} entries, {report.objects:,} blobs."]
    if expired:
        lines.append(f"\n{expired:,} expired results were removed.")
    lines += [f"\n**A part could not be looked at:** {error}" for error in errors]
    if report:
        lines.append("")
        for issue in report.issues[:LISTED]:
            done = ", repaired" if issue.repaired else ""
            lines.append(
                f"- **{issue.kind}**{done}: {_brief(issue.detail)} ({issue.size:,} bytes)  \n  `{issue.subject}`"
            )
        if len(report) > LISTED:
            lines.append(f"\n… and {len(report) - LISTED:,} more.")
    return "\n".join(lines)


def _brief(detail: str) -> str:
    """Without the length of the names in it, which no page is wide enough for."""
    return _NAME.sub(r"\1…", detail).rstrip(".")


def _load(storage: CachenessStorage | str) -> CachenessStorage:
    if isinstance(storage, CachenessStorage):
        return storage
    name = storage.removeprefix(f"{CachenessStorage.get_block_type_slug()}/")
    load: Any = CachenessStorage.load  # its type hides that it can be told to be synchronous
    return cast("CachenessStorage", load(name, _sync=True))


def _reference(storage: CachenessStorage | str) -> str:
    if isinstance(storage, str):
        return storage
    if storage.saved_as is None:
        raise ConfigError("a deployment finds its storage by name: save the block first, store.save('shared')")
    return f"{storage.get_block_type_slug()}/{storage.saved_as}"


def _label(block: CachenessStorage) -> str:
    return block.saved_as or block.namespace


def _title(block: CachenessStorage, mode: Mode) -> str:
    return f"Integrity {mode} of {_label(block)}"
