"""What the processes of a storm do, each until it is killed."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cacheness import CachenessError, StoreUnavailable, UnifiedCache
from cacheness.config import Config
from cacheness.errors import StoreRefused
from tests.crash.board import BATCH, BATCH_ROWS, DELETE_EVERY, KEYS, SLOTS, Board, Ledger, batch_row, payload, verdict
from tests.crash.worlds import World, obey_rights

HANG = 90  #: seconds after which a forked child counts as hung
QUOTA = 40  #: entries
LIFETIME = 3600.0  #: of results on a server: longer than a storm, shorter than a step of a clock

Spec = tuple[World, Path]  #: the stores, and the folder of the board and the ledger


class Seat:
    """One process's place in the storm."""

    def __init__(self, spec: Spec, number: int) -> None:
        self.world, self.folder = spec
        self.number = number
        self.board = Board(self.folder / "board")
        self.ledger = Ledger(self.folder / "ledger")

    def count(self, counter: str, more: int = 1) -> None:
        """Count something that this seat did."""
        self.board.count(counter, self.number, more)

    def open(self, config: Config | None = None) -> UnifiedCache:
        """Open the cache, as soon as this process has the right to."""
        while True:
            with self.trouble():
                return UnifiedCache(config or self.world.config)

    @contextlib.contextmanager
    def trouble(self) -> Iterator[None]:
        """Go on when a right was taken away, or when the stores are busy or away; all else ends the process."""
        try:
            yield
        except StoreRefused:
            self.count("refused")
            time.sleep(0.02)
        except StoreUnavailable:
            self.count("unavailable")
            time.sleep(0.02)

    def turns(self, pause: float = 0.0) -> Iterator[None]:
        """Turn after turn, for as long as this process lives."""
        self.count("at_work")
        while True:
            yield
            time.sleep(random.uniform(0, 2 * pause))


def write(seat: Seat) -> None:
    """Put and delete single results."""
    cache = seat.open()
    for _ in seat.turns():
        slot = seat.number * KEYS + random.randrange(KEYS)
        number = seat.board.try_next(slot)
        with seat.trouble():
            if number % DELETE_EVERY == 0:
                cache.invalidate(slot=slot)
            else:
                cache.put(payload(slot, number), slot=slot, ttl=LIFETIME if seat.world.is_server else None)
            seat.board.acknowledge(slot, number)
            seat.count("acknowledged")


def write_batches(seat: Seat) -> None:
    """Put many small rows at once."""
    cache = seat.open()
    for _ in seat.turns(0.1):
        number = seat.board.try_next(BATCH)
        with seat.trouble():
            with cache.write_batch():
                for row in range(BATCH_ROWS):
                    cache.put(batch_row(row, number), b=row)
            seat.board.acknowledge(BATCH, number)
            seat.count("batches")


def read(seat: Seat) -> None:
    """Read anything, and judge it."""
    cache = seat.open()
    for _ in seat.turns():
        with seat.trouble():
            seeds = seat.ledger.seeds()
            identity = random.choice(seeds)
            if cache.get(ledger=identity) != Ledger.value(identity):
                seat.count("lost")
            found = verdict(seat.board, cache, random.randrange(SLOTS))
            if found != "right":
                seat.count(found)
            seat.count("reads")


def repair(seat: Seat) -> None:
    """Repair, sometimes with force."""
    cache, quota = seat.open(), seat.open(_with_quota(seat.world.config))
    for _ in seat.turns():
        with seat.trouble():
            random.choice([cache, cache, quota]).verify_integrity(repair=True, force=random.random() < 0.3)
            seat.count("repairs")


def fence(seat: Seat) -> None:
    """False fencing: somebody is declared dead who is not."""
    cache = seat.open()
    metadata = cache._store.metadata
    for _ in seat.turns(0.6):
        with seat.trouble():
            sessions = metadata.live_sessions()
            if sessions and metadata.fence(random.choice(sessions).id):
                seat.count("fenced")


def evict(seat: Seat) -> None:
    """Write over a quota, in a namespace of its own."""
    cache = seat.open(_with_quota(seat.world.config))
    names = list(range(3 * QUOTA))
    for _ in seat.turns():
        with seat.trouble():
            name = random.choice(names)
            cache.put(payload(name, name), quota=name)
            other = random.choice(names)
            found = cache.get(quota=other)
            if found is not None and found != payload(other, other):
                seat.count("wrong")
            if random.random() < 0.1:
                cache.evict()
                seat.count("evictions")
                if cache.stats()["entries"] > QUOTA:
                    seat.count("over")


def _with_quota(config: Config) -> Config:
    return config.but(namespace="quota", max_entries=QUOTA)


def step_the_clock(seat: Seat) -> None:
    """Live with a clock that somebody sets, and delete what is old."""
    real, real_ns = time.time, time.time_ns
    step = [0]
    time.time, time.time_ns = lambda: real() + step[0], lambda: real_ns() + step[0] * 10**9
    cache = seat.open()
    on_server = seat.world.is_server
    for _ in seat.turns(0.1):
        step[0] = random.choice([0, 90, -90, 7200, -7200, 30 * 86400])
        with seat.trouble():
            identity = seat.ledger.put(cache, ttl=LIFETIME if on_server else None)
            cache.evict()
            if on_server:  # elsewhere the machine's clock is the only one
                cache.delete_matching(older_than=3000)
                cache.touch(ledger=identity, ttl=LIFETIME)
            if cache.get(ledger=identity) != Ledger.value(identity):
                seat.count("lost")


def be_a_stranger(seat: Seat) -> None:
    """A clone, or a primary that was left behind: delete everything, on the blobs of the original."""
    world = seat.world
    for _ in seat.turns(0.3):
        with seat.trouble():
            back = world.left_behind
            config = back if back is not None and random.random() < 0.5 else world.clone()
            with UnifiedCache(config) as cache:
                for identity in random.sample(seat.ledger.seeds(), 20):
                    cache.put(os.urandom(50_000), ledger=identity)
                for identity in random.sample(seat.ledger.seeds(), 20):
                    cache.invalidate(ledger=identity)
                with contextlib.suppress(CachenessError):
                    cache.verify_integrity(repair=True, force=True)
                    seat.count("errors")  # it must have refused
                cache.clear()
            seat.count("strangers")


def take_rights(seat: Seat) -> None:
    """Take rights away for a moment, and give them back."""
    seat.world.give_rights_back()
    for _ in seat.turns(2.0):
        seat.world.take_rights()
        time.sleep(random.uniform(0.05, 0.5))
        seat.world.give_rights_back()
        seat.count("rights")


# forks


def fork(seat: Seat) -> None:
    """Fork in every way, beside threads that read and write."""
    cache = seat.open()
    threading.Thread(target=_keep_busy, args=(seat, cache), daemon=True).start()
    kinds = [*KINDS, *[_plainly] * 10]
    for _ in seat.turns(0.02):
        with seat.trouble():
            random.choice(kinds)(seat, cache)


def _keep_busy(seat: Seat, cache: UnifiedCache) -> None:
    while True:
        with seat.trouble():
            cache.get(ledger=seat.ledger.put(cache))
        time.sleep(0.05)


def _child(seat: Seat, work: Callable[[], object], *, then_killed: bool = False) -> int:
    """Fork; the child does its work and is gone. When it hangs it shows where, and dies by SIGALRM."""
    pid = os.fork()
    if pid:
        seat.count("forks")
        return pid
    code = 1
    try:
        signal.alarm(HANG)
        with seat.trouble():
            work()
        code = 0
        if then_killed:
            os.kill(os.getpid(), signal.SIGKILL)
    except CachenessError as error:
        _report("a child", error)
    finally:
        os._exit(code)


def _wait(seat: Seat, pid: int) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == -signal.SIGALRM:
        seat.count("hung")
    elif code == 1:
        seat.count("errors")


def _plainly(seat: Seat, cache: UnifiedCache) -> None:
    _wait(seat, _child(seat, lambda: [seat.ledger.put(cache) for _ in range(3)]))


def _and_kill_the_child(seat: Seat, cache: UnifiedCache) -> None:
    _wait(seat, _child(seat, lambda: seat.ledger.put(cache), then_killed=True))


def _several_at_once(seat: Seat, cache: UnifiedCache) -> None:
    for child in [_child(seat, lambda: seat.ledger.put(cache)) for _ in range(4)]:
        _wait(seat, child)


def _and_close_first(seat: Seat, _cache: UnifiedCache) -> None:
    own = UnifiedCache(seat.world.config.but(busy_timeout=29.0))  # a configuration, and connections, of its own
    seat.ledger.put(own)
    go = os.pipe()

    def work() -> None:
        os.close(go[1])  # or the read would go on for ever when the parent was killed
        seat.ledger.put(own)
        os.read(go[0], 1)
        seat.ledger.put(own)

    child = _child(seat, work)
    own.close()
    os.write(go[1], b"1")
    os.close(go[0])
    os.close(go[1])
    _wait(seat, child)


def _as_a_daemon(seat: Seat, cache: UnifiedCache) -> None:
    def leave_behind() -> None:
        _child(seat, lambda: [seat.ledger.put(cache) for _ in range(3)])  # whose parent is gone at once

    _wait(seat, _child(seat, leave_behind))


def _again_in_the_child(seat: Seat, cache: UnifiedCache) -> None:
    def work() -> None:
        seat.ledger.put(cache)
        _wait(seat, _child(seat, lambda: seat.ledger.put(cache)))
        seat.ledger.put(cache)

    _wait(seat, _child(seat, work))


def _in_a_batch(seat: Seat, cache: UnifiedCache) -> None:
    with cache.write_batch():
        cache.put(b"one", batch_around_a_fork=1)
        child = _child(seat, lambda: seat.ledger.put(UnifiedCache(seat.world.config)))
        cache.put(b"two", batch_around_a_fork=2)
    _wait(seat, child)


def _in_a_cached_function(seat: Seat, cache: UnifiedCache) -> None:
    def compute(number: int) -> int:
        _wait(seat, _child(seat, lambda: seat.ledger.put(cache)))
        return number

    number = random.randrange(10**9)
    if cache.cached(compute, version="1")(number) != number:
        seat.count("wrong")


def _in_a_pool(seat: Seat, method: str) -> None:
    dump = (faulthandler.dump_traceback_later, (HANG - 5,))
    with multiprocessing.get_context(method).Pool(2, *dump) as pool:
        work = pool.starmap_async(_put_one, [(seat.world, seat.folder, seat.number)] * 4)
        try:
            work.get(timeout=HANG)
        except multiprocessing.TimeoutError:
            seat.count("hung")
    seat.count("forks", 2)


def _in_a_forked_pool(seat: Seat, _cache: UnifiedCache) -> None:
    _in_a_pool(seat, "fork")


def _in_a_pool_of_a_forkserver(seat: Seat, _cache: UnifiedCache) -> None:
    _in_a_pool(seat, "forkserver")


def _in_a_pool_of_fresh_processes(seat: Seat, _cache: UnifiedCache) -> None:
    _in_a_pool(seat, "spawn")


def _put_one(world: World, folder: Path, number: int) -> None:
    seat = Seat((world, folder), number)
    with seat.trouble(), UnifiedCache(world.config) as cache:
        seat.ledger.put(cache)


def _another_program(seat: Seat, cache: UnifiedCache) -> None:
    """With the descriptors left open, as some programs start others."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1)"], close_fds=False):
        seat.ledger.put(cache)
    seat.count("forks")


KINDS = (
    _plainly,
    _and_kill_the_child,
    _several_at_once,
    _and_close_first,
    _as_a_daemon,
    _again_in_the_child,
    _in_a_batch,
    _in_a_cached_function,
    _in_a_forked_pool,
    _in_a_pool_of_a_forkserver,
    _in_a_pool_of_fresh_processes,
    _another_program,
)


#: Who takes part, in the order of their seats: the writers first, because their seats are their slots.
ROLES: tuple[tuple[Callable[[Seat], None], int], ...] = (
    (write, 3),
    (read, 1),
    (repair, 2),
    (fence, 1),
    (write_batches, 1),
    (evict, 1),
    (step_the_clock, 1),
    (be_a_stranger, 1),
    (take_rights, 1),
    (fork, 1),
)


def act(work: Callable[[Seat], None], spec: Spec, number: int) -> None:
    """One process of the storm."""
    random.seed()
    # Not dump_traceback_later(): it hangs in a child's child, waiting for a thread that only the child has.
    faulthandler.register(signal.SIGALRM, chain=True)
    logging.disable()  # misses, strangers and missing rights are logged, as they should be
    seat = Seat(spec, number)
    if work is not take_rights and work is not be_a_stranger:
        obey_rights()
    try:
        work(seat)
    except Exception as error:  # noqa: BLE001 - a driver's error would be one of the findings
        seat.count("errors")
        _report(work.__name__, error)


def _report(who: str, error: Exception) -> None:
    print(f"{who}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
