"""The keys of results of a graph's tasks, and of what the processes of a pool report about them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from blake3 import blake3

from cacheness.keys import FORMAT, Digest, Key, make_key
from cacheness.keys.encode import encode_code

#: Stands for any fingerprint.
_ANY: Final = bytes(range(32))
_BEFORE, _, _AFTER = encode_code((FORMAT, _ANY, None, "", {})).partition(_ANY)
#: Of a key without arguments, for `explain`.
_COMPONENTS: Final = make_key(args={}, function=Digest(_ANY)).components


def entry_key(digest: bytes) -> str:
    """Return the key of the entry with this fingerprint, as 64 hexadecimal digits.

    It equals `make_key(args={}, function=Digest(digest))`, without encoding the rest each time.
    """
    return blake3(_BEFORE + digest + _AFTER).digest().hex()  # quicker than `hexdigest`


def entry_digests(digests: Iterable[bytes]) -> dict[bytes, bytes]:
    """Return the same keys of many entries as bytes, by fingerprint."""
    before, after = _BEFORE, _AFTER
    return {digest: blake3(before + digest + after).digest() for digest in digests}


def result_key(digest: bytes, name: str) -> Key:
    """Return the key of a result.

    It equals `make_key(args={}, function=Digest(digest, name))`, without encoding the rest each time.

    Args:
        digest: the fingerprint of the task.
        name: the name of its function.
    """
    before, found, after = _args_around(name)
    if not found:  # another encoder is registered for bytes
        return make_key(args={}, function=Digest(digest, name))
    return Key(blake3(_BEFORE + digest + _AFTER).digest(), name, "", before + digest + after, _COMPONENTS)


@lru_cache(maxsize=1024)
def _args_around(name: str) -> tuple[bytes, bytes, bytes]:
    return make_key(args={}, function=Digest(_ANY, name)).args.partition(_ANY)


def failure_key(pool: bytes, digest: bytes) -> str:
    """Return the key under which a process of a pool writes the seconds of a task that raised.

    Args:
        pool: identifies the graph: another one may have the same task.
        digest: the task's fingerprint.
    """
    return entry_key(blake3(pool + digest).digest())


def stale_key(pool: bytes) -> str:
    """Return the key under which it is written that the results of a graph are not kept.

    Args:
        pool: identifies the graph.
    """
    return failure_key(pool, b"stale")
