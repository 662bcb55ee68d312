"""Bind arguments by name, and pickle wrappers: helpers for any wrapper of a function."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from cacheness.references import has_reference


class Binder:
    """Return the arguments of a call by name, with defaults, however they were passed."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn
        self._signature = _signature_of(fn)
        parameters = self._signature.parameters.values()
        self.names = frozenset(self._signature.parameters)
        #: Names of the wrapped function, if a decorator passes any arguments on.
        self._inner = _inner_signature(fn) if _takes_anything(self._signature) else None
        self.ignorable = self.names | (self._inner.parameters.keys() if self._inner else frozenset())
        self._positional = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
        self._defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        self._is_plain = all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Raises TypeError where the function would, with the same message."""
        if self._is_plain and len(args) <= len(self._positional):
            # For most functions this takes a third of the time of `Signature.bind`.
            given = dict(zip(self._positional, args, strict=False))
            found = {**self._defaults, **given, **kwargs}
            if len(found) == len(self.names) and self.names.issuperset(kwargs) and given.keys().isdisjoint(kwargs):
                return found
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise _python_says(self._fn, args, kwargs, error) from None
        bound.apply_defaults()
        return bound.arguments

    def call_with(self, arguments: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of the call from which `bind` made these. Raises TypeError if one is missing."""
        known = {name: arguments[name] for name in self._signature.parameters if name in arguments}
        bound = inspect.BoundArguments(self._signature, known)
        bound.apply_defaults()
        self._signature.bind(*bound.args, **bound.kwargs)
        return bound.args, bound.kwargs

    def with_defaults(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]] | None:
        """Return the call with its defaults as arguments if one of them has a reference; otherwise None."""
        if not any(map(has_reference, self._defaults.values())):
            return None
        self.bind(args, kwargs)  # raises Python's message for a wrong call
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.args, bound.kwargs

    def default_of(self, name: str) -> Any:
        """Return the default of a parameter; `inspect.Parameter.empty` if it has none."""
        return self._defaults.get(name, inspect.Parameter.empty)

    def bind_without(
        self, left_out: tuple[str, ...], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the arguments except some named ones; also through a decorator that passes any arguments on."""
        if not left_out:
            return self.bind(args, kwargs)
        within = [name for name in left_out if name not in self.names]
        if within and self._inner is not None:
            places = _places(self._inner, args, kwargs)
            # The position stays filled; otherwise a call without an argument would look like one with it.
            args = tuple(None if places[at : at + 1] and places[at] in within else v for at, v in enumerate(args))
            kwargs = {name: value for name, value in kwargs.items() if name not in within}
        found = self.bind(args, kwargs)
        for name in left_out:
            found.pop(name, None)
        return found


def _takes_anything(signature: inspect.Signature) -> bool:
    return any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in signature.parameters.values())


def _inner_signature(fn: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(fn)
    except (TypeError, ValueError):
        return None


def _places(signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
    """Return names for positional arguments; none if the wrapped function would not accept this call."""
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, parameter in signature.parameters.items() if parameter.kind in kinds]


def _signature_of(fn: Callable[..., Any]) -> inspect.Signature:
    """Return the signature that really receives a call: a decorator's, not that of what it wraps."""
    try:
        return inspect.signature(_bare(fn), follow_wrapped=isinstance(fn, _LRU_CACHE))
    except (TypeError, ValueError):  # compiled, without a signature
        kinds = (("args", inspect.Parameter.VAR_POSITIONAL), ("kwargs", inspect.Parameter.VAR_KEYWORD))
        return inspect.Signature([inspect.Parameter(name, kind) for name, kind in kinds])


def _python_says(fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], error: TypeError) -> TypeError:
    """Return Python's message for a wrong call, by calling a function with an empty body."""
    if isinstance(fn, _LRU_CACHE):
        return _python_says(fn.__wrapped__, args, kwargs, error)
    if isinstance(fn, types.MethodType):
        return _python_says(fn.__func__, (fn.__self__, *args), kwargs, error)
    if isinstance(fn, functools.partial):
        return _python_says(fn.func, (*fn.args, *args), {**fn.keywords, **kwargs}, error)
    if isinstance(fn, types.FunctionType):
        try:
            _doing_nothing(fn)(*args, **kwargs)
        except TypeError as own:
            return own.with_traceback(None)
    elif not isinstance(fn, type) and isinstance(vars(type(fn)).get("__call__"), types.FunctionType):
        return _python_says(type(fn).__call__, (fn, *args), kwargs, error)
    return TypeError(f"{getattr(fn, '__qualname__', type(fn).__qualname__)}() {error}")


def _doing_nothing(fn: types.FunctionType) -> types.FunctionType:
    """Return a function of the same name and parameters."""
    code, stars = fn.__code__, fn.__code__.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
    count = code.co_argcount + code.co_kwonlyargcount + stars.bit_count()
    nothing = _nothing.__code__.replace(
        co_argcount=code.co_argcount,
        co_posonlyargcount=code.co_posonlyargcount,
        co_kwonlyargcount=code.co_kwonlyargcount,
        co_nlocals=count,
        co_varnames=code.co_varnames[:count],
        co_flags=_nothing.__code__.co_flags | stars,
    )
    same = types.FunctionType(nothing, {}, fn.__name__, fn.__defaults__)
    same.__kwdefaults__, same.__qualname__ = fn.__kwdefaults__, fn.__qualname__
    return same


def _nothing() -> None:
    """Do nothing."""


#: Passes a call on unchanged, and has no other parameters.
_LRU_CACHE: Final = type(functools.lru_cache(len))


def _bare(fn: Any) -> Any:
    """Return a function without the attributes that claim another signature."""
    if isinstance(fn, types.MethodType):
        return types.MethodType(_bare(fn.__func__), fn.__self__)
    if isinstance(fn, functools.partial):
        return functools.partial(_bare(fn.func), *fn.args, **fn.keywords)
    if not isinstance(fn, types.FunctionType):
        return fn
    bare = types.FunctionType(fn.__code__, fn.__globals__, fn.__name__, fn.__defaults__, fn.__closure__)
    bare.__kwdefaults__ = fn.__kwdefaults__
    return bare


_by_value = threading.local()


def reduce_wrapper(wrapper: Any, made_from: tuple[Any, ...]) -> str | tuple[Any, ...]:
    """Reduce a wrapper for pickle: by name if that finds it again, otherwise by value with its function.

    By value it uses cloudpickle, also under plain pickle, which cannot pickle a function whose name
    now finds its wrapper.
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
