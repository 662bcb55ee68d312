"""One store for many users: copies on this machine's disk, and signatures that readers cannot make."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import count, cycle

import numpy as np

from benchmarks.bench import SIGNING_KEY, Bench, Row, compare, main
from cacheness import UnifiedCache
from cacheness.results.signing_keys import new_private_key
from cacheness.testing.proxy import Proxy

VALUE = np.random.default_rng(1).random(8 << 20)
SMALL = b"x" * 1024
MEMORY = 1 << 30
ROUNDS = 4
CALLS = ROUNDS * 4  #: three values and a warm-up in each round


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    yield from near(bench)
    yield from many_processes(bench)
    yield from signatures(bench)


def near(bench: Bench) -> Iterator[Row]:
    where = {"metadata_backend": bench.postgresql, "blob_store": bench.s3, "signing_key": SIGNING_KEY}
    far = bench.enter(UnifiedCache(**where))
    tiered = bench.enter(UnifiedCache(**where, near=bench.folder / "near"))
    local = bench.enter(UnifiedCache(bench.folder / "local"))
    numbers = count()
    times = bench.race(
        {
            "near": lambda: tiered.put(VALUE, to="near", x=next(numbers)),
            "far": lambda: far.put(VALUE, to="far", x=next(numbers)),
        },
        rounds=ROUNDS,
        once=True,
        memory=MEMORY,
    )
    yield compare("put 64 MiB, with a near tier", times["near"], "without", times["far"], at_most=1.05)

    # A blob is fetched for the first time once, so each call has another one.
    keys = [far.put(VALUE, y=number).cache_key for number in range(4 if bench.quick else CALLS)]
    unread, again = cycle(keys), cycle(keys)
    times = bench.race(
        {"near": lambda: tiered.get(next(unread)), "far": lambda: far.get(next(again))},
        rounds=ROUNDS,
        once=True,
        memory=MEMORY,
    )
    yield compare("first get of 64 MiB, with a near tier", times["near"], "without", times["far"], at_most=1.1)
    key = local.put(VALUE, y=0).cache_key
    times = bench.race(
        {"near": lambda: tiered.get(keys[0]), "local": lambda: local.get(key)}, rounds=ROUNDS, once=True, memory=MEMORY
    )
    yield compare("second get of 64 MiB, with a near tier", times["near"], "local files", times["local"], at_most=1.2)


#: A process that reads one result through a near tier when stdin has a line.
READER = """
import os, sys, time
from cacheness import UnifiedCache
with UnifiedCache.from_env() as cache:
    cache.stats()
    print("ready", flush=True)
    sys.stdin.readline()
    assert cache.lookup(sys.argv[1]) is not None
"""
PROCESSES = 16


def many_processes(bench: Bench) -> Iterator[Row]:
    with Proxy.before(bench.s3) as bucket:
        where = {"metadata_backend": bench.postgresql, "blob_store": bucket.url, "signing_key": SIGNING_KEY}
        key = bench.enter(UnifiedCache(**where)).put(VALUE, to="many").cache_key
        environment = {f"CACHENESS_{name.upper()}": value for name, value in where.items()}
        environment |= {"CACHENESS_NEAR": str(bench.folder / "many"), **os.environ}
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", READER, key]
        readers = [
            subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) for _ in range(PROCESSES)
        ]
        for reader in readers:
            assert reader.stdout is not None
            reader.stdout.readline()
        bucket.requests.clear()
        for reader in readers:
            assert reader.stdin is not None
            reader.stdin.write("go\n")
            reader.stdin.flush()
        ended = [reader.wait() for reader in readers]
        downloads = sum(request.startswith(b"GET /") for request in bucket.requests)
    note = "" if not any(ended) else "not every process read it"
    yield Row(f"downloads for {PROCESSES} processes that want one blob", downloads, at_most=1, unit="", note=note)


def signatures(bench: Bench) -> Iterator[Row]:
    by_hmac = bench.enter(UnifiedCache(bench.folder / "hmac"))
    by_key = bench.enter(UnifiedCache(bench.folder / "ed25519", signing_key=new_private_key("bench")))
    keys = {cache: cache.put(SMALL, x=1).key for cache in (by_hmac, by_key)}
    verified = by_key._store.keyring._keys["bench"]._verified

    def read(cache: UnifiedCache) -> None:
        """Read and verify the row, which is kept otherwise once it was asked for twice."""
        store = cache._store
        assert store.follow(store.metadata.find(store.namespace, keys[cache])) is not None

    def first() -> None:
        verified.clear()
        read(by_key)

    times = bench.race({"first": first, "again": lambda: read(by_key), "HMAC": lambda: read(by_hmac)}, rounds=9)
    yield compare("first get of 1 KiB, Ed25519", times["first"], "HMAC", times["HMAC"], at_most=3)
    yield compare("get of 1 KiB again, Ed25519", times["again"], "HMAC", times["HMAC"], at_most=1.3)


if __name__ == "__main__":
    main(measure, __doc__)
