from __future__ import annotations

import contextlib
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cacheness import circuit, deadlines
from cacheness.circuit import Guard
from cacheness.deadlines import Limits, patience, patience_or, waiting
from cacheness.errors import (
    BlobMissing,
    CachenessError,
    CodecError,
    CommitUnanswered,
    StoreBusy,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)

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
    monkeypatch.setattr(circuit, "time", clock)
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


def open_circuit(guard: Guard) -> None:
    for _ in range(LIMITS.failures):
        with pytest.raises(StoreUnavailable):
            guard.once(Server(down()))


def is_asked(guard: Guard, answer: object = "answer") -> bool:
    server = Server(answer)
    with contextlib.suppress(CachenessError):
        guard.once(server)
    return bool(server.asked)


def test_after_some_failures_in_a_row_nobody_is_asked_until_it_is_time_to_try(clock) -> None:
    guard = Guard("the server", LIMITS)
    open_circuit(guard)
    with pytest.raises(StoreUnavailable, match=r"down.*the server"):
        guard.once(Server())
    clock.now += 1.0
    assert is_asked(guard)
    assert is_asked(guard)


def test_what_fails_side_by_side_is_one_failure_and_is_tried_again() -> None:
    guard, threads = Guard("the server", Limits()), 8
    together, answers = threading.Barrier(threads), itertools.count()

    def call() -> str:
        first = []

        def attempt() -> str:
            if not first:
                first.append(True)
                together.wait()  # all are on their way before the first one fails
                raise StoreUnavailable("slow down")
            return f"answer {next(answers)}"

        return guard.call(attempt)

    with ThreadPoolExecutor(threads) as pool:
        assert len(set(pool.map(lambda _: call(), range(threads)))) == threads


def test_an_open_circuit_tries_after_twice_the_time_each_time_up_to_the_cooldown(clock) -> None:
    guard = Guard("it", LIMITS)
    open_circuit(guard)
    for pause in (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        clock.now += pause - 0.01
        assert not is_asked(guard)
        clock.now += 0.02
        assert is_asked(guard, down())
    clock.now += 31.0
    assert is_asked(guard)
    open_circuit(guard)
    clock.now += 1.0
    assert is_asked(guard)


@pytest.mark.parametrize("way", ["once", "call"])
def test_one_call_tries_a_single_time_while_the_others_stay_refused(clock, way: str) -> None:
    guard = Guard("it", LIMITS)
    open_circuit(guard)
    clock.now += 1.0
    asked = []

    def attempt() -> None:
        asked.append(clock.now)
        assert not is_asked(guard)
        raise down()

    with pytest.raises(StoreUnavailable):
        getattr(guard, way)(attempt)
    assert len(asked) == 1


def test_a_try_that_is_interrupted_leaves_the_next_one_free(clock) -> None:
    guard = Guard("it", LIMITS)
    open_circuit(guard)
    clock.now += 1.0

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guard.once(interrupted)
    assert is_asked(guard)


def test_a_store_that_is_opened_as_a_try_asks_its_server_once(clock) -> None:
    opening, store = Guard("opening", LIMITS), Guard("the store", LIMITS)
    open_circuit(opening)
    clock.now += 1.0
    server = Server(down(), "answer")
    with pytest.raises(StoreUnavailable):
        opening.once(lambda: store.call(server))
    assert server.asked == 1


def test_one_failure_that_took_all_the_time_is_enough(clock) -> None:
    guard = Guard("it", LIMITS)

    def hang() -> None:
        clock.now += LIMITS.total
        raise down()

    with pytest.raises(StoreUnavailable):
        guard.once(hang)  # a single attempt: three would open the circuit by their number
    assert not is_asked(guard)


def test_a_failure_that_took_less_time_is_not_enough(clock) -> None:
    guard = Guard("it", LIMITS)

    def hang() -> None:
        clock.now += LIMITS.total - 0.01
        raise down()

    with pytest.raises(StoreUnavailable):
        guard.once(hang)
    assert is_asked(guard)


@pytest.mark.parametrize("error", [StoreBusy("locked"), CodecError("wrong"), StoreRefused("no"), StoreFull("full")])
def test_what_is_no_trouble_of_the_server_never_opens_the_circuit(clock, error) -> None:
    guard = Guard("it", LIMITS)
    for _ in range(20):
        assert is_asked(guard, error)


def test_a_lock_held_by_others_is_neither_a_failure_nor_an_answer(clock) -> None:
    guard = Guard("it", LIMITS)
    for answer in (down(), down(), StoreBusy("locked"), down()):
        assert is_asked(guard, answer)
    assert not is_asked(guard)


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


def test_patience_is_spent_by_waiting_and_by_nothing_else(clock) -> None:
    mine = patience(5)
    with mine:
        clock.now += 100  # a computation, a transfer
        assert patience_or(30) == 5
        with waiting(30) as deadline:
            assert deadline == clock.now + 5
            clock.now += 3
    with mine:
        assert patience_or(30) == 2
        with waiting(30):
            clock.now += 7
        assert patience_or(30) == 0
    with patience(5):
        assert patience_or(30) == 5


def test_a_transfer_has_time_for_its_size() -> None:
    limits = Limits(stall=10, least_rate=1 << 20)
    assert limits.transfer(0) == 10
    assert limits.transfer(64 << 20) == 74
