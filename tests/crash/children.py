"""How these tests start processes: forked from one that has imported what they need, to save the time."""

from __future__ import annotations

import multiprocessing
from typing import Final

CONTEXT: Final = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "tests.crash.roles",
        "tests.crash.test_every_step",
        "cacheness.metadata.postgresql",
        "cacheness.metadata.sqlite",
        "cacheness.blobs.local",
        "cacheness.blobs.object_store",
        "s3fs",
    ]
)
