"""Python starts no threads at its end, and the system has a limit: the cache works without."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from cacheness import UnifiedCache
from cacheness.blobs.filesystem import FilesystemStore
from cacheness.deadlines import Limits
from cacheness.file_locks import unlock, wait_in_line
from cacheness.keys import make_key
from cacheness_dask.policy import Meter
from cacheness_dask.write_behind import ComputeDetails, Late, WriteBehind


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)


def test_a_cache_works_without_threads(no_threads: None, tmp_path: Path) -> None:
    with UnifiedCache(tmp_path / "cache") as cache:
        doubled = cache.cached(lambda x: 2 * x, single_flight=True)
        assert [doubled(21), doubled(21)] == [42, 42]
        cache.put(bytes(300_000), a=1)
        assert cache.get(a=1) == bytes(300_000)
        cache.put_many([(n, cache.key(n=n)) for n in range(3)])
        assert [cache.get(n=n) for n in range(3)] == [0, 1, 2]


def test_a_filesystem_is_asked_without_threads(no_threads: None, tmp_path: Path) -> None:
    store = FilesystemStore.from_url(f"local://{tmp_path}/blobs", limits=Limits())
    store.write("a", [b"one"])
    assert bytes(store.read("a", 3)) == b"one"


def test_a_line_is_waited_in_without_threads(no_threads: None, tmp_path: Path) -> None:
    first = wait_in_line(tmp_path / "line", 1)
    assert first is not None
    assert wait_in_line(tmp_path / "line", 0.05) is None
    unlock(first)
    second = wait_in_line(tmp_path / "line", 1)
    assert second is not None
    unlock(second)


def test_results_of_dask_are_stored_without_threads(no_threads: None, tmp_path: Path) -> None:
    with UnifiedCache(tmp_path / "cache") as cache:
        queue = WriteBehind(Late(lambda: cache), Meter(0.0), 1000, print)
        for n in range(5):
            queue.put(make_key(args={"n": n}), n, 1, ComputeDetails(0.1, {}))
        assert [cache.get(n=n) for n in range(5)] == [0, 1, 2, 3, 4]
        assert queue.flush() == 5


@pytest.mark.slow
@pytest.mark.parametrize("when", ["atexit.register(work)", "threading.Thread(target=after_main).start()"])
def test_a_program_that_is_about_to_end_uses_its_cache(when: str, tmp_path: Path) -> None:
    program = f"""
        import atexit, sys, threading, time
        from cacheness import UnifiedCache
        def work():
            with UnifiedCache(sys.argv[1]) as cache:
                cache.put(bytes(300_000), a=1)
                print(len(cache.get(a=1)))
        def after_main():
            threading.main_thread().join()
            time.sleep(0.1)
            work()
        {when}
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    done = subprocess.run(command, timeout=60, check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("300000\n", "")
