"""The model machine on every pair of metadata store and blob store."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from cacheness.blobs.memory import MemoryBlobStore
from cacheness.config import Config
from cacheness.testing import servers
from cacheness.testing.machine import CacheMachine

pytestmark = pytest.mark.slow

ON_THIS_MACHINE = settings(
    max_examples=30, stateful_step_count=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
ON_SERVERS = settings(ON_THIS_MACHINE, max_examples=5, stateful_step_count=12)


class KeptMemory(MemoryBlobStore):
    """Survives being closed, as a server does."""

    def close(self) -> None:
        """Keep everything."""


def local(machine: CacheMachine, request) -> dict:
    return {}


def memory(machine: CacheMachine, request) -> dict:
    return {"blob_store": KeptMemory()}


def s3(machine: CacheMachine, request, query: str = "") -> dict:
    url = request.getfixturevalue("s3_url")
    bucket, _, options = url.partition("?")
    return {"blob_store": f"{bucket}/{machine.directory.strip('/').replace('/', '-')}?{options}{query}"}


def s3fs(machine: CacheMachine, request) -> dict:
    return s3(machine, request, "&engine=s3fs")


def sqlite(stack, request) -> dict:
    return {"metadata_backend": "sqlite"}


def json(stack, request) -> dict:
    return {"metadata_backend": "json"}


def postgresql(stack, request) -> dict:
    url = request.getfixturevalue("kept_database")
    servers.empty_database(url)
    return {"metadata_backend": url, "signing_key": "a key that only this test knows", "shared_path": True}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("metadata", [sqlite, json, pytest.param(postgresql, marks=pytest.mark.external)])
@pytest.mark.parametrize(
    "blobs",
    [local, memory, pytest.param(s3, marks=pytest.mark.external), pytest.param(s3fs, marks=pytest.mark.external)],
)
def test_i2_i3_i6_a_cache_agrees_with_a_dictionary(metadata, blobs, request):
    from contextlib import ExitStack

    class Machine(CacheMachine):
        def make_config(self) -> Config:
            self.stack = ExitStack()
            return Config(
                cache_dir=self.directory, inline_max_bytes=1000, **metadata(self.stack, request), **blobs(self, request)
            )

        def teardown(self) -> None:
            super().teardown()
            if hasattr(self, "stack"):
                self.stack.close()

    run_state_machine_as_test(
        Machine, settings=ON_SERVERS if metadata is postgresql or blobs in {s3, s3fs} else ON_THIS_MACHINE
    )
