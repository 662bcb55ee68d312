"""What docs/reference/prefect.md shows runs as it stands there."""

from __future__ import annotations

import os
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "reference/prefect.md"
TUTORIAL = DOCS / "tutorials/prefect.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
SERVE = "serve(repair_deployment(store))"


def test_the_python_of_the_page_runs_and_ends_in_a_served_repair(prefect_api, emptied_url, s3_url, tmp_path) -> None:
    lines = "".join(BLOCK.findall(PAGE.read_text())).splitlines()
    (serve,) = [line for line in lines if line.startswith(SERVE)]
    program = "\n".join([*(line for line in lines if line != serve), serve])  # it serves until it is stopped
    for shown, real in (("postgresql://cache@db.example.com/cache", emptied_url), ("s3://my-bucket/results", s3_url)):
        assert program.count(shown) == 1
        program = program.replace(shown, real)
    (tmp_path / "page.py").write_text(program)
    environment = {**os.environ, "CACHENESS_SIGNING_KEY": "a secret of this test", "PREFECT_LOGGING_LEVEL": "INFO"}
    log = tmp_path / "page.log"
    with log.open("wb") as output:
        page = subprocess.Popen(
            [sys.executable, "-W", "error::UserWarning", "page.py"],
            cwd=tmp_path, env=environment, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        with get_client(sync_client=True) as client:
            while page.poll() is None:
                try:
                    served = client.read_deployment_by_name("cacheness-integrity-repair/shared")
                    break
                except ObjectNotFound:
                    time.sleep(0.2)
        assert page.poll() is None, log.read_text()
    finally:
        os.killpg(page.pid, signal.SIGTERM)
        page.wait(timeout=60)
    assert served.parameters["storage"] == "cacheness-storage/shared"
    states = re.findall(r"Task run .* - Finished in state (\w+)", log.read_text())
    assert states == ["Completed", "Cached"], log.read_text()


def test_the_tutorial_runs_step_by_step(prefect_api, tmp_path, monkeypatch, capsys) -> None:
    shown = BLOCK.findall(TUTORIAL.read_text())
    files = {found[1]: block for block in shown if (found := re.match(r"# (\w+\.py)\n", block))}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "page.py").write_text("".join(block for block in shown if block not in files.values()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    served = []
    monkeypatch.setattr("prefect.serve", served.append)
    for name in ("pipeline.py", "page.py", "serve_repair.py"):
        runpy.run_path(name, run_name="__main__")
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line in ("10.0", "0")] == ["10.0", "0"]
    assert [line.partition(":")[0] for line in said if "nearest entry" in line or line.startswith("hit")] == [
        "hit",
        "miss",
    ]
    assert [deployment.schedules[0].schedule.cron for deployment in served] == ["0 3 * * *"]
