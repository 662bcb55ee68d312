"""Prefect tasks in real flows: results kept by CachenessStorage, beside Prefect's own storage, on files and on S3."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

os.environ["PREFECT_LOGGING_LEVEL"] = "ERROR"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["PREFECT_LOGGING_TO_API_ENABLED"] = "false"

import numpy as np
from prefect import Task, flow, task
from prefect.cache_policies import INPUTS
from prefect.filesystems import LocalFileSystem, WritableFileSystem
from prefect.settings import get_current_settings
from prefect.testing.utilities import prefect_test_harness

from benchmarks.bench import SIGNING_KEY, Bench, Row, Timing, compare, main
from benchmarks.memory import forget_peak, peak, resident
from cacheness_prefect import CachenessStorage

VALUE = np.random.default_rng(1).random(4 << 20)
MEMORY = 1 << 30
OURS, PEER = "ours", "Prefect's own files, pickle"
OURS_S3, PEER_S3 = "ours on S3", "prefect-aws, pickle"


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark; a quick run leaves S3 out."""
    bench.enter(prefect_test_harness(server_startup_timeout=120))
    kept: dict[str, WritableFileSystem] = {
        OURS: CachenessStorage(cache_dir=str(bench.folder / "ours")),
        PEER: files(bench.folder / "theirs"),
    }
    if not bench.quick:
        kept |= on_s3(bench)
    yield from large_values(bench, kept)
    yield from small_values(bench, kept)
    yield Row("peak memory of a Prefect task that writes 256 MiB", peak_memory(bench, "ours"), at_most=2.2, unit="x")
    if not bench.quick:
        yield Row("… with Prefect's own storage", peak_memory(bench, "theirs"), unit="x")


def large_values(bench: Bench, kept: dict[str, WritableFileSystem]) -> Iterator[Row]:
    """Hits and first runs of 32 MiB, and what they store."""
    for what, at_least in (("hit", 20), ("write", 12)):
        times = race(bench, kept, large, write=what == "write")
        yield compare(
            f"Prefect {what}, 32 MiB array, the whole task", times[OURS], PEER, times[PEER], at_least=at_least
        )
        if OURS_S3 in kept:
            yield compare("… on S3 and PostgreSQL", times[OURS_S3], PEER_S3, times[PEER_S3])
        if what == "hit":
            for name, most in (("ours", 1.01), ("theirs", None)):
                stored = sum(path.stat().st_size for path in (bench.folder / name).rglob("*") if path.is_file())
                said = "Prefect, bytes stored for each byte" if name == "ours" else "… with Prefect's own storage"
                yield Row(said, stored / VALUE.nbytes, at_most=most, unit="bytes")


def small_values(bench: Bench, kept: dict[str, WritableFileSystem]) -> Iterator[Row]:
    """Hits of next to nothing."""
    times = race(bench, kept, small)
    more = (times[OURS].median - times["nothing"].median) * 1e3
    yield Row("Prefect hit, small value, over the task's own time", more, at_most=8, unit="ms")
    yield compare("Prefect hit, small value, the whole task", times[OURS], PEER, times[PEER])
    if OURS_S3 in kept:
        more = (times[OURS_S3].median - times["nothing"].median) * 1e3
        yield Row("… on PostgreSQL, over the task's own time", more, at_most=8, unit="ms")
        yield compare("… on PostgreSQL, the whole task", times[OURS_S3], PEER_S3, times[PEER_S3])


def on_s3(bench: Bench) -> dict[str, WritableFileSystem]:
    """Ours and its peer on the same servers."""
    shared = {"blob_store": bench.s3, "metadata_backend": bench.postgresql, "signing_key": SIGNING_KEY}
    return {OURS_S3: CachenessStorage(cache_dir=str(bench.folder / "unused"), **shared), PEER_S3: bucket(bench.s3)}


def files(folder: Path) -> LocalFileSystem:
    """Prefect's own storage; it takes no unsaved block."""
    storage = LocalFileSystem(basepath=str(folder))
    storage.save(folder.name, overwrite=True)
    return storage


def bucket(url: str) -> WritableFileSystem:
    """The storage of prefect-aws, in the folder that an S3 URL names."""
    from prefect_aws import AwsClientParameters, MinIOCredentials
    from prefect_aws.s3 import S3Bucket

    parts = urlsplit(url)
    options = {name: values[0] for name, values in parse_qs(parts.query).items()}
    storage = S3Bucket(
        bucket_name=parts.netloc,
        bucket_folder=parts.path.strip("/") + "-theirs",
        credentials=MinIOCredentials(
            minio_root_user=options["access_key_id"],
            minio_root_password=options["secret_access_key"],
            region_name="us-east-1",
            aws_client_parameters=AwsClientParameters(endpoint_url=options["endpoint_url"]),
        ),
    )
    storage.save("theirs-on-s3", overwrite=True)
    return storage


def large(n: int) -> np.ndarray:
    return VALUE


def small(n: int) -> dict[str, int]:
    return {"n": n}


def nothing(n: int) -> None:
    return None


def kept_in(storage: WritableFileSystem, function: Callable[[int], Any]) -> Task[..., Any]:
    """A task whose results stay in a storage; read back from there, and not from memory."""
    if isinstance(storage, CachenessStorage):
        # Pinned, or each key would cover the 32 MiB that the task refers to.
        return task(cache_policy=storage.policy(version="1"), cache_result_in_memory=False)(function)
    options: dict[str, Any] = {"persist_result": True, "cache_result_in_memory": False}
    return task(cache_policy=INPUTS, result_storage=storage, **options)(function)


def race(
    bench: Bench, kept: dict[str, WritableFileSystem], function: Callable[[int], Any], *, write: bool = False
) -> dict[str, Timing]:
    """Hits of one function, or first runs, beside a task that keeps nothing."""
    tasks = {name: kept_in(storage, function) for name, storage in kept.items()}
    tasks["nothing"] = task(persist_result=False)(nothing)
    # Prefect's keys cover the arguments alone: each race has its own.
    numbers = itertools.count(1000) if write else itertools.repeat(1 if function is large else 2)

    @flow
    def work() -> dict[str, Timing]:
        for name, each in tasks.items():
            number = next(numbers)
            each(number)
            assert name == "nothing" or each(number, return_state=True).name == "Cached", name
        contenders = {name: lambda each=each: each(next(numbers)) for name, each in tasks.items()}
        memory = MEMORY if function is large else 0
        return bench.race(contenders, rounds=6 if function is small else 3, once=True, memory=memory)

    return work()


def peak_memory(bench: Bench, name: str) -> float:
    """Of a process that runs one task, the value included, as a multiple of the value's size."""
    command = [sys.executable, "-m", "benchmarks.prefect_hit", "--alone", name, str(bench.folder / f"{name}-peak")]
    environment = get_current_settings().to_environment_variables(exclude_unset=True)  # the harness's server
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | environment).stdout
    return float(said.splitlines()[-1])


def write_alone(name: str, folder: str) -> None:
    """Prints the peak of one task that stores 256 MiB, after one that stored a little."""
    storage = CachenessStorage(cache_dir=folder) if name == "ours" else files(Path(folder))
    size = 256 << 20

    def array(n: int) -> np.ndarray:
        return np.random.default_rng(1).random(n // 8)

    each = kept_in(storage, array)

    @flow
    def work() -> float:
        each(8)
        before = resident()
        forget_peak()
        each(size, return_state=True)
        return (peak() - before) / size

    print(work())


if __name__ == "__main__":
    if "--alone" in sys.argv:
        write_alone(*sys.argv[2:])
    else:
        main(measure, __doc__)
