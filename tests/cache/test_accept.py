"""Results of earlier code count after a harmless change, by evidence, and stop when the evidence fails."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import pickle
import re
import statistics
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import accept_mutants
from cacheness import ConfigError, NotAccepted, NotCached, UnifiedCache, bodies
from cacheness.audit import Sampler
from cacheness.keys import fingerprint
from cacheness.memoize import acceptances
from cacheness.memoize.acceptances import AUDITED, AcceptedChange, bound_of
from cacheness.records import Equivalence
from tests.conftest import World

BASE = """\
calls = []
def slow(x):
    calls.append(x)
    y = x + 1
    return y * 2
"""
#: What loses every result, and changes none: the edited source, and what the function is called then.
HARMLESS = {
    "renamed function": (BASE.replace("slow", "quick"), "quick"),
    "renamed local": (BASE.replace("y", "z"), "slow"),
    "renamed parameter": (BASE.replace("x", "n"), "slow"),
    "new parameter": (BASE.replace("slow(x)", "slow(x, log=False)"), "slow"),
    "log line": ("import logging\n" + BASE.replace("    y =", "    logging.debug('%s', x)\n    y ="), "slow"),
    "helper": (BASE.replace("x + 1", "more(x)") + "def more(x):\n    return x + 1\n", "slow"),
}  # fmt: skip
OTHER = BASE.replace("x + 1", "x - 1")
#: Differs where nobody looks: in a line of its own, and within one.
BRANCH = BASE.replace("    return y", "    if x == 'never':\n        y = 0\n    return y")


@pytest.fixture
def edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """A function of this source in the module `work`, as it is after an edit."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def load(source: str, name: str = "slow") -> Any:
        (tmp_path / "work.py").write_text(textwrap.dedent(source))
        sys.modules.pop("work", None)
        importlib.invalidate_caches()
        return getattr(importlib.import_module("work"), name)

    yield load
    sys.modules.pop("work", None)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[UnifiedCache]:
    with UnifiedCache(tmp_path / "cache") as cache:
        yield cache


@pytest.fixture
def unaudited(monkeypatch: pytest.MonkeyPatch) -> None:
    """No hit by earlier code is computed: which one would be is chosen by chance."""
    monkeypatch.setattr(Sampler, "chooses", lambda *_: False)


def fill(cache: UnifiedCache, function: Any, calls: int = 30, **options: Any) -> None:
    cached = cache.cached(**options)(function)
    for number in range(calls):
        cached(number)


def served(cache: UnifiedCache, function: Any, arguments: list[int], **options: Any) -> list[int]:
    """The arguments of calls that did not run."""
    calls = sys.modules["work"].calls
    before = len(calls)
    cached = cache.cached(**options)(function)
    for number in arguments:
        assert cached(number) == (number + 1) * 2
    return [number for number in arguments if number not in calls[before:]]


def only(changes: list[AcceptedChange]) -> AcceptedChange:
    (one,) = changes
    return one


@pytest.mark.parametrize("edit", HARMLESS)
def test_a_harmless_edit_keeps_its_results(
    world: World, edited: Callable[..., Any], edit: str, unaudited: None
) -> None:
    cache = world.cache
    fill(cache, edited(BASE))
    before = cache.stats()["entries"]
    changed = edited(*HARMLESS[edit])
    assert served(cache, changed, [28, 29]) == []
    if edit == "renamed function":
        assert [one.state for one in cache.accept(changed, sample=20, former="work:slow")] == ["accepted"]
    else:
        assert [one.state for one in cache.accept(changed, sample=20)] == ["accepted"]
    assert served(cache, changed, list(range(30))) == list(range(30))
    assert cache.stats()["entries"] <= before + 2 + 20  # what was computed; nothing is copied
    assert served(cache, changed, [31]) == []
    assert served(cache, changed, [31]) == [31]
    found = cache.cached(changed).explain(next(n for n in range(30) if not holds(cache, changed, n)))
    assert found.hit
    assert "which earlier code made; 20 equal calls: at most 13.9 % of such calls differ, at 95 %" in found.sentence()
    assert only(cache.accepted_changes()).bound == bound_of(20)
    assert round(bound_of(200), 3) == 0.015


def holds(cache: UnifiedCache, function: Any, number: int) -> bool:
    return cache.find(cache.cached(function).key(number)) is not None


def test_an_edit_that_changes_a_result_is_refused_and_nothing_is_written(
    cache: UnifiedCache, edited: Callable[..., Any]
) -> None:
    fill(cache, edited(BASE))
    found = only(cache.accept(edited(OTHER)))
    assert found.state == "refused"
    assert "the code of today makes" in found.why
    assert cache.accepted_changes() == []
    assert cache.cached(edited(OTHER))(5) == 8
    late = BASE.replace("    return y * 2", "    return y * 2 if x < 29 else 0")
    found = cache.accept(edited(late), sample=30)
    assert [one.state for one in found] == ["refused", "refused"]  # that of the first edit, too


def test_a_changed_line_that_no_call_ran_is_refused_unless_it_is_forced(
    cache: UnifiedCache, edited: Callable[..., Any], unaudited: None
) -> None:
    fill(cache, edited(BASE))
    changed = edited(BRANCH)
    found = only(cache.accept(changed, sample=20))
    assert (found.state, found.equal) == ("refused", 20)
    assert "lines that no compared call ran" in found.why
    assert "work.slow: 6" in found.why
    forced = only(cache.accept(changed, sample=20, force=True))
    assert (forced.state, forced.unrun) == ("accepted", {"work.slow": [6]})
    assert json.loads(json.dumps(forced.as_dict()))["bound"] == forced.bound


def test_lines_are_asked_of_what_changed_and_of_all_when_a_library_did(
    cache: UnifiedCache, edited: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = BASE + "def unused(x):\n    if x:\n        return 1\n    return 2\n"
    source = source.replace("y * 2", "y * (2 if unused(1) else 2)")
    fill(cache, edited(source))
    assert only(cache.accept(edited(source.replace("y", "z")), sample=20)).state == "accepted"
    value = source.replace("return 2", "return TWO") + "TWO = 2\n"
    cache.clear()
    fill(cache, edited(value))
    found = only(cache.accept(edited(value.replace("TWO = 2", "TWO = 3")), sample=20))
    assert "work.unused: 9" in found.why  # it reads the value that changed


LIBRARY = "import numpy\ncalls = []\ndef slow(x):\n    calls.append(x)\n    return int(numpy.add(x, 1)) * 2\n"


def test_a_patch_release_of_a_library_is_accepted_by_name(
    cache: UnifiedCache, edited: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, unaudited: None
) -> None:
    from cacheness.keys import owners

    fill(cache, edited(LIBRARY))
    with pytest.raises(NotAccepted, match="was made by earlier code"):
        cache.accept(edited(LIBRARY), upgrade="numpy")
    for name, owner in list(owners._owners.items()):
        if owner.name == "numpy":
            monkeypatch.setitem(owners._owners, name, owner._replace(version="99.0"))
    changed = edited(LIBRARY)
    assert not holds(cache, changed, 1)
    assert "more than polars changed: numpy" in only(cache.accept(changed, upgrade="polars")).why
    found = only(cache.accept(changed, sample=20, upgrade="numpy"))
    assert found.changes == (f"numpy {np.__version__} -> 99.0",)
    assert [one.state for one in cache.accepted_changes()] == ["accepted"]
    assert "numpy" in str(only(cache.accepted_changes()).not_watched)
    assert served(cache, changed, [29]) == [29]


def test_an_upgrade_is_not_accepted_where_more_changed(cache: UnifiedCache, edited: Callable[..., Any]) -> None:
    fill(cache, edited(LIBRARY))
    changed = edited(LIBRARY.replace("x, 1", "1, x"))
    assert "more than numpy changed: code of `work.slow` changed" in only(cache.accept(changed, upgrade="numpy")).why
    assert "python did not change" in only(cache.accept(changed, python=True)).why


def test_revoking_stops_at_once_in_every_process(world: World, edited: Callable[..., Any], unaudited: None) -> None:
    fill(world.cache, edited(BASE))
    changed = edited(HARMLESS["helper"][0])
    change = only(world.cache.accept(changed, sample=20))
    unknown = [number for number in range(30) if not holds(world.cache, changed, number)]
    with UnifiedCache(world.config.but(lease=31.0)) as other:  # another configuration has parts of its own
        assert served(other, changed, unknown[:2]) == unknown[:2]
        entries = world.cache.stats()["entries"]
        assert world.cache.revoke(change.id[:6])
        assert world.cache.stats()["entries"] == entries
        assert served(other, changed, unknown[:2]) == []
        assert served(world.cache, changed, unknown[2:4]) == []
    assert not world.cache.revoke(change.id)
    assert served(world.cache, edited(BASE), unknown) == unknown  # what earlier code made is still its own


def test_what_a_call_within_another_computes_rests_on_todays_code_only(
    cache: UnifiedCache, edited: Callable[..., Any], unaudited: None
) -> None:
    outer = BASE + "kept = None\ndef outer(x):\n    return kept(x)\n"
    fill(cache, edited(outer))
    changed = edited(outer.replace("y", "z"))
    module = sys.modules["work"]
    assert only(cache.accept(changed, sample=20)).state == "accepted"
    module.kept = cache.cached(changed)
    unknown = next(number for number in range(30) if not holds(cache, changed, number))
    assert served(cache, changed, [unknown]) == [unknown]
    assert cache.cached(module.outer)(unknown) == (unknown + 1) * 2
    assert module.calls[-1] == unknown  # computed: a result of `outer` would stay when the change is revoked
    assert holds(cache, changed, unknown)


def test_a_reference_that_meets_the_watch_is_compared_with_the_value(
    cache: UnifiedCache, edited: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(cache, edited(BASE))
    function = edited(*HARMLESS["renamed local"])
    assert cache.accept(function, sample=20)
    monkeypatch.setattr(Sampler, "chooses", lambda *_: True)
    assert [cache.cached(function).lazy(n).value for n in range(5)] == [(n + 1) * 2 for n in range(5)]
    assert [one.state for one in cache.accepted_changes()] == ["accepted"]


def test_acceptance_is_not_transitive(cache: UnifiedCache, edited: Callable[..., Any], unaudited: None) -> None:
    fill(cache, edited(BASE))
    second = edited(BASE.replace("y", "z"))
    assert only(cache.accept(second, sample=20)).state == "accepted"
    unknown = [number for number in range(30) if not holds(cache, second, number)]
    third_source = BASE.replace("y", "zz")
    third = edited(third_source)
    found = {one.equal: one for one in cache.accept(third, sample=20)}
    assert len(found) == 1  # both earlier codes, each by its own evidence
    assert len(cache.accepted_changes()) == 3
    for one in cache.accepted_changes():
        newest = cache.acceptances.of(cache.cached(third).key(0).fingerprint)
        if one.id in {known.id for known in newest} and one.changes:
            cache.revoke(one.id)
            break
    left = cache.acceptances.of(cache.cached(third).key(0).fingerprint)
    assert len(left) == 1
    fresh = [number for number in unknown if not holds(cache, third, number)]
    by_second = [number for number in fresh if holds(cache, edited(BASE.replace("y", "z")), number)]
    again = edited(third_source)
    came = served(cache, again, fresh)
    oldest = cache.cached(edited(BASE)).key(0).fingerprint
    assert came == (fresh if left[0].old == oldest else by_second)


def forged(one: Equivalence, **changes: Any) -> Equivalence:
    return replace(one, **changes)


def test_forged_foreign_and_expired_acceptances_are_not_obeyed(
    world: World, edited: Callable[..., Any], unaudited: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = world.cache
    fill(cache, edited(BASE))
    wrong = edited(OTHER)
    old = cache.cached(edited(BASE)).key(0).fingerprint
    new = cache.cached(wrong).key(0).fingerprint
    assert old is not None
    assert new is not None
    harmless = edited(BASE.replace("y", "z"))
    assert only(cache.accept(harmless, sample=20)).state == "accepted"
    (signed,) = cache.acceptances.every()
    metadata = cache._store.metadata
    monkeypatch.setattr(acceptances, "LOOK_EVERY", 0.0)
    foreign = UnifiedCache(world.config.but(namespace="another"))
    with foreign:
        fill(foreign, edited(BASE))
        elsewhere = foreign._store.metadata
        for one in (
            forged(signed, new=new),
            forged(signed, new=new, key_id="", mac=b""),
            forged(signed, new=new, until=1 << 62),
        ):
            assert metadata.set_equivalence(one)
            assert [cache.cached(edited(OTHER))(number) for number in (3, 29)] == [4, 56]
            cache.delete_matching(older_than=-60)
            fill(cache, edited(BASE))
        metadata.set_equivalence(forged(signed, store="another database"))
        assert elsewhere.set_equivalence(replace(signed, namespace="another"))
        again = edited(BASE.replace("y", "z"))
        assert served(cache, again, [29]) == []
        assert served(foreign, edited(BASE.replace("y", "z")), [29]) == []
    assert cache.accepted_changes() == []
    metadata.set_equivalence(signed)
    unknown = 28
    assert served(cache, edited(BASE.replace("y", "z")), [unknown]) == [unknown]
    monkeypatch.setattr(type(metadata), "now", lambda self: signed.until + 1)
    assert cache.acceptances.find(cache.cached(edited(BASE.replace("y", "z"))).key(27)) is None


def test_the_first_difference_ends_it_for_all(
    world: World, edited: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = world.cache
    fill(cache, edited(BASE))
    rare = BASE.replace("y * 2", "y * 2 + (x == 'never')")
    changed = edited(rare)
    monkeypatch.setattr(Sampler, "chooses", lambda *_: False)
    change = only(cache.accept(changed, sample=20))
    unknown = [number for number in range(30) if not holds(cache, changed, number)]
    monkeypatch.setattr(Sampler, "chooses", lambda *_: True)
    assert served(cache, changed, unknown[:1]) == []  # audited: computed, stored under today's key, and equal
    assert only(cache.accepted_changes()).state == "accepted"
    key = cache.cached(edited(BASE)).key(unknown[1])
    changed = edited(rare)
    cache.put(1, key, compute_seconds=0.1)  # what earlier code came to in another place
    with UnifiedCache(world.config.but(lease=31.0)) as other:
        monkeypatch.setattr(Sampler, "chooses", lambda *_: False)
        assert served(other, changed, unknown[2:3]) == unknown[2:3]
        monkeypatch.setattr(Sampler, "chooses", lambda *_: True)
        assert cache.cached(changed)(unknown[1]) == (unknown[1] + 1) * 2
        monkeypatch.setattr(Sampler, "chooses", lambda *_: False)
        assert served(other, changed, unknown[2:3]) == []
    ended = only(cache.accepted_changes())
    assert (ended.state, ended.id) == ("ended", change.id)
    assert f"the code of today makes {(unknown[1] + 1) * 2} where 1 is stored" in ended.why
    assert "no longer count for work:slow" in caplog.text
    assert cache.disputes() == []  # each result is right for its own code
    cache.invalidate(key)
    assert "revoke it" in only(cache.accept(changed, sample=5)).why
    assert cache.revoke(ended.id)
    assert only(cache.accept(changed, sample=5)).state == "accepted"


def by_hand(cache: UnifiedCache, old: Any, new: Any) -> Equivalence:
    """An accepted change that is none: what the two compute differs, so that one is known from the other."""
    evidence = {"function": "work:slow", "state": "accepted", "equal": 200, "by_place": ""}
    written = cache.acceptances.write(fingerprint(new).digest, fingerprint(old).digest, {}, evidence)
    assert written is not None
    return written


def on_a_thread(call: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    return found[0]


def on_a_pool(call: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def on_an_executor(call: Callable[[], Any]) -> Any:
    async def ask() -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, call)

    return asyncio.run(ask())


def in_a_task(call: Callable[[], Any]) -> Any:
    async def ask() -> Any:
        return await asyncio.create_task(asyncio.to_thread(call))

    return asyncio.run(ask())


OTHER_THREADS = [on_a_thread, on_a_pool, on_an_executor, in_a_task]


@pytest.mark.parametrize("elsewhere", OTHER_THREADS)
@pytest.mark.parametrize("how", ["global", "argument", "instance", "ignored", "key=", "two deep", "awaited"])
def test_what_a_body_computes_on_whatever_thread_rests_on_no_earlier_code(
    cache: UnifiedCache, edited: Callable[..., Any], unaudited: None, elsewhere: Any, how: str
) -> None:
    old = edited(BASE)
    fill(cache, old)
    new = edited(OTHER)
    one = by_hand(cache, old, new)
    inner = cache.cached(new)
    assert inner(5) == 12  # outside of any body

    class Holds:
        def __init__(self, call: Any) -> None:
            self.call = call

    def from_global(n: int) -> Any:
        return elsewhere(lambda: inner(n))

    def from_argument(call: Any, n: int) -> Any:
        return elsewhere(lambda: call(n))

    def from_instance(held: Any, n: int) -> Any:
        return elsewhere(lambda: held.call(n))

    async def awaited(n: int) -> Any:
        return on_a_pool(lambda: elsewhere(lambda: inner(n)))

    middle = cache.cached(from_global)
    outers: dict[str, Callable[[], Any]] = {
        "global": lambda: middle(6),
        "argument": lambda: cache.cached(from_argument)(inner, 6),
        "instance": lambda: cache.cached(from_instance)(Holds(inner), 6),
        "ignored": lambda: cache.cached(ignore=("call",))(from_argument)(inner, 6),
        "key=": lambda: cache.cached(key=lambda call, n: n)(from_argument)(inner, 6),
        "two deep": lambda: cache.cached(lambda n: on_a_thread(lambda: middle(n)))(6),
        "awaited": lambda: asyncio.run(cache.cached(awaited)(6)),
    }
    outer = outers[how]
    assert outer() == 10
    assert inner(7) == 16
    assert cache.revoke(one.id)
    assert outer() == 10


def test_a_function_that_calls_itself_on_a_thread_gets_no_result_of_its_earlier_code(
    cache: UnifiedCache, edited: Callable[..., Any], unaudited: None
) -> None:
    source = """
        import threading
        calls = []
        def slow(x):
            found = []
            if x > 0:
                thread = threading.Thread(target=lambda: found.append(again(x - 1)))
                thread.start(); thread.join()
            return sum(found) + STEP
    """

    def loaded(step: str) -> Any:
        function = edited(textwrap.dedent(source).replace("STEP", step))
        sys.modules["work"].again = cached = cache.cached(function)
        return cached

    first = loaded("1")
    assert first(3) == 4
    second = loaded("10")
    one = by_hand(cache, first.__wrapped__, second.__wrapped__)
    assert second(2) == 3
    assert second(5) == 60  # its body runs, so that nothing within is of earlier code
    cache.revoke(one.id)
    assert [second(5), second(2)] == [60, 30]


def test_what_runs_on_other_threads_and_cannot_call_it_costs_no_result_of_earlier_code(
    cache: UnifiedCache, edited: Callable[..., Any], unaudited: None
) -> None:
    old = edited(BASE)
    fill(cache, old)
    new = edited(OTHER)
    by_hand(cache, old, new)
    inner = cache.cached(new)
    unrelated, related = cache.cached(lambda n: n), cache.cached(lambda n: on_a_thread(lambda: inner(n)))
    for token in (bodies.Token(), bodies.Token()):
        bodies.begin(token, inner.__wrapped__, inner.key(1))
        bodies.begin(token, unrelated.__wrapped__, unrelated.key([1, "a", np.arange(3.0)]))
    assert inner(5) == 12
    token = bodies.Token()
    bodies.begin(token, related.__wrapped__, related.key(1))
    assert inner(6) == 10
    del token  # a run that nobody holds any more has ended
    assert inner(7) == 16
    assert not bodies.is_child_process()


@pytest.mark.slow
def test_a_child_process_gets_no_result_of_earlier_code(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(CHILDREN))
    done = subprocess.run([sys.executable, program, tmp_path / "cache"], check=False, capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (["12", "10", "10", "10"], "")


CHILDREN = """
    import multiprocessing, sys
    from concurrent.futures import ProcessPoolExecutor
    from cacheness import UnifiedCache
    from cacheness.audit import Sampler
    from cacheness.keys import fingerprint

    Sampler.chooses = lambda *_: False

    def old(x):
        return (x + 1) * 2

    def new(x):
        return (x - 1) * 2

    cache = UnifiedCache(sys.argv[-1])
    inner = cache.cached(new)

    def call(x):
        return inner(x)

    def outer(x, how):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(how)) as pool:
            return pool.submit(call, x).result()

    if __name__ == "__main__":
        for number in range(10):
            cache.cached(old)(number)
        evidence = {"function": "program:new", "state": "accepted", "equal": 200, "by_place": ""}
        cache.acceptances.write(fingerprint(new).digest, fingerprint(old).digest, {}, evidence)
        print(inner(5), *(cache.cached(outer)(6, how) for how in ("fork", "spawn", "forkserver")))
        cache.close()
"""


@pytest.mark.parametrize("digest", [True, False])
@pytest.mark.parametrize("how", ["value", "argument", "nested", "pickled"])
def test_a_reference_to_a_result_of_earlier_code_ends_with_the_change(
    cache: UnifiedCache, edited: Callable[..., Any], unaudited: None, how: str, digest: bool
) -> None:
    old = edited(BASE)
    fill(cache, old, by_value=digest)
    new = edited(OTHER)
    one = by_hand(cache, old, new)
    inner = cache.cached(by_value=digest)(new)
    ref, other, pickled = inner.lazy(6), inner.lazy(7), pickle.dumps(inner.lazy(8))
    use = cache.cached(lambda value: [value, 1])
    assert (other.value, pickle.loads(pickled).value) == (16, 18)
    assert use(inner.lazy(9).arg) == [20, 1]
    assert cache.revoke(one.id)
    if how == "value":
        assert ref.value == 10
    elif how == "argument":
        assert use(ref.arg) == [10, 1]
        assert use.lazy(inner.lazy(6).arg).value == [10, 1]
    elif how == "nested":
        assert use([ref.arg]) == [[10], 1]
    else:
        with pytest.raises(NotCached, match="not in the cache any more"):
            pickle.loads(pickled).value  # noqa: B018
    assert cache.get(inner.key(6)) in (None, 10)
    assert use.key(ref.arg if how != "pickled" else 10) == use.key(10)
    assert (inner(9), use(inner.lazy(9).arg)) == (16, [16, 1])


def test_what_a_person_revoked_is_tried_again_by_nobody_else(
    world: World, edited: Callable[..., Any], unaudited: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cacheness")
    fill(world.cache, edited(BASE))
    changed = edited(HARMLESS["renamed local"][0])
    assert served(world.cache, changed, list(range(10)), accept=10) == []
    change = only(world.cache.accepted_changes())
    assert served(world.cache, changed, [10, 11], accept=10) == [10, 11]
    assert world.cache.revoke(change.id)
    assert "results of earlier code no longer count for work:slow: revoked by " in caplog.text
    with UnifiedCache(world.config.but(lease=31.0)) as other:
        for cache, first in ((other, 12), (world.cache, 18)):
            assert served(cache, changed, list(range(first, first + 6)), accept=3) == []
            revoked = only(cache.accepted_changes())
            assert (revoked.state, revoked.id) == ("revoked", change.id)
            assert revoked.why.startswith("by ")
        assert f"the change {change.id} was revoked by " in caplog.text
        assert served(other, changed, list(range(24, 27)), accept=3) == []
        assert not world.cache.revoke(change.id)
        world.cache.evict()
        world.cache._store.metadata.delete_old_equivalences(world.cache.config.namespace, 1 << 62)
        assert served(other, changed, [27], accept=1) == []
        assert only(world.cache.accept(changed, sample=5)).state == "accepted"
        assert served(world.cache, changed, [28, 29]) == [28, 29]


@pytest.mark.parametrize("state", ["trying", "ended"])
def test_what_is_being_tried_or_has_ended_can_be_revoked_for_good(
    cache: UnifiedCache, edited: Callable[..., Any], unaudited: None, state: str
) -> None:
    fill(cache, edited(BASE))
    changed = edited(HARMLESS["helper"][0])
    assert served(cache, changed, [0, 1], accept=10) == []
    if state == "ended":
        cache.acceptances.end(only(cache.acceptances.every()), "as a test says")
    change = only(cache.accepted_changes())
    assert change.state == state
    assert cache.revoke(change.id)
    with UnifiedCache(cache.config.but(lease=31.0)) as other:
        assert served(other, changed, list(range(2, 20)), accept=10) == []
    assert only(cache.accepted_changes()).state == "revoked"


def test_revoked_changes_make_room_for_new_ones(
    cache: UnifiedCache, edited: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptances, "MOST", 2)
    write, parameters = cache.acceptances.write, dict[str, Any]()
    for number in range(2):
        written = write(bytes(32), bytes([number]) * 32, parameters, {"state": "accepted"})
        assert written is not None
    with pytest.raises(NotAccepted, match="which is the limit"):
        write(bytes(32), b"2" * 32, parameters, {"state": "accepted"})
    assert cache.acceptances.revoke(written)
    assert write(bytes(32), b"2" * 32, parameters, {"state": "accepted"}) is not None
    assert {one.state for one in cache.accepted_changes()} == {"accepted"}


def test_what_slips_through_is_ended_within_1500_hits_in_the_median() -> None:
    def hits(different: float) -> int:
        audited, differs = Sampler(AUDITED), Sampler(different)
        return next(n for n in range(100_000) if differs.chooses(bytes(8)) and audited.chooses(n.to_bytes(32)))

    assert statistics.median(hits(0.015) for _ in range(201)) < 1500


def test_calls_are_compared_as_they_miss_by_several_processes_together(
    world: World, edited: Callable[..., Any], unaudited: None
) -> None:
    fill(world.cache, edited(BASE))
    changed = edited(BRANCH.replace("'never'", "28"))
    changed_again = edited(BRANCH.replace("'never'", "28").replace("calls = []", "# moved\n\n\ncalls = []"))
    del changed
    with UnifiedCache(world.config.but(lease=31.0)) as other:
        assert served(world.cache, changed_again, list(range(6)), accept=10) == []
        assert only(world.cache.accepted_changes()).state == "trying"
        assert served(other, changed_again, list(range(6, 12)), accept=10) == []
        found = only(other.accepted_changes())
        assert (found.state, found.equal) == ("trying", 12)  # a line never ran
        cached = other.cached(accept=10)(changed_again)
        assert cached(28) == 0
    ended = only(world.cache.accepted_changes())
    assert (ended.state, ended.equal) == ("ended", 12)
    assert served(world.cache, changed_again, [20], accept=10) == []


def test_calls_that_came_out_equal_as_they_missed_let_the_rest_count(
    cache: UnifiedCache, edited: Callable[..., Any], unaudited: None
) -> None:
    fill(cache, edited(BASE))
    changed = edited(HARMLESS["renamed parameter"][0])
    assert served(cache, changed, list(range(10)), accept=10) == []
    assert only(cache.accepted_changes()).state == "accepted"
    assert served(cache, changed, list(range(10, 30))) == list(range(10, 30))


def test_what_is_never_accepted_is_said_in_words(cache: UnifiedCache, edited: Callable[..., Any]) -> None:
    source = (
        BASE
        + """
import random
from pathlib import Path
class Of:
    def method(self, x):
        return x
def writes(x):
    Path("out.txt").write_text(str(x))
    return x
def by_chance(x):
    return random.random()
def unchanged(x):
    return x
"""
    )
    module = sys.modules[edited(source).__module__]
    before = cache.stats()["entries"]
    for function, options, words in (
        (module.Of.method, {}, "it is a method"),
        (module.Of().method, {}, "it is a method"),
        (module.writes, {}, "it writes files"),
        (module.slow, {"check": 0}, "it has check=0"),
        (module.slow, {"key": lambda x: x}, "its key= replaces its arguments"),
        (
            module.unchanged,
            {},
            "no result of work.unchanged, or of the same code under another name, was made by earlier",
        ),
    ):
        with pytest.raises(NotAccepted, match=words):
            cache.accept(cache.cached(**options)(function))
    for sample in (0, -1, True, 2.5):
        with pytest.raises(ValueError, match=r"sample=.* is not a number of calls"):
            cache.accept(module.slow, sample=sample)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="accept cannot be used"):
            cache.cached(accept=sample)(module.slow)  # type: ignore[arg-type]
    assert (cache.stats()["entries"], cache.accepted_changes()) == (before, [])


OBJECTS = """\
calls = []
class Scale:
    def __init__(self, by):
        self.by = by
def slow(x, scale, frame=None):
    return x * scale.by
def total(array, x=0):
    return float(array.sum()) + x
def load(n):
    import numpy
    return numpy.arange(n * 1000.0)
def read(path):
    return path.read_text() + "!"
def draws(x):
    import random
    return random.random()
def bad(x):
    return object()
"""


def test_arguments_are_loaded_where_they_are_results_and_named_where_they_cannot_be(
    cache: UnifiedCache, edited: Callable[..., Any], tmp_path: Path
) -> None:
    module = sys.modules[edited(OBJECTS).__module__]
    load = cache.cached(module.load)
    for number in range(1, 30):
        (tmp_path / f"{number}.txt").write_text(str(number))
        cache.cached(module.slow)(number, module.Scale(2))
        cache.cached(module.total)(load(number))
        cache.cached(module.read)(tmp_path / f"{number}.txt")
    edited(OBJECTS.replace("x * scale", "(x) * 1 * scale").replace(".sum())", ".sum() + 0)").replace('"!"', '"" + "!"'))
    module = sys.modules["work"]
    found = only(cache.accept(module.slow, sample=20))
    assert found.state == "refused"
    assert "0 of its 29 results could be compared" in found.why
    assert "29 were given what was not kept whole (scale: " in found.why
    assert only(cache.accept(module.total, sample=20)).state == "accepted"
    (tmp_path / "3.txt").write_text("changed")
    found = only(cache.accept(module.read, sample=29))
    assert (found.state, found.equal) == ("accepted", 28)
    assert sum((found.skipped or {}).values()) == 1


def test_results_that_cannot_be_compared_or_decoded_are_told(
    cache: UnifiedCache, edited: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def never(one: object, other: object) -> bool:
        raise ZeroDivisionError("in same=")

    fill(cache, edited(BASE))
    changed = edited(BASE.replace("y", "z"))
    assert "ZeroDivisionError" in only(cache.accept(cache.cached(same=never)(changed))).why
    failing = edited(BASE.replace("    return", "    x.missing\n    return"))
    assert "the code of today fails (AttributeError" in only(cache.accept(failing)[:1]).why
    cache.clear()
    kept = BASE.replace("return y * 2", "return Kept(y * 2)") + (
        "class Kept:\n    def __init__(self, n):\n        self.n = n\n    def __add__(self, n):\n        return n\n"
    )
    for number in range(30):
        cache.cached(edited(kept))(number) if not number else cache.cached(sys.modules["work"].slow)(number)
    found = only(cache.accept(edited(kept.replace("Kept", "Other")), sample=20))
    assert "0 of its 30 results could be compared" in found.why
    assert "30 no longer decode" in found.why


def test_a_function_with_a_dispute_is_not_accepted(cache: UnifiedCache, edited: Callable[..., Any]) -> None:
    fill(cache, edited(BASE))
    entry = next(cache.iter_entries())
    assert cache.dispute(entry, None, None, "it differs")
    with pytest.raises(NotAccepted, match="it has results that came out differently"):
        cache.accept(edited(BASE.replace("y", "z")))
    assert cache.cached(accept=1)(edited(BASE.replace("y", "z")))(1) == 4
    assert cache.accepted_changes() == []


def test_parameters_are_matched_or_asked_for(cache: UnifiedCache, edited: Callable[..., Any], unaudited: None) -> None:
    two = "calls = []\ndef slow(a, b=1, *rest, c=2, **more):\n    calls.append(a)\n    return (a + b) * c + len(rest)\n"
    module = sys.modules[edited(two).__module__]
    for number in range(30):
        cache.cached(module.slow)(number, number, 7, more=1)
    other = two.replace("a", "first").replace("cfirstlls", "calls").replace("b", "second").replace("def ", "def ")
    changed = edited(other.replace("firstppend", "append"))
    assert 'renamed={"new": "old"}' in only(cache.accept(changed, sample=20)).why
    assert "there is no parameter nobody" in only(cache.accept(changed, renamed={"nobody": "a"})).why
    found = only(cache.accept(changed, sample=20, renamed={"first": "a", "second": "b"}))
    assert found.parameters == {"first": "was `a`", "second": "was `b`"}
    calls = sys.modules["work"].calls
    calls.clear()
    assert [cache.cached(changed)(number, number, 7, more=1) for number in range(30)] == [4 * n + 1 for n in range(30)]
    assert calls == []
    gone = edited(two.replace("b=1, ", "").replace("a + b", "a + 1"))
    assert "One that is gone cannot be left out" in cache.accept(gone, sample=5)[0].why


def test_what_is_invalidated_is_not_served_from_earlier_code(
    cache: UnifiedCache, edited: Callable[..., Any], unaudited: None
) -> None:
    fill(cache, edited(BASE))
    changed = edited(BASE.replace("y", "z"))
    assert only(cache.accept(changed, sample=20)).state == "accepted"
    unknown = next(number for number in range(30) if not holds(cache, changed, number))
    assert cache.cached(changed).invalidate(unknown)
    assert served(cache, changed, [unknown]) == []
    assert served(cache, changed, [unknown]) == [unknown]


def test_a_new_parameter_counts_when_it_is_given(
    cache: UnifiedCache, edited: Callable[..., Any], unaudited: None
) -> None:
    fill(cache, edited(BASE))
    changed = edited(HARMLESS["new parameter"][0])
    assert only(cache.accept(changed, sample=20)).parameters == {"log": "is new"}
    unknown = next(number for number in range(30) if not holds(cache, changed, number))
    calls = sys.modules["work"].calls
    calls.clear()
    cached = cache.cached(changed)
    assert cached(unknown, log=True) == cached(unknown) == cached(unknown, False) == (unknown + 1) * 2
    assert calls == [unknown]


def test_coroutines_references_and_modes_follow_the_same_rules(
    tmp_path: Path, edited: Callable[..., Any], unaudited: None
) -> None:
    source = BASE.replace("def slow", "async def slow")
    config = UnifiedCache(tmp_path / "cache").config
    with UnifiedCache(config) as cache:
        cached = cache.cached(edited(source))
        for number in range(60):
            asyncio.run(cached(number))
        changed = edited(source.replace(" y", " z"))

        async def accept() -> list[AcceptedChange]:
            return cache.accept(changed, sample=20)

        assert only(asyncio.run(accept())).state == "accepted"
        assert only(cache.accept(changed, sample=20)).state == "accepted"
        calls = sys.modules["work"].calls
        calls.clear()
        unknown = [number for number in range(60) if not holds(cache, changed, number)]
        assert asyncio.run(cache.cached(changed)(unknown[0])) == (unknown[0] + 1) * 2
        assert asyncio.run(cache.cached(changed).lazy(unknown[0])).value == (unknown[0] + 1) * 2
        for mode in ("read", "offline"):
            with UnifiedCache(config.but(mode=mode)) as reader:
                assert asyncio.run(reader.cached(changed)(unknown[0])) == (unknown[0] + 1) * 2
                with pytest.raises(ConfigError):
                    reader.accept(changed)
        assert calls == []


def test_a_plan_counts_accepted_results_as_served(cache: UnifiedCache, edited: Callable[..., Any]) -> None:
    fill(cache, edited(BASE))
    changed = edited(BASE.replace("y", "z"))
    assert [(one.state, one.stale) for one in cache.plan(changed)] == [("changed", 30)]
    assert only(cache.accept(changed, sample=20)).state == "accepted"
    (plan,) = cache.plan(changed)
    assert (plan.state, plan.stale, plan.results) == ("unchanged", 0, 50)


def test_a_miss_without_acceptances_asks_for_them_once_a_minute(
    world: World, edited: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = type(world.cache._store.metadata)
    asked: list[str] = []
    for name in ("equivalences", "find_equivalent"):
        real = getattr(store, name)
        monkeypatch.setattr(store, name, lambda *args, name=name, real=real: (asked.append(name), real(*args))[1])
    fill(world.cache, edited(BASE))
    fill(world.cache, edited(BASE))
    assert asked == ["equivalences"]
    monkeypatch.setattr(acceptances, "LOOK_EVERY", 0.0)
    world.cache.acceptances.forget()
    fill(world.cache, edited(OTHER), calls=2)
    assert asked == ["equivalences"] * 3


def test_an_acceptance_that_was_written_elsewhere_is_seen_when_it_is_asked_for_again(
    world: World, edited: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, unaudited: None
) -> None:
    fill(world.cache, edited(BASE))
    changed = edited(BASE.replace("y", "z"))
    with UnifiedCache(world.config.but(lease=31.0)) as other:
        assert served(other, changed, [29]) == []
        assert only(world.cache.accept(changed, sample=20)).state == "accepted"
        unknown = [number for number in range(30) if not holds(world.cache, changed, number)]
        assert served(other, changed, unknown[:1]) == []
        other.acceptances.forget()
        assert served(other, changed, unknown[1:2]) == unknown[1:2]


def test_the_calls_that_are_made_again_compute_cached_functions_within_them_too(
    cache: UnifiedCache, edited: Callable[..., Any]
) -> None:
    source = "calls = []\ndef inner(x):\n    y = x\n    return y\ncached = None\ndef slow(x):\n    return cached(x)\n"
    for text in (source, source.replace("y", "z")):
        function = edited(text)
        module = sys.modules["work"]
        module.cached = cache.cached(module.inner)
        if text == source:
            fill(cache, function)
    for number in range(30):
        module.cached(number)
    found = only(cache.accept(module.slow, sample=20))
    assert (found.state, found.unrun) == ("accepted", {})  # else no line of `inner` would have run


def test_the_example_accepts_one_change_and_refuses_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    importlib.import_module("examples.accept").main(str(tmp_path))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tidied: accepted, 200 calls came out equal"
    assert lines[1].startswith("wrong: refused")
    assert lines[2:] == ["at least 250 of 300 are served: True", "bound: 1.5 %", "after it was revoked: revoked"]


def test_the_page_prints_what_it_says(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/accept.md").read_text()
    program, told = (
        "".join(re.findall(rf"^```{kind}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)) for kind in ("python", "text")
    )
    (tmp_path / "page.py").write_text(program)
    ran = subprocess.run([sys.executable, "page.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.returncode) == (told, 0), ran.stderr


def test_mutants_get_past_200_calls_only_where_they_hardly_differ(tmp_path: Path) -> None:
    found = list(accept_mutants.outcomes(list(accept_mutants.SHARE), tmp_path, seed=7))
    assert len(found) == len(accept_mutants.SHARE)
    assert [one for one in found if one.is_accepted and one.different > accept_mutants.WORST] == []
    assert any(one.is_accepted for one in found)
    assert any(not one.is_accepted for one in found)
