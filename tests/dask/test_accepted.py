"""Results of earlier code count for tasks of graphs where the change was accepted, and leave nothing behind."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.bag
import dask.dataframe as dd
import pandas as pd
import pytest
import workloads
from edits import edited, ran

import cacheness_dask as cd
from cacheness import AcceptedChange, ModeRefused, NotAccepted, NotCached, UnifiedCache
from cacheness.audit import Sampler
from cacheness.keys import fingerprint
from cacheness.memoize import acceptances
from cacheness.records import Equivalence
from tests.conftest import World

pytestmark = pytest.mark.timeout(120)

BEFORE, AFTER = "y = x + 1; return y", "return x + 1"
feat = edited("return x * 10", "feat")
total = edited("return sum(x)", "total")


def graph(clean: Any, parts: int = 4, *, also: Any = feat, first: int = 0) -> Any:
    cleaned = [dask.delayed(clean)(number) for number in range(first, first + parts)]
    return dask.delayed(total)([dask.delayed(also)(one) for one in cleaned])


def value_of(parts: int) -> int:
    return sum((number + 1) * 10 for number in range(parts))


def run(cache: UnifiedCache, collection: Any, **options: Any) -> tuple[Any, dict[str, int], cd.Run]:
    ran.clear()
    with cd.caching(cache, **{"which": "all", "scheduler": "sync", **options}) as run:
        (value,) = dask.compute(collection)
        run.flush()
    return value, dict(Counter(ran)), run


def accepted(cache: UnifiedCache, old: Any, new: Any, **options: Any) -> AcceptedChange:
    """Accept a change by calls of the function outside of any graph."""
    for number in range(1000, 1030):
        cache.cached(old)(number)
    (change,) = cache.accept(new, sample=20, **options)
    return change


def by_hand(cache: UnifiedCache, old: Any, new: Any, **evidence: Any) -> Equivalence:
    """An accepted change that is none: what the two compute differs, so that one is known from the other."""
    found = {"function": f"pipeline:{new.__name__}", "state": "accepted", "equal": 200, "by_place": "", **evidence}
    written = cache.acceptances.write(fingerprint(new).digest, fingerprint(old).digest, {}, found, renews=True)
    assert written is not None
    return written


@pytest.fixture(autouse=True)
def audited(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Whether hits by earlier code are computed: none are, unless a test says so."""
    chosen = [False]
    monkeypatch.setattr(Sampler, "chooses", lambda *_: chosen[0])
    return lambda is_audited: chosen.__setitem__(0, is_audited)


def test_an_accepted_change_loses_no_result_of_a_graph(world: World) -> None:
    cache, old, new = world.cache, edited(BEFORE), edited(AFTER)
    assert run(cache, graph(old))[:2] == (value_of(4), {"clean": 4, "feat": 4, "total": 1})
    change = accepted(cache, old, new)
    assert (change.state, change.not_in_graphs) == ("accepted", "")
    entries = cache.stats()["entries"]
    row = next(row for row in cd.explain(graph(new), cache) if row.status == "hit")
    assert "which earlier code made, accepted: 20 equal calls: at most 13.9 % of such calls differ" in row.why
    assert run(cache, graph(new))[:2] == (value_of(4), {})
    assert cache.stats()["entries"] == entries
    # Two new parts: what they need is computed, the rest is loaded, and the next run finds it whole.
    assert run(cache, graph(new, 6))[:2] == (value_of(6), {"clean": 2, "feat": 2, "total": 1})
    again = run(cache, graph(new, 6))
    assert again[:2] == (value_of(6), {})
    assert again[2].history[-1].hits == 1
    assert "made of results of earlier code" in str(cd.explain(graph(new, 6), cache))
    assert cache.revoke(change.id)
    # What the code of today made of one of the new parts is its own, and so is what the old code made.
    assert run(cache, graph(new, 5))[:2] == (value_of(5), {"clean": 4, "total": 1})
    assert run(cache, graph(old))[:2] == (value_of(4), {})


def test_nothing_of_earlier_code_is_left_when_a_change_is_revoked(world: World) -> None:
    cache, old, new = world.cache, edited("return x + 1"), edited("return x - 1")
    expected = {f: {n: graph(f, n).compute(scheduler="sync") for n in (4, 6)} for f in (old, new)}
    run(cache, graph(old))
    row = by_hand(cache, old, new)
    assert run(cache, graph(new))[0] == expected[old][4]
    mixed = run(cache, graph(new, 6))[0]
    assert mixed not in (expected[old][6], expected[new][6])
    assert run(cache, graph(new, 6))[:2] == (mixed, {})
    assert cache.revoke(row.id)
    for function in (new, old):
        for parts in (4, 6):
            assert run(cache, graph(function, parts))[0] == expected[function][parts]


def computed(cache: UnifiedCache, clean: Any) -> Any:
    return run(cache, graph(clean))[0]


@pytest.mark.parametrize("how", ["in place", "on a thread"])
def test_a_graph_that_a_cached_function_computes_rests_on_no_earlier_code(cache: UnifiedCache, how: str) -> None:
    old, new = edited("return x + 1"), edited("return x - 1")
    run(cache, graph(old))
    row = by_hand(cache, old, new)
    assert run(cache, graph(new))[0] == value_of(4)

    @cache.cached(ignore=("cache",))
    def report(cache: UnifiedCache) -> Any:
        if how == "in place":
            return computed(cache, new)
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(computed, cache, new).result()

    right = graph(new).compute(scheduler="sync")
    assert right != value_of(4)
    assert report(cache) == right
    assert cache.revoke(row.id)
    assert report(cache) == right


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_no_key_ever_names_what_other_code_made(
    cache: UnifiedCache, seed: int, audited: Callable[[bool], None]
) -> None:
    """Runs, edits, acceptances and evictions in any order: without acceptances, each version has its own results."""
    draw = random.Random(seed)
    cleans = [edited(f"return x * 7 + {version}") for version in range(3)]
    feats = [edited(f"return x * 13 + 1000 * {version}", "feat") for version in range(3)]

    def compute() -> None:
        audited(draw.random() < 0.3)
        some = graph(draw.choice(cleans), draw.randrange(1, 5), also=draw.choice(feats))
        run(cache, some, which=draw.choice(["all", "outputs"]))
        audited(False)

    def accept() -> None:
        old, new = draw.sample(draw.choice([cleans, feats]), 2)
        cache.acceptances.revoke(by_hand_or_ended(cache, old, new))
        by_hand(cache, old, new)

    def evict() -> None:
        known = list(cache.iter_entries())
        for entry in draw.sample(known, len(known) // 3):
            cache.invalidate(entry.cache_key)

    def revoke(most: int = 1) -> None:
        for change in [one for one in cache.accepted_changes() if one.state != "revoked"][:most]:
            cache.revoke(change.id)

    for _ in range(60):
        draw.choices([compute, accept, evict, revoke], [5, 2, 2, 1])[0]()
    revoke(100)
    for clean, also, parts in itertools.product(cleans, feats, (2, 4)):
        expected = graph(clean, parts, also=also).compute(scheduler="sync")
        assert run(cache, graph(clean, parts, also=also))[0] == expected


def by_hand_or_ended(cache: UnifiedCache, old: Any, new: Any) -> Equivalence:
    """A row for two functions, whether it is there or not, and whether a difference has ended it or not."""
    pair = fingerprint(new).digest, fingerprint(old).digest
    found = [one for one in cache.acceptances.every() if (one.new, one.old) == pair]
    return found[0] if found else by_hand(cache, old, new)


@pytest.mark.parametrize("scheduler", ["sync", "threads", pytest.param("distributed", marks=pytest.mark.slow)])
def test_a_difference_ends_a_change_and_the_code_of_today_counts(
    cache: UnifiedCache, scheduler: str, audited: Callable[[bool], None], request: pytest.FixtureRequest
) -> None:
    if scheduler == "distributed":
        request.getfixturevalue("client")
    old, new = edited("return x + 1"), edited("return x + 2")
    run(cache, graph(old), scheduler=scheduler)
    by_hand(cache, old, new)
    audited(True)
    expected = graph(new).compute(scheduler="sync")
    assert run(cache, graph(new), scheduler=scheduler)[0] == expected
    (change,) = cache.accepted_changes()
    assert (change.state, "where 100 is stored" in change.why) == ("ended", True)
    audited(False)
    assert run(cache, graph(new), scheduler=scheduler)[0] == expected
    assert cache.disputes() == []


def test_an_audited_result_is_stored_under_the_code_of_today_and_ends_nothing_when_it_is_equal(
    cache: UnifiedCache, audited: Callable[[bool], None]
) -> None:
    old, new = edited(BEFORE), edited(AFTER)
    run(cache, graph(old))
    change = accepted(cache, old, new)
    audited(True)
    value, counted, done = run(cache, graph(new))
    assert (value, counted["clean"], done.history[-1].hits) == (value_of(4), 4, 0)
    assert [one.state for one in cache.accepted_changes()] == ["accepted"]
    assert cache.revoke(change.id)
    assert run(cache, graph(new))[:2] == (value_of(4), {})
    # Only those that would be loaded are computed: none of a graph whose result is there.
    by_hand(cache, old, new)
    assert run(cache, graph(new))[:2] == (value_of(4), {})


def test_only_the_changes_that_may_be_to_blame_are_ended(cache: UnifiedCache, audited: Callable[[bool], None]) -> None:
    cleans = edited("return x + 1"), edited("return x + 2")
    feats = edited("y = x * 10; return y", "feat"), edited("return x * 10", "feat")
    other = dask.delayed(feats[0])(5), dask.delayed(feats[1])(5)
    run(cache, [graph(cleans[0], also=feats[0]), other[0]])
    by_hand(cache, *cleans), by_hand(cache, *feats)
    audited(True)
    assert run(cache, other[1])[0] == 50
    assert {one.state for one in cache.accepted_changes()} == {"accepted"}
    run(cache, graph(cleans[1], also=feats[0]))
    assert {one.function: one.state for one in cache.accepted_changes()} == {
        "pipeline:clean": "ended",
        "pipeline:feat": "accepted",
    }


def test_forged_foreign_expired_tried_and_ended_changes_are_not_obeyed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, old, new = world.cache, edited("return x + 1"), edited("return x + 2")
    metadata, expected = cache._store.metadata, graph(new).compute(scheduler="sync")
    run(cache, graph(old))
    monkeypatch.setattr(acceptances, "LOOK_EVERY", 0.0)
    third = edited("return x + 3")
    signed = by_hand(cache, old, third)
    pair = {"new": fingerprint(new).digest}
    for one in (
        replace(signed, **pair),
        replace(signed, **pair, key_id="", mac=b""),
        replace(signed, **pair, until=1 << 62),
        replace(signed, **pair, store="another database"),
    ):
        assert metadata.set_equivalence(one)
        assert run(cache, graph(new))[0] == expected
        for entry in list(cache.iter_entries()):
            if entry.function != "clean" or cache.get(entry.cache_key) is None:
                cache.invalidate(entry.cache_key)
        run(cache, graph(old))
        metadata.delete_equivalence(one.namespace, one.new, one.old)
    for state, more in (("trying", {}), ("ended", {}), ("accepted", {"by_place": "its parameters changed"})):
        row = by_hand(cache, old, new, state=state, **more)
        assert run(cache, graph(new, first=9))[0] == graph(new, first=9).compute(scheduler="sync")
        cache.acceptances.revoke(row)
    row = by_hand(cache, old, new)
    monkeypatch.setattr(type(metadata), "now", lambda self: row.until + 1)
    assert cache.acceptances.of_graphs() == []


@pytest.mark.parametrize("takes", ["x, log=False", "x"])
def test_a_new_parameter_with_a_default_may_follow(cache: UnifiedCache, takes: str) -> None:
    old, new = edited(BEFORE), edited(AFTER, takes=takes)
    run(cache, graph(old))
    assert accepted(cache, old, new).not_in_graphs == ""
    assert run(cache, graph(new))[:2] == (value_of(4), {})


@pytest.mark.parametrize(
    ("then", "now", "before", "after"),
    [
        # Each stored call says which it had. A task that gives none has the other one now.
        ("x, by=1", "x, by=2", "return x + by", "y = x + by; return y"),
        ("x=0, by=1", "by=1, x=0", "return x + by", "y = x + by; return y"),
        ("x", "n", "return x + 1", "y = n + 1; return y"),
        ("x", "x, **more", "return x + 1", "y = x + 1; return y"),
    ],
)
def test_other_parameters_count_by_name_and_not_in_graphs(
    cache: UnifiedCache, then: str, now: str, before: str, after: str
) -> None:
    old, new = edited(before, takes=then), edited(after, takes=now)
    run(cache, graph(old))
    if "more" in now:
        assert "map the names" in accepted(cache, old, new).why
    else:
        change = accepted(cache, old, new)
        assert change.state == "accepted", change.why
        assert change.not_in_graphs.startswith("its parameters are no longer the same, in the same order and with")
    assert run(cache, graph(new))[1]["clean"] == 4


def test_it_works_through_partials_bags_and_cached_functions(cache: UnifiedCache) -> None:
    old, new = edited("y = x + by; return y", takes="x, by"), edited("return x + by", takes="x, by")

    def graphs(function: Any) -> list[Any]:
        bag = dask.bag.from_sequence(range(8), npartitions=2).map(function, by=1)
        return [bag, dask.delayed(partial(function, by=2))(3), dask.delayed(map_all)(function, [1, 2])]

    first = [run(cache, one)[0] for one in graphs(old)]
    by_hand(cache, old, new)
    for one, expected in zip(graphs(new), first, strict=True):
        assert run(cache, one)[:2] == (expected, {})
    plain = edited(BEFORE), edited(AFTER)
    decorated = [cache.cached(one) for one in plain]
    assert run(cache, dask.delayed(decorated[0])(77))[1] == {"clean": 1}
    by_hand(cache, *plain)
    assert run(cache, dask.delayed(decorated[1])(77))[:2] == (78, {})


def map_all(function: Any, values: list[int]) -> list[int]:
    return [function(one, 5) for one in values]


def test_changes_count_together_and_as_they_were_made(cache: UnifiedCache) -> None:
    cleans = [edited("return x + 1"), edited("z = x + 1; return z")]
    feats = [edited("return x * 10", "feat"), edited("z = x * 10; return z", "feat")]
    run(cache, graph(cleans[0], also=feats[0]))
    run(cache, graph(cleans[1], first=20, also=feats[0]))  # when only the one was edited
    by_hand(cache, *cleans)
    by_hand(cache, *feats)
    for first in (0, 20):
        assert run(cache, graph(cleans[1], first=first, also=feats[1]))[1] == {}


def test_a_graph_costs_no_statement_more_where_nothing_is_accepted_or_misses(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, old = world.cache, edited(BEFORE)
    asked: list[str] = []
    store = type(cache._store.metadata)
    for name in ("equivalences", "present"):
        real = getattr(store, name)
        monkeypatch.setattr(store, name, lambda *args, name=name, real=real: (asked.append(name), real(*args))[1])
    run(cache, graph(old))
    first = Counter(asked)
    assert first["equivalences"] == 1  # once a minute, at a miss
    asked.clear()
    run(cache, graph(edited("return x + 5")))
    assert (asked.count("equivalences"), asked.count("present")) == (0, first["present"])
    by_hand(cache, old, edited(AFTER))
    asked.clear()
    run(cache, graph(old))  # a hit
    assert "equivalences" not in asked


@pytest.mark.parametrize("scheduler", ["sync", pytest.param("processes", marks=pytest.mark.slow)])
def test_what_cannot_be_read_is_computed_and_nothing_made_of_it_is_kept(world: World, scheduler: str) -> None:
    noise = "import hashlib; return b''.join(hashlib.md5(b'%d' % (x * {0} + n)).digest() for n in range({0}))"
    cache, old, new = world.cache, edited(noise.format(9000)), edited(noise.format(9001))
    also = edited("return sum(x)", "feat")
    run(cache, graph(old, also=also))
    for entry in list(cache.iter_entries()):
        if entry.function != "clean":
            cache.invalidate(entry.cache_key)
        else:
            cache._store.blobs.delete(entry.blob)
    row = by_hand(cache, old, new)
    expected = graph(new, also=also).compute(scheduler="sync")
    value, _, done = run(cache, graph(new, also=also), scheduler=scheduler)
    assert value == expected
    assert "unreadable: a result of earlier code" in str(done)
    assert {entry.function for entry in cache.iter_entries()} <= {"clean"}
    cache.revoke(row.id)
    assert run(cache, graph(old, also=also))[0] == graph(old, also=also).compute(scheduler="sync")


def test_readers_are_served_and_write_nothing(cache: UnifiedCache, audited: Callable[[bool], None]) -> None:
    old, new = edited(BEFORE), edited(AFTER)
    run(cache, graph(old))
    by_hand(cache, old, new)
    audited(True)
    for mode in ("read", "offline"):
        assert run(cache, graph(new), mode=mode)[:2] == (value_of(4), {})
    with pytest.raises(NotCached):
        run(cache, graph(new, 5), mode="offline")


def test_who_asks_for_no_check_gets_no_result_of_earlier_code(cache: UnifiedCache) -> None:
    old, new = edited(BEFORE), edited(AFTER)
    run(cache, graph(old))
    by_hand(cache, old, new)
    assert run(cache, graph(new), check=0)[1]["clean"] == 4


@pytest.mark.slow
def test_futures_of_a_client_are_served_and_what_follows_them_is_kept(cache: UnifiedCache, client: Any) -> None:
    old, new = edited("return x + 1"), edited("return x - 1")
    with cd.caching(cache, which="all"):
        assert client.compute(dask.delayed(old)(5)).result() == 6
    row = by_hand(cache, old, new)
    with cd.caching(cache, which="all"):
        kept = dask.delayed(new)(5).persist()
        assert dask.delayed(feat)(kept).compute() == 60
    cache.revoke(row.id)
    with cd.caching(cache, which="all"):
        assert dask.delayed(feat)(dask.delayed(new)(5)).compute() == 40
        assert dask.delayed(feat)(dask.delayed(old)(5)).compute() == 60


# evidence by the tasks of a graph


def states(changes: list[AcceptedChange]) -> dict[str, str]:
    return {one.function.partition(":")[2]: one.state for one in changes}


def test_a_change_is_accepted_by_the_tasks_of_a_graph(world: World) -> None:
    cache = world.cache
    cleans = edited(BEFORE), edited(AFTER)
    feats = edited("return x * 10", "feat"), edited("y = x * 10; return y", "feat")
    assert run(cache, graph(cleans[0], 30, also=feats[0]))[0] == value_of(30)
    changes = cd.accept(graph(cleans[1], 30, also=feats[1]), cache, sample=20)
    assert states(changes) == {"clean": "accepted", "feat": "accepted"}
    assert {one.bound for one in changes} == {acceptances.bound_of(20)}
    entries = cache.stats()["entries"]
    assert run(cache, graph(cleans[1], 30, also=feats[1]))[:2] == (value_of(30), {})
    assert cache.stats()["entries"] == entries
    # Calls outside of any graph are served by the same evidence.
    assert cache.cached(cleans[0])(99) == 100
    ran.clear()
    assert (cache.cached(cleans[1])(99), ran) == (100, [])
    assert states(cache.accepted_changes()) == states(changes)


def test_only_the_function_that_differs_is_refused(cache: UnifiedCache) -> None:
    cleans = edited(BEFORE), edited("return x + 1 + (x % 5 == 0)")
    feats = edited("return x * 10", "feat"), edited("y = x * 10; return y", "feat")
    run(cache, graph(cleans[0], 30, also=feats[0]))
    edit = graph(cleans[1], 30, also=feats[1])
    changes = {one.function: one for one in cd.accept(edit, cache, sample=25)}
    assert changes["pipeline:clean"].state == "refused"
    assert "the code of today makes" in changes["pipeline:clean"].why
    # With what the code of today makes of it, `feat` has no result by earlier code.
    assert run(cache, edit)[0] == edit.compute(scheduler="sync")
    assert "clean" not in states(cache.accepted_changes())


def test_tasks_whose_inputs_were_not_kept_are_compared_with_these(cache: UnifiedCache) -> None:
    old, new, other = edited(BEFORE), edited(AFTER), edited("return x + 2")

    def many(function: Any) -> list[Any]:
        return [graph(function, 2, first=first) for first in range(25)]

    run(cache, many(old), which="outputs")
    assert {entry.function for entry in cache.iter_entries()} == {"total"}
    with pytest.raises(NotAccepted):  # the entries of `total` say nothing of what is before them
        cd.accept(many(new), cache)
    run(cache, [dask.delayed(old)(1000)])
    refused = cd.accept([*many(other), dask.delayed(other)(1000)], cache)
    assert states(refused) == {"clean": "refused"}
    (change,) = cd.accept([*many(new), dask.delayed(new)(1000)], cache, sample=20)
    assert (change.state, change.equal >= 1) == ("accepted", True)
    assert run(cache, many(new))[1] == {}


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (edited(BEFORE), edited("1 / 0"), "the code of today fails (ZeroDivisionError: division by zero) where "),
        (edited(BEFORE), edited("if x == 'never':\n        return 0\n    return x + 1"), "lines that no compared call"),
        (edited(BEFORE), edited("open('out.txt', 'w').close(); return x + 1"), ""),
        (edited(BEFORE, takes="x, by=1"), edited(AFTER, takes="x, by=2"), "no longer the same, in the same order"),
        (edited(BEFORE, "Of.clean"), edited(AFTER, "Of.clean"), "it is a method"),
    ],
    ids=["fails", "a line", "a sink", "a default", "a method"],
)
def test_what_is_refused_is_said_in_words(cache: UnifiedCache, old: Any, new: Any, why: str) -> None:
    run(cache, graph(old, 21))
    if not why:  # it has no place in the cache any more
        with pytest.raises(NotAccepted, match="no result of a function of this collection was made by earlier code"):
            cd.accept(graph(new, 21), cache)
        return
    (change,) = cd.accept(graph(new, 21), cache)
    assert (change.state, why in change.why) == ("refused", True), change.why
    assert cache.accepted_changes() == []
    if why.startswith("lines"):
        (change,) = cd.accept(graph(new, 21), cache, force=True)
        assert change.state == "accepted"
        assert change.unrun


def test_a_part_of_the_results_is_no_evidence_for_all(cache: UnifiedCache) -> None:
    run(cache, graph(edited(BEFORE), 30))
    (change,) = cd.accept(graph(edited(AFTER), 3), cache)
    assert (change.state, change.why) == ("refused", "3 of its 30 results could be compared, and 20 are needed")
    (change,) = cd.accept(graph(edited(AFTER), 3), cache, force=True)
    assert (change.state, change.equal) == ("accepted", 3)
    with (
        pytest.raises(ModeRefused, match="mode='read' changes nothing in the cache, and accept would"),
        cd.caching(cache, mode="read"),
    ):
        cd.accept(graph(edited(AFTER), 3))


def test_who_looks_for_calls_of_a_task_is_told_where_to_look(cache: UnifiedCache) -> None:
    run(cache, graph(edited(BEFORE)))
    with pytest.raises(NotAccepted, match=r"Results of tasks are compared by cacheness_dask\.accept\(collection\)"):
        cache.accept(edited(AFTER))


def test_a_sample_is_a_number_and_a_cache_is_needed(cache: UnifiedCache) -> None:
    for sample in (0, True, "20"):
        with pytest.raises(ValueError, match="is not a number of tasks to compare"):
            cd.accept(graph(feat), cache, sample=sample)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no cache is in use here"):
        cd.accept(graph(feat))


@pytest.mark.parametrize("kind", ["array", "frame"])
def test_arrays_and_frames_are_accepted_by_their_blocks(cache: UnifiedCache, kind: str) -> None:
    old, new = (edited(body, takes="x, by=1") for body in ("return x + by", "y = x + by; return y"))

    def whole(function: Any) -> Any:
        if kind == "array":
            return da.ones((60, 4), chunks=(2, 4)).map_blocks(function, by=2).sum()
        frame = dd.from_pandas(pd.DataFrame({"a": range(60)}), npartitions=30)
        return frame.map_partitions(function, by=3, meta=frame._meta).a.sum()

    expected = run(cache, whole(old))[0]
    (change,) = cd.accept(whole(new), cache)
    assert (change.state, change.equal) == ("accepted", 30)
    assert run(cache, whole(new))[:2] == (expected, {})


def _inc_edited(x: Any, by: Any = 1) -> Any:
    ran_workload(x)
    added = by
    return x + added


def _inc_changed(x: Any, by: Any = 1) -> Any:
    ran_workload(x)
    return x + by + by


def ran_workload(x: Any) -> None:
    if not hasattr(x, "size") or x.size > 1:
        workloads.ran()


@pytest.mark.slow
def test_no_workload_comes_out_otherwise_with_accepted_changes(
    cache: UnifiedCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COUNT_FILE", str(tmp_path / "count"))
    workloads.write_inputs(tmp_path)
    names = sorted(name for name in workloads.WORKLOADS if not name.startswith("p2p"))[::3]  # p2p needs a cluster
    computed, states = Counter[Any](), dict[Any, Counter[str]]()
    first = workloads.inc

    def compute(edit: Any, *, accepts: bool = True) -> None:
        edit.__name__, edit.__qualname__, edit.__module__ = "inc", "inc", workloads.__name__
        monkeypatch.setattr(workloads, "inc", edit)
        for name, collection in workloads.each(names, tmp_path):
            (expected,) = dask.compute(collection, scheduler="sync")
            workloads.traces()
            with cd.caching(cache, which="all", scheduler="sync"):
                if accepts:
                    with suppress(NotAccepted):  # not all of them call it
                        changes = cd.accept(workloads.WORKLOADS[name](tmp_path), sample=20, force=True)
                        states.setdefault(edit, Counter()).update(one.state for one in changes)
                    workloads.traces()
                (found,) = dask.compute(workloads.WORKLOADS[name](tmp_path))
            computed[edit] += workloads.traces().total()
            assert workloads.shown(found) == workloads.shown(expected), (name, edit)

    for edit in (first, _inc_edited, _inc_changed):
        compute(edit)
    assert computed[_inc_edited] < computed[first] / 10
    assert (set(states[_inc_edited]), set(states[_inc_changed])) == ({"accepted"}, {"refused"})
    for change in cache.accepted_changes():
        cache.revoke(change.id)
    for edit in (_inc_changed, first, _inc_edited):
        compute(edit, accepts=False)
