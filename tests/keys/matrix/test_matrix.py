"""Samples of the matrix, small enough for every run; `make matrix` runs it whole."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.keys.matrix.families import Family
from tests.keys.matrix.values import chosen, digests_elsewhere, faults

pytestmark = pytest.mark.xdist_group("matrix")


@pytest.fixture(scope="module")
def elsewhere() -> Mapping[str, Mapping[str, str]]:
    """Digests of all values, made by another process."""
    return digests_elsewhere(chosen())


@pytest.mark.parametrize("family", chosen(), ids=lambda family: family.name)
def test_values_that_can_be_told_apart_have_two_digests(
    family: Family, elsewhere: Mapping[str, Mapping[str, str]]
) -> None:
    found, counts = faults(family, elsewhere[family.name])
    assert found == []
    assert counts["pairs"] > 100
    assert counts["refused"] < counts["values"] / 10
