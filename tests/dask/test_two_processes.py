"""A second process, with another hash seed and scheduler, finds every result of the first and runs nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from workloads import WORKLOADS, write_inputs

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
LOCAL = sorted(name for name in WORKLOADS if not name.startswith("p2p"))
#: What only a distributed scheduler has, or shuffles in another way where there is one.
SHUFFLES = sorted({*WORKLOADS} - {*LOCAL} | {"frame_csv_with_paths", "frame_value_counts"})
SAME = [name for name in LOCAL if name not in SHUFFLES]


def session(seed: int, tmp_path: Path, scheduler: str, names: list[str]) -> dict[str, Any]:
    """What a fresh process computes, with the cache and the inputs in `tmp_path`."""
    found = subprocess.run(
        [sys.executable, "session.py", str(tmp_path / "cache"), str(tmp_path), scheduler, "auto", *names],
        env={**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": str(HERE)},
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-4000:]
    line = next(line for line in found.stdout.splitlines() if line.startswith("REPORT"))
    return json.loads(line.removeprefix("REPORT"))  # type: ignore[no-any-return]


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("names", "before", "after"),
    [(LOCAL, "sync", "threads"), (SAME, "processes", "distributed"), (SHUFFLES, "distributed", "distributed")],
    ids=["threads", "distributed", "shuffles"],
)
def test_a_second_process_runs_nothing(tmp_path: Path, names: list[str], before: str, after: str) -> None:
    write_inputs(tmp_path)
    first, second = session(1, tmp_path, before, names), session(2, tmp_path, after, names)
    assert {name: done["refused"] for name, done in first.items() if done["refused"]} == {}
    assert {name: done["value"] for name, done in second.items()} == {n: d["value"] for n, d in first.items()}
    assert [name for name, done in first.items() if not done["misses"]] in ([], ["delayed_pure"])
    assert {name: done for name, done in second.items() if done["runs"] or done["misses"] or done["refused"]} == {}
    # What was executed were the loads: no step of a shuffle either, which is counted nowhere.
    assert {name: done["executed"] for name, done in second.items()} == {n: d["hits"] for n, d in second.items()}
