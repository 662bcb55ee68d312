"""The census as a Prefect flow: one task per distribution, and in each task a Dask graph of its files.

Both use cacheness. A distribution whose files and code are unchanged is `Cached` as a whole; of one
that has changed, Dask parses the changed files and loads the facts about the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import dask
import pyarrow as pa
from prefect import flow, task
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import ThreadPoolTaskRunner

from cacheness import Config
from cacheness_prefect import CachenessStorage
from examples.census.measure import measure
from examples.census.sources import Sources
from examples.census.tables import tabulate

AT_ONCE = 8  #: distributions at the same time; with fewer, small ones leave workers idle


def storage(config: Config) -> CachenessStorage:
    """Return a block that stores Prefect's results in the cache of this configuration; save it as "census"."""
    store = CachenessStorage(
        cache_dir=config.cache_dir,
        metadata_backend=config.metadata_backend,
        blob_store=config.blob_store,
        signing_key=config.signing_key,
    )
    store.save("census", overwrite=True)
    return store


def table_of(files: Mapping[str, Path]) -> pa.Table:
    """Measure each file in a Dask graph, and return a table. A path counts by the file's content."""
    facts = [dask.delayed(measure)(path) for path in files.values()]
    table: pa.Table = dask.delayed(tabulate)(list(files), facts).compute()
    return table


def census(
    sources: Iterable[Sources], store: CachenessStorage, seen: Callable[[Sources, str], None]
) -> dict[str, pa.Table]:
    """Run the flow. It calls `seen` with each finished distribution and its state, Completed or Cached."""
    cached = task(table_of, cache_policy=store.policy())

    @flow(name="census", task_runner=ThreadPoolTaskRunner(max_workers=AT_ONCE))
    def run() -> dict[str, pa.Table]:
        futures: dict[PrefectFuture[pa.Table], Sources] = {
            cached.with_options(task_run_name=source.name).submit(source.files): source for source in sources
        }
        tables = {}
        for future in as_completed(list(futures)):
            tables[futures[future].name] = future.result()
            seen(futures[future], future.state.name)
        return tables

    return run()
