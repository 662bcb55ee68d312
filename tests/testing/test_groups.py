"""Tests that share a server or a cluster run in one process."""

from __future__ import annotations

import pytest


@pytest.mark.xdist_group("groups")
def test_the_groups_of_tests_reach_the_scheduler(request: pytest.FixtureRequest) -> None:
    # The scheduler reads a group at the end of a test's name. pytest 9.2 ignores what pytest-xdist 3.8 adds there.
    if getattr(request.config.option, "loadgroup", False):
        assert request.node.nodeid.endswith("@groups")
