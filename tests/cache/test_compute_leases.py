"""One computation per key: taken, renewed, released, and taken over from the dead."""

from __future__ import annotations

import threading
import time

from cacheness import UnifiedCache

KEY = "ab" * 32


def test_one_holder_at_a_time(world):
    leases = world.cache.compute_leases
    assert leases.acquire(KEY, "first")
    assert not leases.acquire(KEY, "second")
    assert leases.holder(KEY) == "first"
    leases.release(KEY, "second")
    assert leases.holder(KEY) == "first"
    leases.release(KEY, "first")
    assert leases.holder(KEY) is None
    assert leases.acquire(KEY, "second")


def test_a_lease_is_renewed_while_its_holder_lives_and_lost_when_it_runs_out(world):
    dead = UnifiedCache(world.config.but(lease=0.5))
    assert dead.compute_leases.acquire(KEY, "renewed", lease=0.6)
    assert not world.cache.compute_leases.acquire(KEY, "waiting", wait=1.5)
    dead.compute_leases._held.clear()  # from here on nobody renews it, as if the process had died
    assert world.cache.compute_leases.acquire(KEY, "waiting", wait=10)
    dead.close()


def test_a_waiter_goes_on_as_soon_as_the_lease_ends(world):
    leases = world.cache.compute_leases
    assert leases.acquire(KEY, "first")
    taken = []
    waiter = threading.Thread(target=lambda: taken.append(leases.acquire(KEY, "second", wait=30)))
    waiter.start()
    leases.release(KEY, "first")
    waiter.join(timeout=20)
    assert taken == [True]


def test_a_waiter_stops_when_the_result_has_arrived(world):
    leases = world.cache.compute_leases
    assert leases.acquire(KEY, "first")
    assert not leases.acquire(KEY, "second", wait=30, unless=lambda: True)


def test_closing_gives_up_what_is_held(world):
    other = UnifiedCache(world.config.but(lease=29))
    assert other.compute_leases.acquire(KEY, "first")
    other.close()
    assert world.cache.compute_leases.holder(KEY) is None


def test_a_lease_is_renewed_however_many_others_come_and_go(world):
    leases = world.cache.compute_leases
    assert leases.acquire(KEY, "long", lease=1.5)
    for n in range(30):
        assert leases.acquire(f"{n:064x}", "short", lease=1.5)
        leases.release(f"{n:064x}", "short")
        time.sleep(0.15)
    assert leases.holder(KEY) == "long"
