"""Ten kills on each world; `python -m tests.crash.storm` runs a longer one."""

from __future__ import annotations

import pytest

from tests.crash import storm


@pytest.mark.timeout(300)
def test_i2_i3_i5_i6_hold_in_a_storm_of_killed_processes(world):
    world.cache.close()
    outcome = storm.run(world.config, seconds=8, kills=10)
    outcome.check()
    assert outcome.counts["reads"] > 0
    assert outcome.counts["repairs"] > 0
