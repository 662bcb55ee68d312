from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from cacheness.codecs.numpy import NumpyCodec
from cacheness.errors import CodecError
from cacheness.testing.contracts.codecs import CodecContract

CODEC = NumpyCodec()
RECORD = np.dtype([("id", "<i4"), ("at", "M8[ms]"), ("name", "U3"), ("pair", ">f8", (2,))])


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return (
        type(one) is np.ndarray
        and one.dtype == other.dtype
        and one.shape == other.shape
        and one.flags.f_contiguous == other.flags.f_contiguous
        and one.flags.writeable
        and one.tobytes() == other.tobytes()
    )


class Subclass(np.ndarray):
    pass


class TestNumpyCodec(CodecContract):
    codec = CODEC
    values = (
        np.arange(1000.0),
        np.arange(6, dtype=">i2").reshape(2, 3),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.array(3.5),
        np.array([True, False]),
        np.zeros((0, 4), "f4"),
        np.array(["2026-01-01", "NaT"], "M8[D]"),
        np.array([1, 2], "m8[ns]"),
        np.array([b"ab", b""]),
        np.array(["é", "zz"]),
        np.array([1 + 2j, float("nan")]),
        np.zeros(2, "V5"),
        np.zeros(3, RECORD),
        np.float16([1.5]),
        np.longdouble([1.5]),
    )
    refused = (
        np.array([object()]),
        np.zeros(2, [("a", "O")]),
        np.ma.masked_array([1], [True]),
        np.arange(3).view(Subclass),
        np.zeros(2, np.dtype("f8", metadata={"unit": "m"})),
        np.zeros(2, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
        np.array(["variable", "width"], np.dtypes.StringDType()),
        np.zeros(1, {"names": ["a", "b"], "formats": ["i4", "i2"], "offsets": [0, 0]}),
        np.float64(3),
        [1, 2],
        None,
    )

    def same(self, one: Any, other: Any) -> bool:
        return same(one, other)


def plain_dtypes() -> st.SearchStrategy[np.dtype]:
    scalars = npst.scalar_dtypes()
    return scalars | npst.array_dtypes(scalars, allow_subarrays=True) | npst.nested_dtypes(scalars, max_leaves=4)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine
@given(st.data())
def test_any_plain_array_comes_back_and_opens_with_numpy_load(data: st.DataObject) -> None:
    array = data.draw(npst.arrays(data.draw(plain_dtypes()), npst.array_shapes(min_dims=0, min_side=0, max_side=4)))
    array = data.draw(st.sampled_from([array, array.T, np.asfortranarray(array)]))
    if not CODEC.accepts(array):
        assert array.dtype.names is not None, "only records may be too odd"
        return
    payload = b"".join(CODEC.encode(array))
    assert same(CODEC.decode(bytearray(payload)), array.copy(order="K"))
    loaded = np.load(io.BytesIO(payload))
    assert (loaded.dtype, loaded.shape, loaded.tolist().__repr__()) == (
        array.dtype,
        array.shape,
        array.tolist().__repr__(),
    )


def test_an_array_with_gaps_comes_back_by_its_values() -> None:
    sparse = np.arange(24).reshape(4, 6)[::2, ::3]
    assert np.array_equal(CODEC.decode(b"".join(CODEC.encode(sparse))), sparse)


@pytest.mark.parametrize("order", ["C", "F"])
def test_encoding_shares_the_array_s_memory(order: Any) -> None:
    array = np.ones((300, 200), order=order)
    payload = CODEC.encode(array)[1]
    assert np.shares_memory(np.frombuffer(payload, np.uint8), array)


def test_decoding_builds_on_the_memory_it_is_given() -> None:
    memory = bytearray(b"".join(CODEC.encode(np.arange(1000.0))))
    array = CODEC.decode(memory)
    assert np.shares_memory(array, np.frombuffer(memory, np.uint8))
    array[0] = 7.0
    assert array[0] == 7.0


def test_elements_are_aligned_within_the_blob() -> None:
    for array in (np.arange(3), np.zeros(2, RECORD)):
        assert len(CODEC.encode(array)[0]) % 64 == 0


def npy(header: str, body: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + body


@pytest.mark.parametrize(
    "payload",
    [
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", bytes(8)),
        npy("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,)}", bytes(8)),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}"),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}", bytes(8)),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}", bytes(9)),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (True,)}", bytes(8)),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': [1]}", bytes(8)),
        npy("{'descr': '|V0', 'fortran_order': False, 'shape': (99999999999999999999,)}"),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 99999999999999999999)}"),
        npy("{'descr': '<q9'}"),
        npy("__import__('os').getpid()"),
        npy("(" * 5000),
        npy("9" * 9000),
        b"\x93NUMPY\x02\x00" + bytes(60),
    ],
)
def test_headers_that_lie_are_refused(payload: bytes) -> None:
    with warnings.catch_warnings(), pytest.raises(CodecError):
        CODEC.decode(payload)
