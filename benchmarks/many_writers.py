"""Many processes writing into one cache at once: errors, losses, the slowest put, and how many a second."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.bench import SIGNING_KEY, Bench, Row, main
from cacheness import Config, UnifiedCache
from cacheness.config import ENVIRONMENT_PREFIX

PUTS = 20


def measure(bench: Bench) -> Iterator[Row]:
    """The rows of this benchmark."""
    crowds = (1, 8) if bench.quick else (1, 4, 16, 64)
    embedded = {"cache_dir": str(bench.folder / "ours")}
    shared = {"metadata_backend": bench.postgresql, "blob_store": bench.s3, "signing_key": SIGNING_KEY}
    for name, parameters in (("SQLite", embedded), ("PostgreSQL", shared)):
        for number, writers in enumerate(crowds):
            config = Config(**parameters, namespace=f"crowd{number}")
            yield from crowd(bench.folder / f"{name}-{writers}", name, config, writers)


def crowd(folder: Path, name: str, config: Config, writers: int) -> Iterator[Row]:
    """Start everybody, let them begin together, and read every entry back."""
    folder.mkdir()
    with UnifiedCache(config) as cache:
        cache.put(0, begun=True)
        done = run(folder, config, writers)
        keys = [(writer, n) for writer in range(writers) for n in range(PUTS)]
        lost = sum(cache.get(writer=writer, n=n) != [writer, n] for writer, n in keys)
    took = sorted(seconds for report in done for seconds in report["took"])
    errors = [error for report in done for error in report["errors"]]
    elapsed = max(report["ended"] for report in done) - min(report["began"] for report in done)
    what = f"{name}, {writers} processes writing"
    late = took[int(0.99 * len(took))]
    yield Row(f"{what}: slowest put", took[-1], at_most=5, note="; ".join(errors[:1]))
    yield Row(f"{what}: errors and losses", len(errors) + lost, at_most=0, unit="")
    yield Row(f"{what}: 99th percentile", late, curve=f"{name}: 99th percentile of a put", at=writers)
    rate = len(took) / elapsed
    yield Row(f"{what}: together", rate, unit="puts/s", curve=f"{name}: puts a second", at=writers)


def run(folder: Path, config: Config, writers: int) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.many_writers", "--writer"]
    settings = {ENVIRONMENT_PREFIX + name.upper(): str(getattr(config, name)) for name in CONFIGURED}
    settings = {name: text for name, text in settings.items() if text != "None"}
    started = [
        subprocess.Popen([*command, str(writer), str(folder), json.dumps(settings)], stdout=subprocess.PIPE, text=True)
        for writer in range(writers)
    ]
    while len(list(folder.glob("*.ready"))) < writers:
        time.sleep(0.01)
    (folder / "go").touch()
    return [json.loads(process.communicate()[0]) for process in started]


CONFIGURED = ("cache_dir", "metadata_backend", "blob_store", "signing_key", "namespace")


def write(writer: int, folder: Path, settings: dict[str, str]) -> None:
    """What each process does: small values and now and then a file."""
    with UnifiedCache(Config.from_env(settings)) as cache:
        (folder / f"{writer}.ready").touch()
        while not (folder / "go").exists():
            time.sleep(0.001)
        took, errors, began = [], [], time.time()
        for n in range(PUTS):
            start = time.perf_counter()
            try:
                cache.put([writer, n], writer=writer, n=n)
            except Exception as error:  # noqa: BLE001 - counted and shown
                errors.append(repr(error))
            took.append(time.perf_counter() - start)
        print(json.dumps({"took": took, "errors": errors, "began": began, "ended": time.time()}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--writer"]:
        write(int(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4]))
    else:
        main(measure, __doc__)
