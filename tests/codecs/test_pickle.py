from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cacheness.codecs.pickle import PickleCodec
from cacheness.errors import CodecError
from cacheness.keys import digest_of
from cacheness.testing.contracts.codecs import CodecContract

CODEC = PickleCodec()


@dataclass
class Model:
    weights: list[float]
    name: str = "m"
    parts: dict[str, Any] = field(default_factory=dict)


def module_level(x: int) -> int:
    return x + 1


class TestPickleCodec(CodecContract):
    codec = CODEC
    values = (
        None,
        0,
        "text",
        b"x" * 200_000,
        "é" * 100_000,
        [1, (2, {3}), {"four": frozenset({5})}],
        Model([1.0, 2.0], parts={"a": Decimal("1.10")}),
        datetime(2026, 1, 1, tzinfo=UTC),
        UUID(int=5),
        Fraction(1, 3),
        Path("relative/file"),
        module_level,
        ValueError("a result may be an error"),
        ...,
    )

    def same(self, one: Any, other: Any) -> bool:
        return type(one) is type(other) and repr(one) == repr(other)


def payload(value: Any) -> bytes:
    return b"".join(CODEC.encode(value))


def come_back(value: Any) -> Any:
    return CODEC.decode(bytearray(payload(value)))


@pytest.mark.parametrize("mask", [[False, True, False], [False] * 3, np.ma.nomask], ids=["some", "false", "none"])
@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("held", [lambda array: array, lambda array: Model([array], parts={})])
def test_a_masked_array_keeps_what_its_mask_is(mask: Any, hard: bool, held: Callable[[Any], Any]) -> None:
    array = np.ma.array([1, 2, 3], mask=mask, hard_mask=hard, fill_value=7)
    found = come_back(held(array))
    found = found if isinstance(found, np.ma.MaskedArray) else found.weights[0]
    found[:] = [4, 5, 6]
    array[:] = [4, 5, 6]
    assert digest_of(found) == digest_of(array)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(max_size=3000)
TREES = st.recursive(
    LEAVES | st.sampled_from(["__main__", "__mp_main__"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=8,
)


@given(TREES)
def test_any_plain_data_comes_back(value: Any) -> None:
    assert come_back(value) == value


@given(st.lists(st.integers(0, 5000), max_size=6), st.booleans())
def test_arrays_of_any_size_come_back_writable_and_aligned(sizes: list[int], as_bytes: bool) -> None:
    arrays = [np.arange(size, dtype="u1" if as_bytes else "f8") for size in sizes]
    decoded = come_back(arrays)
    assert all(np.array_equal(one, other) for one, other in zip(decoded, arrays, strict=True))
    assert all(array.flags.writeable and array.flags.aligned for array in decoded)


def test_large_arrays_lie_at_multiples_of_64_in_the_one_buffer() -> None:
    memory = bytearray(payload({"a": np.arange(1000.0), "b": [np.ones((50, 40), order="F"), "text"]}))
    base = np.frombuffer(memory, np.uint8)
    decoded = CODEC.decode(memory)
    for array in (decoded["a"], decoded["b"][0]):
        assert np.shares_memory(array, base)
        assert (array.ctypes.data - base.ctypes.data) % 64 == 0
        array[...] = 0


def test_encoding_copies_neither_large_arrays_nor_large_byte_strings() -> None:
    array, text = np.ones(100_000), b"x" * 100_000
    parts = CODEC.encode({"array": array, "text": text})
    assert any(np.shares_memory(np.frombuffer(part, np.uint8), array) for part in parts)
    assert any(part is text for part in parts)


def test_a_read_only_array_stays_read_only_and_others_do_not() -> None:
    frozen = np.ones(1000)
    frozen.flags.writeable = False
    assert [array.flags.writeable for array in come_back([frozen, np.ones(1000)])] == [False, True]


def test_decoding_leaves_the_caller_s_bytes_alone() -> None:
    stored = payload(np.zeros(1000))
    kept = bytes(stored)
    CODEC.decode(stored)[:] = 9
    assert stored == kept


def test_a_value_without_large_buffers_opens_with_plain_pickle() -> None:
    assert pickle.loads(payload({"plain": [1, 2]})) == {"plain": [1, 2]}


def test_frames_that_arrow_refuses_come_back_writable() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0]}, index=pd.date_range("2026", periods=2))
    decoded = come_back(frame)
    pd.testing.assert_frame_equal(decoded, frame, check_freq=True)
    decoded.iloc[0, 0] = 5.0


@pytest.mark.parametrize("make", [lambda: lambda x: x + 1, lambda: partial(lambda x, y: x + y, 1)])
def test_functions_that_plain_pickle_refuses_come_back(make: Any) -> None:
    assert come_back(make())(2) == 3


SCRIPT = """
import sys
from dataclasses import dataclass
from cacheness.codecs.pickle import PickleCodec

@dataclass
class Point:
    x: int
    def twice(self):
        return helper(self.x)

def helper(x):
    return 2 * x

value = {"point": Point(21), "fn": helper, "type": Point}
sys.stdout.buffer.write(b"".join(PickleCodec().encode(value)))
"""


@pytest.mark.parametrize("name", ["__main__", "__mp_main__", "__prefect_loader_123__"])
def test_what_a_script_defines_can_be_read_by_another_process(name: str) -> None:
    wrapper = f"import sys, types; m = types.ModuleType({name!r}); sys.modules[{name!r}] = m; exec({SCRIPT!r}, vars(m))"
    ran = subprocess.run([sys.executable, "-c", wrapper], capture_output=True, check=True)
    decoded = CODEC.decode(bytearray(ran.stdout))
    assert decoded["point"].twice() == 42
    assert decoded["fn"](4) == 8
    assert decoded["type"](5).x == 5


class Halfway:
    """Pickles a megabyte, then fails."""

    def __reduce__(self) -> Any:
        return (list, ([b"x" * (1 << 20), Refuses()],))


class Refuses:
    def __reduce__(self) -> Any:
        raise ZeroDivisionError("half-way")


class Interrupted:
    def __reduce__(self) -> Any:
        raise KeyboardInterrupt


def test_a_value_that_fails_half_way_is_an_error_that_keeps_the_cause() -> None:
    with pytest.raises(CodecError, match="half-way") as caught:
        CODEC.encode([1, Halfway()])
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_interrupt_while_pickling_is_no_codec_error() -> None:
    with pytest.raises(KeyboardInterrupt):
        CODEC.encode([Interrupted()])


def test_what_does_not_pickle_is_named_with_its_path_and_type() -> None:
    model = Model([1.0], parts={"lock": threading.Lock()})
    with pytest.raises(CodecError, match=r"result\[1\]\['model'\]\.parts\['lock'\] \(lock\)"):
        CODEC.encode([0, {"model": model}])
    with pytest.raises(CodecError, match="generator"):
        CODEC.encode(x for x in ())


def test_a_structure_too_deep_to_pickle_is_a_short_error() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(CodecError) as caught:
        CODEC.encode(deep)
    assert len(str(caught.value)) < 1000
    while deep:  # taken apart by hand: freeing it in one go recurses as deep
        deep = deep.pop()


def test_a_cycle_comes_back_as_a_cycle() -> None:
    cycle: list[Any] = [1]
    cycle.append(cycle)
    decoded = come_back(cycle)
    assert decoded[1] is decoded


def test_a_class_that_has_gone_is_an_error_that_says_so() -> None:
    stored = payload(Model([1.0])).replace(b"\x05Model", b"\x05Modal")
    with pytest.raises(CodecError, match="moved or changed"):
        CODEC.decode(stored)


@given(st.integers(0, 2**64 - 1), st.integers(0, 40))
def test_sizes_that_lie_are_refused_before_anything_is_unpickled(size: int, place: int) -> None:
    stored = bytearray(payload([np.ones(1000), np.ones(500)]))
    start = len(stored) - 8 - place % 4 * 8
    assume(abs(size - int.from_bytes(stored[start : start + 8], "little")) >= 64)
    stored[start : start + 8] = size.to_bytes(8, "little")
    with pytest.raises(CodecError, match="sizes at their end"):
        CODEC.decode(stored)
