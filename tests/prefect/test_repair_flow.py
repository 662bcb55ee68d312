"""The flow that checks and repairs a store: what it finds, tells, and leaves alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.filters import EventFilter, EventNameFilter

from cacheness_prefect import CachenessStorage, integrity_repair, repair_deployment

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


def artifacts(client: SyncPrefectClient, key: str) -> list[dict[str, Any]]:
    found = client.request("POST", "/artifacts/filter", json={"artifacts": {"key": {"any_": [key]}}}).json()
    return sorted(found, key=lambda artifact: artifact["created"])


def events(client: SyncPrefectClient, name: str, subject: str) -> list[dict[str, Any]]:
    """Events of one name about one subject; they take a moment to arrive."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        wanted = EventFilter(event=EventNameFilter(name=[name])).model_dump(mode="json")  # up to now
        found = client.request("POST", "/events/filter", json={"filter": wanted}).json()["events"]
        if about := [event for event in found if event["resource"]["prefect.resource.id"].endswith(subject)]:
            return about
        time.sleep(0.5)
    return []


def test_a_check_tells_and_changes_nothing_and_a_repair_mends(damaged, runner, client) -> None:
    flow = integrity_repair.with_options(task_runner=runner)
    found = {"findings": 2, "entries": 20, "objects": 19, "expired": 0, "dangling": 1, "corrupt": 1}
    before = blobs(damaged)
    assert flow(damaged, "check", deep=True, tasks=2) == found
    assert blobs(damaged) == before
    assert flow(f"cacheness-storage/{damaged.saved_as}", "repair", deep=True, tasks=2) == found
    assert len(blobs(damaged)) == 18
    assert len(damaged.open().verify_integrity(deep=True)) == 0

    rows = [json.loads(artifact["data"]) for artifact in artifacts(client, "cacheness-findings")]
    mine = rows[-2:]
    assert [[row["kind"] for row in table] for table in mine] == [["dangling", "corrupt"]] * 2
    assert [sum(row["repaired"] for row in table) for table in mine] == [0, 2]
    report = artifacts(client, "cacheness-report")[-1]["data"]
    assert "2 issues found, 2 repaired" in report
    assert before[0].name.partition(".")[0] in report
    assert artifacts(client, "cacheness-progress")[-1]["data"] == 100.0
    told = events(client, "cacheness.integrity.found", damaged.saved_as)
    assert told[0]["payload"]["counts"] == {"dangling": 1, "corrupt": 1}


def test_the_orphan_of_a_killed_writer_is_repaired_and_a_living_writers_blob_is_not(store, client) -> None:
    script = """
import os, signal, sys
from cacheness import UnifiedCache
cache = UnifiedCache(cache_dir=sys.argv[1], inline_max_bytes=0)
cache.put(b"kept" * 1000, x=1)
cache._parts.cache.metadata.commit = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
cache.put(b"lost" * 1000, x=2)
"""
    killed = subprocess.run([sys.executable, "-c", script, store.cache_dir], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(blobs(store)) == 2
    assert integrity_repair(store, tasks=2)["orphaned"] == 1
    assert integrity_repair(store, "repair", tasks=2)["orphaned"] == 1
    assert len(blobs(store)) == 1
    assert integrity_repair(store, tasks=2)["findings"] == 0
    assert events(client, "cacheness.integrity.clean", store.saved_as)


def test_a_repair_removes_what_has_expired(make_store) -> None:
    store = make_store(inline_max_bytes=0)
    store.open().put(b"short" * 1000, life="short", ttl=0.01)
    store.open().put(b"long" * 1000, life="long", ttl=1000)
    time.sleep(0.05)
    assert integrity_repair(store, tasks=1)["entries"] == 2
    assert len(blobs(store)) == 2
    repaired = integrity_repair(store, "repair", tasks=1)
    assert (repaired["expired"], repaired["entries"]) == (1, 1)
    assert len(blobs(store)) == 1


def test_a_repair_that_is_killed_half_way_is_finished_by_the_next(damaged, prefect_api, tmp_path) -> None:
    script = tmp_path / "repair.py"
    script.write_text(
        "import os, signal, sys\n"
        "from cacheness import UnifiedCache\n"
        "from cacheness_prefect import integrity_repair\n"
        "original = UnifiedCache.verify_integrity\n"
        "def look(cache, **options):\n"
        "    report = original(cache, **options)\n"
        "    if report:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return report\n"
        "UnifiedCache.verify_integrity = look\n"
        "integrity_repair(sys.argv[1], 'repair', deep=True, tasks=1)\n"
    )
    killed = subprocess.run(
        [sys.executable, str(script), str(damaged.saved_as)], stderr=subprocess.DEVNULL, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert integrity_repair(damaged, "repair", deep=True, tasks=2)["findings"] == 1, "the other was mended before"
    assert len(damaged.open().verify_integrity(deep=True)) == 0


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
    time.sleep(3)  # the server's triggers read their automations anew every other moment
    integrity_repair(damaged, tasks=2)
    fired = events(client, "prefect.automation.triggered", made["id"])
    client.request("DELETE", f"/automations/{made['id']}")
    assert fired


def test_the_deployment_runs_at_night_by_name_and_never_twice_at_once(store, client) -> None:
    deployment = repair_deployment(store)
    deployment_id = deployment.apply()
    found = client.read_deployment(deployment_id)
    assert found.entrypoint == "cacheness_prefect.repair_flow.integrity_repair"
    assert found.schedules[0].schedule.cron == "0 3 * * *"
    assert found.global_concurrency_limit.limit == 1
    assert found.concurrency_options.collision_strategy == "CANCEL_NEW"
    assert found.parameters == {"storage": f"cacheness-storage/{store.saved_as}", "mode": "repair", "deep": False}
    with pytest.raises(ValueError, match="save the block first"):
        repair_deployment(CachenessStorage(cache_dir=store.cache_dir))


def test_one_block_type_is_registered_with_its_fields(prefect_api, client) -> None:
    command = [sys.executable, "-m", "prefect", "block", "register", "-m", "cacheness_prefect"]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "registered 1 block" in done.stdout
    kind = client.request("GET", "/block_types/slug/cacheness-storage").json()
    assert kind["description"].startswith("Keeps task results")
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
serve(repair_deployment(sys.argv[1], cron=None))
"""


def test_a_served_deployment_repairs_and_a_second_run_meanwhile_is_cancelled(damaged, client, tmp_path) -> None:
    reference = f"cacheness-storage/{damaged.saved_as}"
    with (tmp_path / "serve.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", SERVE, reference], stdout=log, stderr=log, start_new_session=True, cwd=tmp_path
        )
    try:
        name = f"cacheness-integrity-repair/{damaged.saved_as}"
        deployment = _eventually(lambda: client.read_deployment_by_name(name), log)
        runs = [client.create_flow_run_from_deployment(deployment.id) for _ in range(2)]
        states = [_eventually(lambda run=run: _final(client, run.id), log) for run in runs]
        assert {state.name for state in states} == {"Completed", "Cancelled"}, (tmp_path / "serve.log").read_text()
        assert len(damaged.open().verify_integrity()) == 0
        assert damaged.invalidate(deployment=name) == 0
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def _final(client: SyncPrefectClient, run_id: Any) -> Any:
    state = client.read_flow_run(run_id).state
    if state is None or not state.is_final():
        raise LookupError(f"the run is still {state}")
    return state


def _eventually(attempt: Any, log: Any) -> Any:
    deadline = time.monotonic() + 90
    while True:
        try:
            return attempt()
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
