"""One computation per key: taken, renewed, released, and taken over from the dead."""

from __future__ import annotations

import threading
import time

from cacheness import UnifiedCache

KEY = "ab" * 32


def test_one_holder_at_a_time(world):
    flights = world.cache.flights
    assert flights.acquire(KEY, "first")
    assert not flights.acquire(KEY, "second")
    assert flights.holder(KEY) == "first"
    flights.release(KEY, "second")
    assert flights.holder(KEY) == "first"
    flights.release(KEY, "first")
    assert flights.holder(KEY) is None
    assert flights.acquire(KEY, "second")


def test_a_flight_is_renewed_while_its_holder_lives_and_lost_after_its_lease(world):
    dead = UnifiedCache(world.config.but(lease=0.5))
    assert dead.flights.acquire(KEY, "renewed", lease=0.6)
    assert not world.cache.flights.acquire(KEY, "waiting", wait=1.5)
    dead.flights._held.clear()  # from here on nobody renews it, as if the process had died
    assert world.cache.flights.acquire(KEY, "waiting", wait=10)
    dead.close()


def test_a_waiter_goes_on_as_soon_as_the_flight_ends(world):
    flights = world.cache.flights
    assert flights.acquire(KEY, "first")
    taken = []
    waiter = threading.Thread(target=lambda: taken.append(flights.acquire(KEY, "second", wait=30)))
    waiter.start()
    flights.release(KEY, "first")
    waiter.join(timeout=20)
    assert taken == [True]


def test_a_waiter_stops_when_the_result_has_arrived(world):
    flights = world.cache.flights
    assert flights.acquire(KEY, "first")
    assert not flights.acquire(KEY, "second", wait=30, unless=lambda: True)


def test_closing_gives_up_what_is_held(world):
    other = UnifiedCache(world.config.but(lease=29))
    assert other.flights.acquire(KEY, "first")
    other.close()
    assert world.cache.flights.holder(KEY) is None


def test_a_flight_is_renewed_however_many_others_come_and_go(world):
    flights = world.cache.flights
    assert flights.acquire(KEY, "long", lease=1.5)
    for n in range(30):
        assert flights.acquire(f"{n:064x}", "short", lease=1.5)
        flights.release(f"{n:064x}", "short")
        time.sleep(0.15)
    assert flights.holder(KEY) == "long"
