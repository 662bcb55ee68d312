"""What the processes of a storm note in files that outlive them: what was tried, and what was acknowledged."""

from __future__ import annotations

import mmap
import os
import random
import struct
from pathlib import Path

from cacheness import UnifiedCache

WRITERS, KEYS = 3, 4  #: writers, and keys of each
BATCH = WRITERS * KEYS  #: the slot of the batches
SLOTS = BATCH + 1
SEATS = 24  #: places of processes
DELETE_EVERY = 7
HEADER = struct.Struct("<3q")
SEEDS = 60  #: results that are there from the start, for good

_NUMBERS = 3  #: of each slot


class Board:
    """Numbers in a shared file: what was tried and acknowledged in each slot, and counters.

    Each slot has one writer, which puts the numbers 1, 2, 3, … there; a multiple of 7 is a deletion.
    """

    COUNTERS = (
        *(
            "at_work",
            "acknowledged",
            "batches",
            "forks",
            "reads",
            "repairs",
            "evictions",
            "fenced",
            "strangers",
            "rights",
        ),
        *("refused", "unavailable", "wrong", "lost", "hung", "over", "errors"),
    )

    def __init__(self, path: Path) -> None:
        size = 8 * (_NUMBERS * SLOTS + SEATS * len(self.COUNTERS))
        if not path.exists():
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._numbers = memoryview(mmap.mmap(file.fileno(), size)).cast("q")

    def tried(self, slot: int) -> int:
        """The last number that was begun."""
        return self._numbers[_NUMBERS * slot]

    def acknowledged(self, slot: int) -> int:
        """The last number that was done."""
        return self._numbers[_NUMBERS * slot + 1]

    def excused(self, slot: int) -> int:
        """The number up to which a miss is right: its rows, or what they replaced, went with a lost tail."""
        return self._numbers[_NUMBERS * slot + 2]

    def try_next(self, slot: int) -> int:
        """Begin the next number."""
        self._numbers[_NUMBERS * slot] += 1
        return self.tried(slot)

    def acknowledge(self, slot: int, number: int) -> None:
        """Note that a number is done."""
        self._numbers[_NUMBERS * slot + 1] = number

    def floors(self) -> list[int]:
        """What is acknowledged now, by slot."""
        return [self.acknowledged(slot) for slot in range(SLOTS)]

    def lose_tail(self, floors: list[int]) -> None:
        """Whatever came after these numbers may be gone."""
        for slot, floor in enumerate(floors):
            if self.tried(slot) > floor:
                self._numbers[_NUMBERS * slot + 1] = floor
                self._numbers[_NUMBERS * slot + 2] = self.tried(slot)

    def count(self, counter: str, seat: int, more: int = 1) -> None:
        """Each seat counts for itself, so that nobody adds to a number that another one holds."""
        self._numbers[self._place(counter, seat)] += more

    def is_at_work(self, seat: int) -> bool:
        """Whether the process in a seat has begun."""
        return self._numbers[self._place("at_work", seat)] > 0

    def set_off_work(self, seat: int) -> None:
        """A new process takes the seat."""
        self._numbers[self._place("at_work", seat)] = 0

    def total(self, counter: str) -> int:
        """The sum over all seats."""
        start = self._place(counter, 0)
        return sum(self._numbers[start : start + SEATS])

    def _place(self, counter: str, seat: int) -> int:
        return _NUMBERS * SLOTS + SEATS * self.COUNTERS.index(counter) + seat


class Ledger:
    """Results that were acknowledged once and then left alone: their ids, a line each, in a file.

    The first ones are the seeds. `lose_tail` takes out what a failover may have lost.
    """

    WIDTH = 17

    def __init__(self, path: Path) -> None:
        self._path = path
        self._excused = path.with_suffix(".excused")

    def put(self, cache: UnifiedCache, ttl: float | None = None) -> str:
        """Store a result of its own, and note it; its id."""
        identity = os.urandom(8).hex()
        cache.put(self.value(identity), ledger=identity, ttl=ttl)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, f"{identity}\n".encode())
        os.close(descriptor)
        return identity

    @staticmethod
    def value(identity: str) -> bytes:
        """What is stored under an id: inline, or in a blob."""
        return random.Random(identity).randbytes(60_000 if int(identity[0], 16) < 4 else 200)

    def seeds(self) -> list[str]:
        """The results that were there from the start."""
        return self._ids()[:SEEDS]

    def size(self) -> int:
        """How many were acknowledged."""
        return len(self._ids())

    def lose_tail(self, floor: int) -> None:
        """Whatever was noted after the first `floor` may be gone."""
        with self._excused.open("a") as file:
            file.writelines(f"{identity}\n" for identity in self._ids()[floor:])

    def lost(self, cache: UnifiedCache) -> int:
        """How many acknowledged results are not there, or are not what was put."""
        excused = set(self._excused.read_text().split()) if self._excused.exists() else set()
        return sum(
            cache.get(ledger=identity) != self.value(identity) for identity in self._ids() if identity not in excused
        )

    def _ids(self) -> list[str]:
        # The last line of a writer that was killed is whole: a write of this size is.
        return self._path.read_text().split() if self._path.exists() else []


def payload(slot: int, number: int) -> bytes:
    """A value that proves itself: inline or in a blob, different for every number."""
    size = (100, 40_000, 90_000)[number % 3]
    return HEADER.pack(slot, 0, number) + random.Random(number).randbytes(size)


def verdict(board: Board, cache: UnifiedCache, slot: int) -> str:
    """Read one slot and say whether that may be: "right", "wrong" or "lost".

    Whoever reads knows what may be found: a number from the one acknowledged before the read to the one
    tried after it, and nothing at all only if a deletion or a lost tail is among them.
    """
    before, excused = board.acknowledged(slot), board.excused(slot)
    value = read(cache, slot)
    after = board.tried(slot)
    if value is None:
        may_be_deleted = slot != BATCH and any(number % DELETE_EVERY == 0 for number in range(before, after + 1))
        return "right" if may_be_deleted or before <= excused else "lost"
    number = number_of(slot, value)
    return "right" if number is not None and before <= number <= after else "wrong"


def read(cache: UnifiedCache, slot: int) -> bytes | None:
    """What is stored in a slot; of a batch, one of its rows."""
    value: bytes | None = cache.get(b=random.randrange(BATCH_ROWS)) if slot == BATCH else cache.get(slot=slot)
    return value


def number_of(slot: int, value: bytes) -> int | None:
    """The number that a value stands for; None when nobody put it there."""
    _, row, number = HEADER.unpack_from(value)
    if slot == BATCH:
        return number if value == batch_row(row, number) else None
    return number if value == payload(slot, number) and number % DELETE_EVERY else None


BATCH_ROWS = 400


def batch_row(row: int, number: int) -> bytes:
    """One small row of a batch."""
    return HEADER.pack(BATCH, row, number)
