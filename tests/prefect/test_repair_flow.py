"""The flow that checks and repairs a store: what it finds, tells, and leaves alone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import numpy as np
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.filters import EventFilter, EventNameFilter
from prefect.exceptions import ObjectNotFound

from cacheness import RepairRefused
from cacheness.testing.proxy import Proxy
from cacheness_prefect import CachenessStorage, integrity_repair, repair_deployment
from tests.conftest import SIGNING_KEY

T = TypeVar("T")

SESSION = "f" * 16  #: of nobody who ever wrote here


@pytest.fixture
def client(prefect_api) -> Any:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def damaged(make_store) -> CachenessStorage:
    """A store with one dangling entry and one corrupt one among twenty."""
    store = make_store(inline_max_bytes=0)
    for number in range(20):
        store.open().put(np.random.default_rng(number).random(1000), number=number)
    files = blobs(store)
    files[0].unlink()
    data = bytearray(files[1].read_bytes())
    data[500] ^= 1
    files[1].write_bytes(data)
    return store


def blobs(store: CachenessStorage) -> list[Path]:
    return sorted(path for path in Path(store.cache_dir, "blobs").rglob("*") if path.name.count(".") == 2)


def artifacts(client: SyncPrefectClient, key: str, store: CachenessStorage) -> list[dict[str, Any]]:
    """What runs of the flow left about one store."""
    found = client.request("POST", "/artifacts/filter", json={"artifacts": {"key": {"any_": [key]}}}).json()
    mine = [artifact for artifact in found if str(store.saved_as) in artifact["description"]]
    return sorted(mine, key=lambda artifact: artifact["created"])


def events(client: SyncPrefectClient, name: str, subject: str, patience: float = 30) -> list[dict[str, Any]]:
    """Events of one name about one subject; they take a moment to arrive."""
    deadline = time.monotonic() + patience
    while True:
        wanted = EventFilter(event=EventNameFilter(name=[name])).model_dump(mode="json")  # up to now
        found = client.request("POST", "/events/filter", json={"filter": wanted}).json()["events"]
        if about := [event for event in found if event["resource"]["prefect.resource.id"].endswith(subject)]:
            return about
        if time.monotonic() >= deadline:
            return []
        time.sleep(0.2)


def test_a_check_tells_and_changes_nothing_and_a_repair_mends(damaged, runner, client) -> None:
    flow = integrity_repair.with_options(task_runner=runner)
    found = {"issues": 3, "entries": 20, "blobs": 19, "expired": 0, "dangling": 1, "corrupt": 1, "foreign": 1}
    before = blobs(damaged)
    Path(damaged.cache_dir, "blobs", "a note for the team.txt").write_text("leave it alone")
    whole = damaged.open().verify_integrity(deep=True)
    assert flow(damaged, "check", deep=True, tasks=2) == found
    assert [whole.entries, whole.blobs, whole.counts()] == [20, 19, {"dangling": 1, "corrupt": 1, "foreign": 1}]
    told = artifacts(client, "cacheness-report", damaged)[-1]["data"]
    assert sorted(re.findall(r"^  `(.*)`$", told, re.MULTILINE)) == sorted(issue.subject for issue in whole)
    assert blobs(damaged) == before
    assert flow(f"cacheness-storage/{damaged.saved_as}", "repair", deep=True, tasks=2) == found
    assert len(blobs(damaged)) == 18
    assert damaged.open().verify_integrity(deep=True).counts() == {"foreign": 1}

    mine = [json.loads(artifact["data"]) for artifact in artifacts(client, "cacheness-issues", damaged)]
    assert [[row["kind"] for row in table] for table in mine] == [["dangling", "corrupt", "foreign"]] * 2
    assert [sum(row["repaired"] for row in table) for table in mine] == [0, 2]
    report = artifacts(client, "cacheness-report", damaged)[-1]["data"]
    assert "**3 issues found, 2 repaired.** Looked at 20 entries and 19 blobs." in report
    assert before[0].name.partition(".")[0] in report
    assert artifacts(client, "cacheness-progress", damaged)[-1]["data"] == 100.0
    told = events(client, "cacheness.integrity.found", damaged.saved_as)
    assert told[0]["payload"]["counts"] == {"dangling": 1, "corrupt": 1, "foreign": 1}


def test_the_orphan_of_a_killed_writer_is_repaired_and_a_living_writers_blob_is_not(store, client) -> None:
    script = """
import os, signal, sys
from cacheness import UnifiedCache
cache = UnifiedCache(cache_dir=sys.argv[1], inline_max_bytes=0)
cache.put(b"kept" * 1000, x=1)
cache._store.metadata.commit = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
cache.put(b"lost" * 1000, x=2)
"""
    killed = subprocess.run([sys.executable, "-c", script, store.cache_dir], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(blobs(store)) == 2
    assert integrity_repair(store, tasks=2)["orphaned"] == 1
    assert integrity_repair(store, "repair", tasks=2)["orphaned"] == 1
    assert len(blobs(store)) == 1
    assert integrity_repair(store, tasks=2)["issues"] == 0
    assert events(client, "cacheness.integrity.clean", store.saved_as)


def test_a_repair_removes_what_has_expired(make_store) -> None:
    store = make_store(inline_max_bytes=0)
    store.open().put(b"short" * 1000, life="short", ttl=0.01)
    store.open().put(b"long" * 1000, life="long", ttl=1000)
    time.sleep(0.05)
    assert integrity_repair(store, tasks=1)["entries"] == 2
    assert len(blobs(store)) == 2
    repaired = integrity_repair(store, "repair", tasks=1)
    assert (repaired["expired"], repaired["issues"]) == (1, 0)
    assert len(blobs(store)) == 1
    assert store.open().get(life="long") == b"long" * 1000


def test_too_much_damage_to_be_true_stops_a_repair_before_it_deletes_anything(make_store, client) -> None:
    store = make_store(inline_max_bytes=0)
    with store.open().write_batch():
        for number in range(120):
            store.open().put(b"lost" * 1000, number=number)
    store.open().put(b"short" * 1000, life="short", ttl=0.01)
    for path in blobs(store):
        path.unlink()
    with pytest.raises(RepairRefused, match="Nothing was deleted"):
        integrity_repair(store, "repair", tasks=2)
    assert len(store.open().list_entries()) >= 120, "no shard has too many, all of them have"
    (told,) = events(client, "cacheness.integrity.failed", store.saved_as)
    assert told["payload"]["counts"] == {"dangling": 121}
    assert "force=True" in told["payload"]["errors"][0]
    assert integrity_repair(store, "repair", tasks=2, force=True)["dangling"] == 121
    assert integrity_repair(store, tasks=2)["issues"] == 0


DOWN = """
import sys
from cacheness import CachenessError
from cacheness_prefect import integrity_repair
for name in sys.argv[1:]:
    try:
        integrity_repair(name, "repair", tasks=4)
    except CachenessError as error:
        print(error)
"""


def test_a_store_that_is_down_or_misspelt_is_one_plain_error_and_no_tracebacks(
    make_store, emptied_url, s3_url, client
) -> None:
    def store_behind(proxy: Proxy, namespace: str) -> CachenessStorage:
        limits = {"connect_timeout": 0.5, "statement_timeout": 0.5, "blob_timeout": 0.5}
        where = {"metadata_backend": emptied_url, "blob_store": proxy.url, "namespace": namespace}
        return make_store(**where, **limits, signing_key=SIGNING_KEY)

    with Proxy.before(s3_url) as down, Proxy.before(s3_url) as flaky:
        stores = [store_behind(down, "down"), store_behind(flaky, "flaky")]
        down.refuse()
        for shard in (b"10", b"11", b"12"):  # of three parts of the four
            flaky.answer(b"flaky%2F" + shard, 503)
        command = [sys.executable, "-c", DOWN, *(str(store.saved_as) for store in stores), "misspelt"]
        ran = subprocess.run(command, text=True, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) == 3, ran.stdout + ran.stderr
    assert "there is no Cacheness Storage block named 'misspelt'" in ran.stdout
    assert "Traceback" not in ran.stderr
    for store, failed in zip(stores, (1, 3), strict=True):
        (told,) = events(client, "cacheness.integrity.failed", store.saved_as)
        assert len(told["payload"]["errors"]) <= failed
        (report,) = artifacts(client, "cacheness-report", store)
        assert "not everything was done" in report["data"]
        assert events(client, "cacheness.integrity.clean", store.saved_as, patience=0) == []


KILLED = """
import os, signal, sys
from cacheness_prefect import integrity_repair, repair_artifacts
class Page(repair_artifacts.Page):
    def phase(self, begin, end):
        advance = super().phase(begin, end)
        def fatal(share):
            advance(share)
            if begin and share > 0.4:  # of the mending
                os.kill(os.getpid(), signal.SIGKILL)
        return fatal
sys.modules["cacheness_prefect.repair_flow"].Page = Page
if address := sys.argv[2]:
    from prefect_dask import DaskTaskRunner
    integrity_repair = integrity_repair.with_options(task_runner=DaskTaskRunner(address=address))
integrity_repair(sys.argv[1], "repair", tasks=4)
"""


@pytest.mark.parametrize("runner", ["threads", "dask"])
def test_a_repair_that_is_killed_half_way_is_finished_by_the_next(make_store, client, request, runner) -> None:
    store = make_store(inline_max_bytes=0)
    for number in range(40):
        store.open().put(b"kept" * 1000 + bytes([number]), number=number)
    lost = blobs(store)[::4]
    for path in lost:
        path.unlink()
    address = request.getfixturevalue("dask_address") if runner == "dask" else ""
    command = [sys.executable, "-c", KILLED, str(store.saved_as), address]
    killed = subprocess.run(command, stderr=subprocess.DEVNULL, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert integrity_repair(store, "repair", tasks=2)["issues"] < len(lost), "some were repaired before"
    assert len(store.open().verify_integrity(deep=True)) == 0
    assert sorted(store.open().get(number=n, default=b"")[-1:] for n in range(40)).count(b"") == len(lost)


def test_a_finding_fires_an_automation(damaged, client) -> None:
    automation = {
        "name": f"tell-{damaged.saved_as}",
        "trigger": {
            "type": "event",
            "posture": "Reactive",
            "expect": ["cacheness.integrity.found"],
            "match": {"prefect.resource.id": f"cacheness.store.{damaged.saved_as}"},
            "threshold": 1,
            "within": 0,
        },
        "actions": [{"type": "do-nothing"}],
    }
    made = client.request("POST", "/automations/", json=automation).json()
    fired = []
    while not fired:  # the server's triggers read their automations anew every other moment
        integrity_repair(damaged, tasks=1)
        fired = events(client, "prefect.automation.triggered", made["id"], patience=2)
    client.request("DELETE", f"/automations/{made['id']}")
    assert fired[0]["resource"]["prefect.resource.name"] == automation["name"]


def test_the_deployment_runs_at_night_by_name_and_never_twice_at_once(store, client) -> None:
    deployment = repair_deployment(store)
    deployment_id = deployment.apply()
    found = client.read_deployment(deployment_id)
    assert found.entrypoint == "cacheness_prefect.repair_flow.integrity_repair"
    assert found.schedules[0].schedule.cron == "0 3 * * *"
    assert found.global_concurrency_limit.limit == 1
    assert found.concurrency_options.collision_strategy == "CANCEL_NEW"
    assert found.parameters == {"storage": f"cacheness-storage/{store.saved_as}", "mode": "repair", "deep": False}
    tick = _eventually(lambda: _runs(client, deployment_id)[0])
    assert (tick.state.name, tick.expected_start_time.hour, tick.auto_scheduled) == ("Scheduled", 3, True)
    with pytest.raises(ValueError, match="save the block first"):
        repair_deployment(CachenessStorage(cache_dir=store.cache_dir))


def test_one_block_type_is_registered_with_its_fields(prefect_api, client) -> None:
    command = [sys.executable, "-m", "prefect", "block", "register", "-m", "cacheness_prefect"]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "registered 1 block" in done.stdout
    kind = client.request("GET", "/block_types/slug/cacheness-storage").json()
    assert kind["description"].startswith("Keeps task results")
    offered = [kind["slug"] for kind in client.request("POST", "/block_types/filter", json={}).json()]
    assert sorted(slug for slug in offered if "cacheness" in slug) == ["cacheness-key-storage", "cacheness-storage"]
    wanted = {"block_schemas": {"block_type_id": {"any_": [kind["id"]]}}}
    fields = client.request("POST", "/block_schemas/filter", json=wanted).json()[0]["fields"]
    assert set(fields["secret_fields"]) == {"metadata_backend", "blob_store", "signing_key"}
    for name, field in fields["properties"].items():
        assert field["title"], name
        assert field["description"], name
        assert "*" not in str(field.get("default")), "a form would save the asterisks"


SERVE = """
import sys
from prefect import serve
from cacheness_prefect import repair_deployment
serve(repair_deployment(sys.argv[1], cron=None, interval=2))
"""


def test_the_schedule_runs_the_repair_and_what_is_due_meanwhile_is_cancelled(damaged, client, tmp_path) -> None:
    """A run takes longer than the two seconds until the next is due: its process alone takes as long to start."""
    log = tmp_path / "serve.log"
    with log.open("wb") as file:
        server = subprocess.Popen(
            [sys.executable, "-c", SERVE, f"cacheness-storage/{damaged.saved_as}"],
            stdout=file, stderr=file, start_new_session=True, cwd=tmp_path,
            env={**os.environ, "PREFECT_RUNNER_POLL_FREQUENCY": "1"},
        )  # fmt: skip
    try:
        name = f"cacheness-integrity-repair/{damaged.saved_as}"
        deployment = _eventually(lambda: client.read_deployment_by_name(name))
        completed = _eventually(lambda: _ended(client, deployment.id, "Completed"))
        cancelled = _eventually(lambda: _ended(client, deployment.id, "Cancelled"))
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(timeout=30)
        except subprocess.TimeoutExpired:  # it waits for a run of its own that had only begun to start
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    assert all(run.auto_scheduled for run in (*completed, *cancelled))
    assert {run.state.message for run in cancelled} == {"Deployment concurrency limit reached."}
    assert len(damaged.open().verify_integrity()) == 0, log.read_text()
    assert damaged.invalidate(deployment=name) == 0


def _runs(client: SyncPrefectClient, deployment_id: UUID) -> list[FlowRun]:
    """The runs of a deployment, past and to come."""
    wanted = DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id]))
    return client.read_flow_runs(deployment_filter=wanted, sort=FlowRunSort.EXPECTED_START_TIME_ASC)


def _ended(client: SyncPrefectClient, deployment_id: UUID, state: str) -> list[FlowRun]:
    found = [run for run in _runs(client, deployment_id) if run.state is not None and run.state.name == state]
    if not found:
        raise LookupError(f"no run is {state}")
    return found


def _eventually(attempt: Callable[[], T]) -> T:
    deadline = time.monotonic() + 90
    while True:
        try:
            return attempt()
        except (LookupError, ObjectNotFound):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
