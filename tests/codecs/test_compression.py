from __future__ import annotations

import os
import random
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cacheness.codecs import compression
from cacheness.codecs.compression import SUFFIX, compress, decompress
from cacheness.errors import CodecError, CorruptEntry

RANDOM = random.Random(1)
PARTS = st.lists(st.binary(max_size=50) | st.integers(0, 9000).map(bytes), max_size=4)


def joined(parts: Any) -> bytes:
    return b"".join(parts)


@given(PARTS)
def test_parts_come_back_joined_whether_compressed_or_not(parts: list[bytes]) -> None:
    stored, suffix = compress(parts)
    assert decompress(joined(stored), "any" + suffix, len(joined(parts))) == joined(parts)
    assert (len(joined(stored)) < len(joined(parts))) == (suffix == SUFFIX)


def test_what_does_not_shrink_is_stored_as_it_is() -> None:
    parts = [RANDOM.randbytes(100_000)]
    assert compress(parts) == (parts, "")


def test_small_values_are_left_alone() -> None:
    assert compress([bytes(4095)])[1] == ""
    assert compress([bytes(4096)])[1] == SUFFIX


def test_a_large_value_that_does_not_shrink_costs_one_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = zstandard.ZstdCompressor

    class Counting:
        def __init__(self, **options: Any) -> None:
            self.inner = real(**options)

        def compress(self, data: bytes) -> bytes:
            seen.append(len(data))
            return self.inner.compress(data)

    monkeypatch.setattr(zstandard, "ZstdCompressor", Counting)
    assert compress([b"header", os.urandom(8 << 20)])[1] == ""
    assert seen == [64 << 10]


@pytest.mark.parametrize("head", [0, 7, 3 << 20])
def test_a_value_whose_sample_promised_too_much_is_stored_as_it_is(head: int) -> None:
    size = 1 << 20
    windows = {n for n in range(compression._SAMPLES * 2) if n % 2}
    eighths = [bytes(size) if n in windows else os.urandom(size * 4) for n in range(compression._SAMPLES * 2)]
    parts = [bytes(head), *eighths]
    stored, suffix = compress(parts)
    assert decompress(joined(stored), "any" + suffix, len(joined(parts))) == joined(parts)
    assert len(joined(stored)) <= len(joined(parts))


def test_parts_may_be_any_bytes_and_are_compressed_as_one() -> None:
    parts = [memoryview(bytes(3 << 20)), bytearray(b"text" * 999), b"", bytes(5)]
    stored, suffix = compress(parts)
    assert suffix == SUFFIX
    assert zstandard.ZstdDecompressor().decompressobj().decompress(joined(stored)) == joined(parts)


def test_decompressed_memory_is_writable_and_large_ones_are_page_aligned() -> None:
    for size in (5000, 3 << 20):
        data = decompress(joined(compress([bytes(size)])[0]), "numpy+zstd", size)
        memoryview(data)[0] = 1


def test_a_bomb_fills_no_more_than_the_signed_size() -> None:
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(1 << 30))
    for signed in (0, 1, 4096, 3 << 20):
        with pytest.raises(CorruptEntry, match="more than"):
            decompress(bomb, "pickle+zstd", signed)


def test_a_frame_that_asks_for_a_huge_window_is_refused() -> None:
    greedy = zstandard.ZstdCompressionParameters(window_log=27, compression_level=1, write_content_size=0)
    frame = zstandard.ZstdCompressor(compression_params=greedy).compressobj()
    stored = frame.compress(os.urandom(1 << 20)) + frame.flush()
    with pytest.raises(CorruptEntry):
        decompress(stored, "pickle+zstd", 1 << 20)


@given(st.binary(max_size=200), st.integers(0, 300))
def test_garbage_is_corrupt(garbage: bytes, size: int) -> None:
    with pytest.raises(CorruptEntry):
        decompress(garbage + b"!", "numpy+zstd", size)


@pytest.mark.parametrize("change", [-1, 1, 4096])
def test_another_size_than_the_signed_one_is_corrupt(change: int) -> None:
    stored, suffix = compress([b"ab" * 5000])
    with pytest.raises(CorruptEntry):
        decompress(joined(stored), "numpy" + suffix, 10_000 + change)
    with pytest.raises(CorruptEntry):
        decompress(bytes(10_000), "numpy", 10_000 + change)


def test_bytes_after_the_end_are_corrupt() -> None:
    stored, suffix = compress([b"ab" * 5000])
    for more in (b"x", joined(stored)):
        with pytest.raises(CorruptEntry):
            decompress(joined(stored) + more, "numpy" + suffix, 10_000)


def test_an_unknown_compression_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(CodecError, match="Upgrade"):
        decompress(b"", "numpy+brotli", 0)


@pytest.mark.parametrize(
    ("size", "left", "is_compressed"),
    [
        (30_000, 0.001, False),  # lies in the row as it is
        (50_000, 0.40, True),  # fits in the row then, which saves its file
        (50_000, 0.80, False),
        (4_000_000, 0.30, False),
        (4_000_000, 0.03, True),  # next to nothing is left of it
        (40_000_000, 0.20, False),
    ],
)
def test_on_this_machines_disk_compression_has_to_save_a_file_or_nearly_everything(
    size: int, left: float, is_compressed: bool
) -> None:
    # In stretches that each sample finds, and no window of the compressor can shrink.
    noise = int(4096 * left)
    parts = [piece for _ in range(size // 4096) for piece in (RANDOM.randbytes(noise), bytes(4096 - noise))]
    stored, suffix = compress(parts, compression.staying(32 << 10))
    assert (suffix == SUFFIX) == is_compressed
    assert decompress(joined(stored), "any" + suffix, len(joined(parts))) == joined(parts)


def test_a_sample_is_as_large_of_many_small_buffers_as_of_one() -> None:
    whole = RANDOM.randbytes(1 << 20)
    for size in (1 << 20, 100_000, 16 << 10, 999, 7):
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        assert joined(compression._windows(pieces, len(whole) // 4)) == b"".join(
            whole[at : at + (16 << 10)] for at in range(1 << 17, 1 << 20, 1 << 18)
        )


def test_nothing_is_compressed_where_that_was_asked_for() -> None:
    assert compress([bytes(9 << 20)], compression.never)[1] == ""
