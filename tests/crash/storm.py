"""A storm: processes that write, read, repair, evict and fork, killed at random, judged by what was acknowledged.

`python -m tests.crash.storm --seconds 600 --world sqlite` (or `postgresql`, or `pooled`) runs one by itself, and
`make storm` all of them. Meanwhile clocks are set, rights are taken away and given back, a clone and a primary that
was left behind delete whatever they can, and a standby takes over that has missed the last seconds.

A storm ends with a single repair: nothing that was acknowledged may be lost, nothing wrong, and no litter left.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path

import psutil

from cacheness import UnifiedCache
from cacheness.testing import servers
from tests.crash import roles
from tests.crash.board import SEEDS, SLOTS, Board, Ledger, verdict
from tests.crash.children import CONTEXT
from tests.crash.worlds import ServerWorld, SqliteWorld, World
from tests.metadata.poolers import PGBOUNCER

WORLDS = ("sqlite", "postgresql", "pooled")
EVENTS = (
    "acknowledged",
    "batches",
    "reads",
    "repairs",
    "evictions",
    "fenced",
    "strangers",
    "rights",
    "refused",
    "forks",
)
TAIL = 2.0  #: seconds of acknowledged work that a failover loses
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Outcome:
    """The figures of a storm."""

    world: str
    seconds: float
    kills: int
    failovers: int
    counts: dict[str, int]
    left_alone: int  #: results that were acknowledged once and had to stay
    orphans: int  #: removed by the one repair
    unknown: int  #: blobs of sessions that were lost with a tail, or are a clone's
    miscounted: int  #: namespaces whose totals a count did not find
    left: int  #: issues after it
    blobs: int
    rows_with_blobs: int

    def check(self) -> None:
        """I2, I3, I5, I6 and I8, by name."""
        for event in EVENTS:
            assert self.counts[event] > 0, f"no {event}"
        assert self.counts["lost"] == 0, "I2: an acknowledged put is not readable"
        assert self.counts["wrong"] == 0, "I3: a read returned what no put may have left there"
        assert self.counts["hung"] == 0, "I8: a forked child hung"
        assert self.counts["errors"] == 0, "I8: a process gave up, or a repair of a stranger was not refused"
        assert self.counts["over"] == 0, "a quota was not held"
        assert self.miscounted == 0, "the totals at rest are not what a count finds"
        assert self.left == 0, "I6: issues are left after one repair"
        assert self.blobs == self.rows_with_blobs, "I6: blobs and rows differ"


def run(
    name: str, folder: Path, bucket: str, *, seconds: float, kills: int = 0, forks: int = 0, failovers: int = 1
) -> Outcome:
    """Let it blow for so long, until so many were killed at work and forked, and everything has happened once."""
    stores = (
        SqliteWorld(folder) if name == "sqlite" else ServerWorld(folder, bucket, _pooler() if name == "pooled" else "")
    )
    with stores.running() as world:
        ledger = Ledger(folder / "ledger")
        with UnifiedCache(world.config) as cache:
            for _ in range(SEEDS):
                ledger.put(cache)
        stores.make_seed(world)
        storm = _Storm(folder, world)
        began = time.monotonic()
        with _adopting_orphans():
            if isinstance(stores, ServerWorld):
                storm.world = stores.world()
                for _ in range(failovers):
                    storm.blow(seconds / (failovers + 1))
                    storm.fail_over(stores)
            else:
                failovers = 0
            storm.blow(began + seconds - time.monotonic(), kills, forks)
        return storm.aftermath(name, time.monotonic() - began, failovers)


class _Storm:
    """The processes, each in its seat, and the world that they find."""

    def __init__(self, folder: Path, world: World) -> None:
        self.world = world
        self._folder = folder
        self._board = Board(folder / "board")
        self._ledger = Ledger(folder / "ledger")
        self._work = [work for work, number in roles.ROLES for _ in range(number)]
        self._running: list[multiprocessing.process.BaseProcess] = []
        self._others: set[int] = set()  #: children of this process that have no part in the storm
        self._kills = 0
        self._hung = 0  #: children whose parent was killed

    def blow(self, seconds: float, kills: int = 0, forks: int = 0) -> None:
        """Start everybody, and kill one after the other."""
        self._start_all()
        try:
            self._kill_for(seconds, kills, forks)
        finally:
            self._dismiss()

    def fail_over(self, stores: ServerWorld) -> None:
        """Lose some seconds of work with the primary; a person then decides that what is left counts."""
        self._start_all()
        try:
            self._kill_for(TAIL)
            floors, size = self._board.floors(), self._ledger.size()
            stores.part()
            self._kill_for(TAIL)
        finally:
            self._dismiss()
        self._board.lose_tail(floors)
        self._ledger.lose_tail(size)
        self.world = stores.fail_over()
        with UnifiedCache(self.world.config) as cache:
            cache.adopt()

    def aftermath(self, name: str, seconds: float, failovers: int) -> Outcome:
        """Adopt, repair once, and look at everything."""
        self.world.give_rights_back()
        config = self.world.config.but(statement_timeout=60.0)  # what it checks is the same on a busy machine
        counts = {counter: self._board.total(counter) for counter in Board.COUNTERS if counter != "at_work"}
        with UnifiedCache(config) as cache, UnifiedCache(config.but(namespace="quota")) as quota:
            found = self._judge(cache)
            unknown = cache.adopt()
            repaired = cache.verify_integrity(repair=True, force=True) + quota.verify_integrity(repair=True, force=True)
            left = [cache.verify_integrity(deep=True), quota.verify_integrity(deep=True)]
            found += self._judge(cache)
            rows = [*cache.iter_entries(), *quota.iter_entries()]
            blobs = sum(1 for info in cache._store.blobs.scan() if "/" in info.name)
        for judged in ("wrong", "lost"):
            counts[judged] += found[judged]
        counts["hung"] += self._hung
        return Outcome(
            world=name,
            seconds=round(seconds, 1),
            kills=self._kills,
            failovers=failovers,
            counts=counts,
            left_alone=self._ledger.size(),
            orphans=repaired.counts().get("orphaned", 0),
            unknown=unknown,
            miscounted=repaired.counts().get("miscounted", 0),
            left=sum(len(report) for report in left),
            blobs=blobs,
            rows_with_blobs=sum(entry.blob is not None for entry in rows),
        )

    def _judge(self, cache: UnifiedCache) -> Counter[str]:
        found = Counter(verdict(self._board, cache, slot) for slot in range(SLOTS))
        found["lost"] += self._ledger.lost(cache)
        return found

    def _kill_for(self, seconds: float, kills: int = 0, forks: int = 0) -> None:
        until = time.monotonic() + seconds
        wanted = {**dict.fromkeys(EVENTS, 1), "forks": max(forks, 1)} if kills or forks else {}
        while (
            time.monotonic() < until
            or self._kills < kills
            or any(self._board.total(event) < number for event, number in wanted.items())
        ):
            time.sleep(random.uniform(0.2, 0.8))
            self._bury_orphans()
            seat = random.randrange(len(self._work))
            # Not the reader, and nobody who has not come as far as working.
            if self._work[seat] is not roles.read and self._board.is_at_work(seat):
                self._kills += self._running[seat].is_alive()
                self._running[seat].kill()
                self._running[seat].join()
                self._running[seat] = self._start(seat)

    def _bury_orphans(self) -> None:
        for pid in _children(os.getpid()) - self._others:
            _, status = os.waitpid(pid, os.WNOHANG)
            self._hung += os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM

    def _start_all(self) -> None:
        forkserver.ensure_running()
        self._others = _children(os.getpid())
        self._running = [self._start(seat) for seat in range(len(self._work))]

    def _start(self, seat: int) -> multiprocessing.process.BaseProcess:
        self._board.set_off_work(seat)
        process = CONTEXT.Process(target=roles.act, args=(self._work[seat], (self.world, self._folder), seat))
        process.start()
        return process

    def _dismiss(self) -> None:
        """Kill them all, and what they have forked."""
        for process in self._running:
            process.kill()
        for process in self._running:
            process.join()
        while orphans := _children(os.getpid()) - self._others:
            for pid in orphans:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


@contextlib.contextmanager
def _adopting_orphans() -> Iterator[None]:
    """Have those whose parent was killed become children of this process, which so finds and ends them."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    try:
        yield
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _children(pid: int) -> set[int]:
    return {child.pid for child in psutil.Process(pid).children()}


def _pooler() -> str:
    return "pgbouncer" if PGBOUNCER else "small"


def main() -> None:
    """Run one storm, or each of them in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="of each storm")
    parser.add_argument("--forks", type=int, default=0, help="go on until so many processes were forked")
    parser.add_argument("--failovers", type=int, default=3)
    parser.add_argument("--world", choices=WORLDS, action="append")
    options = parser.parse_args()
    outcomes = []
    for name in options.world or WORLDS:
        with fresh_folder() as folder, contextlib.ExitStack() as stack:
            bucket = "" if name == "sqlite" else stack.enter_context(servers.s3())
            outcome = run(
                name,
                folder,
                bucket,
                seconds=options.seconds,
                kills=10,
                forks=options.forks,
                failovers=options.failovers,
            )
        print(outcome, flush=True)
        outcomes.append(outcome)
    for outcome in outcomes:
        outcome.check()


@contextlib.contextmanager
def fresh_folder() -> Iterator[Path]:
    """A folder that a server's own user may enter."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o711)
        yield Path(name)


if __name__ == "__main__":
    main()
