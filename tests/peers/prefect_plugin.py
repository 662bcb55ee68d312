"""A pytest plug-in for Prefect's own tests: results go to a cache of ours, and outcomes are written down.

PEER_KIND is "cacheness", or "prefect" for Prefect's own storage, policies and locks. PEER_KEPT names the folder of
either, which the next run finds as this one left it; PEER_OUTCOMES the file that is written. Each test keeps its
results by itself: many use the same keys, and count on a fresh storage.

It imports nothing else of this folder: in Prefect's checkout `tests` is another package.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any
from zlib import crc32

import anyio
import prefect.cache_policies
import prefect.locking.filesystem
import prefect.locking.memory
import prefect.results
import prefect.tasks
import prefect.testing.fixtures
import pytest
from prefect.filesystems import LocalFileSystem, WritableFileSystem

from cacheness_prefect import CachenessLockManager, CachenessStorage

#: Prefect's fixture gives its server 20 s to start, which is not enough on a busy machine.
SERVER_SECONDS = 300.0
IS_OURS = os.environ["PEER_KIND"] == "cacheness"
KEPT = os.environ["PEER_KEPT"]
EVERY, FROM = int(os.environ.get("PEER_EVERY", "1")), int(os.environ.get("PEER_FROM", "0"))

_store = CachenessStorage(cache_dir=KEPT) if IS_OURS else None
_files = LocalFileSystem(basepath=KEPT)
_blocks: list[Any] = []  #: all blocks of ours that tests use
_outcomes: dict[str, str] = {}
_counts = {"entries": 0, "hits": 0}


class PeerLocks(CachenessLockManager):
    """Our lock manager, made as Prefect's are."""

    def __init__(self, *_: Any, **__: Any) -> None:
        assert _store is not None
        super().__init__(_store)


class _Patient:
    """`anyio` with more time for a server to start."""

    def __getattr__(self, name: str) -> Any:
        return getattr(anyio, name)

    def move_on_after(self, seconds: float, **options: Any) -> Any:
        return anyio.move_on_after(max(seconds, SERVER_SECONDS), **options)


def _keep_results_in(storage: WritableFileSystem) -> None:
    """Where neither settings nor the server name a storage."""
    say, asay = prefect.results._get_default_result_storage, prefect.results._aget_default_result_storage
    local = prefect.results._DefaultResultStorageSource.LOCAL_STORAGE_PATH

    def instead(found: Any) -> Any:
        return dataclasses.replace(found, storage=storage) if found.source is local else found

    async def aget() -> Any:
        return instead(await asay())

    prefect.results._get_default_result_storage = lambda: instead(say())
    prefect.results._aget_default_result_storage = aget


def pytest_configure() -> None:
    """Before Prefect's tests are imported, which take these names from their modules."""
    prefect.testing.fixtures.anyio = _Patient()  # type: ignore[assignment]
    _keep_results_in(_files if _store is None else _store)
    if _store is not None:
        policies: Any = prefect.cache_policies
        policies.INPUTS = _store.policy(code=False)
        policies.DEFAULT = prefect.tasks.DEFAULT = _store.policy() + policies.RUN_ID
        _blocks.extend([_store, policies.INPUTS.key_storage, policies.DEFAULT.key_storage])
        prefect.locking.memory.MemoryLockManager = PeerLocks  # type: ignore[assignment, misc]
        prefect.locking.filesystem.FileSystemLockManager = PeerLocks  # type: ignore[assignment, misc]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Take one test in PEER_EVERY, by name: that at PEER_FROM."""
    items[:] = [item for item in items if crc32(item.nodeid.encode()) % EVERY == FROM]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give the test a storage of its own, the same in each run."""
    name = f"t{crc32(item.nodeid.encode()):08x}"
    _files.basepath = str(Path(KEPT, name))
    for block in _blocks:
        block.namespace = name


def pytest_runtest_teardown() -> None:
    """Count what is in the test's cache."""
    if _store is not None:
        stats = _store.open().stats()
        for name in _counts:
            _counts[name] += stats[name]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the worst of a test's three phases."""
    expected = "xfailed" if hasattr(report, "wasxfail") else report.outcome
    if expected != "passed" or report.when == "call":
        _outcomes[report.nodeid] = expected if expected != "passed" else _outcomes.get(report.nodeid, expected)


def pytest_sessionfinish() -> None:
    """Write down what there was."""
    Path(os.environ["PEER_OUTCOMES"]).write_text(json.dumps({"outcomes": _outcomes, "counts": _counts}))
