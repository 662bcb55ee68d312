"""Counts at full size: what a warm chain moves, and what an edit of a long graph computes.

Nothing is timed; each line is a count with its expected value.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import dask
import numpy as np

import cacheness_dask as cd
from benchmarks.bench import SIGNING_KEY
from cacheness import Ref, UnifiedCache
from cacheness.testing import servers
from cacheness.testing.proxy import Proxy

STEPS: Final = 10
STEP_BYTES: Final = 64 << 20
TASKS: Final = 10_000

ran: Counter[str] = Counter()


class Unseen:
    """Counts, and decides nothing."""

    def __cacheness_key__(self) -> str:
        return "a count"

    def add(self, name: str) -> None:
        """Count a call."""
        ran[name] += 1


seen = Unseen()


def chain(folder: Path) -> Iterator[tuple[str, bool]]:
    """Ten steps whose results are 64 MiB each, in a bucket behind a proxy."""
    with ExitStack() as stack:
        url = stack.enter_context(servers.fresh_prefix(stack.enter_context(servers.s3())))
        bucket = stack.enter_context(Proxy.before(url))
        shared = {"cache_dir": folder / "chain", "blob_store": bucket.url, "signing_key": SIGNING_KEY}

        def run(cache: UnifiedCache) -> Any:
            first: Any = cache.cached(_first)
            step: Any = cache.cached(_step)
            rows = first.lazy(STEP_BYTES // 8)
            for _ in range(STEPS - 1):
                rows = step.lazy(rows.arg)
            return rows

        with UnifiedCache(**shared) as cache:
            run(cache)
        stored = sum(b"PUT /" in request for request in bucket.requests)
        yield f"cold: {ran['first']} + {ran['step']} steps ran, {stored:,} uploads", ran.total() == STEPS
        ran.clear()
        with UnifiedCache(**shared) as cache:
            bucket.requests.clear()
            last = run(cache)
            moved = len(bucket.requests)
            yield f"warm: {ran.total()} steps ran, {moved} requests reached the bucket", not ran and not moved
            expected = np.random.default_rng(1).random(STEP_BYTES // 8)
            for _ in range(STEPS - 1):
                expected += 1
            is_right = isinstance(last, Ref) and bool((last.value == expected).all())
            reads = sum(request.startswith(b"GET /") for request in bucket.requests)
            yield f"its last result is right, after {reads} requests for blobs", is_right


def _first(n: int) -> Any:
    seen.add("first")
    return np.random.default_rng(1).random(n)


def _step(rows: Any) -> Any:
    seen.add("step")
    return rows + 1


def cut_off(folder: Path) -> Iterator[tuple[str, bool]]:
    """A chain of 10,000 delayed tasks whose first one is edited: in a folder, and on PostgreSQL and a bucket."""
    with ExitStack() as stack:
        shared = {
            "metadata_backend": stack.enter_context(servers.fresh_database(stack.enter_context(servers.postgresql()))),
            "blob_store": stack.enter_context(servers.fresh_prefix(stack.enter_context(servers.s3()))),
            "signing_key": SIGNING_KEY,
        }
        for name, where in (("SQLite", {"cache_dir": folder / "graph"}), ("PostgreSQL + S3", shared)):
            with UnifiedCache(**where) as cache:
                for line, is_right in _edits(cache):
                    yield f"{name}, {line}", is_right


def _edits(cache: UnifiedCache) -> Iterator[tuple[str, bool]]:
    source = "def load(seed):\n    seen.add('load')\n    {body}\n"

    def graph(body: str) -> Any:
        scope = {"__name__": "edited", "seen": seen}
        exec(source.format(body=body), scope)
        last = dask.delayed(scope["load"])(1)
        for _ in range(TASKS - 1):
            last = dask.delayed(_more)(last)
        return last

    rest = TASKS - 1
    for body, title, expected, loaded, cut in (
        ("return 3", "cold", {"load": 1, "more": rest}, 0, 0),
        ("value = 3; return value", "after an edit that changes no value", {"load": 1}, 0, rest),
        ("value = 3; return value", "and once more", {}, 1, 0),
        (f"return {-2 * TASKS}", "after an edit that changes the value", {"load": 1, "more": rest}, 0, 0),
    ):
        ran.clear()
        with cd.caching(cache, which="all", scheduler="sync") as run:
            found = graph(body).compute()
            record = run.history[-1]
            counts = record.hits, record.cut
        value = (3 if "3" in body else -2 * TASKS) + rest
        line = f"{TASKS:,} tasks, {title}: {ran.total():,} ran, {counts[0]} loaded, {counts[1]:,} cut"
        yield line, (found, dict(ran), counts) == (value, expected, (loaded, cut))


def _more(x: int) -> int:
    seen.add("more")
    return x + 1


def main() -> None:
    """Print what came out, and fail where it is not as it must be."""
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for part in (chain, cut_off):
            ran.clear()
            for line, is_right in part(Path(folder)):
                wrong += not is_right
                print(f"{'ok   ' if is_right else 'WRONG'} {line}", flush=True)
    if wrong:
        sys.exit(f"{wrong} of these are wrong")


if __name__ == "__main__":
    main()
