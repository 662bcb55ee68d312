"""Keys: what they are made of, and what an entry keeps of that."""

from __future__ import annotations

import datetime as dt
import json
import pathlib
import pickle
import sys
from enum import StrEnum
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from cacheness import CodecError
from cacheness.keys import (
    RESERVED,
    Digest,
    Key,
    arguments_of,
    digest_of_argument,
    encode,
    fingerprint,
    make_key,
    register,
)
from cacheness.keys.encode import FORMAT
from cacheness.keys.key import KEPT


def double(x: int) -> int:
    return helper(x) * FACTOR


def helper(x: int) -> int:
    return x


FACTOR = 2
#: `cacheness.keys.encode` and `key` are functions there, too.
encoding, key_module = sys.modules["cacheness.keys.encode"], sys.modules["cacheness.keys.key"]


def again(key: Key) -> Key:
    """The key that an entry's arguments make."""
    found = arguments_of(key.args)
    nested = found.pop("args", {})
    options = {name: found.pop(name) for name in ("prefix", "version", "function") if name in found}
    return make_key(args={**found, **nested}, **options)


CALLS: list[dict[str, Any]] = [
    {"args": {}},
    {"args": {"x": 1}},
    {"args": {"x": 1}, "prefix": "p"},
    {"args": {"x": 1}, "version": ""},
    {"args": {"x": 1}, "version": "1"},
    {"args": {"x": 1}, "function": double},
    {"args": {"x": 1}, "function": double, "version": "1"},
    {"args": {"x": 1}, "function": helper},
    {"args": {"x": True}},
    {"args": {"x": 1.0}},
    {"args": {"y": 1}},
    {"args": {"prefix": "p", "x": 1}},
    {"args": {"prefix": "p", "ttl": 3, "args": {"x": 1}, "key": "k"}},
    {"args": {"args": {"x": 1}}},
    {"args": {"x": {"x": 1}}},
    {"args": {"x": (1, dt.datetime(2020, 1, 1, tzinfo=dt.UTC), {"a", None}, b"\0")}},
    {"args": {"x": np.arange(5)}},
    {"args": {"x": "x" * KEPT}},
    {"args": {"x": list(range(100_000))}},
    {"args": {"x": pathlib.Path(__file__)}},
    {"args": {"x": double}},
    {"args": {"x": int}},
    {"args": {"x": Digest(bytes(32), "label")}},
]


def test_different_calls_have_different_keys_and_their_arguments_make_them_again() -> None:
    keys = [make_key(**call) for call in CALLS]
    assert len({key.digest for key in keys}) == len(CALLS)
    assert [again(key) for key in keys] == keys
    assert [again(again(key)) for key in keys] == keys


def test_options_clash_with_no_argument() -> None:
    key = make_key(args=dict.fromkeys(RESERVED, 1) | {"x": 2}, prefix="p")
    assert arguments_of(key.args) == {"x": 2, "prefix": "p", "args": dict.fromkeys(RESERVED, 1)}


def test_a_long_argument_is_kept_as_its_digest_and_so_is_one_that_cannot_be_rebuilt() -> None:
    found = arguments_of(make_key(args={"long": "x" * KEPT, "short": "x" * 100, "array": np.zeros(3)}).args)
    assert isinstance(found["long"], Digest)
    assert isinstance(found["array"], Digest)
    assert found["short"] == "x" * 100
    assert "ndarray" in found["array"].label
    assert len(make_key(args={"x": "x" * 1_000_000}).args) < 300


def test_the_digest_of_a_fingerprint_stands_for_the_function() -> None:
    stands = Digest(fingerprint(double).digest, "double")
    assert make_key(args={}, function=stands) == make_key(args={}, function=double)
    assert make_key(args={}, function=stands).function == "double"
    assert make_key(args={}, function=double).function == f"{__name__}:double"


def test_a_key_tells_of_the_values_as_they_were_when_it_was_made() -> None:
    items = [1, 2]
    key = make_key(args={"items": items})
    items.append(3)
    assert arguments_of(key.args) == {"items": [1, 2]}
    assert json.loads(key.components)["args"]["items"][1] == "[1, 2]"


def test_parts_name_what_decided_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    key = make_key(args={"x": 1}, function=double)
    found = key.all_components
    assert list(json.loads(key.components)) == ["args"]
    assert found["args"]["x"][1] == "1"
    names = {name.rpartition(".")[2] for name in found["code"]}
    assert names == {"double", "helper"}
    assert [name.rpartition(".")[2] for name in found["values"]] == ["FACTOR"]
    assert "python" in found["versions"]
    monkeypatch.setitem(globals(), "FACTOR", 3)
    assert make_key(args={"x": 1}, function=double).all_components["values"] != found["values"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.5, "0.5"),
        ("a" * 100, "'aaaa"),
        (np.zeros((3, 2)), "<ndarray "),
        (list(range(100_000)), "<long list "),
        (double, "<double "),
        (pathlib.Path(__file__), "<file "),
        (Digest(bytes(32), "df"), "df"),
        pytest.param(16**4000, "<int>", id="a long number"),
        pytest.param([16**4000], "<list>", id="with a long number"),
    ],
)
def test_an_argument_is_described_in_a_few_words(value: Any, words: str) -> None:
    description = json.loads(make_key(args={"x": value}).components)["args"]["x"][1]
    assert description.startswith(words)
    assert len(description) <= 60


def test_keys_compare_hash_and_travel_by_their_digest() -> None:
    key = make_key(args={"x": 1}, prefix="p", function=double)
    copy = pickle.loads(pickle.dumps(key))
    assert copy == key
    assert (copy.hex, copy.function, copy.prefix, copy.args, copy.components) == (
        key.hex,
        f"{__name__}:double",
        "p",
        key.args,
        key.components,
    )
    assert copy.code == key.code == fingerprint(double).code
    assert len({key, copy}) == 1
    assert key != make_key(args={"x": 2})
    assert Key(bytes(32)).args == encode({})


def test_arguments_that_are_no_mapping_are_refused() -> None:
    with pytest.raises(CodecError):
        arguments_of(encode([1]))
    with pytest.raises(CodecError):
        arguments_of(b"")


SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers()
NAME = st.text(max_size=20)
KEPT_ARGUMENTS = st.dictionaries(
    NAME.filter(lambda name: name not in RESERVED), SCALAR | st.lists(SCALAR, max_size=2), max_size=4
)
FINGERPRINT = st.binary(min_size=32, max_size=32)


@settings(max_examples=50)
@given(
    st.dictionaries(NAME, SCALAR, max_size=4), NAME, st.none() | NAME, st.none() | st.binary(min_size=32, max_size=32)
)
def test_the_short_way_to_a_key_gives_what_the_encoder_gives(arguments, prefix, version, fingerprint):
    digests = {name: blake3(encode(value)).digest() for name, value in arguments.items()}
    assert {name: digest_of_argument(name, value) for name, value in arguments.items()} == digests
    assert key_module._digest(fingerprint, version, prefix, digests) == by_encoder(
        fingerprint, version, prefix, digests
    )


@settings(max_examples=50)
@given(
    st.dictionaries(NAME.filter(lambda name: name not in RESERVED), SCALAR | st.lists(SCALAR, max_size=2), max_size=4)
)
def test_the_short_way_to_kept_arguments_gives_what_the_encoder_gives(arguments):
    assert make_key(args=arguments).args == encode(dict(sorted(arguments.items())))
    assert make_key(args=arguments, prefix="p").args == encode({**dict(sorted(arguments.items())), "prefix": "p"})


def test_many_kept_arguments_give_what_the_encoder_gives():
    arguments = {f"a{n:04}": n for n in range(9_000)}
    assert make_key(args=arguments).args == encode(arguments)


@pytest.mark.parametrize("names", [["a"], ["a" * 70_000], [f"a{n}" for n in range(3_000)], ["\udc80"], [1, 2], [True]])
def test_long_and_odd_names_of_arguments_give_what_the_encoder_gives(names):
    digests = {name: bytes(32) for name in names}
    assert key_module._digest(None, "1", "", digests) == by_encoder(None, "1", "", digests)


def by_encoder(fingerprint, version, prefix, digests):
    in_order = {name: digests[name] for name in sorted(digests)}
    return blake3(encode((FORMAT, fingerprint, version, prefix, in_order))).digest()


@pytest.fixture
def own_registry(monkeypatch):
    """What a test registers ends with it."""
    for name in ("_handlers", "_overrides", "_unregistered"):
        monkeypatch.setattr(encoding, name, dict(getattr(encoding, name)))


class Group(StrEnum):
    ONE = "one"
    TWO = "two"


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize("kind", [str, bytes, int, tuple, dict, frozenset])
@pytest.mark.parametrize("count", [1, 3000])
def test_what_is_registered_for_built_in_types_is_for_arguments_alone(kind, count):
    many = {f"a{n}": 1.5 for n in range(count)}
    before = make_key(args=many, prefix="group", version="1")
    register(kind, lambda _: 0)
    assert make_key(args=many, prefix="group", version="1") == before
    assert make_key(args={**many, "a0": 2.5}, prefix="group", version="1") != before
    assert make_key(args={"b" + name: value for name, value in many.items()}, prefix="group", version="1") != before
    assert make_key(args=many, prefix=Group.ONE) != make_key(args=many, prefix=Group.TWO)


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize("kind", [str, dict, Digest])
def test_what_is_registered_for_names_and_options_does_not_change_what_a_row_keeps_of_them(kind):
    call = {"args": {"x": 1, "prefix": 2}, "prefix": "group", "version": "1"}
    before = make_key(**call).args
    register(kind, lambda _: 0)
    assert make_key(**call).args == before


@pytest.mark.usefixtures("own_registry")
def test_a_function_for_a_subclass_is_for_arguments_alone_too():
    register(str, len)
    make_key(args={"x": Group.ONE})
    register(Group, lambda _: 0)
    assert make_key(args={}, prefix=Group.ONE) != make_key(args={}, prefix=Group.TWO)


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize(
    ("kind", "codes"),
    [
        (float, ("a * 1e-9", "a * 3e-9")),
        (int, ("a * 2", "a * 3")),
        (str, ("a + 'b'", "a + 'c'")),
        (bytes, ("a + a", "a * a")),
        (bytes, ("a + b'x'", "a + b'y'")),
        (tuple, ("a in (1, 2)", "a in (1, 3)")),
        (frozenset, ("a in {1, 2}", "a in {1, 3}")),
        (complex, ("a * 1j", "a * 2j")),
    ],
)
def test_what_is_registered_for_a_type_does_not_hold_for_constants_of_code(kind, codes):
    register(kind, lambda _: "all the same")
    one, other = (make_key(args={}, function=eval(f"lambda a: {code}")) for code in codes)
    assert one != other


@pytest.mark.usefixtures("own_registry")
def test_a_scalar_that_something_else_is_registered_for_counts_as_that():
    before = make_key(args={"x": 1})
    register(int, lambda value: f"{value}"[-1])
    assert make_key(args={"x": 1}) == make_key(args={"x": 11}) != before
