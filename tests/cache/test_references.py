"""References: a call with one has the key of the call with its value, and never a stale result."""

from __future__ import annotations

import asyncio
import functools
import operator
import pickle
import sys
import threading
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from cacheness import NotCached, Ref, StoreUnavailable, UnifiedCache
from cacheness.testing.proxy import Proxy
from tests.conftest import SIGNING_KEY, World
from tests.keys.corpus import values


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UnifiedCache]:
    with UnifiedCache(tmp_path_factory.mktemp("references")) as cache:
        yield cache


@pytest.fixture
def ran(cache: UnifiedCache) -> list[str]:
    cache.clear()
    return []


def chain(cache: UnifiedCache, ran: list[str]) -> tuple[Any, Any, Any]:
    @cache.cached(ignore=("ran",))
    def load(n: int, ran: list[str]) -> Any:
        ran.append("load")
        return np.arange(float(n))

    @cache.cached(ignore=("ran",))
    def clean(a: Any, ran: list[str]) -> Any:
        ran.append("clean")
        a += 1  # in place, as people do
        return a

    @cache.cached(ignore=("ran",))
    def score(a: Any, ran: list[str]) -> float:
        ran.append("score")
        return float(a.sum())

    return load, clean, score


def test_a_warm_chain_reads_nothing_but_the_last_result(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    load, clean, score = chain(world.cache, ran)

    def run() -> float:
        step = load.lazy(10_000, ran)
        for _ in range(8):
            step = clean.lazy(step.arg, ran)
        return float(score(step.arg, ran))

    first = run()
    assert first == np.arange(10_000.0).sum() + 8 * 10_000
    assert ran == ["load", *["clean"] * 8, "score"]
    blobs = world.cache._store.blobs
    monkeypatch.setattr(blobs, "read", lambda *_: pytest.fail("a blob was read"))
    assert run() == first
    assert len(ran) == 10


@pytest.mark.external
def test_a_warm_chain_of_ten_moves_no_byte_of_a_blob(tmp_path: Path, s3_url: str) -> None:
    ran: list[str] = []
    with (
        Proxy.before(s3_url) as bucket,
        UnifiedCache(tmp_path, blob_store=bucket.url, signing_key=SIGNING_KEY) as cache,
    ):
        load, clean, score = chain(cache, ran)

        def run() -> Ref[float]:
            step = load.lazy(100_000, ran)
            for _ in range(8):
                step = clean.lazy(step.arg, ran)
            return score.lazy(step.arg, ran)

        assert isinstance(run(), Ref)
        assert sum(b"PUT /" in request for request in bucket.requests) >= 9
        with UnifiedCache(tmp_path, blob_store=bucket.url, signing_key=SIGNING_KEY) as other:  # that kept no value
            load, clean, score = chain(other, ran)
            bucket.requests.clear()
            last = run()
            assert bucket.requests == []
            assert last.value == np.arange(100_000.0).sum() + 8 * 100_000
            assert bucket.requests == []  # it is in its row
            assert clean.lazy(load.lazy(100_000, ran).arg, ran).value[0] == 1.0
            assert sum(request.startswith(b"GET /") for request in bucket.requests) == 1  # and only what is asked for
        assert len(ran) == 10


def test_the_key_is_that_of_the_value_whatever_codec_stores_it(cache: UnifiedCache, tmp_path: Path) -> None:
    corpus = {name: value for name, value in values(tmp_path).items() if name not in ("cycle", "digest")}

    @cache.cached(ignore=("made",), key=lambda name, made: name)
    def make(name: str, made: dict[str, Any]) -> Any:
        return made[name]

    @cache.cached
    def use(x: Any, *more: Any, **named: Any) -> None:
        return None

    with cache.write_batch():
        for name, value in corpus.items():
            cache.put(value, make.key(name, corpus))
    for name in corpus:
        ref = make.lazy(name, {})
        loaded = make(name, {})
        assert use.key(ref.arg).hex == use.key(loaded).hex, name
        nested = use.key([ref, (1, ref)], {"k": ref}, y=ref)
        assert nested.hex == use.key([loaded, (1, loaded)], {"k": loaded}, y=loaded).hex, name


def test_a_body_gets_values_at_any_depth(cache: UnifiedCache) -> None:
    @cache.cached
    def one(x: int) -> int:
        return x

    @cache.cached
    def add(items: Any, *more: Any, **named: Any) -> Any:
        return items, more, named

    ref = one.lazy(1)
    plain = [5]
    assert add([ref, (ref, {"a": ref}), plain], ref, x=ref) == ([1, (1, {"a": 1}), plain], (1,), {"x": 1})
    assert add.refresh(ref) == (1, (), {})
    assert add.explain(ref).hit
    assert add.invalidate(ref.arg)
    entry = cache.put(ref, x="stored")
    assert cache.get(entry) == 1


def test_what_a_body_changes_in_place_stays_as_it_counted(cache: UnifiedCache, ran: list[str]) -> None:
    load, clean, score = chain(cache, ran)
    ref = load.lazy(100, ran)
    assert clean(ref.arg, ran)[0] == 1
    assert ref.value[0] == 0
    assert score(ref.arg, ran) == np.arange(100.0).sum()
    assert score(np.arange(100.0), ran) == np.arange(100.0).sum()


@pytest.mark.parametrize("place", [lambda ref: [ref], lambda ref: {"a": (ref,)}])
def test_what_its_taker_changes_in_place_counts_as_it_was_stored(cache: UnifiedCache, place: Any) -> None:
    cache.clear()
    made = cache.cached(lambda n: list(range(n)))
    total = cache.cached(lambda lists: sum(lists[0] if isinstance(lists, list) else lists["a"][0]))
    ref = made.lazy(4)
    ref.value.append(1000)
    assert total(place(ref.arg)) == 6
    assert total(place([0, 1, 2, 3, 1000])) == 1006
    assert total(place([0, 1, 2, 3])) == 6
    assert total.explain(place([0, 1, 2, 3])).hit


class Pair(NamedTuple):
    a: Any


@dataclass
class Data:
    a: Any


class Plain:
    def __init__(self, a: Any) -> None:
        self.a = a

    def kind(self) -> str:
        return type(self.a).__name__


def object_array(a: Any) -> Any:
    array = np.empty(1, object)
    array[0] = a
    return array


#: Where the body gets the reference itself, and how it takes it out.
ELSEWHERE: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "named tuple": (Pair, lambda held: held.a),
    "in a list of one": (lambda a: Pair([a]), lambda held: held.a[0]),
    "one in a list": (lambda a: [Pair(a)], lambda held: held[0].a),
    "OrderedDict": (lambda a: OrderedDict(a=a), lambda held: held["a"]),
    "defaultdict": (lambda a: defaultdict(list, a=a), lambda held: held["a"]),
    "deque": (lambda a: deque([a]), lambda held: held[0]),
    "mapping proxy": (lambda a: MappingProxyType({"a": a}), lambda held: held["a"]),
    "slice": (lambda a: slice(a), lambda held: held.stop),
    "dataclass": (Data, lambda held: held.a),
    "attribute": (Plain, lambda held: held.a),
    "namespace": (lambda a: SimpleNamespace(a=a), lambda held: held.a),
    "partial": (lambda a: functools.partial(type, a), lambda held: held.args[0]),
    "array of objects": (object_array, lambda held: held[0]),
    "closure": (lambda a: lambda: a, lambda held: held()),
    "cycle": (lambda a: cyclic(a), lambda held: held[1][0]),
}


def cyclic(a: Any) -> list[Any]:
    outer = [a]
    outer.append(outer)
    return outer


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("place", ELSEWHERE)
def test_a_reference_that_the_body_gets_as_such_counts_as_such(cache: UnifiedCache, place: str, order: int) -> None:
    cache.clear()
    hold, taken = ELSEWHERE[place]

    @cache.cached
    def kind(held: Any) -> str:
        return type(taken(held)).__name__

    for by_value in (None, False):
        source = cache.cached(by_value=by_value)(lambda n: [n] * 3)
        ref = source.lazy(3)
        for given in [ref.arg, [3, 3, 3]][::order]:
            for _ in range(2):
                assert kind(hold(given)) == type(taken(hold(given))).__name__
    by_hand = cache.key(x=hold(ref)), cache.key(x=hold([3, 3, 3]))
    assert by_hand[0] != by_hand[1]
    assert cache.key(x=[ref, {"k": (ref,)}], y=ref) == cache.key(x=[[3] * 3, {"k": ([3] * 3,)}], y=[3] * 3)


KEPT: Any = None


def test_a_reference_in_a_global_a_closure_and_an_instance_counts_as_such(
    cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = cache.cached(lambda n: [n] * 3)
    ref = source.lazy(5)

    @cache.cached
    def of_global() -> str:
        return type(KEPT).__name__

    def of_closure(held: Any) -> Any:
        return cache.cached(lambda: type(held).__name__)()

    def of_instance(held: Any) -> Any:
        return cache.cached(Plain(held).kind)()

    for held, name in ((ref, "Ref"), ([5, 5, 5], "list"), (ref, "Ref")):
        monkeypatch.setattr(sys.modules[__name__], "KEPT", held)
        assert of_global() == name
        assert [of(held) for of in (of_closure, of_instance)] == [name] * 2


def _awaited(call: Any) -> Any:
    return asyncio.run(call) if asyncio.iscoroutine(call) else call


@pytest.mark.parametrize("inside", [lambda it: it, lambda it: [it], lambda it: ({"a": it},)])
@pytest.mark.parametrize("options", [{}, {"version": "1"}, {"ignore": ("n",)}, {"key": lambda n: n}, {"accept": 1}])
def test_a_body_gets_the_value_of_a_reference_in_a_default(
    cache: UnifiedCache, ran: list[str], inside: Any, options: Any
) -> None:
    ref = cache.cached(lambda n: {"of": n}).lazy(4)
    given, loaded = inside(ref.arg), inside({"of": 4})

    def last(n: int, x: Any = given) -> str:
        return repr((n, x))

    def named(n: int, *more: Any, x: Any = given, **rest: Any) -> str:
        return repr((n, x))

    def by_place(n: int, x: Any = given, /, y: int = 0) -> str:
        return repr((n, x))

    async def awaited(n: int, x: Any = given) -> str:
        return repr((n, x))

    partial = functools.partial(lambda n, *, x: repr((n, x)), x=given)
    for fn in (last, named, by_place, awaited, partial):
        cached = cache.cached(fn, **options)
        assert [_awaited(cached(1)) for _ in range(2)] == [repr((1, loaded))] * 2
        assert _awaited(cached.refresh(1)) == repr((1, loaded))
        assert _awaited(cache.get_or_compute(fn, 2)) == repr((2, loaded))
        assert _awaited(cached.lazy(1)).value == repr((1, loaded))
        if fn is last:
            assert "key" in options or cached.key(1) == cached.key(1, loaded) == cached.key(1, given)
            with pytest.raises(TypeError, match=r"last\(\) missing 1 required positional argument: 'n'"):
                cached()


def test_a_method_and_a_check_and_a_cache_that_is_off_load_a_default(cache: UnifiedCache) -> None:
    ref = cache.cached(lambda n: [n]).lazy(6)

    class Scale:
        @cache.cached(check=1, key=lambda _self, n: n)
        def by(self, n: int, x: Any = ref.arg) -> Any:
            x.append(n)  # in place, as people do
            return x

    assert [Scale().by(2) for _ in range(3)] == [[6, 2]] * 3
    assert not cache.disputes()
    assert ref.value == [6]
    off = UnifiedCache(None).cached(Scale.by.__wrapped__)
    assert off(Scale(), 2) == [6, 2]


def test_a_global_reference_whose_entry_changed_gives_no_stale_result(
    cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    for by_value in (None, False):
        cache.clear()
        source = cache.cached(by_value=by_value)(lambda n: [n] * 3)

        @cache.cached
        def total(n: int) -> int:
            return sum(KEPT.value) + n

        for value in ([1, 1, 1], [2, 2, 2]):
            cache.put(value, source.key(1))
            monkeypatch.setattr(sys.modules[__name__], "KEPT", source.lazy(1))
            assert total(0) == sum(value)


def test_what_a_reference_lacks_is_said_by_its_name(cache: UnifiedCache) -> None:
    ref = cache.cached(lambda n: [n]).lazy(1)
    with pytest.raises(AttributeError, match=r"not the result: take its \.value; a Ref has no attribute 'sum'"):
        ref.sum()  # type: ignore[attr-defined]
    assert not hasattr(ref, "_no")


class Changing:
    def __init__(self, n: int) -> None:
        self.rows = [n]


@pytest.mark.parametrize("how", ["lent", "taken", "nested", "not stored"])
def test_what_is_changed_in_place_stays_as_it_was_stored_without_a_digest_too(cache: UnifiedCache, how: str) -> None:
    cache.clear()
    ran: list[int] = []

    @cache.cached(ignore=("ran",), condition=(lambda _: False) if how == "not stored" else None)
    def make(n: int, ran: list[int]) -> Any:
        ran.append(n)
        return Changing(n)

    @cache.cached
    def changed(one: Any, times: int) -> list[int]:
        one = one[0] if isinstance(one, list) else one
        one.rows.append(times)
        return list(one.rows)

    ref = make.lazy(7, ran)
    assert ref.digest is None
    if how == "taken":
        ref.value.rows.append(0)
    given = [ref.arg] if how == "nested" else ref.arg
    if how == "not stored":  # there is no other copy: what it is counts, and is what the body gets
        assert changed(given, 1) == [7, 1]
        assert changed(given, 2) == [7, 1, 2]
        assert (changed(Changing(7), 2), ran) == ([7, 2], [7])
        return
    for times in (1, 2, 1):
        assert changed(given, times) == [7, times]
    assert changed.explain(given, 1).hit
    if how != "taken":
        assert ref.value.rows == [7]
    assert changed(Changing(7), 2) == [7, 2]
    assert ran == [7]


@pytest.mark.parametrize("by_value", [None, False])
@pytest.mark.parametrize("place", [lambda ref: ref, lambda ref: [ref]])
def test_threads_that_share_a_reference_get_values_of_their_own(
    cache: UnifiedCache, by_value: bool | None, place: Any
) -> None:
    cache.clear()
    source = cache.cached(by_value=by_value)(lambda n: np.arange(float(n)))
    gate = threading.Barrier(4)

    @cache.cached(ignore=("gate",))
    def raised(rows: Any, step: int, gate: Any) -> float:
        rows = rows[0] if isinstance(rows, list) else rows
        gate.wait(30)
        rows += step
        gate.wait(30)
        return float(rows.sum())

    ref = source.lazy(5)
    seen = ref.value
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda step: raised(place(ref.arg), step, gate), range(4)))
    assert found == [10.0 + 5 * step for step in range(4)]
    assert all(raised.explain(place(np.arange(5.0)), step, gate).hit for step in range(4))
    assert seen.sum() == 10.0
    assert ref.value is seen


def test_what_value_gave_counts_where_the_entry_is_gone(cache: UnifiedCache) -> None:
    cache.clear()
    ran: list[int] = []

    @cache.cached(ignore=("ran",))
    def numbered(ran: list[int]) -> list[int]:
        ran.append(1)
        return [len(ran)] * 3

    @cache.cached
    def changed(rows: list[int]) -> int:
        rows.append(7)
        return sum(rows)

    ref = numbered.lazy(ran)
    seen = ref.value
    numbered.invalidate(ran)
    assert (changed(ref.arg), changed([1, 1, 1]), ran) == (10, 10, [1])
    assert seen == ref.value == [1, 1, 1]
    seen.append(1000)  # what the user changed is no copy of the result any more
    assert changed([ref.arg][0]) == 10
    assert changed.lazy(numbered.lazy(ran).arg).value == 13


def test_one_reference_twice_in_a_call_is_one_value(cache: UnifiedCache) -> None:
    make = cache.cached(lambda n: Changing(n))
    both = cache.cached(lambda one, more: one is more[0])
    ref = make.lazy(8)
    assert both(ref.arg, [ref.arg])
    ref = make.lazy(9)
    ref.value.rows.append(1)
    assert both(ref.arg, [ref.arg])


def test_what_counted_in_the_process_that_pickled_it_is_what_another_loads(cache: UnifiedCache) -> None:
    make = cache.cached(lambda n: Changing(n))
    pickled = pickle.dumps(make.lazy(3))
    assert pickle.loads(pickled).value.rows == [3]
    cache.put(Changing(4), make.key(3))
    with pytest.raises(NotCached, match="not in the cache any more"):
        pickle.loads(pickled).value  # noqa: B018


@pytest.mark.parametrize("place", [lambda ref: ref, lambda ref: [ref], lambda ref: {"a": (ref,)}, Plain])
def test_what_its_function_raises_passes_as_it_is(cache: UnifiedCache, tmp_path: Path, place: Any) -> None:
    down = tmp_path / "down"

    @cache.cached(ignore=("down",))
    def load(n: int, down: Any) -> Any:
        if down.exists():
            raise ConnectionError("the server is down")
        return [n]

    use = cache.cached(lambda held: repr(held))
    load(6, down)
    ref = load.lazy(6, down)  # not loaded
    load.invalidate(6, down)
    down.touch()
    with pytest.raises(ConnectionError, match="the server is down"):
        use(place(ref.arg))


@pytest.mark.parametrize("by_value", [None, False])
@pytest.mark.parametrize("place", [lambda ref: ref, lambda ref: [ref], Plain])
def test_a_store_that_stops_answering_fails_no_call_with_a_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_value: bool | None, place: Any
) -> None:
    with UnifiedCache(tmp_path) as cache:
        load = cache.cached(by_value=by_value)(lambda n: [n] * 3)
        load(6), load(7)
        use = cache.cached(lambda held: repr(getattr(held, "a", held)).startswith("<Ref"))
        fresh, taken = load.lazy(6), load.lazy(7)
        assert taken.value == [7] * 3

        def fails(*_: Any, **__: Any) -> Any:
            raise StoreUnavailable("nobody answers")

        for name in ("find", "find_many", "find_equivalent", "commit"):
            monkeypatch.setattr(cache._store.metadata, name, fails)
        for ref in (fresh, taken):
            assert use(place(ref.arg)) is (place is Plain)
        assert fresh.value == [6] * 3


def test_a_function_that_returns_a_reference_returns_its_value(cache: UnifiedCache) -> None:
    cache.clear()
    source = cache.cached(lambda n: [n] * 2)

    @cache.cached
    def alone(n: int) -> Any:
        return source.lazy(n)

    @cache.cached
    def within(n: int) -> Any:
        return {"r": [source.lazy(n), n]}, "x"

    @cache.cached
    async def awaited(n: int) -> Any:
        return source.lazy(n)

    for _ in range(2):
        assert alone(1) == [1, 1]
        assert within(1) == ({"r": [[1, 1], 1]}, "x")
        assert alone.refresh(2) == [2, 2]
        assert alone.lazy(3).value == [3, 3]
        assert asyncio.run(awaited(4)) == [4, 4]
    entry = cache.put([source.lazy(1)], x="several")
    source.invalidate(1)
    assert cache.get(entry) == [[1, 1]]
    uncached = cache.cached(condition=lambda _: False)(lambda n: source.lazy(n))
    assert [uncached(5), uncached(5)] == [[5, 5], [5, 5]]


def test_an_entry_that_was_overwritten_since_gives_no_stale_result(cache: UnifiedCache, ran: list[str]) -> None:
    load, _, score = chain(cache, ran)
    load(10, ran)
    ref = load.lazy(10, ran)
    cache.put(np.ones(3), load.key(10, ran))
    assert score(ref.arg, ran) == 3.0
    assert cache.lookup(score.key(np.arange(10.0), ran)) is None
    assert cache.get(score.key(np.ones(3), ran)) == 3.0
    assert score(np.arange(10.0), ran) == 45.0


def test_an_entry_that_is_gone_is_computed_again(cache: UnifiedCache, ran: list[str]) -> None:
    load, _, score = chain(cache, ran)
    load(10, ran)
    ref = load.lazy(10, ran)
    load.invalidate(10, ran)
    assert score(ref.arg, ran) == 45.0
    assert ran == ["load", "load", "score"]


def test_what_code_or_a_file_decides_is_loaded_to_be_counted(cache: UnifiedCache, tmp_path: Path) -> None:
    path = tmp_path / "input.txt"
    path.write_text("one")

    @cache.cached
    def name_of_file() -> str:
        return str(path)

    @cache.cached
    def read(name: str) -> str:
        return Path(name).read_text()

    ref = name_of_file.lazy()
    assert ref.digest is None
    assert read(ref.arg) == "one"
    path.write_text("other")
    assert read(ref.arg) == "other"


RATE = [1]
SOURCE = """
class Point:
    def __init__(self, x):
        self.x = x
    def far(self):
        return {body}
"""


def test_an_edited_class_or_a_changed_global_behind_a_value_is_no_stale_result(
    cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def edited(body: str) -> Any:
        scope: dict[str, Any] = {"__name__": __name__}
        exec(SOURCE.format(body=body), scope)
        monkeypatch.setattr(sys.modules[__name__], "Point", scope["Point"], raising=False)
        return scope["Point"]

    @cache.cached(ignore=("kind",), version="1")
    def place(x: int, kind: Any) -> Any:
        return kind(x)

    @cache.cached
    def far(point: Any) -> Any:
        return point.far()

    @cache.cached(version="1")
    def rated() -> Any:
        return priced

    @cache.cached
    def apply(function: Any, n: int) -> Any:
        return function(n)

    for body, expected in (("self.x", 3), ("self.x + 1", 4), ("self.x", 3)):
        kind = edited(body)
        ref = place.lazy(3, kind)
        assert ref.digest is None  # its class counts, which somebody may edit
        assert far(ref.arg) == expected
        assert far.key(ref.arg).hex == far.key(place(3, kind)).hex
    for rate in (1, 2, 1):
        monkeypatch.setattr(sys.modules[__name__], "RATE", [rate])
        assert apply(rated.lazy().arg, 5) == 5 * rate


def priced(n: int) -> int:
    return n * RATE[0]


def test_a_reference_shows_itself_without_loading(cache: UnifiedCache, ran: list[str]) -> None:
    load, *_ = chain(cache, ran)
    load(10, ran)
    ref = load.lazy(10, ran)
    assert "not loaded, counts by its digest" in repr(ref)
    assert ref.key == load.key(10, ran).hex
    assert ref.value[1] == 1.0
    assert "not loaded" not in repr(ref)


UNFIT: dict[str, Callable[[Any], Any]] = {
    "bool": bool, "len": len, "list": list, "hash": hash, "float": float, "int": int, "equal": lambda ref: ref == 1,
    "less": lambda ref: ref < 1, "plus": lambda ref: ref + 1, "minus": lambda ref: 1 - ref,
    "times": lambda ref: ref * 2,
    "item": operator.itemgetter(0), "negative": operator.neg, "array": np.asarray, "call": lambda ref: ref(),
    "in": lambda ref: 1 in ref, "matrix": lambda ref: ref @ ref,
}  # fmt: skip


@pytest.mark.parametrize("how", UNFIT)
def test_a_reference_is_not_taken_for_its_value(cache: UnifiedCache, how: str) -> None:
    @cache.cached
    def one() -> int:
        return 1

    ref = one.lazy()
    with pytest.raises(TypeError, match=r"take its \.value"):
        UNFIT[how](ref)


def test_it_pickles_without_value_and_secret(cache: UnifiedCache, ran: list[str]) -> None:
    load, clean, _ = chain(cache, ran)
    ref = load.lazy(10_000, ran)
    pickled = pickle.dumps(ref)
    secret = (Path(cache.config.cache_dir) / "signing.key").read_bytes().strip()
    assert len(pickled) < 500
    assert secret not in pickled
    copy: Ref[Any] = pickle.loads(pickled)
    assert clean.key(copy, ran).hex == clean.key(np.arange(10_000.0), ran).hex
    assert copy.value[-1] == 9999.0


def test_of_a_store_that_is_not_open_here_it_is_not_cached(tmp_path: Path) -> None:
    # Another that is open, and does not answer.
    lost = UnifiedCache(
        metadata_backend="postgresql://nobody@127.0.0.1:1/nothing", blob_store="memory://", signing_key="k" * 40
    )
    with lost, UnifiedCache(tmp_path) as cache:

        @cache.cached
        def one() -> int:
            return 1

        pickled, gone = pickle.dumps(one.lazy()), pickle.dumps(one.lazy())
        one.invalidate()
        with pytest.raises(NotCached, match="not in the cache any more"):
            pickle.loads(gone).value  # noqa: B018
        cache.close()
        with pytest.raises(NotCached, match="not open in this"):
            pickle.loads(pickled).value  # noqa: B018


def test_a_cache_that_does_not_answer_still_gives_a_reference(tmp_path: Path) -> None:
    cache = UnifiedCache(tmp_path)

    @cache.cached
    def one() -> int:
        return 1

    cache.close()
    ref = one.lazy()
    assert ref.value == 1


def test_coroutines_and_methods_have_references(cache: UnifiedCache) -> None:
    class Source:
        @cache.cached
        def rows(self, n: int) -> list[int]:
            return list(range(n))

    @cache.cached
    async def total(rows: list[int]) -> int:
        return sum(rows)

    async def run() -> int:
        ref = await total.lazy(Source().rows.lazy(4).arg)
        assert isinstance(ref, Ref)
        return ref.value

    assert asyncio.run(run()) == 6
