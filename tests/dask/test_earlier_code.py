"""Results of earlier code do not get into those of tasks, which would stay when the change is revoked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import dask
import pytest

import cacheness_dask as cd
from cacheness import UnifiedCache
from cacheness.audit import Sampler

pytestmark = pytest.mark.timeout(120)
calls: list[int] = []


def before(x: int) -> int:
    y = x + 1
    return y * 2


def after(x: int) -> int:
    calls.append(x)
    return (x + 1) * 2


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_a_task_computes_what_earlier_code_made(
    tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sampler, "chooses", lambda *_: False)
    with UnifiedCache(tmp_path / "cache") as cache:
        old: Any = cache.cached(before)
        for number in range(40):
            old(number)
        now: Any = cache.cached(after)
        (change,) = cache.accept(now, sample=20, former=f"{__name__}:before")
        assert change.state == "accepted", change.why
        unknown = [number for number in range(40) if cache.find(now.key(number)) is None]
        calls.clear()
        assert now(unknown[0]) == (unknown[0] + 1) * 2
        assert calls == []

        def task(n: int) -> int:
            return int(now(n))

        with cd.caching(cache, which="outputs", scheduler=scheduler):
            assert dask.delayed(task)(unknown[0]).compute() == (unknown[0] + 1) * 2
        assert calls == unknown[:1]
        assert now(unknown[1]) == (unknown[1] + 1) * 2
        assert calls == unknown[:1]


def test_a_child_process_may_be_a_scheduler_s(tmp_path: Path) -> None:
    program = """if __name__ == "__main__":
    import multiprocessing
    from cacheness_dask.hooks import _is_computing
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(_is_computing(), pool.apply(_is_computing))
"""
    (tmp_path / "program.py").write_text(program)
    ran = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.stdout.split() == ["False", "True"], ran.stderr
