"""Tests for every codec. Subclass `CodecContract` and give it a codec and values.

class TestNumpyCodec(CodecContract):
    codec = NumpyCodec()
    values = (np.arange(3), np.zeros((2, 0)))
    refused = ([1, 2, 3],)

    def same(self, one, other):
        return one.dtype == other.dtype and np.array_equal(one, other)
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import pytest

from cacheness.errors import CodecError, CorruptEntry
from cacheness.protocols import Buffer, Codec


class CodecContract:
    """The rules of the `Codec` protocol, as tests."""

    codec: ClassVar[Codec]
    values: ClassVar[tuple[Any, ...]]  #: every one must be accepted
    refused: ClassVar[tuple[Any, ...]] = ()  #: every one must be rejected

    def same(self, one: Any, other: Any) -> bool:
        """Return True when two values are equal in everything that a caller may notice."""
        return type(one) is type(other) and bool(one == other)

    def payload(self, value: Any) -> bytes:
        """Return the encoded value in one piece."""
        return b"".join(self.codec.encode(value))

    def test_the_name_fits_into_a_row(self) -> None:
        assert re.fullmatch(r"[a-z0-9-]{1,32}", self.codec.name)

    def test_values_come_back_the_same(self) -> None:
        for value in self.values:
            assert self.codec.accepts(value), value
            assert self.same(self.codec.decode(bytearray(self.payload(value))), value), value

    def test_values_come_back_the_same_from_memory_that_cannot_be_written(self) -> None:
        for value in self.values:
            assert self.same(self.codec.decode(self.payload(value)), value), value

    def test_values_come_back_the_same_from_a_slice_of_memory(self) -> None:
        for value in self.values:
            payload = self.payload(value)
            memory = memoryview(bytearray(b"abc" + payload))
            assert self.same(self.codec.decode(memory[3:]), value), value

    def test_encoding_leaves_the_value_as_it_was(self) -> None:
        for value in self.values:
            first = self.payload(value)
            assert self.same(self.codec.decode(first), value)
            assert self.same(self.codec.decode(self.payload(value)), value)

    def test_the_payload_is_made_of_bytes(self) -> None:
        for value in self.values:
            for part in self.codec.encode(value):
                view = memoryview(part)
                assert (view.format, view.ndim, view.contiguous) == ("B", 1, True)

    def test_what_is_not_accepted_is_left_to_others(self) -> None:
        for value in self.refused:
            assert not self.codec.accepts(value), value

    def test_bytes_of_something_else_are_an_error_of_ours(self) -> None:
        for garbage in (b"", b"\0", b"garbage", bytes(64), b"\xff" * 100):
            self._is_refused(garbage)

    def test_bytes_that_are_cut_short_are_an_error_of_ours(self) -> None:
        for value in self.values:
            payload = self.payload(value)
            for length in {len(payload) - 1, len(payload) // 2, 1, 0}:
                self._is_refused(payload[:length])

    def _is_refused(self, data: Buffer) -> None:
        with pytest.raises((CodecError, CorruptEntry)):
            self.codec.decode(data)
