"""What is fuzzed: every reader of stored bytes, and the signature. A target raises when a rule is broken.

The rule: bytes that nobody signed lead to an error of ours or to a value, never to anything else.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from cacheness import keys
from cacheness.codecs.arrow import ArrowCodec
from cacheness.codecs.compression import compress, decompress
from cacheness.codecs.numpy import NumpyCodec
from cacheness.codecs.pickle import PickleCodec
from cacheness.errors import CodecError, CorruptEntry, ForgedEntry
from cacheness.records import Entry
from cacheness.results.signing import Keyring, digest_buffers, header, verify_bytes

REFUSED = (CodecError, CorruptEntry)


@dataclass(frozen=True)
class Target:
    run: Callable[[bytes], None]
    seeds: Sequence[bytes]


def joined(parts: Sequence[Any]) -> bytes:
    return b"".join(parts)


# the safe decoders


def decoding(codec: Any) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        with suppress(*REFUSED):
            codec.decode(bytearray(data))

    return run


ARRAYS = (
    np.arange(3.0),
    np.zeros(2, [("a", "<i4"), ("b", "U2")]),
    np.array(["2026"], "M8[D]"),
    np.ones((2, 2), order="F"),
)
TABLES = (
    pd.DataFrame(
        {"a": [1, 2], "b": ["x", None], "c": pd.Categorical(["x", "y"]), "d": pd.array([1, None], "Int64")},
        index=pd.Index(["p", "q"], name="i"),
    ),
    pl.DataFrame({"a": ["x", "y" * 30], "b": [[1], None], "c": pl.Series(["x", "y"], dtype=pl.Categorical)}),
    pl.Series("s", [1.5]),
    pa.table(
        {
            "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int8())),
            "dictionary": pa.array(["a"]).dictionary_encode(),
            "view": pa.array(["z" * 20], pa.string_view()),
            "runs": pa.RunEndEncodedArray.from_arrays([1], ["x"]),
        }
    ),
    pa.record_batch({"a": [1]}),
    pa.chunked_array([[1], [2]]),
)

# compression: the first two bytes are the size that was signed


def _decompression(data: bytes) -> None:
    size = int.from_bytes(data[:2], "little")
    with suppress(*REFUSED):
        assert len(decompress(data[2:], "numpy+zstd", size)) == size


COMPRESSIBLE = bytes(5000)
COMPRESSED = len(COMPRESSIBLE).to_bytes(2, "little") + joined(compress([COMPRESSIBLE])[0])

# the arguments in a row


def _arguments(data: bytes) -> None:
    with suppress(*REFUSED):
        keys.arguments_of(data)


ARGUMENTS = ({"x": 1, "y": "a"}, {"args": {"ttl": 1.5}, "when": (None, True, b"z")}, {"nested": [{1, 2}, {"k": -0.0}]})

# the signature: a row read from a database that somebody wrote into

KEYRING = Keyring.parse("new:a key that only these tests know,old:another key that only these tests know")
SIGNED = KEYRING.sign(
    Entry(
        namespace="default",
        key=bytes(32),
        blob="default/00/x",
        inline=None,
        size=5,
        raw_size=5,
        digest=digest_buffers([b"bytes"]),
        codec="numpy",
        created_at=7,
        expires_at=None,
        compute_seconds=None,
        function="f",
        prefix="p",
        args=b"args",
        components="{}",
        value=None,
        fn=None,
        alias=None,
        link=None,
        outputs=None,
        tags=("a", "b"),
        provenance="{}",
        key_id="",
        mac=b"",
    )
)
TEXTS = ("namespace", "blob", "codec", "function", "prefix", "components", "provenance", "key_id")
BYTES = ("key", "digest", "args", "mac")
NUMBERS = ("size", "raw_size", "created_at", "expires_at")


def row(data: bytes) -> Entry:
    """A row made of `data`: texts and bytes ended by zeros, then numbers, then whether some of them are NULL."""
    pieces = data.split(b"\0", len(TEXTS) + len(BYTES) + 1)
    pieces += [b""] * (len(TEXTS) + len(BYTES) + 2 - len(pieces))
    *named, tags, rest = pieces
    texts = dict(zip(TEXTS, (piece.decode("utf-8", "replace") for piece in named), strict=False))
    some_bytes = dict(zip(BYTES, named[len(TEXTS) :], strict=True))
    numbers = dict(zip(NUMBERS, struct.unpack("<4q", rest[:32].ljust(32, b"\0")), strict=True))
    changes: dict[str, Any] = {**texts, **some_bytes, **numbers, "tags": tuple(tags.decode("utf-8", "replace").split())}
    for bit, name in enumerate(("blob", "expires_at", "compute_seconds")):
        if rest[32:33] and rest[32] >> bit & 1:
            changes[name] = None
    return replace(SIGNED, **changes)


def as_bytes(entry: Entry) -> bytes:
    texts = [(getattr(entry, name) or "").encode() for name in TEXTS]
    # The key and the digests hold zeros themselves; such a seed is a near miss, and a good one.
    numbers = struct.pack("<4q", entry.size, entry.raw_size, entry.created_at, entry.expires_at or 0)
    return b"\0".join([*texts, *(getattr(entry, name) for name in BYTES), " ".join(entry.tags).encode(), numbers])


def _signature(data: bytes) -> None:
    entry = row(data)
    try:
        KEYRING.verify(entry)
    except ForgedEntry:
        return
    assert header(entry) == header(SIGNED), "a row passes that was never signed"


# the whole way to the unpickler: it must never be reached


class Reached(Exception):
    """Raised by the payload itself when it is unpickled."""


class Canary:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (_spring, ())


def _spring() -> None:
    raise Reached


def _unpickling(data: bytes) -> None:
    if data == b"bytes":
        return  # what was signed
    try:
        KEYRING.verify(SIGNED)
        verify_bytes(SIGNED, data)
        PickleCodec().decode(data)
    except REFUSED as error:
        reached = isinstance(error.__cause__, Reached)
    else:
        reached = True
    assert not reached, "unsigned bytes were unpickled"


TARGETS = {
    "numpy": Target(decoding(NumpyCodec()), [joined(NumpyCodec().encode(array)) for array in ARRAYS]),
    "arrow": Target(decoding(ArrowCodec()), [joined(ArrowCodec().encode(table)) for table in TABLES]),
    "compression": Target(_decompression, [COMPRESSED]),
    "arguments": Target(_arguments, [keys.make_key(args=args).args for args in ARGUMENTS]),
    "signature": Target(_signature, [as_bytes(SIGNED), as_bytes(replace(SIGNED, key=b"\1" * 32, mac=b"\1" * 32))]),
    "unpickling": Target(_unpickling, [joined(PickleCodec().encode([Canary()])), b"bytes", b"\x80\x05N."]),
}
