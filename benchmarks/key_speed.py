"""The key of a large value, against one BLAKE3 pass over its buffers; and of a small call."""

from __future__ import annotations

from collections.abc import Iterator

import blake3
import numpy as np
import pandas as pd

from benchmarks.bench import Bench, Row, compare, main
from cacheness import UnifiedCache, keys

ARRAY = np.random.default_rng(1).random(8 << 20)
COLUMNS = {name: np.random.default_rng(n).random(2 << 20) for n, name in enumerate("abcd")}
ROWS = 2_000_000


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    frame = pd.DataFrame(COLUMNS)
    texts = pd.DataFrame({"n": np.arange(ROWS), "text": [f"row {n % 1000}" for n in range(ROWS)]})
    cells = [texts["n"].to_numpy().data.cast("B"), *text_buffers(texts["text"])]
    times = bench.race(
        {
            "array": lambda: keys.make_key(args={"a": ARRAY}).digest,
            "frame": lambda: keys.make_key(args={"a": frame}).digest,
            "texts": lambda: keys.make_key(args={"a": texts}).digest,
            "array, blake3": lambda: blake3.blake3(ARRAY.data.cast("B")).digest(),
            "frame, blake3": lambda: [blake3.blake3(column.data.cast("B")).digest() for column in COLUMNS.values()],
            "texts, blake3": lambda: [blake3.blake3(cell).digest() for cell in cells],
        }
    )
    for what, name, most in (
        ("key of a 64 MiB array", "array", 1.5),
        ("key of a 64 MiB frame of numbers", "frame", 1.5),
        (f"key of a frame with {ROWS:,} rows, one column text", "texts", 3),
    ):
        yield compare(what, times[name], "one BLAKE3 pass", times[f"{name}, blake3"], at_most=most)
    yield from small(bench)


def text_buffers(column: pd.Series) -> list[memoryview]:
    """The memory of a column of texts, without the one bit a row that says what is missing."""
    chunks = column.array.__arrow_array__().chunks
    return [memoryview(buffer).cast("B") for chunk in chunks for buffer in chunk.buffers() if buffer is not None]


def small(bench: Bench) -> Iterator[Row]:
    cache = bench.enter(UnifiedCache(cache_dir=str(bench.folder / "ours")))
    cached = cache.cached(clean)
    times = bench.race({"warm": lambda: cached.key("prices", threshold=0.5), "many": lambda: keys.fingerprint(many)})
    yield Row("key and fingerprint of a small call, warm", times["warm"].median * 1e6, at_most=60, unit="us")
    yield Row("fingerprint with 50 helpers, warm", times["many"].median * 1e6, at_most=200, unit="us")


def clean(name: str, threshold: float = 0.1) -> float:
    return helper(name) * threshold


def helper(name: str) -> float:
    return len(name) / 2


exec("\n".join(f"def helper_{n}(x):\n    return x * {n}" for n in range(50)))
exec("def many(x):\n    return [" + ", ".join(f"helper_{n}(x)" for n in range(50)) + "]")
many = globals()["many"]


if __name__ == "__main__":
    main(measure, __doc__)
