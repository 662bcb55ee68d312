"""A 64 MiB array on S3, with its row in PostgreSQL, against a bare obstore put and get of the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import obstore
from obstore.store import S3Store

from benchmarks.bench import SIGNING_KEY, Bench, Row, compare, main
from cacheness import UnifiedCache

VALUE = np.random.default_rng(1).random(8 << 20)
MEMORY = 1 << 30


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    cache = bench.enter(UnifiedCache(metadata_backend=bench.postgresql, blob_store=bench.s3, signing_key=SIGNING_KEY))
    store, data = bare(bench.s3), VALUE.tobytes()
    times = bench.race(
        {
            "ours": lambda: cache.put(VALUE, x=1),
            "bare": lambda: obstore.put(store, "bare", data),
            "looked at": lambda: (obstore.put(store, "looked at", data), obstore.head(store, "looked at")),
        },
        rounds=4,
        once=True,
        memory=MEMORY,
    )
    what = "put 64 MiB, S3 + PostgreSQL"
    yield compare(what, times["ours"], "bare obstore", times["bare"], at_most=1.2)
    yield compare(what, times["ours"], "bare obstore, put and head", times["looked at"])
    key = cache.key(x=1)
    times = bench.race(
        {"ours": lambda: cache.get(key), "bare": lambda: obstore.get(store, "bare").bytes()},
        rounds=4,
        once=True,
        memory=MEMORY,
    )
    yield compare("get 64 MiB, S3 + PostgreSQL", times["ours"], "bare obstore", times["bare"], at_most=1.2)


def bare(url: str) -> S3Store:
    """The same bucket, without us."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    return S3Store(
        parts.netloc,
        endpoint=options["endpoint_url"],
        access_key_id=options["access_key_id"],
        secret_access_key=options["secret_access_key"],
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )


if __name__ == "__main__":
    main(measure, __doc__)
