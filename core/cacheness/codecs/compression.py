"""Compress blobs if a sample shrinks enough.

Uses Zstandard at its fastest real level and no other method: on text, numbers and pickles LZ4 was
no faster to write, and its output 1.5 to 3 times as large.

The limit depends on the store. Bytes that go over a network are compressed if the result is at most
half as large. On a local disk, decompressing half the bytes would take a hit three times as long as
reading all of them: there a value is compressed if almost nothing remains, or if it then fits into
the row and needs no file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

from cacheness import forks
from cacheness.buffers import allocate
from cacheness.errors import CodecError, CorruptEntry
from cacheness.protocols import Buffer

SUFFIX: Final = "+zstd"

_LEVEL: Final = 1
_LEAST: Final = 4 << 10  #: bytes; below this a row or a round trip costs more than the value
_SAMPLES: Final = 4
_SAMPLE: Final = 16 << 10
_CHUNK: Final = 1 << 20
_LARGE: Final = 16 << 20
_MOST_WINDOW: Final = 8 << 20  #: bytes of window that a frame may require in addition to its output
_NEXT_TO_NOTHING: Final = 1 / 16  #: from 64 KiB on, a put and a hit take less time with this share than with the whole

#: Return the largest share of its size that a compressed value of this many bytes may have.
Share: TypeAlias = Callable[[int], float]


def travelling(size: int) -> float:
    """Return the largest accepted share when bytes go over a network."""
    # The value and its compressed bytes are in memory together: more would exceed the limit of 1.3 x.
    return 0.5 if size < _LARGE else 0.28


def staying(inline_max_bytes: int) -> Share:
    """Return the same for a local disk, with rows that hold values of up to so many bytes."""

    def share(size: int) -> float:
        if size <= inline_max_bytes:
            return 0.0
        return max(_NEXT_TO_NOTHING, min(travelling(size), inline_max_bytes / size))

    return share


def never(_: int) -> float:
    """Return the same when nothing is compressed."""
    return 0.0


def compress(buffers: Sequence[Buffer], share: Share = travelling) -> tuple[Sequence[Buffer], str]:
    """Compress the buffers if that saves enough; return them and the codec's suffix ("" if not compressed)."""
    size = sum(map(len, buffers))
    most = 0.0 if size < _LEAST else share(size)
    if not most:
        return buffers, ""
    smaller = _compressed(buffers, most * size) if _promises(buffers, size, most) else None
    return (buffers, "") if smaller is None else (smaller, SUFFIX)


def decompress(data: Buffer, codec_name: str, raw_size: int) -> Buffer:
    """Return the payload, exactly `raw_size` bytes and never more; otherwise raise CorruptEntry."""
    name, plus, method = codec_name.partition("+")
    if plus and plus + method != SUFFIX:
        raise CodecError(f"the compression {method!r} of a stored {name} value is unknown here. Upgrade cacheness")
    if plus:
        return _decompressed(data, raw_size)
    if len(data) != raw_size:
        raise CorruptEntry(f"a stored value has {len(data)} bytes where {raw_size} were signed")
    return data


def _promises(buffers: Sequence[Buffer], size: int, most: float) -> bool:
    """Return True when a large value's sample shrinks; a small value is its own sample."""
    zstandard = _zstandard()
    if size <= _SAMPLES * _SAMPLE:
        return True
    sample = b"".join(_windows(buffers, size // _SAMPLES))
    return len(zstandard.ZstdCompressor(level=_LEVEL).compress(sample)) <= most * len(sample)


def _zstandard() -> Any:
    """Import Zstandard when it is needed."""
    with forks.no_fork():  # a child forked during a thread's import could never import that module
        import zstandard

    return zstandard


def _windows(buffers: Sequence[Buffer], step: int) -> Iterator[memoryview]:
    """Take short samples of the value at even distances, from as many buffers as needed."""
    wanted, end, missing = step // 2, 0, 0
    for buffer in buffers:
        start, end = end, end + len(buffer)
        at = start
        while at < end and (missing or wanted < end):
            if not missing:
                at, missing, wanted = max(at, wanted), _SAMPLE, wanted + step
            piece = memoryview(buffer)[at - start : at - start + missing]
            at, missing = at + len(piece), missing - len(piece)
            yield piece


def _compressed(buffers: Sequence[Buffer], most: float) -> list[Buffer] | None:
    """Compress chunk by chunk; return None as soon as the result exceeds `most` bytes."""
    zstandard = _zstandard()
    compressor = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
    compressed: list[Buffer] = []
    written = 0
    for chunk in _chunks(buffers):
        out = compressor.compress(chunk)
        written += len(out)
        if written > most:
            return None
        if out:
            compressed.append(out)
    compressed.append(compressor.flush())
    return compressed if written + len(compressed[-1]) <= most else None


def _chunks(buffers: Sequence[Buffer]) -> Iterator[memoryview]:
    for buffer in buffers:
        for start in range(0, len(buffer), _CHUNK):
            yield memoryview(buffer)[start : start + _CHUNK]


def _decompressed(data: Buffer, raw_size: int) -> Buffer:
    zstandard = _zstandard()
    target = memoryview(allocate(raw_size))
    filled = 0
    try:
        with zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW).stream_reader(data) as reader:
            while filled < raw_size and (count := reader.readinto(target[filled : filled + _CHUNK])):
                filled += count
            surplus = reader.read(1)
    except zstandard.ZstdError as error:
        raise CorruptEntry(f"a stored value does not decompress: {error}") from error
    if filled != raw_size or surplus:
        raise CorruptEntry(f"a stored value decompresses to {'more' if surplus else 'less'} than {raw_size} bytes")
    return target
