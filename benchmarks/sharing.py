"""One store for many users: copies on this machine's disk, and signatures that readers cannot make."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import numpy as np

from benchmarks.bench import SIGNING_KEY, Bench, Row, compare, main
from cacheness import UnifiedCache
from cacheness.results.signing_keys import new_private_key

VALUE = np.random.default_rng(1).random(8 << 20)
SMALL = b"x" * 1024
MEMORY = 1 << 30


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    yield from near(bench)
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
        rounds=6,
        once=True,
        memory=MEMORY,
    )
    yield compare("put 64 MiB, with a near tier", times["near"], "without", times["far"], at_most=1.05)

    entry = far.put(VALUE, y=1)
    keys = entry.cache_key, local.put(VALUE, y=1).cache_key

    def first() -> None:
        tiered._store.blobs.drop_copy(entry.blob)
        tiered.get(keys[0])

    times = bench.race({"near": first, "far": lambda: far.get(keys[0])}, rounds=6, once=True, memory=MEMORY)
    yield compare("first get of 64 MiB, with a near tier", times["near"], "without", times["far"], at_most=1.1)
    tiered.get(keys[0])
    times = bench.race(
        {"near": lambda: tiered.get(keys[0]), "local": lambda: local.get(keys[1])}, rounds=6, once=True, memory=MEMORY
    )
    yield compare("second get of 64 MiB, with a near tier", times["near"], "local files", times["local"], at_most=1.2)


def signatures(bench: Bench) -> Iterator[Row]:
    by_hmac = bench.enter(UnifiedCache(bench.folder / "hmac"))
    by_key = bench.enter(UnifiedCache(bench.folder / "ed25519", signing_key=new_private_key("bench")))
    keys = {cache: cache.put(SMALL, x=1).cache_key for cache in (by_hmac, by_key)}
    verified = by_key._store.keyring._keys["bench"]._verified

    def first() -> None:
        verified.clear()
        by_key.get(keys[by_key])

    times = bench.race(
        {"first": first, "again": lambda: by_key.get(keys[by_key]), "HMAC": lambda: by_hmac.get(keys[by_hmac])},
        rounds=9,
    )
    yield compare("first get of 1 KiB, Ed25519", times["first"], "HMAC", times["HMAC"], at_most=3)
    yield compare("get of 1 KiB again, Ed25519", times["again"], "HMAC", times["HMAC"], at_most=1.3)


if __name__ == "__main__":
    main(measure, __doc__)
