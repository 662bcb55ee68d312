"""Peak memory of a put and a get of 1 GiB, the value included, as a multiple of the value's size."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.bench import SIGNING_KEY, Bench, Row, main
from benchmarks.memory import forget_peak, peak, resident
from cacheness import UnifiedCache

COLUMNS = 8


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    size = 128 << 20 if bench.quick else 1 << 30
    embedded = {"cache_dir": str(bench.folder / "ours")}
    shared = {}
    if not bench.quick:
        shared |= {"metadata_backend": bench.postgresql, "blob_store": bench.s3, "signing_key": SIGNING_KEY}
        shared |= {"blob_timeout": 120.0}  # how fast the server writes a gigabyte is not what is measured
    all_of_them = (
        ("array", "files", embedded, 1.3),
        ("pandas frame", "files", embedded, 1.3),
        ("Arrow table", "files", embedded, 1.3),
        ("array", "S3", shared, 1.3),
    )
    for kind, where, parameters, most in all_of_them[:2] if bench.quick else all_of_them:
        for step in ("put", "get"):
            asked = json.dumps({"step": step, "kind": kind, "size": size, "parameters": parameters})
            what = f"peak memory of {step}, {size >> 20} MiB, {kind}, {where}"
            yield Row(what, float(said_by_process(what, asked)), at_most=most, unit="x")


def said_by_process(what: str, asked: str) -> str:
    command = [sys.executable, "-m", "benchmarks.peak_memory", "--alone", asked]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    if ran.returncode:  # an error of subprocess would show the command, and in it the servers' passwords
        raise RuntimeError(f"{what}: {ran.stderr.strip().splitlines()[-1]}")
    return ran.stdout


def array(size: int) -> np.ndarray:
    return np.random.default_rng(1).random(size // 8)


def columns(size: int) -> dict[str, np.ndarray]:
    return {f"c{n}": np.random.default_rng(n).random(size // 8 // COLUMNS) for n in range(COLUMNS)}


def table(size: int) -> Any:
    import pyarrow as pa

    return pa.table(columns(size))


def frame(size: int) -> Any:
    import pandas as pd

    return pd.DataFrame(columns(size), copy=False)


MAKERS: dict[str, Callable[[int], Any]] = {"array": array, "Arrow table": table, "pandas frame": frame}


def alone(step: str, kind: str, size: int, parameters: dict[str, Any]) -> float:
    """Return how far the memory of a new process rises from before the value existed."""
    make = MAKERS[kind]
    with UnifiedCache(**parameters) as cache:
        cache.put(make(1 << 20), kind=kind, warm=True)
        cache.get(kind=kind, warm=True)
        before = resident()
        if step == "put":
            value = make(size)
            forget_peak()  # what making it took is not ours
            cache.put(value, kind=kind)
        else:
            forget_peak()
            value = cache.get(kind=kind)
            assert type(value) is type(make(1 << 10))
        return (peak() - before) / size


if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        print(alone(**json.loads(sys.argv[2])))
    else:
        main(measure, __doc__)
