"""Many blobs side by side: how many at once, and how many bytes of them."""

from __future__ import annotations

import threading
import time

import pytest

from cacheness import transfers
from cacheness.transfers import TRANSFERS, concurrently


def test_small_blobs_travel_at_the_same_time() -> None:
    meeting = threading.Barrier(TRANSFERS, timeout=60)
    assert len(concurrently(lambda _: meeting.wait(), range(TRANSFERS))) == TRANSFERS


def test_results_stand_in_the_order_of_the_items() -> None:
    def work(n: int) -> int:
        time.sleep(0.02 * (n == 0))
        return n * n

    assert concurrently(work, range(200)) == [n * n for n in range(200)]


@pytest.mark.parametrize("sizes", [[3] * 50, [1, 9, 2, 8, 4, 4] * 8, [25, 1, 30, 2, 11] * 5])
def test_no_more_bytes_are_under_way_than_allowed(monkeypatch: pytest.MonkeyPatch, sizes: list[int]) -> None:
    monkeypatch.setattr(transfers, "BYTES_AT_MOST", 10)
    mutex, under_way, seen = threading.Lock(), [], []

    def work(size: int) -> int:
        with mutex:
            under_way.append(size)
            seen.append(list(under_way))
        time.sleep(0.002)
        with mutex:
            under_way.remove(size)
        return size

    assert concurrently(work, sizes, lambda size: size) == sizes
    assert all(sum(at_once) <= 10 or len(at_once) == 1 for at_once in seen)
    assert any(len(at_once) > 1 for at_once in seen)


def test_an_error_of_one_gives_its_room_back_and_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "BYTES_AT_MOST", 10)

    def work(n: int) -> None:
        if n == 3:
            raise ValueError("three")

    with pytest.raises(ValueError, match="three"):
        concurrently(work, range(20), lambda _: 10)
