"""Smaller blobs, where a sample says that it pays.

Zstandard at its fastest real level, and nothing beside it: on text, numbers and pickles LZ4 was
no faster to write and half again to three times as large.

Whether it pays depends on where the bytes go. What travels is compressed when it becomes half as
large. On this machine's own disk a hit would spend three times as long on decompressing half the
bytes as on reading all of them: there a value is compressed when next to nothing is left of it, or
when it then fits in the row and needs no file.
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
_MOST_WINDOW: Final = 8 << 20  #: bytes that a frame may ask us to keep beside its output
_NEXT_TO_NOTHING: Final = 1 / 16  #: of which both a put and a hit take less time than of the whole, from 64 KiB on

#: The share of its size that a compressed value of so many bytes may have.
Share: TypeAlias = Callable[[int], float]


def travelling(size: int) -> float:
    """The share of its size that a compressed value may have where bytes travel."""
    # The value and its compressed bytes are in memory together: more than this would break the bound of 1.3 x.
    return 0.5 if size < _LARGE else 0.28


def staying(inline_max_bytes: int) -> Share:
    """The same on this machine's disk, with rows that hold values of so many bytes."""

    def share(size: int) -> float:
        if size <= inline_max_bytes:
            return 0.0
        return max(_NEXT_TO_NOTHING, min(travelling(size), inline_max_bytes / size))

    return share


def never(_: int) -> float:
    """The same where nothing is compressed."""
    return 0.0


def compress(buffers: Sequence[Buffer], share: Share = travelling) -> tuple[Sequence[Buffer], str]:
    """The buffers, compressed when that pays, and what to append to the codec's name ("" when not)."""
    size = sum(map(len, buffers))
    most = 0.0 if size < _LEAST else share(size)
    if not most:
        return buffers, ""
    smaller = _compressed(buffers, most * size) if _promises(buffers, size, most) else None
    return (buffers, "") if smaller is None else (smaller, SUFFIX)


def decompress(data: Buffer, codec_name: str, raw_size: int) -> Buffer:
    """The payload, exactly `raw_size` bytes and never more; CorruptEntry when it is not."""
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
    with forks.no_fork():  # a child could never import what a thread of its parent was importing
        import zstandard

    return zstandard


def _windows(buffers: Sequence[Buffer], step: int) -> Iterator[memoryview]:
    """Short samples of the value at even distances, of as many buffers as it takes."""
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
    """Compress chunk by chunk; return None as soon as the result has more than `most` bytes."""
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
