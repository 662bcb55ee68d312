"""A short storm on SQLite, and one on S3 and PostgreSQL behind a pooler; `make storm` runs long ones on each world."""

from __future__ import annotations

import pytest

from tests.crash import storm


@pytest.mark.timeout(300)
@pytest.mark.xdist_group("storms")
@pytest.mark.parametrize("name", ["sqlite", pytest.param("pooled", marks=pytest.mark.external)])
def test_i2_i3_i5_i6_hold_in_a_storm_of_killed_processes(name, request):
    bucket = "" if name == "sqlite" else request.getfixturevalue("s3_url")
    with storm.fresh_folder() as folder:
        outcome = storm.run(name, folder, bucket, seconds=8, kills=10)
    outcome.check()
