"""The key of a large value, against one BLAKE3 pass over its buffers; and of a small call."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import blake3
import numpy as np
import pandas as pd

from benchmarks.bench import Bench, Row, Timing, compare, main
from cacheness import UnifiedCache, keys

ARRAY = np.random.default_rng(1).random(8 << 20)
COLUMNS = {name: np.random.default_rng(n).random(2 << 20) for n, name in enumerate("abcd")}
ROWS = 2_000_000
HELPERS = 50


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
    """The memory of a column of texts, without the bit per row that marks missing values."""
    chunks = column.array.__arrow_array__().chunks
    return [memoryview(buffer).cast("B") for chunk in chunks for buffer in chunk.buffers() if buffer is not None]


def small(bench: Bench) -> Iterator[Row]:
    cache = bench.enter(UnifiedCache(cache_dir=str(bench.folder / "ours")))
    cached = cache.cached(clean)
    many = new_code()
    times = bench.race({"warm": lambda: cached.key("prices", threshold=0.5), "many": lambda: keys.fingerprint(many)})
    yield alone("key and fingerprint of a small call, warm", times["warm"], 60)
    yield alone(f"fingerprint of a function with {HELPERS} helpers, warm", times["many"], 200)
    fresh = iter([new_code() for _ in range(100)])  # code that this process has not met
    times = bench.race({"cold": lambda: keys.fingerprint(next(fresh))}, rounds=8, once=True)
    yield alone(f"fingerprint of a function with {HELPERS} helpers, cold", times["cold"], 15, unit="ms")


def alone(what: str, timing: Timing, most: float, unit: str = "us") -> Row:
    scale = {"us": 1e6, "ms": 1e3}[unit]
    return Row(what, timing.median * scale, at_most=most, unit=unit, spread=timing.spread / timing.median)


def clean(name: str, threshold: float = 0.1) -> float:
    return helper(name) * threshold


def helper(name: str) -> float:
    return len(name) / 2


def new_code() -> Callable[[int], list[int]]:
    """Compile a function of this module with fifty helpers again."""
    helpers = [f"def helper_{n}(x):\n    return x * {n} + len(str(x))" for n in range(HELPERS)]
    calls = ", ".join(f"helper_{n}(x)" for n in range(HELPERS))
    module = {"__name__": __name__}
    exec("\n".join([*helpers, f"def many(x):\n    return [{calls}]"]), module)
    return module["many"]


if __name__ == "__main__":
    main(measure, __doc__)
