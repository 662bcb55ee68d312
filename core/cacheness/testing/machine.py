"""Run random operations on a cache, and compare with a dictionary.

Reopening, crashing, fencing, expiring, evicting and repairing are operations like any other.
Subclass `CacheMachine`, override `make_config`, and pass it to Hypothesis:

    class TestMine(CacheMachine):
        def make_config(self): ...

    run_state_machine_as_test(TestMine)
"""

from __future__ import annotations

import random
import shutil
import tempfile
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cacheness import UnifiedCache, factory
from cacheness.config import Config
from cacheness.testing.faults import Countdown, Crashed, OnStep, crash, stepwise

MISSING: Final = "<a miss>"

keys = st.integers(0, 3)
#: None, values that fit in a row, and values that need a blob: too random to be compressed into a row.
values = st.one_of(st.none(), st.integers(), st.binary(max_size=20)) | st.integers(0, 9).map(
    lambda seed: random.Random(seed).randbytes(40_000)
)
moments = st.integers(1, 12)


class CacheMachine(RuleBasedStateMachine):
    """A cache and a dictionary with the values that may be found for each key."""

    def make_config(self) -> Config:
        """Return the cache to test; a new one for every run. Override for other stores."""
        return Config(cache_dir=self.directory)

    @initialize()
    def open(self) -> None:
        self.directory = tempfile.mkdtemp()
        self.config = self.make_config()
        self.model: dict[int, list[Any]] = {}
        self.cache = self._opened(_nothing)

    @rule(key=keys, value=values)
    def put(self, key: int, value: Any) -> None:
        self.cache.put(value, k=key)
        self.model[key] = [value]

    @rule(changes=st.lists(st.tuples(keys, values), max_size=4))
    def put_in_a_batch(self, changes: list[tuple[int, Any]]) -> None:
        with self.cache.write_batch():
            for key, value in changes:
                self.cache.put(value, k=key)
        self.model.update({key: [value] for key, value in changes})

    @rule(key=keys)
    def invalidate(self, key: int) -> None:
        self.cache.invalidate(k=key)
        self.model[key] = [MISSING]

    @rule(key=keys, value=values)
    def expire(self, key: int, value: Any) -> None:
        self.cache.put(value, k=key, ttl=0.000001)
        self.model[key] = [MISSING]

    @rule(key=keys)
    def touch(self, key: int) -> None:
        self.cache.touch(k=key, ttl=3600)

    @rule()
    def evict(self) -> None:
        self.cache.evict()

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.model = {key: [MISSING] for key in self.model}

    @rule()
    def reopen(self) -> None:
        self.cache.close()
        self.cache = self._opened(_nothing)

    @rule(key=keys, value=values, moment=moments)
    def crash_in_put(self, key: int, value: Any, moment: int) -> None:
        if self._crashes(moment, lambda cache: cache.put(value, k=key)):
            self.model[key] = [*self.model.get(key, [MISSING]), value]
        else:
            self.model[key] = [value]

    @rule(key=keys, moment=moments)
    def crash_in_invalidate(self, key: int, moment: int) -> None:
        if self._crashes(moment, lambda cache: cache.invalidate(k=key)):
            self.model[key] = [*self.model.get(key, [MISSING]), MISSING]
        else:
            self.model[key] = [MISSING]

    @rule(moment=moments)
    def crash_in_repair(self, moment: int) -> None:
        self._crashes(moment, lambda cache: cache.verify_integrity(repair=True))

    @rule()
    def fence_everybody(self) -> None:
        metadata = factory.open_metadata(self.config)
        for session in metadata.live_sessions():
            metadata.fence(session.id)
        if isinstance(self.config.metadata_backend, str):
            metadata.close()

    @rule(deep=st.booleans())
    def repair(self, deep: bool) -> None:
        self.cache.verify_integrity(repair=True, deep=deep)

    @invariant()
    def agrees_with_a_dictionary(self) -> None:
        """I2 and I3: acknowledged results are found, and no others."""
        for key, allowed in self.model.items():
            hit = self.cache.lookup(k=key)
            found = MISSING if hit is None else hit.value
            assert found in allowed, f"k={key} is {found!r:.60}"
            self.model[key] = [found]

    def teardown(self) -> None:
        """I6: when nothing runs, after one repair, as many blobs as rows that name one."""
        if not hasattr(self, "cache"):
            return
        self.cache.evict()  # expired entries are not listed, but still have blobs
        self.cache.verify_integrity(repair=True)
        report = self.cache.verify_integrity(deep=True)
        assert list(report) == []
        assert report.blobs == sum(entry["blob"] is not None for entry in self.cache.list_entries())
        self.cache.close()
        shutil.rmtree(self.directory)

    def _crashes(self, moment: int, operation: Any) -> bool:
        """Act as another "process" that dies at this moment, if it runs so long."""
        countdown = Countdown(moment, crash)
        try:
            with stepwise(self.config, countdown) as cache:
                operation(cache)
        except Crashed:
            return True
        return False

    def _opened(self, on_step: OnStep) -> UnifiedCache:
        return stepwise(self.config, on_step)


def _nothing(_step: str, _when: str) -> None:
    """No fault."""
