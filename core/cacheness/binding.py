"""What any wrapper of a function needs: its arguments by name, and a way through pickle."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


class Binder:
    """The arguments of a call by their names, defaults applied, however they were given."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._signature = _signature_of(fn)
        parameters = self._signature.parameters.values()
        self.names = frozenset(self._signature.parameters)
        self._positional = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
        self._defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        self._is_plain = all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Raises TypeError where the function would."""
        if self._is_plain and len(args) <= len(self._positional):
            # A third of what `Signature.bind` takes, for most functions there are.
            given = dict(zip(self._positional, args, strict=False))
            found = {**self._defaults, **given, **kwargs}
            if len(found) == len(self.names) and self.names.issuperset(kwargs) and given.keys().isdisjoint(kwargs):
                return found
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments


def _signature_of(fn: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(fn)
    except ValueError:  # compiled, and says nothing about its parameters
        kinds = (("args", inspect.Parameter.VAR_POSITIONAL), ("kwargs", inspect.Parameter.VAR_KEYWORD))
        return inspect.Signature([inspect.Parameter(name, kind) for name, kind in kinds])


_by_value = threading.local()


def reduce_wrapper(wrapper: Any, made_from: tuple[Any, ...]) -> str | tuple[Any, ...]:
    """How a wrapper is pickled: by name where that leads to it again, else by value with its function.

    By value it goes through cloudpickle, also under plain pickle, which has no way for a function
    whose name now leads to its wrapper.
    """
    name = getattr(wrapper, "__qualname__", "")
    module = getattr(wrapper, "__module__", None) or ""
    if module != "__main__" and _find(module, name) is wrapper:
        return str(name)
    if getattr(_by_value, "depth", 0):
        # In two steps, because the function may refer to its wrapper.
        return (_blank, (type(wrapper),), made_from, None, None, _fill)
    import cloudpickle

    with _pickling_by_value():
        return (cloudpickle.loads, (cloudpickle.dumps(wrapper),))


def _find(module: str, name: str) -> Any:
    return functools.reduce(lambda place, part: getattr(place, part, None), name.split("."), sys.modules.get(module))


@contextmanager
def _pickling_by_value() -> Iterator[None]:
    _by_value.depth = getattr(_by_value, "depth", 0) + 1
    try:
        yield
    finally:
        _by_value.depth -= 1


def _blank(kind: Any) -> Any:
    return kind.__new__(kind)


def _fill(wrapper: Any, made_from: tuple[Any, ...]) -> None:
    type(wrapper).__init__(wrapper, *made_from)
