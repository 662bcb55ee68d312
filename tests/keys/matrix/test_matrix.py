"""Samples of the matrix, small enough for every run; `make matrix` runs it whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from tests.keys.matrix.carriers import CARRIERS, Carrier
from tests.keys.matrix.cells import Matrix, cells, open_matrix, runs_here
from tests.keys.matrix.families import Family
from tests.keys.matrix.places import PLACES, Place
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


#: Each carrier in one place, unchanged and with one of its changes: which ones, goes around.
SAMPLE: list[tuple[Carrier, Place, str]] = [
    (
        carrier,
        next(place for place in (*PLACES[number % len(PLACES) :], *PLACES) if runs_here(carrier, place)),
        list(carrier.changes)[number % len(carrier.changes)],
    )
    for number, carrier in enumerate(CARRIERS)
    if any(runs_here(carrier, place) for place in PLACES)
]


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    with open_matrix(tmp_path_factory.mktemp("matrix")) as matrix:
        yield matrix


def test_enough_carriers_can_be_tried_here() -> None:
    assert len(SAMPLE) > 100


@pytest.mark.parametrize(
    ("carrier", "place", "change"), SAMPLE, ids=lambda part: getattr(part, "name", part).replace(" ", "_")
)
def test_a_change_is_seen_and_no_change_is_a_hit(carrier: Carrier, place: Place, change: str, matrix: Matrix) -> None:
    verdicts = [matrix.verdict(cell) for cell in cells([carrier], [place]) if cell.change in (None, change)]
    assert [verdict for verdict in verdicts if not verdict.right] == []
    assert len(verdicts) == 2
