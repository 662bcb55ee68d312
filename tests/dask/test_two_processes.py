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


#: The scheduler of the first process and of the second, and what both compute.
PARTS = [
    ("sync", "threads", LOCAL),
    ("processes", "distributed", SAME),
    ("distributed", "distributed", SHUFFLES),
]


def session(seed: int, tmp_path: Path, parts: list[tuple[str, list[str]]]) -> list[dict[str, Any]]:
    """What a fresh process computes, with the caches and the inputs in `tmp_path`: it takes seconds to start."""
    found = subprocess.run(
        [sys.executable, "session.py", str(tmp_path), json.dumps(parts)],
        env={**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": str(HERE)},
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-4000:]
    line = next(line for line in found.stdout.splitlines() if line.startswith("REPORT"))
    return json.loads(line.removeprefix("REPORT"))  # type: ignore[no-any-return]


@pytest.mark.timeout(480)
def test_a_second_process_runs_nothing(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    before = session(1, tmp_path, [(scheduler, names) for scheduler, _, names in PARTS])
    after = session(2, tmp_path, [(scheduler, names) for _, scheduler, names in PARTS])
    for first, second in zip(before, after, strict=True):
        assert {name: done["refused"] for name, done in first.items() if done["refused"]} == {}
        assert {name: done["value"] for name, done in second.items()} == {n: d["value"] for n, d in first.items()}
        assert [name for name, done in first.items() if not done["misses"]] in ([], ["delayed_pure"])
        wrong = {name: done for name, done in second.items() if done["runs"] or done["misses"] or done["refused"]}
        assert wrong == {}
        # What was executed were the loads: no step of a shuffle either, which is counted nowhere.
        assert {name: done["executed"] for name, done in second.items()} == {n: d["hits"] for n, d in second.items()}
