"""A 64 MiB array in local files, against the same bytes written and synced, or read, plus one BLAKE3 pass."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.bench import Bench, Row, compare, main
from cacheness import UnifiedCache
from cacheness.results.signing import digest_buffers

VALUE = np.random.default_rng(1).random(8 << 20)
MEMORY = 512 << 20


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    cache = bench.enter(UnifiedCache(cache_dir=str(bench.folder / "ours")))
    plain = bench.folder / "plain"
    plain.mkdir()
    numbers = itertools.count()
    times = bench.race(
        {"ours": lambda: cache.put(VALUE, x=1), "plain": lambda: write(plain, next(numbers))},
        rounds=8,
        once=True,
        memory=MEMORY,
    )
    yield compare("put 64 MiB, files", times["ours"], "write + fsync + BLAKE3", times["plain"], at_most=1.5)
    key = cache.key(x=1)
    path = next(plain.iterdir())
    contenders = {"ours": lambda: cache.get(key), "plain": lambda: read(path)}
    times = bench.race(contenders, rounds=8, once=True, memory=MEMORY)
    yield compare("get 64 MiB, files", times["ours"], "read + BLAKE3", times["plain"], at_most=1.5)


def write(folder: Path, number: int) -> None:
    """A new file in place of the last one, as a put under a known key does it."""
    digest_buffers([VALUE.view(np.uint8).data])
    path = folder / str(number)
    with path.open("wb", buffering=0) as file:
        file.write(VALUE.data)
        os.fsync(file.fileno())
    for old in folder.iterdir():
        if old != path:
            old.unlink()


def read(path: Path) -> np.ndarray:
    """The bytes in memory of our own, once over with BLAKE3."""
    data = np.empty(path.stat().st_size, np.uint8)
    with path.open("rb", buffering=0) as file:
        file.readinto(data.data)
    digest_buffers([data.data])
    return data.view(np.float64)


if __name__ == "__main__":
    main(measure, __doc__)
