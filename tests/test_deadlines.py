from __future__ import annotations

import pytest

from cacheness import deadlines
from cacheness.deadlines import Guard, Limits, patience, patience_or
from cacheness.errors import BlobMissing, CommitUnanswered, StoreRefused, StoreUnavailable

LIMITS = Limits(attempts=3, failures=3, total=10.0, cooldown=30.0)


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(deadlines, "time", clock)
    return clock


class Server:
    """Answers as it is told, one thing after the other."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)
        self.asked = 0

    def __call__(self) -> object:
        self.asked += 1
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def down() -> StoreUnavailable:
    return StoreUnavailable("down")


def test_what_fails_for_a_moment_is_tried_again() -> None:
    server = Server(down(), down(), "answer")
    assert Guard("it", LIMITS).call(server) == "answer"
    assert server.asked == 3


def test_what_keeps_failing_is_tried_a_few_times() -> None:
    server = Server(*(down() for _ in range(9)))
    with pytest.raises(StoreUnavailable):
        Guard("it", LIMITS).call(server)
    assert server.asked == 3


@pytest.mark.parametrize("error", [CommitUnanswered("?"), StoreRefused("no"), BlobMissing("gone"), ZeroDivisionError()])
def test_only_unavailable_stores_are_asked_again(error) -> None:
    server = Server(error)
    with pytest.raises(type(error)):
        Guard("it", LIMITS).call(server)
    assert server.asked == 1


def test_once_is_once() -> None:
    server = Server(down())
    with pytest.raises(StoreUnavailable):
        Guard("it", LIMITS).once(server)
    assert server.asked == 1


def test_after_some_failures_in_a_row_nobody_is_asked_until_the_cooldown_is_over(clock) -> None:
    guard = Guard("the server", LIMITS)
    server = Server(down(), down(), down(), "answer")
    for _ in range(5):
        with pytest.raises(StoreUnavailable):
            guard.once(server)
    assert server.asked == 3
    with pytest.raises(StoreUnavailable, match=r"down.*the server"):
        guard.once(server)
    clock.now += LIMITS.cooldown
    assert guard.once(server) == "answer"


def test_one_failure_that_took_all_the_time_is_enough(clock) -> None:
    guard = Guard("it", LIMITS)

    def hang() -> None:
        clock.now += LIMITS.total
        raise down()

    with pytest.raises(StoreUnavailable):
        guard.call(hang)
    server = Server("answer")
    with pytest.raises(StoreUnavailable):
        guard.call(server)
    assert server.asked == 0


@pytest.mark.parametrize("answer", ["fine", BlobMissing("gone"), StoreRefused("no")])
def test_any_answer_ends_a_row_of_failures(clock, answer) -> None:
    guard = Guard("it", LIMITS)
    server = Server(down(), down(), answer, down(), down(), "answer")
    for _ in range(5):
        try:
            guard.once(server)
        except (StoreUnavailable, BlobMissing, StoreRefused):
            continue
    assert guard.once(server) == "answer"


def test_patience_shortens_a_wait_and_never_lengthens_it() -> None:
    assert patience_or(30) == 30
    with patience(5):
        assert patience_or(30) == 5
        assert patience_or(1) == 1
        with patience(2):
            assert patience_or(30) == 2
    assert patience_or(30) == 30


def test_a_transfer_has_time_for_its_size() -> None:
    limits = Limits(stall=10, least_rate=1 << 20)
    assert limits.transfer(0) == 10
    assert limits.transfer(64 << 20) == 74
