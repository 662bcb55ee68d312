"""Wrap users' codecs, so that their exceptions become CodecError."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from cacheness.codecs.libraries import attempt
from cacheness.errors import CodecError
from cacheness.protocols import Buffer, Codec

V = TypeVar("V")
T = TypeVar("T")


class OutsideCodec:
    """Wraps a codec that was given as `UnifiedCache(codecs=[…])`."""

    def __init__(self, codec: Codec) -> None:
        self.name = codec.name
        self.safe = codec.safe
        self._codec = codec

    def accepts(self, value: Any) -> bool:
        """Return the codec's answer."""
        return bool(self._run(f"look at a {type(value).__name__}", self._codec.accepts, value))

    def encode(self, value: Any) -> list[Buffer]:
        """Return the codec's buffers as flat bytes."""
        what = f"encode a {type(value).__name__}"
        return self._run(what, lambda given: [memoryview(b).cast("B") for b in self._codec.encode(given)], value)

    def decode(self, data: Buffer) -> Any:
        """Return the codec's value."""
        return self._run(f"decode {len(data):,} bytes", self._codec.decode, data)

    def _run(self, what: str, call: Callable[[V], T], given: V) -> T:
        try:
            return attempt(call, given)
        except CodecError as error:
            raise CodecError(f"the codec {self.name!r} cannot {what}: {error}") from error


_conforms: Callable[[Codec], Codec] = OutsideCodec
