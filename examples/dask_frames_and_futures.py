# /// script
# requires-python = ">=3.11"
# dependencies = ["dask[array,dataframe]>=2026.8", "distributed>=2026.8", "pyarrow>=18"]
# ///
"""Cache data frames and futures on a cluster: the workers load and store, not the client.

    python examples/dask_frames_and_futures.py [folder]

It writes a year of random measurements, one file per month, averages them, rewrites one month, and
averages again: eleven months come from the cache.
"""

from __future__ import annotations

import sys
from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pandas as pd
from distributed import Client, LocalCluster

import cacheness_dask as cd
from cacheness import UnifiedCache


def write_month(folder: Path, month: int, seed: int) -> None:
    """Write a file of hourly temperatures."""
    hours = pd.date_range(f"2025-{month:02}-01", periods=28 * 24, freq="h")
    degrees = 10 - 8 * np.cos(month / 2) + np.random.default_rng(seed).normal(size=len(hours))
    pd.DataFrame({"hour": hours, "degrees": degrees}).to_csv(folder / f"{month:02}.csv", index=False)


def cleaned(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame without outliers, and with the month."""
    kept = frame[(frame.degrees - frame.degrees.mean()).abs() < 3 * frame.degrees.std()]
    return kept.assign(month=pd.to_datetime(kept.hour).dt.month)


def averages(folder: Path) -> dd.Series:
    """Return the mean temperature of each month."""
    frame = dd.read_csv(str(folder / "*.csv")).map_partitions(cleaned)
    return cd.mark(frame).groupby("month").degrees.mean()  # `mark` stores the cleaned frames


def celsius_to_fahrenheit(degrees: float) -> float:
    """Convert a temperature."""
    return degrees * 9 / 5 + 32


def main(folder: Path) -> None:
    """Average a year, rewrite a month, average again; then compute futures twice."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    for month in range(1, 13):
        write_month(data, month, seed=month)
    cache = UnifiedCache(cache_dir=folder / "cache")
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as client:
        with cd.caching(cache, which="outputs") as run:  # results and marks; "auto" keeps slow steps, too
            averages(data).compute()
            write_month(data, 3, seed=99)
            warm = averages(data).compute()
            print(f"after one month was rewritten: {run.history[-1].hits} loaded, {run.history[-1].misses} computed")
        print(warm.round(1).to_string())

        run = cd.install(client, cache)
        for _ in range(2):
            futures = client.map(celsius_to_fahrenheit, warm.tolist())
            print("in Fahrenheit:", [round(degrees) for degrees in client.gather(futures)])
            del futures
            run.flush()
        print(f"the second time: {run.history[-1].hits} loaded, {run.history[-1].misses} computed")
        cd.uninstall(client)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "dask-example"))
