"""Peak memory of a put and a get of a 1 GiB array, the value included, as a multiple of the value."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.bench import SIGNING_KEY, Bench, Row, main
from cacheness import UnifiedCache

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    size = 256 << 20 if bench.quick else 1 << 30
    embedded = {"cache_dir": str(bench.folder / "ours")}
    shared = {"metadata_backend": bench.postgresql, "blob_store": bench.s3, "signing_key": SIGNING_KEY}
    for where, parameters in (("files", embedded), ("S3", shared)):
        for step in ("put", "get"):
            command = [sys.executable, "-m", "benchmarks.peak_memory", step, str(size), json.dumps(parameters)]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            what = f"peak memory of {step}, {size >> 20} MiB array, {where}"
            yield Row(what, float(said), at_most=1.3, unit="x its size")


def resident(what: str) -> int:
    return 1024 * int(re.search(rf"{what}:\s+(\d+)", STATUS.read_text())[1])


def alone(step: str, size: int, parameters: dict[str, str]) -> float:
    """In a process of its own: how far its memory rose."""
    with UnifiedCache(**parameters) as cache:
        cache.put(np.arange(1 << 17), warm=True)
        cache.get(warm=True)
        before = resident("VmRSS")
        if step == "put":
            value = np.random.default_rng(1).random(size // 8)
            CLEAR.write_text("5")  # forget the peak so far
            cache.put(value, x=1)
        else:
            value = cache.get(x=1)
            assert value.nbytes == size
        return (resident("VmHWM") - before) / size


if __name__ == "__main__":
    if sys.argv[1:2] in (["put"], ["get"]):
        print(alone(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])))
    else:
        main(measure, __doc__)
