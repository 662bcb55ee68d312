"""Where the time of a hit goes: each of its steps by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.bench import Bench
from benchmarks.rows import Row
from cacheness import UnifiedCache
from cacheness.codecs.pickle import PickleCodec
from cacheness.results.signing import verify_bytes


def stages(bench: Bench, what: str, cache: UnifiedCache, key: str) -> Iterator[Row]:
    """One row for each step of getting a pickled value by its key."""
    parts = cache._store
    row = parts.metadata.find(parts.namespace, bytes.fromhex(key))
    assert row is not None
    data = row.inline if row.blob is None else parts.blobs.read(row.blob, row.size)
    codec = PickleCodec()
    steps: dict[str, Callable[[], object]] = {
        "find its row": lambda: parts.metadata.find(parts.namespace, row.key),
        "check the row's signature": lambda: parts.is_genuine(row),
        "read the file": lambda: parts.blobs.read(row.blob or "", row.size),
        "check the digest": lambda: verify_bytes(row, data or b""),
        "unpickle": lambda: codec.decode(data or b""),
    }
    if row.blob is None:
        del steps["read the file"]
    for step, timing in bench.race(steps, rounds=3).items():
        yield Row(f"{what}, of which: {step}", timing.median, spread=timing.spread / timing.median)
