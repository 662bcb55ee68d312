"""A dictionary whose order does not count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from cacheness.keys.encode import Encoder, handles

K = TypeVar("K")
V = TypeVar("V")


class Unordered(dict[K, V]):
    """A dict whose readers do not depend on the order of its items. Made by `unordered`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"unordered({super().__repr__()})"


def unordered(items: Mapping[K, V] | Iterable[tuple[K, V]]) -> Unordered[K, V]:
    """Return the items as a dict that counts the same in every order. Dicts within it keep theirs.

    It may be anywhere: an argument, in a list, in a global, in the result of `key=` or of a
    function given to `register`.

    Args:
        items: a mapping, or pairs of a key and a value.
    """
    return Unordered(items)


@handles(Unordered)
def _unordered(encoder: Encoder, value: Unordered[Any, Any]) -> None:
    if (start := encoder.enter(value)) >= 0:
        encoder.open("unordered", 1)
        encoder.out += b"{%x:" % len(value)
        encoder.unordered(value.items())
        encoder.leave(value, start)
