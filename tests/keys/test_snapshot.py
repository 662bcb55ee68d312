"""Large tables that code refers to are compared in a short time, and every change of them is seen."""

from __future__ import annotations

import array
import collections
import copy
import copyreg
import datetime as dt
import decimal
import itertools
import pickle
import threading
import types
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cacheness.keys import encode, fingerprint, register
from cacheness.keys.code import reader
from cacheness.keys.encode import Encoder, _handlers, _overrides
from cacheness.keys.snapshot import snapshot
from tests.keys.test_encode import THOROUGHLY, VALUES, neighbours

TABLES = VALUES.map(lambda value: [value])


@pytest.mark.slow
@given(TABLES, TABLES)
@THOROUGHLY
def test_equal_snapshots_mean_equal_encodings(one: Any, other: Any) -> None:
    if snapshot(one) and snapshot(one) == snapshot(other):
        assert encode(one) == encode(other)


@pytest.mark.slow
@given(TABLES, st.data())
@THOROUGHLY
def test_a_part_that_changed_changes_the_snapshot(value: Any, data: st.DataObject) -> None:
    changed = data.draw(neighbours(value))
    if snapshot(value) and encode(value) != encode(changed):
        assert snapshot(changed) != snapshot(value)


@pytest.mark.slow
@given(TABLES)
@THOROUGHLY
def test_an_unchanged_value_keeps_its_snapshot(value: Any) -> None:
    assert snapshot(value) == snapshot(value)


class Same(int):
    """Claims to be equal to everything, and to be made like a plain 1."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__

    def __reduce__(self) -> Any:
        return (int, (1,))


class Text(str):
    __slots__ = ()


class Pair(tuple):  # type: ignore[type-arg]
    __slots__ = ()


ALIKE: list[Any] = [
    b"x",
    bytearray(b"x"),
    memoryview(b"x"),
    memoryview(bytearray(b"x")),
    pickle.PickleBuffer(b"x"),
    pickle.PickleBuffer(bytearray(b"x")),
    array.array("b", b"x"),
    "x",
    Text("x"),
    1,
    True,
    1.0,
    Same(1),
    0.0,
    -0.0,
    0,
    False,
    None,
    1 + 0j,
    decimal.Decimal(1),
    decimal.Decimal("1.0"),
    (1, 2),
    [1, 2],
    Pair((1, 2)),
    {1, 2},
    frozenset({1, 2}),
    {1: 2},
    {1: 2, 3: 4},
    {3: 4, 1: 2},
    collections.OrderedDict({1: 2}),
    collections.defaultdict(int, {1: 2}),
    collections.defaultdict(list, {1: 2}),
    collections.Counter({1: 2}),
    collections.deque([1, 2]),
    collections.deque([1, 2], 5),
    types.MappingProxyType({1: 2}),
    dt.date(2020, 1, 1),
    dt.datetime(2020, 1, 1),  # noqa: DTZ001 - without a zone it is another value
    dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
    dt.datetime(2020, 1, 1, tzinfo=dt.timezone(dt.timedelta(0), "Z")),
    dt.time(1),
    dt.time(1, fold=1),
    int,
    bool,
    [[1], [2]],
    [[1, 2], []],
]


def test_values_that_are_easily_confused_have_other_snapshots() -> None:
    found = {at: snapshot([value]) for at, value in enumerate(ALIKE)}
    known = {at: digest for at, digest in found.items() if digest}
    assert len(set(known.values())) == len(known)
    unknown = {type(ALIKE[at]) for at in found.keys() - known.keys()}
    assert unknown == {
        *(memoryview, pickle.PickleBuffer, array.array, Text, Same, Pair, collections.Counter, types.MappingProxyType)
    }


def test_shared_parts_do_not_hide_a_change() -> None:
    part = [1]
    assert encode([part, part]) == encode([part, [1]])
    assert snapshot([part, part]) != snapshot([part, [2]])
    endless: list[Any] = [part]
    endless.append(endless)
    other: list[Any] = [part]
    other.append([part, other])
    assert snapshot(endless) == snapshot(endless) != snapshot(other)
    assert encode(endless) != encode(other)


def test_what_others_taught_pickle_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(copyreg.dispatch_table, decimal.Decimal, lambda _: (int, (0,)))
    monkeypatch.setitem(copyreg.dispatch_table, Text, lambda _: (int, (0,)))
    assert snapshot([decimal.Decimal(1)]) != snapshot([decimal.Decimal(2)])
    assert not snapshot([Text("a")])


@pytest.fixture
def _as_it_was() -> Any:
    handlers, overrides = dict(_handlers), dict(_overrides)
    yield
    _handlers.clear()
    _handlers.update(handlers)
    _overrides.clear()
    _overrides.update(overrides)


@pytest.mark.usefixtures("_as_it_was")
def test_where_a_built_in_type_counts_by_a_function_there_is_no_snapshot() -> None:
    assert snapshot({"a": 1})
    register(dict, len)
    assert not snapshot([])
    _overrides.clear()
    register(object, id)
    assert not snapshot([])


def test_what_is_too_deep_or_is_changed_meanwhile_has_none() -> None:
    deep: list[Any] = []
    for _ in range(100_000):  # C has a limit of its own since Python 3.12
        deep = [deep]
    assert not snapshot(deep)
    assert not snapshot({"lock": threading.Lock()})


TABLE: Any = {}


def look_up(x: Any) -> Any:
    return TABLE[x]


def deepest(value: Any) -> Any:
    """The innermost list of a table."""
    return value["z"][-1]["k"][0]


CHANGES: list[Callable[[Any], Any]] = [
    lambda table: table.update(a=1.0),
    lambda table: table.update(a=True),
    lambda table: table.update(b=bytearray(b"x")),
    lambda table: table.update(a=table.pop("a")),
    lambda table: table.update(new=None),
    lambda table: table.pop("a"),
    lambda table: deepest(table).append(0),
    lambda table: deepest(table).insert(0, deepest(table).pop()),
    lambda table: deepest(table).__setitem__(0, Same(1)),
    lambda table: table["z"].append(table["z"][0]),
    lambda table: table["s"].add("other"),
    lambda table: table["s"].__ior__({0}),
    lambda table: table["t"][0].clear(),
    lambda table: table["q"].rotate(1),
]


def made() -> Any:
    table: dict[Any, Any] = {"a": 1, "b": b"x"} | {f"word{at}": at for at in range(500)}
    return table | {
        "z": [{}, {"k": ([1, 2],)}],
        "s": {"one", "two"},
        "t": ([3],),
        "q": collections.deque([1, 2]),
        "d": dt.date(2020, 1, 1),
    }


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_in_place_is_seen_at_any_depth(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any]) -> None:
    monkeypatch.setitem(look_up.__globals__, "TABLE", made())
    before = fingerprint(look_up).digest
    assert fingerprint(look_up).digest == before
    change(TABLE)
    after = fingerprint(look_up).digest
    assert after != before
    monkeypatch.setitem(look_up.__globals__, "TABLE", made())
    assert fingerprint(look_up).digest == before
    change(TABLE)
    assert fingerprint(look_up).digest == after


def test_another_table_at_the_same_place_in_memory_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = {}
    for at in itertools.chain(range(20), range(20)):
        monkeypatch.setitem(look_up.__globals__, "TABLE", {"a": [at] * 100})
        assert digests.setdefault(at, fingerprint(look_up).digest) == fingerprint(look_up).digest
    assert len(set(digests.values())) == 20


@pytest.mark.parametrize(
    "table",
    [
        {f"word{at}": at for at in range(20_000)},
        [at / 7 for at in range(20_000)],
        {str(at): {"day": dt.date(2020, 1, 1), "tags": ["a", "b"], "at": (at, None)} for at in range(5_000)},
        {f"{at}" for at in range(5_000)},
        collections.OrderedDict({at: decimal.Decimal(at) for at in range(5_000)}),
    ],
)
def test_an_unchanged_table_is_not_encoded_again(monkeypatch: pytest.MonkeyPatch, table: Any) -> None:
    monkeypatch.setitem(look_up.__globals__, "TABLE", table)
    before = fingerprint(look_up).digest
    added = []

    def count(encoder: Encoder, value: Any) -> None:
        added.append(value)
        add(encoder, value)

    add = Encoder.add
    monkeypatch.setattr(Encoder, "add", count)
    assert fingerprint(look_up).digest == before
    assert len(added) < 100
    same = copy.deepcopy(table)
    monkeypatch.setitem(look_up.__globals__, "TABLE", same)
    assert fingerprint(look_up).digest == before


def test_a_table_that_changes_while_it_is_read_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"a": 1}
    read = reader.Reader.run

    def change_first(self: Any, value: Any, path: str) -> None:
        if value is table:
            table["a"] += 1  # as another thread might
        read(self, value, path)

    with monkeypatch.context() as patched:
        patched.setattr(reader.Reader, "run", change_first)
        found = reader.read(table, "", {})
    assert not found.snapshot
    assert found.is_still({"a": 2})
    assert not found.is_still({"a": 1})


@given(st.dictionaries(st.text(max_size=3), st.lists(st.integers() | st.floats()), min_size=1))
@settings(max_examples=40, deadline=None)
def test_reading_keeps_what_tells_that_it_is_unchanged(table: Any) -> None:
    found = reader.read(table, "", {})
    assert found.snapshot == snapshot(table)
    assert found.is_still(table)
