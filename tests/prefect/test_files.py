"""Files of a task: what it writes itself hits while it is as it was left, what others replace is not stored."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, task
from prefect.cache_policies import INPUTS

from cacheness.keys.opened_files import OpenedFiles


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_a_task_writes_is_there_when_it_is_cached(
    store, tally, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)

    @task(cache_policy=store.policy())
    def report(source: str, target: str) -> str:
        tally.add()
        Path(target).write_text(Path(source).read_text().upper())
        return "done"

    @task(cache_policy=store.policy())
    async def areport(source: str, target: str) -> str:
        tally.add()
        with open(source) as lines, open(target, "w") as out:  # noqa: ASYNC230 - a blocking write is seen, too
            out.write(lines.read().upper())
        return "done"

    @flow
    def work(target: str) -> str:
        return str(report("in.txt", target, return_state=True).name)

    @flow
    async def awork(target: str) -> str:
        return str((await areport("in.txt", target, return_state=True)).name)  # type: ignore[misc]

    def run(target: str) -> str:
        return work(target) if kind == "sync" else asyncio.run(awork(target))

    Path("in.txt").write_text("first")
    Path("old.txt").write_text("old")
    assert [run("new.txt"), run("new.txt"), run("old.txt"), run("old.txt")] == ["Completed", "Cached"] * 2
    Path("new.txt").unlink()
    assert [run("new.txt"), run("new.txt")] == ["Completed", "Cached"]
    Path("new.txt").write_text("else")
    assert [run("new.txt"), run("new.txt")] == ["Completed", "Cached"]
    assert Path("new.txt").read_text() == "FIRST"
    assert len(tally) == 4


def test_what_others_replaced_meanwhile_is_not_stored(store, tally, tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("0")

    @task(cache_policy=store.policy())
    def read(where: str) -> str:
        tally.add()
        text = Path(where).read_text()
        subprocess.run([sys.executable, "-c", f"open({where!r}, 'w').write('{len(tally)}')"], check=True)
        return f"read {text}"

    @flow
    def work() -> Any:
        return read(str(path))

    assert [work(), work()] == ["read 0", "read 1"]
    path.write_text("0")
    assert work() == "read 0"
    assert len(tally) == 3


def test_a_file_that_the_result_names_is_there_under_any_policy(store, tally, tmp_path: Path) -> None:
    @task(cache_policy=store.policy() + INPUTS)
    def plot(where: str, x: int) -> list[Path]:
        tally.add()
        path = Path(where, f"{x}.txt")
        path.write_text("plot")
        return [path]

    @flow
    def work() -> str:
        return str(plot(str(tmp_path), 1, return_state=True).name)

    assert [work(), work()] == ["Completed", "Cached"]
    (tmp_path / "1.txt").unlink()
    assert work() == "Completed"
    assert (tmp_path / "1.txt").exists()


def test_a_task_ends_its_observation_whether_it_ran_or_was_cached(store, tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("text")

    @task(cache_policy=store.policy())
    def size(where: str) -> int:
        return len(Path(where).read_bytes())

    @task(cache_policy=store.policy())
    async def asize(where: str) -> int:
        return len(Path(where).read_bytes())  # noqa: ASYNC240 - a few bytes

    def is_seen(name: str | None, opened: OpenedFiles) -> tuple[str | None, bool]:
        other = tmp_path / f"{name}.txt"
        other.write_text("")
        return name, str(other) in opened.uses

    @flow
    def work() -> tuple[str | None, bool]:
        with OpenedFiles() as opened:
            return is_seen(size(str(path), return_state=True).name, opened)

    @flow
    async def awork() -> tuple[str | None, bool]:
        with OpenedFiles() as opened:
            return is_seen((await asize(str(path), return_state=True)).name, opened)  # type: ignore[misc]

    expected = [("Completed", True), ("Cached", True)]
    assert [work(), work()] == expected
    assert [asyncio.run(awork()), asyncio.run(awork())] == expected
