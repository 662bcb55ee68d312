"""@cached: what is computed once, what is not, and what happens when the cache fails."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import multiprocessing
import pathlib
import pickle
import sys
import threading
import time
import types
from collections.abc import Iterator
from typing import Any

import cloudpickle
import pytest

from cacheness import CachenessError, ConfigError, StoreUnavailable, UnhashableArgument, UnifiedCache
from cacheness.keys import Digest, fingerprint
from cacheness.memoize import function as memoizing
from cacheness.memoize import lookup


@pytest.fixture
def cache(tmp_path: pathlib.Path) -> Iterator[UnifiedCache]:
    with UnifiedCache(cache_dir=tmp_path / "cache") as cache:
        yield cache


@pytest.fixture
def broken(tmp_path: pathlib.Path) -> Iterator[UnifiedCache]:
    """A cache whose database does not answer."""
    memoizing._logged.clear()
    with UnifiedCache(
        cache_dir=tmp_path, metadata_backend="postgresql://x@127.0.0.1:1/x", shared_path=True, signing_key="k" * 32
    ) as cache:
        yield cache


class Calls:
    """How often a function ran, and with what."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __call__(self, value: Any) -> Any:
        self.seen.append(value)
        return value

    def __cacheness_key__(self) -> None:
        return None


@pytest.fixture
def calls() -> Calls:
    return Calls()


# arguments


def test_positional_and_keyword_calls_and_defaults_agree(cache: UnifiedCache, calls: Calls) -> None:
    @cache.cached
    def f(x: int, y: int = 2, *, z: int = 3) -> Any:
        return calls((x, y, z))

    assert f(1) == f(1, 2) == f(x=1) == f(y=2, x=1) == f(1, z=3) == (1, 2, 3)
    assert f(1, 3) == (1, 3, 3)
    assert len(calls.seen) == 2


def test_extra_arguments_count_by_place_and_by_name(cache: UnifiedCache, calls: Calls) -> None:
    @cache.cached
    def f(*args: Any, **kwargs: Any) -> Any:
        return calls((args, kwargs))

    f(1, 2), f(1, (2,)), f((1, 2)), f(args=(1, 2)), f(1, b=2), f(1, a=2), f(kwargs={"a": 1}), f(a=1)
    assert len(calls.seen) == 8
    assert f(b=1, a=2) == f(b=1, a=2) == f(a=2, b=1)
    assert len(calls.seen) == 10  # the function can see the order


def test_the_order_in_which_parameters_are_named_does_not_count(cache: UnifiedCache, calls: Calls) -> None:
    @cache.cached
    def f(a: int, b: int) -> Any:
        return calls((a, b))

    f(a=1, b=2), f(b=2, a=1), f(1, b=2)
    assert len(calls.seen) == 1
    cache.put("kept", b=2, a=1)
    assert cache.get(a=1, b=2) == "kept"


@pytest.mark.parametrize(
    "name", ["ttl", "prefix", "version", "function", "tags", "key", "args", "default", "self", "cls", "fn"]
)
def test_no_argument_clashes_with_an_option(cache: UnifiedCache, calls: Calls, name: str) -> None:
    @cache.cached
    def f(**kwargs: Any) -> Any:
        return calls(kwargs)

    names: dict[str, Any] = {"calls": calls}
    exec(f"def g({name}=1): return calls({name})", names)
    g = cache.cached(names["g"])
    for function in (f, g):
        before = len(calls.seen)
        first = function(**{name: 5})
        assert function(**{name: 5}) == first
        assert function(**{name: 6}) != first
        assert len(calls.seen) == before + 2
    entry = next(e for e in cache.list_entries(function="g"))
    assert cache.get(**entry["args"]) == cache.get(entry["cache_key"])


def test_positional_only_names_may_come_again_as_keywords(cache: UnifiedCache, calls: Calls) -> None:
    @cache.cached
    def f(x: int, /, **kwargs: Any) -> Any:
        return calls((x, kwargs))

    assert f(1, x=2) == (1, {"x": 2})
    assert f(1, x=3) == (1, {"x": 3})


@pytest.mark.parametrize("call", [lambda f: f(), lambda f: f(1, 2, 3), lambda f: f(1, x=1), lambda f: f(1, w=1)])
def test_a_wrong_call_is_a_type_error_as_without_the_cache(cache: UnifiedCache, call: Any) -> None:
    @cache.cached
    def f(x: int, y: int = 1) -> int:
        return x + y

    with pytest.raises(TypeError, match="argument"):
        call(f)


class Called:
    """Methods whose calls are bound."""

    def __call__(self, x: int, *, k: int = 1) -> int:
        return x

    def method(self, x: int, /, y: int = 1) -> int:
        return x

    async def coroutine(self, x: int, *rest: int, k: int) -> int:
        return x


FITS_NOT: list[Any] = [
    ((), {}), ((), {"z": 1}), ((1,), {"z": 1}), ((1,), {"x": 1, "k": 1}), ((1, 2, 3, 4), {}), ((1, 2, 3, 4), {"k": 1}),
]  # fmt: skip
CALLABLE: list[Any] = [
    lambda x, *, k=1: x,
    lambda x, y, /, *rest, k: x,
    lambda x, y=1, **more: x,
    functools.partial(lambda a, x, k: x, 3),
    functools.lru_cache(lambda x, k: x),
    Called(),
    Called().method,
    Called().coroutine,
]


@pytest.mark.parametrize("at", range(len(CALLABLE)))
def test_a_call_that_does_not_fit_is_answered_in_pythons_words(cache: UnifiedCache, at: int) -> None:
    function = CALLABLE[at]
    plain, keyed = cache.cached(function), cache.cached(key=lambda x, *_, **__: x)(function)
    answered = 0
    for args, kwargs in FITS_NOT:
        try:
            inspect.signature(function).bind(*args, **kwargs)
        except TypeError:
            with pytest.raises(TypeError) as own:
                function(*args, **kwargs)
            # Where the key function takes the call, its result is asked for.
            for wrapper in [plain] if args else [plain, keyed]:
                for door in (wrapper, wrapper.key, wrapper.explain, wrapper.lazy, wrapper.invalidate, wrapper.refresh):
                    assert _answer_of(door, args, kwargs) == str(own.value)
                    answered += 1
    assert answered


def _answer_of(door: Any, args: Any, kwargs: Any) -> str:
    try:
        found = door(*args, **kwargs)
        if inspect.isawaitable(found):
            asyncio.run(found)  # type: ignore[arg-type]
    except TypeError as error:
        return str(error)
    return ""


def test_a_mutable_default_counts_as_it_is_at_the_call(cache: UnifiedCache, calls: Calls) -> None:
    @cache.cached
    def f(x: int, seen: list[int] = []) -> Any:  # noqa: B006 - the point of it
        seen.append(x)
        return calls(list(seen))

    assert f(1) == [1]
    assert f(1) == [1, 1]


def test_arguments_that_the_function_changes_count_as_they_were(cache: UnifiedCache, calls: Calls) -> None:
    @cache.cached
    def f(items: list[int]) -> Any:
        items.append(99)
        return calls(len(items))

    assert f([1, 2]) == f([1, 2]) == 3
    assert len(calls.seen) == 1
    (entry,) = cache.list_entries()
    assert entry["args"]["items"] == [1, 2]


def test_an_ignored_argument_does_not_count(cache: UnifiedCache, calls: Calls) -> None:
    @cache.cached(ignore=("client",))
    def f(x: int, client: Any = None) -> Any:
        return calls(x)

    f(1, threading.Lock()), f(1, client=3), f(1)
    assert len(calls.seen) == 1


def test_ignoring_what_is_no_parameter_is_refused_at_once(cache: UnifiedCache) -> None:
    with pytest.raises(TypeError, match=r"ignore=\['y'\].*no such parameter"):
        cache.cached(ignore=("y",))(lambda x: x)
    with pytest.raises(ConfigError, match="is a string"):
        cache.cached(ignore="x")(lambda x: x)


def test_an_unknown_option_is_refused_at_once(cache: UnifiedCache) -> None:
    with pytest.raises(TypeError, match="tll"):
        cache.cached(tll=3)(lambda x: x)


def test_an_argument_that_cannot_be_encoded_is_an_error_that_names_it(cache: UnifiedCache) -> None:
    @cache.cached
    def f(model: Any) -> int:
        return 1

    with pytest.raises(UnhashableArgument, match=r"args\.model\.lock: _thread\.lock.*ignore="):
        f(types.SimpleNamespace(lock=threading.Lock()))


def test_a_key_function_decides_what_counts(cache: UnifiedCache, calls: Calls) -> None:
    @cache.cached(key=lambda frame, n: (frame["id"], n))
    def f(frame: Any, n: int) -> Any:
        return calls(n)

    f({"id": 1, "x": 1}, 2), f({"id": 1, "x": 2}, n=2), f({"id": 2}, 2)
    assert len(calls.seen) == 2


# functions


def test_a_version_pins_the_code(cache: UnifiedCache, calls: Calls) -> None:
    def make(body: str, version: str) -> Any:
        module = types.ModuleType("pinned")
        exec(f"def f(x): return calls({body})", vars(module))
        module.calls = calls  # type: ignore[attr-defined]
        return cache.cached(module.f, version=version)

    assert make("x * 2", "1")(1) == 2
    assert make("x * 3", "1")(1) == 2
    assert make("x * 3", "2")(1) == 3


def test_a_version_pins_neither_what_is_closed_over_nor_lambdas(cache: UnifiedCache) -> None:
    def make(n: int) -> Any:
        @cache.cached(version="1")
        def f(x: int) -> int:
            return x * n

        return f

    assert (make(2)(1), make(3)(1), make(2)(1)) == (2, 3, 2)
    one, other = cache.cached(lambda x: x, version="1"), cache.cached(lambda x: -x, version="1")
    assert (one(1), other(1)) == (1, -1)


def test_functions_of_one_name_and_version_in_two_modules_are_two() -> None:
    from cacheness.keys import make_key
    from tests.keys.edits import load

    one, other = load("def f(x): return 1", "one_module"), load("def f(x): return 2", "other_module")
    assert make_key(args={}, version="1", function=one.f) != make_key(args={}, version="1", function=other.f)


def test_a_changed_helper_is_a_miss(cache: UnifiedCache, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("m")
    exec("def helper(x): return x + 1\ndef f(x): return calls(helper(x))", vars(module))
    module.calls = calls  # type: ignore[attr-defined]
    f = cache.cached(module.f)
    assert f(1) == f(1) == 2
    exec("def helper(x): return x + 2", vars(module))
    assert f(1) == 3


def test_a_cached_function_used_as_a_helper_counts_by_its_inner_function(cache: UnifiedCache) -> None:
    names: dict[str, Any] = {"cached": cache.cached}
    exec("@cached\ndef g(x): return x\ndef f(x): return g(x)", names)
    before = fingerprint(names["f"]).digest
    exec("def g(x): return x", names)
    assert fingerprint(names["f"]).digest == before
    exec("@cached\ndef g(x): return x + 1", names)
    assert fingerprint(names["f"]).digest != before
    assert fingerprint(cache.cached(len)).digest == fingerprint(len).digest


class Model:
    def __init__(self, bias: int) -> None:
        self.bias = bias

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model)

    __hash__ = None  # type: ignore[assignment]


def test_methods_count_with_their_instance_or_without(cache: UnifiedCache, calls: Calls) -> None:
    class Mine(Model):
        @cache.cached
        def predict(self, x: int) -> Any:
            """Predict."""
            return calls(x + self.bias)

        @cache.cached(ignore=("self",))
        def double(self, x: int) -> Any:
            return calls(x * 2)

        @classmethod
        @cache.cached
        def build(cls, x: int) -> Any:
            return calls(cls.__name__ + str(x))

        @staticmethod
        @cache.cached
        def shift(x: int) -> Any:
            return calls(x + 1)

    class Other(Mine):
        pass

    assert Mine(1).predict(1) == Mine(1).predict(x=1) == 2
    assert Mine(2).predict(1) == 3
    assert Mine(1).double(4) == Mine(2).double(4) == 8
    assert (Mine.build(1), Other.build(1), Mine(1).shift(1), Mine.shift(1)) == ("Mine1", "Other1", 2, 2)
    assert len(calls.seen) == 6
    mine = Mine(1)
    assert mine.predict.key(1) == Mine.predict.key(mine, 1)
    assert mine.predict.explain(1).hit
    assert mine.predict.invalidate(1)
    assert not mine.predict.explain(1).hit
    assert mine.predict.refresh(1) == 2
    assert (mine.predict.__name__, mine.predict.__doc__) == ("predict", "Predict.")


def test_a_wrapper_is_put_below_staticmethod_and_classmethod(cache: UnifiedCache) -> None:
    for kind in (staticmethod, classmethod):
        with pytest.raises(TypeError, match=f"below @{kind.__name__}"):
            cache.cached(kind(lambda x: x))


def test_a_wrapper_looks_like_its_function(cache: UnifiedCache) -> None:
    def f(x: int, y: str = "a") -> float:
        """Do it."""
        return 1.0

    wrapped = cache.cached(f)
    assert (wrapped.__name__, wrapped.__doc__, wrapped.__wrapped__) == ("f", "Do it.", f)
    assert inspect.signature(wrapped) == inspect.signature(f)


def test_generators_are_refused_with_the_reason(cache: UnifiedCache) -> None:
    def generator() -> Iterator[int]:
        yield 1

    async def stream() -> Any:
        yield 1

    for function in (generator, stream):
        with pytest.raises(TypeError, match=r"generator function.*read only once"):
            cache.cached(function)


def test_built_ins_and_partials_and_instances_can_be_computed_once(cache: UnifiedCache) -> None:
    assert cache.get_or_compute(sorted, [2, 1]) == cache.get_or_compute(sorted, [2, 1]) == [1, 2]
    assert cache.get_or_compute(functools.partial(pow, 2), 5) == 32
    assert cache.get_or_compute(functools.partial(pow, 3), 5) == 243
    assert cache.stats()["entries"] == 3


def test_get_or_compute_takes_no_options(cache: UnifiedCache, calls: Calls) -> None:
    def f(**kwargs: Any) -> Any:
        return calls(kwargs)

    assert cache.get_or_compute(f, ttl=1, version="2", fn=3) == {"ttl": 1, "version": "2", "fn": 3}
    assert cache.get_or_compute(f, ttl=1, version="2", fn=3) == {"ttl": 1, "version": "2", "fn": 3}
    assert len(calls.seen) == 1


# results


def test_none_is_a_result(cache: UnifiedCache, calls: Calls) -> None:
    @cache.cached
    def f(x: int) -> None:
        calls(x)

    assert f(1) is f(1) is None
    assert len(calls.seen) == 1


@pytest.mark.parametrize("error", [ValueError("x"), StopIteration(3), KeyboardInterrupt(), CachenessError("mine")])
def test_what_the_function_raises_passes_untouched_and_nothing_is_stored(
    cache: UnifiedCache, error: BaseException
) -> None:
    ran = 0

    @cache.cached
    def f(x: int) -> None:
        nonlocal ran
        ran += 1
        raise error

    for _ in range(2):
        with pytest.raises(type(error)) as caught:
            f(1)
        assert caught.value is error
    assert ran == 2
    assert cache.stats()["entries"] == 0
    assert cache.compute_leases.holder(f.key(1).hex) is None


def test_an_error_keeps_its_cause(cache: UnifiedCache) -> None:
    @cache.cached
    def f(x: int) -> None:
        raise StopIteration(x) from ValueError("why")

    for call in (f, f.refresh, f.lazy):
        with pytest.raises(StopIteration) as caught:
            call(1)
        assert str(caught.value.__cause__) == "why"


def test_a_function_may_call_itself_to_some_depth(cache: UnifiedCache) -> None:
    @cache.cached
    def depth(n: int) -> int:
        return 0 if n == 0 else 1 + depth(n - 1)

    # Of a thousand frames, with those of the tests around them.
    assert depth(120) == 120


def test_only_what_passes_the_condition_is_stored(cache: UnifiedCache, calls: Calls) -> None:
    @cache.cached(condition=lambda result: result > 1)
    def f(x: int) -> Any:
        return calls(x)

    f(1), f(1), f(2), f(2)
    assert calls.seen == [1, 1, 2]


@pytest.mark.parametrize("on_error", ["compute", "raise"])
def test_a_condition_that_fails_loses_no_result(
    tmp_path: pathlib.Path, calls: Calls, caplog: pytest.LogCaptureFixture, on_error: Any
) -> None:
    memoizing._logged.clear()
    with UnifiedCache(cache_dir=tmp_path, on_error=on_error) as cache:

        @cache.cached(condition=lambda rows: rows["total"] > 0)
        def plain(x: int) -> Any:
            return calls([x])

        @cache.cached(condition=lambda rows: 1 / len(rows))
        async def later(x: int) -> Any:
            return calls([])

        assert [plain(1), plain(1), plain.refresh(1), asyncio.run(later(2))] == [[1], [1], [1], []]
        assert cache.stats()["entries"] == 0
    assert len(calls.seen) == 4
    assert [record.getMessage().partition(" has a condition= that failed")[1] != "" for record in caplog.records] == [
        True,
        True,
    ]


async def _unawaited(result: Any) -> bool:
    return True


@pytest.mark.parametrize(
    "options",
    [
        {"ttl": "soon"},
        {"ttl": -1},
        {"ttl": float("nan")},
        {"tags": ["two\nlines"]},
        {"tags": [7]},
        {"condition": "len"},
        pytest.param({"condition": _unawaited}, id="a coroutine function"),
        {"key": {"x": 1}},
        {"wait": "for ever"},
        {"wait": -1},
    ],
    ids=str,
)
def test_an_option_that_cannot_be_meant_is_an_error_where_it_is_written(cache: UnifiedCache, options: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=f"{next(iter(options)).rstrip('s')}|duration"):
        cache.cached(**options)
    with pytest.raises((TypeError, ValueError)):
        cache.cached(lambda: 1, **options)


def test_refresh_computes_again_and_invalidate_forgets(cache: UnifiedCache, calls: Calls) -> None:
    @cache.cached
    def f() -> Any:
        return calls(len(calls.seen))

    assert (f(), f(), f.refresh(), f()) == (0, 0, 1, 1)
    assert f.invalidate()
    assert not f.invalidate()
    assert f() == 2


def test_options_reach_the_entry(cache: UnifiedCache) -> None:
    @cache.cached(ttl=100, tags=["a"], prefix="p", version="7")
    def f(x: int) -> int:
        return x

    f(1)
    (entry,) = cache.list_entries(tag="a", prefix="p", function="test_options_reach_the_entry.<locals>.f")
    assert (entry["expires_at"] - entry["created_at"]).total_seconds() == pytest.approx(100)
    assert entry["compute_seconds"] >= 0
    assert entry["args"] == {"x": 1, "prefix": "p", "version": "7", "function": entry["args"]["function"]}
    assert isinstance(entry["args"]["function"], Digest)
    assert cache.get(**entry["args"]) == 1


def test_an_expired_result_is_computed_again(cache: UnifiedCache, calls: Calls) -> None:
    @cache.cached(ttl=0.05)
    def f(x: int) -> Any:
        return calls(x)

    f(1)
    time.sleep(0.1)
    f(1)
    assert len(calls.seen) == 2


# many at once


def test_threads_that_ask_at_once_compute_once(cache: UnifiedCache, calls: Calls) -> None:
    @cache.cached
    def f(x: int) -> Any:
        time.sleep(0.3)
        return calls(x)

    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(f(1))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1] * 8
    assert len(calls.seen) == 1


def test_without_single_flight_each_computes(cache: UnifiedCache) -> None:
    barrier = threading.Barrier(2, timeout=20)

    @cache.cached(single_flight=False, key=lambda x: x, version="1")
    def f(x: int) -> int:
        return barrier.wait() * 0 + x

    threads = [threading.Thread(target=f, args=(1,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not barrier.broken


def test_a_call_within_the_same_call_does_not_wait_for_itself(cache: UnifiedCache, calls: Calls) -> None:
    names: dict[str, Any] = {"calls": calls, "cached": cache.cached}
    exec("@cached(version='1')\ndef f(x):\n    calls(x)\n    return f(x) if len(calls.seen) < 3 else 7", names)
    assert names["f"](1) == 7
    assert len(calls.seen) == 3


def test_who_waits_too_long_computes(cache: UnifiedCache, calls: Calls) -> None:
    @cache.cached(wait=0.1)
    def f(x: int) -> Any:
        return calls(x)

    assert cache.compute_leases.acquire(f.key(1).hex, "somebody else")
    assert f(1) == 1
    assert len(calls.seen) == 1


def test_recursion_through_the_cache_is_fast(cache: UnifiedCache) -> None:
    names: dict[str, Any] = {"cached": cache.cached}
    exec("@cached\ndef fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)", names)
    assert names["fib"](25) == 75025


# coroutines


def test_coroutine_functions_are_cached_and_compute_once(cache: UnifiedCache, calls: Calls) -> None:
    @cache.cached
    async def f(x: int) -> Any:
        await asyncio.sleep(0.2)
        return calls(x)

    async def main() -> None:
        assert await asyncio.gather(*(f(1) for _ in range(30))) == [1] * 30
        assert await f(1) == 1
        assert len(calls.seen) == 1
        assert await f.refresh(1) == 1
        assert f.explain(1).hit

    known = inspect.iscoroutinefunction if sys.version_info >= (3, 12) else asyncio.iscoroutinefunction
    assert known(f)
    asyncio.run(main())
    assert len(calls.seen) == 2


def test_the_event_loop_goes_on_while_the_cache_is_asked(cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    @cache.cached
    async def f(x: int) -> int:
        return x

    peek = type(cache).peek

    def slow(self: Any, *args: Any, **kwargs: Any) -> Any:
        time.sleep(0.3)
        return peek(self, *args, **kwargs)

    monkeypatch.setattr(type(cache), "peek", slow)

    async def main() -> int:
        task = asyncio.create_task(f(1))  # type: ignore[var-annotated]
        ticks = 0
        while not task.done():
            await asyncio.sleep(0.01)
            ticks += 1
        return ticks

    assert asyncio.run(main()) > 10


def test_a_cancelled_coroutine_leaves_no_lease_behind(cache: UnifiedCache) -> None:
    @cache.cached
    async def f(x: int) -> None:
        await asyncio.sleep(60)

    async def main(seconds: float) -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(f(1), seconds)

    for seconds in (0.001, 0.01, 0.1, 0.5):
        asyncio.run(main(seconds))
        assert cache.compute_leases.holder(f.key(1).hex) is None


def test_what_a_coroutine_raises_passes_untouched(cache: UnifiedCache) -> None:
    @cache.cached
    async def f(x: int) -> None:
        raise ValueError(x)

    with pytest.raises(ValueError, match="7"):
        asyncio.run(f(7))


# trouble


def test_a_broken_cache_costs_one_warning_and_no_result(
    broken: UnifiedCache, calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    @broken.cached
    def f(x: int) -> Any:
        return calls(x)

    @broken.cached
    async def g(x: int) -> Any:
        return calls(x)

    assert [f(1), f(1), f(2), asyncio.run(g(3))] == [1, 1, 2, 3]
    assert broken.get_or_compute(calls, 4) == 4
    warnings = [record.getMessage() for record in caplog.records if record.name == memoizing.__name__]
    assert len(warnings) == 1
    assert "StoreUnavailable" in warnings[0]
    assert "without the cache" in warnings[0]


def test_on_error_raise_raises(broken: UnifiedCache) -> None:
    with UnifiedCache(broken.config.but(on_error="raise")) as strict, pytest.raises(StoreUnavailable):
        strict.get_or_compute(len, [])


def test_a_value_that_cannot_be_stored_is_returned_with_a_warning(
    cache: UnifiedCache, caplog: pytest.LogCaptureFixture
) -> None:
    memoizing._logged.clear()

    @cache.cached
    def f(x: int) -> Any:
        return (n for n in range(x))

    assert list(f(2)) == list(f(2)) == [0, 1]
    assert sum("CodecError" in record.getMessage() for record in caplog.records) == 1
    assert cache.stats()["entries"] == 0


def test_a_failure_that_is_nobody_s_plan_does_not_reach_the_caller(
    cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    memoizing._logged.clear()
    monkeypatch.setattr(type(cache), "put", lambda *args, **kwargs: 1 / 0)
    assert cache.get_or_compute(len, [1]) == 1


def test_a_miss_says_why_when_the_log_wants_to_know(cache: UnifiedCache, caplog: pytest.LogCaptureFixture) -> None:
    @cache.cached
    def f(x: int) -> int:
        return x

    f(1)
    caplog.clear()
    with caplog.at_level(logging.INFO, lookup.__name__):
        f(2)
    (line,) = [record.getMessage() for record in caplog.records if record.name == lookup.__name__]
    assert "miss: arg `x` 1 -> 2; nearest entry" in line


# pickling


def _in_child(data: bytes, queue: Any) -> None:
    f = pickle.loads(data)
    queue.put((f(3), f.key(3).hex))


@pytest.mark.slow
def test_a_wrapper_travels_to_another_process(cache: UnifiedCache) -> None:
    names: dict[str, Any] = {"cached": cache.cached, "__name__": "__main__"}
    exec("@cached(version=None)\ndef fact(n): return 1 if n < 2 else n * fact(n - 1)", names)
    fact = names["fact"]
    assert fact(3) == 6
    context = multiprocessing.get_context("spawn")
    for dumps in (pickle.dumps, cloudpickle.dumps):
        queue = context.Queue()
        child = context.Process(target=_in_child, args=(dumps(fact), queue))
        child.start()
        assert queue.get(timeout=60) == (6, fact.key(3).hex)
        child.join()
        queue.close()
        queue.join_thread()


def test_a_wrapper_found_by_its_name_is_pickled_by_its_name(
    cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "by_name", cache.cached(by_name))
    assert pickle.loads(pickle.dumps(by_name)) is by_name
    assert cloudpickle.loads(cloudpickle.dumps(by_name)) is by_name


def by_name(x: int) -> int:
    return x


def test_a_bound_wrapper_can_be_pickled(cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "run", cache.cached(by_name), raising=False)
    bound = pickle.loads(cloudpickle.dumps(Model(4).run))  # type: ignore[attr-defined]
    assert bound.__self__.bias == 4
