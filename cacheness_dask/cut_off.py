"""Early cut-off: a task with the same inputs as for an earlier result is not computed.

A result is stored with an *alias*: the digest of the task's own code and literals, and of its input
values, taken before its body ran. After an edit upstream, the fingerprint of the task differs, and
its alias is the same if the values are. Then a link under the new fingerprint names the old result,
so that the next run is planned without loading any input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from blake3 import blake3
from dask._task_spec import GraphNode, Task, TaskRef, _execute_subgraph

from cacheness.keys import FORMAT, closed_digest, encode
from cacheness_dask.sizes import size_of

#: Bytes of inputs that are digested for a result that is stored only if worthwhile.
_CHEAP: Final = 1 << 20
#: For a fused task, the index of its first input: before it are its steps, the name of the last one, and names.
FIRST_INPUT: Final = 3
#: Immutable types of values.
_UNCHANGING: Final = frozenset({type(None), bool, int, float, complex, str, bytes})


@dataclass(frozen=True, slots=True)
class TaskInputs:
    """A task's own content, and the places of other tasks' values in it."""

    own: bytes  #: digest of its code and literals, and of which input goes where
    places: tuple[int | str, ...]  #: arguments with results of other tasks: their numbers and names
    is_fused: bool  #: several tasks in one, whose arguments are its steps and then its inputs
    is_known: bool = False  #: there is an earlier result of such a task


class GivenValues:
    """The input values of a task, as they are before it runs.

    Args:
        inputs: the places of the inputs.
        args: the arguments.
        kwargs: the keyword arguments.
        wanted: the result is stored whatever its cost, so that large values are digested, too.
    """

    def __init__(self, inputs: TaskInputs, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, wanted: bool) -> None:
        self.own = inputs.own
        self._values = [args[place] if isinstance(place, int) else kwargs[place] for place in inputs.places]
        self._digests: list[bytes] | None = None
        if wanted or inputs.is_known or sum(map(size_of, self._values)) <= _CHEAP:
            self._digests = _digests_of(self._values)

    @property
    def alias(self) -> bytes | None:
        """Return the alias, by which the result is found again; None if the digests depend on more than values."""
        if self._digests is None:
            return None
        return blake3(encode(("alias", FORMAT, self.own, self._digests))).digest()

    def is_unchanged(self) -> bool:
        """Return True when the task, which ran since, has not changed its input values."""
        return all(
            type(value) in _UNCHANGING or closed_digest(value) == digest
            for value, digest in zip(self._values, self._digests or (), strict=True)
        )


def _digests_of(values: list[Any]) -> list[bytes] | None:
    digests: list[bytes] = []
    for value in values:
        digest = closed_digest(value)
        if digest is None:
            return None
        digests.append(digest)
    return digests


def places_in(node: Task, is_result: Any) -> tuple[int | str, ...]:
    """Return the arguments of a task that contain results of others.

    Args:
        node: the task.
        is_result: returns whether a key is that of a result, and not of a literal.
    """
    begins = FIRST_INPUT if is_fused(node) else 0
    named: list[tuple[int | str, Any]] = [*enumerate(node.args[begins:], begins), *node.kwargs.items()]
    return tuple(place for place, value in named if any(map(is_result, _keys_in(value))))


def _keys_in(value: Any) -> Iterator[Any]:
    if isinstance(value, TaskRef):
        yield value.key
    elif isinstance(value, GraphNode):
        yield from value.dependencies
    elif isinstance(value, (list, tuple, set, frozenset)):
        for member in value:
            yield from _keys_in(member)
    elif isinstance(value, dict):
        for pair in value.items():
            yield from _keys_in(pair)


def is_fused(node: Task) -> bool:
    """Return True for several tasks in one, whose arguments begin with its steps."""
    return node.func is _execute_subgraph
