"""The examples do what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, directory: Path) -> list[str]:
    command = [sys.executable, EXAMPLES / name, directory]
    done = subprocess.run(command, text=True, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_cached_tasks(prefect_api, tmp_path) -> None:
    for expected in (["measuring monday", "measuring tuesday", f"first run:  {['Completed'] * 4}"], []):
        lines = run("prefect_cached_tasks.py", tmp_path / "cache")
        assert lines[: len(expected)] == expected
        assert lines[-2] == f"second run: {['Cached'] * 4}"
        assert lines[-1].startswith("miss: arg `values`")


def test_repair(prefect_api, tmp_path) -> None:
    check, repair, again = run("prefect_repair.py", tmp_path / "cache")
    assert "'dangling': 1" in check
    assert "'dangling': 1" in repair
    assert "'issues': 0" in again
