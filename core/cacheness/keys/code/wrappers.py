"""Encode libraries' wrappers of functions and objects: the library, its options, and the wrapped object.

A wrapper's internal state (what it compiled, counted or remembered) differs between processes and
decides nothing. Only known memos are left out: a dictionary that code fills explicitly counts by
its content. Types are recognised by their class names, so that no library is imported for them.
"""

from __future__ import annotations

import gc
import os
import types
from typing import Any, Final

from cacheness.keys.encode import Encoder, handles_family
from cacheness.keys.error_paths import FAILURES, Unencodable
from cacheness.keys.owners import owner_of
from cacheness.keys.values.lazy_files import family
from cacheness.keys.values.objects import instance

#: Module names of its classes in Python, in C, and in C before 2.0.
_MODULES_OF_WRAPT: Final = ("wrapt", "_wrappers", "builtins")
_OF_WRAPT: Final = ("_self_wrapper", "_self_instance", "_self_enabled", "_self_binding")


def add_library(encoder: Encoder, module: str) -> None:
    """Append the library of a module."""
    owner = owner_of(module)
    encoder.library(owner.name, owner.version)


def said_about(fn: Any) -> list[Any]:
    """Return a function's annotations and docstring, which a wrapping library may read."""
    try:
        annotations = dict(fn.__annotations__)
    except FAILURES:
        annotations = {}  # Python 3.14 evaluates them now
    return [annotations, fn.__doc__]


# functions


def _is_of(fn: types.FunctionType, library: str) -> bool:
    return owner_of(fn.__globals__.get("__name__")).name == library


def add_known_wrapper(encoder: Encoder, value: types.FunctionType) -> bool:
    """Append a function of beartype, cachetools or pyparsing; return False for any other."""
    if value.__code__.co_qualname == "_trim_arity.<locals>.wrapper" and _is_of(value, "pyparsing"):
        # Its first call determines how many arguments the action takes.
        parts: dict[str, Any] = _cells_of(value)
        _add_wrapper(encoder, value, "pyparsing", parts.get("func"), parts.get("max_limit"))
        return True
    if value.__code__.co_filename.startswith("<@beartype(") and value.__kwdefaults__:
        parts = value.__kwdefaults__
        # The configuration stores its hash, which differs in each process.
        options = getattr(parts.get("__beartype_conf"), "_conf_kwargs", None)
        add, inner = [options], parts.get("__beartype_func")
    elif str(value.__globals__.get("__name__")).startswith("cachetools."):
        parts = _cells_of(value)
        add, inner = [parts.get("key")], parts.get("func", parts.get("method"))
    else:
        return False
    if not isinstance(inner, types.FunctionType):
        return False
    if (start := encoder.enter(value)) >= 0:
        encoder.open("wrapper", 3)
        add_library(encoder, "beartype" if "__beartype_func" in parts else "cachetools")
        encoder.add(inner)
        encoder.add([*add, *(said_about(inner) if "__beartype_func" in parts else ())])
        encoder.leave(value, start)
    return True


def _cells_of(fn: types.FunctionType) -> dict[str, Any]:
    found = {}
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            continue  # not assigned yet
    return found


@family("numba.core.dispatcher:Dispatcher")
def _numba(encoder: Encoder, value: Any) -> None:
    _add_wrapper(encoder, value, "numba", value.py_func, dict(value.targetoptions))


@family("numba.np.ufunc.dufunc:DUFunc", "numba.np.ufunc.gufunc:GUFunc")
def _numba_ufunc(encoder: Encoder, value: Any) -> None:
    made_by = getattr(value, "_dispatcher", None) or getattr(value, "gufunc_builder", None)
    inner = getattr(made_by, "py_func", None)
    if inner is None:
        raise Unencodable("a ufunc of numba's that hides its function")
    # Its types grow with its calls; the declared ones are in the decorator's code.
    _add_wrapper(encoder, value, "numba", inner, getattr(value, "signature", None))


@family("toolz.functoolz:curry", "cytoolz.functoolz:curry")
def _curry(encoder: Encoder, value: Any) -> None:
    _add_wrapper(encoder, value, type(value).__module__, value.func, [value.args, dict(value.keywords)])


@family("joblib.memory:MemorizedFunc", "joblib.memory:NotMemorizedFunc")
def _memorized(encoder: Encoder, value: Any) -> None:
    _add_wrapper(encoder, value, "joblib", value.func, getattr(value, "ignore", None))


@family("dask.delayed:DelayedLeaf")
def _delayed(encoder: Encoder, value: Any) -> None:
    _add_wrapper(encoder, value, "dask", value._obj, value._length)  # noqa: SLF001 - Dask has no public name for them


@family("prefect.tasks:Task", "prefect.flows:Flow")
def _prefect(encoder: Encoder, value: Any) -> None:
    # Its settings control how it runs: retries, name.
    _add_wrapper(encoder, value, "prefect", value.fn, None)


def _add_wrapper(encoder: Encoder, value: Any, module: str, inner: Any, options: Any) -> None:
    if (start := encoder.enter(value)) >= 0:
        encoder.open("wrapper", 4)
        add_library(encoder, module)
        encoder.add(type(value))
        encoder.add(inner)
        encoder.add(options)
        encoder.leave(value, start)


@family("pydantic.fields:ModelPrivateAttr")
def _private_attribute(encoder: Encoder, value: Any) -> None:
    # It stores how its factory is called, after the first call.
    encoder.tagged("private attribute", value.default, value.default_factory)


@family("pyparsing:ParserElement")
def _grammar(encoder: Encoder, value: Any) -> None:
    # Its first use merges nested items.
    value.streamline()
    instance(encoder, value)


@family("click:Parameter")
def _option(encoder: Encoder, value: Any) -> None:
    # It reads the environment variables given to it.
    names = [value.envvar] if isinstance(value.envvar, str) else list(value.envvar or ())
    encoder.open("option", 2)
    encoder.word([os.environ.get(name) for name in names])
    instance(encoder, value)


@family("msgspec.structs:StructConfig")
def _struct_options(encoder: Encoder, value: Any) -> None:
    # Pickle treats it as an empty or unknown object.
    names = [name for name in dir(value) if name[:2] != "__"]
    encoder.tagged("struct options", {name: getattr(value, name) for name in names})


@family("msgspec._core:Factory")
def _struct_default(encoder: Encoder, value: Any) -> None:
    encoder.tagged("struct default", value.factory)


# proxies


def _is_proxy(kind: type) -> bool:
    """Return True when instances are proxies of wrapt, which answer as the wrapped object would."""
    return any(
        base.__qualname__ == "ObjectProxy" and base.__module__.partition(".")[0] in _MODULES_OF_WRAPT
        for base in kind.__mro__
    )


@handles_family(_is_proxy)
def _proxy(encoder: Encoder, value: Any) -> None:
    if (start := encoder.enter(value)) >= 0:
        kind = type(value)
        encoder.open("proxy", 4)
        add_library(encoder, "wrapt")
        encoder.word(kind.__qualname__ if owner_of(kind.__module__).kind != "user" or _is_wrapt_s(kind) else kind)
        encoder.add(value.__wrapped__)
        encoder.add({**{name: getattr(value, name, None) for name in _OF_WRAPT}, **_own_attributes(value)})
        encoder.leave(value, start)


def _is_wrapt_s(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in _MODULES_OF_WRAPT[1:]


def _own_attributes(proxy: Any) -> dict[str, Any]:
    """Return what a proxy stores besides the object: only its dictionary has it."""
    held = [part for part in gc.get_referents(proxy) if type(part) is dict]
    return {name: part for own in held for name, part in own.items() if str(name).startswith("_self_")}
