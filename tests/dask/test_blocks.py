"""Whose block is it: threads, tasks, servers, nested blocks, any order of leaving, any way to choose a scheduler."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import http.server
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import numpy as np
import pytest
from dask import multiprocessing
from distributed import Client
from workloads import inc, runs

import cacheness_dask as cd
from cacheness import UnifiedCache

pytestmark = pytest.mark.timeout(120)

_GET_SCHEDULER = dask.base.get_scheduler
_GRAPH_TO_FUTURES = Client._graph_to_futures


@pytest.fixture(autouse=True)
def nothing_stays_behind() -> Iterator[None]:
    yield
    assert cd.hooks.current() is None
    assert dask.base.get_scheduler is _GET_SCHEDULER
    assert Client._graph_to_futures is _GRAPH_TO_FUTURES
    assert dask.config.get("scheduler", None) is None


@pytest.fixture
def caches(tmp_path: Path) -> Iterator[list[UnifiedCache]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(UnifiedCache(cache_dir=tmp_path / name)) for name in "abc"]


def sync(cache: Any) -> Any:
    return cd.caching(cache, scheduler="sync", which="all")


def compute(n: int) -> int:
    return dask.delayed(inc)(n).compute()  # type: ignore[no-any-return]


def sizes(caches: list[UnifiedCache]) -> list[int]:
    return [cache.stats()["entries"] for cache in caches]


class Threads:
    """Plain threads, each of which does what it is told, one step after the other."""

    def __init__(self, *steps: Iterator[object]) -> None:
        self._steps = steps
        self._go = [threading.Semaphore(0) for _ in steps]
        self._done = threading.Semaphore(0)
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._work, args=(n,)) for n in range(len(steps))]

    def _work(self, n: int) -> None:
        while self._go[n].acquire():
            try:
                next(self._steps[n])
            except StopIteration:
                return
            except BaseException as error:  # noqa: BLE001  reported by `run`
                self._errors.append(error)
                return
            finally:
                self._done.release()

    def run(self, order: Any) -> None:
        for thread in self._threads:
            thread.start()
        for n in order:
            self._go[n].release()
            self._done.acquire()
        for thread in self._threads:
            thread.join(30)
        assert self._errors == []


#: Three steps of each of two threads, in every order: enter, compute, leave; and a fourth, that ends.
ORDERS = sorted(set(itertools.permutations([0, 0, 0, 1, 1, 1])))


@pytest.mark.slow
@pytest.mark.parametrize("same", [False, True], ids=["two caches", "one cache"])
def test_threads_have_blocks_of_their_own_however_they_are_interleaved(caches: Any, same: bool) -> None:
    number = itertools.count()

    def steps(cache: UnifiedCache) -> Iterator[None]:
        with sync(cache) as run:
            yield
            n = next(number)
            assert (compute(n), compute(n)) == (n + 1, n + 1)
            assert [record.misses for record in run.history] == [1, 0]
            yield
        compute(next(number))
        yield

    for order in ORDERS:
        Threads(steps(caches[0]), steps(caches[0 if same else 1])).run([*order, 0, 1])
    expected = [2 * len(ORDERS), 0, 0] if same else [len(ORDERS), len(ORDERS), 0]
    assert sizes(caches) == expected


def test_a_thread_without_a_block_goes_without_a_cache(caches: Any) -> None:
    with sync(caches[0]) as run:
        thread = threading.Thread(target=compute, args=(1,))
        thread.start()
        thread.join()
        assert run.history == []
        asyncio.run(asyncio.to_thread(compute, 2))  # which takes the context along, as servers do
        assert len(run.history) == 1


def test_tasks_of_an_asyncio_program_have_blocks_of_their_own(caches: Any) -> None:
    async def work(cache: UnifiedCache, n: int) -> list[int]:
        async with sync(cache) as run:
            for _ in range(2):
                await asyncio.sleep(0)
                compute(n)
                await asyncio.gather(*(asyncio.to_thread(compute, n) for _ in range(2)))
        return [record.misses for record in run.history]

    async def program() -> Any:
        async def outside() -> int:
            await asyncio.sleep(0)
            return compute(7)

        return await asyncio.gather(work(caches[0], 1), work(caches[1], 2), work(caches[0], 3), outside())

    *histories, plain = asyncio.run(program())
    assert [history[0] for history in histories] == [1, 1, 1]
    assert [sum(history[3:]) for history in histories] == [0, 0, 0]
    assert (plain, sizes(caches)) == (8, [2, 1, 0])


def test_a_task_that_outlives_its_block_computes_on_without_it(caches: Any) -> None:
    async def program() -> None:
        left = asyncio.Event()

        async def late() -> None:
            await left.wait()
            compute(5)

        async with sync(caches[0]):
            task = asyncio.create_task(late())
        left.set()
        await task

    asyncio.run(program())
    assert sizes(caches) == [0, 0, 0]


class Handler(http.server.BaseHTTPRequestHandler):
    caches: list[UnifiedCache]
    together: threading.Barrier

    def do_GET(self) -> None:
        _, place, n = self.path.split("/")
        block = sync(self.caches[int(place)]) if place != "none" else contextlib.nullcontext()
        with block:
            self.together.wait(30)  # all requests are inside
            answer = str(compute(int(n))).encode()
            self.together.wait(30)
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


def test_each_request_of_a_web_server_uses_its_own_cache(caches: Any) -> None:
    paths = ["/0/1", "/1/2", "/1/3", "/none/4"]
    served = type("Served", (Handler,), {"caches": caches, "together": threading.Barrier(len(paths))})
    answers: dict[str, str] = {}

    def ask(port: int, path: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", path)
        answers[path] = connection.getresponse().read().decode()
        connection.close()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), served) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        asking = [threading.Thread(target=ask, args=(server.server_port, path)) for path in paths]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        server.shutdown()
        serving.join()
    assert answers == {"/0/1": "2", "/1/2": "3", "/1/3": "4", "/none/4": "5"}
    assert sizes(caches) == [1, 2, 0]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_nested_blocks_are_left_in_any_order(caches: Any, order: Any) -> None:
    blocks = [sync(cache) for cache in caches]
    open_runs = {n: block.__enter__() for n, block in enumerate(blocks)}
    for n in order:
        compute(n)
        assert [len(run.history) for run in open_runs.values()] == [0] * (len(open_runs) - 1) + [1]
        del open_runs[n]
        blocks[n].__exit__(None, None, None)
        for run in open_runs.values():
            run.history.clear()
    compute(9)
    assert sum(sizes(caches)) == 3


def test_nocache_is_a_block_like_others(caches: Any) -> None:
    with sync(caches[0]), cd.nocache():
        compute(1)
        with sync(caches[1]):
            compute(2)
        compute(3)
    assert sizes(caches) == [0, 1, 0]


@pytest.mark.parametrize("raised", [ValueError, KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_an_exception_leaves_the_block(caches: Any, raised: type[BaseException]) -> None:
    with pytest.raises(raised), sync(caches[0]):
        compute(1)
        raise raised
    compute(2)
    assert sizes(caches) == [1, 0, 0]


def test_a_generator_that_is_closed_later_takes_its_own_block_with_it(caches: Any) -> None:
    def rows() -> Iterator[int]:
        with sync(caches[0]):
            yield compute(1)

    generator = rows()
    next(generator)
    with sync(caches[1]):
        generator.close()
        compute(2)
    compute(3)
    assert sizes(caches) == [1, 1, 0]


def test_a_block_that_encloses_nothing_is_told(caches: Any) -> None:
    block = sync(caches[0])
    entering = threading.Thread(target=block.__enter__)  # as a server does with what its handlers depend on
    entering.start()
    entering.join()
    compute(1)
    with pytest.warns(cd.CacheUnavailable, match="another thread"):
        block.__exit__(None, None, None)


def test_a_block_is_entered_once_at_a_time(caches: Any) -> None:
    block = sync(caches[0])
    for n in range(2):
        with block, pytest.raises(RuntimeError, match="separate caching"):
            compute(n)
            block.__enter__()
    with pytest.raises(RuntimeError, match="was not entered"):
        block.__exit__(None, None, None)
    assert sizes(caches) == [2, 0, 0]


def test_functions_and_coroutine_functions_can_be_decorated(caches: Any) -> None:
    @sync(caches[0])
    def nested(n: int) -> int:
        return compute(n) if n == 0 else nested(n - 1) + compute(n)

    @sync(caches[1])
    async def later(n: int) -> int:
        await asyncio.sleep(0)
        return compute(n)

    async def both() -> list[int]:
        return await asyncio.gather(later(1), later(2))

    assert nested(2) == 6
    assert asyncio.run(both()) == [2, 3]
    assert sizes(caches) == [3, 2, 0]


# another scheduler


def thread_name(_: str) -> str:
    return threading.current_thread().name


def in_config(collection: Any, scheduler: str) -> Any:
    with dask.config.set(scheduler=scheduler):
        return collection.compute()


WAYS: dict[str, Callable[[Any, str], Any]] = {
    "compute(scheduler=)": lambda collection, scheduler: collection.compute(scheduler=scheduler),
    "dask.compute(scheduler=)": lambda collection, scheduler: dask.compute(collection, scheduler=scheduler)[0],
    "persist(scheduler=)": lambda collection, scheduler: collection.persist(scheduler=scheduler).compute(),
    "config.set": in_config,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_scheduler_chosen_inside_is_used_with_the_cache(cache: UnifiedCache, way: str) -> None:
    names = {}
    with cd.caching(cache, which="all", scheduler="processes") as run:
        for scheduler in ("threads", "sync"):
            for _ in range(2):
                names[scheduler] = WAYS[way](dask.delayed(thread_name)(scheduler), scheduler)
    assert names["sync"] == threading.current_thread().name != names["threads"]
    assert [record.misses for record in run.history if record.misses] == [1, 1]


def test_a_scheduler_of_the_users_own_takes_what_dask_gives_it(cache: UnifiedCache) -> None:
    """Plain Dask gives an expression, whose graph it asks for, and hands on to another scheduler."""
    sizes: list[int] = []

    def counting(dsk: Any, keys: Any, **options: Any) -> Any:
        sizes.append(len(dsk.__dask_graph__()))
        return dask.get(dsk, keys, **options)

    def work() -> None:
        with dask.config.set(scheduler=counting):
            assert int(da.arange(6, chunks=2).sum().compute()) == 15
        assert dask.delayed(inc)(1).compute(scheduler=counting) == 2

    work()
    with cd.caching(cache, which="all"):
        work()
        work()
    plain, cold, warm = sizes[:2], sizes[2:4], sizes[4:]
    assert cold == plain
    assert warm[0] < plain[0]


def test_whoever_asks_for_the_scheduler_to_choose_a_lock_gets_dasks_own(cache: UnifiedCache) -> None:
    bag = db.from_sequence([1])
    with cd.caching(cache):
        assert dask.base.get_scheduler(collections=[bag]) is multiprocessing.get
        assert dask.base.get_scheduler(scheduler="threads") is dask.threaded.get
        with dask.config.set(scheduler="processes"):
            assert dask.base.get_scheduler() is multiprocessing.get
            assert _GET_SCHEDULER(collections=[bag]) is multiprocessing.get  # as who took it before, Dask's `to_hdf`
    with cd.caching(cache, scheduler="processes"):
        assert dask.base.get_scheduler(collections=[da.ones(1)]) is multiprocessing.get


def test_what_another_library_puts_before_dasks_function_stays(cache: UnifiedCache, monkeypatch: Any) -> None:
    asked = []

    def watching(theirs: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: asked.append(1) or theirs(*args, **kwargs)

    with monkeypatch.context() as patch:
        with sync(cache) as run:
            patch.setattr(dask.base, "get_scheduler", watching(dask.base.get_scheduler))
            with sync(cache):
                compute(1)
            compute(1)
        compute(2)
    with sync(cache):
        pass  # the first block after theirs is gone tidies up
    assert len(asked) == 3
    assert [record.hits for record in run.history] == [1]


def test_a_dask_that_works_in_another_way_is_told_and_computes(cache: UnifiedCache, monkeypatch: Any) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            dask.base, "get_scheduler", lambda scheduler=None, collections=None: _GET_SCHEDULER(scheduler="sync")
        )
        patch.setattr(dask.base, "compute", lambda work, **_: (dask.local.get_sync(work.dask, work.key),))
        with pytest.raises(cd.CacheUnavailable, match="does not support"), sync(cache):  # warnings are errors here
            raise AssertionError
        with pytest.warns(cd.CacheUnavailable, match="does not support"), sync(cache):
            assert compute(1) == 2
    assert cache.stats()["entries"] == 0


# clients


def array() -> Any:
    return da.from_array(np.arange(8.0), chunks=4).map_blocks(inc).sum()


SUBMISSIONS: dict[str, Callable[[Any], Any]] = {
    "compute": lambda client: client.compute(array()).result(),
    "compute(sync=True)": lambda client: client.compute(array(), sync=True),
    "persist": lambda client: float(client.persist(array()).compute()),
    "get": lambda client: client.get(array().__dask_graph__(), array().__dask_keys__())[0],
    "submit": lambda client: client.submit(inc, 35).result(),
    "map": lambda client: sum(client.gather(client.map(inc, [10, 11, 12]))),
    "scheduler=client": lambda client: float(array().compute(scheduler=client)),
    "scheduler=distributed": lambda client: float(array().compute(scheduler="distributed")),
}


@pytest.mark.parametrize("way", SUBMISSIONS)
def test_what_a_client_does_inside_uses_the_cache(cache: UnifiedCache, cluster: Any, way: str) -> None:
    for turn in range(2):
        runs()
        with Client(cluster) as client, cd.caching(cache) as run:
            assert SUBMISSIONS[way](client) == 36
        assert len(run.history) >= 1
        assert (runs() == 0, sum(record.misses for record in run.history) == 0) == (turn == 1, turn == 1)


def test_a_client_made_inside_is_used_with_the_cache(cache: UnifiedCache, cluster: Any) -> None:
    for turn in range(2):
        with cd.caching(cache, scheduler="sync") as run:
            array().compute()
            with Client(cluster):
                array().compute()
                (array() * 2).compute()
        assert [record.misses > 0 for record in run.history] == [turn == 0, False, turn == 0]


def test_the_blocks_cache_comes_before_the_installed_one(caches: Any, client: Client) -> None:
    run = cd.install(client, caches[0])
    with cd.caching(caches[1]) as block:
        assert client.submit(inc, 1).result() == 2
        with cd.nocache():
            assert client.submit(inc, 2).result() == 3
    assert (len(run.history), len(block.history)) == (0, 1)
    assert client.submit(inc, 3).result() == 4
    cd.uninstall(client)
    assert client.submit(inc, 4).result() == 5
    assert sizes(caches) == [1, 1, 0]


def test_an_asynchronous_client_inside(cache: UnifiedCache, cluster: Any) -> None:
    async def work() -> tuple[list[Any], list[int]]:
        async with (
            Client(cluster.scheduler_address, asynchronous=True) as client,
            cd.caching(cache) as run,
        ):
            values = [await client.compute(array()), await client.submit(inc, 1)]
            values.append(sum(await client.gather(client.map(inc, range(3)))))
        return values, [record.misses for record in run.history]

    for turn in range(2):
        values, misses = asyncio.run(work())
        assert values == [36, 2, 6]
        assert [n > 0 for n in misses] == [turn == 0] * 3


def test_trouble_of_an_asynchronous_clients_workers_is_told(tmp_path: Path, cluster: Any) -> None:
    down = UnifiedCache(
        metadata_backend="postgresql://nobody@127.0.0.1:1/none",
        cache_dir=tmp_path,
        shared_path=True,
        allow_unsigned=True,
        connect_timeout=0.2,
    )

    async def work() -> Any:
        async with Client(cluster.scheduler_address, asynchronous=True) as client, cd.caching(down):
            return await client.submit(inc, 1)

    with pytest.warns(cd.CacheUnavailable) as warned:
        assert asyncio.run(work()) == 2
    assert len(warned) == 1
