"""What differs between operating systems: as Linux tells it, and as it is found out elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cacheness import platform
from cacheness.coordination.sessions import proven_dead, this_process
from cacheness.file_systems import file_system_of

WAITS = [sys.executable, "-S", "-c", "import time; print(flush=True); time.sleep(600)"]


@pytest.fixture(params=[False, True], ids=["linux", "portable"], autouse=True)
def is_portable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(platform, "IS_PORTABLE", request.param)
    return bool(request.param)


def test_a_process_is_known_by_boot_namespace_and_start() -> None:
    here = this_process()
    assert here.pid == os.getpid()
    assert here.boot_id
    assert here.pid_ns
    assert here.pid_start
    assert here == this_process()


def test_who_runs_is_not_dead_until_it_has_ended() -> None:
    with subprocess.Popen(WAITS, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        here = this_process()
        other = replace(here, pid=process.pid, pid_start=platform.start_of(process.pid) or "")
        assert other.pid_start
        assert not proven_dead(other, here)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # its end is seen, and it is still listed
        assert proven_dead(other, here)
    assert proven_dead(other, here)


def test_the_pid_of_another_start_is_of_another_process() -> None:
    here = this_process()
    gone = replace(here, pid_start="1")
    assert proven_dead(gone, here)
    for unknown in ({"pid_ns": "4026531999"}, {"boot_id": "another boot"}, {"pid_start": ""}, {"boot_id": ""}):
        assert not proven_dead(replace(gone, **unknown), here)


def test_a_clock_that_was_set_a_little_makes_nobody_dead(is_portable: bool) -> None:
    here = this_process()
    if is_portable:  # computed from the time of the boot, which follows the clock
        assert not proven_dead(replace(here, pid_start=f"{float(here.pid_start) + 0.9:.2f}"), here)
    assert not proven_dead(here, here)


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    holds = "import sys, time; from cacheness import platform; file = open(sys.argv[1]);"
    holds += " print(platform.lock(file.fileno()), flush=True); time.sleep(600)"
    with (
        path.open() as file,
        subprocess.Popen([sys.executable, "-c", holds, path], stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        assert not platform.lock(file.fileno())
        process.kill()
        process.wait()
        assert platform.lock(file.fileno())
        platform.unlock(file.fileno())
        with path.open() as other:
            assert platform.lock(other.fileno())


def test_room_is_taken_and_names_are_synced(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "room", os.O_WRONLY | os.O_CREAT)
    platform.reserve(descriptor, 1 << 20)
    platform.expect(descriptor, 2 << 20)
    platform.begin_sync(descriptor, 4096)
    platform.sync(descriptor)
    os.close(descriptor)
    platform.sync_directory(tmp_path)
    found = (tmp_path / "room").stat()
    assert found.st_size == 1 << 20
    assert found.st_blocks * 512 >= 1 << 20


def test_both_ways_know_the_same_file_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = {path: file_system_of(path) for path in ("/", "/proc", "/proc/self", "/dev/shm")}
    kinds = dict(platform.devices())
    monkeypatch.setattr(platform, "IS_PORTABLE", not platform.IS_PORTABLE)
    assert mine == {path: file_system_of(path) for path in mine}
    assert kinds[os.stat("/proc").st_dev] == dict(platform.devices())[os.stat("/proc").st_dev] == "proc"
