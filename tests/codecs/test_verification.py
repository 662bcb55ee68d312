"""No unverified byte reaches a decompressor or a decoder (I4)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cacheness.codecs.arrow import ArrowCodec
from cacheness.codecs.compression import compress, decompress
from cacheness.codecs.numpy import NumpyCodec
from cacheness.codecs.pickle import PickleCodec
from cacheness.errors import CorruptEntry
from cacheness.records import Entry
from cacheness.results.signing import Keyring, digest_buffers, verify_bytes

KEYRING = Keyring.parse("a key that only these tests know")


class Canary:
    """Leaves a file behind wherever it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (os.mkdir, (self.path,))


def stored(codec: Any, value: Any) -> tuple[Entry, bytes]:
    raw = codec.encode(value)
    parts, suffix = compress(raw)
    data = b"".join(parts)
    entry = Entry(
        namespace="default",
        key=bytes(32),
        blob=None,
        inline=data,
        size=len(data),
        raw_size=sum(map(len, raw)),
        digest=digest_buffers(parts),
        codec=codec.name + suffix,
        created_at=1,
        expires_at=None,
        compute_seconds=None,
        function="",
        prefix="",
        args=b"",
        components="",
        value=None,
        fn=None,
        alias=None,
        link=None,
        outputs=None,
        tags=(),
        provenance="",
        key_id="",
        mac=b"",
    )
    return KEYRING.sign(entry), data


def read(codec: Any, entry: Entry, data: bytes) -> Any:
    KEYRING.verify(entry)
    verify_bytes(entry, data)
    return codec.decode(decompress(data, entry.codec, entry.raw_size))


VALUES = {
    "numpy": (NumpyCodec(), np.arange(5.0)),
    "numpy, compressed": (NumpyCodec(), np.zeros(2000)),
    "arrow": (ArrowCodec(), pd.DataFrame({"a": [1, 2], "b": ["x", None]})),
    "pickle": (PickleCodec(), {"a": [1, 2], "b": np.arange(200.0)}),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_flipped_bit_in_any_byte_is_noticed_before_decoding(name: str) -> None:
    codec, value = VALUES[name]
    entry, data = stored(codec, value)
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(CorruptEntry, match="not the ones that were written"):
            verify_bytes(entry, damaged)


@pytest.mark.parametrize("compressible", [False, True])
def test_a_pickle_that_was_put_in_place_of_another_is_never_opened(tmp_path: Path, compressible: bool) -> None:
    codec, sprung = PickleCodec(), tmp_path / "sprung"
    padding = bytes(9000) if compressible else b""
    _, bomb = stored(codec, [Canary(str(sprung)), padding])
    entry, _ = stored(codec, [1, 2, padding])
    for forged in (
        replace(entry, inline=bomb),
        replace(entry, inline=bomb, size=len(bomb)),
        replace(entry, inline=bomb, size=len(bomb), digest=digest_buffers([bomb])),
    ):
        with pytest.raises(CorruptEntry):
            read(codec, forged, bomb)
    assert not sprung.exists()


def test_the_canary_does_spring_when_its_bytes_are_signed(tmp_path: Path) -> None:
    codec = PickleCodec()
    entry, data = stored(codec, Canary(str(tmp_path / "sprung")))
    read(codec, entry, data)
    assert (tmp_path / "sprung").exists()


def test_no_name_of_another_codec_opens_bytes_as_a_pickle(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    entry, data = stored(PickleCodec(), Canary(str(sprung)))
    for safe in (NumpyCodec(), ArrowCodec()):
        assert safe.safe
        with pytest.raises(CorruptEntry):
            read(safe, replace(entry, codec=safe.name), data)
    assert not sprung.exists()
