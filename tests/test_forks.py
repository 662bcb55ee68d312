"""Forks of every kind beside SQLite and the journal: acknowledged puts stay, and no child hangs."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from cacheness import UnifiedCache, forks
from cacheness.deadlines import Limits
from cacheness.errors import CachenessError
from cacheness.file_locks import FileLocks, unlock, wait_in_line
from cacheness.keys.values.files import digest_of_start
from cacheness.metadata import migrations
from cacheness.metadata.sql import sqlite_building
from cacheness.metadata.sql.statements import Purpose, Statement, Statements
from cacheness.metadata.sqlite import SqliteStore
from cacheness.records import Where
from tests.forked import ended, fork

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")]
BACKENDS = ("sqlite", "json")


def readable(folder: Path, backend: str, count: int) -> int:
    """How many of the numbers from 0 to `count` another process can read."""
    program = """
        import sys
        from cacheness import UnifiedCache
        with UnifiedCache(cache_dir=sys.argv[1], metadata_backend=sys.argv[2]) as cache:
            print(sum(cache.get(n=n) == n for n in range(int(sys.argv[3]))))
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(folder), backend, str(count)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)


def put_range(cache: UnifiedCache, start: int, stop: int) -> None:
    for n in range(start, stop):
        cache.put(n, n=n)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("before", ["put", "get", "nothing"])
def test_a_child_goes_on_when_its_parent_closes(tmp_path: Path, backend: str, before: str) -> None:
    cache = UnifiedCache(cache_dir=tmp_path, metadata_backend=backend)
    if before == "put":
        cache.put(0, n=0)
    elif before == "get":
        cache.get(n=0)
    ready, go = os.pipe(), os.pipe()

    def work() -> None:
        put_range(cache, 0, 5)
        os.write(ready[1], b"1")
        os.read(go[0], 1)
        put_range(cache, 5, 40)

    child = fork(work)
    os.read(ready[0], 1)
    cache.close()
    os.write(go[1], b"1")
    assert ended(child) == 0
    assert readable(tmp_path, backend, 40) == 40


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_daemon_goes_on_when_its_parent_exits_or_is_killed(tmp_path: Path, backend: str) -> None:
    program = """
        import os, signal, sys, time
        from cacheness import UnifiedCache
        cache = UnifiedCache(cache_dir=sys.argv[1], metadata_backend=sys.argv[2])
        cache.put(0, n=0)
        if sys.argv[3] == "exits" and os.fork():
            sys.exit(0)
        elif sys.argv[3] == "is killed" and os.fork():
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.5)
        for n in range(1, 30):
            cache.put(n, n=n)
        cache.close()
    """
    for number, how in enumerate(("exits", "is killed")):
        folder = tmp_path / str(number)
        command = [sys.executable, "-c", textwrap.dedent(program), str(folder), backend, how]
        subprocess.run(command, check=False, capture_output=True, timeout=60)  # ends when the daemon closes its pipes
        assert readable(folder, backend, 30) == 30


def _put(number: int, folder: str) -> int:
    with UnifiedCache(cache_dir=folder) as cache:
        cache.put(number, n=number)
        return os.getpid()


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_pool_of_every_kind_stores_beside_its_parent(tmp_path: Path, method: str) -> None:
    cache = UnifiedCache(cache_dir=tmp_path)
    cache.put(0, n=0)
    with multiprocessing.get_context(method).Pool(2) as pool:
        running = pool.starmap_async(_put, [(n, str(tmp_path)) for n in range(20, 40)])
        put_range(cache, 1, 20)
        running.get(timeout=60)
    cache.close()
    assert readable(tmp_path, "sqlite", 40) == 40


def test_workers_forked_before_serving_share_one_cache_and_one_is_killed(tmp_path: Path) -> None:
    cache = UnifiedCache(cache_dir=tmp_path)
    cache.put(0, n=0)
    workers = [fork(lambda start=start: put_range(cache, start, start + 10)) for start in (1, 11, 21)]
    idle = fork(signal.pause)
    os.kill(idle, signal.SIGKILL)
    assert ended(idle) == -signal.SIGKILL
    assert [ended(worker) for worker in workers] == [0, 0, 0]
    cache.close()
    assert readable(tmp_path, "sqlite", 31) == 31


def test_a_fork_inside_a_cached_function_leaves_the_lease_to_the_parent(tmp_path: Path) -> None:
    cache = UnifiedCache(cache_dir=tmp_path)
    holders = []

    @cache.cached
    def parallel(n: int) -> int:
        child = os.fork()
        if not child:
            return -n
        assert ended(child) == 0
        holders.append(cache.compute_leases.holder(parallel.key(n).hex))
        return n

    result = parallel(3)
    if result < 0:
        os._exit(0)
    assert result == 3
    assert holders != [None]
    assert cache.lookup(parallel.key(3)).value == 3


def open_files(pid: int) -> Iterator[str]:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the program closes its own files meanwhile
            yield os.readlink(link)


def test_a_child_that_runs_another_program_keeps_nothing(tmp_path: Path) -> None:
    cache = UnifiedCache(cache_dir=tmp_path)
    cache.put(1, n=1)
    options = ({}, {"close_fds": False}, {"preexec_fn": lambda: None})
    others = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], **more) for more in options]
    try:
        for other in others:
            assert not [link for link in open_files(other.pid) if str(tmp_path) in link]
        put_range(cache, 0, 10)
        cache.close()
        assert readable(tmp_path, "sqlite", 10) == 10
    finally:
        for other in others:
            other.kill()
            other.wait()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("backend", BACKENDS)
def test_no_child_hangs_or_fails_beside_threads_that_read_and_write(tmp_path: Path, backend: str) -> None:
    cache = UnifiedCache(cache_dir=tmp_path, metadata_backend=backend)
    cache.put("there", k="there")
    done, errors = threading.Event(), []

    def busy(thread: int) -> None:
        number = 0
        while not done.is_set():
            try:
                cache.put(os.urandom(200), t=thread, n=number)
                cache.get(k="there")
                number += 1
            except CachenessError as error:  # pragma: no cover
                errors.append(error)

    threads = [threading.Thread(target=busy, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()

    def work(n: int) -> None:
        assert cache.get(k="there") == "there"
        cache.put(n, n=n)

    children = []
    for n in range(40):
        children.append(fork(lambda n=n: work(n)))
        time.sleep(0.005)
    codes = [ended(child) for child in children]
    done.set()
    for thread in threads:
        thread.join()
    cache.close()
    assert codes == [0] * 40
    assert errors == []
    assert readable(tmp_path, backend, 40) == 40


def test_a_child_forked_by_a_thread_that_is_inside_refuses_sqlite_by_name(tmp_path: Path) -> None:
    cache = UnifiedCache(cache_dir=tmp_path)
    cache.put(1, n=1)
    said = os.pipe()

    def work() -> None:
        for again in ("child", "grandchild"):
            try:
                cache.put(2, n=2)
            except CachenessError as error:
                os.write(said[1], f"{again}: {type(error).__name__}: {error}\n".encode())
            if again == "child":
                assert ended(fork(lambda: os.write(said[1], forks.refusal().encode() + b"\n"))) == 0

    with forks.no_fork():
        child = fork(work)
    assert ended(child) == 0
    os.close(said[1])
    with os.fdopen(said[0]) as lines:
        text = lines.read()
    assert text.count("StoreRefused") == 2
    assert text.count("signal handler") == 3
    assert "spawn" in text
    cache.put(2, n=2)
    assert cache.get(n=2) == 2


def test_a_fork_waits_a_bounded_time_for_a_thread_that_does_not_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "PATIENCE", 0.3)
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with forks.no_fork():
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=stay)
    thread.start()
    inside.wait()
    began = time.monotonic()
    child = os.fork()
    if not child:
        os._exit("another thread" not in forks.refusal())
    took = time.monotonic() - began
    leave.set()
    thread.join()
    assert ended(child) == 0
    assert 0.3 <= took < 5
    assert forks.refusal() == ""
    child = os.fork()
    if not child:
        os._exit(forks.refusal() != "")
    assert ended(child) == 0


class Open:
    """Something that is closed across forks, and was made while a module was imported."""

    def close_before_fork(self) -> None:
        self.closed = True

    def has_connections(self) -> bool:
        return not hasattr(self, "closed")

    def reset_after_fork(self) -> None:
        """Nothing is kept."""


def test_a_fork_waits_for_a_thread_that_makes_something_to_close() -> None:
    inside, made, made_by = threading.Event(), Open(), []

    def importing() -> None:
        with forks.no_fork():
            inside.set()
            time.sleep(0.2)  # the other thread forks meanwhile, and waits
            forks.close_across_forks(made)
            made_by.append(threading.get_ident())

    thread = threading.Thread(target=importing)
    thread.start()
    inside.wait()
    child = os.fork()
    if child == 0:
        os._exit(0 if made_by and made.closed and not forks.refusal() else 1)
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_nothing_of_sqlite_is_open_in_a_child(tmp_path: Path) -> None:
    cache = UnifiedCache(cache_dir=tmp_path)
    put_range(cache, 0, 3)
    seen = os.pipe()

    def work() -> None:
        links = []
        for link in os.listdir("/proc/self/fd"):
            try:
                links.append(os.readlink(f"/proc/self/fd/{link}"))
            except OSError:
                continue
        os.write(seen[1], "\n".join(link for link in links if str(tmp_path) in link).encode())

    child = fork(work)
    assert ended(child) == 0
    os.close(seen[1])
    with os.fdopen(seen[0]) as lines:
        assert lines.read() == ""


@pytest.mark.parametrize("waits", [False, True])
def test_a_place_in_line_is_free_although_a_child_lives_on(tmp_path: Path, waits: bool) -> None:
    line = tmp_path / "line"
    first = wait_in_line(line, 1)
    assert first is not None
    child = fork(signal.pause)
    if waits:
        assert wait_in_line(line, 0.1) is None
    unlock(first)
    descriptor = os.open(line, os.O_RDWR)
    # Who gave up waiting is served first, by its thread, and leaves at once.
    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    os.close(descriptor)
    os.kill(child, signal.SIGKILL)
    ended(child)


def test_a_look_at_a_lock_keeps_nothing(tmp_path: Path) -> None:
    locks = FileLocks(tmp_path)
    assert locks.take("a")
    locks.release("a")
    assert locks.is_free("a")
    assert locks.take("a")
    locks.close()


def test_connections_of_a_store_that_was_collected_are_closed_before_a_fork(tmp_path: Path) -> None:
    UnifiedCache(cache_dir=tmp_path).close()
    store = SqliteStore(tmp_path / "metadata.sqlite", limits=Limits())
    assert store._file._connections.has_connections()
    del store
    gc.collect()
    child = fork(lambda: UnifiedCache(cache_dir=tmp_path).put(1, n=1))
    assert ended(child) == 0
    assert readable(tmp_path, "sqlite", 2) == 1


def test_logging_takes_its_lock_after_ours_whatever_is_imported_first() -> None:
    """Else a fork holds logging's lock while it waits for a thread that imports, and that asks for a logger."""
    program = "import sys, cacheness.forks; sys.exit('logging' not in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


def test_a_child_may_import_what_a_thread_of_its_parent_was_importing(tmp_path: Path) -> None:
    program = """
        import importlib.abc, os, signal, sys, threading, time
        begun = threading.Event()
        class Slow(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path, target=None):
                if name == "cacheness.metadata.journal.store":
                    begun.set()
                    time.sleep(0.5)
        sys.meta_path.insert(0, Slow())
        from cacheness import UnifiedCache
        def work(n):
            UnifiedCache(cache_dir=sys.argv[1], metadata_backend="json").put(n, n=n)
        thread = threading.Thread(target=work, args=(0,))
        thread.start()
        begun.wait()
        child = os.fork()
        if not child:
            signal.alarm(20)
            work(1)
            os._exit(0)
        thread.join()
        sys.exit(os.waitpid(child, 0)[1])
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), str(tmp_path)]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0
    assert readable(tmp_path, "json", 2) == 2


def test_a_fork_waits_for_a_migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    UnifiedCache(cache_dir=tmp_path).close()
    children = []

    def fork_beside(*_: object, **__: object) -> tuple[int, int]:
        def leave() -> None:
            children.append(fork(lambda: UnifiedCache(cache_dir=tmp_path).put(1, n=1)))

        thread = threading.Thread(target=leave)
        thread.start()
        thread.join(0.5)
        assert not children
        return 1, 1

    monkeypatch.setattr(migrations, "_migrate", fork_beside)
    migrations.upgrade(tmp_path / "metadata.sqlite")
    deadline = time.monotonic() + 10
    while not children and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ended(children[0]) == 0
    assert readable(tmp_path, "sqlite", 2) == 1


def test_several_threads_fork_at_once_and_their_children_fork_again(tmp_path: Path) -> None:
    cache = UnifiedCache(cache_dir=tmp_path)
    cache.put("there", k="there")
    codes: list[int] = []

    def work(n: int) -> None:
        cache.put(n, n=n)
        grandchild = fork(lambda: cache.put(n + 1, n=n + 1))
        assert ended(grandchild) == 0
        assert cache.get(n=n + 1) == n + 1

    def fork_some(thread: int) -> None:
        for turn in range(4):
            n = 2 * (4 * thread + turn)
            codes.append(ended(fork(partial(work, n))))

    threads = [threading.Thread(target=fork_some, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 16
    cache.close()
    assert readable(tmp_path, "sqlite", 32) == 32


def test_a_child_forked_inside_a_batch_leaves_the_batch_whole(tmp_path: Path) -> None:
    cache = UnifiedCache(cache_dir=tmp_path)
    with cache.write_batch():
        put_range(cache, 0, 10)
        child = fork(lambda: UnifiedCache(cache_dir=tmp_path).put(10, n=10))
        put_range(cache, 11, 20)
        assert ended(child) == 0
    cache.close()
    assert readable(tmp_path, "sqlite", 20) == 20


def locks_of_ours() -> list[tuple[str, object]]:
    """Each lock that an object of the core holds, by the name of its class and attribute."""
    kinds = (type(threading.Lock()), type(threading.RLock()), threading.Condition, threading.Event)
    gc.unfreeze()  # what is frozen is not listed
    modules = [(str(type(owner).__module__), owner) for owner in gc.get_objects()]
    # The state of forks is replaced as a whole, and connections to a server are.
    others = ("cacheness.testing", "cacheness.forks", "cacheness.metadata.sql.postgresql_pool")
    owners = [owner for module, owner in modules if module.startswith("cacheness.") and not module.startswith(others)]
    return [
        (f"{type(owner).__name__}.{name}", lock)
        for owner in owners
        for name, lock in getattr(owner, "__dict__", {}).items()
        if isinstance(lock, kinds)
    ]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_lock_is_a_new_one_in_a_child(tmp_path: Path, backend: str) -> None:
    cache = UnifiedCache(cache_dir=tmp_path, metadata_backend=backend, max_entries=100)
    cache.put(1, n=1)
    assert cache.compute_leases.acquire("aa" * 32, "a token")
    inherited = locks_of_ours()  # kept, so that no new lock stands where one of them was
    expected = {
        "Evictor._lock",
        "Marker._lock",
        "Sessions._lock",
        "ComputeLeases._lock",
        "ComputeLeases._woken",
        "Guard._lock",
    }
    assert expected <= {name for name, _ in inherited}
    said = os.pipe()

    def work() -> None:
        old = {id(lock) for _, lock in inherited}
        left = {name for name, lock in locks_of_ours() if id(lock) in old}
        os.write(said[1], " ".join(sorted(left)).encode())

    assert ended(fork(work)) == 0
    os.close(said[1])
    with os.fdopen(said[0]) as lines:
        assert lines.read() == ""


def test_a_child_goes_on_with_the_call_that_it_was_forked_in(tmp_path: Path) -> None:
    cache = UnifiedCache(cache_dir=tmp_path, max_entries=100)
    leases, children = cache.compute_leases, []
    assert leases.acquire("aa" * 32, "parent's")

    class Forks:
        """Something that forks while it is pickled."""

        def __reduce__(self) -> tuple[type, tuple[()]]:
            if not children:
                children.append(os.fork())
            return Forks, ()

    cache.put(Forks(), n=1)
    if children == [0]:
        signal.alarm(30)
        # By name: if the parent's put was the later one, its class was pickled after the fork.
        is_there = type(cache.get(n=1)).__name__ == Forks.__name__
        with_child = is_there and leases.acquire("bb" * 32, "child's")
        beats = [thread for thread in threading.enumerate() if thread.name == "cacheness-lease-heartbeat"]
        os._exit(0 if with_child and len(beats) == 1 else 1)
    assert ended(children[0]) == 0
    assert leases.holder("aa" * 32) == "parent's"


def test_a_child_builds_the_statement_that_a_thread_of_its_parent_was_building() -> None:
    inside, leave = threading.Event(), threading.Event()

    class SlowElsewhere:
        def page(self, purpose: Purpose, where: Where) -> Statement:
            if threading.current_thread() is not threading.main_thread():
                inside.set()
                leave.wait(60)
            return sqlite_building.builder.page(purpose, where)

    statements = Statements({}, SlowElsewhere, list)
    thread = threading.Thread(target=lambda: statements.page("scan", Where("ns")))
    thread.start()
    inside.wait()
    code = ended(fork(lambda: statements.page("scan", Where("ns"))))
    leave.set()
    thread.join()
    assert code == 0


def test_a_child_reads_a_large_file_as_its_parent_did(tmp_path: Path) -> None:
    file = tmp_path / "large"
    with file.open("wb") as empty:
        empty.truncate(16 << 20)
    digest = digest_of_start(str(file), None)

    def work() -> None:
        assert digest_of_start(str(file), None) == digest

    assert ended(fork(work)) == 0
