"""One fresh process of a user with a cluster: how far memory rises while results are stored, and while hits load."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
from distributed import Client, LocalCluster, wait

import cacheness_dask as cd
from cacheness import UnifiedCache

MIB = 1 << 20
QUEUE = 56 * MIB  #: what may wait to be stored; the bound of the test leaves one block for what storing takes
BLOCK = 8 * MIB
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident(what: str) -> int:
    """Bytes: "VmRSS" now, "VmHWM" at most since `forget`."""
    return 1024 * int(re.search(rf"{what}:\s+(\d+)", STATUS.read_text())[1])


def forget() -> None:
    CLEAR.write_text("5")


def noise(seed: int, size: int = BLOCK) -> np.ndarray:
    """A block that no compression makes smaller."""
    return np.random.default_rng(seed).integers(0, 1 << 60, size // 8)


def chain(seeds: range) -> Any:
    """The sum of many blocks, one after the other: a run needs the memory of one or two of them."""
    return dask.delayed(sum)([dask.delayed(np.max)(dask.delayed(noise)(seed)) % 1000 for seed in seeds])


def peak(client: Client, collection: Any) -> int:
    """How far the memory of the only worker rises."""
    client.run(forget)
    (before,) = client.run(resident, "VmRSS").values()
    collection.compute()
    (highest,) = client.run(resident, "VmHWM").values()
    return int(highest - before)


def storing(client: Client, cache: UnifiedCache, count: int) -> dict[str, int]:
    """With a store that is slower than the tasks, against no store at all."""
    with cd.caching(cache, which="all", queue_bytes=QUEUE) as run:
        chain(range(1000, 1012)).compute()
        run.flush()
        with cd.nocache():
            chain(range(12)).compute()
            baseline = peak(client, chain(range(count)))
        behind = peak(client, chain(range(count)))
        record = run.history[-1]
        return {"baseline": baseline, "behind": behind, "misses": record.misses, "stored": record.stored}


def on_disk(dask_worker: Any) -> int:
    return len(dask_worker.data.slow)


def loading(client: Client, cache: UnifiedCache, count: int) -> dict[str, int]:
    """Hits that are loaded, spilled and reduced on the worker; the client and the scheduler are this process."""

    def blocks(first: int, number: int) -> da.Array:
        shape = (BLOCK // 8,)
        parts = [da.from_delayed(dask.delayed(noise)(first + n), shape, dtype=int) for n in range(number)]
        return da.concatenate(parts)

    with cd.caching(cache, which="all") as run:
        for number in (2, count):  # the first for what Python and the libraries need for themselves
            blocks(number, number).persist().max().compute()
            run.flush()
        forget()
        before = resident("VmRSS")
        loaded = blocks(count, count).persist()
        wait(loaded)
        spilled = sum(client.run(on_disk).values())
        found = int(loaded.min().compute())
        growth = resident("VmHWM") - before
        assert found == min(int(noise(count + n).min()) for n in range(count))
        record = run.history[-2]
        return {"growth": growth, "misses": record.misses, "hits": record.hits, "spilled": spilled}


def main(what: str, count: str, parameters: str) -> dict[str, int]:
    dask.config.set({"distributed.worker.memory.target": 0.1, "distributed.worker.memory.spill": 0.5})
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", memory_limit="1GiB") as cluster,
        Client(cluster) as client,
        UnifiedCache(**json.loads(parameters)) as cache,
    ):
        return {"storing": storing, "loading": loading}[what](client, cache, int(count))


if __name__ == "__main__":
    print("REPORT" + json.dumps(main(*sys.argv[1:])))
