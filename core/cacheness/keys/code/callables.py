"""Encode functions, classes and modules, and objects made from them.

The user's are passed to `Encoder.reference`, which reads their code. A library's count by name and
version, Python's by their names.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from typing import Any, Final

from cacheness.keys.code.bytecode import info_of
from cacheness.keys.code.compiled import add_compiled, is_compiled_class, is_extension, is_of_module
from cacheness.keys.code.random_calls import name_of_process_wide
from cacheness.keys.code.wrappers import add_known_wrapper, said_about
from cacheness.keys.encode import Encoder, handles, handles_family
from cacheness.keys.owners import Owner, is_compiled, is_held, module_of, name_of_module, owner_of, owner_of_class
from cacheness.keys.values.unordered import unordered


@handles(types.FunctionType)
def _function(encoder: Encoder, value: types.FunctionType) -> None:
    module = value.__globals__.get("__name__")
    owner = owner_of(module)
    if add_known_wrapper(encoder, value):
        return
    if (
        hasattr(value, "registry")
        and hasattr(value, "dispatch")
        and value.__code__.co_qualname.startswith("singledispatch")
    ):
        encoder.tagged("singledispatch", unordered(value.registry))
    elif owner.kind == "user":
        encoder.reference(value)
    elif owner.kind == "ours" and hasattr(value, "__wrapped__"):
        encoder.add(value.__wrapped__)
    else:
        _foreign_function(encoder, value, owner, str(module))


def _foreign_function(encoder: Encoder, value: types.FunctionType, owner: Owner, module: str) -> None:
    name = value.__code__.co_qualname
    if value.__closure__ is None and is_held(value, module, name):
        add_foreign(encoder, owner, module, name)
        return
    # A library created it here, perhaps around a function of the user's.
    if (start := encoder.enter(value)) >= 0:
        encoder.open("made function", 6 if owner.kind == "library" else 5)
        add_foreign(encoder, owner, module, name)
        encoder.blob(b"b", info_of(value.__code__).digest)
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        within = {name: contents for name, cell in cells for contents in _contents(cell)}
        encoder.add(within)
        if owner.kind == "library":
            functions = [part for part in within.values() if type(part) is types.FunctionType]
            encoder.add([said_about(fn) for fn in functions if owner_of(fn.__globals__.get("__name__")).kind == "user"])
        encoder.add(value.__defaults__)
        encoder.add(value.__kwdefaults__)
        encoder.leave(value, start)


def _contents(cell: types.CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:
        return []  # not assigned yet


def add_foreign(encoder: Encoder, owner: Owner, module: str, name: str) -> None:
    """Append an object of Python or of a library by its name."""
    if owner.kind == "library":
        encoder.open("of", 2)
        encoder.library(owner.name, owner.version)
        encoder.word(f"{module}:{name}")
    else:
        encoder.tagged("of", owner.kind, f"{module}:{name}")


@handles_family(lambda kind: issubclass(kind, type))
def _class(encoder: Encoder, value: type) -> None:
    owner = owner_of_class(value)
    if owner.kind != "user":
        add_foreign(encoder, owner, module_of(value), value.__qualname__)
    elif is_compiled_class(value):
        add_compiled(encoder, module_of(value), value.__qualname__)
    else:
        encoder.reference(value)


@handles_family(lambda kind: issubclass(kind, types.ModuleType))
def _module(encoder: Encoder, value: types.ModuleType) -> None:
    name = name_of_module(value)
    owner = owner_of(name)
    if owner.kind != "user":
        add_foreign(encoder, owner, name, "")
    elif is_extension(name):
        add_compiled(encoder, name, "")
    else:
        encoder.reference(value)


@handles(types.BuiltinFunctionType)
def _builtin(encoder: Encoder, value: types.BuiltinFunctionType) -> None:
    if is_of_module(value):
        _compiled(encoder, value.__module__ or "builtins", value.__qualname__)
    elif generator := name_of_process_wide(value.__self__):
        encoder.tagged("process-wide", generator, value.__name__)
    elif (start := encoder.enter(value)) >= 0:
        encoder.tagged("method", value.__self__, value.__name__)
        encoder.leave(value, start)


@handles(
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)
def _descriptor(encoder: Encoder, value: Any) -> None:
    # The name is enough: descriptors of a readable class are encoded with that class.
    cls = value.__objclass__
    encoder.tagged("descriptor", cls.__qualname__, value.__name__)
    owner = owner_of_class(cls)
    if owner.kind == "library":
        encoder.library(owner.name, owner.version)
    elif owner.kind == "user" and is_compiled_class(cls):
        add_compiled(encoder, module_of(cls), value.__name__)


def _compiled(encoder: Encoder, module: str, name: str) -> None:
    owner = owner_of(module)
    if owner.kind == "user":
        add_compiled(encoder, module, name)
    else:
        add_foreign(encoder, owner, module, name)


#: Types of functions from compilers to C, by name.
_COMPILED: Final = frozenset({"cython_function_or_method", "fused_cython_function", "nb_func", "nb_method"})


@handles_family(lambda kind: kind.__name__ in _COMPILED and is_compiled(kind))
def _compiled_function(encoder: Encoder, value: Any) -> None:
    if (start := encoder.enter(value)) >= 0:
        encoder.open("compiled function", 2)
        _compiled(encoder, str(value.__module__), str(value.__qualname__))
        encoder.add([getattr(value, "__closure__", None), getattr(value, "__dict__", None) or None])
        encoder.leave(value, start)


@handles(types.MethodType)
def _method(encoder: Encoder, value: types.MethodType) -> None:
    if generator := name_of_process_wide(value.__self__):
        # Its state is not an input of the function; it is listed as random.
        encoder.tagged("process-wide", generator, value.__name__)
    elif (start := encoder.enter(value)) >= 0:
        encoder.tagged("method", value.__self__, value.__func__)
        encoder.leave(value, start)


@handles(types.MethodWrapperType)
def _method_wrapper(encoder: Encoder, value: types.MethodWrapperType) -> None:
    if (start := encoder.enter(value)) >= 0:
        encoder.tagged("method", value.__self__, value.__name__)
        encoder.leave(value, start)


@handles(functools.partial)
def _partial(encoder: Encoder, value: functools.partial[Any]) -> None:
    if (start := encoder.enter(value)) >= 0:
        encoder.tagged("partial", value.func, value.args, value.keywords)
        encoder.leave(value, start)


@handles(functools.partialmethod)
def _partialmethod(encoder: Encoder, value: functools.partialmethod[Any]) -> None:
    encoder.tagged("partialmethod", value.func, value.args, value.keywords)


@handles(functools.singledispatchmethod)
def _singledispatchmethod(encoder: Encoder, value: functools.singledispatchmethod[Any]) -> None:
    encoder.tagged("singledispatchmethod", value.dispatcher, value.func)


@handles(type(functools.lru_cache(len)))
def _lru_cache(encoder: Encoder, value: Any) -> None:
    encoder.tagged("lru_cache", value.__wrapped__)


@handles(functools.cached_property)
def _cached_property(encoder: Encoder, value: functools.cached_property[Any]) -> None:
    encoder.tagged("cached_property", value.func)


@handles(property)
def _property(encoder: Encoder, value: property) -> None:
    encoder.tagged("property", value.fget, value.fset, value.fdel)


@handles(staticmethod)
def _staticmethod(encoder: Encoder, value: staticmethod[Any, Any]) -> None:
    encoder.tagged("staticmethod", value.__func__)


@handles(classmethod)
def _classmethod(encoder: Encoder, value: classmethod[Any, Any, Any]) -> None:
    encoder.tagged("classmethod", value.__func__)


@handles(types.CodeType)
def _code(encoder: Encoder, value: types.CodeType) -> None:
    encoder.tagged("code object", info_of(value).digest)


@handles(dataclasses.Field)
def _field(encoder: Encoder, value: dataclasses.Field[Any]) -> None:
    names = ("name", "type", "default", "default_factory", "init", "repr", "hash", "compare", "kw_only", "metadata")
    encoder.tagged("field", *(getattr(value, name) for name in names))
