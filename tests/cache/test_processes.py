"""Forks, exits and handles: who holds what, and that nobody is kept alive or waited for."""

from __future__ import annotations

import gc
import os
import pickle
import random
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from cacheness import UnifiedCache, factory
from cacheness.config import Config
from cacheness.coordination.sessions import presumed_dead, proven_dead, this_process
from cacheness.records import Process
from tests.forked import ended, fork

LARGE = random.Random(1).randbytes(100_000)


def test_the_session_of_a_first_small_result_is_synced_with_it(world) -> None:
    opened: list[bool] = []
    open_session = world.cache._store.metadata.open_session

    def open_seen(process: Process, *, lasting: bool = True) -> str:
        opened.append(lasting)
        return open_session(process, lasting=lasting)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.cache._store.metadata, "open_session", open_seen)
        world.cache.put(1, n=1)
        world.cache.put(os.urandom(100_000), n=2)  # the same session: its row is as lasting as the first result
        assert opened == [False]
        world.cache._store.sessions.end(world.cache._store.sessions.current())
        world.cache.put(os.urandom(100_000), n=3)  # a blob needs a session that a power cut leaves
        assert opened == [False, True]


def test_no_blob_is_written_under_a_session_that_a_power_cut_may_undo(world) -> None:
    sessions, metadata = world.cache._store.sessions, world.cache._store.metadata
    commit, large = metadata.commit, []

    def commit_late(entries, session, *, fresh=False):
        if not large:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(metadata, "commit", commit)
                large.append(session)
                world.cache.put(os.urandom(100_000), n=2)  # by another thread, while the first commit is under way
                large.append(sessions.current())
        return commit(entries, session, fresh=fresh)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metadata, "commit", commit_late)
        world.cache.put(1, n=1)  # refused under its first session, and published under the other
    assert large[0] != large[1]
    assert metadata.dead_sessions(large) == {large[0]}
    assert world.cache.get(n=1) == 1
    assert world.cache.get(n=2) is not None


def live_sessions(config: Config) -> int:
    metadata = factory.open_metadata(config)
    try:
        return len(metadata.live_sessions())
    finally:
        metadata.close()


def run(script: str, config: Config) -> str:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script), pickle.dumps(config).hex()]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.stdout


def test_a_forked_child_reads_and_writes_with_connections_of_its_own(world):
    world.cache.put(LARGE, k="parent")

    def child() -> None:
        assert world.cache.get(k="parent") == LARGE
        world.cache.put(LARGE, k="child")
        world.cache.close()

    assert ended(fork(child)) == 0
    assert world.cache.get(k="child") == LARGE
    world.cache.put(LARGE, k="parent again")
    assert len(world.cache.verify_integrity()) == 0


def test_a_session_is_taken_at_the_first_put_and_ended_at_close(world):
    world.cache.get(k=1)
    assert live_sessions(world.config) == 0
    world.cache.put(1, k=1)
    assert live_sessions(world.config) == 1
    second = UnifiedCache(world.config)
    second.put(2, k=2)
    assert live_sessions(world.config) == 1
    world.cache.close()
    assert live_sessions(world.config) == 1
    second.close()
    assert live_sessions(world.config) == 0


@pytest.mark.slow
def test_a_cache_that_nobody_closes_ends_its_session_when_it_is_collected(world):
    cache = UnifiedCache(world.config.but(namespace="forgotten"))
    cache.put(1, k=1)
    assert live_sessions(world.config) == 1
    del cache
    gc.collect()
    deadline = time.monotonic() + 10  # a thread closes it, because a finalizer must not
    while live_sessions(world.config) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert live_sessions(world.config) == 0


@pytest.mark.slow
def test_a_script_that_never_closes_its_cache_ends_quietly_and_leaves_no_session(world):
    script = """
        import pickle, sys
        from cacheness import UnifiedCache
        cache = UnifiedCache(pickle.loads(bytes.fromhex(sys.argv[1])))
        cache.put("v", k=1)
        print(cache.get(k=1))
    """
    assert run(script, world.config) == "v\n"
    assert live_sessions(world.config) == 0


def test_many_short_lived_writers_leave_no_session_rows_behind(world):
    for _ in range(3):
        world.cache.put(1, k=1)
        world.reopen()
    metadata = factory.open_metadata(world.config)
    assert metadata.live_sessions() == []
    assert metadata.delete_sessions(-1_000_000) == 3
    metadata.close()


@pytest.mark.slow
def test_a_process_is_dead_when_it_is_gone_and_not_because_of_its_name(world):
    script = """
        import os, pickle, signal, sys
        from cacheness import UnifiedCache
        cache = UnifiedCache(pickle.loads(bytes.fromhex(sys.argv[1])))
        cache.put("v", k=1)
        os._exit(0)
    """
    world.cache.put("mine", k=2)
    run(script, world.config)
    metadata = factory.open_metadata(world.config)
    dead = presumed_dead(metadata)
    live = {session.id: session.process.pid for session in metadata.live_sessions()}
    metadata.close()
    assert len(live) == 2
    assert {live[session] for session in live if session not in dead} == {os.getpid()}


def test_this_process_can_be_told_from_others():
    here = this_process()
    assert here.pid == os.getpid()
    assert here.pid_start
    assert here.boot_id
    assert here.pid_ns


def test_a_process_id_proves_nothing_across_boots_or_pid_namespaces():
    here = this_process()
    gone = replace(here, pid_start="1")  # the number is in use, by a process that began at another time
    assert proven_dead(gone, here)
    assert not proven_dead(here, here)
    assert not proven_dead(replace(gone, pid_ns="4026531999"), here)
    assert not proven_dead(replace(gone, boot_id="another boot"), here)
    assert not proven_dead(replace(gone, boot_id="", pid_ns=""), replace(here, boot_id="", pid_ns=""))
    assert not proven_dead(replace(gone, pid_start=""), here)


@pytest.mark.slow
def test_a_process_that_cannot_be_looked_at_is_not_dead():
    script = """
        import resource
        from cacheness.coordination.sessions import proven_dead, this_process
        here = this_process()
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))  # /proc cannot be read any more
        assert this_process().pid_start == ""
        assert not proven_dead(here, here)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


@pytest.mark.slow
def test_results_can_be_stored_and_read_while_the_interpreter_exits(world):
    script = """
        import atexit, os, pickle, sys
        from cacheness import UnifiedCache

        def late():
            cache.put_many([(os.urandom(100_000), {"k": n}) for n in range(3)])
            assert len(cache.get_many([cache.key(k=n) for n in range(3)])) == 3

        cache = UnifiedCache(pickle.loads(bytes.fromhex(sys.argv[1])))
        atexit.register(late)
        cache.put("first", k="first")
    """
    run(script, world.config)
    assert [world.cache.lookup(k=k) is not None for k in ("first", 0, 1, 2)] == [True] * 4


@pytest.mark.slow
def test_threads_share_a_cache(world):
    def work(thread: int) -> None:
        for n in range(8):
            world.cache.put((thread, n, LARGE), t=thread, n=n)
            assert world.cache.get(t=thread, n=n) == (thread, n, LARGE)
            world.cache.put(n, shared=n)
            world.cache.get(shared=n)

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(work, range(6))) == [None] * 6
    assert len(world.cache.list_entries()) == 6 * 8 + 8
    assert len(world.cache.verify_integrity(deep=True)) == 0


def test_a_batch_belongs_to_its_thread(world):
    with world.cache.write_batch():
        world.cache.put("held", k=1)
        thread = threading.Thread(target=lambda: world.cache.put("at once", k=2))
        thread.start()
        thread.join()
        other = UnifiedCache(world.config)
        assert other.get(k=2) == "at once"
        assert other.lookup(k=1) is None
        other.close()
    assert world.cache.get(k=1) == "held"
