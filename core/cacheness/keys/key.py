"""A key: the digest that names a result, and what it was made from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from blake3 import blake3

from cacheness.errors import CodecError
from cacheness.keys.code import Fingerprint, fingerprint
from cacheness.keys.decode import decode, describe
from cacheness.keys.encode import FORMAT, Digest, Encoder, encode, handles
from cacheness.keys.pinned import pinned

#: Names that are options in every method, so an argument of that name goes into `args={…}`.
RESERVED: Final = frozenset(
    {"args", "prefix", "version", "function", "ttl", "tags", "default", "compute_seconds", "provenance", "key"}
)
#: A longer encoding is kept in the row as its digest.
KEPT: Final = 4096
#: Of a longer encoding, enough to say what it was.
_HEAD: Final = 256


@dataclass(frozen=True, slots=True)
class _Argument:
    """An argument as it was when the key was made."""

    digest: bytes
    encoding: bytes  #: its beginning, when it is long
    whole: bool
    label: str = ""  #: of a Digest

    def to_keep(self) -> Any:
        """What the row keeps: the value where it can be rebuilt, else its digest."""
        if self.whole and _can_be_rebuilt(self.encoding):
            return _Encoded(self.encoding)
        return _Labelled(self.digest, self.describe())

    def describe(self) -> str:
        """A few words for people."""
        return self.label or describe(self.encoding, self.digest)


class Key:
    """Names one result, and tells what it was made from, as that was when the key was made."""

    __slots__ = ("_arguments", "_fingerprint", "_version", "digest", "function", "prefix")

    def __init__(
        self,
        digest: bytes,
        arguments: Mapping[str, _Argument],
        prefix: str,
        version: str | None,
        function: Fingerprint | None,
    ) -> None:
        self.digest = digest  #: 32 bytes
        self.prefix = prefix
        self.function = "" if function is None else function.name  #: qualified name
        self._arguments = arguments
        self._version = version
        self._fingerprint = function

    def __repr__(self) -> str:
        return f"Key({self.digest.hex()})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def args(self) -> bytes:
        """Canonical encoding of what `put(**args)` needs to make this key again."""
        values = {name: argument.to_keep() for name, argument in self._arguments.items()}
        kept: dict[str, Any] = {name: value for name, value in values.items() if name not in RESERVED}
        if clashing := {name: value for name, value in values.items() if name in RESERVED}:
            kept["args"] = clashing
        if self.prefix:
            kept["prefix"] = self.prefix
        if self._version is not None:
            kept["version"] = self._version
        if self._fingerprint is not None:
            kept["function"] = _Labelled(self._fingerprint.digest, self.function)
        return encode(kept)

    @property
    def parts(self) -> str:
        """Canonical JSON for `explain`: digests and short descriptions of all that the key was made from."""
        found: dict[str, Any] = {
            "args": {n: [a.digest.hex()[:16], a.describe()] for n, a in self._arguments.items()},
        }
        if self._version is not None:
            found["version"] = self._version
        if self._fingerprint is not None:
            found |= self._fingerprint.parts
            if self._fingerprint.unfollowed:
                found["unfollowed"] = self._fingerprint.unfollowed
        return json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def make_key(
    *,
    args: Mapping[str, Any],
    prefix: str = "",
    version: str | None = None,
    function: Callable[..., Any] | Digest | None = None,
) -> Key:
    """The key of a result: of named arguments, and of the function that made it, if there is one.

    A version pins the function: its name counts, and its code no longer does.
    """
    arguments = {name: _argument(name, value) for name, value in args.items()}
    source = _source(function, version)
    digests = {name: argument.digest for name, argument in arguments.items()}
    made_from = (FORMAT, None if source is None else source.digest, version, prefix, digests)
    return Key(blake3(encode(made_from)).digest(), arguments, prefix, version, source)


def arguments_of(entry_args: bytes) -> dict[str, Any]:
    """An entry's arguments and options; `put(**…)` and `get(**…)` make the same key from them."""
    found = decode(entry_args)
    if not isinstance(found, dict):
        raise CodecError("an entry's arguments are not a mapping")
    return found


def _argument(name: str, value: Any) -> _Argument:
    if type(value) is Digest:
        return _Argument(value.digest, b"", False, value.label or "value")
    encoding = encode(value, name)
    digest = blake3(encoding).digest()
    whole = len(encoding) <= KEPT
    return _Argument(digest, encoding if whole else encoding[:_HEAD], whole)


def _source(function: Callable[..., Any] | Digest | None, version: str | None) -> Fingerprint | None:
    if function is None:
        return None
    if isinstance(function, Digest):
        return Fingerprint(function.digest, function.label, {}, ())
    return fingerprint(function) if version is None else pinned(function)


def _can_be_rebuilt(encoding: bytes) -> bool:
    try:
        decode(encoding)
    except CodecError:
        return False
    return True


class _Encoded:
    """A value that is encoded already."""

    def __init__(self, encoding: bytes) -> None:
        self.encoding = encoding


class _Labelled(Digest):
    """A digest that is kept with its label, in a row. In a key, labels do not count."""

    __slots__ = ()


@handles(_Encoded)
def _encoded(encoder: Encoder, value: _Encoded) -> None:
    encoder.out += value.encoding


@handles(_Labelled)
def _labelled(encoder: Encoder, value: _Labelled) -> None:
    encoder.tagged("digest", value.digest, value.label)
