"""A result that is served has the type of the one that was computed; what would get another type is not stored."""

from __future__ import annotations

import array
import collections
import ctypes
import datetime as dt
import decimal
import enum
import fractions
import functools
import io
import ipaddress
import mmap
import operator
import pathlib
import pickle
import random
import re
import sys
import types
import uuid
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from cacheness import CodecError, UnifiedCache
from cacheness.keys import closed_digest


class Pair(NamedTuple):
    a: int
    b: int


class Text(str):
    __slots__ = ()


class Raw(bytes):
    pass


class Buffer(bytearray):
    pass


class Items(list[Any]):
    pass


class Table(dict[str, Any]):
    pass


class Ordered(collections.OrderedDict[str, Any]):
    pass


class Number(int):
    pass


class Real(float):
    pass


class Members(set[Any]):
    pass


class Fixed(frozenset[Any]):
    pass


class Row(tuple[Any, ...]):
    __slots__ = ()


class Array(np.ndarray[Any, Any]):
    pass


class Flags(enum.IntFlag):
    A = 1
    B = 2


class Word(enum.StrEnum):
    A = "a"


class Plain:
    """An attribute holds the value."""

    def __init__(self, held: Any) -> None:
        self.held = held


class Shy:
    """Pickles as what it stands for, as lazy objects do."""

    def __reduce__(self) -> Any:
        return (int, (7,))


def started(value: Iterator[Any]) -> Iterator[Any]:
    next(value)
    return value


STORED: dict[str, Callable[[], Any]] = {
    "memoryview": lambda: memoryview(b"abc"),
    "memoryview, writable": lambda: memoryview(bytearray(b"abc")),
    "memoryview, large": lambda: memoryview(bytes(5000)),
    "memoryview, large and writable": lambda: memoryview(bytearray(5000)),
    "memoryview, empty": lambda: memoryview(b""),
    "memoryview of integers": lambda: memoryview(array.array("h", [1, 2, 3, 4])),
    "memoryview of a matrix": lambda: memoryview(np.arange(12.0).reshape(3, 4).T),
    "memoryview of one number": lambda: memoryview(np.array(2.5)),
    "memoryview with gaps": lambda: memoryview(bytearray(range(200)))[::3],
    "memoryview with gaps, read-only": lambda: memoryview(bytes(range(200)))[::-2],
    "array": lambda: array.array("d", [1.0]),
    "bytes": lambda: b"x" * 5000,
    "bytearray": lambda: bytearray(5000),
    "bytearray subclass": lambda: Buffer(b"a"),
    "bytes subclass": lambda: Raw(b"a"),
    "str subclass": lambda: Text("a"),
    "list subclass": lambda: Items([1]),
    "dict subclass": lambda: Table(a=1),
    "int subclass": lambda: Number(1),
    "float subclass": lambda: Real(1),
    "set subclass": lambda: Members([1]),
    "frozenset subclass": lambda: Fixed([1]),
    "tuple subclass": lambda: Row([1]),
    "namedtuple": lambda: Pair(1, 2),
    "OrderedDict": lambda: collections.OrderedDict(a=1),
    "OrderedDict subclass": lambda: Ordered(a=1),
    "defaultdict": lambda: collections.defaultdict(list, a=[1]),
    "Counter": lambda: collections.Counter("aab"),
    "ChainMap": lambda: collections.ChainMap({"a": 1}, {}),
    "deque": lambda: collections.deque([1, 2], 2),
    "UserDict": lambda: collections.UserDict(a=1),
    "mappingproxy": lambda: types.MappingProxyType({"a": 1}),
    "SimpleNamespace": lambda: types.SimpleNamespace(a=1),
    "range": lambda: range(3),
    "slice": lambda: slice(1, 2),
    "dict_keys": lambda: {1: 2}.keys(),
    "dict_values": lambda: {1: 2}.values(),
    "dict_items": lambda: {1: 2}.items(),
    "odict_keys": lambda: collections.OrderedDict(a=1).keys(),
    "odict_items": lambda: collections.OrderedDict(a=1).items(),
    "list_iterator": lambda: started(iter([1, 2])),
    "tuple_iterator": lambda: iter((1, 2)),
    "str_iterator": lambda: iter("abc"),
    "map": lambda: map(int, ["1"]),
    "zip": lambda: zip([1], [2], strict=True),
    "enumerate": lambda: enumerate([1]),
    "complex": lambda: 1j,
    "flags": lambda: Flags.A | Flags.B,
    "StrEnum": lambda: Word.A,
    "Decimal": lambda: decimal.Decimal("1.10"),
    "Fraction": lambda: fractions.Fraction(1, 3),
    "timezone": lambda: dt.UTC,
    "UUID": lambda: uuid.UUID(int=1),
    "Path": lambda: pathlib.Path("a"),
    "PureWindowsPath": lambda: pathlib.PureWindowsPath("a"),
    "ip": lambda: ipaddress.ip_network("10.0.0.0/8"),
    "Pattern": lambda: re.compile("a", re.IGNORECASE),
    "StringIO": lambda: io.StringIO("a"),
    "BytesIO": lambda: io.BytesIO(b"a"),
    "partial": lambda: functools.partial(int, "1"),
    "itemgetter": lambda: operator.itemgetter(1),
    "Random": lambda: random.Random(1),
    "struct_time": lambda: dt.date(2026, 1, 1).timetuple(),
    "type": lambda: Plain,
    "exception": lambda: KeyError("a"),
    "bool of numpy": lambda: np.True_,
    "float of numpy": lambda: np.float32(1),
    "str of numpy": lambda: np.str_("a"),
    "bytes of numpy": lambda: np.bytes_(b"a"),
    "time of numpy": lambda: np.datetime64("2026-01-01"),
    "record of numpy": lambda: np.zeros(1, "i4,f8")[0],
    "array without dimensions": lambda: np.array(3),
    "array of objects without dimensions": lambda: np.array(None),
    "ndarray subclass": lambda: np.zeros(3).view(Array),
    "recarray": lambda: np.rec.array([(1, 2.0)], dtype="i4,f8"),
    "masked": lambda: np.ma.masked,
    "masked array": lambda: np.ma.masked_array([1], mask=[True]),
    "dtype": lambda: np.dtype("i4"),
    "Timestamp": lambda: pd.Timestamp("2026-01-01"),
    "RangeIndex": lambda: pd.RangeIndex(3),
    "NaT": lambda: pd.NaT,
}

NOT_STORED: dict[str, Callable[[], Any]] = {
    "memoryview of structures": lambda: memoryview(np.zeros(2, "i4,f8")),
    "memoryview of other byte order": lambda: memoryview(np.zeros(2, ">f8")),
    "memoryview, empty, of integers": lambda: memoryview(array.array("i")),
    "mmap": lambda: mmap.mmap(-1, 10),
    "ctypes array": lambda: (ctypes.c_char_p * 2)(b"a", b"b"),
    "generator": lambda: (n for n in [1]),
    "iterator of a dict": lambda: iter({1: 2}),
    "iterator of items": lambda: iter({1: 2}.items()),
    "reversed dict": lambda: reversed({1: 2}),
    "iterator of an OrderedDict": lambda: iter(collections.OrderedDict(a=1)),
    "iterator of a set": lambda: iter({1}),
    "text file": lambda: io.TextIOWrapper(io.BytesIO(b"a")),
    "weak reference": lambda: weakref.ref(Plain),
    "flat iterator": lambda: np.zeros(3).flat,
}

#: What pickle replaces without a word, and only reading back shows.
READ_BACK: dict[str, Callable[[], Any]] = {
    "PickleBuffer": lambda: pickle.PickleBuffer(b"abc"),
    "PickleBuffer, writable": lambda: pickle.PickleBuffer(bytearray(b"abc")),
    "PickleBuffer, large": lambda: pickle.PickleBuffer(bytes(5000)),
    "lazy object": lambda: Shy(),
}

AROUND: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "alone": (lambda value: value, lambda value: value),
    "in containers": (lambda value: [0, {"a": (value,)}], lambda value: value[1]["a"][0]),
    "in an attribute": (lambda value: [Plain(value)], lambda value: value[0].held),
    "beside code": (lambda value: (value, lambda: 0), lambda value: value[0]),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UnifiedCache]:
    with UnifiedCache(tmp_path_factory.mktemp("types")) as cache:
        yield cache


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("what", STORED)
def test_computed_and_served_have_the_same_type(cache: UnifiedCache, what: str, around: str) -> None:
    put_in, taken_out = AROUND[around]
    value = put_in(STORED[what]())
    computed, served = taken_out(value), taken_out(cache.get(cache.put(value, what=what, around=around)))
    assert type(served) is type(computed)
    if isinstance(computed, memoryview):
        assert (served.format, served.shape, served.readonly) == (computed.format, computed.shape, computed.readonly)
        assert served == computed
        assert closed_digest(served) == closed_digest(computed) is not None


#: Nothing looks into the attributes of what is read back.
REFUSED = [(what, around) for what in NOT_STORED for around in AROUND]
REFUSED += [(what, around) for what in READ_BACK for around in AROUND if around != "in an attribute"]


@pytest.mark.parametrize(("what", "around"), REFUSED)
def test_what_would_get_another_type_is_not_stored(cache: UnifiedCache, what: str, around: str) -> None:
    put_in = AROUND[around][0]
    value = {**NOT_STORED, **READ_BACK}[what]()
    with pytest.raises(CodecError, match=r"cannot be stored: .*\(.+\)|would be read back as a"):
        cache.put(put_in(value), what=what, around=around)
    assert cache.lookup(what=what, around=around) is None


def test_views_that_are_served_are_separate_objects(cache: UnifiedCache) -> None:
    key = cache.put(memoryview(bytearray(5000)), view=1)
    first, second = cache.get(key), cache.get(key)
    first[0] = 1
    assert second[0] == 0 == cache.get(key)[0]


def test_standard_output_is_stored_by_its_name(cache: UnifiedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    assert cache.get(cache.put([Plain(sys.stdout)], output=1))[0].held is sys.stdout


def test_a_hard_mask_stays_beside_code(cache: UnifiedCache) -> None:
    masked = np.ma.masked_array([1], mask=[False], hard_mask=True)
    assert cache.get(cache.put((masked, lambda: 0), mask=1))[0].hardmask


def test_the_message_says_what_it_would_become(cache: UnifiedCache, tmp_path: Path) -> None:
    with pytest.raises(CodecError, match=r"a tests\.codecs\.test_types\.Shy is not stored, .* as a builtins\.int"):
        cache.put({"a": [Shy()]}, lazy=1)
    (tmp_path / "text").write_text("a")
    with (
        (tmp_path / "text").open() as file,
        pytest.raises(CodecError, match=r"result\['log'\] \(TextIOWrapper\) .*another type"),
    ):
        cache.put({"log": file}, file=1)
