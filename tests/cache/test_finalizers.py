"""Finalizers: ours take no lock and close nothing, and a user's may call the cache in the middle of anything."""

from __future__ import annotations

import ast
import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from cacheness import UnifiedCache, factory
from cacheness.deadlines import Limits, patience
from cacheness.errors import StoreBusy
from cacheness.metadata.sql import sqlite_connections
from cacheness.metadata.sql.sqlite_transactions import SqliteFile
from cacheness.metadata.sqlite import SqliteStore

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BACKENDS = ("sqlite", "json")

#: What runs when an object is collected, or the interpreter exits; each was read for what it locks and closes.
FINALIZERS = {
    "cacheness/cache.py: finalize(self, factory.drop, self._slot)",  # puts into a queue made in C
    "cacheness/metadata/sql/sqlite_connections.py: finalize(self, _dropped.add, self._open)",  # appends to a deque
    "cacheness/metadata/sql/sqlite_connections.py: __del__ of Lease",  # appends to a deque
    "cacheness/factory.py: register(_registry.close)",  # at exit, where nothing is interrupted
    "cacheness/forks.py: Finalize(None, work, exitpriority=_AFTER_THE_USERS)",  # without an object: only at exit
    "cacheness_dask/write_behind.py: register(self.close)",  # at exit
    "cacheness_dask/write_behind.py: Finalize(self, self.close, exitpriority=100)",  # called only at exit
}


def finalizers_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef) and any(getattr(each, "name", "") == "__del__" for each in node.body):
            yield f"__del__ of {node.name}"
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            kind = name.rpartition(".")[2]
            if kind in ("finalize", "Finalize") or name == "atexit.register":
                yield f"{kind}({', '.join(ast.unparse(each) for each in (*node.args, *node.keywords))})"


def test_no_finalizer_is_unknown() -> None:
    found = set()
    for top in (ROOT / "core/cacheness", ROOT / "cacheness_dask", ROOT / "cacheness_prefect"):
        for path in top.rglob("*.py"):
            if "testing" not in path.parts:
                found |= {f"{path.relative_to(top.parent)}: {what}" for what in finalizers_of(path)}
    assert found == FINALIZERS


#: Objects whose finalizers call the cache are collected in the middle of anything: opening, putting, closing.
STORM = """
import faulthandler, gc, random, sys
from cacheness import UnifiedCache
from cacheness.errors import StoreBusy

faulthandler.dump_traceback_later(100, exit=True)
backend, what, top = sys.argv[1:]
folders = [f"{top}/{n}" for n in range(3)]
chance = random.Random(7)
lasting = [UnifiedCache(cache_dir=folder, metadata_backend=backend) for folder in folders]
calls = {"get": 0, "put": 0, "close": 0}
busy = 0


class Calling:
    def __init__(self, cache):
        self.cache, self.me = cache, self  # a cycle, so that only a collection finds it

    def __del__(self):
        global busy
        try:
            if what == "get":
                self.cache.get(n=1)
            elif what == "put":
                self.cache.put("by a finalizer", k=calls["put"])
            else:
                self.cache.close()
            calls[what] += 1
        except StoreBusy:
            busy += 1


def work(n):
    folder = n % 3
    Calling(UnifiedCache(lasting[folder].config) if what == "close" else lasting[folder])
    with UnifiedCache(cache_dir=f"{folders[folder]}/other", metadata_backend=backend) as cache:
        Calling(UnifiedCache(cache.config))  # the last handle, perhaps
        lasting[folder].put(n, n=n)
        cache.put(n, n=n)
        assert cache.get(n=n) == n


for n in range(150):
    gc.set_threshold(chance.randint(5, 60), 1, 1)
    work(n)
gc.disable()
for folder, cache in enumerate(lasting):
    assert [cache.get(n=n) for n in range(folder, 150, 3)] == list(range(folder, 150, 3))
    cache.close()
print(calls[what] > 50, busy < calls[what] / 2)
"""


@pytest.mark.timeout(150)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("what", ["get", "put", "close"])
def test_a_users_finalizer_may_call_the_cache_in_the_middle_of_anything(
    tmp_path: Path, backend: str, what: str
) -> None:
    command = [sys.executable, "-c", STORM, backend, what, str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=140)
    assert "Timeout" not in done.stderr
    assert done.stdout == "True True\n", done.stderr


def test_a_write_that_interrupts_a_write_is_refused_at_once_and_loses_nothing(tmp_path: Path) -> None:
    cache = UnifiedCache(cache_dir=tmp_path)
    file = SqliteFile(tmp_path / "metadata.sqlite", 30.0)

    def work(transaction: object) -> None:
        began = time.monotonic()
        with pytest.raises(StoreBusy, match="finalizer"):
            file.transact(lambda _: None)
        assert time.monotonic() - began < 5

    file.transact(work)
    file.transact(lambda _: None)
    file.close()
    cache.put(1, n=1)
    assert cache.get(n=1) == 1


def test_collecting_a_store_that_nobody_closed_closes_no_connection_there_and_then(tmp_path: Path) -> None:
    gc.collect()  # what other tests have left is closed by a thread, which opens connections: before this begins
    closed = threading.Event()

    class Last:
        @property
        def pid(self) -> int:
            closed.set()
            return 0

    if factory._registry.closer is not None:
        factory.drop(Last())  # type: ignore[arg-type]
        assert closed.wait(10)
    store = SqliteStore(tmp_path / "metadata.sqlite", limits=Limits())
    connections = set(store._file._connections._open)
    gone = weakref.ref(store._file)
    assert connections
    del store
    gc.collect()
    assert gone() is None
    assert sqlite_connections._dropped.has_connections()
    for connection in connections:
        connection.execute("SELECT 1")  # it is open
    other = SqliteStore(tmp_path / "metadata.sqlite", limits=Limits())
    assert not sqlite_connections._dropped.has_connections()
    other.close()


def test_a_handle_that_cannot_be_closed_keeps_no_other_from_being_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = UnifiedCache(cache_dir=tmp_path / "broken")
    other = UnifiedCache(cache_dir=tmp_path / "other")
    slots = broken._slot, other._slot
    closed = threading.Event()

    class Broken:
        def close(self) -> None:
            raise ZeroDivisionError

    class Other:
        def close(self) -> None:
            closed.set()

    kept = [slot.opened for slot in slots]
    slots[0].opened, slots[1].opened = Broken(), Other()  # type: ignore[assignment]
    del broken, slots
    gc.collect()
    other._slot, slot = factory.hold(other.config), other._slot
    factory.release(slot)
    del other
    gc.collect()
    assert closed.wait(10)
    for opened in kept:
        opened.close()  # type: ignore[union-attr]


def test_a_call_waits_for_another_that_opens_the_cache_no_longer_than_its_patience(tmp_path: Path) -> None:
    cache = UnifiedCache(cache_dir=tmp_path)
    slot = cache._slot
    opened, slot.opened = slot.opened, None
    with slot.lock:
        refused: list[BaseException] = []

        def call() -> None:
            with patience(0.2):
                try:
                    cache.get(n=1)
                except StoreBusy as error:
                    refused.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join(10)
        assert len(refused) == 1
    slot.opened = opened
    assert cache.get(n=1, default="nothing") == "nothing"


@pytest.mark.filterwarnings("error")
def test_a_coroutine_that_is_collected_gives_its_key_up(tmp_path: Path) -> None:
    cache = UnifiedCache(cache_dir=tmp_path, lease=0.6)
    begun = threading.Event()

    @cache.cached
    async def slow(n: int) -> int:
        begun.set()
        await asyncio.get_running_loop().create_future()
        return n

    async def leave() -> None:
        task = asyncio.ensure_future(slow(1))
        await asyncio.to_thread(begun.wait)
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        asyncio.tasks._unregister_task(task)  # type: ignore[attr-defined]

    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    key = slow.key(1).hex
    del loop
    gc.collect()
    deadline = time.monotonic() + 10
    while cache.compute_leases.holder(key) is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert cache.compute_leases.holder(key) is None
    assert not cache.compute_leases._held


def test_the_interpreter_exits_although_one_cache_cannot_be_closed(tmp_path: Path) -> None:
    program = """
        import sys
        from cacheness import UnifiedCache, factory
        from cacheness.errors import StoreUnavailable
        caches = [UnifiedCache(cache_dir=f"{sys.argv[1]}/{n}") for n in range(2)]
        for cache in caches:
            cache.put(1, n=1)
        def fail():
            raise StoreUnavailable("down")
        factory.open_cache(caches[0]._slot).cache.blobs.close = fail
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert list((tmp_path / "1" / "sessions").iterdir()) == []
