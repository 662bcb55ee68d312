"""Why a call would miss: told against the nearest earlier entry, as text and as data."""
# ruff: noqa: NPY002 - the process-wide generator is meant

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import random
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from cacheness import UnifiedCache
from cacheness.keys import FunctionCode, Key, make_key
from cacheness.memoize.explain import explain
from cacheness.records import MICROSECONDS, Entry

NOW = 10**15
HOUR = 3600 * MICROSECONDS


#: The code of every key that an entry was made of.
KNOWN: dict[bytes, FunctionCode] = {}


def entry_of(key: Key, age: int = 2 * HOUR) -> Entry:
    """An entry as a store has it."""
    if key.code is not None:
        KNOWN[key.code.digest] = key.code
    given: dict[str, Any] = {
        "key": key.digest,
        "function": key.function,
        "prefix": key.prefix,
        "args": key.args,
        "components": key.components,
        "fn": None if key.code is None else key.code.digest,
        "created_at": NOW - age,
    }
    other: dict[str, Any] = {f.name: None for f in dataclasses.fields(Entry)}
    return Entry(**{**other, **given})


def module(helper: str = "x + 1", limit: int = 3) -> Any:
    made = types.ModuleType("helpers")
    made.__file__ = "/somewhere/helpers.py"
    exec(
        f"LIMIT = {limit}\ndef normalise(x): return {helper}\ndef clean(x, threshold=0.5): return normalise(x) * LIMIT",
        vars(made),
    )
    return made


def key_of(made: Any, **options: Any) -> Key:
    options = {"args": {"x": 1, "threshold": 0.5}, **options}
    return make_key(function=made.clean, **options)


def test_a_miss_names_what_changed_and_since_when() -> None:
    before = entry_of(key_of(module()))
    found = explain(key_of(module("x + 2"), args={"x": 1, "threshold": 0.6}), [before], KNOWN, NOW)
    assert str(found) == (
        "miss: code of `helpers.normalise` changed; arg `threshold` 0.5 -> 0.6; "
        f"nearest entry {before.cache_key[:4]}… from 2 h ago"
    )
    assert not found.hit
    assert json.loads(json.dumps(found.as_dict()))["changes"] == [
        {**found.as_dict()["changes"][0], "kind": "code", "name": "helpers.normalise"},
        {"kind": "arg", "name": "threshold", "before": "0.5", "after": "0.6"},
    ]


def test_a_hit_says_so() -> None:
    key = key_of(module())
    found = explain(key, [entry_of(key, age=5 * MICROSECONDS)], KNOWN, NOW)
    assert found.hit
    assert str(found) == f"hit: entry {key.hex[:4]}… of `helpers.clean` from 5 s ago"


def test_without_earlier_entries_it_says_that() -> None:
    assert str(explain(key_of(module()), [], KNOWN, NOW)) == "miss: no earlier entry of `helpers.clean`"


def test_the_entry_with_the_fewest_changes_is_the_nearest_and_among_equals_the_latest() -> None:
    far = entry_of(key_of(module("x + 3"), args={"x": 9, "threshold": 9}), age=1)
    old, new = (
        entry_of(key_of(module(), args={"x": n, "threshold": 0.5}), age=age) for n, age in ((2, 9 * HOUR), (3, HOUR))
    )
    assert explain(key_of(module()), [far, old, new], KNOWN, NOW).nearest == new.cache_key


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ({}, {"prefix": "p"}, "prefix 'p' is new"),
        ({"prefix": "p"}, {"prefix": "q"}, "prefix 'p' -> 'q'"),
        ({"version": "1"}, {"version": "2"}, "version '1' -> '2'"),
        ({"args": {"x": 1}}, {"args": {"x": 1, "y": 2}}, "arg `y` 2 is new"),
        ({"args": {"x": 1, "y": 2}}, {"args": {"x": 1}}, "arg `y` 2 is gone"),
        ({"args": {"x": "a" * 99 + "b"}}, {"args": {"x": "a" * 99 + "c"}}, "arg `x` changed"),
    ],
)
def test_options_and_arguments_that_changed_are_named(before: Any, after: Any, sentence: str) -> None:
    found = explain(key_of(module(), **after), [entry_of(key_of(module(), **before))], KNOWN, NOW)
    assert [str(change) for change in found.changes] == [sentence]


def test_a_global_that_changed_is_named() -> None:
    found = explain(key_of(module(limit=4)), [entry_of(key_of(module()))], KNOWN, NOW)
    assert [str(change) for change in found.changes] == ["value of `helpers.LIMIT` changed"]


class Scale:
    """Called itself, or by a method."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, x: int) -> int:
        return self.factor * x

    def of(self, x: int) -> int:
        return self.factor * x


def power(base: int, exponent: int, /) -> int:
    return base**exponent


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda number: functools.partial(power, number), "the bound arguments changed"),
        (lambda number: Scale(number).of, "the object of the method changed"),
        (lambda number: Scale(number), "the object that is called changed"),
        (lambda number: functools.partial(Scale(number), number), "the bound arguments changed"),
    ],
)
def test_what_a_function_holds_is_named_when_it_changed(make: Any, what: str) -> None:
    before = entry_of(make_key(function=make(2), args={"x": 1}))
    assert str(explain(make_key(function=make(3), args={"x": 1}), [before], KNOWN, NOW)).startswith(
        f"miss: {what}; nearest"
    )
    other = str(explain(make_key(function=make(2), args={"x": 5}), [before], KNOWN, NOW))
    assert other.startswith("miss: arg `x` 1 -> 5; nearest")


def test_a_helper_that_is_new_is_named() -> None:
    made = module()
    exec("def normalise(x): return extra(x)\ndef extra(x): return x", vars(made))
    found = explain(key_of(made), [entry_of(key_of(module()))], KNOWN, NOW)
    assert [str(change) for change in found.changes] == [
        "code of `helpers.extra` is reached now",
        "code of `helpers.normalise` changed",
    ]


def test_a_library_s_other_version_is_named() -> None:
    key = key_of(module())
    assert key.code is not None
    parts = {**key.code.data, "versions": {**key.code.data["versions"], "numpy": "1.0"}}
    code = FunctionCode(key.code.name, key.code.module, json.dumps(parts))
    other = Key(bytes(32), "helpers:clean", "", key.args, key.components, code=code)
    found = explain(key, [entry_of(other)], KNOWN, NOW)
    assert [str(change) for change in found.changes] == ["numpy 1.0 is no longer used"]


def test_of_code_that_nobody_knows_any_more_nothing_is_said() -> None:
    before = entry_of(key_of(module("x + 2")))
    found = explain(key_of(module(), args={"x": 1, "threshold": 0.6}), [before], {}, NOW)
    assert [str(change) for change in found.changes] == ["arg `threshold` 0.5 -> 0.6"]
    assert "what leads to what in the code changed" in str(explain(key_of(module()), [before], {}, NOW))


def test_a_closure_that_changed_is_named() -> None:
    def make(n: int) -> Any:
        return lambda x: x + n

    one, other = (make_key(args={}, function=make(n)) for n in (2, 3))
    found = explain(one, [entry_of(other)], KNOWN, NOW)
    (change,) = found.changes
    assert (change.kind, change.name.rpartition(": ")[2]) == ("value", "n")


@pytest.fixture
def cache(tmp_path: pathlib.Path) -> Iterator[UnifiedCache]:
    with UnifiedCache(cache_dir=tmp_path) as cache:
        yield cache


def test_the_cache_explains_without_computing(cache: UnifiedCache) -> None:
    ran: list[int] = []

    def clean(x: int) -> int:
        ran.append(x)
        return x

    assert not cache.explain(clean, 1).hit
    assert ran == []
    cache.get_or_compute(clean, 1)
    assert cache.explain(clean, 1).hit
    assert cache.explain(clean, x=1).hit
    assert "arg `x` 1 -> 2" in str(cache.explain(clean, 2))
    assert ran == [1]


def test_a_decorated_function_explains_with_its_own_options(cache: UnifiedCache) -> None:
    @cache.cached(ignore=("y",), prefix="p")
    def f(x: int, y: int = 0) -> int:
        return x

    f(1)
    assert f.explain(1, 5).hit
    assert cache.explain(f, 1, 7).hit
    assert "arg `x` 1 -> 2" in str(f.explain(2))


def test_what_is_not_followed_is_listed(cache: UnifiedCache) -> None:
    def f(x: str) -> Any:
        return eval(x)

    assert "not followed: " in str(cache.explain(f, "1"))
    assert "eval" in str(cache.explain(f, "1"))


def test_entries_that_were_put_by_name_alone_are_compared_too(cache: UnifiedCache) -> None:
    cache.put(1, x=1)
    found = explain(cache.key(x=2), cache.iter_entries(function=""), KNOWN, NOW)
    assert str(found).startswith("miss: arg `x` 1 -> 2; nearest entry")


def ordered(table: str) -> Any:
    made = types.ModuleType("helpers")
    made.__file__ = "/somewhere/helpers.py"
    exec(f"RULES = {table}\ndef clean(x): return [RULES[k] for k in RULES]", vars(made))
    return made


LONG = {f"column {n}": {"type": "int", "unit": "m", "at": n} for n in range(5000)}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ([0, {"a": {"x": 1, "y": 2}, "b": 2}], [0, {"b": 2, "a": {"y": 2, "x": 1}}]),
        (types.SimpleNamespace(a=1, b={"x": 1, "y": 2}), types.SimpleNamespace(a=1, b={"y": 2, "x": 1})),
        (LONG, dict(reversed(LONG.items()))),
        ([LONG, LONG], [dict(reversed(LONG.items()))] * 2),
    ],
    ids=["dict", "nested", "in an object", "long", "long, twice"],
)
def test_another_order_is_a_reason_of_its_own(one: Any, other: Any) -> None:
    before = entry_of(make_key(args={"config": one}))
    found = explain(make_key(args={"config": other}), [before], KNOWN, NOW)
    assert "`config` has the same items in another order" in str(found)
    assert [change.kind for change in found.changes] == ["order"]
    more = explain(make_key(args={"config": [other]}), [before], KNOWN, NOW)
    assert [change.kind for change in more.changes] == ["arg"]


def test_another_order_of_a_global_table_is_told_too() -> None:
    before = entry_of(make_key(function=ordered("{'a': 1, 'b': [2]}").clean, args={}))
    found = explain(make_key(function=ordered("{'b': [2], 'a': 1}").clean, args={}), [before], KNOWN, NOW)
    assert str(found).startswith("miss: `helpers.RULES` has the same items in another order;")
    changed = explain(make_key(function=ordered("{'b': [3], 'a': 1}").clean, args={}), [before], KNOWN, NOW)
    assert str(changed).startswith("miss: value of `helpers.RULES` changed;")


@pytest.mark.parametrize("draws", ["random", "numpy.random"])
def test_a_generator_that_moved_while_an_entry_was_computed_is_told(draws: str, tmp_path: pathlib.Path) -> None:
    state = random.getstate(), np.random.get_state()
    with UnifiedCache(cache_dir=tmp_path / "cache") as cache:

        @cache.cached
        def shuffled(x: int) -> list[int]:
            items = list(range(x))
            if draws == "random":
                random.seed(x)
                random.shuffle(items)
            else:
                np.random.seed(x)
                np.random.shuffle(items)
            return items

        @cache.cached
        def counted(x: int) -> list[int]:
            return list(range(x))

        try:
            shuffled(5), counted(5)
        finally:
            random.setstate(state[0])
            np.random.set_state(state[1])
        assert shuffled.explain(5).moved == (draws,)
        assert f"the process-wide generator of {draws}" in str(shuffled.explain(5))
        assert shuffled.explain(5).incomplete == ()
        assert shuffled.explain(5).hit
        assert counted.explain(5).moved == ()
