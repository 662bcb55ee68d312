"""A storm: writers, readers, repairers and fencers as processes, killed at random, checked by history.

`python -m tests.crash.storm --seconds 180 --world sqlite` (or `postgresql`) runs it by itself.

Each key has one writer, which puts the numbers 1, 2, 3, … under it; a multiple of 7 is a
deletion. Before an operation it notes the number as tried, after it as acknowledged, in memory
that outlives it. So whoever reads knows what may be found: a number from the one acknowledged
before the read to the one tried after it, and nothing at all only if a deletion is among them.
"""

from __future__ import annotations

import argparse
import contextlib
import mmap
import multiprocessing
import random
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cacheness import CachenessError, UnifiedCache, wiring
from cacheness.config import Config

WRITERS, READERS, REPAIRERS, FENCERS = 3, 1, 2, 1
KEYS = 4  #: of each writer
DELETE_EVERY = 7
HEADER = struct.Struct("<3q")

CONTEXT = multiprocessing.get_context("forkserver")


class Board:
    """Numbers in a shared file: what was tried and acknowledged under each key, and counters."""

    COUNTERS = ("at_work", "acknowledged", "reads", "wrong", "lost", "repairs", "fenced", "errors")

    def __init__(self, path: Path) -> None:
        size = 8 * (2 * WRITERS * KEYS + 16 * len(self.COUNTERS))
        if not path.exists():
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._numbers = memoryview(mmap.mmap(file.fileno(), size)).cast("q")

    def tried(self, writer: int, key: int) -> int:
        return self._numbers[2 * (writer * KEYS + key)]

    def acknowledged(self, writer: int, key: int) -> int:
        return self._numbers[2 * (writer * KEYS + key) + 1]

    def set_tried(self, writer: int, key: int, number: int) -> None:
        self._numbers[2 * (writer * KEYS + key)] = number

    def set_acknowledged(self, writer: int, key: int, number: int) -> None:
        self._numbers[2 * (writer * KEYS + key) + 1] = number

    def count(self, counter: str, role: int) -> None:
        """Each role counts for itself, so that nobody adds to a number that another one holds."""
        self._numbers[2 * WRITERS * KEYS + 16 * self.COUNTERS.index(counter) + role] += 1

    def is_at_work(self, role: int) -> bool:
        return self._numbers[2 * WRITERS * KEYS + role] > 0

    def set_off_work(self, role: int) -> None:
        self._numbers[2 * WRITERS * KEYS + role] = 0

    def total(self, counter: str) -> int:
        start = 2 * WRITERS * KEYS + 16 * self.COUNTERS.index(counter)
        return sum(self._numbers[start : start + 16])


def payload(writer: int, key: int, number: int) -> bytes:
    """A value that proves itself: inline or in a blob, different for every number."""
    size = (100, 40_000, 90_000)[number % 3]
    return HEADER.pack(writer, key, number) + random.Random(number).randbytes(size)


def verdict(board: Board, cache: UnifiedCache, writer: int, key: int) -> str:
    """Read one key and say whether that may be: "right", "wrong" or "lost"."""
    before = board.acknowledged(writer, key)
    value = cache.get(w=writer, k=key)
    after = board.tried(writer, key)
    if value is None:
        deleted = any(number % DELETE_EVERY == 0 for number in range(before, after + 1))
        return "right" if deleted or before == 0 else "lost"
    number = HEADER.unpack_from(value)[2]
    genuine = value == payload(writer, key, number) and number % DELETE_EVERY != 0
    return "right" if genuine and before <= number <= after else "wrong"


def write(config: Config, board: Board, role: int) -> None:
    cache = UnifiedCache(config)
    board.count("at_work", role)
    while True:
        key = random.randrange(KEYS)
        number = board.tried(role, key) + 1
        board.set_tried(role, key, number)
        if number % DELETE_EVERY == 0:
            cache.invalidate(w=role, k=key)
        else:
            cache.put(payload(role, key, number), w=role, k=key)
        board.set_acknowledged(role, key, number)
        board.count("acknowledged", role)


def read(config: Config, board: Board, role: int) -> None:
    cache = UnifiedCache(config)
    board.count("at_work", role)
    while True:
        found = verdict(board, cache, random.randrange(WRITERS), random.randrange(KEYS))
        board.count("reads", role)
        if found != "right":
            board.count(found, role)


def repair(config: Config, board: Board, role: int) -> None:
    cache = UnifiedCache(config)
    board.count("at_work", role)
    while True:
        cache.verify_integrity(repair=True)
        board.count("repairs", role)


def fence(config: Config, board: Board, role: int) -> None:
    """False fencing: somebody is declared dead who is not."""
    metadata = wiring.open_metadata(config)
    board.count("at_work", role)
    while True:
        time.sleep(random.uniform(0.2, 1.0))
        sessions = metadata.live_sessions()
        if sessions and metadata.fence(random.choice(sessions).id):
            board.count("fenced", role)


ROLES: tuple[tuple[Callable[[Config, Board, int], None], int], ...] = (
    (write, WRITERS),
    (read, READERS),
    (repair, REPAIRERS),
    (fence, FENCERS),
)


def act(work: Callable[[Config, Board, int], None], config: Config, path: Path, role: int) -> None:
    """One process of the storm; a store that is briefly unavailable is no failure, all else is."""
    random.seed()
    board = Board(path)
    try:
        work(config, board, role)
    except CachenessError as error:
        board.count("errors", role)
        print(f"{work.__name__} {role}: {type(error).__name__}: {error}", file=sys.stderr)


@dataclass(frozen=True)
class Outcome:
    seconds: float
    kills: int
    counts: dict[str, int]
    orphans_removed: int
    left: int  #: issues after one repair
    blobs: int
    rows_with_blobs: int

    def check(self) -> None:
        """I2, I3, I5 and I6, by name."""
        assert self.counts["acknowledged"] > 0, "I2: nothing was written"
        assert self.counts["lost"] == 0, "I2: an acknowledged put is not readable"
        assert self.counts["wrong"] == 0, "I3: a read returned what no put may have left there"
        assert self.counts["errors"] == 0, "I8: a process gave up"
        assert self.left == 0, "I6: issues are left after one repair"
        assert self.blobs == self.rows_with_blobs, "I6: blobs and rows differ"


def run(config: Config, seconds: float, kills: int = 0) -> Outcome:
    """Let it blow for so long, and until so many were killed at work."""
    UnifiedCache(config).close()
    CONTEXT.set_forkserver_preload(["cacheness", "cacheness.metadata.postgresql", "cacheness.blobs.local"])
    with tempfile.TemporaryDirectory() as directory:
        crew = Crew(config, Path(directory) / "board")
        start = time.monotonic()
        try:
            while time.monotonic() < start + seconds or crew.kills < kills:
                time.sleep(random.uniform(0.1, 0.4))
                crew.kill_somebody()
        finally:
            crew.dismiss()
        return _aftermath(config, crew.board, time.monotonic() - start, crew.kills)


class Crew:
    """The processes of a storm, each in its place on the board."""

    def __init__(self, config: Config, path: Path) -> None:
        self.board = Board(path)
        self.kills = 0
        self._config = config
        self._path = path
        self._work = [work for work, numbers in ROLES for _ in range(numbers)]
        self._running = [self._start(role) for role in range(len(self._work))]

    def kill_somebody(self) -> None:
        """Kill and replace one process, not a reader, that has come as far as working."""
        role = random.randrange(len(self._work))
        if self._work[role] is not read and self.board.is_at_work(role):
            self.kills += self._running[role].is_alive()
            self._running[role].kill()
            self._running[role].join()
            self._running[role] = self._start(role)

    def dismiss(self) -> None:
        """Kill them all."""
        for process in self._running:
            process.kill()
        for process in self._running:
            process.join()

    def _start(self, role: int) -> multiprocessing.process.BaseProcess:
        self.board.set_off_work(role)
        process = CONTEXT.Process(target=act, args=(self._work[role], self._config, self._path, role), daemon=True)
        process.start()
        return process


def _aftermath(config: Config, board: Board, seconds: float, kills: int) -> Outcome:
    with UnifiedCache(config) as cache:
        final = Counter(verdict(board, cache, w, k) for w in range(WRITERS) for k in range(KEYS))
        repaired = cache.verify_integrity(repair=True)
        left = cache.verify_integrity(deep=True)
        again = Counter(verdict(board, cache, w, k) for w in range(WRITERS) for k in range(KEYS))
        counts = {name: board.total(name) for name in Board.COUNTERS}
        for name in ("wrong", "lost"):
            counts[name] += final[name] + again[name]
        return Outcome(
            seconds=seconds,
            kills=kills,
            counts=counts,
            orphans_removed=repaired.counts().get("orphaned", 0),
            left=len(left),
            blobs=left.objects,
            rows_with_blobs=sum(entry["blob"] is not None for entry in cache.list_entries()),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--world", choices=["sqlite", "postgresql"], default="sqlite")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        config = Config(cache_dir=stack.enter_context(tempfile.TemporaryDirectory()))
        if options.world == "postgresql":
            from cacheness.testing import servers

            config = config.but(
                metadata_backend=stack.enter_context(servers.postgresql()),
                blob_store=stack.enter_context(servers.s3()),
                signing_key="a key that only this storm knows",
            )
        outcome = run(config, options.seconds)
    print(outcome)
    outcome.check()


if __name__ == "__main__":
    main()
