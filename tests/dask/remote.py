"""One fresh process of a user whose input lies in S3: reads it in every way, rewrites an object, and reads again."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import dask
import dask.bag as db
import dask.dataframe as dd
import pandas as pd
import pyarrow.fs
import s3fs
from workloads import ran, runs

import cacheness_dask as cd
from cacheness import File, UnifiedCache

FILES = 4


class Bucket:
    """The place that a URL of the test server's names, as s3fs and as Arrow see it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        self.place = f"{parts.netloc}{parts.path}"
        self.options = {
            "key": query["access_key_id"],
            "secret": query["secret_access_key"],
            "client_kwargs": {"endpoint_url": query["endpoint_url"]},
        }
        endpoint = urlsplit(query["endpoint_url"])
        self.arrow = pyarrow.fs.S3FileSystem(
            access_key=query["access_key_id"],
            secret_key=query["secret_access_key"],
            endpoint_override=endpoint.netloc,
            scheme=endpoint.scheme,
            region="us-east-1",
        )

    def write(self, number: int, start: int) -> None:
        """A table in every format, as somebody else would write it: no file system of this process hears of it."""
        elsewhere = s3fs.S3FileSystem(**self.options, skip_instance_cache=True)
        table = pd.DataFrame({"a": range(start, start + 5), "b": [f"x{i}" for i in range(5)]})
        data = io.BytesIO()
        table.to_parquet(data)
        elsewhere.pipe(f"{self.place}/parquet/{number}.parquet", data.getvalue())
        elsewhere.pipe(f"{self.place}/csv/{number}.csv", table.to_csv(index=False).encode())


def counted(df: pd.DataFrame, reader: str) -> pd.DataFrame:
    """The reader's name keeps equal frames of two readers from being one result."""
    if len(df) > 2:
        ran()
    return df


def lines_in(lines: Any) -> list[int]:
    ran()
    return [sum(len(line) for line in lines)]


def text_of(file: File) -> str:
    ran()
    with file.open() as opened:
        return str(opened.read())


READERS: dict[str, Callable[[Bucket], Any]] = {
    "parquet": lambda at: (
        dd.read_parquet(f"s3://{at.place}/parquet/*.parquet", storage_options=at.options)
        .map_partitions(counted, "parquet")
        .a.sum()
    ),
    "parquet-arrow": lambda at: (
        dd.read_parquet(f"{at.place}/parquet", filesystem=at.arrow).map_partitions(counted, "arrow").a.sum()
    ),
    "csv": lambda at: (
        dd.read_csv(f"s3://{at.place}/csv/*.csv", storage_options=at.options).map_partitions(counted, "csv").a.sum()
    ),
    "text": lambda at: (
        db.read_text(f"s3://{at.place}/csv/*.csv", storage_options=at.options).map_partitions(lines_in).sum()
    ),
    "File": lambda at: dask.delayed("".join)(
        [dask.delayed(text_of)(File(f"s3://{at.place}/csv/{n}.csv", **at.options)) for n in range(FILES)]
    ),
}


def read_all(run: cd.Run, bucket: Bucket) -> dict[str, Any]:
    """What each reader reads, and how often tasks ran for it."""
    report: dict[str, Any] = {}
    for name, reader in READERS.items():
        runs()
        value = str(reader(bucket).compute())
        record = run.history[-1]
        report[name] = {
            "value": value,
            "runs": runs(),
            "hits": record.hits,
            "misses": record.misses,
            "refused": list(map(str, record.reasons.values())),
        }
    return report


def main(cache_dir: str, url: str) -> list[dict[str, Any]]:
    bucket = Bucket(url)
    with UnifiedCache(cache_dir=cache_dir) as cache, cd.caching(cache, scheduler="sync", which="all") as run:
        before = read_all(run, bucket)
        bucket.write(2, 1000)
        return [before, read_all(run, bucket)]


if __name__ == "__main__":
    print("REPORT" + json.dumps(main(*sys.argv[1:])))
