"""What docs/reference/prefect.md shows runs as it stands there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

PAGE = Path(__file__).parents[2] / "docs/reference/prefect.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
SERVE = "serve(repair_deployment(store))"


def test_the_python_of_the_page_runs_and_ends_in_a_served_repair(prefect_api, postgres_url, s3_url, tmp_path) -> None:
    lines = "".join(BLOCK.findall(PAGE.read_text())).splitlines()
    (serve,) = [line for line in lines if line.startswith(SERVE)]
    program = "\n".join([*(line for line in lines if line != serve), serve])  # it serves until it is stopped
    for shown, real in (("postgresql://cache@db.example.com/cache", postgres_url), ("s3://my-bucket/results", s3_url)):
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
